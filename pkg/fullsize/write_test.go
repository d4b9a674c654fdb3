package fullsize

import (
	"archive/zip"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// read returns a checkpoint's tensors.
func read(t *testing.T, path string) map[string]weights.Tensor {
	t.Helper()
	src, err := weights.OpenAny(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	all := map[string]weights.Tensor{}
	for _, name := range src.Names() {
		if all[name], err = src.Tensor(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestWrite: both containers hold all tensors of the network with the same numbers, those of their Init.
func TestWrite(t *testing.T) {
	for name, n := range tiny() {
		for _, dtype := range []weights.DType{weights.F32, weights.BF16, weights.F16} {
			a, b := read(t, written(t, n, Safetensors, dtype)), read(t, written(t, n, PyTorch, dtype))
			if len(a) != len(n.Params()) || len(b) != len(a) {
				t.Errorf("%s: %d and %d tensors, want %d", name, len(a), len(b), len(n.Params()))
			}
			bytes := int64(0)
			for _, p := range n.Params() {
				x, y := a[p.Name], b[p.Name]
				if x.DType != dtype || !slices.Equal(x.Shape, p.Shape) && len(p.Shape) > 0 || y.DType != dtype ||
					!slices.Equal(x.Shape, y.Shape) || !slices.Equal(x.Data, y.Data) {
					t.Errorf("%s as %s: %s is %s %v and %s %v, want %v and equal numbers", name, dtype, p.Name, x.DType, x.Shape,
						y.DType, y.Shape, p.Shape)
				}
				bytes += int64(len(x.Data))
				values, err := x.Float32s()
				if err != nil {
					t.Fatal(err)
				}
				if like := model.Draw(p, 1); spread(like) == 0 && !slices.Equal(values, rounded(t, like, dtype)) {
					t.Errorf("%s: %s is %v, want %v", name, p.Name, values, like)
				}
			}
			if bytes != n.Bytes(dtype) {
				t.Errorf("%s: %d bytes, want %d", name, n.Bytes(dtype), bytes)
			}
		}
	}
}

// rounded returns the values as a type has them.
func rounded(t *testing.T, values []float32, dtype weights.DType) []float32 {
	t.Helper()
	x, err := weights.FromFloat32("x", []int{len(values)}, values).CastFloat(dtype)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// spread is the standard deviation.
func spread(values []float32) float64 {
	mean, square := 0.0, 0.0
	for _, v := range values {
		mean += float64(v) / float64(len(values))
		square += float64(v) * float64(v) / float64(len(values))
	}
	return math.Sqrt(max(square-mean*mean, 0))
}

// TestFiller: weights have the spread of their Init, neither two tensors nor two rows are alike, and a tensor longer
// than the sequence goes on from its start.
func TestFiller(t *testing.T) {
	f := newFiller(weights.F32)
	values := func(name string, shape ...int) []float32 {
		p := model.Param{Name: name, Shape: shape, Init: model.Normal(0.3)}
		data, err := f.data(p)
		if err != nil {
			t.Fatal(err)
		}
		out, err := weights.Tensor{Name: name, DType: weights.F32, Shape: shape, Data: data}.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(out)
	}
	a, b := values("a", 300, 64), values("b", 300, 64)
	for _, list := range [][]float32{a, b} {
		if s := spread(list); math.Abs(s-0.3) > 0.01 {
			t.Errorf("the spread is %g, want 0.3", s)
		}
	}
	if slices.Equal(a, b) {
		t.Error("two tensors are equal")
	}
	if again := values("a", 300, 64); !slices.Equal(a, again) {
		t.Error("the same tensor has other numbers")
	}
	rows := map[float32]bool{}
	for r := range 300 {
		rows[a[64*r]] = true
	}
	if len(rows) < 299 {
		t.Errorf("300 rows begin with %d different numbers", len(rows))
	}
	long := values("long", 2, period)
	if !slices.Equal(long[:1000], long[period:][:1000]) || slices.Equal(long[:1000], long[1000:2000]) {
		t.Error("the numbers do not repeat after a period, or before")
	}
}

// TestWriteAgain: what is there is used, what was begun is not left.
func TestWriteAgain(t *testing.T) {
	n := tiny()["opt"]
	for _, container := range Containers() {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.Write(ctx, dir, container, weights.F32); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", container, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", container, left, err)
		}
		first, err := n.Write(t.Context(), filepath.Join(dir, "made"), container, weights.F32)
		if err != nil || first.Seconds <= 0 {
			t.Fatalf("%s: %+v, %v", container, first, err)
		}
		// Cancelled, it could not write a second time.
		second, err := n.Write(ctx, filepath.Join(dir, "made"), container, weights.F32)
		if err != nil || second.Seconds != 0 || second.Path != first.Path || second.Bytes != first.Bytes {
			t.Errorf("%s: second %+v, %v; first %+v", container, second, err, first)
		}
	}
}

// TestTorchFile: entries begin on multiples of 64 bytes as PyTorch has it, and their checksums are right.
func TestTorchFile(t *testing.T) {
	path := written(t, tiny()["clip"], PyTorch, weights.BF16)
	archive, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	for _, f := range archive.File {
		if at, err := f.DataOffset(); err != nil || at%64 != 0 {
			t.Errorf("%s begins at %d, %v", f.Name, at, err)
		}
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil { // checks the sum
			t.Errorf("%s: %v", f.Name, err)
		}
		_ = in.Close()
	}
	src, err := weights.OpenAny(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if !strings.Contains(src.Container(), "zip") {
		t.Errorf("it is %s", src.Container())
	}
}

// TestPickleNumbers: sizes beyond 31 bits have another form.
func TestPickleNumbers(t *testing.T) {
	for n, want := range map[int]string{5: "J\x05\x00\x00\x00", math.MaxInt32: "J\xff\xff\xff\x7f",
		math.MaxInt32 + 1: "\x8a\x08\x00\x00\x00\x80\x00\x00\x00\x00"} {
		p := &pickle{}
		p.number(n)
		if p.String() != want {
			t.Errorf("%d is %q, want %q", n, p.String(), want)
		}
	}
}
