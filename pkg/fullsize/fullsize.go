// Package fullsize measures networks at the sizes at which they were published: how fast their weights load, how much
// memory that takes, and how fast they compute, in inference.
//
// A Network is one of them by name. Write makes a checkpoint of random numbers of its sizes, Run loads a checkpoint as
// any other is loaded and runs the network's passes. What a pass computes is the model packages' business; here is
// which inputs it gets and what of it is looked at (networks.go).
package fullsize

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// Network is a network of published size with the passes that are measured.
type Network struct {
	Name string
	// DType is the type in which weights are kept and products computed unless another is asked for: BF16 for networks
	// of more than a billion parameters.
	DType weights.DType
	// Tokens is the usual length of the texts it reads; 0: it reads none.
	Tokens int
	// MaxTokens is the greatest length that it takes.
	MaxTokens int

	part   pretrained.Part
	passes func(s Sizes) []pass
	writes func(s Sizes) writer // nil: it writes no texts
	prompt int                  // usual number of tokens in front of what it writes
}

// Sizes are those of the inputs.
type Sizes struct {
	Batch   int          // pictures, texts or both
	Tokens  int          // per text
	Compute dtypes.DType // of activations
}

// pass is one program of a network. Its results are copied to the host, what it hands on stays on the device.
type pass struct {
	name string
	// inputs makes the tensors that come from the host.
	inputs func(r *random) []*tensors.Tensor
	// build computes from the inputs, and from what the pass before handed on, a result in float32 and what it hands on.
	build func(scope *mlx.Scope, in, past []*Node) (result *Node, next []*Node)
	// flops are those of its matrix products, for the whole batch.
	flops float64
	// step says that it computes one token per text, where reading the weights takes most of the time. lookups are
	// patterns of tables of which it reads but a few rows.
	step    bool
	lookups []string
}

// Params lists the network's tensors.
func (n Network) Params() []model.Param { return n.part.Params }

// Bytes is the size of the network's tensors in one type.
func (n Network) Bytes(dtype weights.DType) int64 {
	return int64(model.Count(n.Params()) * dtype.Size())
}

// maxBatch bounds what is computed at once, pictures or texts, beyond what any device holds.
const maxBatch = 65536

// Validate reports sizes that the network does not take.
func (n Network) Validate(s Sizes) error {
	switch {
	case s.Batch < 1:
		return fmt.Errorf("a batch of %d: at least 1 is needed", s.Batch)
	case s.Batch > maxBatch:
		return fmt.Errorf("a batch of %d: at most %d are measured", s.Batch, maxBatch)
	case n.Tokens == 0 && s.Tokens != 0:
		return fmt.Errorf("%s reads no text, so there are no tokens to count", n.Name)
	case n.Tokens != 0 && (s.Tokens < 1 || s.Tokens > n.MaxTokens):
		return fmt.Errorf("%s takes texts of 1 to %d tokens, not %d", n.Name, n.MaxTokens, s.Tokens)
	}
	return nil
}

// Names lists the networks that Find knows, sorted.
func Names() []string { return slices.Sorted(maps.Keys(networks())) }

// Find returns the network of that name.
func Find(name string) (Network, error) {
	build, ok := networks()[name]
	if !ok {
		return Network{}, fmt.Errorf("no network is called %q", name)
	}
	n, err := build()
	return n.Named(name), err
}

// Named returns the network under a name and with its usual type.
func (n Network) Named(name string) Network {
	n.Name, n.DType = name, weights.F32
	if model.Count(n.Params()) > bigNetwork {
		n.DType = weights.BF16
	}
	return n
}

// bigNetwork is the number of parameters from which on 16 bits are the usual choice.
const bigNetwork = 1_000_000_000

// tablesOf returns all ways to name a whole checkpoint of a network.
func tablesOf(network string) []naming.Table {
	m, _ := naming.Find(network)
	var tables []naming.Table
	for _, publisher := range slices.Sorted(maps.Keys(m.Tables)) {
		tables = append(tables, m.Tables[publisher])
	}
	return tables
}
