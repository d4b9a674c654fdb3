package model

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// TestStoreFrozen: matrices of layers change their dtype, everything else keeps float32, and float32 changes nothing.
func TestStoreFrozen(t *testing.T) {
	params := []Param{
		{Name: "conv1.weight", Shape: []int{4, 3, 2, 2}, Init: Normal(1)},
		{Name: "blocks.0.mlp.fc1.weight", Shape: []int{4, 3}, Init: Normal(1)},
		{Name: "blocks.0.mlp.fc1.bias", Shape: []int{4}},
		{Name: "pos_embed", Shape: []int{1, 5, 4}, Init: Normal(1)},
		{Name: "norm.weight", Shape: []int{4}, Init: Constant(1)},
	}
	for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16} {
		store := mlx.NewStore()
		if err := Initialize(store, params, 1); err != nil {
			t.Fatal(err)
		}
		if err := StoreFrozen(store, params, dtype); err != nil {
			t.Fatal(err)
		}
		for i, p := range params {
			want := dtypes.Float32
			if i < 2 {
				want = dtype
			}
			v := store.GetVariable(Path(p.Name))
			if v.DType() != want {
				t.Errorf("%s is %s, want %s", p.Name, v.DType(), want)
			}
			if dtype != dtypes.Float32 && i < 2 && v.Trainable {
				t.Errorf("%s can be trained", p.Name)
			}
		}
	}
	if err := StoreFrozen(mlx.NewStore(), params, dtypes.BFloat16); err == nil {
		t.Error("a tensor that is not there was stored")
	}
}
