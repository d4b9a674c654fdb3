//go:build cgo && !noxla && linux

package device

/*
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

// The parts of pjrt_c_api.h that compilation needs. Fields of PJRT's structs keep their places for ever.
typedef struct {
	size_t struct_size;
	void* extension_start;
	char* code;
	size_t code_size;
	const char* format;
	size_t format_size;
} blip2_program;

typedef struct {
	size_t struct_size;
	void* extension_start;
	void* client;
	const blip2_program* program;
	const char* compile_options;
	size_t compile_options_size;
	void* executable;
} blip2_compile_args;

typedef void* (*blip2_compile)(blip2_compile_args*);

// PJRT_Api as far as PJRT_Client_Compile: sizes and version, 20 functions, then this one.
typedef struct {
	size_t struct_size;
	void* extension_start;
	size_t version_struct_size;
	void* version_extension_start;
	int major;
	int minor;
	void* before[20];
	blip2_compile compile;
} blip2_pjrt_api;

// Edits a program; the answer is NULL if it stays as it is, else the caller's to free.
extern char* blip2EditProgram(char* code, size_t size, size_t* edited_size);

// Compiles the edited program, and gives back to the system what the compiler has freed: glibc keeps it otherwise, and
// it is as much as a gigabyte.
static void* blip2_compile_edited(blip2_compile original, blip2_compile_args* args) {
	blip2_program edited = *args->program;
	char* text = NULL;
	if (edited.format_size == 4 && memcmp(edited.format, "mlir", 4) == 0)
		text = blip2EditProgram(edited.code, edited.code_size, &edited.code_size);
	const blip2_program* program = args->program;
	if (text != NULL) {
		edited.code = text;
		args->program = &edited;
	}
	void* error = original(args);
	args->program = program;
	free(text);
	malloc_trim(0);
	return error;
}

// A compile function is not told which table it was called through: every table gets one of its own.
static blip2_compile blip2_originals[4];
static void* blip2_compile_0(blip2_compile_args* args) { return blip2_compile_edited(blip2_originals[0], args); }
static void* blip2_compile_1(blip2_compile_args* args) { return blip2_compile_edited(blip2_originals[1], args); }
static void* blip2_compile_2(blip2_compile_args* args) { return blip2_compile_edited(blip2_originals[2], args); }
static void* blip2_compile_3(blip2_compile_args* args) { return blip2_compile_edited(blip2_originals[3], args); }
static const blip2_compile blip2_wrappers[4] = {blip2_compile_0, blip2_compile_1, blip2_compile_2, blip2_compile_3};

// Copies a table and puts the wrapper with the given number into it.
static void* blip2_wrap_table(const void* table, int number) {
	const blip2_pjrt_api* api = table;
	if (number < 0 || number >= 4 || api->struct_size < sizeof(blip2_pjrt_api)) return NULL;
	blip2_pjrt_api* copy = malloc(api->struct_size);
	if (copy == NULL) return NULL;
	memcpy(copy, api, api->struct_size);
	blip2_originals[number] = copy->compile;
	copy->compile = blip2_wrappers[number];
	return copy;
}

static void blip2_set_malloc(int mmap_threshold, int trim_threshold) {
	mallopt(M_MMAP_THRESHOLD, mmap_threshold);
	mallopt(M_TRIM_THRESHOLD, trim_threshold);
}
*/
import "C"

import (
	"unsafe"

	"blip2/pkg/internal/inplace"
)

// mmapThreshold is from which size on the C library maps an allocation by itself, which returns it to the system as
// soon as it is freed, and trimThreshold is how much of what was freed it keeps at the end of a heap. A program's
// temporary buffers come again with every run, and fresh pages for them are cleared by the system first: with
// thresholds of 1 MiB and 128 KiB, a training step of stage 1 took some 5 % longer and a step of generation 10 %.
const mmapThreshold, trimThreshold = 32 << 20, 256 << 20

// wrapTable returns a copy of a plugin's function table whose compiler writes variables in place (package inplace) and
// keeps no memory. number counts the plugins of the process; beyond a few the table is returned as it is: programs then
// only take more memory. The copy stays for the life of the process, like the plugin.
func wrapTable(table uintptr, number int) uintptr {
	C.blip2_set_malloc(mmapThreshold, trimThreshold)
	//nolint:govet // the table belongs to C
	if wrapped := C.blip2_wrap_table(*(*unsafe.Pointer)(unsafe.Pointer(&table)), C.int(number)); wrapped != nil {
		return uintptr(wrapped)
	}
	return table
}

// editProgram edits a program on its way to the compiler; nil leaves it as it is. What it returns is C's to free.
func editProgram(code *C.char, size C.size_t) (edited *C.char, editedSize C.size_t) {
	text := unsafe.Slice((*byte)(unsafe.Pointer(code)), int(size))
	changed := inplace.Edit(text)
	if len(changed) == len(text) {
		return nil, size
	}
	return (*C.char)(C.CBytes(changed)), C.size_t(len(changed))
}
