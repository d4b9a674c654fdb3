package cli

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"blip2/pkg/runlog"
)

// TestSeeing is the proof that stage 2 makes a language model see, OPT and Flan-T5 in form, on real photographs and
// without downloads: what scripts/quickstart.sh --full runs. The captions of the training pictures must be worth at
// least twice as much (CIDEr) as what the same language model writes without a picture, and as its captions are for
// other pictures. It takes minutes: BLIP2_LONG=1 asks for it, on the backend that BLIP2_TEST_BACKEND names.
func TestSeeing(t *testing.T) {
	if os.Getenv("BLIP2_LONG") == "" {
		t.Skip("takes minutes; set BLIP2_LONG=1")
	}
	backend, dir := cmp.Or(os.Getenv("BLIP2_TEST_BACKEND"), "go"), t.TempDir()
	run := func(t *testing.T, command, file string, set ...string) result {
		args := []string{command, "--config", filepath.Join("..", "..", "configs", file), "--backend", backend, "--json"}
		for _, s := range set {
			args = append(args, "--set", s)
		}
		started := time.Now()
		got := runApp(t, nil, args...)
		if got.code != ExitOK {
			t.Fatalf("%s: exit code %d\n%s", command, got.code, got.err)
		}
		t.Logf("%s: %s took %s", backend, file, time.Since(started).Round(time.Second))
		return got
	}
	one := filepath.Join(dir, "one")
	run(t, "pretrain-stage1", "quickstart.yaml", "run.dir="+dir, "run.name=one", "eval.before=false")
	for llm, suffix := range map[string]string{"opt": "", "t5": "_t5"} {
		t.Run(llm, func(t *testing.T) {
			frozen := filepath.Join(dir, llm)
			run(t, "pretrain-lm", "quickstart_lm"+suffix+".yaml", "out="+frozen)
			got := run(t, "pretrain-stage2", "quickstart_stage2"+suffix+".yaml", "run.dir="+dir, "run.name="+llm+"-sees",
				"stage1="+one, "llm.path="+frozen)
			var summary runlog.Summary
			if err := json.Unmarshal([]byte(got.out), &summary); err != nil {
				t.Fatal(err)
			}
			c := summary.Captions[runlog.SplitTrain]
			t.Logf("CIDEr %.3f, for other pictures %.3f, without pictures %.3f, before stage 2 %.3f", c.CIDEr,
				c.CIDErExchanged, c.CIDErBlind, summary.CaptionsBefore[runlog.SplitTrain].CIDEr)
			if blind := max(c.CIDErBlind, c.CIDErExchanged); c.CIDEr < 2*blind || c.CIDEr < 0.5 {
				t.Errorf("captions are worth %.3f, without the picture %.3f: the language model does not see", c.CIDEr, blind)
			}
		})
	}
}
