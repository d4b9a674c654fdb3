package published

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// encoderFile writes an encoder as published: a block more than BLIP-2 uses, a final norm and a head.
func encoderFile(t *testing.T, v vit.Config, s state) string {
	t.Helper()
	full := v
	full.Layers++
	spec := Spec{Model: naming.EVAViT, Vision: &full}
	ends := map[string][]int{"norm.weight": {v.Width}, "norm.bias": {v.Width}, "head.weight": {3, v.Width}}
	if v.Arch == vit.CLIP {
		spec.Model, ends = naming.CLIPViT, map[string][]int{"ln_post.weight": {v.Width}, "ln_post.bias": {v.Width},
			"proj": {v.Width, 3}}
	}
	all := stateOf(spec)
	for name := range all {
		if tensor, ok := s[name]; ok {
			all[name] = tensor
		}
	}
	out := all.by(t, spec.Model, naming.Original)
	for name, shape := range ends {
		out[name] = weights.FromFloat32(name, shape, make([]float32, model.Param{Shape: shape}.Size()))
	}
	return out.file(t, "encoder")
}

// bertFolder writes BERT as published, with its pooler.
func bertFolder(t *testing.T, spec Spec, s state) string {
	t.Helper()
	out := s.renamed(func(name string) string {
		return strings.NewReplacer("Qformer.cls.", "cls.", "Qformer.bert.", "bert.").Replace(name)
	})
	out["bert.pooler.dense.weight"] = weights.FromFloat32("bert.pooler.dense.weight", []int{1}, []float32{1})
	dir := filepath.Join(t.TempDir(), "bert")
	out.write(t, filepath.Join(dir, weights.SingleFile))
	b := spec.BERT
	config := fmt.Sprintf(`{"model_type":"bert","vocab_size":%d,"hidden_size":%d,"num_hidden_layers":%d,
		"num_attention_heads":%d,"intermediate_size":%d,"max_position_embeddings":%d}`, b.Vocab, b.Hidden, b.Layers, b.Heads,
		b.Intermediate, b.MaxPositions)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// llmFolder writes the language model of BLIP-2 as a folder of its own.
func llmFolder(t *testing.T, spec Spec, s state) string {
	t.Helper()
	alone := Spec{Model: naming.OPT, OPT: spec.OPT, EOS: 2}
	prefix := "opt_model."
	if spec.T5 != nil {
		alone, prefix = Spec{Model: naming.T5, T5: spec.T5}, "t5_model."
	}
	return folder(t, alone, s.renamed(func(name string) string {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			return ""
		}
		return rest
	}))
}

// collect reads all tensors of an assembly.
func collect(t *testing.T, a *Assembly) state {
	t.Helper()
	out := state{}
	for _, name := range a.Names() {
		tensor, err := a.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := a.Info(name)
		if err != nil || info.DType != tensor.DType || !slices.Equal(info.Shape, tensor.Shape) || info.Data != nil {
			t.Errorf("%s is announced as %s %v and is %s %v; error %v", name, info.DType, info.Shape, tensor.DType,
				tensor.Shape, err)
		}
		tensor.Data = bytes.Clone(tensor.Data)
		out[name] = tensor
	}
	return out
}

