package trainer

import (
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// The rules that decide which parameters decay (spec/training.md 1).
const (
	// DecayDefault decays tensors of two and more dimensions whose name does not end in ".bias".
	DecayDefault = "default"
	// DecayLAVIS exempts 1-D tensors and names that end in ".bias"; so the 0-D temperature decays, as in released code.
	DecayLAVIS = "lavis"
)

// AdamW is the optimizer: Adam with decoupled weight decay (Loshchilov and Hutter 2019), as PyTorch computes it.
// Parameters and both moments are float32.
type AdamW struct {
	Betas       [2]float64 // decay of the first and second moment
	Eps         float64    // added to √v̂
	WeightDecay float64    // p ← p·(1 − lr·WeightDecay) before the Adam step, where the rule says so
	DecayRule   string     // DecayDefault or DecayLAVIS
	GradClip    float64    // largest global gradient norm; 0 for none
}

// Decays reports whether weight decay applies to the parameter.
func (a AdamW) Decays(p model.Param) bool {
	if strings.HasSuffix(p.Name, ".bias") {
		return false
	}
	if a.DecayRule == DecayLAVIS {
		return len(p.Shape) != 1
	}
	return len(p.Shape) >= 2
}

// Names of the moments' folders in the store.
const (
	firstMoment  = "/opt/adamw/m"
	secondMoment = "/opt/adamw/v"
)

// createSlots gives every parameter its two moments, zero at the start; slots that a checkpoint brought stay.
func createSlots(store *mlx.Store, params []model.Param) error {
	for _, p := range params {
		for _, folder := range []string{firstMoment, secondMoment} {
			path := folder + model.Path(p.Name)
			if store.GetVariable(path) != nil {
				continue
			}
			v, err := store.CreateVariable(path, tensors.FromFlatDataAndDimensions(make([]float32, p.Size()), p.Shape...))
			if err != nil {
				return fmt.Errorf("optimizer slot %s: %w", path, err)
			}
			v.SetTrainable(false)
		}
	}
	return nil
}

// hostScalars are the step's numbers that only the host knows, as one vector: learning rate and the two bias
// corrections 1−βᵗ, computed in float64.
func (a AdamW) hostScalars(lr float64, step int) []float32 {
	t := float64(step + 1)
	return []float32{float32(lr), float32(1 - math.Pow(a.Betas[0], t)), float32(1 - math.Pow(a.Betas[1], t))}
}

// apply adds the update of all parameters to the graph and returns the global gradient norm (float32 scalar, before
// clipping) and whether the step was applied (bool scalar).
//
// If the loss or any gradient is not finite, nothing changes: gradients become zero, both βs one and the learning
// rate zero, which leaves parameters and moments exactly as they were without a second copy of them.
func (a AdamW) apply(store *mlx.Store, params []model.Param, loss, scalars *Node) (norm, applied *Node) {
	g := loss.Graph()
	vars := make([]*mlx.Variable, len(params))
	values := make([]*Node, len(params))
	for i, p := range params {
		vars[i] = store.GetVariable(model.Path(p.Name))
		values[i] = vars[i].NodeValue(g)
	}
	grads := Gradient(loss, values...)
	norm = globalNorm(grads)
	applied = LogicalAnd(IsFinite(norm), IsFinite(loss))

	zero, one := ScalarZero(g, dtypes.Float32), ScalarOne(g, dtypes.Float32)
	lr := Where(applied, element(scalars, 0), zero)
	beta1 := Where(applied, Scalar(g, dtypes.Float32, a.Betas[0]), one)
	beta2 := Where(applied, Scalar(g, dtypes.Float32, a.Betas[1]), one)
	stepSize := Div(lr, element(scalars, 1))
	root2 := Sqrt(element(scalars, 2))
	scale := one
	if a.GradClip > 0 {
		// PyTorch's clip_grad_norm_: the norm plus 1e-6, never scaling up.
		scale = MinScalar(Div(Scalar(g, dtypes.Float32, a.GradClip), AddScalar(norm, 1e-6)), 1)
		scale = Where(applied, scale, one) // of a norm that is not finite it would be NaN
	}
	for i, p := range params {
		grad := Where(applied, grads[i], ZerosLike(grads[i]))
		if a.GradClip > 0 {
			grad = Mul(grad, scale)
		}
		m, v := slot(store, firstMoment, p, g), slot(store, secondMoment, p, g)
		newM := Add(Mul(m.NodeValue(g), beta1), Mul(grad, OneMinus(beta1)))
		newV := Add(Mul(v.NodeValue(g), beta2), Mul(Square(grad), OneMinus(beta2)))
		value := values[i]
		if a.WeightDecay > 0 && a.Decays(p) {
			value = Mul(value, OneMinus(MulScalar(lr, a.WeightDecay)))
		}
		update := Div(newM, AddScalar(Div(Sqrt(newV), root2), a.Eps))
		vars[i].SetNodeValue(Sub(value, Mul(update, stepSize)))
		m.SetNodeValue(newM)
		v.SetNodeValue(newV)
	}
	return norm, applied
}

func slot(store *mlx.Store, folder string, p model.Param, g *Graph) *mlx.Variable {
	return store.GetVariable(folder + model.Path(p.Name))
}

// element is one number of a vector.
func element(vector *Node, i int) *Node { return Squeeze(SliceAxis(vector, 0, AxisElem(i))) }

// globalNorm is the L2 norm of all gradients together.
func globalNorm(grads []*Node) *Node {
	var sum *Node
	for _, grad := range grads {
		flat := Reshape(nn.Float32(grad), -1)
		square := Dot(flat, flat).Product()
		if sum == nil {
			sum = square
		} else {
			sum = Add(sum, square)
		}
	}
	return Sqrt(sum)
}
