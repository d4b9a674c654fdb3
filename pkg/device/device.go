// Package device opens the backend that runs the model's graphs, and keeps the PJRT plugins that XLA needs.
//
// Backends:
//
//	go            pure Go, always there
//	xla:cpu       XLA on the processor, after "blip2 plugin install cpu"
//	xla:cuda      XLA on NVIDIA GPUs, after "blip2 plugin install cuda"
//	xla:/x/y.so   XLA through any PJRT plugin, named by its absolute path
//	auto          xla:cuda if the driver and the plugin are there, else xla:cpu if installed, else go
//
// Opening a device never downloads anything. Programs built with CGO_ENABLED=0 or the build tag noxla have the Go
// backend only, and are static.
package device

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// Options choose a backend. The zero value is backend "auto", one device, dtype "auto".
type Options struct {
	// Backend is go, xla:cpu, xla:cuda, xla:/path/plugin.so or auto; empty is auto.
	Backend string
	// Devices is how many devices of the backend to use; 0 is auto: all visible GPUs on CUDA, 1 elsewhere. XLA CPU offers
	// as many virtual ones as it is asked for; the Go backend has one.
	Devices int
	// DType forces the compute type: auto, f32, bf16 or f16; empty is auto.
	DType string

	// Preallocate makes the CUDA plugin take MemoryFraction of each GPU's memory at once instead of growing.
	Preallocate bool
	// MemoryFraction of each GPU's memory that CUDA may use, in (0, 1]; 0 leaves the plugin's default of 0.75.
	MemoryFraction float64
	// VisibleDevices lists the GPUs to use by number; empty is all.
	VisibleDevices []int
	// TF32 lets f32 matrix products on CUDA use TensorFloat-32; nil leaves it on, as XLA does.
	TF32 *bool
	// Allocator of the CUDA plugin: default, bfc, cuda_async, platform or vmm; empty is default.
	Allocator string

	// CacheDir is the folder of plugins and downloads; empty is what CacheDir() says.
	CacheDir string
	// Logger hears which backend was taken and why; nil is slog.Default().
	Logger *slog.Logger
}

// Device is an open backend together with the number types to use on it.
type Device struct {
	// Backend compiles and runs graphs.
	Backend compute.Backend
	// Name is "go", "xla:cpu", "xla:cuda" or "xla:/path/plugin.so".
	Name string
	// Description says where the plugin was found, its PJRT API version and how many devices there are.
	Description string
	// DTypes says which number types the model computes with and stores.
	DTypes DTypePolicy
	// Plugin describes the PJRT plugin; nil on the Go backend.
	Plugin *PluginInfo
	// Devices is how many devices are used: the backend's first ones. They make up the mesh of a training.
	Devices int

	peak
}

// PluginInfo describes a loaded PJRT plugin.
type PluginInfo struct {
	Path    string // file of the plugin
	Source  string // where it was found: "blip2 plugin store", "PJRT_PLUGIN_LIBRARY_PATH", ...
	Kind    string // "cpu", "cuda" or "other"
	Version string // version of the installed wheel, empty if the plugin is not from the store
	API     APIVersion
}

// APIVersion is a version of the PJRT C interface.
type APIVersion struct{ Major, Minor int }

