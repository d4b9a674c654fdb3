package fullsize

import (
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/weights"
)

// TestGenerate measures small language models: times are there, the cache has the size that is computed, every text
// gets its tokens, and a checkpoint gives the same text as the numbers that it was made of.
func TestGenerate(t *testing.T) {
	backend := graphtest.Open(t, "go")
	for _, name := range []string{"opt", "t5"} {
		o := GenerateOptions{Network: tiny()[name], DType: weights.F32, Beams: 3, NewTokens: 6, Warmup: 1, Runs: 2,
			Sizes: Sizes{Batch: 2, Tokens: 5, Compute: dtypes.Float32}}
		r, err := Generate(t.Context(), backend, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Text) != 6 || r.Seconds.Median <= 0 || r.FirstToken.Median <= 0 || r.NextToken.Median <= 0 || r.Early <= 0 ||
			r.Late <= 0 || r.TokensPerS <= 0 || r.WeightGBPerS <= 0 || r.ReadBytes <= 0 || r.ReadBytes >= r.WeightBytes {
			t.Errorf("%s: %+v", name, r)
		}
		if r.Compilations != 2 {
			t.Errorf("%s: %d programs compiled, want 2", name, r.Compilations)
		}
		// What texts see, positions, the prompt's mask and the length come on top.
		const columns = 6 + 3*8
		if over := r.CacheBytes - r.CacheComputed; over < 0 || over > 4*(2*5+6*columns+columns+1) || r.CacheTiled < r.CacheComputed {
			t.Errorf("%s: a cache of %d bytes, computed %d, tiled %d", name, r.CacheBytes, r.CacheComputed, r.CacheTiled)
		}
		o.Path = written(t, o.Network, Safetensors, weights.F32)
		again, err := Generate(t.Context(), backend, o)
		if err != nil {
			t.Fatal(err)
		}
		for i, token := range r.Text {
			if again.Text[i] != token {
				t.Errorf("%s: from a file %v, from memory %v", name, again.Text, r.Text)
				break
			}
		}
	}
}

// TestGenerateRefuses what cannot be measured.
func TestGenerateRefuses(t *testing.T) {
	good := GenerateOptions{Network: tiny()["opt"], Beams: 1, NewTokens: 2, Runs: 1, Sizes: Sizes{Batch: 1, Tokens: 4}}
	for want, change := range map[string]func(o *GenerateOptions){
		"no language model": func(o *GenerateOptions) { o.Network = tiny()["clip"] },
		"a batch of 0":      func(o *GenerateOptions) { o.Sizes.Batch = 0 },
		"1 new tokens":      func(o *GenerateOptions) { o.NewTokens = 1 },
		"0 beams":           func(o *GenerateOptions) { o.Beams = 0 },
		"0 runs after":      func(o *GenerateOptions) { o.Runs = 0 },
		"more than the 16":  func(o *GenerateOptions) { o.NewTokens = 13 },
		"texts of 1 to 15":  func(o *GenerateOptions) { o.Sizes.Tokens = 0 },
	} {
		o := good
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}
