// Package similarity computes the scores of pictures and texts from their features (spec/evaluation.md 4).
package similarity

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Features are those of M pictures and T texts.
type Features struct {
	Images []float32 // [M, Q, E]: Q features per picture
	Texts  []float32 // [T, E]
	Width  int       // E
	Query  int       // Q
}

// blockValues bounds the scores [block, Q, T] that are on the device at a time: 64 MB.
const blockValues = 16 << 20

// Compute returns the scores [M][T]: for every picture and text the greatest product over the picture's Q features. The
// features are taken as they are; cosines come out if they have length 1.
func Compute(ctx context.Context, backend compute.Backend, f Features) ([][]float32, error) {
	q, e := f.Query, f.Width
	if q < 1 || e < 1 || len(f.Images)%(q*e) != 0 || len(f.Texts)%e != 0 || len(f.Images) == 0 || len(f.Texts) == 0 {
		return nil, fmt.Errorf("%d values of pictures and %d of texts are not features [M, %d, %d] and [T, %d]",
			len(f.Images), len(f.Texts), q, e, e)
	}
	m, t := len(f.Images)/(q*e), len(f.Texts)/e
	exec, err := NewExec(backend, score)
	if err != nil {
		return nil, fmt.Errorf("preparing the scores: %w", err)
	}
	defer exec.Finalize()
	block := max(1, min(m, blockValues/(q*t)))
	images, texts := make([]float32, block*q*e), tensors.FromFlatDataAndDimensions(f.Texts, t, e)
	defer texts.MustFinalizeAll()
	scores := make([][]float32, 0, m)
	for lo := 0; lo < m; lo += block {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(block, m-lo)
		clear(images[copy(images, f.Images[lo*q*e:(lo+n)*q*e]):]) // the last block is padded: one program serves all
		rows, err := call(exec, tensors.FromFlatDataAndDimensions(images, block, q, e), texts)
		if err != nil {
			return nil, fmt.Errorf("scores of pictures %d to %d: %w", lo, lo+n-1, err)
		}
		for i := range n {
			scores = append(scores, rows[i*t:(i+1)*t])
		}
	}
	return scores, nil
}

// score is the graph: pictures [B, Q, E] and texts [T, E] give [B, T].
func score(images, texts *Node) *Node {
	// b picture, q query, e feature, t text
	return ReduceMax(Einsum("bqe,te->bqt", images, texts), 1)
}

// call runs the program and brings the scores [B·T] to the host. It frees the pictures.
func call(exec *Exec, images, texts *tensors.Tensor) ([]float32, error) {
	out, err := exec.Call(images, texts)
	images.MustFinalizeAll()
	if err != nil {
		return nil, err
	}
	defer out[0].MustFinalizeAll()
	return tensors.CopyFlatData[float32](out[0])
}
