package device

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
)

func TestOpenGo(t *testing.T) {
	d, err := Open(context.Background(), Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "go" || d.Plugin != nil || d.DTypes.Compute != dtypes.Float32 || d.Backend.NumDevices() != 1 {
		t.Errorf("unexpected device: %+v", d)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if !d.Backend.IsFinalized() {
		t.Error("the backend lives on after Close")
	}
}

func TestOpenHeedsTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, Options{Backend: "go"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestOpenNamesTheRemedy(t *testing.T) {
	if !xlaBuiltIn {
		_, err := Open(context.Background(), Options{Backend: "xla:cpu", CacheDir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "built without XLA") {
			t.Errorf("got %v", err)
		}
		return
	}
	t.Setenv(pluginPathEnv, t.TempDir())
	for _, kind := range []string{KindCPU, KindCUDA} {
		_, err := Open(context.Background(), Options{Backend: "xla:" + kind, CacheDir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "blip2 plugin install "+kind) {
			t.Errorf("no remedy in: %v", err)
		}
	}
}

func TestGuard(t *testing.T) {
	cause := errors.New("cause")
	if err := guard(func() error { panic(cause) }); !errors.Is(err, cause) {
		t.Errorf("panic with an error became %v", err)
	}
	if err := guard(func() error { panic("shape mismatch") }); err == nil || err.Error() != "shape mismatch" {
		t.Errorf("panic with a string became %v", err)
	}
	if err := guard(func() error { return cause }); err != cause {
		t.Errorf("returned error became %v", err)
	}
}

func TestJudgeCUDA(t *testing.T) {
	for _, c := range []struct {
		code, devices, version int
		want                   string
	}{
		{0, 2, 13010, ""}, {100, 0, 13000, "sees no GPU"}, {0, 0, 13000, "sees no GPU"},
		{0, 1, 12040, "supports CUDA 12.4"}, {803, 0, 13000, "CUDA error 803"}, {-1, 0, 0, "does not answer"},
	} {
		d := judgeCUDA(c.code, c.devices, c.version)
		if (c.want == "") != (d.problem == "") || !strings.Contains(d.problem, c.want) {
			t.Errorf("%+v: %q", c, d.problem)
		}
	}
}

func TestCheckOnGo(t *testing.T) {
	r, err := Check(context.Background(), Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Products) != 1 || r.Products[0].Worst != 0 || !(r.Products[0].GFLOPS > 0) || len(r.Devices) != 1 {
		t.Errorf("unexpected report: %+v", r)
	}
}

func TestCompareProduct(t *testing.T) {
	want := multiply([]float32{1, 2, 3, 4}, []float32{5, 6, 7, 8}, 2)
	if fmt.Sprint(want) != "[19 22 43 50]" {
		t.Fatalf("multiply: %v", want)
	}
	if worst, err := compareProduct([]float32{19, 22, 43, 50}, want, dtypes.Float32); err != nil || worst != 0 {
		t.Errorf("exact product: %g, %v", worst, err)
	}
	off := []float32{19, 22, 43.125, 50}
	if _, err := compareProduct(off, want, dtypes.Float32); err == nil || !strings.Contains(err.Error(), "[1, 0]") {
		t.Errorf("wrong f32 product: %v", err)
	}
	if worst, err := compareProduct(off, want, dtypes.BFloat16); err != nil || worst != 0.125 {
		t.Errorf("rounded bf16 product: %g, %v", worst, err)
	}
	if _, err := compareProduct([]float32{19, 22, 0, 50}, want, dtypes.BFloat16); err == nil {
		t.Error("wrong bf16 product passes")
	}
	nan := float32(math.NaN())
	if _, err := compareProduct([]float32{nan, 22, 43, 50}, want, dtypes.Float16); err == nil {
		t.Error("NaN passes")
	}
}

// TestGoWorkersUnlimited guards against the deadlock of the Go backend's limited worker pool: if its internals change,
// so must unlimitWorkers.
func TestGoWorkersUnlimited(t *testing.T) {
	d, err := Open(t.Context(), Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Backend.Description(); !strings.Contains(got, "parallelism=-1") {
		t.Errorf("the Go backend's workers are limited: %s", got)
	}
}

func TestUsed(t *testing.T) {
	for _, c := range []struct {
		asked, have int
		kind        string
		want        int // 0: refused
	}{
		{0, 4, KindCPU, 1}, {3, 4, KindCPU, 3}, {0, 8, KindCUDA, 8}, {2, 8, KindCUDA, 2}, {0, 4, kindOther, 1},
		{9, 8, KindCUDA, 0}, {2, 1, KindCPU, 0},
	} {
		n, err := used(c.asked, c.have, c.kind)
		var option *OptionError
		if n != c.want || (c.want == 0) != errors.As(err, &option) {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
}

func TestLoadTo(t *testing.T) {
	d, err := Open(context.Background(), Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Devices != 1 || d.LoadTo() != d.Backend {
		t.Errorf("%d devices, weights go to %v", d.Devices, d.LoadTo())
	}
	d.Devices = 2
	if d.LoadTo() != nil {
		t.Error("the weights of two devices go to the first")
	}
}
