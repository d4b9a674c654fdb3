package answer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
)

// Model is a checkpoint with its weights on a device. It is used by one goroutine at a time.
type Model struct {
	*Checkpoint
	store   *mlx.Store
	network network
	// Most pictures that were encoded and rows that were written at once: smaller batches are filled up to these, so
	// that the last one of many needs no programs of its own.
	pictures, rows int
}

// network is one of the networks that write.
type network interface {
	// encode turns pixels [B, 3, S, S] into what write needs of the pictures, float32 [B, ...].
	encode(ctx context.Context, pixels *tensors.Tensor) (*tensors.Tensor, error)
	// write continues the prompts, one for each of the encoded pictures.
	write(ctx context.Context, encoded *tensors.Tensor, prompts [][]int32, o generate.Options) ([][]generate.Text, error)
	stats() generate.Stats
	close()
}

// Load puts the weights on the backend's first device and prepares the programs; activations are of the given type. The
// caller closes the model, and may close the checkpoint before.
func (c *Checkpoint) Load(ctx context.Context, backend compute.Backend, activations dtypes.DType) (*Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &Model{Checkpoint: c, store: mlx.NewStore()}
	err := c.assembly.Fill(m.store, backend)
	if err == nil {
		m.network, err = c.newNetwork(backend, m.store, activations)
	}
	if err != nil {
		m.store.Finalize()
		return nil, fmt.Errorf("loading %s: %w", c.Source.Model, err)
	}
	return m, nil
}

// Close frees the programs and the weights.
func (m *Model) Close() {
	m.network.close()
	m.store.Finalize()
}

// Stats says what the programs that write have done.
func (m *Model) Stats() generate.Stats { return m.network.stats() }

// Picture is an encoded picture: all that texts need of it.
type Picture struct {
	values []float32
	shape  []int
}

// Encode encodes pictures, each planes [3, S, S] as Checkpoint.Pixels makes them.
func (m *Model) Encode(ctx context.Context, pixels ...[]float32) ([]Picture, error) {
	if len(pixels) == 0 {
		return nil, nil
	}
	rows, size := len(pixels), m.ImageSize()
	padded := slices.Clone(pixels)
	for len(padded) < m.pictures {
		padded = append(padded, pixels[0])
	}
	m.pictures = len(padded)
	for i, p := range pixels {
		if len(p) != 3*size*size {
			return nil, fmt.Errorf("picture %d has %d values, not 3·%d·%d", i, len(p), size, size)
		}
	}
	in := tensors.FromFlatDataAndDimensions(slices.Concat(padded...), len(padded), 3, size, size)
	defer in.MustFinalizeAll()
	encoded, err := m.network.encode(ctx, in)
	if err != nil {
		return nil, err
	}
	defer encoded.MustFinalizeAll()
	values, err := tensors.CopyFlatData[float32](encoded)
	if err != nil {
		return nil, err
	}
	shape := encoded.Shape().Dimensions[1:]
	each := len(values) / len(padded)
	out := make([]Picture, rows)
	for i := range out {
		out[i] = Picture{values: values[i*each:][:each:each], shape: shape}
	}
	return out, nil
}

// Request asks for texts about a picture.
type Request struct {
	Picture Picture
	Prompt  string
	// Key names the request for random numbers: what is drawn for it depends on the seed and its key, not on the batch.
	Key int64
}

// Text is what was written.
type Text struct {
	Text    string  `json:"text"` // without special tokens and spaces around it
	Tokens  []int32 `json:"tokens"`
	Ended   bool    `json:"ended"`    // by the token that ends texts, and not by the greatest length
	LogProb float64 `json:"log_prob"` // sum of the tokens' log-probabilities; 0 with one beam
	Score   float64 `json:"score"`    // what texts are ranked by; 0 with one beam
}

// Options say how a batch is written.
type Options struct {
	generate.Options // EOS is set by the model; Sampling.Keys by the requests
	// Cut is the greatest number of tokens of a prompt, longer ones being cut on the right; 0 means that none is cut.
	Cut int
}

// Write writes the texts of a batch, for each request the best first.
func (m *Model) Write(ctx context.Context, requests []Request, o Options) ([][]Text, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	rows := len(requests)
	padded := slices.Clone(requests)
	for len(padded) < m.rows {
		padded = append(padded, requests[0])
	}
	m.rows = len(padded)
	prompts, keys := make([][]int32, len(padded)), make([]int64, len(padded))
	var values []float32
	for i, r := range padded {
		var err error
		if prompts[i], err = m.tokens(r.Prompt, o.Cut, o.MaxNewTokens); err != nil {
			return nil, err
		}
		keys[i] = r.Key
		values = append(values, r.Picture.values...)
	}
	search := o.Options
	search.EOS = m.EOS
	if search.Sampling != nil {
		drawn := *search.Sampling
		drawn.Keys = keys
		search.Sampling = &drawn
	}
	if watch := search.Watch; watch != nil {
		search.Watch = func(n int, tokens []generate.Token) {
			watch(n, slices.DeleteFunc(tokens, func(t generate.Token) bool { return t.Row >= rows }))
		}
	}
	encoded := tensors.FromFlatDataAndDimensions(values, append([]int{len(padded)}, requests[0].Picture.shape...)...)
	defer encoded.MustFinalizeAll()
	written, err := m.network.write(ctx, encoded, prompts, search)
	if err != nil {
		return nil, err
	}
	out := make([][]Text, rows)
	for i := range out {
		for _, t := range written[i] {
			out[i] = append(out[i], Text{m.Decode(t.Tokens), t.Tokens, t.Ended, t.LogProb, t.Score})
		}
	}
	return out, nil
}

// Decode turns tokens into the text that a reader sees.
func (c *Checkpoint) Decode(tokens []int32) string {
	return strings.TrimSpace(c.Tokenizer.Decode(tokens, true))
}