// assemble is Assemble for parts that fit.
func assemble(t *testing.T, p Parts) *Assembly {
	t.Helper()
	a, err := Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// named is a tensor under another name.
func named(t weights.Tensor, name string) weights.Tensor {
	t.Name = name
	return t
}

// TestAssembleLAVIS: stage 2 from the three files that LAVIS needs is the model that was taken apart; so is the folder
// of transformers made from it.
func TestAssembleLAVIS(t *testing.T) {
	for _, name := range []string{"blip2-opt", "blip2-t5", "blip2-opt-clip"} {
		spec := tiny()[name]
		want := stateOf(spec)
		main := want.without(naming.VisionPrefix, "opt_model.", "t5_model.").file(t, "blip2_pretrained")
		vision := encoderFile(t, *spec.Vision, want)
		llm := llmFolder(t, spec, want)
		a := assemble(t, Parts{Main: main, Vision: vision, LLM: llm, Hints: hints})
		sameStates(t, name, collect(t, a), want)
		if len(a.Drawn)+len(a.Absent) != 0 || len(a.Coverages) != 3 {
			t.Errorf("%s: drawn %v, absent %v, %d coverages", name, a.Drawn, a.Absent, len(a.Coverages))
		}
		for i, path := range []string{main, vision, llm} {
			if a.Coverages[i].Path != path {
				t.Errorf("coverage %d is of %s, want %s", i, a.Coverages[i].Path, path)
			}
		}
		if !strings.Contains(strings.Join(a.Coverages[1].Lines(), "\n"), "block beyond the 2 that are used") {
			t.Errorf("%s: coverage of the encoder: %s", name, a.Coverages[1].Lines())
		}
		sameStates(t, name+" again", collect(t, assemble(t, Parts{QFormer: main, Vision: vision, LLM: llm, Hints: hints})),
			want)
	}
}

// TestAssembleStage1 makes a start point of stage 1: BERT as in pretrained.LoadQFormer, everything else drawn.
func TestAssembleStage1(t *testing.T) {
	spec := tiny()["bert"]
	bert := stateOf(spec)
	v := *tiny()["eva"].Vision
	p := Parts{Vision: encoderFile(t, v, nil), QFormer: bertFolder(t, spec, bert), Queries: 5, Seed: 3,
		Hints: Hints{VisionHeads: 2}}
	a := assemble(t, p)
	if a.Spec.Model != naming.BLIP2Stage1 || a.Spec.QFormer.Queries != 5 || a.Spec.QFormer.Vocab != 22 ||
		a.Spec.EmbedDim != 256 ||
		a.Spec.Vision.Layers != 2 {
		t.Errorf("made %+v of %+v", a.Spec, a.Spec.QFormer)
	}
	got := collect(t, a)
	if len(got) != len(a.Spec.Params()) {
		t.Errorf("%d of %d tensors", len(got), len(a.Spec.Params()))
	}
	if words := got[naming.WordEmbeddings]; !bytes.HasPrefix(words.Data, bert[naming.WordEmbeddings].Data) ||
		words.Shape[0] != 22 {
		t.Errorf("the words are not BERT's and [DEC]: %v", words.Shape)
	}
	const layer = "Qformer.bert.encoder.layer.1."
	if !bytes.Equal(got[layer+"output_query.dense.weight"].Data, bert[layer+"output.dense.weight"].Data) {
		t.Error("the query side does not start as the text side")
	}
	var drawn []string
	for _, n := range a.Drawn {
		drawn = append(drawn, n.Name)
	}
	for _, name := range []string{"query_tokens", "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
		"vision_proj.weight",
		"temp", "ln_vision.bias"} {
		if !slices.Contains(drawn, name) {
			t.Errorf("%s is not among the drawn %v", name, drawn)
		}
	}
	sameStates(t, "the same seed", collect(t, assemble(t, p)), got)
	p.Seed, p.DType = 4, weights.BF16
	other := collect(t, assemble(t, p))
	if same, err := got["query_tokens"].CastFloat(weights.BF16); err != nil || bytes.Equal(same.Data,
		other["query_tokens"].Data) {
		t.Errorf("another seed draws the same; error %v", err)
	}
	for name, tensor := range other {
		if tensor.DType != weights.BF16 {
			t.Errorf("%s is %s", name, tensor.DType)
		}
	}
}

// TestAssembleStage2 makes start points of stage 2: the Q-Former's query side and a projection, its own where the
// checkpoint has one for such a language model.
func TestAssembleStage2(t *testing.T) {
	stage1, withOPT, withT5 := tiny()["stage1"], tiny()["blip2-opt"], tiny()["blip2-t5"]
	vision := encoderFile(t, *stage1.Vision, nil)
	s1, s2 := stateOf(stage1), stateOf(withOPT)
	qformer := s1.without(naming.VisionPrefix).file(t, "stage1")
	trained := s2.without(naming.VisionPrefix, "opt_model.").file(t, "stage2")
	optDir, t5Dir := llmFolder(t, withOPT, s2), llmFolder(t, withT5, stateOf(withT5))
	whole := folder(t, withOPT, s2)
	for _, c := range []struct {
		what         string
		qformer, llm string
		from         state  // where the Q-Former's tensors are from
		kept         string // projection that is kept
		network      string
	}{
		{"stage 1 and OPT", qformer, optDir, s1, "", naming.BLIP2OPT},
		{"stage 1 and T5", qformer, t5Dir, s1, "", naming.BLIP2T5},
		{"stage 1 and the OPT of a BLIP-2", qformer, whole, s1, "", naming.BLIP2OPT},
		{"stage 2 and OPT", trained, optDir, s2, "opt_proj.weight", naming.BLIP2OPT},
		{"stage 2 and T5", trained, t5Dir, s2, "", naming.BLIP2T5},
		{"a folder as Q-Former", whole, optDir, s2, "opt_proj.weight", naming.BLIP2OPT},
		{"a folder as both", whole, whole, s2, "opt_proj.weight", naming.BLIP2OPT},
	} {
		a := assemble(t, Parts{Vision: vision, QFormer: c.qformer, LLM: c.llm, Hints: hints})
		if a.Spec.Model != c.network || a.Spec.QFormerText || a.Spec.LLMWidth != 8 {
			t.Errorf("%s: %+v", c.what, a.Spec)
		}
		if a.Spec.T5 != nil && a.Spec.T5.Activation != "gelu" {
			t.Errorf("%s: T5 with %s, BLIP-2 has the exact gelu", c.what, a.Spec.T5.Activation)
		}
		got := collect(t, a)
		if len(got) != len(a.Spec.Params()) {
			t.Errorf("%s: %d of %d tensors", c.what, len(got), len(a.Spec.Params()))
		}
		for name, tensor := range got {
			if strings.HasPrefix(name, "Qformer.") && !bytes.Equal(tensor.Data, c.from[name].Data) {
				t.Errorf("%s: %s is not the checkpoint's", c.what, name)
			}
		}
		if c.kept != "" && (len(a.Drawn) != 0 || !bytes.Equal(got[c.kept].Data, c.from[c.kept].Data)) {
			t.Errorf("%s: drawn are %v; the projection is not kept", c.what, a.Drawn)
		}
		if c.kept == "" && (len(a.Drawn) != 2 || !strings.HasSuffix(a.Drawn[0].Name, "_proj.bias")) {
			t.Errorf("%s: drawn are %v, want the projection", c.what, a.Drawn)
		}
	}
}

// TestAssembleRefuses combinations that people try, with errors that say what to do; nothing is written.
func TestAssembleRefuses(t *testing.T) {
	specs := tiny()
	files := map[string]string{}
	for name, spec := range specs {
		publisher := naming.LAVIS
		if m, _ := naming.Find(spec.Model); m.Tables[publisher].Name == "" {
			if publisher = naming.HuggingFace; m.Tables[publisher].Name == "" {
				publisher = naming.Original
			}
		}
		if name != "bert" {
			files[name] = stateOf(spec).by(t, spec.Model, publisher).file(t, name)
		}
	}
	for name, model := range map[string]string{"opt": "opt", "t5": "t5", "clip-hf": "clip"} {
		files[name] = folder(t, specs[model], stateOf(specs[model]))
	}
	files["bert"] = bertFolder(t, specs["bert"], stateOf(specs["bert"]))
	files["stage2"] = stateOf(specs["blip2-opt"]).without(naming.VisionPrefix, "opt_model.").file(t,
		"blip2_pretrained_opt")
	files["stage1-only"] = stateOf(specs["stage1"]).without(naming.VisionPrefix).file(t, "blip2_pretrained")
	files["only-projection"] = stateOf(specs["blip2-opt"]).without("Qformer.", "query_tokens", "opt_model.").file(t,
		"projection")
	wide := clone(t, specs["eva"])
	wide.Vision.Width = 8
	wide.Vision.MLPRatio = vit.RatioOf(9, 8)
	files["wide-vision"] = encoderFile(t, *wide.Vision, nil)
	files["vision"] = encoderFile(t, *specs["eva"].Vision, nil)
	larger := clone(t, specs["opt"])
	larger.OPT.Hidden = 10
	files["larger-opt"] = folder(t, larger, stateOf(larger))
	broken := stateOf(specs["stage1"])
	delete(broken, "itm_head.bias")
	broken["extra.weight"] = named(broken["itm_head.weight"], "extra.weight")
	files["broken"] = broken.file(t, "broken")
	files["nothing"] = filepath.Join(t.TempDir(), "no-such.pth")
	files["text"] = filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(files["text"], []byte("<!DOCTYPE html>"), 0o666); err != nil {
		t.Fatal(err)
	}
	files["other"] = state{"fc.weight": named(broken["itm_head.weight"], "fc.weight")}.file(t, "resnet")
	for _, c := range []struct {
		what                       string
		main, vision, qformer, llm string
		change                     func(*Parts)
		says                       []string // besides {name}, which stands for the file's path
	}{
		{"nothing", "", "", "", "", nil, []string{"one checkpoint", "image encoder"}},
		{"an encoder alone", "", "vision", "", "", nil, []string{"Q-Former or BERT"}},
		{"both ways at once", "stage1", "", "bert", "", nil, []string{"one checkpoint"}},
		{"no such file", "nothing", "", "", "", nil, []string{"{nothing}", "no such file"}},
		{"a web page", "stage2", "text", "", "opt", nil, []string{"{text}", "HTML"}},
		{"another network", "other", "", "", "", nil, []string{"{other}", "no network that is known", "fc.weight"}},
		{"BERT without an encoder", "", "", "bert", "", nil, []string{"{bert}", "--vision"}},
		{"a frozen encoder left out", "stage1-only", "", "", "", nil, []string{"{stage1-only}", "image encoder", "--vision"}},
		{"a frozen LLM left out", "stage2", "vision", "", "", nil, []string{"{stage2} with {vision}", "language model",
			"--llm"}},
		{"an encoder that is none", "stage2", "opt", "", "opt", nil, []string{"{opt}", "OPT under Hugging Face names",
			"no image encoder"}},
		{"BLIP's encoder", "stage2", "blip", "", "opt", nil, []string{"{blip}", "BLIP captioner",
			"no image encoder for BLIP-2"}},
		{"a Q-Former that is none", "", "vision", "clip", "", nil, []string{"{clip}", "neither BERT nor a Q-Former"}},
		{"an encoder as language model", "stage2", "vision", "", "vision", nil, []string{"{vision}", "EVA-CLIP",
			"no language model"}},
		{"a wider encoder", "stage2", "wide-vision", "", "opt", nil, []string{"{stage2} with {wide-vision}", "width 8",
			"reads 6"}},
		{"a wider encoder, stage 2", "", "wide-vision", "stage1", "opt", nil, []string{"{wide-vision} with {stage1}",
			"width 8", "reads 6"}},
		{"a larger OPT", "stage2", "vision", "", "larger-opt", nil, []string{"{larger-opt}", "projection gives 8",
			"reads 10"}},
		{"a larger OPT, stage 2", "", "vision", "stage2", "larger-opt", nil, []string{"{larger-opt}", "projection gives 8",
			"reads 10"}},
		{"T5 for OPT's projection", "stage2", "vision", "", "t5", nil, []string{"{stage2}", "no projection", "{t5}",
			"assemble"}},
		{"stage 1 with an LLM", "stage1-only", "vision", "", "opt", nil, []string{"{stage1-only}", "no projection",
			"assemble"}},
		{"stage 2 from BERT", "", "vision", "bert", "opt", nil, []string{"{bert}", "stage 1 starts", "stage 2 needs"}},
		{"no Q-Former", "only-projection", "vision", "", "opt", nil, []string{"{only-projection}", "no Q-Former"}},
		{"no Q-Former, as it is", "only-projection", "", "", "", nil, []string{"{only-projection}", "Q-Former of blip2-opt is not in it", "another"}},
		{"stage 1 from stage 2", "", "vision", "stage2", "", nil, []string{"{stage2}", "no text side"}},
		{"CLIP with an encoder", "clip", "vision", "", "", nil, []string{"{clip}", "taken as it is"}},
		{"OPT with an LLM", "opt", "", "", "opt", nil, []string{"{opt}", "taken as it is"}},
		{"the captioner resized", "blip", "", "", "", func(p *Parts) { p.ImageSize = 48 }, []string{"{blip}",
			"taken as it is"}},
		{"no encoder to resize", "stage1-only", "", "", "", func(p *Parts) { p.ImageSize, p.Partial = 56, true },
			[]string{"{stage1-only}", "no image encoder"}},
		{"half a patch", "stage1", "", "", "", func(p *Parts) { p.ImageSize = 50 }, []string{"{stage1}", "50",
			"patch size 14"}},
		{"no heads known", "stage1", "", "", "", func(p *Parts) { p.Hints = Hints{} }, []string{"{stage1}", "width 6",
			"--vision-heads"}},
		{"no Q-Former heads known", "stage1", "", "", "", func(p *Parts) { p.Hints.QFormerHeads = 0 }, []string{"width 4",
			"--qformer-heads"}},
		{"no OPT heads known", "blip2-opt", "", "", "", func(p *Parts) { p.Hints.LLMHeads = 0 }, []string{"width 8",
			"--llm-heads"}},
		{"heads that do not divide", "stage1", "", "", "", func(p *Parts) { p.Hints.VisionHeads = 4 }, []string{"{stage1}",
			"6", "4 heads"}},
		{"more blocks than there are", "", "vision", "stage1", "opt", func(p *Parts) { p.VisionLayers = 5 },
			[]string{"{vision}", "missing", "visual_encoder.blocks.3"}},
		{"damaged", "broken", "", "", "", nil, []string{"{broken}", "missing: itm_head.bias", "not known: extra.weight"}},
		{"damaged, missing allowed", "broken", "", "", "", func(p *Parts) { p.AllowMissing = true },
			[]string{"not known: extra.weight"}},
		{"damaged, unexpected allowed", "broken", "", "", "", func(p *Parts) { p.AllowUnexpected = true },
			[]string{"missing: itm_head.bias"}},
	} {
		p := Parts{Main: files[c.main], Vision: files[c.vision], QFormer: files[c.qformer], LLM: files[c.llm], Hints: hints}
		for role, name := range map[string]string{"main": c.main, "vision": c.vision, "Q-Former": c.qformer, "LLM": c.llm} {
			if name != "" && files[name] == "" {
				t.Fatalf("%s: no file for %s: %s", c.what, role, name)
			}
		}
		if c.change != nil {
			c.change(&p)
		}
		a, err := Assemble(p)
		if err == nil {
			_ = a.Close()
		}
		for i, text := range c.says {
			for name, path := range files {
				text = strings.ReplaceAll(text, "{"+name+"}", path)
			}
			c.says[i] = text
		}
		says(t, c.what, err, c.says...)
	}
}

// TestAllow passes over what is missing or not known, and reports it.
func TestAllow(t *testing.T) {
	spec := tiny()["stage1"]
	s := stateOf(spec)
	delete(s, "itm_head.bias")
	s["extra.weight"] = named(s["itm_head.weight"], "extra.weight")
	a := assemble(t, Parts{Main: s.file(t, "broken"), Hints: hints, AllowMissing: true, AllowUnexpected: true})
	cov := a.Coverages[0]
	if !slices.Equal(cov.Missing, []string{"itm_head.bias"}) || !slices.Equal(cov.Unexpected, []string{"extra.weight"}) {
		t.Errorf("coverage %s", cov.Lines())
	}
	if slices.Contains(a.Names(), "itm_head.bias") || len(a.Names()) != len(spec.Params())-1 {
		t.Errorf("%d tensors", len(a.Names()))
	}
	if _, err := a.Tensor("itm_head.bias"); err == nil {
		t.Error("a missing tensor is there")
	}
	if _, err := a.Info("nosuch"); err == nil {
		t.Error("an unknown tensor is there")
	}
}

// TestPartial takes LAVIS's files as they are.
func TestPartial(t *testing.T) {
	for _, name := range []string{"stage1", "blip2-opt", "blip2-t5"} {
		s := stateOf(tiny()[name]).without(naming.VisionPrefix, "opt_model.", "t5_model.")
		a := assemble(t, Parts{Main: s.file(t, name), Hints: hints, Partial: true})
		sameStates(t, name, collect(t, a), s)
	}
}

// TestImageSize resizes the positions of whatever gives the encoder.
func TestImageSize(t *testing.T) {
	for _, name := range []string{"stage1", "stage1-clip"} {
		spec := tiny()[name]
		s := stateOf(spec)
		a := assemble(t, Parts{Main: s.file(t, name), Hints: hints, ImageSize: 70})
		b := assemble(t, Parts{Main: s.without(naming.VisionPrefix).file(t, name), Vision: encoderFile(t, *spec.Vision, s),
			Hints: hints, ImageSize: 70})
		got := collect(t, a)
		sameStates(t, name, collect(t, b), got)
		positions := naming.VisionPrefix + spec.Vision.PositionName()
		old, err := s[positions].Float32s()
		if err != nil {
			t.Fatal(err)
		}
		want, err := vit.ResizePositions(*spec.Vision, old, 3, 5)
		if err != nil {
			t.Fatal(err)
		}
		if values, err := got[positions].Float32s(); err != nil || !slices.Equal(values, want) {
			t.Errorf("%s: positions are not those resized: %v", name, err)
		}
		if !strings.Contains(strings.Join(a.Coverages[0].Changes, ""), "from 3×3 to 5×5") {
			t.Errorf("%s: changes %v", name, a.Coverages[0].Changes)
		}
	}
}

// TestUsedLayers: files of encoders have a block more than BLIP-2 uses, unless it was taken out.
func TestUsedLayers(t *testing.T) {
	g, _ := vit.Preset("eva-vit-g14")
	l, _ := vit.Preset("clip-vit-l14")
	for _, c := range []struct {
		network string
		v       vit.Config
		layers  int
		want    int
	}{
		{naming.EVAViT, g, 40, 39}, {naming.EVAViT, g, 39, 39}, {naming.CLIPViT, l, 24, 23}, {naming.CLIP, l, 24, 23},
		{naming.CLIPViT, l, 23, 23}, {naming.EVAViT, *tiny()["eva"].Vision, 3, 2}, {naming.BLIP2OPT, g, 39, 39},
		{naming.BLIP2Stage1, l, 3, 3},
	} {
		c.v.Layers = c.layers
		if got := usedLayers(c.network, c.v); got != c.want {
			t.Errorf("%d of the %d blocks of %s are used, want %d", got, c.layers, c.network, c.want)
		}
	}
	spec := tiny()["stage1"]
	s := stateOf(spec)
	trimmed := Spec{Model: naming.EVAViT, Vision: spec.Vision}
	path := stateOf(trimmed).by(t, naming.EVAViT, naming.Original).file(t, "trimmed")
	a := assemble(t, Parts{Main: s.without(naming.VisionPrefix).file(t, "stage1"), Vision: path, VisionLayers: 2,
		Hints: hints})
	if a.Spec.Vision.Layers != 2 {
		t.Errorf("%d blocks", a.Spec.Vision.Layers)
	}
}

// TestFill puts every tensor into a store, on a device or not.
func TestFill(t *testing.T) {
	spec := tiny()["blip2-opt"]
	s := stateOf(spec)
	dir := folder(t, spec, s)
	backend := graphtest.Open(t, "go")
	a := assemble(t, Parts{Main: dir})
	onHost, onDevice := mlx.NewStore(), mlx.NewStore()
	if err := a.Fill(onHost, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Fill(onDevice, backend); err != nil {
		t.Fatal(err)
	}
	for _, store := range []*mlx.Store{onHost, onDevice} {
		for name, values := range graphtest.Values(t, store, spec.Params()) {
			want, err := s[name].Float32s()
			if err != nil || !slices.Equal(values, graphtest.Wide(want)) {
				t.Errorf("%s differs; error %v", name, err)
			}
		}
		store.Finalize()
	}
}

// TestNothingIsKept: converting holds a tensor or two at a time and loading one per processor, whatever the size of the
// model: here one of 48 MB in tensors of 1 MB, whose numbers the source makes when it is asked for them.
func TestNothingIsKept(t *testing.T) {
	spec := tiny()["stage1"]
	spec.Vision.Layers, spec.Vision.Width, spec.Vision.MLPRatio = 24, 6, vit.RatioOf(43690, 6)
	spec.Vision.Heads = 2
	made := &maker{infos: state{}}
	for _, p := range spec.Params() {
		made.infos[p.Name] = weights.Tensor{Name: p.Name, DType: weights.F32, Shape: p.Shape}
	}
	c, err := Identify(made, hints)
	if err != nil {
		t.Fatal(err)
	}
	a := &Assembly{parts: Parts{Main: "made"}, opened: map[string]*Checkpoint{"made": c}, from: map[string]reading{}}
	if err := a.describe(); err != nil {
		t.Fatal(err)
	}
	for _, role := range a.roles() {
		if err := a.read(role); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.complete(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{naming.LAVIS, naming.HuggingFace} {
		made.start()
		if _, err := a.Write(t.Context(), Output{Dir: filepath.Join(t.TempDir(), "out"), To: to}); err != nil {
			t.Fatal(err)
		}
		if made.live != 0 || made.most > 2 || made.heap > made.base+5<<20 {
			t.Errorf("%s: %d tensors are still held, at most %d were at once, and the heap grew by %d bytes", to, made.live,
				made.most, made.heap-made.base)
		}
	}
	made.start()
	store := mlx.NewStore()
	defer store.Finalize()
	if err := a.Fill(store, nil); err != nil {
		t.Fatal(err)
	}
	if made.live != 0 || made.most > runtime.GOMAXPROCS(0) {
		t.Errorf("loading: %d tensors are still held, at most %d were at once", made.live, made.most)
	}
}

// maker is a checkpoint whose numbers are made on demand. It counts the tensors that are read and not given back.
type maker struct {
	weights.Source
	infos      state
	metadata   string // its Spec; empty for none
	counting   sync.Mutex
	live, most int
	base, heap uint64 // bytes of the heap at the start, and at most while a large tensor is made
}

// start begins to count.
func (m *maker) start() {
	m.live, m.most, m.base, m.heap = 0, 0, heap(), 0
}

// heap returns the bytes on the heap.
func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func (m *maker) Path() string    { return "made" }
func (m *maker) Names() []string { return slices.Sorted(maps.Keys(m.infos)) }

func (m *maker) Drop(string) {
	m.counting.Lock()
	defer m.counting.Unlock()
	m.live--
}

func (m *maker) Metadata() map[string]string {
	if m.metadata == "" {
		return nil
	}
	return map[string]string{specKey: m.metadata}
}

func (m *maker) Close() error                             { return nil }
func (m *maker) Info(name string) (weights.Tensor, error) { return m.infos[name], nil }

func (m *maker) Tensor(name string) (weights.Tensor, error) {
	m.counting.Lock()
	defer m.counting.Unlock()
	m.live++
	m.most = max(m.most, m.live)
	t := m.infos[name]
	t.Data = make([]byte, 4*model.Param{Shape: t.Shape}.Size())
	if len(t.Data) > 1<<19 {
		m.heap = max(m.heap, heap())
	}
	return t, nil
}

// TestOpenDisagreement: a config.json or metadata that do not fit the tensors are refused with both numbers.
func TestOpenDisagreement(t *testing.T) {
	for name, changes := range map[string]map[string]func(*Spec){
		"blip2-opt": {
			"image encoder's width is 8, but the tensors have 6": func(s *Spec) {
				s.Vision.Width, s.QFormer.EncoderWidth = 8,
					8
			},
			"blocks is 5, but the tensors have 2":                   func(s *Spec) { s.Vision.Layers = 5 },
			"image size is 28, but the tensors have 42":             func(s *Spec) { s.Vision.ImageSize = 28 },
			"number of queries is 4, but the tensors have 3":        func(s *Spec) { s.QFormer.Queries = 4 },
			"Q-Former's layers is 1000000000, but the tensors have": func(s *Spec) { s.QFormer.Layers = 1e9 },
			"OPT's vocabulary is 50272, but the tensors have 30":    func(s *Spec) { s.OPT.Vocab = 50272 },
		},
		"t5":   {"T5's decoder blocks is 1000000000, but the tensors have 3": func(s *Spec) { s.T5.DecoderLayers = 1e9 }},
		"clip": {"text tower's blocks is 1000000000, but the tensors have 2": func(s *Spec) { s.CLIP.Text.Layers = 1e9 }},
		"blip": {"text decoder's layers is 1000000000, but the tensors have 2": func(s *Spec) { s.BLIP.Layers = 1e9 }},
	} {
		for want, change := range changes {
			spec := tiny()[name]
			dir := folder(t, spec, stateOf(spec))
			stated := clone(t, spec)
			change(&stated)
			stated = stated.withLLMWidth()
			files, err := HFFiles(stated, weights.F32)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeFiles(dir, files); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, Hints{})
			says(t, name, err, dir, configFile, want)
		}
	}
	dir := folder(t, tiny()["opt"], stateOf(tiny()["opt"]))
	files, err := HFFiles(tiny()["t5"], weights.F32)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Hints{})
	says(t, "another network", err, configFile, "says that it is t5", "the tensors are of opt")
}

// TestStrangersConfig: LAVIS's files and encoders lie in any folder, whose config.json is not theirs.
func TestStrangersConfig(t *testing.T) {
	spec := tiny()["stage1"]
	dir := t.TempDir()
	path := stateOf(spec).write(t, filepath.Join(dir, "blip2.safetensors"))
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(`{"model_type":"llama"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path, hints)
	if err != nil || c.SpecFrom != "shapes" {
		t.Errorf("sizes from %q, error %v", c.SpecFrom, err)
	}
	_ = c.Close()
}

// A part of a model that is given for the whole is called what it is, instead of a smaller network.
func TestOneShard(t *testing.T) {
	spec := tiny()["blip2-opt"]
	dir, _ := convert(t, Parts{Main: folder(t, spec, stateOf(spec))}, Output{To: naming.HuggingFace, MaxShard: 4000})
	list, err := filepath.Glob(filepath.Join(dir, "model-00001-of-*.safetensors"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	_, err = Open(list[0], hints)
	says(t, "a shard", err, "it is file 1 of the", "name their folder, "+dir)
}

// TestHostileMetadata: what a file says of itself is checked like anything else.
func TestHostileMetadata(t *testing.T) {
	spec := tiny()["blip2-opt"]
	s := stateOf(spec)
	var list []weights.Tensor
	for _, p := range spec.Params() {
		list = append(list, s[p.Name])
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for text, want := range map[string]string{
		`{`: "unexpected end", `null`: "no network", `{"model":"clip"}`: "says that it is clip",
		`{"model":"blip2-opt","qformer":{}}`:                          "0 heads",
		`{"model":"blip2-opt","clip":{"Text":{"Layers":1000000000}}}`: "",
		`{"model":"blip2-opt","vision":{"Arch":"eva","Layers":1000000000,"Width":6,"Heads":2,"ImageSize":42,
			"PatchSize":14}}`: "blocks is 1000000000",
		`{"model":"nonsense"}`: "no network",
	} {
		if err := weights.Write(path, list, map[string]string{specKey: text}); err != nil {
			t.Fatal(err)
		}
		c, err := Open(path, hints)
		if want != "" {
			says(t, text, err, path, want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if _, err := c.Plan(false, false); err == nil {
			t.Errorf("%s: nothing is wrong with it", text)
		}
		_ = c.Close()
	}
}

// FuzzIdentify opens checkpoints of tiny networks of which a tensor is missing, renamed or of another shape, with
// metadata of any contents: no panic, and never more tensors to look for than a small multiple of those in the file.
func FuzzIdentify(f *testing.F) {
	networks := tiny()
	sorted := slices.Sorted(maps.Keys(networks))
	for i := range sorted {
		f.Add(uint8(i), uint16(3*i), "Qformer.bert.encoder.layer.7.x", []byte{1, 2}, "")
		f.Add(uint8(i), uint16(i), "", []byte{}, `{"model":"blip2-opt","qformer":{"Layers":9}}`)
	}
	f.Fuzz(func(t *testing.T, network uint8, which uint16, name string, shape []byte, metadata string) {
		spec := networks[sorted[int(network)%len(sorted)]]
		made := &maker{infos: state{}, metadata: metadata}
		for i, p := range spec.Params() {
			tensor := weights.Tensor{Name: p.Name, DType: weights.F32, Shape: p.Shape}
			if i == int(which) {
				if tensor.Shape = nil; len(shape) > 6 {
					shape = shape[:6]
				}
				for _, d := range shape {
					tensor.Shape = append(tensor.Shape, int(d))
				}
				if name == "" {
					continue
				}
				tensor.Name = name
			}
			made.infos[tensor.Name] = tensor
		}
		c, err := Identify(made, hints)
		if err != nil {
			return
		}
		if n := len(c.Spec.Params()); n > 50*len(made.infos) {
			t.Fatalf("%d tensors for a file of %d", n, len(made.infos))
		}
		_, _ = c.Plan(false, false)
		_ = c.Spec.Describe()
		_, _ = HFFiles(c.Spec, weights.F32)
	})
}

// entries lists a folder.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
