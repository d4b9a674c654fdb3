package trainer

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// toyParams are of every kind that the decay rules tell apart.
func toyParams() []model.Param {
	return []model.Param{
		{Name: "dense.weight", Shape: []int{2, 3}, Init: model.Normal(1)},
		{Name: "dense.bias", Shape: []int{2}, Init: model.Normal(1)},
		{Name: "norm.weight", Shape: []int{2}, Init: model.Constant(1)},
		{Name: "temp", Init: model.Constant(0.7)},
	}
}

// toyTask is the regression y = norm·(x·denseᵀ + bias)/temp with a second term √(a·temp²), whose gradient at a = 0 is
// not a number. With noise, inputs are dropped at random.
func toyTask(noise float64) Task {
	return Task{Params: toyParams(), Terms: []string{"error", "size"}, Depth: toyDepth,
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			x, y, a := in[0], in[1], ReduceAllMean(in[2])
			temp := scope.GetVariable("temp").NodeValue(x.Graph())
			h := nn.Linear(scope.At("dense"), rng.Dropout(x, noise))
			weight := scope.At("norm").GetVariable("weight").NodeValue(x.Graph())
			h = Div(Mul(h, BroadcastToShape(Reshape(weight, 1, 2), h.Shape())), temp)
			mse := ReduceAllMean(Square(Sub(h, y)))
			size := Sqrt(Mul(a, Square(temp)))
			return Add(mse, size), []*Node{mse, size}
		}}
}

// toyDepth lets a layer-wise decay apply twice to the dense layer's weight and once to the norm's.
func toyDepth(_, name string) int { return map[string]int{"dense.weight": 2, "norm.weight": 1}[name] }

// toyLoss is toyTask's loss on the host; values are those of toyParams one after the other.
func toyLoss(values []float64, b toyBatch) (loss, mse, size float64) {
	w, bias, norm, temp := values[:6], values[6:8], values[8:10], values[10]
	for i, want := range b.y {
		row, column := i/2, i%2
		h := bias[column]
		for k := range 3 {
			h += w[3*column+k] * float64(b.x[3*row+k])
		}
		d := h*norm[column]/temp - float64(want)
		mse += d * d / float64(len(b.y))
	}
	size = math.Sqrt(float64(b.a) * temp * temp)
	return mse + size, mse, size
}

// toyBatch is a batch of 4 rows.
type toyBatch struct {
	x, y []float32
	a    float32
}

func newToyBatch(step int) toyBatch {
	rng := rand.New(rand.NewPCG(uint64(step), 7))
	b := toyBatch{x: make([]float32, 12), y: make([]float32, 8), a: 0.1}
	for i := range b.x {
		b.x[i] = float32(rng.NormFloat64())
	}
	for i := range b.y {
		b.y[i] = float32(rng.NormFloat64())
	}
	return b
}

func (b toyBatch) tensors() []*tensors.Tensor {
	return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(b.x, 4, 3), tensors.FromFlatDataAndDimensions(b.y, 4, 2),
		tensors.FromScalarAndDimensions(b.a, 4)}
}

func openGo(t *testing.T) compute.Backend {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	return backend
}

func toyStore(t *testing.T) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	if err := model.Initialize(store, toyParams(), 1); err != nil {
		t.Fatal(err)
	}
	return store
}

func newToyStep(t *testing.T, store *mlx.Store, optimizer AdamW, noise float64, seed int64) *Step {
	t.Helper()
	return newStep(t, store, toyTask(noise), optimizer, seed)
}

func newStep(t *testing.T, store *mlx.Store, task Task, optimizer AdamW, seed int64) *Step {
	t.Helper()
	step, err := NewStep(openGo(t), store, task, optimizer, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(step.Close)
	return step
}

func runToy(t *testing.T, s *Step, step int, lr float64, b toyBatch) Result {
	t.Helper()
	r, err := s.Run(step, lr, b.tensors())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// bits returns all variables of the store.
func bits(t *testing.T, store *mlx.Store) map[string][]float32 {
	t.Helper()
	all := map[string][]float32{}
	for v := range store.IterVariables() {
		all[v.Path()] = tensors.MustCopyFlatData[float32](v.MustValue())
	}
	return all
}

// sameBits reports variables that are not equal bit for bit.
func sameBits(t *testing.T, name string, got, want map[string][]float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d variables, want %d", name, len(got), len(want))
	}
	for path, w := range want {
		equal := slices.EqualFunc(got[path], w, func(a, b float32) bool {
			return math.Float32bits(a) == math.Float32bits(b)
		})
		if !equal {
			t.Errorf("%s: %s is %v, want %v", name, path, got[path], w)
		}
	}
}

// TestRandomnessIsKeyed: a step is a function of seed and step index, bit for bit.
func TestRandomnessIsKeyed(t *testing.T) {
	optimizer := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}
	after := func(seed int64, step int) (map[string][]float32, Result) {
		store := toyStore(t)
		r := runToy(t, newToyStep(t, store, optimizer, 0.4, seed), step, 0.01, newToyBatch(0))
		return bits(t, store), r
	}
	want, first := after(3, 5)
	got, again := after(3, 5)
	sameBits(t, "again", got, want)
	if first.Loss != again.Loss {
		t.Errorf("the same step has the losses %g and %g", first.Loss, again.Loss)
	}
	if _, other := after(3, 6); other.Loss == first.Loss {
		t.Error("two steps draw the same")
	}
	if _, other := after(4, 5); other.Loss == first.Loss {
		t.Error("two seeds draw the same")
	}
}

