package nn

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// XLA's matrix products on the host's processor are fast for some ways of writing them and slow for others. What is
// measured below is x·wᵀ with a weight of 2560×10240 in memory, on two cores of a Zen 5, in milliseconds.
//
//   - bfloat16 is multiplied as it is if the product is asked for a float32 result (rows 257: 16). Dot asks for a
//     float32 accumulator instead; for that go-xla first copies w, to keep XLA from converting all weights of a network
//     at once.
//   - The right factor is rearranged before it is used, at every run. With few rows that takes most of the time, unless
//     w is the left one (float32, rows 4: 2.7 in place of 5.7). Then, in turn, the result must be transposed, and other
//     numbers of rows than 16, 32 and 64 are slow (bfloat16, rows 40: 8.3 in place of 5.2).
//   - A single row of bfloat16 makes XLA convert w (44). Several copies of the row do not (3).
//
// float16 has no such kernels: it is always converted, and keeps go-xla's precaution.

// weightLeft says whether w [.., in] is the left factor for so many rows: what was faster in float32 and in bfloat16
// for weights of 768×768 to 2560×50272.
func weightLeft(rows, in int, half bool) bool {
	long := in >= 2048
	switch {
	case rows == 1:
		return false
	case half:
		return long && (rows <= 16 || rows == 32 || rows == 64)
	}
	return rows <= 32 || long && rows <= 64
}

// copiesOfRow is how often a single row of bfloat16 is given.
const copiesOfRow = 8

// product is x·wᵀ of matrices x [rows, in] and w [out, in], with sums in float32: [rows, out] in the type of x.
func product(x, w *Node) *Node {
	rows, in := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	half := x.DType() == dtypes.BFloat16
	switch {
	case !onProcessor(x) || !half && x.DType() != dtypes.Float32:
		return contract(x, w, false)
	case half && rows == 1:
		columns := contract(w, BroadcastToDims(x, copiesOfRow, in), true)
		return Reshape(SliceAxis(columns, 1, AxisElem(0)), 1, -1)
	case weightLeft(rows, in, half):
		// A third axis, because XLA would put a plain transpose into the product, and that the other way round.
		columns := InsertAxes(contract(w, x, half), -1)
		return Reshape(TransposeAllAxes(columns, 1, 2, 0), rows, -1)
	}
	return contract(x, w, half)
}

// contract is a·bᵀ in the type of a. Direct bfloat16 goes to XLA without the copy of b that Dot's way brings with it.
func contract(a, b *Node, direct bool) *Node {
	dot := Dot(a, b)
	if direct {
		dot = dot.WithAccumulatorDType(a.DType()).WithOutputDType(dtypes.Float32)
	}
	return Cast(dot.General([]int{1}, nil, []int{1}, nil), a.DType())
}

// onProcessor reports whether x's graph is compiled by XLA for the host's processor: its buffers then lie in the host's
// memory.
func onProcessor(x *Node) bool {
	return x.Graph().Backend().HasSharedBuffers() && !runsOpByOp(x)
}
