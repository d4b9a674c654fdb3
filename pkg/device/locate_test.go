package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testHost is a machine with an empty store, no GPU and the environment env.
func testHost(t *testing.T, env map[string]string) host {
	t.Helper()
	return host{store: store{t.TempDir()}, getenv: func(k string) string { return env[k] }, system: t.TempDir(),
		cuda: func() cudaDriver { return cudaDriver{problem: "no NVIDIA driver"} }}
}

// addPlugin puts an installed plugin of a kind and version into a store.
func addPlugin(t *testing.T, s store, kind, version string, pinned bool) string {
	t.Helper()
	dir := s.dir(kind, version)
	writeFile(t, filepath.Join(dir, "lib", "plugin.so"), "library")
	m := &manifest{Format: manifestFormat, Kind: kind, Version: version, Platform: platform(), Pinned: pinned,
		Plugin: "lib/plugin.so", Files: []manifestFile{{"lib/plugin.so", 7, "-"}}}
	if err := writeManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "lib", "plugin.so")
}

// writeFile writes a file and the folders above it.
func writeFile(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLocateOrder(t *testing.T) {
	env := map[string]string{"HOME": t.TempDir(), "LD_LIBRARY_PATH": "relative:" + t.TempDir()}
	h := testHost(t, env)
	check := func(want, source string) {
		t.Helper()
		p, err := h.locate(backendCPU)
		if err != nil || p.Path != want || p.Source != source || p.Kind != KindCPU {
			t.Fatalf("located %+v, %v; want %s from %s", p, err, want, source)
		}
	}
	if p, err := h.locate(backendCPU); err == nil {
		t.Fatalf("located %+v on an empty machine", p)
	}
	// From the last place to the first: each one wins over those before.
	ld := writeFile(t, filepath.Join(strings.Split(env["LD_LIBRARY_PATH"], ":")[1], "pjrt_c_api_cpu_plugin.so"), "")
	check(ld, "LD_LIBRARY_PATH")
	system := writeFile(t, filepath.Join(h.system, "go-xla", "pjrt-plugin-cpu.so"), "")
	check(system, "go-xla's folder")
	home := writeFile(t, filepath.Join(env["HOME"], ".local/lib/go-xla/pjrt_c_api_cpu_v0.114.0_plugin.so"), "")
	check(home, "go-xla's folder")
	env[pluginPathEnv] = t.TempDir()
	if p, err := h.locate(backendCPU); err == nil {
		t.Fatalf("%s does not replace go-xla's folders: %+v", pluginPathEnv, p)
	}
	named := writeFile(t, filepath.Join(env[pluginPathEnv], "pjrt_c_api_cpu_plugin.so"), "")
	check(named, pluginPathEnv)
	check(addPlugin(t, h.store, KindCPU, pinnedVersion(KindCPU), true), storeSource)
	if p, err := h.locate("xla:/some/where.so"); err != nil || p.Path != "/some/where.so" || p.Version != "" {
		t.Errorf("a path is not taken as it is: %+v, %v", p, err)
	}
}

func TestLocateTellsKindsApart(t *testing.T) {
	h := testHost(t, map[string]string{})
	writeFile(t, filepath.Join(h.system, "go-xla", "pjrt_c_api_cpu_plugin.so"), "")
	writeFile(t, filepath.Join(h.system, "go-xla", "pjrt_c_api_cudafake_plugin.so"), "")
	if p, err := h.locate(backendCUDA); err == nil {
		t.Errorf("located %+v for CUDA", p)
	}
}

func TestStoreWillNotLoad(t *testing.T) {
	version := pinnedVersion(KindCPU)
	damage := func(change func(dir string)) func(t *testing.T, s store) {
		return func(t *testing.T, s store) {
			addPlugin(t, s, KindCPU, version, true)
			change(s.dir(KindCPU, version))
		}
	}
	for name, c := range map[string]struct {
		put  func(t *testing.T, s store)
		want string
	}{
		"no manifest":     {damage(func(d string) { os.Remove(filepath.Join(d, manifestName)) }), "damaged"},
		"half a manifest": {damage(func(d string) { os.Truncate(filepath.Join(d, manifestName), 40) }), "is damaged"},
		"truncated file":  {damage(func(d string) { os.Truncate(filepath.Join(d, "lib/plugin.so"), 3) }), "has 3 bytes"},
		"missing file":    {damage(func(d string) { os.Remove(filepath.Join(d, "lib/plugin.so")) }), "is missing"},
		"other version": {func(t *testing.T, s store) { addPlugin(t, s, KindCPU, "0.10.1", true) },
			"version 0.10.1, this program needs " + version},
		"other format": {damage(func(d string) {
			os.WriteFile(filepath.Join(d, manifestName), []byte(`{"format":99}`), 0o644)
		}), "format 99"},
		"path outside": {damage(func(d string) {
			os.WriteFile(filepath.Join(d, manifestName),
				[]byte(`{"format":1,"kind":"cpu","plugin":"x","files":[{"path":"../../x"}]}`), 0o644)
		}), "outside its folder"},
		"other machine": {damage(func(d string) {
			m, _ := readManifest(d)
			m.Platform = "plan9/arm"
			writeManifest(d, m)
		}), "plan9/arm"},
	} {
		t.Run(name, func(t *testing.T) {
			h := testHost(t, map[string]string{})
			c.put(t, h.store)
			_, err := h.locate(backendCPU)
			if err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "blip2 plugin install cpu") {
				t.Errorf("got %v; want %q and the remedy in it", err, c.want)
			}
		})
	}
}

