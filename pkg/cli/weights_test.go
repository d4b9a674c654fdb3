package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/runlog"
	"blip2/pkg/weights"
)

// tinyStage1 is a model of stage 1 of few numbers.
func tinyStage1() published.Spec {
	return published.Spec{Model: naming.BLIP2Stage1, QFormerText: true, EmbedDim: 4, LNVisionEps: 1e-5,
		Vision: &vit.Config{Arch: vit.EVA, ImageSize: 28, PatchSize: 14, Width: 8, Layers: 1, Heads: 2, MLPRatio: 2},
		QFormer: &qformer.Config{Hidden: 8, Layers: 2, Heads: 2, Intermediate: 16, Queries: 3, CrossAttentionFreq: 2,
			EncoderWidth: 8, Vocab: 8, MaxPositions: 40, LayerNormEps: 1e-12}}
}

// tensorsOf draws the tensors whose names begin with one of the prefixes and are not of the image encoder, unless a
// prefix says so.
func tensorsOf(params []model.Param, rename func(string) string) []weights.Tensor {
	var out []weights.Tensor
	for _, p := range params {
		drawn := p
		drawn.Init = model.Normal(1)
		if name := rename(p.Name); name != "" {
			out = append(out, weights.FromFloat32(name, p.Shape, model.Draw(drawn, 1)))
		}
	}
	slices.SortFunc(out, func(a, b weights.Tensor) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// writeTensors writes a safetensors file into a fresh folder.
func writeTensors(t *testing.T, name string, tensors []weights.Tensor) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".safetensors")
	if err := weights.Write(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

func keep(name string) string { return name }

// withoutEncoder leaves out the image encoder, which LAVIS and runs of this program do not store.
func withoutEncoder(name string) string {
	if strings.HasPrefix(name, naming.VisionPrefix) {
		return ""
	}
	return name
}

// tinyFiles are a stage-1 checkpoint with its image encoder and without, the encoder alone with one block more, and an
// OPT and a T5 folder.
type tinyFiles struct{ whole, partial, vision, opt, t5 string }

func newTinyFiles(t *testing.T) tinyFiles {
	t.Helper()
	spec := tinyStage1()
	f := tinyFiles{whole: writeTensors(t, "whole", tensorsOf(spec.Params(), keep)),
		partial: writeTensors(t, "partial", tensorsOf(spec.Params(), withoutEncoder))}
	published := *spec.Vision
	published.Layers++
	f.vision = writeTensors(t, "eva", tensorsOf(model.Prefixed(naming.VisionPrefix, vit.Params(published)),
		func(name string) string { return strings.TrimPrefix(name, naming.VisionPrefix) }))
	f.opt = llmFolder(t, publishedOPT())
	f.t5 = llmFolder(t, publishedT5())
	return f
}

func publishedOPT() published.Spec {
	return published.Spec{Model: naming.OPT, EOS: 2, OPT: &opt.Config{Vocab: 13, Hidden: 8, Layers: 1, Heads: 2, FFN: 9,
		Positions: 10, LayerNormEps: 1e-5}}
}

func publishedT5() published.Spec {
	return published.Spec{Model: naming.T5, T5: &t5.Config{Vocab: 13, Hidden: 8, HeadDim: 3, Heads: 2, FFN: 9,
		EncoderLayers: 1,
		DecoderLayers: 1, Activation: nn.GELUNew, Buckets: 8, MaxDistance: 128, RMSNormEps: 1e-6}}
}

// llmFolder writes a language model as transformers does.
func llmFolder(t *testing.T, spec published.Spec) string {
	t.Helper()
	dir := filepath.Dir(writeTensors(t, "model", tensorsOf(spec.Params(), keep)))
	files, err := published.HFFiles(spec, weights.F32)
	if err != nil {
		t.Fatal(err)
	}
	files["vocab.json"] = []byte("{}")
	for name, raw := range files {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// heads are the flags that a tiny model needs.
const heads = " --vision-heads 2 --qformer-heads 2"

// weightsArgs splits a command line below "weights"; paths of temporary folders have no spaces.
func weightsArgs(line string) []string { return append([]string{"weights"}, strings.Fields(line)...) }

func TestWeightsWrongUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"inspect", "accepts 1 arg"},
		{"inspect a b", "accepts 1 arg"},
		{"inspect --vision-heads -1 a", "--vision-heads -1"},
		{"check a", "accepts 2 arg"},
		{"check a b --tolerance -1", "--tolerance -1"},
		{"check a b --tolerance NaN", "--tolerance NaN"},
		{"convert a", `--to "": want hf or lavis`},
		{"convert --to gguf a", `--to "gguf": want hf or lavis`},
		{"convert --to hf a", "--out is missing"},
		{"convert --to hf --out x --dtype f8 a", `--dtype "f8" is unknown; want one of f32, bf16, f16`},
		{"convert --to hf --out x --allow all a", `--allow "all": want missing or unexpected`},
		{"convert --to hf --out x --max-shard 0 a", "--max-shard 0"},
		{"convert --to hf --out x --max-shard NaN a", "--max-shard NaN"},
		{"convert --to hf --out x --max-shard 1e300 a", "--max-shard 1e+300"},
		{"convert --to hf --out x --image-size -1 a", "--image-size -1"},
		{"convert --to hf --out x --vision-layers -1 a", "--vision-layers -1"},
		{"convert --to hf --out x --llm-heads -1 a", "--llm-heads -1"},
		{"convert --to hf --out x --image-size 98000000 a", "--image-size 98000000: give a number up to"},
		{"convert --to hf --out x --vision-layers 4611686018427387904 a", "give a number up to 1024"},
		{"convert --to hf --out x --vision-layers 3 a", "--vision-layers is for the image encoder of --vision"},
		{"assemble --stage 1 --out x --vision v --bert b --queries 100000000", "give a number up to 65536"},
		{"assemble --out x", "--stage 0: want 1 or 2"},
		{"assemble --stage 3 --out x", "--stage 3: want 1 or 2"},
		{"assemble --stage 1 --out x --vision v", "--stage 1 takes --vision and --bert"},
		{"assemble --stage 1 --out x --vision v --bert b --llm l", "neither --qformer nor --llm"},
		{"assemble --stage 2 --out x --vision v --qformer q", "--stage 2 takes --vision, --qformer and --llm"},
		{"assemble --stage 2 --out x --vision v --qformer q --llm l --bert b", "not --bert"},
		{"assemble --stage 2 --out x --vision v --qformer q --llm l --queries 4", "--queries"},
		{"assemble --stage 1 --out x --vision v --bert b --queries -4", "--queries -4"},
		{"assemble --stage 1 --vision v --bert b", "--out is missing"},
		{"assemble --stage 1 --out x --vision v --bert b extra", "extra"},
	} {
		got := runApp(t, nil, weightsArgs(tt.args)...)
		if got.code != ExitUsage || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr\n%swant code %d and %s", tt.args, got.code, got.out, got.err,
				ExitUsage,
				tt.want)
		}
	}
}

