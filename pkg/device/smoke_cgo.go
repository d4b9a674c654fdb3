//go:build cgo && !noxla && linux

package device

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// smokeTest multiplies two small matrices on a plugin of a version that was not tested, so that a mismatch shows here
// and not in the middle of a run.
func smokeTest(backend compute.Backend, p *PluginInfo) error {
	if p.API == pinnedAPI {
		return nil
	}
	return guard(func() error {
		got, err := graph.CallOnce(backend, func(a, b *graph.Node) *graph.Node { return graph.MatMul(a, b) },
			[][]float32{{1, 2}, {3, 4}}, [][]float32{{5, 6}, {7, 8}})
		if err != nil {
			return err
		}
		defer got.FinalizeAll()
		if s := fmt.Sprint(got.Value()); s != "[[19 22] [43 50]]" {
			return fmt.Errorf("a product of two 2×2 matrices came out as %s instead of [[19 22] [43 50]]", s)
		}
		return nil
	})
}
