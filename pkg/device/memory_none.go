//go:build !cgo || noxla || !linux

package device

import (
	"runtime/debug"

	"github.com/gomlx/compute"
)

// ReturnMemory gives back to the system what Go has freed and keeps for later.
func ReturnMemory() { debug.FreeOSMemory() }

// ProgramMemoryOf knows no program in this build.
func ProgramMemoryOf(compute.Executable) (ProgramMemory, bool) { return ProgramMemory{}, false }
