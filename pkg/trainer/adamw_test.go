package trainer

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// flat lists toyParams' values one after the other.
func flat(variables map[string][]float32) []float64 {
	var out []float64
	for _, p := range toyParams() {
		for _, v := range variables[model.Path(p.Name)] {
			out = append(out, float64(v))
		}
	}
	return out
}

// toyGradient is toyLoss's gradient by central differences.
func toyGradient(values []float64, b toyBatch) []float64 {
	const h = 1e-6
	x, out := append([]float64{}, values...), make([]float64, len(values))
	for i, v := range x {
		x[i] = v + h
		up, _, _ := toyLoss(x, b)
		x[i] = v - h
		down, _, _ := toyLoss(x, b)
		x[i], out[i] = v, (up-down)/(2*h)
	}
	return out
}

func normOf(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

// hostAdamW is AdamW in float64 as PyTorch documents it.
type hostAdamW struct {
	AdamW
	decays []bool // by element
	scales []float64
	p      []float64
	m, v   []float64
}

func newHostAdamW(a AdamW, start []float64) *hostAdamW {
	h := &hostAdamW{AdamW: a, p: start, m: make([]float64, len(start)), v: make([]float64, len(start))}
	for _, param := range toyParams() {
		for range param.Size() {
			// The table of the toy's tensors: the matrix decays, bias and norm do not, temp only by LAVIS's rule.
			h.scales = append(h.scales, a.LRScale(toyDepth("", param.Name)))
			h.decays = append(h.decays, param.Name == "dense.weight" || param.Name == "temp" && a.DecayRule == DecayLAVIS)
		}
	}
	return h
}

// step makes update number t, from 1.
func (h *hostAdamW) step(t int, lr float64, grad []float64) {
	scale := 1.0
	if h.GradClip > 0 {
		scale = min(1, h.GradClip/(normOf(grad)+1e-6))
	}
	for i, g := range grad {
		g *= scale
		lr := lr * h.scales[i]
		if h.decays[i] {
			h.p[i] -= lr * h.WeightDecay * h.p[i]
		}
		h.m[i] = h.Betas[0]*h.m[i] + (1-h.Betas[0])*g
		h.v[i] = h.Betas[1]*h.v[i] + (1-h.Betas[1])*g*g
		mHat := h.m[i] / (1 - math.Pow(h.Betas[0], float64(t)))
		vHat := h.v[i] / (1 - math.Pow(h.Betas[1], float64(t)))
		h.p[i] -= lr * mHat / (math.Sqrt(vHat) + h.Eps)
	}
}

// compare checks parameters and moments of the store, moments in units of their largest value.
func (h *hostAdamW) compare(t *testing.T, name string, variables map[string][]float32) {
	t.Helper()
	slots := func(folder string) map[string][]float32 {
		out := map[string][]float32{}
		for _, p := range toyParams() {
			out[model.Path(p.Name)] = variables[folder+model.Path(p.Name)]
		}
		return out
	}
	for what, pair := range map[string][2][]float64{
		"parameter":     {flat(variables), h.p},
		"first moment":  {flat(slots("/opt/adamw/m")), h.m},
		"second moment": {flat(slots("/opt/adamw/v")), h.v},
	} {
		got, want := pair[0], pair[1]
		if len(got) != len(want) {
			t.Fatalf("%s: %d %ss, want %d", name, len(got), what, len(want))
		}
		unit := 0.0
		for _, w := range want {
			unit = max(unit, math.Abs(w))
		}
		for i, w := range want {
			if d := math.Abs(got[i] - w); !(d <= 1e-5*unit) {
				t.Fatalf("%s: %s %d is %g, want %g", name, what, i, got[i], w)
			}
		}
	}
}

// TestAdamW follows parameters and moments over steps of changing rate, for both decay rules, with and without
// clipping, and with a clip that is never reached.
func TestAdamW(t *testing.T) {
	for _, a := range []AdamW{
		{DecayRule: DecayDefault},
		{DecayRule: DecayDefault, WeightDecay: 0.3},
		{DecayRule: DecayLAVIS, WeightDecay: 0.3},
		{DecayRule: DecayLAVIS, WeightDecay: 0.05, GradClip: 0.4},
		{DecayRule: DecayDefault, WeightDecay: 0.05, GradClip: 1e6},
		{DecayRule: DecayDefault, WeightDecay: 0.3, LayerDecay: 0.7},
	} {
		a.Betas, a.Eps = [2]float64{0.9, 0.98}, 1e-8
		name := fmt.Sprintf("%s, decay %g, layer decay %g, clip %g", a.DecayRule, a.WeightDecay, a.LayerDecay, a.GradClip)
		store := toyStore(t)
		host := newHostAdamW(a, flat(bits(t, store)))
		s := newToyStep(t, store, a, 0, 1)
		for step := range 8 {
			b, lr := newToyBatch(step), 0.05/float64(step+1)
			grad := toyGradient(host.p, b)
			r := runToy(t, s, step, lr, b)
			if want := normOf(grad); !r.Applied || math.Abs(r.GradNorm-want) > 1e-4*want {
				t.Errorf("%s, step %d: applied %v, norm %g, want %g", name, step, r.Applied, r.GradNorm, want)
			}
			host.step(step+1, lr, grad)
			host.compare(t, fmt.Sprintf("%s, step %d", name, step), bits(t, store))
		}
	}
}

// TestEps: it is added to √v̂, after the bias correction.
func TestEps(t *testing.T) {
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 0.5, DecayRule: DecayDefault}
	store := toyStore(t)
	host := newHostAdamW(a, flat(bits(t, store)))
	s := newToyStep(t, store, a, 0, 1)
	for step := range 3 {
		b := newToyBatch(step)
		grad := toyGradient(host.p, b)
		runToy(t, s, step, 0.1, b)
		host.step(step+1, 0.1, grad)
		host.compare(t, fmt.Sprintf("step %d", step), bits(t, store))
	}
}