// TestWeightsFailures: what is wrong with files ends with ExitFailure, and nothing is written.
func TestWeightsFailures(t *testing.T) {
	f := newTinyFiles(t)
	for _, tt := range []struct {
		args string
		want []string
	}{
		{"inspect nosuch", []string{"nosuch", "no such file"}},
		{"check " + f.whole + " nosuch", []string{"nosuch"}},
		{"check " + f.whole + " " + f.opt, []string{f.whole, f.opt, "not the same"}},
		{"convert --to hf --out OUT " + f.partial + heads, []string{f.partial, "image encoder", "--vision"}},
		{"convert --to hf --out OUT " + f.whole, []string{f.whole, "--vision-heads"}},
		{"convert --to hf --out OUT " + f.vision + heads, []string{f.vision, "eva-vit", "assemble"}},
		{"convert --to lavis --out OUT " + f.opt, []string{f.opt, "LAVIS", "opt"}},
		{"convert --to hf --out OUT --llm " + f.opt + " " + f.whole + heads, []string{f.whole, "no projection", "assemble"}},
		{"assemble --stage 1 --out OUT --vision " + f.vision + " --bert " + f.opt + heads, []string{f.opt,
			"neither BERT nor"}},
		{"assemble --stage 2 --out OUT --vision " + f.opt + " --qformer " + f.partial + " --llm " + f.opt + heads,
			[]string{f.opt, "no image encoder"}},
	} {
		parent := t.TempDir()
		got := runApp(t, nil, weightsArgs(strings.ReplaceAll(tt.args, "OUT", filepath.Join(parent, "out")))...)
		if got.code != ExitFailure {
			t.Errorf("%q: exit code %d, stderr %s", tt.args, got.code, got.err)
		}
		for _, want := range tt.want {
			if !strings.Contains(got.err, want) {
				t.Errorf("%q: stderr\n%swant %s", tt.args, got.err, want)
			}
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("%q: left are %v, error %v", tt.args, left, err)
		}
	}
}