func TestMicroSeed(t *testing.T) {
	seen := map[int64]bool{}
	for _, seed := range []int64{0, 1, -1, 42, 1 << 40} {
		for step := range 1000 {
			for micro := range 3 {
				s := microSeed(seed, step, micro)
				if s == 0 || seen[s] {
					t.Fatalf("seed %d, step %d, micro-batch %d: %d is 0 or was had before", seed, step, micro, s)
				}
				seen[s] = true
			}
		}
	}
}

// TestResume: six steps in one go equal three steps, a copy of all variables into a new store, and three more.
func TestResume(t *testing.T) {
	optimizer := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.05, GradClip: 0.5}
	train := func(store *mlx.Store, from, to int) []float64 {
		s := newToyStep(t, store, optimizer, 0.3, 11)
		var losses []float64
		for step := from; step < to; step++ {
			losses = append(losses, runToy(t, s, step, 0.01*float64(step+1), newToyBatch(step)).Loss)
		}
		return losses
	}
	whole := toyStore(t)
	wantLosses := train(whole, 0, 6)

	first := toyStore(t)
	losses := train(first, 0, 3)
	second := mlx.NewStore()
	for path, values := range bits(t, first) {
		shape := first.GetVariable(path).Shape().Dimensions
		if err := model.Set(second, model.Name(path), shape, values); err != nil {
			t.Fatal(err)
		}
	}
	losses = append(losses, train(second, 3, 6)...)
	if !slices.Equal(losses, wantLosses) {
		t.Errorf("losses %v, without a break %v", losses, wantLosses)
	}
	sameBits(t, "after the break", bits(t, second), bits(t, whole))
}

// TestResult: losses, terms and norm are those of the parameters before the update; compilation is timed once.
func TestResult(t *testing.T) {
	store := toyStore(t)
	s := newToyStep(t, store, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, GradClip: 1e-3}, 0, 1)
	if s.CompileTime() != 0 {
		t.Errorf("compiled in %v before the first step", s.CompileTime())
	}
	values, b := flat(bits(t, store)), newToyBatch(0)
	loss, mse, size := toyLoss(values, b)
	r := runToy(t, s, 0, 0.1, b)
	compiled := s.CompileTime()
	near := func(name string, got, want float64) {
		if !(math.Abs(got-want) <= 1e-5*math.Abs(want)) {
			t.Errorf("%s is %g, want %g", name, got, want)
		}
	}
	near("loss", r.Loss, loss)
	near("gradient norm", r.GradNorm, normOf(toyGradient(values, b)))
	if !r.Applied || len(r.Terms) != 2 {
		t.Fatalf("result %+v, want an applied step with two terms", r)
	}
	near("first term", r.Terms[0], mse)
	near("second term", r.Terms[1], size)
	runToy(t, s, 1, 0.1, newToyBatch(1))
	if s.Compilations() != 1 {
		t.Errorf("%d compiled programs, want 1", s.Compilations())
	}
	if compiled == 0 || s.CompileTime() != compiled {
		t.Errorf("compiled in %v, after another step %v", compiled, s.CompileTime())
	}
}

// TestStepErrors: a batch that does not fit is an error that names the step.
func TestStepErrors(t *testing.T) {
	s := newToyStep(t, toyStore(t), AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 0, 1)
	runToy(t, s, 0, 0.1, newToyBatch(0))
	bad := newToyBatch(1).tensors()
	bad[0] = tensors.FromFlatDataAndDimensions(make([]float32, 8), 4, 2)
	if _, err := s.Run(7, 0.1, bad); err == nil || !strings.Contains(err.Error(), "step 7") {
		t.Errorf("inputs of the wrong width: error %v", err)
	}
}