func TestStoreTakesUnpinnedOnRequest(t *testing.T) {
	h := testHost(t, map[string]string{})
	other := addPlugin(t, h.store, KindCPU, "0.99.0", false)
	if p, err := h.locate(backendCPU); err != nil || p.Path != other {
		t.Errorf("unpinned plugin: %+v, %v", p, err)
	}
	pinned := addPlugin(t, h.store, KindCPU, pinnedVersion(KindCPU), true)
	if p, err := h.locate(backendCPU); err != nil || p.Path != pinned {
		t.Errorf("the pinned one does not come first: %+v, %v", p, err)
	}
}

func TestChooseBackend(t *testing.T) {
	gpu := func() cudaDriver { return cudaDriver{devices: 2, version: 13000} }
	for _, c := range []struct {
		name         string
		driver       func() cudaDriver
		cuda, cpu    bool
		want, reason string
	}{
		{"all", gpu, true, true, backendCUDA, "2 GPUs"},
		{"GPU without plugin", gpu, false, true, backendCPU, "blip2 plugin install cuda"},
		{"plugin without GPU", nil, true, true, backendCPU, "no NVIDIA driver"},
		{"GPU and nothing", gpu, false, false, backendGo, "blip2 plugin install cuda"},
		{"nothing", nil, false, false, backendGo, "blip2 plugin install cpu"},
	} {
		h := testHost(t, map[string]string{})
		if c.driver != nil {
			h.cuda = c.driver
		}
		if c.cuda {
			addPlugin(t, h.store, KindCUDA, pinnedVersion(KindCUDA), true)
		}
		if c.cpu {
			addPlugin(t, h.store, KindCPU, pinnedVersion(KindCPU), true)
		}
		if !xlaBuiltIn {
			c.want, c.reason = backendGo, "built without XLA"
		}
		got := chooseBackend(h)
		if got.name != c.want || !strings.Contains(got.reason, c.reason) {
			t.Errorf("%s: chose %+v, want %s because of %q", c.name, got, c.want, c.reason)
		}
	}
}

func TestList(t *testing.T) {
	h := testHost(t, map[string]string{})
	states := func() string {
		list, err := h.list()
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, p := range list {
			s = append(s, p.Kind+" "+p.State)
		}
		return strings.Join(s, ", ")
	}
	available := func(kind string) string {
		if setFor(kind) == nil {
			return ""
		}
		return kind + " available"
	}
	if setFor(KindCPU) == nil {
		t.Skip("no pinned plugins for " + platform())
	}
	data := ", meteor available, spice available"
	if got, want := states(), available(KindCPU)+", "+available(KindCUDA)+data; got != want {
		t.Errorf("empty store: %q, want %q", got, want)
	}
	writeFile(t, filepath.Join(h.system, "go-xla", "pjrt_c_api_cuda_plugin.so"), "")
	addPlugin(t, h.store, KindCPU, pinnedVersion(KindCPU), true)
	addPlugin(t, h.store, KindCPU, "0.1.0", true)
	addPlugin(t, h.store, KindCPU, "0.2.0", false)
	os.Remove(filepath.Join(h.store.dir(KindCPU, "0.2.0"), manifestName))
	want := "cpu installed, cpu not used, cpu damaged, cuda found outside, cuda available" + data
	if got := states(); got != want {
		t.Errorf("full store: %q, want %q", got, want)
	}
}
