package nn

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// sizes of an attention.
type sizes struct{ batch, heads, rows, columns, d int }

// host is attention in float64 with loops: q [batch, heads, rows, d], k and v [batch, heads, columns, d], the mask
// by (batch, row, column); the result is [batch, rows, heads·d].
func (s sizes) host(q, k, v []float64, mask func(b, r, c int) float64) []float64 {
	byHead := func(b, _, r, c int) float64 { return mask(b, r, c) }
	return s.hostScaled(q, k, v, 1/math.Sqrt(float64(s.d)), byHead)
}

// hostScaled is host with another scale and a mask by (batch, head, row, column).
func (s sizes) hostScaled(q, k, v []float64, scale float64, mask func(b, h, r, c int) float64) []float64 {
	out := make([]float64, s.batch*s.rows*s.heads*s.d)
	scores := make([]float64, s.columns)
	for b := range s.batch {
		for h := range s.heads {
			for r := range s.rows {
				query := q[((b*s.heads+h)*s.rows+r)*s.d:][:s.d]
				for c := range scores {
					key := k[((b*s.heads+h)*s.columns+c)*s.d:][:s.d]
					scores[c] = mask(b, h, r, c)
					for i := range s.d {
						scores[c] += query[i] * key[i] * scale
					}
				}
				norm := hostLogSumExp(scores, s.columns)[0]
				for c, score := range scores {
					value := v[((b*s.heads+h)*s.columns+c)*s.d:][:s.d]
					for i := range s.d {
						out[((b*s.rows+r)*s.heads+h)*s.d+i] += math.Exp(score-norm) * value[i]
					}
				}
			}
		}
	}
	return out
}

// TestAttention compares values and gradients with loops, for every shape of mask that is allowed.
func TestAttention(t *testing.T) {
	s := sizes{batch: 2, heads: 3, rows: 4, columns: 5, d: 2}
	q := normal(1, 0, 1, s.batch, s.heads, s.rows, s.d)
	k := normal(2, 0, 1, s.batch, s.heads, s.columns, s.d)
	v := normal(3, 0, 1, s.batch, s.heads, s.columns, s.d)
	for _, c := range []struct {
		name string
		dims []int
		// visible holds the elements of the mask that are 0; the others are −10000
		visible []int
	}{
		{"none", nil, nil},
		{"columns", []int{1, 1, 1, 5}, []int{0, 1, 4}},
		{"columns of each element", []int{2, 1, 1, 5}, []int{0, 1, 2, 3, 4, 5}},
		{"rows and columns", []int{1, 1, 4, 5}, []int{0, 5, 6, 10, 11, 12, 13, 14, 17}},
		{"everything", []int{2, 1, 4, 5}, []int{0, 3, 5, 9, 10, 17, 20, 21, 25, 30, 31, 38, 39}},
		{"a row that sees nothing", []int{1, 1, 4, 5}, []int{0, 1, 10, 11, 12, 19}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inputs := []*tensors.Tensor{q.tensor(), k.tensor(), v.tensor()}
			mask := func(b, r, col int) float64 { return 0 }
			if c.dims != nil {
				m := array{c.dims, make([]float32, c.dims[0]*c.dims[2]*c.dims[3])}
				for i := range m.values {
					m.values[i] = -10000
				}
				for _, i := range c.visible {
					m.values[i] = 0
				}
				mask = func(b, r, col int) float64 {
					return float64(m.values[(b%c.dims[0]*c.dims[2]+r%c.dims[2])*s.columns+col])
				}
				inputs = append(inputs, m.tensor())
			}
			got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
				var m *Node
				if len(in) == 4 {
					m = in[3]
				}
				y := Attention(in[0], in[1], in[2], m, nil, 0.5)
				y.AssertDims(s.batch, s.rows, s.heads*s.d)
				return append([]*Node{y}, Gradient(probe(y), in[0], in[1], in[2])...)
			}, inputs...)
			wq, wk, wv := q.wide(), k.wide(), v.wide()
			tolerance := 1e-5
			if c.name == "a row that sees nothing" {
				tolerance = 1e-3 // its scores near −10000 are exact to 5e-4 in float32
			}
			near(t, "value", got[0], s.host(wq, wk, wv, mask), tolerance/5)
			byQ := slope(func(x []float64) []float64 { return s.host(x, wk, wv, mask) }, wq)
			byK := slope(func(x []float64) []float64 { return s.host(wq, x, wv, mask) }, wk)
			byV := slope(func(x []float64) []float64 { return s.host(wq, wk, x, mask) }, wv)
			near(t, "gradient of q", got[1], byQ, tolerance)
			near(t, "gradient of k", got[2], byK, tolerance)
			near(t, "gradient of v", got[3], byV, tolerance)
		})
	}
}

