package nn

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// RNG hands out random numbers while a graph is built. Its state is an input of the graph, derived on the host from
// (seed, step), so that a resumed run draws the same numbers. A nil RNG draws nothing: dropout is then the identity.
type RNG struct {
	state *Node
}

// NewRNG returns an RNG that starts from the state node, shaped as graph.RNGStateFromSeed makes it.
func NewRNG(state *Node) *RNG { return &RNG{state: state} }

// Uniform draws float32 numbers from [0, 1) with the given dimensions.
func (r *RNG) Uniform(g *Graph, dims ...int) *Node {
	var values *Node
	r.state, values = RandomUniform(r.state, shapes.Make(dtypes.Float32, dims...))
	return values
}

// Gumbel draws from the standard Gumbel distribution; argmax(logits + Gumbel) samples from softmax(logits).
func (r *RNG) Gumbel(g *Graph, dims ...int) *Node {
	u := MaxScalar(r.Uniform(g, dims...), 1e-20)
	return Neg(Log(MaxScalar(Neg(Log(u)), 1e-20)))
}

// Dropout zeroes elements of x with the given probability and scales the rest by 1/(1−rate).
func (r *RNG) Dropout(x *Node, rate float64) *Node {
	if r == nil || rate == 0 {
		return x
	}
	keep := GreaterOrEqual(r.Uniform(x.Graph(), x.Shape().Dimensions...), Scalar(x.Graph(), dtypes.Float32, rate))
	return Where(keep, MulScalar(x, 1/(1-rate)), ZerosLike(x))
}

// Checkpoint starts a stretch of the graph whose draws are repeated in the backward pass instead of being kept; see
// graph.Node.Checkpoint. The numbers stay the same.
func (r *RNG) Checkpoint() {
	if r != nil {
		r.state = r.state.Checkpoint()
	}
}

// StopCheckpoint ends what Checkpoint has started.
func (r *RNG) StopCheckpoint() {
	if r != nil {
		r.state = r.state.StopCheckpoint()
	}
}
