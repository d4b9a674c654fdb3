//go:build cgo && !noxla && linux

package device

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Head of PJRT_Api (pjrt_c_api.h). These fields have kept their places since the interface began.
typedef struct {
	size_t struct_size;
	void* extension_start;
	size_t version_struct_size;
	void* version_extension_start;
	int major;
	int minor;
} blip2_pjrt_head;

// Opens a library; on failure *message is a copy of dlerror, to be freed. One C call, since dlerror is per thread.
static void* blip2_dlopen(const char* path, int flags, char** message) {
	void* handle = dlopen(path, flags);
	*message = NULL;
	if (handle == NULL) {
		const char* e = dlerror();
		*message = strdup(e ? e : "unknown error");
	}
	return handle;
}

static const blip2_pjrt_head* blip2_pjrt_table(void* handle) {
	const blip2_pjrt_head* (*get)(void) = (const blip2_pjrt_head* (*)(void))dlsym(handle, "GetPjrtApi");
	return get ? get() : NULL;
}

// Asks the CUDA driver how many GPUs there are and which CUDA it supports. Returns the driver's error code.
static int blip2_cuda_probe(void* handle, int* devices, int* version) {
	int (*init)(unsigned) = (int (*)(unsigned))dlsym(handle, "cuInit");
	int (*getCount)(int*) = (int (*)(int*))dlsym(handle, "cuDeviceGetCount");
	int (*getVersion)(int*) = (int (*)(int*))dlsym(handle, "cuDriverGetVersion");
	if (!init || !getCount || !getVersion) return -1;
	int code = getVersion(version);
	if (code == 0) code = init(0);
	if (code == 0) code = getCount(devices);
	return code;
}
*/
import "C"

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"unsafe"
)

// dlopen loads a shared library by path or, without a slash, by name.
func dlopen(path string, flags C.int) (unsafe.Pointer, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var message *C.char
	handle := C.blip2_dlopen(cpath, flags, &message)
	if handle == nil {
		defer C.free(unsafe.Pointer(message))
		return nil, fmt.Errorf("loading %s: %s", path, C.GoString(message))
	}
	return handle, nil
}

// loadPJRT loads a plugin and returns the address of its function table and its API version. The library stays
// loaded for the life of the process.
func loadPJRT(path string) (uintptr, APIVersion, error) {
	handle, err := dlopen(path, C.RTLD_LAZY|C.RTLD_LOCAL)
	if err != nil {
		return 0, APIVersion{}, err
	}
	table := C.blip2_pjrt_table(handle)
	if table == nil {
		return 0, APIVersion{}, fmt.Errorf("%s is not a PJRT plugin: it offers no table through GetPjrtApi", path)
	}
	return uintptr(unsafe.Pointer(table)), APIVersion{int(table.major), int(table.minor)}, nil
}

// probeCUDA asks the NVIDIA driver what there is.
func probeCUDA() cudaDriver {
	handle, err := dlopen("libcuda.so.1", C.RTLD_NOW|C.RTLD_LOCAL)
	if err != nil {
		return cudaDriver{problem: "no NVIDIA driver (libcuda.so.1 cannot be loaded)"}
	}
	var devices, version C.int
	code := int(C.blip2_cuda_probe(handle, &devices, &version))
	return judgeCUDA(code, int(devices), int(version))
}

// preload loads the CUDA libraries under site so that later lookups by bare name find them. A file that is not there
// is left to the system's own search; one that is there, is needed and does not load is an error.
func preload(site string, log *slog.Logger) error {
	for _, library := range cudaLibraries {
		path := filepath.Join(site, library.path)
		if _, err := os.Stat(path); err != nil {
			log.Debug("CUDA library is not beside the plugin", "file", path)
			continue
		}
		err := checkLibrary(path)
		if err == nil {
			_, err = dlopen(path, C.RTLD_NOW|C.RTLD_GLOBAL)
		}
		switch {
		case err != nil && library.optional:
			log.Warn("CUDA library does not load; going on without it", "error", err)
		case err != nil:
			return fmt.Errorf("CUDA library: %w; remedy: %s", err, reinstall(KindCUDA))
		}
	}
	return nil
}
