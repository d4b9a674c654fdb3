//go:build cgo && !noxla && linux

package device

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/go-xla/pjrt"
)

// openCPU opens XLA CPU, or skips the test if the plugin is not on this machine.
func openCPU(t *testing.T, o Options) *Device {
	t.Helper()
	if own, reason := newHost("").store.find(KindCPU); own == nil {
		t.Skipf("needs the XLA CPU plugin (blip2 plugin install cpu): %s", reason)
	}
	d, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestXLACPU(t *testing.T) {
	d := openCPU(t, Options{Backend: "xla:cpu"})
	if d.Name != "xla:cpu" || d.Plugin.API != pinnedAPI || d.Plugin.Source != storeSource ||
		d.Backend.NumDevices() != 1 || d.DTypes.Compute != dtypes.Float32 || !d.Backend.HasSharedBuffers() {
		t.Errorf("unexpected device: %s, %+v", d.Description, d.Plugin)
	}
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16} {
		if worst, err := verifyProduct(d.Backend, dtype); err != nil {
			t.Errorf("%s: %v (worst %g)", dtype, err, worst)
		}
	}
}

func TestXLACPUDevices(t *testing.T) {
	d := openCPU(t, Options{Backend: "xla:cpu", Devices: 3, DType: "bf16"})
	if n := d.Backend.NumDevices(); n != 3 || !strings.HasSuffix(d.Description, "3 devices") {
		t.Errorf("%d devices: %s", n, d.Description)
	}
	if d.DTypes.Compute != dtypes.BFloat16 || d.Devices != 3 {
		t.Errorf("policy %s, %d devices", d.DTypes, d.Devices)
	}
}

func TestXLAPluginByPath(t *testing.T) {
	path := openCPU(t, Options{Backend: "xla:cpu"}).Plugin.Path
	d := openCPU(t, Options{Backend: "xla:" + path})
	if d.Plugin.Path != path || d.Plugin.Source == storeSource || d.Plugin.API != pinnedAPI {
		t.Errorf("unexpected plugin: %+v", d.Plugin)
	}
	// A name with a comma and the letters of the other kind in it must not confuse go-xla.
	link := filepath.Join(t.TempDir(), "cuda, gpu", "pjrt_c_api_cpu_plugin.so")
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	d = openCPU(t, Options{Backend: "xla:" + link, Devices: 2})
	if n := d.Backend.NumDevices(); n != 2 || d.Plugin.Kind != KindCPU {
		t.Errorf("%d devices, plugin %+v", n, d.Plugin)
	}
	if _, err := verifyProduct(d.Backend, dtypes.Float32); err != nil {
		t.Error(err)
	}
}

func TestXLACPUIsDamaged(t *testing.T) {
	path := openCPU(t, Options{Backend: "xla:cpu"}).Plugin.Path
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(t.TempDir(), "half_cpu.so")
	if err := os.WriteFile(half, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	// The dynamic linker would kill the process with SIGBUS.
	if _, err := Open(context.Background(), Options{Backend: "xla:" + half}); err == nil {
		t.Error("half a plugin opens")
	}
}

// compilePlugin makes a shared library of C source, or skips the test if there is no C compiler.
func compilePlugin(t *testing.T, source string) string {
	t.Helper()
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	if _, err := exec.LookPath(cc); err != nil {
		t.Skipf("needs a C compiler: %v", err)
	}
	c := writeFile(t, filepath.Join(t.TempDir(), "plugin.c"), source)
	so := strings.TrimSuffix(c, ".c") + "_cpu.so"
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-o", so, c).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return so
}

func TestForeignPlugins(t *testing.T) {
	table := func(version string) string {
		return `static struct { unsigned long size; void *ext; unsigned long vsize; void *vext; int major, minor;
			void *f[200]; } api = {1000, 0, 24, 0, ` + version + `};
			void *GetPjrtApi(void) { return &api; }`
	}
	for name, c := range map[string]struct{ source, want string }{
		"no table":  {`int x;`, "not a PJRT plugin"},
		"null":      {`void *GetPjrtApi(void) { return 0; }`, "not a PJRT plugin"},
		"too old":   {table("0, 40"), "its interface is 0.40, this program works with 0.115"},
		"other era": {table("1, 2"), "its interface is 1.2, this program works with 0.115"},
		"unresolved": {`extern void nowhere_to_be_found(void); void (*p)(void) = nowhere_to_be_found;
			void *GetPjrtApi(void) { return 0; }`, "nowhere_to_be_found"},
	} {
		t.Run(name, func(t *testing.T) {
			path := compilePlugin(t, c.source)
			_, err := Open(context.Background(), Options{Backend: "xla:" + path})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v; want %q and the path in it", err, c.want)
			}
		})
	}
}

