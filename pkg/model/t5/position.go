package t5

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// positionBias is what the relative positions of tokens add to attention scores: float32 [1, heads, rows, columns], for
// tokens at the positions rows [rows] that attend to those at columns [columns], int32 and less than the number of
// columns. The scope is that of a stack's first self-attention, which has the table for all blocks of the stack.
//
// A decoder's (not bidirectional) biases of later columns, which its mask hides, are those of distance 0.
func positionBias(scope *model.Scope, cfg Config, bidirectional bool, rows, columns *Node) *Node {
	g := rows.Graph()
	dims := []int{rows.Shape().Dimensions[0], columns.Shape().Dimensions[0]}
	lowest, highest := 1-dims[1], 0
	if bidirectional {
		highest = dims[1] - 1
	}
	buckets := make([]int32, highest-lowest+1)
	for i := range buckets {
		buckets[i] = int32(cfg.bucket(lowest+i, bidirectional))
	}
	byDistance := nn.Embed(scope.At("relative_attention_bias"), Const(g, buckets), dtypes.Float32)

	relative := Sub(BroadcastToDims(InsertAxes(columns, 0), dims...), BroadcastToDims(InsertAxes(rows, -1), dims...))
	relative = MinScalar(relative, highest)
	bias := Gather(byDistance, InsertAxes(AddScalar(relative, -lowest), -1))
	return InsertAxes(TransposeAllAxes(bias, 2, 0, 1), 0)
}

// bucket is the row of the bias table for a relative position, that of the key minus that of the query. Small distances
// have a bucket each, larger ones share them on a logarithmic scale, and all from MaxDistance on the last.
//
// The scale is computed in float32, step by step as PyTorch does: rounding decides at the borders of buckets.
func (c Config) bucket(relative int, bidirectional bool) int {
	buckets, first, distance := c.Buckets, 0, max(-relative, 0)
	if bidirectional {
		buckets /= 2
		if relative > 0 {
			first, distance = buckets, relative
		}
	}
	exact := buckets / 2
	if distance < exact {
		return first + distance
	}
	log := float32(math.Log(float64(float32(distance) / float32(exact))))
	range32 := float32(math.Log(float64(c.MaxDistance) / float64(exact)))
	steps := log / range32 * float32(buckets-exact)
	return first + min(exact+int(steps), buckets-1)
}
