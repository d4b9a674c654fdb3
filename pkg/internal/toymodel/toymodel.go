// Package toymodel makes folders of small models as they are published, with tokenizers, for tests of what opens and
// uses such folders. Their weights are random.
package toymodel

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/weights"
)

// Size is the side of the models' pictures in pixels, Queries the number of query tokens.
const (
	Size    = 42
	Queries = 3
)

// letters are the pieces of the small tokenizers: enough to write questions letter by letter.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:?"

// words are the pieces of the small WordPiece vocabulary, behind the special tokens.
var words = []string{"a", "of", "photo", "picture", "cat", "dog", "red", "big", "two", "##s"}

// Spec returns the small network of a kind: naming.BLIP2OPT, BLIP2T5, BLIP2Stage1 or BLIPCaption.
func Spec(network string) published.Spec {
	vision := vit.Config{Arch: vit.EVA, ImageSize: Size, PatchSize: 14, Width: 12, Layers: 2, Heads: 2,
		MLPRatio: vit.RatioOf(18, 12), LayerNormEps: 1e-6}
	q := qformer.Config{Hidden: 8, Layers: 4, Heads: 2, Intermediate: 10, Queries: Queries, CrossAttentionFreq: 2,
		EncoderWidth: 12, LayerNormEps: 1e-12, Dropout: 0.1}
	s := published.Spec{Model: network, Vision: &vision, QFormer: &q, LNVisionEps: 1e-6}
	switch network {
	case naming.BLIP2OPT:
		s.OPT = &opt.Config{Vocab: 72, Hidden: 16, Layers: 2, Heads: 2, FFN: 20, Positions: 160, LayerNormEps: 1e-5}
		s.LLMWidth, s.EOS = 16, 5 // the newline
	case naming.BLIP2T5:
		s.T5 = &t5.Config{Vocab: 180, Hidden: 16, HeadDim: 6, Heads: 2, FFN: 20, EncoderLayers: 2, DecoderLayers: 2,
			Activation: nn.GELU, Buckets: 8, MaxDistance: 64, RMSNormEps: 1e-6}
		s.LLMWidth, s.EOS = 16, 1
	case naming.BLIP2Stage1:
		q.Vocab, q.MaxPositions = 5+len(words)+1, 40
		s.QFormerText, s.EmbedDim = true, 4
	case naming.BLIPCaption:
		vision.Arch, vision.ImageSize, vision.PatchSize = vit.BLIP, 32, 16
		s = published.Spec{Model: network, BOS: 5 + len(words), EOS: 3, BLIP: &blip.Config{Vision: vision, Hidden: 8,
			Layers: 2, Heads: 2, Intermediate: 10, Vocab: 5 + len(words) + 2, MaxPositions: 40, LayerNormEps: 1e-12}}
	}
	return s
}

// Tensors draws the network's tensors under the names of package naming.
func Tensors(s published.Spec, seed int64) map[string]weights.Tensor {
	out := map[string]weights.Tensor{}
	for _, p := range s.Params() {
		drawn := p
		drawn.Init = model.Normal(0.6)
		out[p.Name] = weights.FromFloat32(p.Name, p.Shape, model.Draw(drawn, seed))
	}
	return out
}

// Folder writes the small network of a kind as a folder with its tokenizer: that of transformers, or, for stage 1, a
// file under LAVIS's names that tells its sizes, and BERT's vocabulary beside it.
func Folder(t *testing.T, network string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := Write(dir, Spec(network)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Write is Folder for any network of the kinds.
func Write(dir string, s published.Spec) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	tensors := Tensors(s, 1)
	files := Tokenizer(s.Model)
	if s.Model == naming.BLIP2Stage1 {
		spec, err := json.Marshal(s)
		if err != nil {
			return err
		}
		list := slices.SortedFunc(maps.Values(tensors), byName)
		metadata := map[string]string{"blip2.spec": string(spec)}
		if err := weights.Write(filepath.Join(dir, weights.SingleFile), list, metadata); err != nil {
			return err
		}
		return writeFiles(dir, files)
	}
	list, err := exported(s.Model, tensors)
	if err != nil {
		return err
	}
	if err := weights.Write(filepath.Join(dir, weights.SingleFile), list, nil); err != nil {
		return err
	}
	config, err := published.HFFiles(s, weights.F32)
	if err != nil {
		return err
	}
	maps.Copy(files, config)
	return writeFiles(dir, files)
}

func byName(a, b weights.Tensor) int { return strings.Compare(a.Name, b.Name) }

// exported are the tensors under the names of transformers.
func exported(network string, tensors map[string]weights.Tensor) ([]weights.Tensor, error) {
	m, _ := naming.Find(network)
	get := func(name string) (weights.Tensor, error) {
		tensor, ok := tensors[name]
		if !ok {
			return tensor, fmt.Errorf("no tensor %s", name)
		}
		return tensor, nil
	}
	outputs, _, err := m.Tables[naming.HuggingFace].Export(slices.Sorted(maps.Keys(tensors)), get, get)
	if err != nil {
		return nil, err
	}
	var list []weights.Tensor
	for _, o := range outputs {
		data, err := o.Data()
		if err != nil {
			return nil, err
		}
		list = append(list, weights.Tensor{Name: o.Name, DType: o.DType, Shape: o.Shape, Data: data})
	}
	slices.SortFunc(list, byName)
	return list, nil
}

func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// Tokenizer returns the files of the network's tokenizer.
func Tokenizer(network string) map[string][]byte {
	switch network {
	case naming.BLIP2OPT:
		vocab := map[string]int{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "Ġ": 4, "Ċ": 5}
		for i, r := range letters {
			vocab[string(r)] = 6 + i
		}
		text, err := json.Marshal(vocab)
		if err != nil {
			panic(err) // cannot happen: names and numbers
		}
		return map[string][]byte{"vocab.json": text, "merges.txt": []byte("#version: 0.2\n")}
	case naming.BLIP2T5:
		pieces := []string{"<pad>\x00\x03", "</s>\x00\x03", "<unk>\x00\x02", "▁"}
		for _, r := range letters {
			pieces = append(pieces, string(r))
		}
		return map[string][]byte{"spiece.model": sentencePiece(pieces)}
	}
	vocab := append([]string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, words...)
	return map[string][]byte{"vocab.txt": []byte(strings.Join(vocab, "\n") + "\n")}
}

// sentencePiece is a model file with the pieces "piece\x00type" and falling scores.
func sentencePiece(pieces []string) []byte {
	field := func(dst []byte, number int, data []byte) []byte {
		return append(append(dst, byte(number<<3|2), byte(len(data))), data...)
	}
	var out []byte
	for i, text := range pieces {
		piece, kind, _ := strings.Cut(text, "\x00")
		body := field(nil, 1, []byte(piece))
		body = append(body, 2<<3|5, 0, 0, byte(i), 0xC0)
		if kind != "" {
			body = append(body, 3<<3, kind[0])
		}
		out = field(out, 1, body)
	}
	return out
}

// Picture writes a picture of its own for every seed and returns its path.
func Picture(t *testing.T, dir, name string, seed int) string {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 50, 40))
	for y := range 40 {
		for x := range 50 {
			img.Set(x, y, color.RGBA{uint8(x*(seed+3) + 31*seed), uint8(y*(5*seed+1) ^ x), uint8(40*seed + x + y), 255})
		}
	}
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	return path
}
