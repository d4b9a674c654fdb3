package vit

import (
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
)

// TestRemat: computing blocks again changes neither features nor gradients, and its work is what RematFLOPs says.
func TestRemat(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		s := cfg.ImageSize
		flops := map[bool]float64{}
		gradients := func(remat bool) [][]float32 {
			cfg.Remat = remat
			pixels := tensors.FromFlatDataAndDimensions(draw(7, 2*3*s*s), 2, 3, s, s)
			return run(t, storeOf(t, cfg), pixels, func(scope *mlx.Scope, x *Node) []*Node {
				y := Forward(scope, cfg, x)
				var vars []*Node
				for _, p := range Params(cfg) {
					vars = append(vars, scope.Store().GetVariable(model.Path(p.Name)).NodeValue(x.Graph()))
				}
				out := append([]*Node{y}, Gradient(graphtest.Probe(y), append(vars, x)...)...)
				flops[remat] = graphtest.FLOPs(t, out...)
				return out
			})
		}
		want := gradients(false)
		for i, got := range gradients(true) {
			graphtest.Same(t, arch, got, want[i], 1e-6)
		}
		if got, want := flops[true]-flops[false], 2*cfg.RematFLOPs(); got != want {
			t.Errorf("%s: %.0f FLOPs are done again, RematFLOPs says %.0f", arch, got, want)
		}
	}
}
