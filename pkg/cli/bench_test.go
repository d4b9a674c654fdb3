package cli

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tinyBench are settings that make any model small enough for a test.
func tinyBench() []string {
	var flags []string
	for _, setting := range []string{"vision.image_size=28", "vision.width=8", "vision.heads=2", "vision.layers=1",
		"qformer.hidden=8", "qformer.heads=2", "qformer.layers=2", "qformer.intermediate=16", "qformer.query_tokens=3",
		"qformer.max_positions=40", "qformer.embed_dim=4", "text.max_len=8"} {
		flags = append(flags, "--set", setting)
	}
	return flags
}

func benchArgs(args ...string) []string {
	return slices.Concat([]string{"bench", "stage1", "--backend", "go", "--steps", "2"}, tinyBench(), args)
}

func TestBenchStage1Text(t *testing.T) {
	got := runApp(t, nil, benchArgs("--model", "vitl", "--batch", "3")...)
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	for _, want := range []string{"vitl, random weights", "CLIP ViT, 1 blocks of width 8, 5 tokens at 28 px, frozen",
		"vocabulary 30523", "3 pairs", "median of 2", "img/s", "GFLOP/s", "the host's", "ITM pass"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	if n := strings.Count(got.err, "step done"); n != 3 {
		t.Errorf("%d steps logged, want 1 of the warm-up and 2 that count:\n%s", n, got.err)
	}
}

func TestBenchStage1Parts(t *testing.T) {
	got := runApp(t, nil, benchArgs("--model", "vitl", "--batch", "3", "--parts")...)
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	_, table, _ := strings.Cut(got.out, "PART BY ITSELF")
	for _, want := range []string{"ViT", "cross-attention keys and values", "image pass", "text pass", "ITC similarities",
		"ITM pass", "ITG pass", "LM head", "optimizer", "all", "large product", "around the program"} {
		if !strings.Contains(table, "\n"+want+" ") {
			t.Errorf("no line %q in\n%s", want, got.out)
		}
	}
}

func TestBenchStage1JSON(t *testing.T) {
	got := runApp(t, nil, benchArgs("--model", "vitg", "--json", "--warmup", "0")...)
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	var report struct {
		Model   string `json:"model"`
		Encoder string `json:"image_encoder"`
		Machine struct {
			Cores int `json:"cores"`
		} `json:"machine"`
		Result struct {
			Batch     int                `json:"batch"`
			Seconds   map[string]float64 `json:"step_seconds"`
			StepFLOPs float64            `json:"step_flops"`
			Parts     []map[string]any   `json:"flops"`
		} `json:"result"`
	}
	if err := json.Unmarshal([]byte(got.out), &report); err != nil {
		t.Fatalf("%v in\n%s", err, got.out)
	}
	if report.Model != "vitg" || !strings.HasPrefix(report.Encoder, "EVA ViT") || report.Machine.Cores < 1 {
		t.Errorf("report %+v", report)
	}
	if r := report.Result; r.Batch != benchBatch || r.Seconds["median"] <= 0 || r.StepFLOPs <= 0 || len(r.Parts) != 8 {
		t.Errorf("result %+v", r)
	}
}

// TestBenchStage1Config measures a configuration file with its own vocabulary and without its data.
func TestBenchStage1Config(t *testing.T) {
	vocab := writeFile(t, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\n")
	path := writeFile(t, "small.yaml", "text: {vocab: "+vocab+"}\ntrain: {batch_size: 5}\n"+
		"data: {train: [{annotations: none.json, images: none}]}\nvision: {freeze: false}\n")
	got := runApp(t, nil, benchArgs("--config", path)...)
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	for _, want := range []string{path, "5 pairs", "vocabulary 8", "28 px, trained"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	missing := filepath.Join(t.TempDir(), "none.txt")
	got = runApp(t, nil, benchArgs("--config", path, "--set", "text.vocab="+missing)...)
	if got.code != ExitFailure || !strings.Contains(got.err, missing) {
		t.Errorf("missing vocabulary: exit code %d, %s", got.code, got.err)
	}
}

func TestBenchStage1WrongUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct{ args, want string }{
		{"--model vit", `--model "vit" is unknown; did you mean vitl?`},
		{"--model vitl --config x.yaml", "not both"},
		{"--model vitl --batch 1", "at least 2"},
		{"--model vitl --steps 0", "at least 1"},
		{"--model vitl --accumulate 3", "a batch of 8 cannot be cut"},
		{"--model vitl --micro-batch 3", "a batch of 8 cannot be cut"},
		{"--model vitl --micro-batch 1", "give --contrastive"},
		{"--model vitl --micro-batch 4 --accumulate 2", "not both"},
		{"--model vitl --accumulate -1", "1 or more"},
		{"--model vitl --contrastive", "--accumulate or --micro-batch"},
		{"--model vitl --warmup -1", "0 or more"},
		{"--model vitl --dtype f8", "must be auto, f32, bf16 or f16"},
		{"--model vitl --dtype bf16 --backend go", "use f32 or auto"},
		{"--model vitl --set vision.width=9", "width 9 is not a multiple of heads 16"},
		{"", "run the command in that folder, or name a file with --config"},
	} {
		got := runApp(t, nil, append([]string{"bench", "stage1"}, strings.Fields(tt.args)...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr\n%swant code %d and %s", tt.args, got.code, got.out, got.err,
				ExitUsage, tt.want)
		}
	}
}

func TestParseCPUInfo(t *testing.T) {
	const text = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512f sse\n\n" +
		"processor\t: 1\nmodel name\t: B\nflags\t\t: amx_bf16\n"
	model, simd := parseCPUInfo(text)
	if model != "A CPU @ 2 GHz" || !slices.Equal(simd, []string{"avx2", "avx512f"}) {
		t.Errorf("got %q with %q", model, simd)
	}
	if model, simd = parseCPUInfo(""); model != "" || simd != nil {
		t.Errorf("nothing gave %q with %q", model, simd)
	}
	m := benchMachine{CPU: model, Cores: 4}
	if got := m.String(); got != "unknown processor, 4 cores" {
		t.Errorf("unknown machine is %q", got)
	}
}