// String returns "major.minor".
func (v APIVersion) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Open opens the backend that o names. It downloads nothing: a plugin that is missing is an error that says how to
// install it. Mistakes in o are *OptionError.
func Open(ctx context.Context, o Options) (*Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	name, err := ParseBackend(o.Backend)
	if err != nil {
		return nil, err
	}
	if name == backendAuto {
		choice := chooseBackend(newHost(o.CacheDir))
		o.Logger.Info("backend chosen", "backend", choice.name, "reason", choice.reason)
		name = choice.name
	}
	var d *Device
	err = guard(func() error {
		d, err = open(name, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	o.Logger.Debug("backend open", "backend", d.Name, "description", d.Description)
	return d, nil
}

// open opens a backend by its parsed name, which is not auto.
func open(name string, o Options) (*Device, error) {
	if name == backendGo || strings.HasPrefix(name, backendGo+":") {
		return openGo(name, o)
	}
	kind := kindOf(name)
	policy, err := policyFor(name, kind, o.DType)
	if err != nil {
		return nil, err
	}
	if !xlaBuiltIn {
		return nil, fmt.Errorf("backend %s: %w", name, errNoXLA)
	}
	plugin, err := newHost(o.CacheDir).locate(name)
	if err != nil {
		return nil, err
	}
	backend, err := openXLA(plugin, o)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	d := &Device{Backend: backend, Name: name, DTypes: policy, Plugin: plugin}
	if d.Devices, err = used(o.Devices, backend.NumDevices(), kind); err != nil {
		backend.Finalize()
		return nil, err
	}
	d.Description = fmt.Sprintf("%s (%s), PJRT API %s, %s", plugin.Path, plugin.Source, plugin.API,
		count(d.Devices, "device"))
	return d, nil
}

// used is how many of the devices that a backend has are used if asked are wanted, 0 for auto.
func used(asked, have int, kind string) (int, error) {
	switch {
	case asked > have:
		return 0, &OptionError{Option: "devices", Value: fmt.Sprint(asked), Reason: fmt.Sprintf(
			"the backend has %s; ask for that many at most, or for auto", count(have, "device"))}
	case asked > 0:
		return asked, nil
	case kind == KindCUDA:
		return have, nil
	}
	return 1, nil
}

// LoadTo is the backend to which weights are loaded as they are read: nil, which is host memory, where several devices
// will share them.
func (d *Device) LoadTo() compute.Backend {
	if d.Devices > 1 {
		return nil
	}
	return d.Backend
}

// openGo opens the pure Go backend; what follows "go:" is handed to it, as in go:ops_sequential.
func openGo(name string, o Options) (*Device, error) {
	if o.Devices > 1 {
		return nil, &OptionError{Option: "devices", Value: fmt.Sprint(o.Devices),
			Reason: "the Go backend has one device; use xla:cpu or xla:cuda for more"}
	}
	policy, err := policyFor(backendGo, KindCPU, o.DType)
	if err != nil {
		return nil, err
	}
	_, config, _ := strings.Cut(name, ":")
	backend, err := gobackend.New(config)
	if err != nil {
		return nil, &OptionError{Option: "backend", Value: name, Reason: err.Error()}
	}
	if config == "" {
		unlimitWorkers(backend)
	}
	return &Device{Backend: backend, Name: name, Description: "pure Go, 1 device", DTypes: policy, Devices: 1}, nil
}

// unlimitWorkers lifts the limit on the Go backend's worker goroutines. With its default limit (compute v0.1.4)
// independent operations that run at once can deadlock: each matrix product holds a worker while it waits for a free
// one. The backend's own option for this prints to stdout, and its type is internal: hence the reflection. A backend
// without the method is left as it is.
func unlimitWorkers(backend compute.Backend) {
	workers := reflect.ValueOf(backend).Elem().FieldByName("Workers")
	if !workers.IsValid() {
		return
	}
	if set := workers.MethodByName("SetMaxParallelism"); set.IsValid() {
		set.Call([]reflect.Value{reflect.ValueOf(-1)})
	}
}

// Close frees the backend's memory. Tensors on it must not be used afterwards. Closing twice is harmless.
func (d *Device) Close() error {
	if d == nil || d.Backend == nil || d.Backend.IsFinalized() {
		return nil
	}
	return guard(func() error { d.Backend.Finalize(); return nil })
}

// guard runs f and turns a panic, which is how GoMLX reports most mistakes, into an error.
func guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case error:
			err = p
		default:
			err = fmt.Errorf("%v", p)
		}
	}()
	return f()
}

// count writes "1 device", "2 devices".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
