package device

import (
	"fmt"
	"os"
	"path/filepath"
)

// cudaDriver is what the NVIDIA driver says of itself.
type cudaDriver struct {
	devices int
	version int    // CUDA version it supports: 1000*major + 10*minor
	problem string // why it cannot be used; empty if it can
}

// minCUDA is the CUDA version that the pinned plugin is built for, as the driver counts.
const minCUDA = 13000

// judgeCUDA turns the driver's answers into a verdict. code is a CUresult, or -1 if the library lacks the functions.
func judgeCUDA(code, devices, version int) cudaDriver {
	d := cudaDriver{devices: devices, version: version}
	switch {
	case code == 100 || code == 0 && devices == 0: // CUDA_ERROR_NO_DEVICE
		d.problem = "the NVIDIA driver is installed but sees no GPU"
	case code != 0 && version == 0:
		d.problem = fmt.Sprintf("the NVIDIA driver does not answer (CUDA error %d)", code)
	case version < minCUDA:
		d.problem = fmt.Sprintf("the NVIDIA driver supports CUDA %d.%d, the plugin needs 13.0: update the driver to 580 "+
			"or newer", version/1000, version%1000/10)
	case code != 0:
		d.problem = fmt.Sprintf("the NVIDIA driver failed to start (CUDA error %d); see what nvidia-smi says", code)
	}
	return d
}

// cudaLibrary is a library to load before the CUDA plugin.
type cudaLibrary struct {
	path     string // relative to the folder that holds nvidia/
	optional bool   // training on one machine works without it
}

// cudaLibraries are in an order in which each finds those it needs. The list is the one that JAX loads before the
// same plugin, and nvJitLink, which cuSPARSE and cuSOLVER need.
var cudaLibraries = []cudaLibrary{
	{path: "nvidia/cu13/lib/libcudart.so.13"},
	{path: "nvidia/cu13/lib/libnvrtc.so.13"},
	{path: "nvidia/cu13/lib/libnvJitLink.so.13"},
	{path: "nvidia/cu13/lib/libcublasLt.so.13"},
	{path: "nvidia/cu13/lib/libcublas.so.13"},
	{path: "nvidia/nccl/lib/libnccl.so.2"},
	{path: "nvidia/cu13/lib/libcupti.so.13", optional: true},
	{path: "nvidia/cu13/lib/libcusparse.so.12"},
	{path: "nvidia/cu13/lib/libcusolver.so.12"},
	{path: "nvidia/cu13/lib/libcufft.so.12"},
	{path: "nvidia/nvshmem/lib/libnvshmem_host.so.3", optional: true},
	{path: "nvidia/cudnn/lib/libcudnn.so.9"},
}

// siteOf returns the folder that holds both the plugin's package and nvidia/, or "" if there is none. The plugin lies
// in site/jax_plugins/xla_cuda13/ and looks for its libraries in ../../nvidia.
func siteOf(plugin string) string {
	if real, err := filepath.EvalSymlinks(plugin); err == nil {
		plugin = real
	}
	for _, up := range []string{"../..", ".."} {
		site := filepath.Join(filepath.Dir(plugin), up)
		if info, err := os.Stat(filepath.Join(site, "nvidia")); err == nil && info.IsDir() {
			return site
		}
	}
	return ""
}
