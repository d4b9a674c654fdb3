package mesh_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
)

// params are a trained matrix, a bias, and frozen matrices that can be cut along the first axis, along the second only,
// and not at all.
func params() []model.Param {
	return []model.Param{
		{Name: "trained.weight", Shape: []int{64, 96}}, {Name: "trained.bias", Shape: []int{64}},
		{Name: "rows.weight", Shape: []int{96, 50}}, {Name: "columns.weight", Shape: []int{65, 96}},
		{Name: "odd.weight", Shape: []int{65, 71}}, {Name: "small.weight", Shape: []int{8, 8}},
	}
}

// placed returns the tensors on n of the backend's devices.
func placed(t *testing.T, backend compute.Backend, n int, spread bool) *mlx.Store {
	t.Helper()
	store := graphtest.Store(t, params(), 1)
	t.Cleanup(store.Finalize)
	if err := model.SetTrainable(store, params()[2:], false); err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(backend, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, spread); err != nil {
		t.Fatal(err)
	}
	return store
}

func read(t *testing.T, store *mlx.Store, name string) []float32 {
	t.Helper()
	values, err := mesh.Read[float32](store, store.GetVariable(model.Path(name)))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestNew(t *testing.T) {
	backend := graphtest.Open(t, "go")
	if m, err := mesh.New(backend, 1); m != nil || err != nil || m.Devices() != 1 {
		t.Errorf("one device: %v, %v", m, err)
	}
	for n, want := range map[int]string{0: "must be 1 or more", 2: "the backend has 1"} {
		if _, err := mesh.New(backend, n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d devices: %v", n, err)
		}
	}
}

// TestPlace: tensors come back as they were from wherever they lie, and each device holds what it should.
func TestPlace(t *testing.T) {
	backend := graphtest.OpenDevices(t, 4)
	whole := placed(t, backend, 1, true)
	all := int64(4 * model.Count(params()))
	const rows, columns = 4 * 96 * 50, 4 * 65 * 96
	for _, tt := range []struct {
		devices int
		spread  bool
		bytes   int64
	}{
		{1, true, all}, {2, false, all}, {2, true, all - (rows+columns)/2}, {4, false, all},
		{4, true, all - (rows+columns)*3/4}, {3, true, all - (rows+columns)*2/3},
	} {
		store := placed(t, backend, tt.devices, tt.spread)
		if got := mesh.Bytes(store); got != tt.bytes {
			t.Errorf("%+v: %d bytes per device", tt, got)
		}
		for _, p := range params() {
			if !slices.Equal(read(t, store, p.Name), read(t, whole, p.Name)) {
				t.Errorf("%+v: %s has changed", tt, p.Name)
			}
		}
		// A value that is set later goes to the same place.
		fresh := graphtest.Normals(7, 96*50, 1)
		if err := model.Set(store, "rows.weight", []int{96, 50}, fresh); err != nil {
			t.Fatal(err)
		}
		if err := mesh.Settle(store); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(read(t, store, "rows.weight"), fresh) || mesh.Bytes(store) != tt.bytes {
			t.Errorf("%+v: a new value is not where the old one was", tt)
		}
	}
}

func TestPlacingTwice(t *testing.T) {
	backend := graphtest.OpenDevices(t, 2)
	store := placed(t, backend, 2, false)
	m, err := mesh.New(backend, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, true); err == nil || !strings.Contains(err.Error(), "once") {
		t.Errorf("placed a second time: %v", err)
	}
}

// TestPlaceHalf: other types than float32 survive.
func TestPlaceHalf(t *testing.T) {
	backend := graphtest.OpenDevices(t, 2)
	store := graphtest.Store(t, params(), 1)
	defer store.Finalize()
	if err := model.SetTrainable(store, params(), false); err != nil {
		t.Fatal(err)
	}
	if err := model.StoreFrozen(store, params(), dtypes.BFloat16); err != nil {
		t.Fatal(err)
	}
	sum := func() []float32 { return sumOf(t, backend, store, "columns.weight") }
	want := sum()
	m, err := mesh.New(backend, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, true); err != nil {
		t.Fatal(err)
	}
	graphtest.Same(t, "sums of rows", sum(), want, 1e-6)
}

// sumOf sums every row of a tensor.
func sumOf(t *testing.T, backend compute.Backend, store *mlx.Store, name string) []float32 {
	t.Helper()
	exec := mesh.NewExec(backend, store, "sum", func(scope *mlx.Scope, in []*Node) []*Node {
		v := scope.Store().GetVariable(model.Path(name)).NodeValue(in[0].Graph())
		return []*Node{ReduceSum(Mul(ConvertDType(v, dtypes.Float32), in[0]), -1)}
	})
	defer exec.Close()
	out, err := exec.Call(mesh.Host(tensors.FromScalar(float32(1))))
	if err != nil {
		t.Fatal(err)
	}
	return copied(t, out[0])
}

func copied(t *testing.T, v *mesh.Value) []float32 {
	t.Helper()
	values, err := mesh.Copy[float32](v)
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.Free(v); err != nil {
		t.Error(err)
	}
	return values
}

// outcome is what a program gives on some devices.
type outcome struct {
	name string
	got  [][]float32
}

// runAll runs a program of all that matters: a batch of 12 rows (and one of 7, which no number of devices shares), a
// scalar, random numbers, a product over the batch, trained and frozen tensors, a variable that changes, and a result
// that stays on the devices and is read by the next call.
func runAll(t *testing.T, backend compute.Backend, devices int, spread bool, rows int) outcome {
	t.Helper()
	store := placed(t, backend, devices, spread)
	exec := mesh.NewExec(backend, store, "all", func(scope *mlx.Scope, in []*Node) []*Node {
		state, x, factor, before := in[0], in[1], in[2], in[3]
		g := x.Graph()
		value := func(name string) *Node { return store.GetVariable(model.Path(name)).NodeValue(g) }
		state, noise := RandomUniform(state, x.Shape())
		_, more := RandomUniform(state, shapes.Make(dtypes.Float32, rows, rows))
		x = Where(GreaterThan(noise, Scalar(g, dtypes.Float32, 0.3)), x, ZerosLike(x))
		y := Mul(Dot(Dot(x, value("trained.weight")).General([]int{1}, nil, []int{1}, nil), value("trained.bias")).
			Product(), factor)
		z := Dot(Dot(x, value("rows.weight")).General([]int{1}, nil, []int{0}, nil),
			value("rows.weight")).General([]int{1}, nil, []int{1}, nil)
		z = Add(Dot(z, value("columns.weight")).General([]int{1}, nil, []int{1}, nil), ReduceAllMean(value("odd.weight")))
		pairs := Add(Dot(z, z).General([]int{1}, nil, []int{1}, nil), more)
		loss := Add(ReduceAllMean(Square(y)), ReduceAllMean(before))
		trained := store.GetVariable("/trained/weight")
		trained.SetNodeValue(Sub(trained.NodeValue(g), MulScalar(Gradient(loss, trained.NodeValue(g))[0], 0.1)))
		return []*Node{y, pairs, loss, Softmax(z, -1)}
	})
	defer exec.Close()
	state, err := RNGStateFromSeed(3)
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{name: fmt.Sprintf("%d devices, spread %v, %d rows", devices, spread, rows)}
	kept := mesh.Host(tensors.FromFlatDataAndDimensions(graphtest.Normals(2, rows*65, 1), rows, 65))
	for range 2 {
		args := []*mesh.Value{mesh.Host(state),
			mesh.Host(tensors.FromFlatDataAndDimensions(graphtest.Normals(1, rows*96, 1), rows, 96)),
			mesh.Host(tensors.FromScalar(float32(0.5))), kept}
		if err := exec.Compile(args...); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := kept.Free(); err != nil {
			t.Error(err)
		}
		kept = out[3]
		if want := []int{rows, 65}; !slices.Equal(kept.Shape().Dimensions, want) {
			t.Errorf("%s: kept %s, want %v", o.name, kept.Shape(), want)
		}
		o.got = append(o.got, copied(t, out[0]), copied(t, out[1]), copied(t, out[2]))
	}
	o.got = append(o.got, copied(t, kept), read(t, store, "trained.weight"))
	return o
}

// TestExec: a program gives on several devices what it gives on one, random numbers included.
func TestExec(t *testing.T) {
	backend := graphtest.OpenDevices(t, 4)
	for _, rows := range []int{12, 7} {
		want := runAll(t, backend, 1, false, rows)
		for devices := 2; devices <= 4; devices++ {
			got := runAll(t, backend, devices, devices != 2, rows)
			for i := range want.got {
				graphtest.Same(t, fmt.Sprintf("%s: result %d", got.name, i), got.got[i], want.got[i], 1e-5)
			}
		}
	}
}

// TestAdvance: a state goes on from call to call, on one device and on several, and the old one is used up.
func TestAdvance(t *testing.T) {
	const columns, steps = 5, 3
	check := func(t *testing.T, backend compute.Backend, devices, rows int) {
		store := placed(t, backend, devices, false)
		exec := mesh.NewExec(backend, store, "sums", func(scope *mlx.Scope, in []*Node) []*Node {
			bias := ReduceAllSum(scope.At("trained").GetVariable("bias").NodeValue(in[0].Graph()))
			sums := Add(in[1], in[0])
			at := []*Node{ScalarZero(in[0].Graph(), dtypes.Int32), in[2]}
			if backend.Capabilities().Operations[compute.OpTypeDynamicUpdateSlice] {
				sums = DynamicUpdateSlice(sums, Ones(in[0].Graph(), shapes.Make(dtypes.Float32, rows, 1)), at)
			}
			return []*Node{sums, AddScalar(in[2], 1), Add(ReduceSum(sums, 1), Mul(bias, ScalarZero(in[0].Graph(), bias.DType())))}
		})
		t.Cleanup(exec.Close)
		x := graphtest.Normals(3, rows*columns, 1)
		state := mesh.HostAll([]*tensors.Tensor{
			tensors.FromFlatDataAndDimensions(make([]float32, rows*columns), rows, columns), tensors.FromScalar(int32(0)),
		})
		want := make([]float64, rows*columns)
		for step := range steps {
			arg := mesh.Host(tensors.FromFlatDataAndDimensions(slices.Clone(x), rows, columns))
			next, results, err := exec.Advance(state, arg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mesh.Copy[float32](state[0]); err == nil {
				t.Error("the old state is still there")
			}
			state = next
			sums := make([]float64, rows)
			for i := range want {
				want[i] += float64(x[i])
				if backend.Capabilities().Operations[compute.OpTypeDynamicUpdateSlice] && i%columns == step {
					want[i] = 1
				}
				sums[i/columns] += want[i]
			}
			got, err := mesh.Copy[float32](results[0])
			if err != nil {
				t.Fatal(err)
			}
			graphtest.Near(t, fmt.Sprintf("%d devices, %d rows, step %d", devices, rows, step), got, sums, 1e-5)
		}
		wrong := mesh.Host(tensors.FromFlatDataAndDimensions(make([]float32, 3), 3))
		if _, _, err := exec.Advance(state, wrong); err == nil {
			t.Error("a program for inputs that do not go together")
		}
		if _, err := mesh.Copy[float32](state[0]); err == nil {
			t.Error("after a failure, the old state is still there")
		}
	}
	check(t, graphtest.Open(t, "go"), 1, 6)
	backend := graphtest.OpenDevices(t, 4)
	for _, devices := range []int{1, 2, 4} {
		check(t, backend, devices, 12)
		check(t, backend, devices, 7)
	}
}
