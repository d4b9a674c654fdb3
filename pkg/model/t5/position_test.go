package t5

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
)

// borders are the distances at which Hugging Face's T5 on PyTorch goes to the next bucket, behind those distances that
// have one each; up to a distance of 6000 there is no other.
var borders = []struct {
	buckets, maxDistance int
	causal               []int
	bidirectional        []int
}{
	{32, 128, []int{19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113}, []int{12, 16, 23, 32, 46, 64, 91}},
	{64, 256, []int{35, 37, 39, 42, 45, 48, 51, 54, 58, 62, 66, 70, 75, 80, 85, 91, 97, 104, 110, 118, 126, 134, 143,
		153, 163, 174, 185, 198, 211, 225, 240}, []int{20, 23, 27, 32, 39, 46, 54, 64, 77, 91, 108, 128, 153, 182, 216}},
	{16, 100, []int{11, 16, 21, 29, 39, 54, 73}, []int{9, 20, 45}},
	{12, 50, []int{9, 13, 18, 25, 36}, []int{8, 20}},
	{10, 1000, []int{15, 42, 121, 347}, []int{16, 126}},
}

// TestBuckets holds every distance up to 6000 against PyTorch's borders.
func TestBuckets(t *testing.T) {
	for _, b := range borders {
		cfg := Config{Buckets: b.buckets, MaxDistance: b.maxDistance}
		check := func(bidirectional bool, exact int, borders []int, buckets int) {
			for distance := range 6001 {
				want := distance
				if distance >= exact {
					want = exact
					for _, border := range borders {
						if distance >= border {
							want++
						}
					}
				}
				if want >= buckets {
					t.Fatalf("the borders %v make more than %d buckets", borders, buckets)
				}
				if got := cfg.bucket(-distance, bidirectional); got != want {
					t.Errorf("%d buckets, bidirectional %t: distance %d is in %d, want %d", b.buckets, bidirectional, -distance,
						got, want)
				}
				ahead := 0 // a causal stack does not look ahead
				if bidirectional && distance > 0 {
					ahead = buckets + want
				}
				if got := cfg.bucket(distance, bidirectional); got != ahead {
					t.Errorf("%d buckets, bidirectional %t: distance %d is in %d, want %d", b.buckets, bidirectional, distance,
						got, ahead)
				}
			}
		}
		check(false, b.buckets/2, b.causal, b.buckets)
		check(true, b.buckets/4, b.bidirectional, b.buckets/2)
	}
	// Here float64 would give another bucket.
	for _, c := range [][4]int{
		{36, 32, 24, 27}, {48, 81, 54, 39}, {54, 64, 36, 36}, {72, 64, 48, 54}, {108, 128, 72, 72},
	} {
		if got := (Config{Buckets: c[0], MaxDistance: c[1]}).bucket(-c[2], false); got != c[3] {
			t.Errorf("%d buckets up to %d: distance %d is in %d, want %d", c[0], c[1], c[2], got, c[3])
		}
	}
}

// TestPositionBias compares the biases that a graph adds with the table, for all rows and for rows behind others.
func TestPositionBias(t *testing.T) {
	cfg := tiny()
	const name = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
	const long, rows, first = 40, 3, 5
	weights := store(t, cfg)
	table := graphtest.Values(t, weights, Params(cfg))[name]
	got := graphtest.Run(t, graphtest.Open(t, "go"), weights, func(scope *mlx.Scope, in []*Node) []*Node {
		s, all := stack{scope: scope.At("decoder"), cfg: cfg}, Iota(in[0].Graph(), shapes.Make(dtypes.Int32, long), 0)
		both := s.bias(true, func() (_, _ *Node) { return all, all })
		behind := s.bias(false, func() (_, _ *Node) { return SliceAxis(all, 0, AxisRange(first, first+rows)), all })
		both.AssertDims(1, cfg.Heads, long, long)
		behind.AssertDims(1, cfg.Heads, rows, long)
		return []*Node{both, behind}
	}, int32(0))
	want := func(rows, start int, bidirectional bool) []float64 {
		var bias []float64
		for h := range cfg.Heads {
			for r := range rows {
				for c := range long {
					bias = append(bias, table[cfg.bucket(c-start-r, bidirectional)*cfg.Heads+h])
				}
			}
		}
		return bias
	}
	graphtest.Near(t, "bidirectional", got[0], want(long, 0, true), 0)
	graphtest.Near(t, "behind others", got[1], want(rows, first, false), 0)
}