func TestWeightsInspect(t *testing.T) {
	f := newTinyFiles(t)
	got := runApp(t, nil, weightsArgs("inspect "+f.partial)...)
	if got.code != ExitOK {
		t.Fatal(got.err)
	}
	for _, want := range []string{"BLIP-2 stage 1 under LAVIS names (blip2-stage1)", "not in it", "image encoder",
		"? heads",
		"safetensors, ", "F32", "3 queries", "shapes"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	if strings.Contains(got.out, "TENSOR") {
		t.Errorf("tensors are listed without being asked for:\n%s", got.out)
	}
	got = runApp(t, nil, weightsArgs("inspect --tensors "+f.opt)...)
	if got.code != ExitOK || !strings.Contains(got.out, "model.decoder.embed_tokens.weight") || !strings.Contains(got.out,
		"[13 8]") ||
		!strings.Contains(got.out, "config.json") {
		t.Errorf("exit code %d: %s%s", got.code, got.out, got.err)
	}
	got = runApp(t, nil, weightsArgs("inspect --json "+f.whole+heads)...)
	var r inspectReport
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || got.code != ExitOK {
		t.Fatalf("exit code %d, %v in %s", got.code, err, got.out)
	}
	n := len(tinyStage1().Params())
	if r.Model != naming.BLIP2Stage1 || r.Publisher != naming.LAVIS || r.Spec.Vision.Heads != 2 || len(r.Tensors) != n ||
		len(r.Coverage.Filled) != n || r.Problem != "" || r.Parameters != int64(model.Count(tinyStage1().Params())) {
		t.Errorf("report %+v", r)
	}
	other := writeTensors(t, "other", []weights.Tensor{weights.FromFloat32("fc.weight", []int{2}, []float32{1, 2})})
	got = runApp(t, nil, weightsArgs("inspect "+other)...)
	if got.code != ExitOK || !strings.Contains(got.out, "not known: ") || !strings.Contains(got.out,
		"1 tensor, 2 numbers") {
		t.Errorf("an unknown network: exit code %d\n%s%s", got.code, got.out, got.err)
	}
}

// TestWeightsConvert goes from LAVIS's files to a folder of transformers and back.
func TestWeightsConvert(t *testing.T) {
	f := newTinyFiles(t)
	parent := t.TempDir()
	hf, lavis := filepath.Join(parent, "hf"), filepath.Join(parent, "lavis")
	got := runApp(t, nil, weightsArgs("convert --to hf --out "+hf+" --vision "+f.vision+heads+" "+f.partial)...)
	if got.code != ExitOK {
		t.Fatal(got.err)
	}
	for _, want := range []string{"wrote " + hf, "config.json", "preprocessor_config.json", f.partial + ": ",
		f.vision + ": ",
		"block beyond the 1 that are used", "dropped temp", "dropped 5 tensors, Qformer.cls."} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	got = runApp(t, nil, weightsArgs("convert --json --to lavis --dtype bf16 --out "+lavis+" "+hf)...)
	var w published.Written
	if err := json.Unmarshal([]byte(got.out), &w); err != nil || got.code != ExitOK {
		t.Fatalf("exit code %d, %v in %s%s", got.code, err, got.out, got.err)
	}
	if w.Dir != lavis || w.Model != naming.BLIP2Stage1 || len(w.Absent) != 6 || !slices.Equal(w.Files,
		[]string{"model.safetensors"}) ||
		w.Bytes == 0 || w.Tensors != len(tinyStage1().Params())-6 {
		t.Errorf("written %+v", w)
	}
	got = runApp(t, nil, weightsArgs("check "+hf+" "+lavis)...)
	if got.code != ExitFailure || !strings.Contains(got.out, "NOT the same model") || !strings.Contains(got.out,
		"F32 BF16") ||
		!strings.Contains(got.out, "more that differ") {
		t.Errorf("bfloat16: exit code %d\n%s%s", got.code, got.out, got.err)
	}
	got = runApp(t, nil, weightsArgs("check --tolerance 0.1 --all "+hf+" "+lavis)...)
	if got.code != ExitOK || !strings.Contains(got.out, "\nthe same model: of ") || strings.Contains(got.out,
		"more that differ") {
		t.Errorf("tolerated: exit code %d\n%s%s", got.code, got.out, got.err)
	}
	got = runApp(t, nil, weightsArgs("check --json "+hf+" "+f.partial)...)
	var c struct {
		Same bool `json:"same"`
		published.Comparison
	}
	if err := json.Unmarshal([]byte(got.out), &c); err != nil || got.code != ExitFailure || c.Same || len(c.OnlyB) != 6 ||
		c.MaxAbs != 0 {
		t.Errorf("exit code %d, error %v: %+v", got.code, err, c)
	}
	// What is there already stays.
	got = runApp(t, nil, weightsArgs("convert --to lavis --out "+hf+" "+hf)...)
	if got.code != ExitFailure || !strings.Contains(got.err, hf) {
		t.Errorf("a taken folder: exit code %d, %s", got.code, got.err)
	}
	// Without the frozen encoder LAVIS's form is complete.
	again := filepath.Join(parent, "again")
	if got = runApp(t, nil, weightsArgs("convert --to lavis --out "+again+heads+" "+f.partial)...); got.code != ExitOK {
		t.Errorf("LAVIS's file as it is: %s", got.err)
	}
	if got = runApp(t, nil, weightsArgs("check "+again+" "+f.partial)...); got.code != ExitOK {
		t.Errorf("LAVIS's file is another now: %s%s", got.out, got.err)
	}
}

// TestWeightsAssemble makes start points of both stages.
func TestWeightsAssemble(t *testing.T) {
	f := newTinyFiles(t)
	for llm, projection := range map[string]string{f.opt: "opt_proj", f.t5: "t5_proj"} {
		out := filepath.Join(t.TempDir(), "start")
		got := runApp(t, nil,
			weightsArgs("assemble --stage 2 --seed 3 --vision "+f.vision+" --qformer "+f.partial+" --llm "+llm+
				" --out "+out+heads)...)
		if got.code != ExitOK || !strings.Contains(got.out, "not in the file 2 tensors, "+projection+".bias") {
			t.Errorf("exit code %d\n%s%s", got.code, got.out, got.err)
		}
		if got = runApp(t, nil, weightsArgs("inspect "+out)...); got.code != ExitOK || strings.Contains(got.out,
			"not in it") ||
			strings.Contains(got.out, "problem") {
			t.Errorf("exit code %d\n%s%s", got.code, got.out, got.err)
		}
	}
	spec := tinyStage1()
	text := *spec.QFormer
	text.Vocab--
	bert := published.Spec{Model: naming.BERT, BERT: &text}
	path := writeTensors(t, "bert", tensorsOf(bert.Params(), func(name string) string {
		return strings.NewReplacer("Qformer.cls.", "cls.", "Qformer.bert.", "bert.").Replace(name)
	}))
	named := trainedRun(t, f, "text.vocab="+writeFile(t, "vocab.txt", tokenizeVocab))
	if got := runApp(t, nil, "tokenize", "--model", named, "--json", "a"); !strings.Contains(got.out, `"ids":[2,5,3]`) {
		t.Errorf("the tokenizer of a run: %s%s", got.out, got.err)
	}
	out := filepath.Join(t.TempDir(), "start")
	got := runApp(t, nil,
		weightsArgs("assemble --json --stage 1 --queries 5 --vision "+f.vision+" --bert "+path+" --out "+out+heads)...)
	var w published.Written
	if err := json.Unmarshal([]byte(got.out), &w); err != nil || got.code != ExitOK || len(w.Drawn) == 0 ||
		len(w.Coverages) != 2 {
		t.Errorf("exit code %d, error %v: %+v%s", got.code, err, w, got.err)
	}
	if got = runApp(t, nil, weightsArgs("inspect "+out)...); !strings.Contains(got.out, "5 queries") {
		t.Errorf("%s%s", got.out, got.err)
	}
}

// trainedRun makes a run folder with a checkpoint of its trained tensors, as training leaves it.
func trainedRun(t *testing.T, f tinyFiles, settings ...string) string {
	t.Helper()
	run := filepath.Join(t.TempDir(), "run")
	if _, err := checkpoint.Save(t.Context(), run, checkpoint.Snapshot{Step: 7, State: struct{}{},
		Model: tensorsOf(tinyStage1().Params(), withoutEncoder)}); err != nil {
		t.Fatal(err)
	}
	set := append([]string{"vision.image_size=28", "vision.width=8", "vision.heads=2", "vision.layers=1",
		"vision.arch=eva",
		"qformer.hidden=8", "qformer.heads=2", "qformer.layers=2", "qformer.intermediate=16", "qformer.query_tokens=3",
		"qformer.max_positions=40", "qformer.embed_dim=4", "text.max_len=8", "text.vocab=v.txt", "vision.weights=" +
			f.vision}, settings...)
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: writeFile(t, "x.yaml", minimal), Set: set})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run, runlog.ConfigFile), cfg.YAML(), 0o666); err != nil {
		t.Fatal(err)
	}
	return run
}

