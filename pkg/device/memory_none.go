//go:build !cgo || noxla || !linux

package device

import "github.com/gomlx/compute"

// ProgramMemoryOf knows no program in this build.
func ProgramMemoryOf(compute.Executable) (ProgramMemory, bool) { return ProgramMemory{}, false }
