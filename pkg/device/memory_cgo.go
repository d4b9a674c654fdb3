//go:build cgo && !noxla && linux

package device

// #include <malloc.h>
import "C"

import (
	"reflect"
	"runtime/debug"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/pjrt"
)

// ReturnMemory gives back to the system what Go and the C library have freed and keep for later: for measurements, and
// before something else needs the memory.
func ReturnMemory() {
	debug.FreeOSMemory()
	C.malloc_trim(0)
}

// ProgramMemoryOf returns what the compiler says about a program; false on backends other than XLA.
//
// GoMLX's XLA backend has these figures, but keeps them in a private field (go-xla v0.4.2).
func ProgramMemoryOf(program compute.Executable) (ProgramMemory, bool) {
	v := reflect.ValueOf(program)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return ProgramMemory{}, false
	}
	field := v.Elem().FieldByName("exec")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*pjrt.LoadedExecutable]() || !field.CanAddr() || field.IsNil() {
		return ProgramMemory{}, false
	}
	loaded := *(**pjrt.LoadedExecutable)(unsafe.Pointer(field.UnsafeAddr()))
	s := loaded.OnDeviceMemoryUsageStats
	return ProgramMemory{Inputs: s.Inputs, Outputs: s.Outputs - s.Aliases, Temporary: s.Temporary}, true
}
