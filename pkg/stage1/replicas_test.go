package stage1

import (
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// TestReplicas: of R data-parallel processes each has the ITG loss of its own rows alone, and the losses are means over
// the processes; ITC and ITM, which see the whole batch, are the same for any R.
func TestReplicas(t *testing.T) {
	cfg := tinyConfig()
	d := newHostBatch(cfg)
	losses := func(replicas int) [][]float32 {
		cfg := cfg
		cfg.Replicas = replicas
		return evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
			o := Forward(scope, cfg, b, nil)
			r := o.Replicas
			return []*Node{o.LossITC, o.LossITM, o.LossLM, o.Loss, r.ITC, r.ITM, r.LM, r.Sum}
		})
	}
	mean := func(x []float32) (sum float64) {
		for _, v := range x {
			sum += float64(v) / float64(len(x))
		}
		return sum
	}
	one := losses(1)
	for _, replicas := range []int{2, tinyBatch} {
		got := losses(replicas)
		for i, name := range []string{"ITC", "ITM", "ITG", "loss"} {
			if len(got[4+i]) != replicas {
				t.Fatalf("%s of %d replicas: %d values", name, replicas, len(got[4+i]))
			}
			sameValues(t, name+" of the replicas", got[i], []float64{mean(got[4+i])}, 1e-6)
		}
		sameValues(t, "ITC", got[0], one[0], 1e-6)
		sameValues(t, "ITM", got[1], one[1], 1e-6)
		if d := got[2][0] - one[2][0]; d*d < 1e-8 {
			t.Errorf("%d replicas: ITG is %g as with one: the texts' lengths tell nothing", replicas, got[2][0])
		}
		for r := range replicas {
			own := captionLoss(t, cfg, d, r*tinyBatch/replicas, tinyBatch/replicas)
			sameValues(t, "ITG of its rows", got[6][r:r+1], own, 1e-5)
		}
	}
}

// captionLoss is ITG's loss of some rows of the batch, computed as if there were no others.
func captionLoss(t *testing.T, cfg Config, d *hostBatch, from, n int) []float32 {
	t.Helper()
	return evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
		rows := func(x *Node) *Node { return SliceAxis(x, 0, AxisRange(from, from+n)) }
		only := cfg
		only.ITCWeight, only.ITMWeight = 0, 0
		o := Forward(scope, only, Batch{Pixels: rows(b.Pixels), TextIDs: rows(b.TextIDs), TextMask: rows(b.TextMask)}, nil)
		return []*Node{o.LossLM}
	})[0]
}

func TestReplicasAreChecked(t *testing.T) {
	cfg := tinyConfig()
	cfg.Replicas = -1
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "-1 replicas") {
		t.Errorf("got %v, want one of -1 replicas", err)
	}
}
