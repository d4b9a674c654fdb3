//go:build !cgo || noxla || !linux

package device

import (
	"errors"

	"github.com/gomlx/compute"
)

// xlaBuiltIn says whether this binary can load PJRT plugins.
const xlaBuiltIn = false

// errNoXLA is what an XLA backend answers in this build.
var errNoXLA = errors.New("this binary was built without XLA, which needs cgo (a C compiler) on Linux; use " +
	"--backend go, or rebuild with CGO_ENABLED=1 and without the tag noxla")

// openXLA always fails in this build.
func openXLA(*PluginInfo, Options) (compute.Backend, error) { return nil, errNoXLA }

// probeCUDA finds nothing in this build.
func probeCUDA() cudaDriver { return cudaDriver{problem: errNoXLA.Error()} }
