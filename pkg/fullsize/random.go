package fullsize

import (
	"hash/fnv"
	"math/rand/v2"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// random draws inputs.
type random struct{ *rand.Rand }

func newRandom(seed int64) *random { return &random{rand.New(rand.NewPCG(uint64(seed), 0))} }

// normal draws from N(0, 1), as normalised pixels are.
func (r *random) normal(dims ...int) *tensors.Tensor {
	values := make([]float32, product(dims))
	for i := range values {
		values[i] = float32(r.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// ids draws token ids below vocab, int32 [batch, length]; the last of each row are those in end.
func (r *random) ids(batch, length, vocab int, end ...int32) *tensors.Tensor {
	values := make([]int32, 0, batch*length)
	for range batch {
		for range length - len(end) {
			values = append(values, int32(r.IntN(vocab)))
		}
		values = append(values, end...)
	}
	return tensors.FromFlatDataAndDimensions(values, batch, length)
}

// constant is a tensor of equal numbers.
func constant(value int32, dims ...int) *tensors.Tensor {
	values := make([]int32, product(dims))
	for i := range values {
		values[i] = value
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// period is after how many elements random weights repeat: a prime, so that rows of a matrix differ.
const period = 1<<20 - 3

// filler makes random weights much faster than they could be drawn one by one: all tensors with the same Init are cut
// from one sequence of numbers, which repeats, each from a place of its own.
type filler struct {
	dtype     weights.DType
	sequences map[model.Init][]byte
	buffer    []byte
}

func newFiller(dtype weights.DType) *filler {
	return &filler{dtype: dtype, sequences: map[model.Init][]byte{}}
}

// data returns the numbers of a tensor. They are valid until the next call.
func (f *filler) data(p model.Param) ([]byte, error) {
	sequence, err := f.sequence(p.Init)
	if err != nil {
		return nil, err
	}
	h := fnv.New32a()
	h.Write([]byte(p.Name))
	size := p.Size() * f.dtype.Size()
	if cap(f.buffer) < size {
		f.buffer = make([]byte, size)
	}
	data := f.buffer[:size]
	n := copy(data, sequence[int(h.Sum32()%period)*f.dtype.Size():])
	for n < size {
		n += copy(data[n:], sequence)
	}
	return data, nil
}

func (f *filler) sequence(init model.Init) ([]byte, error) {
	if s, ok := f.sequences[init]; ok {
		return s, nil
	}
	p := model.Param{Name: "weights", Shape: []int{period}, Init: init}
	t, err := weights.FromFloat32(p.Name, p.Shape, model.Draw(p, 0)).CastFloat(f.dtype)
	if err != nil {
		return nil, err
	}
	f.sequences[init] = t.Data
	return t.Data, nil
}
