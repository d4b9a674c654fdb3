package pretrained

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// layersOf are parameters of the given numbers of elements.
func layersOf(sizes ...int) []model.Param {
	params := make([]model.Param, len(sizes))
	for i, n := range sizes {
		params[i] = model.Param{Name: fmt.Sprintf("layer.%d.weight", i), Shape: []int{n}}
	}
	return params
}

// TestFill: the store gets all tensors that there are, in the order of the parameters, and each is done with once.
func TestFill(t *testing.T) {
	params := layersOf(3, 50, 7, 1, 900, 20, 30)
	want := stateOf(params)
	delete(want, params[2].Name)
	store := mlx.NewStore()
	var mu sync.Mutex
	done := map[string]int{}
	err := Fill(store, nil, params, func(p model.Param) (weights.Tensor, bool, error) {
		tensor, ok := want[p.Name]
		return tensor, ok, nil
	}, func(p model.Param) {
		mu.Lock()
		defer mu.Unlock()
		done[p.Name]++
	})
	if err != nil {
		t.Fatal(err)
	}
	params = slices.Delete(params, 2, 3)
	mustEqual(t, store, params, want)
	var names []string
	for v := range store.IterVariables() {
		names = append(names, model.Name(v.Path()))
	}
	if !slices.EqualFunc(names, params, func(name string, p model.Param) bool { return name == p.Name }) {
		t.Errorf("variables %v, want those of %v in this order", names, params)
	}
	for _, p := range params {
		if done[p.Name] != 1 {
			t.Errorf("%s was done with %d times", p.Name, done[p.Name])
		}
	}
}

// TestFillFails: an error leaves the store as it was and is the one of the tensor.
func TestFillFails(t *testing.T) {
	params := layersOf(5, 600, 4, 300)
	for _, tt := range []struct {
		name string
		read func(p model.Param) (weights.Tensor, bool, error)
		want string
	}{
		{"unreadable", func(p model.Param) (weights.Tensor, bool, error) {
			if p.Name == params[2].Name {
				return weights.Tensor{}, true, errors.New("tensor layer.2.weight: disk on fire")
			}
			return array(p.Name, p.Shape...), true, nil
		}, "disk on fire"},
		{"integers", func(p model.Param) (weights.Tensor, bool, error) {
			return weights.Tensor{Name: p.Name, DType: weights.I8, Shape: p.Shape, Data: make([]byte, p.Size())}, true, nil
		}, "dtype is I8"},
		{"too short", func(p model.Param) (weights.Tensor, bool, error) {
			x := array(p.Name, p.Shape...)
			x.Data = x.Data[4:]
			return x, true, nil
		}, "tensor layer."},
	} {
		store := mlx.NewStore()
		err := Fill(store, nil, params, tt.read, func(model.Param) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
		if n := size(store); n != 0 {
			t.Errorf("%s: the store has %d variables", tt.name, n)
		}
	}
}

// TestCopyOrder: tensors that are much of the whole are copied alone and first, the largest first.
func TestCopyOrder(t *testing.T) {
	sizes := []int{20, 500, 1000, 20, 30, 20, 400}
	for len(sizes) < 40 {
		sizes = append(sizes, 20)
	}
	params := layersOf(sizes...)
	big := []int{1000, 500, 400} // above 1/32 of 2690
	var mu sync.Mutex
	var order []int
	running := 0
	_, err := copyAll(params, func(p model.Param) (*tensors.Tensor, error) {
		mu.Lock()
		order = append(order, p.Size())
		running++
		alone := running == 1
		mu.Unlock()
		if slices.Contains(big, p.Size()) && !alone {
			t.Errorf("a tensor of %d elements is copied beside others", p.Size())
		}
		mu.Lock()
		defer mu.Unlock()
		running--
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(order) != len(params) || !slices.Equal(order[:3], big) {
		t.Errorf("%d tensors were copied, the first of %v elements; want %d, %v first", len(order), order[:3], len(params),
			big)
	}
	if _, err := copyAll(nil, nil); err != nil {
		t.Errorf("no parameters: %v", err)
	}
}

// TestCopyStops: after an error no further tensor is begun, and what there is is returned.
func TestCopyStops(t *testing.T) {
	params := layersOf(900, 800, 1, 1, 1)
	fails := errors.New("fails")
	out, err := copyAll(params, func(p model.Param) (*tensors.Tensor, error) {
		if p.Size() != 900 {
			return nil, fails
		}
		return tensors.FromScalar[float32](1), nil
	})
	if !errors.Is(err, fails) || out[0] == nil || len(out) != len(params) {
		t.Errorf("error %v, results %v", err, out)
	}
}
