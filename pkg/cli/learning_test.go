package cli

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/runlog"
)

// TestSeeing is the proof that stage 2 makes a language model see, on real photographs and without downloads: what
// scripts/quickstart.sh --full runs. The captions of the training pictures must be worth at least twice as much (CIDEr)
// as what the same language model writes without a picture, and as its captions are for other pictures. It takes
// minutes: BLIP2_LONG=1 asks for it, on the backend that BLIP2_TEST_BACKEND names.
func TestSeeing(t *testing.T) {
	if os.Getenv("BLIP2_LONG") == "" {
		t.Skip("takes minutes; set BLIP2_LONG=1")
	}
	backend, configs, dir := cmp.Or(os.Getenv("BLIP2_TEST_BACKEND"), "go"), filepath.Join("..", "..", "configs"), t.TempDir()
	run := func(command, file string, set ...string) result {
		args := []string{command, "--config", filepath.Join(configs, file), "--backend", backend, "--json"}
		for _, s := range set {
			args = append(args, "--set", s)
		}
		got := runApp(t, nil, args...)
		if got.code != ExitOK {
			t.Fatalf("%s: exit code %d\n%s", command, got.code, got.err)
		}
		return got
	}
	one, llm := filepath.Join(dir, "one"), filepath.Join(dir, "lm")
	run("pretrain-stage1", "quickstart.yaml", "run.dir="+dir, "run.name=one", "eval.before=false")
	run("pretrain-lm", "quickstart_lm.yaml", "out="+llm)
	got := run("pretrain-stage2", "quickstart_stage2.yaml", "run.dir="+dir, "run.name=two", "stage1="+one, "llm.path="+llm)
	var summary runlog.Summary
	if err := json.Unmarshal([]byte(got.out), &summary); err != nil {
		t.Fatal(err)
	}
	c := summary.Captions[runlog.SplitTrain]
	t.Logf("%s: CIDEr %.3f, for other pictures %.3f, without pictures %.3f, before stage 2 %.3f", backend, c.CIDEr,
		c.CIDErExchanged, c.CIDErBlind, summary.CaptionsBefore[runlog.SplitTrain].CIDEr)
	if blind := max(c.CIDErBlind, c.CIDErExchanged); c.CIDEr < 2*blind || c.CIDEr < 0.5 {
		t.Errorf("captions are worth %.3f, without the picture %.3f: the language model does not see", c.CIDEr, blind)
	}
}
