package vit

import (
	"strings"
	"testing"
)

// TestDepth: by every architecture, each block's tensors are one deeper than those of the block above it, and what is
// in front of the blocks is deepest (spec/training.md 6).
func TestDepth(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		cfg.Layers = 12
		for _, p := range Params(cfg) {
			want := cfg.Layers + 1
			if _, rest, ok := strings.Cut(p.Name, "blocks."); ok {
				var block int
				for _, digit := range strings.SplitN(rest, ".", 2)[0] {
					block = 10*block + int(digit-'0')
				}
				want = cfg.Layers - block
			} else if strings.HasPrefix(p.Name, "norm.") {
				want = 1
			}
			if got := cfg.Depth(p.Name); got != want {
				t.Errorf("%s: %s has depth %d, want %d", arch, p.Name, got, want)
			}
			lavis := want
			if strings.HasPrefix(p.Name, "conv1.") || strings.HasPrefix(p.Name, "ln_pre.") {
				lavis = 1
			}
			if got := cfg.DepthLAVIS(p.Name); got != lavis {
				t.Errorf("%s: %s has depth %d in released code, want %d", arch, p.Name, got, lavis)
			}
		}
		for _, strange := range []string{"", "blocks", "blocks.", "blocks.x.y", "blocks.-1.y", "blocks.12.y", "head"} {
			if got := cfg.Depth(strange); got != 1 {
				t.Errorf("%s: %q has depth %d, want 1", arch, strange, got)
			}
		}
	}
}
