package device

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Report is what Check found out about a backend that works.
type Report struct {
	Backend  string    `json:"backend"`
	Plugin   string    `json:"plugin,omitempty"`  // file, empty for the Go backend
	Source   string    `json:"source,omitempty"`  // where it was found
	Version  string    `json:"version,omitempty"` // of the installed wheel
	API      string    `json:"pjrt_api,omitempty"`
	Platform string    `json:"platform"` // GOOS/GOARCH
	Devices  []string  `json:"devices"`
	DTypes   string    `json:"dtypes"` // the policy
	Open     float64   `json:"open_seconds"`
	Products []Product `json:"products"`
}

// Product is the verdict on matrix products in one type.
type Product struct {
	DType  string  `json:"dtype"`
	Size   int     `json:"size"`      // timed product: [size, size] · [size, size]
	GFLOPS float64 `json:"gflops"`    // of the fastest of several
	Worst  float64 `json:"worst_abs"` // largest error of a small product against exact arithmetic
}

// Sizes of matrices: one that the host multiplies in a blink, and ones that keep the device busy.
const (
	verifySize   = 512
	timeSize     = 1024
	timeSizeCUDA = 8192
)

// Check opens a backend, multiplies two matrices on it, compares the product with the exact one, and measures its
// speed. Of a plugin in the store, all files are verified by their checksums first.
func Check(ctx context.Context, o Options) (*Report, error) {
	if err := verifyStore(ctx, o); err != nil {
		return nil, err
	}
	start := time.Now()
	d, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	r := d.report()
	r.Open = time.Since(start).Seconds()
	types := []dtypes.DType{dtypes.Float32}
	if d.DTypes.Compute != dtypes.Float32 {
		types = append(types, d.DTypes.Compute)
	}
	err = guard(func() error {
		for _, dtype := range types {
			p, err := checkProduct(ctx, d, dtype)
			if err != nil {
				return fmt.Errorf("backend %s: %s product: %w", d.Name, shortDType(dtype), err)
			}
			r.Products = append(r.Products, p)
		}
		return nil
	})
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	return r, nil
}

// report describes an open device.
func (d *Device) report() *Report {
	r := &Report{Backend: d.Name, Platform: platform(), DTypes: d.DTypes.String()}
	if p := d.Plugin; p != nil {
		r.Plugin, r.Source, r.Version, r.API = p.Path, p.Source, p.Version, p.API.String()
	}
	for i := range d.Backend.NumDevices() {
		r.Devices = append(r.Devices, d.Backend.DeviceDescription(compute.DeviceNum(i)))
	}
	return r
}

// verifyStore compares the files of the store's plugin with the manifest's checksums, if o leads to that plugin.
func verifyStore(ctx context.Context, o Options) error {
	name, err := ParseBackend(o.Backend)
	if err != nil || !xlaBuiltIn {
		return err
	}
	h := newHost(o.CacheDir)
	if name == backendAuto {
		name = chooseBackend(h).name
	}
	if (name != backendCPU && name != backendCUDA) || h.storeErr != nil {
		return nil
	}
	own, _ := h.store.find(kindOf(name))
	if own == nil {
		return nil
	}
	return verifyFiles(ctx, own.dir, own.m)
}

// checkProduct verifies and times matrix products whose factors are converted to dtype on the device.
func checkProduct(ctx context.Context, d *Device, dtype dtypes.DType) (Product, error) {
	p := Product{DType: shortDType(dtype), Size: timeSize}
	if d.Plugin != nil && d.Plugin.Kind == KindCUDA {
		p.Size = timeSizeCUDA
	}
	var err error
	if p.Worst, err = verifyProduct(d.Backend, dtype); err != nil {
		return p, err
	}
	p.GFLOPS, err = timeProduct(ctx, d.Backend, dtype, p.Size)
	return p, err
}

// product multiplies a and b, [n, n] each, in dtype and returns the result as f32.
func product(a, b *Node, dtype dtypes.DType) *Node {
	return ConvertDType(MatMul(ConvertDType(a, dtype), ConvertDType(b, dtype)), dtypes.Float32)
}

// factor fills an n×n matrix with small whole numbers, -3 to 3. They and their products are exact in every type that
// is used here, TF32 included, and so are sums of products in f32; only 16-bit results are rounded.
func factor(n int, seed uint32) []float32 {
	m := make([]float32, n*n)
	for i := range m {
		seed = seed*1664525 + 1013904223 // Numerical Recipes' generator
		m[i] = float32(seed>>16%7) - 3
	}
	return m
}

// verifyProduct returns the largest error of a product on the backend, and an error if it is more than the rounding
// of the result to dtype.
func verifyProduct(backend compute.Backend, dtype dtypes.DType) (worst float64, err error) {
	const n = verifySize
	a, b := factor(n, 1), factor(n, 2)
	got, err := CallOnce(backend, func(a, b *Node) *Node { return product(a, b, dtype) },
		tensors.FromFlatDataAndDimensions(a, n, n), tensors.FromFlatDataAndDimensions(b, n, n))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, got.FinalizeAll()) }()
	values, err := tensors.CopyFlatData[float32](got)
	if err != nil {
		return 0, err
	}
	return compareProduct(values, multiply(a, b, n), dtype)
}

// multiply is the product on the host; its sums are exact.
func multiply(a, b []float32, n int) []float32 {
	c := make([]float32, n*n)
	for i := range n {
		row := c[i*n : (i+1)*n]
		for k := range n {
			x := a[i*n+k]
			for j, y := range b[k*n : (k+1)*n] {
				row[j] += x * y
			}
		}
	}
	return c
}

// compareProduct returns the largest difference, and an error for the first value that differs by more than the
// rounding of the result to dtype.
func compareProduct(got, want []float32, dtype dtypes.DType) (worst float64, err error) {
	relative := map[dtypes.DType]float64{dtypes.BFloat16: 1.0 / 256, dtypes.Float16: 1.0 / 2048}[dtype]
	n := int(math.Sqrt(float64(len(want))))
	for i, w := range want {
		difference := math.Abs(float64(got[i]) - float64(w))
		worst = max(worst, difference)
		if !(difference <= relative*math.Abs(float64(w))) && err == nil { // NaN fails too
			err = fmt.Errorf("wrong result: element [%d, %d] is %g, expected %g", i/n, i%n, got[i], w)
		}
	}
	return worst, err
}

// timeProduct returns the GFLOP/s of the fastest of several products. Only the largest element is brought back, so
// that the copy to the host does not count.
func timeProduct(ctx context.Context, backend compute.Backend, dtype dtypes.DType, n int) (float64, error) {
	exec, err := NewExec(backend, func(a, b *Node) *Node { return ReduceAllMax(product(a, b, dtype)) })
	if err != nil {
		return 0, err
	}
	defer exec.Finalize()
	a := tensors.FromFlatDataAndDimensions(factor(n, 3), n, n)
	b := tensors.FromFlatDataAndDimensions(factor(n, 4), n, n)
	best := time.Duration(math.MaxInt64)
	deadline := time.Now().Add(time.Second)
	for i := 0; i < 3 || (i < 50 && time.Now().Before(deadline)); i++ {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		start := time.Now()
		out, err := exec.Exec1(a, b)
		if err != nil {
			return 0, err
		}
		tensors.ToScalar[float32](out)
		elapsed := time.Since(start)
		if err := out.FinalizeAll(); err != nil {
			return 0, err
		}
		if i > 0 { // the first one compiles and uploads
			best = min(best, elapsed)
		}
	}
	return 2 * math.Pow(float64(n), 3) / best.Seconds() / 1e9, nil
}