// TestScaledAttention: a scale of one's own, and a mask that differs by head, as T5's position biases do.
func TestScaledAttention(t *testing.T) {
	s := sizes{batch: 2, heads: 3, rows: 4, columns: 5, d: 2}
	q := normal(1, 0, 1, s.batch, s.heads, s.rows, s.d)
	k := normal(2, 0, 1, s.batch, s.heads, s.columns, s.d)
	v := normal(3, 0, 1, s.batch, s.heads, s.columns, s.d)
	for _, c := range []struct {
		scale float64
		dims  []int
	}{
		{1, []int{1, 3, 4, 5}}, {1, []int{2, 3, 4, 5}}, {0.3, []int{2, 3, 1, 5}}, {-2, []int{1, 3, 1, 5}},
	} {
		bias := normal(4, 0, 1, c.dims...)
		got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			y := ScaledAttention(in[0], in[1], in[2], c.scale, in[3], nil, 0)
			return append([]*Node{y}, Gradient(probe(y), in...)...)
		}, q.tensor(), k.tensor(), v.tensor(), bias.tensor())
		host := func(q, k, v, bias []float64) []float64 {
			return s.hostScaled(q, k, v, c.scale, func(b, h, r, col int) float64 {
				return bias[((b%c.dims[0]*s.heads+h)*c.dims[2]+r%c.dims[2])*s.columns+col]
			})
		}
		x := [][]float64{q.wide(), k.wide(), v.wide(), bias.wide()}
		near(t, "value", got[0], host(x[0], x[1], x[2], x[3]), 2e-6)
		for i, name := range []string{"q", "k", "v", "bias"} {
			near(t, "gradient of "+name, got[i+1], slope(func(moved []float64) []float64 {
				y := slices.Clone(x)
				y[i] = moved
				return host(y[0], y[1], y[2], y[3])
			}, x[i]), 1e-5)
		}
	}
}

// TestBarringMask: what is hidden is gone whatever the scores, and a row that sees nothing stays finite.
func TestBarringMask(t *testing.T) {
	q, v := normal(1, 0, 300, 1, 1, 2, 4), normal(3, 0, 1, 1, 1, 3, 4)
	k := normal(2, 0, 300, 1, 1, 3, 4)
	visible := array{[]int{1, 1, 2, 3}, []float32{0, 1, 0, 0, 0, 0}}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := Attention(in[0], in[1], in[2], BarringMask(in[3]), nil, 0)
		return append([]*Node{y}, Gradient(probe(y), in[:3]...)...)
	}, q.tensor(), k.tensor(), v.tensor(), visible.tensor())
	near(t, "the only visible column", got[0][:4], v.wide()[4:8], 0)
	var mean []float64
	for i := range 4 {
		mean = append(mean, (v.wide()[i]+v.wide()[4+i]+v.wide()[8+i])/3)
	}
	near(t, "no visible column", got[0][4:], mean, 1e-6)
	for _, grad := range got[1:] {
		for _, g := range grad {
			if math.IsNaN(float64(g)) {
				t.Fatal("a gradient is not a number")
			}
		}
	}
}

// TestHiddenColumns: what the mask hides has no influence at all, not even a small one.
func TestHiddenColumns(t *testing.T) {
	q, k, v := normal(1, 0, 1, 1, 2, 3, 4), normal(2, 0, 1, 1, 2, 3, 4), normal(3, 0, 1, 1, 2, 3, 4)
	mask := array{[]int{1, 1, 1, 3}, []float32{0, 0, -10000}}
	attend := func(k, v array) []float32 {
		return run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			return []*Node{Attention(in[0], in[1], in[2], in[3], nil, 0)}
		}, q.tensor(), k.tensor(), v.tensor(), mask.tensor())[0]
	}
	before := attend(k, v)
	for head := range 2 {
		for i := range 4 {
			k.values[(head*3+2)*4+i] += 7
			v.values[(head*3+2)*4+i] -= 9
		}
	}
	for i, x := range attend(k, v) {
		if x != before[i] {
			t.Fatalf("element %d went from %g to %g with a hidden column", i, before[i], x)
		}
	}
}

// TestSplitHeads: feature h·d+i of a token becomes feature i of head h.
func TestSplitHeads(t *testing.T) {
	x := normal(1, 0, 1, 2, 3, 8)
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := SplitHeads(in[0], 4)
		y.AssertDims(2, 4, 3, 2)
		return []*Node{y}
	}, x.tensor())[0]
	for i, v := range got {
		b, h, row, d := i/24, i/6%4, i/2%3, i%2
		if want := x.values[(b*3+row)*8+h*2+d]; v != want {
			t.Fatalf("head %d, row %d, feature %d is %g, want %g", h, row, d, v, want)
		}
	}
}

// TestAttentionDropout: dropped probabilities keep their expectation, so constant values come out unchanged on average.
func TestAttentionDropout(t *testing.T) {
	const rows, columns = 64, 64
	q, k := normal(1, 0, 0.1, 1, 2, rows, 4), normal(2, 0, 0.1, 1, 2, columns, 4)
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		return []*Node{Attention(in[0], in[1], OnesLike(in[1]), nil, NewRNG(in[2]), 0.25)}
	}, q.tensor(), k.tensor(), randomState(t, 5))[0]
	var mean, away float64
	for i := 0; i < len(got); i += 4 { // the features of a head are equal
		mean += float64(got[i]) / (2 * rows)
		away = max(away, math.Abs(float64(got[i])-1))
	}
	// One row is the mean of 64 draws of variance ⅓, the mean is that of 128 rows.
	if sd := math.Sqrt(1.0/3/columns) / math.Sqrt(2*rows); math.Abs(mean-1) > 5*sd || away == 0 {
		t.Errorf("mean over rows %g ± %.2g, furthest row %g from 1", mean, sd, away)
	}
}
