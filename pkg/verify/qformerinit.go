package verify

import (
	"encoding/json"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	defaults "blip2/pkg/config"
	"blip2/pkg/model"
	"blip2/pkg/pretrained"
	"blip2/pkg/stage1"
)

// initSeed draws what BERT does not give; every seed must pass.
const initSeed = 42

// initStd is the spread of what is drawn as BERT's own weights are (spec/model.md 5.5).
const initStd = 0.02

// qformerInitExpected is expected.json of kind qformer-init.
type qformerInitExpected struct {
	Sources       map[string]string          `json:"sources"`
	Unused        []string                   `json:"unused"`
	Drawn         []string                   `json:"drawn"`
	Constant      map[string]float32         `json:"constant"`
	Appended      map[string]string          `json:"appended"`
	FirstRowsOnly map[string]int             `json:"first_rows_only"`
	Tied          [][2]string                `json:"tied"`
	Others        map[string]json.RawMessage `json:"others"`
}

// qformerInit runs kind qformer-init: a BERT checkpoint becomes a Q-Former. What follows from the checkpoint must be
// equal, what is drawn must have the right distribution.
func qformerInit(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var settings stage1Config
	var expected qformerInitExpected
	if err := c.config(&settings); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	cfg, err := settings.model()
	if err != nil {
		return err
	}
	cfg.Temperature = defaults.DefaultStage1().Loss.Temperature
	store := mlx.NewStore()
	defer store.Finalize()
	cov, err := pretrained.LoadQFormer(store, stage1.QFormerParams(cfg), filepath.Join(c.Dir, weightsFile), initSeed,
		pretrained.Options{})
	if err != nil {
		return err
	}
	q := &initialised{k: k, store: store, expected: expected}
	q.coverage(cov)
	for _, name := range k.dueWith("") {
		q.output(name)
	}
	q.rest()
	return nil
}

// initialised holds a Q-Former's store against what is expected of it.
type initialised struct {
	k        *checker
	store    *mlx.Store
	expected qformerInitExpected
}

// coverage compares which tensors of the checkpoint were used.
func (q *initialised) coverage(cov *pretrained.Coverage) {
	consumed := slices.Compact(slices.Sorted(maps.Values(q.expected.Sources)))
	equalLists(q.k, "consumed", cov.Consumed, consumed)
	unused := slices.Clone(q.expected.Unused)
	for _, n := range cov.Ignored {
		// A file may have a tied tensor twice; only one of the two is a source.
		if q.tiedTo("Qformer."+n.Name) != "" {
			unused = append(unused, n.Name)
		}
	}
	slices.Sort(unused)
	ignored := make([]string, len(cov.Ignored))
	for i, n := range cov.Ignored {
		ignored[i] = n.Name
	}
	equalLists(q.k, "unused", ignored, unused)
}

// tiedTo returns the tensor that the model has in place of the named one, empty if it has the named one itself.
func (q *initialised) tiedTo(name string) string {
	for _, pair := range q.expected.Tied {
		if pair[1] == name {
			return pair[0]
		}
	}
	return ""
}

// output compares a recorded output with the model's tensor.
func (q *initialised) output(name string) {
	of := name
	if tied := q.tiedTo(name); tied != "" {
		of = tied
	}
	shape, values, ok := q.tensor(of)
	if !ok {
		return
	}
	if rows, cut := q.expected.FirstRowsOnly[name]; cut {
		if len(shape) != 2 || rows > shape[0] {
			q.k.problem("%s: %d rows are recorded of shape %v", name, rows, shape)
			return
		}
		values, shape = values[:rows*shape[1]], []int{rows, shape[1]}
	}
	q.k.floats(name, shape, values)
}

