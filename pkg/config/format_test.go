package config

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// full loads a configuration in which as much as possible differs from the defaults.
func full(t *testing.T) *Stage1 {
	t.Helper()
	c, _, err := loadText(t, complete, LoadOptions{Set: []string{
		"vision.preset=eva-vit-g14", "vision.layers=7", "qformer.dropout=0.3333333333333333",
		`text.prompt="a: 'b' \"c\" \n\t# é\u0085\U0001F600 "`, "data.train[0].split=2017", "data.train[0].name=true",
		"data.train[1]={annotations: 'x y.json', images: '-', split: '~'}",
		"data.heldout=[{annotations: h.json, images: h}]", "train.max_time=1d2h3m4.5s", "train.steps=1234567",
		"seed=9223372036854775807", "data.max_bad_share=12.5%", "optim.eps=1e-300", "backend=xla:/opt/p.so",
		"run.name=x", "loss.itc_gather_grad=true",
		"preset=lavis", "optim.loss_scale=1024", "train.batch_size=24", "train.micro_batch_size=8",
		"devices=4", "mesh.shard_frozen=true", "loss.replicas=2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestResolvedYAMLLoadsTheSame(t *testing.T) {
	c := full(t)
	dir := files(t, map[string]string{"elsewhere/config.yaml": string(c.YAML())})
	back, _, err := LoadStage1(LoadOptions{Path: filepath.Join(dir, "elsewhere/config.yaml")})
	if err != nil {
		t.Fatalf("%v\n%s", err, c.YAML())
	}
	if !reflect.DeepEqual(c, back) {
		t.Errorf("got  %+v\nwant %+v\n%s", back, c, c.YAML())
	}
	if back.Hash() != c.Hash() {
		t.Error("the hash of the reloaded configuration differs")
	}
	defaults := DefaultStage1()
	dir = files(t, map[string]string{"config.yaml": string(defaults.YAML())})
	got, _, err := LoadStage1(LoadOptions{Path: filepath.Join(dir, "config.yaml"), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	got.Run.Dir = defaults.Run.Dir
	if !reflect.DeepEqual(got, defaults) {
		t.Errorf("got %+v\nwant %+v", got, defaults)
	}
}

func TestResolvedYAMLDocumentsEveryKey(t *testing.T) {
	text := string(full(t).YAML())
	for _, k := range Keys(DefaultStage1()) {
		name := k.Key[strings.LastIndex(k.Key, ".")+1:]
		found := false
		for _, line := range strings.Split(text, "\n") {
			found = found ||
				strings.HasPrefix(strings.TrimLeft(line, " -"), name+":") && strings.Contains(line, "# "+k.Doc)
		}
		if !found {
			t.Errorf("%s has no documented line in\n%s", k.Key, text)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "2017", "true", "~", "a: b", "- x", "#", "\u0085", "\u2028", "\ufeff", "'",
		"\"", "\\", "\x7f", "a:", "...", "---", "0x1p-2", ".inf", "1_000", "<<", "null", "2001-01-01",
		"\U0001F600", "%", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := DefaultStage1()
		c.Text.Prompt = s
		node, err := parseDocument(c.YAML())
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		back := DefaultStage1()
		root := reflect.ValueOf(back).Elem()
		d := &decoder{root: root.Type(), sources: &Sources{origins: map[string]Origin{}}, failed: map[string]bool{}}
		d.assign(root, assignment{node: node})
		if len(d.problems) > 0 {
			if strings.Contains(s, "\x00") || !utf8.ValidString(s) {
				return // refused by the decoder, so it never gets into a configuration
			}
			t.Fatalf("%q: %v", s, d.problems)
		}
		if back.Text.Prompt != s && utf8.ValidString(s) {
			t.Errorf("%q reads back as %q", s, back.Text.Prompt)
		}
	})
}

func TestMapIsJSON(t *testing.T) {
	text, err := json.Marshal(Map(full(t)))
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Seed  int64
		Train struct {
			Steps   int
			MaxTime string `json:"max_time"`
		}
		Optim struct{ Betas []float64 }
		Data  struct {
			MaxBadShare float64 `json:"max_bad_share"`
			Heldout     []struct{ Images string }
		}
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back.Seed != 9223372036854775807 || back.Train.Steps != 1234567 || back.Train.MaxTime != "1d2h3m4.5s" ||
		len(back.Optim.Betas) != 2 || back.Data.MaxBadShare != 0.125 ||
		filepath.Base(back.Data.Heldout[0].Images) != "h" {
		t.Errorf("got %+v from %s", back, text)
	}
}

func TestHashCoversTheArithmetic(t *testing.T) {
	base := full(t).Hash()
	if len(base) != 64 {
		t.Fatalf("hash %q", base)
	}
	same := map[string]func(*Stage1){
		"run":        func(c *Stage1) { c.Run.Name = "y"; c.Run.Dir = "/z" },
		"workers":    func(c *Stage1) { c.Data.Workers = 9; c.Data.Prefetch = 9 },
		"logging":    func(c *Stage1) { c.Train.LogEvery = 3; c.Train.MaxTime = 5 },
		"checkpoint": func(c *Stage1) { c.Checkpoint.Every = 3 },
		"evaluation": func(c *Stage1) { c.Eval.KTest = 3; c.Data.Heldout = nil },
		"backend":    func(c *Stage1) { c.Backend = "go" },
		"memory":     func(c *Stage1) { c.Device.MemoryFraction = 0.1 },
		"devices":    func(c *Stage1) { c.Devices, c.Mesh.ShardFrozen = 0, false },
		"preset":     func(c *Stage1) { c.Vision.Preset = "" },
		"moved data": func(c *Stage1) { c.Data.Train[0].Images = "/mnt/" + filepath.Base(c.Data.Train[0].Images) },
		"label":      func(c *Stage1) { c.Data.Train[0].Name = "other" },
	}
	for name, change := range same {
		c := full(t)
		change(c)
		if c.Hash() != base {
			t.Errorf("%s changes the hash", name)
		}
	}
	different := map[string]func(*Stage1){
		"seed":     func(c *Stage1) { c.Seed = 1 },
		"lr":       func(c *Stage1) { c.Optim.LR *= 1.0000001 },
		"steps":    func(c *Stage1) { c.Train.Steps++ },
		"layers":   func(c *Stage1) { c.Vision.Layers++ },
		"dtype":    func(c *Stage1) { c.Device.DType = "bf16" },
		"split":    func(c *Stage1) { c.Data.Train[0].Split = "val" },
		"order":    func(c *Stage1) { c.Data.Train[0], c.Data.Train[1] = c.Data.Train[1], c.Data.Train[0] },
		"weights":  func(c *Stage1) { c.QFormer.Weights = "/b/bert.bin" },
		"augment":  func(c *Stage1) { c.Data.Augment.Flip = 0 },
		"replicas": func(c *Stage1) { c.Loss.Replicas = 1 },
		"gradient": func(c *Stage1) { c.Loss.ITCGatherGrad = !c.Loss.ITCGatherGrad },
	}
	for name, change := range different {
		c := full(t)
		change(c)
		if c.Hash() == base {
			t.Errorf("%s does not change the hash", name)
		}
	}
}

func TestKeys(t *testing.T) {
	envs, docs := map[string]string{}, 0
	for _, k := range Keys(DefaultStage1()) {
		if k.Doc == "" || k.Type == "" {
			t.Errorf("%s has no documentation or type: %+v", k.Key, k)
		}
		if k.Env != "" {
			if other := envs[k.Env]; other != "" || reservedEnv(k.Env) {
				t.Errorf("%s and %s share the variable %s, or it is reserved", k.Key, other, k.Env)
			}
			envs[k.Env] = k.Key
		}
		docs++
	}
	if docs < 75 {
		t.Errorf("only %d keys", docs)
	}
	for _, k := range Keys(DefaultStage1()) {
		switch k.Key {
		case "train.steps":
			if k.Default != "250k" || k.Type != "count" || k.Allowed != "at least 1" || k.Env != "BLIP2_TRAIN_STEPS" {
				t.Errorf("%+v", k)
			}
		case "data.train[].images":
			if k.Env != "" || k.Default != "" {
				t.Errorf("%+v", k)
			}
		}
	}
}
