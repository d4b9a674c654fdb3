package footprint

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"blip2/pkg/internal/graphtest"
)

// input is a float32 parameter.
func input(g *Graph, name string, dims ...int) *Node {
	return Parameter(g, name, shapes.Make(dtypes.Float32, dims...))
}

// TestOf predicts small programs by hand: what is written to memory, and how long it lives.
func TestOf(t *testing.T) {
	backend := graphtest.Open(t, "go")
	const kb = 32 * 8 * 4 // bytes of a [32, 8]
	for _, tt := range []struct {
		name  string
		build func(g *Graph) []*Node
		want  int64
	}{
		{"parameters and results are not counted", func(g *Graph) []*Node {
			return []*Node{MatMul(input(g, "x", 32, 4), input(g, "w", 4, 8))}
		}, 0},
		{"element by element", func(g *Graph) []*Node {
			return []*Node{ReduceAllSum(Square(AddScalar(input(g, "x", 32, 8), 1)))}
		}, 0},
		{"a product that is reduced", func(g *Graph) []*Node {
			return []*Node{ReduceAllSum(MatMul(input(g, "x", 32, 4), input(g, "w", 4, 8)))}
		}, kb},
		{"in half precision", func(g *Graph) []*Node {
			x, w := shapes.Make(dtypes.BFloat16, 32, 4), shapes.Make(dtypes.BFloat16, 4, 8)
			return []*Node{ReduceAllSum(MatMul(Parameter(g, "x", x), Parameter(g, "w", w)))}
		}, kb / 2},
		{"a function between products is written", func(g *Graph) []*Node {
			h := MatMul(input(g, "x", 32, 4), input(g, "w", 4, 8))
			return []*Node{MatMul(MulScalar(h, 2), input(g, "v", 8, 2))}
		}, 2 * kb},
		{"and only as long as it is needed", func(g *Graph) []*Node {
			h := input(g, "x", 32, 8)
			for _, name := range []string{"a", "b", "c", "d"} {
				h = MatMul(h, input(g, name, 8, 8))
			}
			return []*Node{h}
		}, 2 * kb},
		{"a skip connection lives to its end", func(g *Graph) []*Node {
			x := MatMul(input(g, "x", 32, 4), input(g, "w", 4, 8))
			h := MatMul(MatMul(x, input(g, "a", 8, 8)), input(g, "b", 8, 8))
			return []*Node{ReduceAllSum(Mul(x, h))}
		}, 3 * kb},
		{"views take no memory", func(g *Graph) []*Node {
			h := Transpose(Reshape(MatMul(input(g, "x", 32, 4), input(g, "w", 4, 8)), 8, 32), 0, 1)
			return []*Node{MatMul(h, input(g, "v", 8, 2))}
		}, kb},
		{"cheap things are computed for every use", func(g *Graph) []*Node {
			twice := MulScalar(input(g, "x", 32, 8), 2)
			return []*Node{ReduceAllSum(twice), ReduceAllMax(twice)}
		}, 0},
		{"expensive ones once", func(g *Graph) []*Node {
			e := Exp(input(g, "x", 32, 8))
			return []*Node{ReduceAllSum(e), ReduceAllMax(e)}
		}, kb},
		{"unless they have one use", func(g *Graph) []*Node {
			return []*Node{ReduceAllSum(Exp(input(g, "x", 32, 8)))}
		}, 0},
		{"a sum lies where its first term was", func(g *Graph) []*Node {
			x := input(g, "x", 32, 4)
			sum := Add(MatMul(x, input(g, "a", 4, 8)), MatMul(x, input(g, "b", 4, 8)))
			return []*Node{ReduceAllSum(sum)}
		}, 2 * kb},
		{"a long sum needs two places", func(g *Graph) []*Node {
			x := input(g, "x", 32, 4)
			var terms []*Node
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				terms = append(terms, MatMul(x, input(g, name, 4, 8)))
			}
			sum := terms[0]
			for _, term := range terms[1:] {
				sum = Add(sum, term)
			}
			return []*Node{ReduceAllSum(sum)}
		}, 2 * kb},
		{"a sum that is the result needs one", func(g *Graph) []*Node {
			x := input(g, "x", 32, 4)
			return []*Node{Add(MatMul(x, input(g, "a", 4, 8)), MatMul(x, input(g, "b", 4, 8)))}
		}, kb},
	} {
		g := NewGraph(backend, tt.name)
		if got := Of(tt.build(g)); got.Peak != tt.want || got.Nodes != len(g.Nodes()) {
			t.Errorf("%s: %+v, want %d bytes and %d nodes", tt.name, got, tt.want, len(g.Nodes()))
		}
		g.Finalize()
	}
}

// TestUnused: what no result depends on is never computed.
func TestUnused(t *testing.T) {
	g := NewGraph(graphtest.Open(t, "go"), "unused")
	x := input(g, "x", 32, 4)
	MatMul(MatMul(x, input(g, "a", 4, 1000)), input(g, "b", 1000, 4))
	if got := Of([]*Node{ReduceAllSum(MatMul(x, input(g, "w", 4, 8)))}); got.Peak != 32*8*4 {
		t.Errorf("%d bytes", got.Peak)
	}
}

// TestGradient: the backward pass keeps a layer's inputs, so that its memory grows with the number of layers; with
// checkpoints it keeps one input of each and computes the rest again.
func TestGradient(t *testing.T) {
	backend := graphtest.Open(t, "go")
	const rows, width = 64, 16
	peak := func(layers int, again bool) int64 {
		g := NewGraph(backend, "gradient")
		defer g.Finalize()
		x := input(g, "x", rows, width)
		var weights []*Node
		for range layers {
			a, b := input(g, string(rune('a'+len(weights))), width, 4*width), input(g, string(rune('A'+len(weights))), 4*width,
				width)
			weights = append(weights, a, b)
			if again {
				x = x.Checkpoint()
			}
			x = Add(x, MatMul(Tanh(MatMul(x, a)), b))
		}
		if again {
			x = x.StopCheckpoint()
		}
		return Of(append(Gradient(ReduceAllSum(Square(x)), weights...), x)).Peak
	}
	const wide = rows * 4 * width * 4
	two, four, eight := peak(2, false), peak(4, false), peak(8, false)
	if perLayer := (eight - four) / 4; perLayer < wide || perLayer > 4*wide || (four-two)/2 != perLayer {
		t.Errorf("%d bytes with 2 layers, %d with 4, %d with 8", two, four, eight)
	}
	if again := peak(8, true); again >= eight*2/3 {
		t.Errorf("%d bytes with checkpoints, %d without", again, eight)
	}
}
