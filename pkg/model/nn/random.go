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
	if runsOpByOp(r.state) {
		r.state, values = RandomUniform(r.state, shapes.Make(dtypes.Float32, dims...))
		return values
	}
	// XLA fuses a function of the position into what reads it, and on many devices each computes its own part. Its
	// generator would fill the whole tensor on every one of them.
	var keys *Node
	r.state, keys = RNGStateSplit(r.state)
	key := func(i int) *Node {
		return ConvertDType(Squeeze(SliceAxis(keys, 0, AxisElem(i))), dtypes.Uint32)
	}
	bits := mixed(BitwiseXor(positions(g, dims), BroadcastToDims(key(0), dims...)))
	bits = mixed(Add(bits, BroadcastToDims(key(1), dims...)))
	values = MulScalar(ConvertDType(BitwiseShiftRightLogicalScalar(bits, uint32(8)), dtypes.Float32), 1.0/(1<<24))
	return StopGradient(values)
}

// positions numbers the elements of a tensor row-major, modulo 2³², in uint32.
func positions(g *Graph, dims []int) *Node {
	shape := shapes.Make(dtypes.Uint32, dims...)
	if len(dims) == 0 {
		return Zeros(g, shape)
	}
	var sum *Node
	for axis := range dims {
		stride := uint32(1)
		for _, n := range dims[axis+1:] {
			stride *= uint32(n)
		}
		at := Mul(Iota(g, shape, axis), BroadcastToDims(Scalar(g, dtypes.Uint32, stride), dims...))
		if sum == nil {
			sum = at
		} else {
			sum = Add(sum, at)
		}
	}
	return sum
}

// mixed permutes 32-bit numbers so that every bit of the result depends on all bits of x: the function "lowbias32" of
// Chris Wellons' search for integer hashes (nullprogram.com, 2018).
func mixed(x *Node) *Node {
	constant := func(v uint32) *Node {
		return BroadcastToDims(Scalar(x.Graph(), dtypes.Uint32, v), x.Shape().Dimensions...)
	}
	fold := func(x *Node, by uint32) *Node { return BitwiseXor(x, BitwiseShiftRightLogicalScalar(x, by)) }
	x = Mul(fold(x, 16), constant(0x7feb352d))
	x = Mul(fold(x, 15), constant(0x846ca68b))
	return fold(x, 16)
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