// TestNotFinite: a loss or gradient that is not finite changes no bit of any parameter or moment and is reported;
// then training goes on as if the step had not been.
func TestNotFinite(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, spoil := range map[string]func(*toyBatch){
		"loss is NaN":               func(b *toyBatch) { b.x[4] = nan },
		"loss is infinite":          func(b *toyBatch) { b.y[1] = inf },
		"only the gradient is NaN":  func(b *toyBatch) { b.a = 0 },
		"only the norm is infinite": func(b *toyBatch) { b.x[0] = 1e12; b.y[0] = 1e12; b.x[3] = -1e13 },
	} {
		for _, clip := range []float64{0, 0.4} {
			t.Run(fmt.Sprintf("%s, clip %g", name, clip), func(t *testing.T) {
				a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.3, DecayRule: DecayLAVIS, GradClip: clip}
				store := toyStore(t)
				host := newHostAdamW(a, flat(bits(t, store)))
				s := newToyStep(t, store, a, 0, 1)
				updates := 0
				for step := range 5 {
					b := newToyBatch(step)
					before := bits(t, store)
					if step == 0 || step == 3 {
						spoil(&b)
						if r := runToy(t, s, step, 0.05, b); r.Applied {
							t.Errorf("step %d was applied: %+v", step, r)
						}
						sameBits(t, fmt.Sprintf("step %d", step), bits(t, store), before)
						continue
					}
					grad := toyGradient(host.p, b)
					if r := runToy(t, s, step, 0.05, b); !r.Applied || math.IsNaN(r.Loss) {
						t.Errorf("step %d behind a bad one: %+v", step, r)
					}
					updates++ // those skipped do not count in the bias correction
					host.step(updates, 0.05, grad)
					host.compare(t, fmt.Sprintf("step %d", step), bits(t, store))
				}
				if got := (Progress{Skipped: 2}); s.Progress() != got {
					t.Errorf("progress %+v, want %+v", s.Progress(), got)
				}
			})
		}
	}
}

// TestDecays is the table of spec/training.md 1: biases and 1-D tensors never decay; the 0-D temperature does in the
// released code alone.
func TestDecays(t *testing.T) {
	for _, c := range []struct {
		name      string
		dims      int
		byDefault bool
		released  bool
	}{
		{"Qformer.bert.encoder.layer.0.attention.self.query.weight", 2, true, true},
		{"Qformer.bert.encoder.layer.0.attention.self.query.bias", 1, false, false},
		{"Qformer.bert.encoder.layer.0.output_query.LayerNorm.weight", 1, false, false},
		{"Qformer.bert.embeddings.word_embeddings.weight", 2, true, true},
		{"Qformer.bert.embeddings.position_embeddings.weight", 2, true, true},
		{"Qformer.cls.predictions.bias", 1, false, false},
		{"query_tokens", 3, true, true},
		{"temp", 0, false, true},
		{"ln_vision.weight", 1, false, false},
		{"visual_encoder.patch_embed.proj.weight", 4, true, true},
		{"visual_encoder.cls_token", 3, true, true},
		{"visual_encoder.pos_embed", 3, true, true},
		{"visual_encoder.blocks.0.attn.q_bias", 1, false, false},
		{"visual_encoder.class_embedding", 1, false, false},
		{"visual_encoder.positional_embedding", 2, true, true},
		{"visual_encoder.transformer.resblocks.0.attn.in_proj_bias", 1, false, false},
		{"odd.bias", 2, false, false},
	} {
		p := model.Param{Name: c.name, Shape: []int{2, 2, 2, 2}[:c.dims]}
		for rule, want := range map[string]bool{DecayDefault: c.byDefault, DecayLAVIS: c.released} {
			if got := (AdamW{DecayRule: rule}).Decays(p); got != want {
				t.Errorf("rule %s: %s of %d dimensions decays: %v, want %v", rule, c.name, c.dims, got, want)
			}
		}
	}
}

