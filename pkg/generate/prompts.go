package generate

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"
)

// Continue is Generate for a network that is given words to begin with: prompts of at least one token each. Prefill
// gets them behind the other inputs, as ids and mask [rows, L] with padding on the left. No text, prompt and new
// tokens together, may become longer than the positions of the network; the last token, which it never reads, needs
// none.
func (p *CachedProgram) Continue(ctx context.Context, inputs []*tensors.Tensor, prompts [][]int32, positions int,
	o Options) ([][]Text, error) {
	longest := 0
	for i, prompt := range prompts {
		if len(prompt) == 0 {
			return nil, fmt.Errorf("prompt %d has no tokens", i)
		}
		longest = max(longest, len(prompt))
	}
	if longest-1 > positions-o.MaxNewTokens {
		return nil, fmt.Errorf("a prompt of %d and %d new tokens are more than the %d that the model knows", longest,
			o.MaxNewTokens, positions)
	}
	length := bucket(longest)
	ids, mask := make([]int32, len(prompts)*length), make([]int32, len(prompts)*length)
	for i, prompt := range prompts {
		at := (i+1)*length - len(prompt)
		copy(ids[at:], prompt)
		for k := range prompt {
			mask[at+k] = 1
		}
	}
	words := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ids, len(prompts), length),
		tensors.FromFlatDataAndDimensions(mask, len(prompts), length)}
	defer func() {
		for _, t := range words {
			t.MustFinalizeAll()
		}
	}()
	return p.Generate(ctx, append(inputs[:len(inputs):len(inputs)], words...), prompts, o)
}

// smallestBucket is the shortest length that programs are compiled for.
const smallestBucket = 8

// bucket rounds a length up, so that programs are compiled for few lengths: to a power of two.
func bucket(length int) int {
	size := smallestBucket
	for size < length {
		size *= 2
	}
	return size
}
