package nn

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// product is x·wᵀ of matrices x [rows, in] and w [out, in], with sums in float32: [rows, out] in the type of x.
//
// XLA's processor kernels multiply bfloat16 matrices as they are, if they are asked for a float32 result. Asked for a
// float32 accumulator, as Dot asks, go-xla first copies w, so that XLA, which might convert it, does not convert all
// weights of a network at once. For a single row XLA does convert w whatever it is asked for, which takes twenty times
// as long as multiplying: it gets the row twice. float16 is always converted there and keeps go-xla's precaution.
func product(x, w *Node) *Node {
	if x.DType() != dtypes.BFloat16 || !onProcessor(x) {
		return Dot(x, w).General([]int{1}, nil, []int{1}, nil)
	}
	rows, in := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	if rows == 1 {
		x = BroadcastToDims(x, 2, in)
	}
	y := Dot(x, w).WithAccumulatorDType(dtypes.BFloat16).WithOutputDType(dtypes.Float32).
		General([]int{1}, nil, []int{1}, nil)
	if rows == 1 {
		y = SliceAxis(y, 0, AxisElem(0))
	}
	return Cast(y, dtypes.BFloat16)
}

// onProcessor reports whether x's graph is compiled by XLA for the host's processor: its buffers then lie in the host's
// memory.
func onProcessor(x *Node) bool {
	return x.Graph().Backend().HasSharedBuffers() && !runsOpByOp(x)
}
