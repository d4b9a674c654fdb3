//go:build cgo && !noxla && linux

package device

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
	"github.com/gomlx/go-xla/pjrt"
)

// xlaBuiltIn says whether this binary can load PJRT plugins.
const xlaBuiltIn = true

// errNoXLA belongs to the build without XLA.
var errNoXLA = errors.New("XLA is built in")

// go-xla would otherwise fetch plugins from the network when asked for one by name.
func init() { xla.EnableAutoInstall(false) }

// loaded remembers the plugins of this process: a shared library cannot be unloaded once XLA's threads run in it, so
// this is state of the process, as it is in go-xla and in the dynamic linker.
var loaded = struct {
	sync.Mutex
	name map[string]string     // path -> name under which go-xla knows it
	api  map[string]APIVersion // path -> version
}{name: map[string]string{}, api: map[string]APIVersion{}}

// openXLA loads the plugin, fills in its API version and opens a client on it.
func openXLA(p *PluginInfo, o Options) (compute.Backend, error) {
	if p.Kind == KindCUDA {
		if err := prepareCUDA(p.Path, o); err != nil {
			return nil, err
		}
	}
	name, err := loadOnce(p)
	if err != nil {
		return nil, err
	}
	config, options := clientOptions(name, p.Kind, o)
	backend, err := xla.NewWithOptions(config, options)
	if err != nil {
		return nil, explainPJRT(p, err)
	}
	if err := smokeTest(backend, p); err != nil {
		backend.Finalize()
		return nil, explainPJRT(p, err)
	}
	return backend, nil
}

// loadOnce opens the plugin's library, checks its API version and hands it to go-xla, and returns the name that
// go-xla then knows it by.
//
// The name looks like an absolute path because go-xla searches its folders for anything else, and it holds the kind
// because go-xla tells CPU from CUDA by looking for those letters in the name: the user's own path may hold both
// (/home/cpu-team/cuda/...), or a comma, which would begin an option.
func loadOnce(p *PluginInfo) (string, error) {
	loaded.Lock()
	defer loaded.Unlock()
	if name, ok := loaded.name[p.Path]; ok {
		p.API = loaded.api[p.Path]
		return name, nil
	}
	if err := checkLibrary(p.Path); err != nil {
		return "", err
	}
	table, version, err := loadPJRT(p.Path)
	if err != nil {
		return "", err
	}
	p.API = version
	if err := checkAPI(p); err != nil {
		return "", err
	}
	name := fmt.Sprintf("/plugin-%d/%s", len(loaded.name), p.Kind)
	if err := pjrt.RegisterPreloadedPlugin(name, wrapTable(table, len(loaded.name))); err != nil {
		return "", explainPJRT(p, err)
	}
	loaded.name[p.Path], loaded.api[p.Path] = name, version
	return name, nil
}

// clientOptions returns go-xla's config string and the plugin's own options. A plugin refuses options it does not
// know: cpu_device_count is for the CPU plugin only, the memory options for CUDA only.
func clientOptions(name, kind string, o Options) (string, pjrt.NamedValuesMap) {
	options := pjrt.NamedValuesMap{}
	config := []string{name, fmt.Sprintf("shared_buffers=%t", kind == KindCPU)}
	switch kind {
	case KindCPU:
		options["cpu_device_count"] = int64(max(o.Devices, 1))
	case KindCUDA:
		config = append(config, fmt.Sprintf("preallocate=%t", o.Preallocate))
		if o.TF32 != nil {
			config = append(config, fmt.Sprintf("tf32=%t", *o.TF32))
		}
		if o.MemoryFraction > 0 {
			options["memory_fraction"] = float32(o.MemoryFraction)
		}
		if o.Allocator != "" {
			options["allocator"] = o.Allocator
		}
		if ids := gpus(o); len(ids) > 0 {
			options["visible_devices"] = ids
		}
	}
	return strings.Join(config, ","), options
}

// gpus are the numbers of the GPUs to open; none means all. The others are left to other programs: the plugin would
// take memory on every one it sees.
func gpus(o Options) []int64 {
	var ids []int64
	for _, id := range o.VisibleDevices {
		ids = append(ids, int64(id))
	}
	for len(o.VisibleDevices) == 0 && len(ids) < o.Devices {
		ids = append(ids, int64(len(ids)))
	}
	if o.Devices > 0 && o.Devices < len(ids) {
		ids = ids[:o.Devices]
	}
	return ids
}

// prepareCUDA refuses a machine that cannot run the plugin, tells XLA where the CUDA tools are, and loads the CUDA
// libraries that lie beside the plugin, in the way JAX does: the plugin asks for them by bare name later.
func prepareCUDA(plugin string, o Options) error {
	driver := probeCUDA()
	if driver.problem != "" {
		return fmt.Errorf("%s; use --backend xla:cpu or go on this machine", driver.problem)
	}
	if _, err := used(o.Devices, driver.devices, KindCUDA); err != nil {
		return err
	}
	site := siteOf(plugin)
	if site == "" {
		o.Logger.Warn("no nvidia folder beside the CUDA plugin; the system's CUDA libraries are used", "plugin", plugin)
		return nil
	}
	if flags := os.Getenv("XLA_FLAGS"); !strings.Contains(flags, "--xla_gpu_cuda_data_dir") {
		flags = strings.TrimSpace(flags + ` --xla_gpu_cuda_data_dir="` + site + `/nvidia/cu13"`)
		if err := os.Setenv("XLA_FLAGS", flags); err != nil {
			return fmt.Errorf("setting XLA_FLAGS: %w", err)
		}
	}
	return preload(site, o.Logger)
}
