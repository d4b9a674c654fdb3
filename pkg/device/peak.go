package device

import (
	"strings"
	"sync"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// peaks are the greatest dense matrix rates of GPUs in TFLOP/s, in 16-bit types and in float32 (TF32 where the GPU has
// it), from NVIDIA's data sheets. A name that contains another comes first.
var peaks = []struct {
	name         string
	half, single float64
}{
	{"H200", 989, 495}, {"H100 NVL", 835, 417}, {"H100 PCIE", 756, 378}, {"H100", 989, 495}, {"GH200", 989, 495},
	{"B200", 2250, 1125}, {"A100", 312, 156}, {"A800", 312, 156}, {"H800", 989, 495}, {"L40S", 362, 183}, {"L40", 181, 90},
	{"A40", 150, 75}, {"A30", 165, 82}, {"A10", 125, 62}, {"A6000", 155, 77}, {"V100", 125, 15.7}, {"T4", 65, 8.1},
	{"L4", 121, 60}, {"RTX 4090", 165, 83}, {"RTX 3090", 71, 36},
}

// PeakFLOPs returns the greatest rate of matrix products in FLOP/s of all devices used together, in the compute type:
// that of the data sheet for a known GPU, else what a product of 1024×1024 matrices is measured to reach. 0 if that
// fails.
func (d *Device) PeakFLOPs() float64 {
	d.once.Do(func() {
		if rate := sheetRate(d.gpuName(), d.DTypes.Compute); rate > 0 {
			d.flops = rate * float64(d.Devices)
			return
		}
		// Without the rate a speed has nothing to be compared with, and that is all.
		_ = guard(func() error { d.flops = d.measuredRate(); return nil })
	})
	return d.flops
}

// peak is the part of a Device that PeakFLOPs keeps.
type peak struct {
	once  sync.Once
	flops float64
}

// gpuName is how the plugin names its first device; "" if it is no GPU.
func (d *Device) gpuName() string {
	if d.Plugin == nil || d.Plugin.Kind != KindCUDA {
		return ""
	}
	if b, ok := d.Backend.(interface {
		DeviceDescription(compute.DeviceNum) string
	}); ok {
		return b.DeviceDescription(0)
	}
	return ""
}

// sheetRate is the rate of the data sheet in FLOP/s; 0 for an unknown device.
func sheetRate(name string, dtype dtypes.DType) float64 {
	name = strings.ToUpper(name)
	for _, p := range peaks {
		if !strings.Contains(name, p.name) {
			continue
		}
		if dtype == dtypes.Float32 {
			return p.single * 1e12
		}
		return p.half * 1e12
	}
	return 0
}

// measuredRate times products of float32 matrices and returns the rate of the fastest.
func (d *Device) measuredRate() float64 {
	const n, tries = 1024, 4
	values := make([]float32, n*n)
	for i := range values {
		values[i] = float32(i%7) - 3
	}
	// An input, as XLA would compute a product of constants once and for all.
	x := tensors.FromFlatDataAndDimensions(values, n, n)
	defer x.MustFinalizeAll()
	exec := MustNewExec(d.Backend, func(x *Node) *Node { return ReduceAllMax(Dot(x, x).Product()) })
	defer exec.Finalize()
	best := time.Duration(0)
	for range tries {
		start := time.Now()
		out := exec.MustCall1(x)
		out.MustFinalizeAll()
		if took := time.Since(start); best == 0 || took < best {
			best = took
		}
	}
	return 2 * n * n * n / best.Seconds()
}
