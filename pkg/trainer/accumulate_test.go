package trainer

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
)

// partsTask is toyTask on micro-batches.
func partsTask(parts int, noise float64) Task {
	task := toyTask(noise)
	task.MicroBatches = parts
	return task
}

// TestAccumulate: micro-batches follow AdamW on the mean of their losses, which is toyLoss of the whole batch, with and
// without clipping, and the step reports its loss, terms and norm.
func TestAccumulate(t *testing.T) {
	for _, parts := range []int{2, 4} {
		for _, clip := range []float64{0, 0.4} {
			a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.3, DecayRule: DecayDefault, GradClip: clip}
			name := fmt.Sprintf("%d parts, clip %g", parts, clip)
			store := toyStore(t)
			host := newHostAdamW(a, flat(bits(t, store)))
			s := newStep(t, store, partsTask(parts, 0), a, 1)
			for step := range 4 {
				b := newToyBatch(step)
				grad := toyGradient(host.p, b)
				loss, mse, size := toyLoss(host.p, b)
				r := runToy(t, s, step, 0.05, b)
				got := []float64{r.Loss, r.Terms[0], r.Terms[1], r.GradNorm}
				for i, want := range []float64{loss, mse, size, normOf(grad)} {
					if math.Abs(got[i]-want) > 1e-4*want || !r.Applied {
						t.Errorf("%s, step %d: number %d is %g, want %g", name, step, i, got[i], want)
					}
				}
				host.step(step+1, 0.05, grad)
				host.compare(t, fmt.Sprintf("%s, step %d", name, step), bits(t, store))
			}
			if s.Compilations() != 2 {
				t.Errorf("%s: %d compiled programs, want 2", name, s.Compilations())
			}
		}
	}
}

// TestAccumulateNotFinite: one bad micro-batch skips the whole step, and leaves nothing behind in the sums.
func TestAccumulateNotFinite(t *testing.T) {
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.3, DecayRule: DecayLAVIS}
	store := toyStore(t)
	host := newHostAdamW(a, flat(bits(t, store)))
	s := newStep(t, store, partsTask(2, 0), a, 1)
	before := bits(t, store)
	bad := newToyBatch(0)
	bad.x[0] = float32(math.NaN()) // of the first part
	if r := runToy(t, s, 0, 0.05, bad); r.Applied {
		t.Errorf("the step was applied: %+v", r)
	}
	sameBits(t, "after the bad step", bits(t, store), before)
	b := newToyBatch(1)
	grad := toyGradient(host.p, b)
	if r := runToy(t, s, 1, 0.05, b); !r.Applied {
		t.Errorf("the step behind it was not applied: %+v", r)
	}
	host.step(1, 0.05, grad)
	host.compare(t, "the step behind it", bits(t, store))
}

// TestMicroBatchesDrawTheirOwn: random numbers are keyed by the micro-batch too.
func TestMicroBatchesDrawTheirOwn(t *testing.T) {
	b := newToyBatch(0)
	copy(b.x[6:], b.x[:6])
	copy(b.y[4:], b.y[:4])
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}
	loss := func(parts int, list []*tensors.Tensor) float64 {
		s := newStep(t, toyStore(t), partsTask(parts, 0.4), a, 3)
		r, err := s.Run(5, 0.01, list)
		if err != nil {
			t.Fatal(err)
		}
		return r.Loss
	}
	half, err := cutRows(b.tensors(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	both, one := loss(2, b.tensors()), loss(1, half)
	if both == one {
		t.Error("two equal micro-batches drop the same inputs")
	}
	if again := loss(2, b.tensors()); again != both {
		t.Errorf("the same step has the losses %g and %g", both, again)
	}
}

// TestPartsErrors: batches that cannot be cut are errors that say why.
func TestPartsErrors(t *testing.T) {
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}
	s := newStep(t, toyStore(t), partsTask(3, 0), a, 1)
	if _, err := s.Run(2, 0.1, newToyBatch(0).tensors()); err == nil || !strings.Contains(err.Error(), "step 2") ||
		!strings.Contains(err.Error(), "3 equal micro-batches") {
		t.Errorf("4 rows in 3 parts: error %v", err)
	}
	uneven := newToyBatch(0).tensors()
	uneven[2] = tensors.FromScalar(float32(1))
	if _, err := s.Run(0, 0.1, uneven); err == nil || !strings.Contains(err.Error(), "same number of rows") {
		t.Errorf("a tensor without rows: error %v", err)
	}
}