// TestWeightsOfARun: a run folder, its latest and any of its checkpoints can be looked into, converted and gone on
// from.
func TestWeightsOfARun(t *testing.T) {
	f := newTinyFiles(t)
	run := trainedRun(t, f, "vision.freeze=true")
	for _, path := range []string{run, run + "/", filepath.Join(run, "checkpoints", "latest"),
		filepath.Join(run, "checkpoints", "step-00000007")} {
		got := runApp(t, nil, weightsArgs("inspect "+path)...)
		if got.code != ExitOK || !strings.Contains(got.out, "2 heads") || !strings.Contains(got.out, "step-00000007") {
			t.Errorf("inspect %s: exit code %d\n%s%s", path, got.code, got.out, got.err)
		}
		out := filepath.Join(t.TempDir(), "hf")
		got = runApp(t, nil, weightsArgs("convert --to hf --out "+out+" "+path)...)
		if got.code != ExitOK {
			t.Fatalf("convert %s: %s", path, got.err)
		}
		got = runApp(t, nil, weightsArgs("check "+out+" "+f.whole)...)
		if strings.Contains(got.out, "LARGEST DIFFERENCE") && !strings.Contains(got.out, naming.VisionPrefix) {
			t.Errorf("the run's tensors have changed:\n%s", got.out)
		}
	}
	out := filepath.Join(t.TempDir(), "start")
	got := runApp(t, nil,
		weightsArgs("assemble --stage 2 --vision "+f.vision+" --qformer "+run+" --llm "+f.opt+" --out "+out)...)
	if got.code != ExitOK {
		t.Errorf("stage 2 from a run: %s", got.err)
	}
	// The encoder's file has been moved since.
	moved := trainedRun(t, f, "vision.freeze=true", "vision.weights=gone.pth")
	out = filepath.Join(t.TempDir(), "hf")
	got = runApp(t, nil, weightsArgs("convert --to hf --out "+out+" "+moved)...)
	if got.code != ExitFailure || !strings.Contains(got.err, "--vision") {
		t.Errorf("a lost encoder: exit code %d, %s", got.code, got.err)
	}
	got = runApp(t, nil, weightsArgs("convert --to hf --out "+out+" --vision "+f.vision+" "+moved)...)
	if got.code != ExitOK {
		t.Errorf("a lost encoder that is given: %s", got.err)
	}
	// Without its configuration a checkpoint is like any other.
	if err := os.WriteFile(filepath.Join(run, runlog.ConfigFile), []byte("vision: ["), 0o666); err != nil {
		t.Fatal(err)
	}
	out = filepath.Join(t.TempDir(), "hf")
	got = runApp(t, nil, weightsArgs("convert --to hf --out "+out+" "+run)...)
	if got.code != ExitFailure || !strings.Contains(got.err, "configuration cannot be used") || !strings.Contains(got.err,
		"--qformer-heads") {
		t.Errorf("a broken configuration: exit code %d, %s", got.code, got.err)
	}
	got = runApp(t, nil, weightsArgs("convert --to hf --out "+out+" --vision "+f.vision+heads+" "+run)...)
	if got.code != ExitOK {
		t.Errorf("a broken configuration, with flags: %s", got.err)
	}
	empty := filepath.Join(t.TempDir(), "run")
	if err := os.MkdirAll(filepath.Join(empty, "checkpoints"), 0o777); err != nil {
		t.Fatal(err)
	}
	got = runApp(t, nil, weightsArgs("inspect "+empty)...)
	if got.code != ExitFailure || !strings.Contains(got.err, "no good checkpoint") {
		t.Errorf("a run without checkpoints: exit code %d, %s", got.code, got.err)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 3745000000: "3,745,000,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1 kB", 5_300_000_000: "5.3 GB"} {
		if got := byteSize(n); got != want {
			t.Errorf("%d bytes are %s", n, got)
		}
	}
}
