package model

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// StoreFrozen keeps the weights of frozen linear layers and convolutions in the given dtype (float32, bfloat16 or
// float16), which halves their memory. Embeddings, LayerNorms and biases stay float32 (spec/model.md 11). The
// parameters must be in the store and must not be trained.
func StoreFrozen(store *mlx.Store, params []Param, dtype dtypes.DType) error {
	for _, p := range params {
		if v := store.GetVariable(Path(p.Name)); !IsMatrix(p) || v != nil && v.DType() == dtype {
			continue
		}
		if err := storeAs(store, p, dtype); err != nil {
			return fmt.Errorf("storing frozen tensor %s as %s: %w", p.Name, dtype, err)
		}
	}
	return nil
}

// IsMatrix says whether the parameter is the weight of a linear layer or a convolution.
func IsMatrix(p Param) bool { return len(p.Shape) >= 2 && strings.HasSuffix(p.Name, "weight") }

func storeAs(store *mlx.Store, p Param, dtype dtypes.DType) error {
	v := store.GetVariable(Path(p.Name))
	if v == nil {
		return fmt.Errorf("it is not in the store")
	}
	value, err := v.Value()
	if err != nil {
		return err
	}
	values, err := tensors.CopyFlatData[float32](value)
	if err != nil {
		return err
	}
	var stored *tensors.Tensor
	switch dtype {
	case dtypes.BFloat16:
		stored = converted(values, p.Shape, bfloat16.FromFloat32)
	case dtypes.Float16:
		stored = converted(values, p.Shape, float16.FromFloat32)
	default:
		return fmt.Errorf("use float32, bfloat16 or float16")
	}
	if err := store.DeleteVariable(Path(p.Name)); err != nil {
		return err
	}
	v, err = store.CreateVariable(Path(p.Name), stored)
	if err != nil {
		return err
	}
	v.SetTrainable(false)
	return nil
}

func converted[T bfloat16.BFloat16 | float16.Float16](values []float32, shape []int,
	f func(float32) T) *tensors.Tensor {
	out := make([]T, len(values))
	for i, x := range values {
		out[i] = f(x)
	}
	return tensors.FromFlatDataAndDimensions(out, shape...)
}