// TestSlots: moments start at zero, are not trained themselves, and those that a checkpoint brought stay.
func TestSlots(t *testing.T) {
	store := toyStore(t)
	if err := model.Set(store, "opt.adamw.v.dense.bias", []int{2}, []float32{3, 4}); err != nil {
		t.Fatal(err)
	}
	newToyStep(t, store, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 0, 1)
	if n, want := store.NumVariables(), 3*len(toyParams()); n != want {
		t.Errorf("%d variables, want %d", n, want)
	}
	for path, values := range bits(t, store) {
		isSlot := len(path) > 5 && path[:5] == "/opt/"
		if store.GetVariable(path).Trainable == isSlot && path != "/opt/adamw/v/dense/bias" {
			t.Errorf("%s is trainable: %v", path, !isSlot)
		}
		for i, v := range values {
			want := float32(0)
			if path == "/opt/adamw/v/dense/bias" {
				want = float32(3 + i)
			}
			if isSlot && v != want {
				t.Errorf("%s starts at %v", path, values)
			}
		}
	}
}

// TestWithoutGradient: parameters on which the loss does not depend by a differentiable way have the gradient None in
// PyTorch, whose AdamW passes over them: they do not decay, and have no moments. All others follow AdamW.
func TestWithoutGradient(t *testing.T) {
	idle := []model.Param{{Name: "unused.weight", Shape: []int{2, 2}, Init: model.Normal(1)},
		{Name: "stopped.weight", Shape: []int{2, 2}, Init: model.Normal(1)},
		{Name: "counted.weight", Shape: []int{2, 2}, Init: model.Normal(1)},
		{Name: "reported.weight", Shape: []int{2, 2}, Init: model.Normal(1)}}
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.3, DecayRule: DecayDefault}
	for _, parts := range []int{1, 2} {
		task := partsTask(parts, 0)
		task.Params = append(idle[:2:2], append(toyParams(), idle[2:]...)...)
		loss := task.Loss
		task.Loss = func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			value := func(name string) *Node {
				return scope.At("%s", name).GetVariable("weight").NodeValue(in[0].Graph())
			}
			total, terms := loss(scope, in, rng)
			stopped := StopGradient(ReduceAllSum(Exp(value("stopped"))))
			whole := ConvertDType(ConvertDType(ReduceAllSum(value("counted")), dtypes.Int32), dtypes.Float32)
			total = Add(total, MulScalar(Add(stopped, whole), 0.5))
			return total, []*Node{terms[0], Add(terms[1], ReduceAllSum(value("reported")))}
		}
		store := mlx.NewStore()
		if err := model.Initialize(store, task.Params, 1); err != nil {
			t.Fatal(err)
		}
		before := bits(t, store)
		host := newHostAdamW(a, flat(before))
		s := newStep(t, store, task, a, 1)
		for step := range 3 {
			b := newToyBatch(step)
			grad := toyGradient(host.p, b)
			runToy(t, s, step, 0.05, b)
			host.step(step+1, 0.05, grad)
		}
		after := bits(t, store)
		host.compare(t, fmt.Sprintf("%d parts", parts), after)
		for _, p := range idle {
			path := model.Path(p.Name)
			if !slices.Equal(after[path], before[path]) {
				t.Errorf("%d parts: %s was %v and is %v", parts, p.Name, before[path], after[path])
			}
			for _, folder := range []string{firstMoment, secondMoment} {
				if slices.ContainsFunc(after[folder+path], func(v float32) bool { return v != 0 }) {
					t.Errorf("%d parts: %s has a moment", parts, p.Name)
				}
			}
		}
	}
}

// TestNothingIsTrained: a loss without any parameter is a mistake that is said.
func TestNothingIsTrained(t *testing.T) {
	for _, parts := range []int{1, 2} {
		task := partsTask(parts, 0)
		task.Loss = func(_ *mlx.Scope, in []*Node, _ *nn.RNG) (*Node, []*Node) {
			mean := ReduceAllMean(in[0])
			return mean, []*Node{mean, mean}
		}
		s := newStep(t, toyStore(t), task, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 1)
		if _, err := s.Run(0, 0.1, newToyBatch(0).tensors()); err == nil ||
			!strings.Contains(err.Error(), "no tensor that is trained") {
			t.Errorf("%d parts: error %v", parts, err)
		}
	}
}
