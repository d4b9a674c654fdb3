package trainer

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/compute"
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
	LayerDecay  float64    // γ of the layer-wise learning-rate decay (spec/training.md 6); 0 means 1, none
	GradClip    float64    // largest global gradient norm; 0 for none
	LossScale   LossScale  // used where the task computes in float16
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

// LRScale returns the factor of a parameter's learning rate, γ^depth; see Task.Depth.
func (a AdamW) LRScale(depth int) float64 {
	if a.LayerDecay == 0 {
		return 1
	}
	return math.Pow(a.LayerDecay, float64(depth))
}

// Names of the moments' folders in the store.
const (
	firstMoment  = "/opt/adamw/m"
	secondMoment = "/opt/adamw/v"
)

// createSlots gives every parameter its zeros in each of the folders; slots that a checkpoint brought stay.
// They are made on the backend's first device.
func createSlots(backend compute.Backend, store *mlx.Store, params []model.Param, folders ...string) error {
	var zeros []byte
	for _, p := range params {
		for _, folder := range folders {
			path := folder + model.Path(p.Name)
			if store.GetVariable(path) != nil {
				continue
			}
			if size := 4 * p.Size(); size > len(zeros) {
				zeros = make([]byte, size)
			}
			slot, err := model.NewTensor(backend, p, dtypes.Float32, zeros[:4*p.Size()])
			if err != nil {
				return fmt.Errorf("optimizer slot %s: %w", path, err)
			}
			v, err := store.CreateVariable(path, slot)
			if err != nil {
				return fmt.Errorf("optimizer slot %s: %w", path, err)
			}
			v.SetTrainable(false)
		}
	}
	return nil
}

// The step's numbers that only the host knows, by their place in one float32 vector.
const (
	hostLR    = iota // learning rate
	hostBias1        // bias corrections 1−βᵗ, computed in float64
	hostBias2
	hostScale // factor of the loss, 1 unless the task computes in float16
	hostScalars
)

// hostValues returns that vector for update number t, from 1.
func (a AdamW) hostValues(lr float64, t int, scale float64) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions([]float32{float32(lr), float32(1 - math.Pow(a.Betas[0], float64(t))),
		float32(1 - math.Pow(a.Betas[1], float64(t))), float32(scale)}, hostScalars)
}

// update adds the update of all parameters to the graph: of the loss, a float32 scalar, and its gradients in the order
// of the task's parameters. It returns the global gradient norm (float32 scalar, before clipping) and whether the step
// was applied (bool scalar). A parameter whose gradient is nil stays as it is: as in PyTorch it does not even decay.
//
// If the loss or any gradient is not finite, nothing changes: gradients become zero, both βs one and the learning
// rate zero, which leaves parameters and moments exactly as they were without a second copy of them.
func (a AdamW) update(store *mlx.Store, task Task, loss *Node, grads []*Node, host *Node) (norm, applied *Node) {
	g := loss.Graph()
	norm = globalNorm(grads)
	applied = LogicalAnd(IsFinite(norm), IsFinite(loss))

	zero, one := ScalarZero(g, dtypes.Float32), ScalarOne(g, dtypes.Float32)
	lr := Where(applied, element(host, hostLR), zero)
	beta1 := Where(applied, Scalar(g, dtypes.Float32, a.Betas[0]), one)
	beta2 := Where(applied, Scalar(g, dtypes.Float32, a.Betas[1]), one)
	stepSize := Div(lr, element(host, hostBias1))
	root2 := Sqrt(element(host, hostBias2))
	clip := one
	if a.GradClip > 0 {
		// PyTorch's clip_grad_norm_: the norm plus 1e-6, never scaling up.
		clip = MinScalar(Div(Scalar(g, dtypes.Float32, a.GradClip), AddScalar(norm, 1e-6)), 1)
		clip = Where(applied, clip, one) // of a norm that is not finite it would be NaN
	}
	for i, p := range task.Params {
		if grads[i] == nil {
			continue
		}
		grad := Where(applied, grads[i], ZerosLike(grads[i]))
		if a.GradClip > 0 {
			grad = Mul(grad, clip)
		}
		m, v := slot(store, firstMoment, p), slot(store, secondMoment, p)
		newM := Add(Mul(m.NodeValue(g), beta1), Mul(grad, OneMinus(beta1)))
		newV := Add(Mul(v.NodeValue(g), beta2), Mul(Square(grad), OneMinus(beta2)))
		scale := a.LRScale(task.depth(a.DecayRule, p))
		parameter := store.GetVariable(model.Path(p.Name))
		value := parameter.NodeValue(g)
		if a.WeightDecay > 0 && a.Decays(p) {
			value = Mul(value, OneMinus(MulScalar(lr, scale*a.WeightDecay)))
		}
		direction := Div(newM, AddScalar(Div(Sqrt(newV), root2), a.Eps))
		parameter.SetNodeValue(Sub(value, Mul(direction, scaled(stepSize, scale))))
		m.SetNodeValue(newM)
		v.SetNodeValue(newV)
	}
	return norm, applied
}

// scaled is x times a constant; x itself for 1.
func scaled(x *Node, factor float64) *Node {
	if factor == 1 {
		return x
	}
	return MulScalar(x, factor)
}

func slot(store *mlx.Store, folder string, p model.Param) *mlx.Variable {
	return store.GetVariable(folder + model.Path(p.Name))
}

// element is one number of a vector.
func element(vector *Node, i int) *Node { return Squeeze(SliceAxis(vector, 0, AxisElem(i))) }

// globalNorm is the L2 norm of all gradients together; nil ones are passed over.
func globalNorm(grads []*Node) *Node {
	var sum *Node
	for _, grad := range grads {
		if grad == nil {
			continue
		}
		flat := Reshape(nn.Float32(grad), -1)
		square := Dot(flat, flat).Product()
		if sum == nil {
			sum = square
		} else {
			sum = Add(sum, square)
		}
	}
	if sum == nil {
		panic(errors.New("the loss depends on no tensor that is trained"))
	}
	return Sqrt(sum)
}
