package stage2

import (
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
)

// trainedConfig returns the small model of the given name as it is trained.
func trainedConfig(t *testing.T, name string) Config {
	t.Helper()
	cfg, err := NewConfig(tiny()[name])
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// sampleTexts are texts of 5, 3 and 2 tokens for OPT; for T5 they are prefixes, and the suffixes have 4, 2 and 3.
func sampleTexts(cfg Config) Texts {
	const pad = 0
	texts := Texts{Rows: 3, Length: 5,
		IDs:  []int32{2, 5, 7, 9, 3, 2, 6, 3, pad, pad, 2, 3, pad, pad, pad},
		Mask: []int32{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0}}
	if cfg.T5 != nil {
		texts.OutputLength = 4
		texts.OutputIDs = []int32{8, 9, 10, 1, 11, 1, pad, pad, 12, 13, 1, pad}
		texts.OutputMask = []int32{1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0}
	}
	return texts
}

// feed is a batch of three pictures with sampleTexts.
func feed(cfg Config) []any {
	var args []any
	for _, t := range BatchTensors(cfg, tensors.MustCopyFlatData[float32](pictures(0, 3)), sampleTexts(cfg)) {
		args = append(args, t)
	}
	return args
}

// evaluate builds outputs from the model's root scope and the nodes of feed's batch.
func evaluate(t *testing.T, backend compute.Backend, cfg Config, store *mlx.Store,
	build func(scope *mlx.Scope, b Batch, more []*Node) []*Node, more ...any) [][]float32 {
	t.Helper()
	inputs := feed(cfg)
	n := len(inputs)
	return graphtest.Run(t, backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		return build(scope, newBatch(cfg, in[:n]), in[n:])
	}, append(inputs, more...)...)
}

// values are the nodes of tensors.
func values(scope *mlx.Scope, g *Graph, params []model.Param) []*Node {
	nodes := make([]*Node, len(params))
	for i, p := range params {
		nodes[i] = scope.Store().GetVariable(model.Path(p.Name)).NodeValue(g)
	}
	return nodes
}
