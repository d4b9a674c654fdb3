package published

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// tiny are complete networks of few numbers, by name.
func tiny() map[string]Spec {
	eva := vit.Config{Arch: vit.EVA, ImageSize: 42, PatchSize: 14, Width: 6, Layers: 2, Heads: 2,
		MLPRatio: vit.RatioOf(9, 6), LayerNormEps: 1e-6}
	openAI := eva
	openAI.Arch, openAI.LayerNormEps = vit.CLIP, 1e-5
	q := qformer.Config{Hidden: 4, Layers: 3, Heads: 2, Intermediate: 5, Queries: 3, CrossAttentionFreq: 2,
		EncoderWidth: 6,
		Vocab:        22, MaxPositions: 9, LayerNormEps: 1e-12, Dropout: 0.1}
	queries := q
	queries.Vocab, queries.MaxPositions = 0, 0
	decoder := opt.Config{Vocab: 30, Hidden: 8, Layers: 2, Heads: 2, FFN: 9, Positions: 20, LayerNormEps: 1e-5,
		Dropout: 0.1}
	seq2seq := t5.Config{Vocab: 30, Hidden: 8, HeadDim: 3, Heads: 2, FFN: 9, EncoderLayers: 2, DecoderLayers: 3,
		Activation: nn.GELU, Buckets: 8, MaxDistance: 128, RMSNormEps: 1e-6, Dropout: 0.1}
	flan := seq2seq
	flan.Activation = nn.GELUNew
	captioner := openAI
	captioner.Arch, captioner.LayerNormEps, captioner.ImageSize, captioner.PatchSize = vit.BLIP, 1e-6, 32, 16
	bert := q
	bert.Queries, bert.CrossAttentionFreq, bert.EncoderWidth, bert.Vocab = 0, 0, 0, 21
	blip2 := func(model string, v vit.Config, q qformer.Config) Spec {
		return Spec{Model: model, Vision: &v, QFormer: &q, LNVisionEps: 1e-6}
	}
	stage1, stage1CLIP := blip2(naming.BLIP2Stage1, eva, q), blip2(naming.BLIP2Stage1, openAI, q)
	stage1.QFormerText, stage1.EmbedDim = true, 2
	stage1CLIP.QFormerText, stage1CLIP.EmbedDim = true, 2
	withOPT, withT5, withCLIP := blip2(naming.BLIP2OPT, eva, queries), blip2(naming.BLIP2T5, eva, queries),
		blip2(naming.BLIP2OPT, openAI, queries)
	withOPT.OPT, withOPT.LLMWidth, withOPT.EOS = &decoder, 8, 7
	withCLIP.OPT, withCLIP.LLMWidth, withCLIP.EOS = &decoder, 8, 7
	withT5.T5, withT5.LLMWidth, withT5.EOS = &seq2seq, 8, 1
	return map[string]Spec{
		"stage1": stage1, "stage1-clip": stage1CLIP, "blip2-opt": withOPT, "blip2-opt-clip": withCLIP, "blip2-t5": withT5,
		"opt": {Model: naming.OPT, OPT: &decoder, EOS: 2}, "t5": {Model: naming.T5, T5: &flan},
		"clip": {Model: naming.CLIP, CLIP: &clip.Config{Image: openAI, Embed: 5,
			Text: clip.Text{Vocab: 25, Context: 7, Width: 4, Layers: 2, Heads: 2, MLP: 9, LayerNormEps: 1e-5}}},
		"blip": {Model: naming.BLIPCaption, BOS: 20, EOS: 5, BLIP: &blip.Config{Vision: captioner, Hidden: 4, Layers: 2,
			Heads:        2,
			Intermediate: 5, Vocab: 22, MaxPositions: 9, LayerNormEps: 1e-12}},
		"bert": {Model: naming.BERT, BERT: &bert}, "eva": {Model: naming.EVAViT, Vision: &eva},
		"clip-vit": {Model: naming.CLIPViT, Vision: &openAI},
	}
}

// clone is a Spec that shares nothing with s.
func clone(t *testing.T, s Spec) Spec {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out Spec
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// sameSpec compares two Specs.
func sameSpec(t *testing.T, what string, got, want Spec) {
	t.Helper()
	g, _ := json.MarshalIndent(got, "", " ")
	w, _ := json.MarshalIndent(want, "", " ")
	if !bytes.Equal(g, w) {
		t.Errorf("%s: got %s\nwant %s", what, g, w)
	}
}

// state is the contents of a checkpoint file.
type state map[string]weights.Tensor

// stateOf draws a state dict of the Spec's tensors under the model's names.
func stateOf(s Spec) state {
	out := state{}
	for i, p := range s.Params() {
		p.Init = model.Normal(0.5)
		out[p.Name] = weights.FromFloat32(p.Name, p.Shape, model.Draw(p, int64(i)))
	}
	return out
}

// by returns the state under the names of a publisher.
func (s state) by(t *testing.T, network, publisher string) state {
	t.Helper()
	m, _ := naming.Find(network)
	get := func(name string) (weights.Tensor, error) {
		tensor, ok := s[name]
		if !ok {
			return tensor, fmt.Errorf("no tensor %s", name)
		}
		return tensor, nil
	}
	outputs, _, err := m.Tables[publisher].Export(slices.Sorted(maps.Keys(s)), get, get)
	if err != nil {
		t.Fatal(err)
	}
	out := state{}
	for _, o := range outputs {
		data, err := o.Data()
		if err != nil {
			t.Fatal(err)
		}
		out[o.Name] = weights.Tensor{Name: o.Name, DType: o.DType, Shape: o.Shape, Data: data}
	}
	return out
}

// renamed returns the state with other names; "" leaves a tensor out.
func (s state) renamed(to func(string) string) state {
	out := state{}
	for name, tensor := range s {
		if tensor.Name = to(name); tensor.Name != "" {
			out[tensor.Name] = tensor
		}
	}
	return out
}

// without leaves out the tensors whose names begin with one of the prefixes.
func (s state) without(prefixes ...string) state {
	return s.renamed(func(name string) string {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return ""
		}
		return name
	})
}

// write writes the state to a safetensors file.
func (s state) write(t *testing.T, path string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := weights.Write(path, slices.SortedFunc(maps.Values(s), func(a, b weights.Tensor) int {
		return strings.Compare(a.Name, b.Name)
	}), nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// file writes the state to a file of its own.
func (s state) file(t *testing.T, name string) string {
	return s.write(t, filepath.Join(t.TempDir(), name+".safetensors"))
}

// folder writes a folder of transformers.
func folder(t *testing.T, spec Spec, s state) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hf")
	s.by(t, spec.Model, naming.HuggingFace).write(t, filepath.Join(dir, weights.SingleFile))
	files, err := HFFiles(spec, weights.F32)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

// read returns all tensors of a checkpoint.
func read(t *testing.T, path string) state {
	t.Helper()
	src, err := weights.OpenAny(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	out := state{}
	for _, name := range src.Names() {
		if out[name], err = src.Tensor(name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// sameStates compares names, types, shapes and numbers.
func sameStates(t *testing.T, what string, got, want state) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("%s: no tensor %s", what, name)
		} else if g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("%s: %s is %s %v and not the %s %v that it was", what, name, g.DType, g.Shape, w.DType, w.Shape)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: a tensor %s too many", what, name)
		}
	}
}

// says checks that there is an error with every one of the texts.
func says(t *testing.T, what string, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one that says %q", what, texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %q does not say %q", what, err, text)
		}
	}
}

// hints are the heads of tiny networks.
var hints = Hints{VisionHeads: 2, QFormerHeads: 2, LLMHeads: 2}
