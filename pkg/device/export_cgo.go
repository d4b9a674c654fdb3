//go:build cgo && !noxla && linux

package device

// #include <stddef.h>
import "C"

// blip2EditProgram is editProgram for C; cgo wants what it exports in a file without C code.
//
//export blip2EditProgram
func blip2EditProgram(code *C.char, size C.size_t, editedSize *C.size_t) *C.char {
	edited, n := editProgram(code, size)
	*editedSize = n
	return edited
}
