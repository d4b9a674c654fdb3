package answer

import (
	"context"
	"errors"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/mesh"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// Attention is what the Q-Former's queries look at in a picture: for every query a map of the patches, row by row.
type Attention struct {
	Grid   int         // patches per side
	Layers []int       // layers that were averaged
	Maps   [][]float32 // [Q][Grid·Grid] probabilities, averaged over heads and layers; those of CLS are left out
	CLS    []float32   // [Q] what each query gives to the CLS token
}

// AllLayers asks LookAt for the mean of all layers with cross-attention, LastLayer for the last of them.
const (
	AllLayers = -1
	LastLayer = -2
)

// CheckAttention reports a layer that LookAt does not take.
func (c *Checkpoint) CheckAttention(layer int) error {
	if c.Kind == KindBLIP {
		return errors.New("BLIP's captioner has no queries that look at the picture: give BLIP-2")
	}
	_, err := crossLayers(*c.Spec.QFormer, layer)
	return err
}

// crossLayers lists the layers that are meant.
func crossLayers(q qformer.Config, layer int) ([]int, error) {
	var all []int
	for i := range q.Layers {
		if q.HasCross(i) {
			all = append(all, i)
		}
	}
	switch {
	case layer == AllLayers:
		return all, nil
	case layer == LastLayer:
		return all[len(all)-1:], nil
	case layer < 0 || layer >= q.Layers || !q.HasCross(layer):
		return nil, fmt.Errorf("layer %d has no cross-attention: those that have are %v", layer, all)
	}
	return []int{layer}, nil
}

// LookAt computes what the queries look at in a picture, planes [3, S, S], in a layer of the Q-Former, AllLayers or
// LastLayer: by the network itself, as it encodes the picture.
func (m *Model) LookAt(ctx context.Context, backend compute.Backend, activations dtypes.DType, pixels []float32,
	layer int) (*Attention, error) {
	if err := errors.Join(m.CheckAttention(layer), ctx.Err()); err != nil {
		return nil, err
	}
	q, v := *m.Spec.QFormer, *m.Spec.Vision
	layers, err := crossLayers(q, layer)
	if err != nil {
		return nil, err
	}
	in := tensors.FromFlatDataAndDimensions(pixels, 1, 3, m.ImageSize(), m.ImageSize())
	defer in.MustFinalizeAll()
	exec := mesh.NewExec(backend, m.store, "attention", func(scope *mlx.Scope, in []*Node) []*Node {
		features := vit.Forward(scope.At("visual_encoder"), v, nn.Cast(in[0], activations))
		features = nn.LayerNorm(scope.At("ln_vision"), features, m.Spec.LNVisionEps)
		maps := map[int]*Node{}
		out := qformer.Forward(scope, q, qformer.Input{
			Queries: qformer.Queries(scope, q, in[0].Graph(), 1, activations), Cross: qformer.NewCross(scope, q, features),
			Seen: func(layer int, probs *Node) { maps[layer] = probs },
		}, nil)
		var sum *Node
		for _, i := range layers {
			if sum == nil {
				sum = maps[i]
			} else {
				sum = Add(sum, maps[i])
			}
		}
		// The hidden states are there for the Go backend, which fails on a graph whose last operations are cut off.
		return []*Node{DivScalar(sum, float64(len(layers))), nn.Float32(out.Hidden)}
	})
	defer exec.Close()
	out, err := exec.Run(in)
	if err != nil {
		return nil, fmt.Errorf("computing the attention: %w", err)
	}
	defer out[0].MustFinalizeAll()
	defer out[1].MustFinalizeAll()
	values, err := tensors.CopyFlatData[float32](out[0])
	if err != nil {
		return nil, err
	}
	a := &Attention{Grid: v.ImageSize / v.PatchSize, Layers: layers}
	tokens := a.Grid*a.Grid + 1
	for row := range q.Queries {
		a.CLS = append(a.CLS, values[row*tokens])
		a.Maps = append(a.Maps, values[row*tokens+1:][:tokens-1])
	}
	return a, nil
}

// Mean is the mean of all queries' maps.
func (a *Attention) Mean() []float32 {
	mean := make([]float32, a.Grid*a.Grid)
	for _, m := range a.Maps {
		for i, p := range m {
			mean[i] += p / float32(len(a.Maps))
		}
	}
	return mean
}
