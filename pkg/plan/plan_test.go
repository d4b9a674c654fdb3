package plan

import (
	"log/slog"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/stage1"
	"blip2/pkg/trainer"
)

// settings are a stage-1 configuration over the defaults.
func settings(t *testing.T, set ...string) *config.Stage1 {
	t.Helper()
	c, _, err := config.LoadStage1(config.LoadOptions{Set: set, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t *testing.T, backend string) *device.Device {
	t.Helper()
	d, err := device.Open(t.Context(), device.Options{Backend: backend, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestPlanOfThePaper: the numbers of the paper's run that are known beforehand.
func TestPlanOfThePaper(t *testing.T) {
	c := settings(t, "vision.preset=eva-vit-g14", "train.batch_size=1680")
	s, err := Stage1(c, stage1.BERTVocabulary(), dtypes.BFloat16)
	if err != nil {
		t.Fatal(err)
	}
	s.Devices = 16
	p, err := Make(open(t, "go").Backend, s, GPUs()[0], 0.5)
	if err != nil {
		t.Fatal(err)
	}
	trained := 4 * int64(p.Trained)
	if p.MicroBatch != 105 || p.Memory.Weights != trained || p.Memory.Optimizer != 2*trained ||
		p.Memory.Frozen != 2*int64(p.NotTrained) || p.Memory.Accumulators != 0 || p.Memory.Gradients != trained {
		t.Errorf("%+v", p)
	}
	// Training with gradients needs activations, and the batch of the paper fits on its machine.
	if p.Memory.Activations < 5e9 || !p.Fits || p.Largest < 105 {
		t.Errorf("memory %+v, at most %d pairs", p.Memory, p.Largest)
	}
	if rate := p.FLOPs / 16 / p.Step; math.Abs(rate/(0.5*312e12)-1) > 1e-9 || math.Abs(p.ImgPerS*p.Step-1680) > 1e-6 ||
		math.Abs(p.Wall.Seconds()/(250_000*p.Step)-1) > 1e-6 {
		t.Errorf("%.3g FLOP/s, %g pictures/s, wall %v", rate, p.ImgPerS, p.Wall)
	}
}

// TestLargest: the largest micro-batch fits, and the next one does not.
func TestLargest(t *testing.T) {
	c := settings(t, tiny...)
	s, err := Stage1(c, stage1.Vocabulary{Size: 500, CLS: 1, SEP: 2, DEC: 499}, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	backend := open(t, "go").Backend
	d := Device{Name: "test", Memory: 200e6, Half: 1e12, Single: 1e12}
	p, err := Make(backend, s, d, 0.4)
	if err != nil {
		t.Fatal(err)
	}
	room := int64(usable * float64(d.Memory))
	m := memory{backend, s, 1}
	for rows, fits := range map[int]bool{p.Largest: true, p.Largest + p.Largest/20 + 2: false} {
		at, err := m.predict(rows)
		if err != nil || (at.Total() <= room) != fits {
			t.Errorf("%d pairs take %d of %d bytes, %v", rows, at.Total(), room, err)
		}
	}
	d.Memory = 1e6
	if p, err = Make(backend, s, d, 0.4); err != nil || p.Fits || p.Largest != 0 {
		t.Errorf("on a tiny device: %+v, %v", p, err)
	}
}

func TestMistakes(t *testing.T) {
	s, err := Stage1(settings(t, tiny...), stage1.Vocabulary{Size: 500, CLS: 1, SEP: 2, DEC: 499}, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	backend := open(t, "go").Backend
	good := GPUs()[2]
	if _, err := Make(backend, s, good, 1.5); err == nil || !strings.Contains(err.Error(), "utilisation") {
		t.Errorf("error %v", err)
	}
	if _, err := Make(backend, s, Device{Name: "toaster"}, 0.5); err == nil || !strings.Contains(err.Error(), "toaster") {
		t.Errorf("error %v", err)
	}
	s.Devices = 3
	if _, err := Make(backend, s, good, 0.5); err == nil || !strings.Contains(err.Error(), "shared evenly by 3 devices") {
		t.Errorf("error %v", err)
	}
	s.Devices = 64
	if _, err := Make(backend, s, good, 0.5); err == nil || !strings.Contains(err.Error(), "at least 2") {
		t.Errorf("error %v", err)
	}
}

// tiny is a model whose step compiles in seconds, with all that the large ones have.
var tiny = []string{"vision.image_size=64", "vision.patch_size=16", "vision.width=128", "vision.layers=2", "vision.heads=2",
	"qformer.hidden=128", "qformer.layers=4", "qformer.heads=2", "qformer.intermediate=512", "qformer.max_positions=64",
	"train.batch_size=32"}

// TestPredictionAgainstXLA: the predicted memory of a step is within a tenth of what XLA says of the compiled one.
func TestPredictionAgainstXLA(t *testing.T) {
	if os.Getenv("BLIP2_TEST_BACKEND") != "xla:cpu" {
		t.Skip("BLIP2_TEST_BACKEND is not xla:cpu")
	}
	xla, host := open(t, "xla:cpu").Backend, open(t, "go").Backend
	wide := []string{"vision.width=256", "vision.heads=4", "qformer.hidden=256", "qformer.heads=4", "qformer.intermediate=1024"}
	for name, c := range map[string]struct {
		rows int
		set  []string
	}{
		"frozen encoder":       {32, nil},
		"larger batch":         {96, nil},
		"trained encoder":      {32, []string{"vision.freeze=false"}},
		"without dropout":      {32, []string{"qformer.dropout=0"}},
		"without ITG":          {32, []string{"loss.itg=0"}},
		"wide":                 {16, wide},
		"wide, larger batch":   {64, wide},
		"deep trained encoder": {16, []string{"vision.freeze=false", "vision.layers=6"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Stage1(settings(t, append(append([]string{}, tiny...), c.set...)...),
				stage1.Vocabulary{Size: 2000, CLS: 1, SEP: 2, DEC: 1999}, dtypes.Float32)
			if err != nil {
				t.Fatal(err)
			}
			predicted, err := trainer.Predict(host, s.Task, s.Optimizer, s.Frozen, s.Inputs(c.rows))
			if err != nil {
				t.Fatal(err)
			}
			compiled, err := trainer.Compiled(xla, s.Task, s.Optimizer, s.Frozen, s.Inputs(c.rows))
			if err != nil {
				t.Fatal(err)
			}
			ratio := float64(predicted.Total()) / float64(compiled)
			t.Logf("predicted %.1f MB, compiled %.1f MB: %.3f", float64(predicted.Total())/1e6, float64(compiled)/1e6, ratio)
			if !(ratio > 0.9 && ratio < 1.1) {
				t.Errorf("predicted %d bytes, XLA needs %d", predicted.Total(), compiled)
			}
		})
	}
}
