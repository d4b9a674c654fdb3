package device

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// pluginPathEnv is go-xla's variable with the folders of plugins; when set it replaces the default folders.
const pluginPathEnv = "PJRT_PLUGIN_LIBRARY_PATH"

// storeSource is the Source of plugins that "blip2 plugin install" put in place.
const storeSource = "blip2 plugin store"

// host is what choosing a backend needs to know of the machine; tests make their own.
type host struct {
	store    store
	storeErr error
	getenv   func(string) string
	system   string // folder that stands for /usr/local/lib
	cuda     func() cudaDriver
}

// newHost describes this machine. cache may be empty.
func newHost(cache string) host {
	h := host{getenv: os.Getenv, system: "/usr/local/lib", cuda: probeCUDA}
	h.store.cache, h.storeErr = cacheDir(cache)
	return h
}

// locate finds the plugin of a parsed XLA backend name. For xla:cpu and xla:cuda the order is: our own store, then
// the folders of PJRT_PLUGIN_LIBRARY_PATH, or if that is not set go-xla's folders and LD_LIBRARY_PATH. To prefer
// another plugin, name it: xla:/path/plugin.so.
func (h host) locate(name string) (*PluginInfo, error) {
	kind := kindOf(name)
	if path := strings.TrimPrefix(name, xlaPrefix); filepath.IsAbs(path) {
		return &PluginInfo{Path: path, Source: "named by the user", Kind: kind}, nil
	}
	if h.storeErr != nil {
		return nil, h.storeErr
	}
	own, reason := h.store.find(kind)
	if own != nil {
		return &PluginInfo{Path: own.plugin(), Source: storeSource, Kind: kind, Version: own.version}, nil
	}
	if path, source := h.searchPath(kind); path != "" {
		return &PluginInfo{Path: path, Source: source, Kind: kind}, nil
	}
	remedy := "blip2 plugin install " + kind
	if strings.Contains(reason, "damaged") {
		remedy = reinstall(kind)
	}
	return nil, fmt.Errorf("backend %s: no PJRT plugin in %s: %s; remedy: %s (or --backend go, which needs none)",
		name, h.store.plugins(), reason, remedy)
}

// pluginFile matches the names that go-xla looks for; the first group is the plugin's name.
var pluginFile = regexp.MustCompile(`^(?:pjrt_c_api_(.+)_plugin|pjrt[-_]plugin[-_](.+))\.so$`)

// searchPath looks for a plugin of a kind in the folders where go-xla would. A name may carry a version, as in
// pjrt_c_api_cpu_v0.114.0_plugin.so.
func (h host) searchPath(kind string) (path, source string) {
	for _, f := range h.searchFolders() {
		entries, err := os.ReadDir(f.dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			m := pluginFile.FindStringSubmatch(e.Name())
			if m == nil {
				continue
			}
			if name := m[1] + m[2]; name == kind || strings.HasPrefix(name, kind+"_v") {
				return filepath.Join(f.dir, e.Name()), f.source
			}
		}
	}
	return "", ""
}

// folder is one place to search, and what to call it.
type folder struct{ dir, source string }

// searchFolders lists go-xla's folders in its order.
func (h host) searchFolders() (folders []folder) {
	add := func(source string, dirs ...string) {
		for _, dir := range dirs {
			if filepath.IsAbs(dir) {
				folders = append(folders, folder{dir, source})
			}
		}
	}
	if path := h.getenv(pluginPathEnv); path != "" {
		add(pluginPathEnv, filepath.SplitList(path)...)
		return folders
	}
	if home := h.getenv("HOME"); home != "" {
		dir := filepath.Join(home, ".local", "lib", "go-xla")
		add("go-xla's folder", dir, filepath.Join(dir, "nvidia"))
	}
	add("go-xla's folder", filepath.Join(h.system, "go-xla"), filepath.Join(h.system, "go-xla", "nvidia"))
	add("LD_LIBRARY_PATH", filepath.SplitList(h.getenv("LD_LIBRARY_PATH"))...)
	return folders
}

// choice is the backend that auto stands for on a machine.
type choice struct{ name, reason string }

// chooseBackend takes CUDA if there is a driver with a GPU and a plugin, else XLA CPU if there is a plugin, else Go.
func chooseBackend(h host) choice {
	if !xlaBuiltIn {
		return choice{backendGo, "this binary was built without XLA"}
	}
	_, noCUDA := h.locate(backendCUDA)
	_, noCPU := h.locate(backendCPU)
	driver := h.cuda()
	gpu := driver.problem
	switch {
	case driver.problem == "" && noCUDA == nil:
		return choice{backendCUDA, fmt.Sprintf("%s and the CUDA plugin are there", count(driver.devices, "GPU"))}
	case driver.problem == "":
		gpu = count(driver.devices, "GPU") + " found but no CUDA plugin (blip2 plugin install cuda)"
	}
	if noCPU == nil {
		return choice{backendCPU, gpu + "; the XLA CPU plugin is there"}
	}
	return choice{backendGo, gpu + "; no XLA CPU plugin (blip2 plugin install cpu makes training several times faster)"}
}