func TestClientOptions(t *testing.T) {
	off := false
	o := Options{Devices: 4, Preallocate: true, MemoryFraction: 0.5, VisibleDevices: []int{0, 2}, TF32: &off,
		Allocator: "cuda_async"}
	for _, c := range []struct {
		kind, config string
		options      pjrt.NamedValuesMap
	}{
		{KindCPU, "/n,shared_buffers=true", pjrt.NamedValuesMap{"cpu_device_count": int64(4)}},
		{KindCUDA, "/n,shared_buffers=false,preallocate=true,tf32=false", pjrt.NamedValuesMap{
			"memory_fraction": float32(0.5), "visible_devices": []int64{0, 2}, "allocator": "cuda_async"}},
		{kindOther, "/n,shared_buffers=false", pjrt.NamedValuesMap{}},
	} {
		config, options := clientOptions("/n", c.kind, o)
		if config != c.config || !reflect.DeepEqual(options, c.options) {
			t.Errorf("%s: %q, %v; want %q, %v", c.kind, config, options, c.config, c.options)
		}
	}
	if _, options := clientOptions("/n", KindCPU, Options{}); options["cpu_device_count"] != int64(1) {
		t.Errorf("default: %v", options)
	}
}

func TestGPUs(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want []int64
	}{
		{Options{}, nil}, {Options{Devices: 2}, []int64{0, 1}}, {Options{VisibleDevices: []int{5, 3}}, []int64{5, 3}},
		{Options{Devices: 1, VisibleDevices: []int{5, 3}}, []int64{5}},
	} {
		if got := gpus(c.o); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.o, got, c.want)
		}
	}
}

func TestPreload(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	site := t.TempDir()
	if err := preload(site, log); err != nil {
		t.Errorf("absent libraries are the system's affair: %v", err)
	}
	for _, library := range cudaLibraries {
		if library.optional {
			writeFile(t, filepath.Join(site, library.path), "not a library")
		}
	}
	if err := preload(site, log); err != nil {
		t.Errorf("optional libraries are damaged: %v", err)
	}
	bad := writeFile(t, filepath.Join(site, cudaLibraries[0].path), "not a library")
	if err := preload(site, log); err == nil || !strings.Contains(err.Error(), bad) ||
		!strings.Contains(err.Error(), "--force") {
		t.Errorf("damaged library: %v", err)
	}
}

func TestCUDAWithoutDriver(t *testing.T) {
	if driver := probeCUDA(); driver.problem == "" {
		t.Skip("this machine has an NVIDIA GPU")
	}
	path := compilePlugin(t, `void *GetPjrtApi(void) { return 0; }`)
	cuda := filepath.Join(filepath.Dir(path), "xla_cuda_plugin.so")
	if err := os.Rename(path, cuda); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), Options{Backend: "xla:" + cuda})
	if err == nil || !strings.Contains(err.Error(), "NVIDIA") || !strings.Contains(err.Error(), "--backend xla:cpu") {
		t.Errorf("got %v", err)
	}
}

func TestCheckOnXLACPU(t *testing.T) {
	openCPU(t, Options{Backend: "xla:cpu"})
	r, err := Check(context.Background(), Options{Backend: "xla:cpu", DType: "bf16"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Products) != 2 || r.Products[0].Worst != 0 || r.API != pinnedAPI.String() || len(r.Devices) != 1 {
		t.Errorf("unexpected report: %+v", r)
	}
	t.Logf("%+v", r)
}
