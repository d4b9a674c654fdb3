package similarity

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"blip2/pkg/device"
)

func TestCompute(t *testing.T) {
	d, err := device.Open(t.Context(), device.Options{Backend: "go", DType: "f32"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	const m, q, n, e = 5, 3, 4, 7
	r := rand.New(rand.NewPCG(1, 2))
	f := Features{Images: make([]float32, m*q*e), Texts: make([]float32, n*e), Width: e, Query: q}
	for _, values := range [][]float32{f.Images, f.Texts} {
		for i := range values {
			values[i] = float32(r.NormFloat64())
		}
	}
	got, err := Compute(t.Context(), d.Backend, f)
	if err != nil || len(got) != m {
		t.Fatal(len(got), err)
	}
	for i := range m {
		for j := range n {
			want := math.Inf(-1)
			for k := range q {
				dot := 0.0
				for x := range e {
					dot += float64(f.Images[(i*q+k)*e+x]) * float64(f.Texts[j*e+x])
				}
				want = max(want, dot)
			}
			if math.Abs(float64(got[i][j])-want) > 1e-5 {
				t.Errorf("picture %d, text %d: %v, want %v", i, j, got[i][j], want)
			}
		}
	}
	f.Images = f.Images[1:]
	if _, err := Compute(t.Context(), d.Backend, f); err == nil || !strings.Contains(err.Error(), "are not features") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Images = make([]float32, m*q*e)
	if _, err := Compute(ctx, d.Backend, f); err == nil {
		t.Error("a cancelled computation gave scores")
	}
}