// rest checks what does not follow from the checkpoint.
func (q *initialised) rest() {
	for _, name := range q.expected.Drawn {
		if _, values, ok := q.tensor(name); ok {
			q.normal(name, values, initStd)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(q.expected.Constant)) {
		q.constant(name, q.expected.Constant[name])
	}
	for _, name := range slices.Sorted(maps.Keys(q.expected.Appended)) {
		q.appended(name, q.expected.Appended[name])
	}
	for _, name := range slices.Sorted(maps.Keys(q.expected.Others)) {
		q.other(name, q.expected.Others[name])
	}
}

// tensor returns the model's tensor of that name.
func (q *initialised) tensor(name string) (shape []int, values []float32, ok bool) {
	v := q.store.GetVariable(model.Path(name))
	if v == nil {
		q.k.problem("%s: the model has no such tensor", name)
		return nil, nil, false
	}
	t, err := v.Value()
	if err != nil {
		q.k.problem("%s: %v", name, err)
		return nil, nil, false
	}
	return v.Shape().Dimensions, tensors.MustCopyFlatData[float32](t), true
}

func (q *initialised) constant(name string, want float32) {
	if _, values, ok := q.tensor(name); ok {
		equalLists(q.k, name, values, slices.Repeat([]float32{want}, len(values)))
	}
}

// appended checks the last row of a tensor: "one row, drawn" or "one element, 0".
func (q *initialised) appended(name, how string) {
	shape, values, ok := q.tensor(name)
	if !ok {
		return
	}
	last := values[len(values)-len(values)/shape[0]:]
	switch {
	case strings.HasSuffix(how, ", drawn"):
		q.normal(name+" appended", last, initStd)
	case strings.HasSuffix(how, ", 0"):
		equalLists(q.k, name+" appended", last, make([]float32, len(last)))
	default:
		q.k.problem("%s: appended %q is unknown", name, how)
	}
}

// other checks a tensor by a constant, {"normal": [mean, std]} or {"uniform": [low, high]}.
func (q *initialised) other(name string, how json.RawMessage) {
	var constant float32
	if json.Unmarshal(how, &constant) == nil {
		q.constant(name, constant)
		return
	}
	var drawn struct{ Normal, Uniform *[2]float64 }
	err := json.Unmarshal(how, &drawn)
	_, values, ok := q.tensor(name)
	switch {
	case !ok:
	case err == nil && drawn.Normal != nil && drawn.Normal[0] == 0:
		q.normal(name, values, drawn.Normal[1])
	case err == nil && drawn.Uniform != nil && drawn.Uniform[0] == -drawn.Uniform[1]:
		q.uniform(name, values, drawn.Uniform[1])
	default:
		q.k.problem("%s: start %s is unknown", name, how)
	}
}

// normal checks that the values may be draws from N(0, std²), up to five standard errors.
func (q *initialised) normal(name string, values []float32, std float64) {
	q.k.compared++
	n := float64(len(values))
	mean, spread := moments(values)
	if spread == 0 || math.Abs(mean) > 5*std/math.Sqrt(n) || !(math.Abs(spread/std-1) <= 5/math.Sqrt(2*n)) {
		q.k.problem("%s: %d values with mean %.3g and root mean square %.3g, want N(0, %v²)", name, len(values), mean,
			spread, std)
	}
}

// uniform checks that the values may be draws from U(−bound, bound), up to five standard errors.
func (q *initialised) uniform(name string, values []float32, bound float64) {
	q.k.compared++
	n := float64(len(values))
	mean, spread := moments(values)
	std := bound / math.Sqrt(3)
	highest := math.Max(float64(slices.Max(values)), -float64(slices.Min(values)))
	// The square of a uniform number has a relative standard deviation of 2/√5, its root half of that.
	if highest > bound*(1+1e-5) || math.Abs(mean) > 5*std/math.Sqrt(n) ||
		!(math.Abs(spread/std-1) <= 5/math.Sqrt(5*n)) {
		q.k.problem("%s: %d values up to %.4g with mean %.3g and root mean square %.3g, want U(±%.4g)", name,
			len(values), highest, mean, spread, bound)
	}
}

// moments returns the mean and the root mean square of the values.
func moments(values []float32) (mean, rms float64) {
	var sum, squares float64
	for _, v := range values {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	n := float64(len(values))
	return sum / n, math.Sqrt(squares / n)
}
