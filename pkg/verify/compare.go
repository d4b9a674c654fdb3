package verify

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/weights"
)

// maxProblems is how many differences a case's error spells out; the rest is counted.
const maxProblems = 5

// checker compares results with recorded answers, remembers the worst difference and which outputs are still due.
type checker struct {
	tol     tolerance
	outputs *weights.File   // nil if the case has none
	due     map[string]bool // outputs not compared yet

	compared           int
	worstAbs, worstRel float64
	share              float64
	worst              string
	problems           []string
	unsaid             int               // problems beyond maxProblems
	unchecked          map[string]string // parts of the case that this machine cannot compute, and why
}

// notChecked notes a part of the case that this machine cannot compute.
func (k *checker) notChecked(part, reason string) {
	if k.unchecked == nil {
		k.unchecked = map[string]string{}
	}
	k.unchecked[part] = reason
}

// expect makes every tensor of the file due.
func (k *checker) expect(f *weights.File) {
	k.outputs, k.due = f, map[string]bool{}
	for _, name := range f.Names() {
		k.due[name] = true
	}
}

// problem records why the case fails.
func (k *checker) problem(format string, args ...any) {
	if len(k.problems) == maxProblems {
		k.unsaid++
		return
	}
	k.problems = append(k.problems, fmt.Sprintf(format, args...))
}

// has says whether an output of this name is recorded, whether or not it was compared.
func (k *checker) has(name string) bool { return k.outputs != nil && k.outputs.Has(name) }

// dueWith returns the names of the outputs with the prefix that were not compared yet, sorted.
func (k *checker) dueWith(prefix string) []string {
	var names []string
	for name := range k.due {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// take returns the recorded output and marks it as compared; ok is false (and a problem recorded) if there is none or
// its shape differs.
func (k *checker) take(name string, shape []int) (want weights.Tensor, ok bool) {
	if !k.has(name) {
		k.problem("%s: there is no recorded output of this name", name)
		return want, false
	}
	if !k.due[name] {
		k.problem("%s: compared twice", name)
		return want, false
	}
	delete(k.due, name)
	want, err := k.outputs.Tensor(name)
	if err != nil {
		k.problem("%v", err)
		return want, false
	}
	if !slices.Equal(want.Shape, shape) {
		k.problem("%s: shape %v, recorded %v", name, shape, want.Shape)
		return want, false
	}
	return want, true
}

// floats compares a float32 result with the recorded output of that name, element by element.
func (k *checker) floats(name string, shape []int, got []float32) {
	want, ok := k.take(name, shape)
	if !ok {
		return
	}
	values, err := want.Float32s()
	if err != nil {
		k.problem("%v", err)
		return
	}
	compareFloats(k, name, shape, got, values)
}

// ints compares an integer result with the recorded output of that name; every value must be equal.
func (k *checker) ints(name string, shape []int, got []int64) {
	want, ok := k.take(name, shape)
	if !ok {
		return
	}
	values, err := want.Int64s()
	if err != nil {
		k.problem("%v", err)
		return
	}
	equalLists(k, name, got, values)
}

// tensor compares a float32 tensor that a graph gave.
func (k *checker) tensor(name string, got *tensors.Tensor) {
	if got.DType() != dtypes.Float32 {
		k.problem("%s: computed as %s, expected float32", name, got.DType())
		delete(k.due, name)
		return
	}
	k.floats(name, got.Shape().Dimensions, tensors.MustCopyFlatData[float32](got))
}

// compareFloats compares numbers that both sides have as a list of the given shape.
func compareFloats[T float32 | float64](k *checker, name string, shape []int, got, want []T) {
	k.compared++
	if len(got) != len(want) {
		k.problem("%s: %d values, recorded %d", name, len(got), len(want))
		return
	}
	worst, worstShare := -1, 0.0
	for i := range got {
		share := k.difference(float64(got[i]), float64(want[i]))
		if share > worstShare || worst < 0 {
			worst, worstShare = i, share
		}
	}
	if worst < 0 {
		return
	}
	where := element(name, shape, worst)
	if worstShare > k.share || k.worst == "" {
		k.share, k.worst = worstShare, where
	}
	if worstShare > 1 {
		g, w := float64(got[worst]), float64(want[worst])
		k.problem("%s: got %v, recorded %v: off by %.3g, allowed %.3g", where, got[worst], want[worst],
			math.Abs(g-w), k.tol.atol+k.tol.rtol*math.Abs(w))
	}
}

// difference takes note of one pair of numbers and returns the part of the tolerance that it uses. What is not a
// number on either side uses all of it and more; equal infinities are equal.
func (k *checker) difference(got, want float64) (share float64) {
	diff := math.Abs(got - want)
	if got == want {
		diff = 0
	} else if math.IsNaN(diff) || math.IsInf(diff, 0) {
		k.worstAbs, k.worstRel = math.Inf(1), math.Inf(1)
		return math.Inf(1)
	}
	if diff == 0 {
		return 0
	}
	size := math.Abs(want)
	k.worstAbs = max(k.worstAbs, diff)
	k.worstRel = max(k.worstRel, diff/max(size, k.tol.atol, math.SmallestNonzeroFloat32))
	allowed := k.tol.atol + k.tol.rtol*size
	if diff <= allowed {
		return diff / allowed
	}
	// Above 1 even where the quotient rounds to 1 or the tolerance is 0.
	return max(diff/allowed, math.Nextafter(1, 2))
}

// equalLists compares values of which every one must be equal.
func equalLists[T comparable](k *checker, name string, got, want []T) {
	k.compared++
	if len(got) != len(want) {
		k.problem("%s: %d values, recorded %d", name, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			k.problem("%s[%d]: got %#v, recorded %#v", name, i, got[i], want[i])
			return
		}
	}
}

// finish ends a case: outputs nobody compared are problems, and so is a case that compared nothing.
func (k *checker) finish() error {
	for _, name := range k.dueWith("") {
		k.problem("%s: recorded, but not compared", name)
	}
	if k.compared == 0 && len(k.problems) == 0 {
		k.problem("the case compares nothing")
	}
	return k.failure()
}

// failure returns the problems so far as one error, nil if there are none.
func (k *checker) failure() error {
	if len(k.problems) == 0 {
		return nil
	}
	text := strings.Join(k.problems, "; ")
	if k.unsaid > 0 {
		text += fmt.Sprintf("; and %d more", k.unsaid)
	}
	return errors.New(text)
}

// element names element i of a tensor: "loss", "sim_i2t[0 3]".
func element(name string, shape []int, i int) string {
	if len(shape) == 0 {
		return name
	}
	index := make([]int, len(shape))
	for a := len(shape) - 1; a >= 0; a-- {
		index[a] = i % shape[a]
		i /= shape[a]
	}
	return fmt.Sprintf("%s%v", name, index)
}
