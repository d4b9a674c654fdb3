package device

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

func TestParseBackend(t *testing.T) {
	for in, want := range map[string]string{
		"": "auto", "auto": "auto", " Auto ": "auto", "go": "go", "GO": "go", "go:ops_sequential": "go:ops_sequential",
		"xla:cpu": "xla:cpu", "XLA:CUDA": "xla:cuda", "xla:/opt/A.so": "xla:/opt/A.so",
		"xla:/opt//x/../A.so": "xla:/opt/A.so",
	} {
		if got, err := ParseBackend(in); err != nil || got != want {
			t.Errorf("ParseBackend(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseBackendRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"cpu": "did you mean xla:cpu?", "gpu": "did you mean xla:cuda?", "cuda": "did you mean xla:cuda?",
		"xla": "did you mean xla:cpu?", "xla:cup": "did you mean xla:cpu?", "xla-cpu": "did you mean xla:cpu?",
		"xla:cudo": "did you mean xla:cuda?", "atuo": "did you mean auto?", "gp": "did you mean go?",
		"tensorflow": "valid backends: go, xla:cpu, xla:cuda, xla:/path/plugin.so, auto",
		"xla:a/b.so": "must be absolute", "xla:plugin.so": "must be absolute",
	} {
		_, err := ParseBackend(in)
		var option *OptionError
		if !errors.As(err, &option) || option.Option != "backend" || option.Value != in {
			t.Fatalf("ParseBackend(%q): %v is not an OptionError about it", in, err)
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("ParseBackend(%q): %v; want %q in it", in, err, want)
		}
	}
	if _, err := ParseBackend("tensorflow"); strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a far-fetched suggestion: %v", err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"kitten", "sitting", 3}, {"go", "go", 0}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestKindOf(t *testing.T) {
	for name, want := range map[string]string{
		"xla:cpu": KindCPU, "xla:cuda": KindCUDA, "xla:/cuda/pjrt_c_api_cpu_plugin.so": KindCPU,
		"xla:/home/cpu/xla_cuda_plugin.so": KindCUDA, "xla:/cpu/pjrt_c_api_gpu_plugin.so": KindCUDA,
		"xla:/cpu/libtpu.so": kindOther,
	} {
		if got := kindOf(name); got != want {
			t.Errorf("kindOf(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		name, kind, forced string
		want               dtypes.DType
	}{
		{"go", KindCPU, "", dtypes.Float32}, {"go", KindCPU, "f32", dtypes.Float32},
		{"xla:cpu", KindCPU, "auto", dtypes.Float32},
		{"xla:cpu", KindCPU, "bf16", dtypes.BFloat16}, {"xla:cuda", KindCUDA, "auto", dtypes.BFloat16},
		{"xla:cuda", KindCUDA, "f32", dtypes.Float32}, {"xla:cuda", KindCUDA, "fp16", dtypes.Float16},
		{"xla:/x.so", kindOther, "auto", dtypes.Float32},
	} {
		p, err := policyFor(c.name, c.kind, c.forced)
		if err != nil || p.Compute != c.want || p.Frozen != c.want || p.Params != dtypes.Float32 {
			t.Errorf("policyFor(%q, %q, %q) = %v, %v; want compute %v and params f32", c.name, c.kind, c.forced, p, err, c.want)
		}
	}
	for _, forced := range []string{"bf16", "f16"} {
		if _, err := policyFor(backendGo, KindCPU, forced); err == nil || !strings.Contains(err.Error(), "16-bit") {
			t.Errorf("the Go backend takes %s: %v", forced, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"dtype": {Backend: "go", DType: "int8"}, "devices": {Backend: "go", Devices: -1},
		"memory_fraction": {Backend: "go", MemoryFraction: 1.5}, "allocator": {Backend: "go", Allocator: "malloc"},
		"visible_devices": {Backend: "go", VisibleDevices: []int{0, -2}}, "backend": {Backend: "mps"},
	} {
		_, err := Open(context.Background(), o)
		var option *OptionError
		if !errors.As(err, &option) || option.Option != name {
			t.Errorf("%s: %v is not an OptionError about it", name, err)
		}
	}
	if _, err := Open(context.Background(), Options{Backend: "go", Devices: 2}); err == nil {
		t.Error("the Go backend opens with two devices")
	}
	if _, err := Open(context.Background(), Options{Backend: "go:no_such_option"}); err == nil {
		t.Error("the Go backend opens with an unknown option")
	}
}
