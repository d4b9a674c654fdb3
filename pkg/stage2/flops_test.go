package stage2

import (
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/training"
)

// TestStepFLOPs compares the formula with the products of the step's graph, forwards and with the backward pass.
func TestStepFLOPs(t *testing.T) {
	for name, spec := range tiny() {
		for _, frozen := range []bool{true, false} {
			cfg := trainedConfig(t, name)
			cfg.FreezeVision = frozen
			evaluate(t, graphtest.Open(t, "go"), cfg, graphtest.Store(t, spec.Params(), 1),
				func(scope *mlx.Scope, b Batch, _ []*Node) []*Node {
					loss := Forward(scope, cfg, b, nil).Loss
					grads := Gradient(loss, values(scope, loss.Graph(), TrainableParams(cfg))...)
					texts, forward := sampleTexts(cfg), 0.0
					parts := StepFLOPs(cfg, texts.Rows, texts.Length, texts.OutputLength)
					for _, p := range parts {
						forward += p.Forward
					}
					if got := graphtest.FLOPs(t, loss); got != forward {
						t.Errorf("%s: forwards %g FLOPs, the formula says %g", name, got, forward)
					}
					if got, want := graphtest.FLOPs(t, append(grads, loss)...), training.TotalFLOPs(parts); got != want {
						t.Errorf("%s, frozen %v: %g FLOPs, the formula says %g (difference %g)", name, frozen, got, want, got-want)
					}
					return append(grads, loss)
				})
		}
	}
}
