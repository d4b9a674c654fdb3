package published

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// convert writes a checkpoint in another form and returns the folder.
func convert(t *testing.T, p Parts, o Output) (string, *Written) {
	t.Helper()
	a := assemble(t, p)
	o.Dir = filepath.Join(t.TempDir(), "out")
	w, err := a.Write(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o.Dir, w
}

// TestConvertThereAndBack: every network that has two forms is the same after a way through both, bit for bit, but for
// what the other form has no place for.
func TestConvertThereAndBack(t *testing.T) {
	for name, spec := range tiny() {
		forms := spec.forms()
		for _, to := range forms {
			t.Run(name+" to "+to, func(t *testing.T) {
				s := stateOf(spec)
				start, first := convert(t, Parts{Main: s.by(t, spec.Model, forms[0]).file(t, name), Hints: hints},
					Output{To: forms[0]})
				there, w := convert(t, Parts{Main: start}, Output{To: to})
				back, _ := convert(t, Parts{Main: there}, Output{To: forms[0]})
				want := s.by(t, spec.Model, forms[0])
				for _, n := range w.Dropped {
					delete(want, n.Name)
				}
				sameStates(t, name, read(t, back), want)
				if len(first.Dropped) != 0 && forms[0] == naming.LAVIS || w.Model != spec.Model || w.Tensors == 0 {
					t.Errorf("written %+v", w)
				}
				c, err := Open(there, Hints{})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Plan(false, false); err != nil || c.Publisher != to {
					t.Errorf("written is %s's, error %v", c.Publisher, err)
				}
				if total := folderSize(t, there); w.Bytes > total || w.Bytes < total/4 {
					t.Errorf("%d bytes were written, says the report; the files have %d", w.Bytes, total)
				}
				if !slices.Equal(w.Files, entries(t, there)) {
					t.Errorf("files %v, the folder has %v", w.Files, entries(t, there))
				}
			})
		}
	}
}

// forms lists how the network can be written, the one that has everything first.
func (s Spec) forms() []string {
	switch {
	case s.Model == naming.BERT || s.Model == naming.EVAViT || s.Model == naming.CLIPViT:
		return nil
	case s.Model == naming.OPT || s.Model == naming.T5 || s.Model == naming.CLIP:
		return []string{naming.HuggingFace}
	case s.Vision != nil && s.Vision.Arch == "clip":
		return []string{naming.LAVIS}
	}
	return []string{naming.LAVIS, naming.HuggingFace}
}

// folderSize adds up the files of a folder.
func folderSize(t *testing.T, dir string) int64 {
	t.Helper()
	n := int64(0)
	for _, name := range entries(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// TestKeepsSpec: LAVIS's form, which has no config.json, still knows heads and epsilons.
func TestKeepsSpec(t *testing.T) {
	for _, name := range []string{"stage1", "blip2-opt", "blip2-t5", "blip"} {
		spec := tiny()[name]
		dir := folder(t, spec, stateOf(spec))
		lavis, w := convert(t, Parts{Main: dir}, Output{To: naming.LAVIS})
		c, err := Open(lavis, Hints{})
		if err != nil {
			t.Fatal(err)
		}
		sameSpec(t, name, c.Spec, spec)
		if c.SpecFrom != "the file's metadata" {
			t.Errorf("%s: sizes from %s", name, c.SpecFrom)
		}
		_ = c.Close()
		if lost := len(w.Absent) > 0; lost != (name == "stage1") {
			t.Errorf("%s: %v were not in the folder", name, w.Absent)
		}
	}
}

// TestWriteRefuses what has no such form; nothing is written.
func TestWriteRefuses(t *testing.T) {
	specs := tiny()
	own := func(name string) string {
		spec := specs[name]
		return stateOf(spec).by(t, spec.Model, spec.firstForm()).file(t, name)
	}
	partial := stateOf(specs["blip2-opt"]).without(naming.VisionPrefix, "opt_model.").file(t, "blip2_pretrained_opt")
	large := stateOf(specs["stage1"])
	large["temp"] = weights.FromFloat32("temp", nil, []float32{1e6})
	trained := stateOf(specs["blip2-opt"]).by(t, naming.BLIP2OPT, naming.HuggingFace)
	const key = "vision_model.encoder.layers.1.self_attn.qkv.bias"
	values, err := trained[key].Float32s()
	if err != nil {
		t.Fatal(err)
	}
	values[7] = 0.25
	trained[key] = weights.FromFloat32(key, []int{len(values)}, values)
	keyBias := folder(t, specs["blip2-opt"], stateOf(specs["blip2-opt"]))
	trained.write(t, filepath.Join(keyBias, weights.SingleFile))
	for _, c := range []struct {
		what string
		p    Parts
		to   string
		says []string
	}{
		{"CLIP's encoder for transformers", Parts{Main: own("stage1-clip")}, naming.HuggingFace,
			[]string{"EVA's image encoder only", "clip"}},
		{"an encoder alone", Parts{Main: own("eva")}, naming.LAVIS, []string{"eva-vit", "a part of BLIP-2", "assemble"}},
		{"an encoder alone for transformers", Parts{Main: own("clip-vit")}, naming.HuggingFace, []string{"clip-vit",
			"assemble"}},
		{"BERT", Parts{Main: bertFolder(t, specs["bert"], stateOf(specs["bert"]))}, naming.HuggingFace, []string{"bert",
			"assemble"}},
		{"OPT for LAVIS", Parts{Main: own("opt")}, naming.LAVIS, []string{"no form of its own for opt", "Hugging Face"}},
		{"no such form", Parts{Main: own("opt")}, "gguf", []string{`"gguf"`, "hf or lavis"}},
		{"half a model for transformers", Parts{Main: partial, Partial: true}, naming.HuggingFace,
			[]string{"image encoder is not in it", "language model is not in it"}},
		{"too large for float16", Parts{Main: large.file(t, "large"), DType: weights.F16}, naming.LAVIS,
			[]string{"large.safetensors", "temp", "1e+06", "float16", "bf16"}},
		{"a trained key bias", Parts{Main: keyBias}, naming.LAVIS, []string{keyBias, key, "key 1", "0.25",
			"keys have no bias"}},
	} {
		c.p.Hints = hints
		a := assemble(t, c.p)
		parent := t.TempDir()
		_, err := a.Write(t.Context(), Output{Dir: filepath.Join(parent, "deep", "out"), To: c.to})
		says(t, c.what, err, c.says...)
		if left := entries(t, parent); len(left) != 0 {
			t.Errorf("%s: %v is left", c.what, left)
		}
	}
}

// firstForm is a publisher that has names for the network.
func (s Spec) firstForm() string {
	m, _ := naming.Find(s.Model)
	for _, publisher := range []string{naming.LAVIS, naming.HuggingFace, naming.Original} {
		if _, ok := m.Tables[publisher]; ok {
			return publisher
		}
	}
	return ""
}

// TestDType: all numbers get the type, and config.json says so.
func TestDType(t *testing.T) {
	spec := tiny()["blip2-t5"]
	s := stateOf(spec)
	dir := folder(t, spec, s)
	for dtype, name := range map[weights.DType]string{weights.BF16: "bfloat16", weights.F16: "float16",
		weights.F32: "float32"} {
		out, _ := convert(t, Parts{Main: dir, DType: dtype}, Output{To: naming.HuggingFace})
		want := state{}
		for name, tensor := range s.by(t, spec.Model, naming.HuggingFace) {
			cast, err := tensor.CastFloat(dtype)
			if err != nil {
				t.Fatal(err)
			}
			want[name] = cast
		}
		sameStates(t, name, read(t, out), want)
		raw, err := os.ReadFile(filepath.Join(out, configFile))
		if err != nil || !strings.Contains(string(raw), `"torch_dtype": "`+name+`"`) {
			t.Errorf("%s: config.json is %s, error %v", name, raw, err)
		}
	}
}

// TestCommon: a library that casts everything to one type must not round anything.
func TestCommon(t *testing.T) {
	for _, c := range []struct {
		types []weights.DType
		want  weights.DType
	}{
		{nil, weights.F32},
		{[]weights.DType{weights.F16, weights.I64, weights.F16}, weights.F16},
		{[]weights.DType{weights.BF16}, weights.BF16},
		{[]weights.DType{weights.F16, weights.F32}, weights.F32},
		{[]weights.DType{weights.F16, weights.BF16}, weights.F32},
	} {
		if got := common(c.types); got != c.want {
			t.Errorf("%v: %s, want %s", c.types, got, c.want)
		}
	}
}

// TestKeepOriginals: converting a folder to one of the same kind changes only what is asked for.
func TestKeepOriginals(t *testing.T) {
	spec := tiny()["blip2-opt"]
	dir := folder(t, spec, stateOf(spec))
	edit := func(name string, change func(root map[string]any)) {
		path := filepath.Join(dir, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var root map[string]any
		if err := json.Unmarshal(raw, &root); err != nil {
			t.Fatal(err)
		}
		change(root)
		if raw, err = json.Marshal(root); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	edit(configFile, func(root map[string]any) {
		root["_name_or_path"] = "somebody/something"
		root["text_config"].(map[string]any)["prefix"] = "</s>"
		root["text_config"].(map[string]any)["dtype"] = "float32" // as transformers states it from 4.56 on
		root["vision_config"].(map[string]any)["torch_dtype"] = nil
		delete(root["vision_config"].(map[string]any), "attention_dropout")
	})
	out, _ := convert(t, Parts{Main: dir, DType: weights.BF16}, Output{To: naming.HuggingFace})
	raw, err := os.ReadFile(filepath.Join(out, configFile))
	if err != nil {
		t.Fatal(err)
	}
	var root struct {
		Name   string         `json:"_name_or_path"`
		DType  string         `json:"torch_dtype"`
		Text   map[string]any `json:"text_config"`
		Vision map[string]any `json:"vision_config"`
	}
	if err := json.Unmarshal(raw, &root); err != nil {
		t.Fatal(err)
	}
	_, invented := root.Vision["attention_dropout"]
	if root.Name != "somebody/something" || root.Text["prefix"] != "</s>" || invented || root.DType != "bfloat16" {
		t.Errorf("config.json became %s", raw)
	}
	if root.Text["dtype"] != "bfloat16" || root.Vision["torch_dtype"] != nil {
		t.Errorf("the parts have the types %v and %v", root.Text["dtype"], root.Vision["torch_dtype"])
	}
}

// TestShards: files of a bounded size with an index, which are read as one.
func TestShards(t *testing.T) {
	spec := tiny()["blip2-opt"]
	s := stateOf(spec)
	dir := folder(t, spec, s)
	out, w := convert(t, Parts{Main: dir}, Output{To: naming.HuggingFace, MaxShard: 2000})
	if !slices.Contains(w.Files, weights.IndexFile) || slices.Contains(w.Files, weights.SingleFile) || len(w.Files) < 8 {
		t.Errorf("files %v", w.Files)
	}
	sameStates(t, "sharded", read(t, out), s.by(t, spec.Model, naming.HuggingFace))
	back, _ := convert(t, Parts{Main: out}, Output{To: naming.LAVIS, MaxShard: 2000})
	sameStates(t, "sharded LAVIS", read(t, back), s)
	c, err := Open(back, Hints{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sameSpec(t, "sharded LAVIS", c.Spec, spec)
}

// TestWriteFails: on a cancelled context, a taken or a read-only folder, nothing is left or changed.
func TestWriteFails(t *testing.T) {
	spec := tiny()["stage1"]
	a := assemble(t, Parts{Main: stateOf(spec).file(t, "stage1"), Hints: hints})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	parent := t.TempDir()
	if _, err := a.Write(cancelled, Output{Dir: filepath.Join(parent, "out"), To: naming.LAVIS}); !errors.Is(err,
		context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	taken := filepath.Join(parent, "taken")
	if err := os.MkdirAll(taken, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(taken, "mine"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := a.Write(t.Context(), Output{Dir: taken, To: naming.LAVIS})
	says(t, "a taken folder", err, taken)
	if got := entries(t, parent); !slices.Equal(got, []string{"taken"}) || !slices.Equal(entries(t, taken),
		[]string{"mine"}) {
		t.Errorf("left are %v and %v", got, entries(t, taken))
	}
	if os.Getuid() != 0 {
		closed := filepath.Join(parent, "closed")
		if err := os.Mkdir(closed, 0o555); err != nil {
			t.Fatal(err)
		}
		_, err := a.Write(t.Context(), Output{Dir: filepath.Join(closed, "out"), To: naming.LAVIS})
		says(t, "a read-only folder", err, closed, "writable")
	}
	if _, err := a.Write(t.Context(), Output{Dir: filepath.Join(parent, "taken", "mine", "out"),
		To: naming.LAVIS}); err == nil {
		t.Error("a folder inside a file")
	}
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(t.Context(), Output{Dir: empty, To: naming.LAVIS}); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// tokenizerOf writes tokenizer files of a vocabulary into a folder.
func tokenizerOf(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	raw := map[string][]byte{}
	for name, text := range files {
		raw[name] = []byte(text)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(dir, raw); err != nil {
		t.Fatal(err)
	}
}

// TestTokenizerGoesAlong: the tokenizer beside the weights, or one that is named, is copied, and learns <image> where
// the model has an id for it.
func TestTokenizerGoesAlong(t *testing.T) {
	spec := tiny()["blip2-opt"]
	image := 29
	spec.ImageToken = &image
	s := stateOf(spec)
	dir := folder(t, spec, s)
	files := map[string]string{
		"tokenizer.json":        `{"added_tokens":[{"id":2,"content":"</s>","special":true}],"model":{"big":12345678901234567890}}`,
		"tokenizer_config.json": `{"bos_token":"</s>","tokenizer_class":"GPT2Tokenizer"}`,
		"vocab.json":            `{"a":0}`, "merges.txt": "#version: 0.2\n",
	}
	tokenizerOf(t, dir, files)
	out, w := convert(t, Parts{Main: dir}, Output{To: naming.HuggingFace})
	for name := range files {
		if !slices.Contains(w.Files, name) {
			t.Errorf("%s is not written: %v", name, w.Files)
		}
	}
	var tok struct {
		Added []struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
			Special bool   `json:"special"`
		} `json:"added_tokens"`
		Model map[string]json.RawMessage `json:"model"`
	}
	raw, err := os.ReadFile(filepath.Join(out, "tokenizer.json"))
	if err == nil {
		err = json.Unmarshal(raw, &tok)
	}
	if err != nil || len(tok.Added) != 2 || tok.Added[1].ID != 29 || tok.Added[1].Content != "<image>" ||
		!tok.Added[1].Special ||
		string(tok.Model["big"]) != "12345678901234567890" {
		t.Errorf("tokenizer.json is %s, error %v", raw, err)
	}
	again, _ := convert(t, Parts{Main: out}, Output{To: naming.HuggingFace})
	for _, name := range w.Files {
		a, errA := os.ReadFile(filepath.Join(out, name))
		b, errB := os.ReadFile(filepath.Join(again, name))
		if err := errors.Join(errA, errB); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s changes when it is written again: %v", name, err)
		}
	}
	_, w = convert(t, Parts{Main: filepath.Join(dir, weights.SingleFile)}, Output{To: naming.HuggingFace})
	if !w.Tokenizer {
		t.Errorf("of the file in the folder: %v", w.Files)
	}
	other := filepath.Join(t.TempDir(), "tokenizer")
	tokenizerOf(t, other, map[string]string{"vocab.txt": "[PAD]\n"})
	_, w = convert(t, Parts{Main: dir}, Output{To: naming.HuggingFace, Tokenizer: other})
	if !slices.Contains(w.Files, "vocab.txt") || slices.Contains(w.Files, "merges.txt") {
		t.Errorf("files %v", w.Files)
	}
	a := assemble(t, Parts{Main: dir})
	_, err = a.Write(t.Context(), Output{Dir: filepath.Join(t.TempDir(), "x"), To: naming.HuggingFace,
		Tokenizer: t.TempDir()})
	says(t, "no tokenizer", err, "holds none of a tokenizer's files", "vocab.json")
	for path, want := range map[string]string{
		filepath.Join(other, "vocab.txt"): "is a file; name the folder", filepath.Join(other, "none"): "no such file"} {
		_, err := a.Write(t.Context(), Output{Dir: filepath.Join(t.TempDir(), "x"), To: naming.HuggingFace, Tokenizer: path})
		says(t, path, err, path, want)
	}
	_, w = convert(t, Parts{Main: dir}, Output{To: naming.LAVIS})
	if !slices.Equal(w.Files, []string{weights.SingleFile}) {
		t.Errorf("LAVIS's form has %v", w.Files)
	}
	bare, w := convert(t, Parts{Main: dir}, Output{To: naming.LAVIS, Tokenizer: other})
	if !w.Tokenizer || !slices.Contains(w.Files, "vocab.txt") {
		t.Errorf("LAVIS's form with a tokenizer has %v", w.Files)
	}
	if err := errors.Join(os.Remove(filepath.Join(bare, "vocab.txt")),
		os.Remove(filepath.Join(bare, "added_tokens.json"))); err != nil {
		t.Fatal(err)
	}
	_, w = convert(t, Parts{Main: bare}, Output{To: naming.HuggingFace})
	if w.Tokenizer || slices.Contains(w.Files, "added_tokens.json") {
		t.Errorf("without a tokenizer there is %v", w.Files)
	}
}

// TestAddImageToken edits tokenizer files.
func TestAddImageToken(t *testing.T) {
	for _, c := range []struct {
		what  string
		files map[string]string
		says  []string // of an error
		want  map[string]string
	}{
		{"only a vocabulary", map[string]string{"vocab.txt": "a"}, nil,
			map[string]string{"added_tokens.json": `{"<image>":9}`}},
		{"a list of added tokens", map[string]string{"added_tokens.json": `{"x":8}`}, nil,
			map[string]string{"added_tokens.json": `{"<image>":9,"x":8}`}},
		{"known already", map[string]string{"tokenizer.json": `{"added_tokens":[{"content":"<image>","id":9}]}`}, nil,
			map[string]string{"tokenizer.json": `{"added_tokens":[{"content":"<image>","id":9}]}`}},
		{"known by another id", map[string]string{"tokenizer.json": `{"added_tokens":[{"content":"<image>","id":7}]}`},
			[]string{"tokenizer.json", "<image>", "7", "9"}, nil},
		{"id of another token", map[string]string{"tokenizer.json": `{"added_tokens":[{"content":"x","id":9}]}`},
			[]string{"tokenizer.json", `"x"`, "9"}, nil},
		{"listed by another id", map[string]string{"added_tokens.json": `{"<image>":7}`}, []string{"added_tokens.json", "7",
			"9"}, nil},
		{"decoder with the id of another",
			map[string]string{"tokenizer_config.json": `{"added_tokens_decoder":{"9":{"content":"x"}}}`},
			[]string{"tokenizer_config.json", `"x"`, "9"}, nil},
		{"no object", map[string]string{"tokenizer.json": `[]`}, []string{"tokenizer.json", "no JSON object"}, nil},
		{"no JSON", map[string]string{"tokenizer_config.json": `{`}, []string{"tokenizer_config.json", "no JSON object"},
			nil},
		{"added tokens of a wrong kind", map[string]string{"tokenizer.json": `{"added_tokens":{}}`},
			[]string{"tokenizer.json", "added_tokens"}, nil},
		{"null", map[string]string{"tokenizer.json": `null`}, []string{"tokenizer.json", "no JSON object"}, nil},
		{"behind the object", map[string]string{"tokenizer.json": `{} {}`}, []string{"tokenizer.json", "no JSON object"},
			nil},
	} {
		files := map[string][]byte{}
		for name, text := range c.files {
			files[name] = []byte(text)
		}
		err := addImageToken(files, 9)
		if c.says != nil {
			says(t, c.what, err, c.says...)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		for name, want := range c.want {
			var compact bytes.Buffer
			if err := json.Compact(&compact, files[name]); err != nil || compact.String() != want {
				t.Errorf("%s: %s is %s, want %s; error %v", c.what, name, compact.String(), want, err)
			}
		}
	}
}

// FuzzAddImageToken: no bytes make it panic; what it accepts stays JSON.
func FuzzAddImageToken(f *testing.F) {
	f.Add([]byte(`{"added_tokens":[{"content":"</s>","id":2}]}`))
	f.Add([]byte(`{"added_tokens_decoder":{"9":{"content":"x"}},"x":1e999}`))
	f.Add([]byte(`{"<image>":9.5}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, name := range []string{"tokenizer.json", "added_tokens.json", "tokenizer_config.json"} {
			files := map[string][]byte{name: raw}
			if err := addImageToken(files, 9); err != nil {
				continue
			}
			once := maps.Clone(files)
			for name, text := range files {
				if !json.Valid(text) {
					t.Errorf("%s becomes %q", name, text)
				}
			}
			if err := addImageToken(files, 9); err != nil || !maps.EqualFunc(files, once, bytes.Equal) {
				t.Errorf("%q is not the same when edited twice: %q, %q; error %v", raw, once, files, err)
			}
		}
	})
}

// Captions end with the newline that the language model's own tokenizer has: not always the published one.
func TestCaptionsEndWithTheNewline(t *testing.T) {
	spec := tiny()["blip2-opt"]
	s := stateOf(spec)
	llm := llmFolder(t, spec, s)
	trained := s.without("opt_model.").by(t, naming.BLIP2OPT, naming.LAVIS).file(t, "stage2.safetensors")
	for vocab, want := range map[string]int{
		`{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"Ċ":14}`: 14,
		`{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"Ċ":30}`: 2, // the model has no such row: what its class has
		`{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4}`:        2,
	} {
		tokenizerOf(t, llm, map[string]string{"vocab.json": vocab, "merges.txt": "#version: 0.2\n"})
		out, _ := convert(t, Parts{Main: trained, LLM: llm, Hints: hints}, Output{To: naming.HuggingFace})
		if got, err := ReadConfig(out); err != nil || got.EOS != want {
			t.Errorf("%s: texts end with %d, want %d, error %v", vocab, got.EOS, want, err)
		}
		raw, err := os.ReadFile(filepath.Join(out, "generation_config.json"))
		if text := fmt.Sprintf(`"eos_token_id": %d`, want); err != nil || !strings.Contains(string(raw), text) {
			t.Errorf("%s: generation_config.json without %s: %s, %v", vocab, text, raw, err)
		}
	}
}
