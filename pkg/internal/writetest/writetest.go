// Package writetest checks that a captioner with a cache writes what it writes without one.
package writetest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/internal/recompute"
)

// Captioner is a network with and without a cache.
type Captioner struct {
	Store *mlx.Store
	// Prefill and Advance are the programs with a cache; Prefill's inputs are the pictures and the prompts' ids and mask.
	Prefill generate.Prefill
	Advance generate.Advance
	// Whole computes the logits [texts, L, V] of whole texts, ids and mask [texts, L] with padding on the right; text i is
	// about picture rows[i].
	Whole func(scope *mlx.Scope, pictures, rows, ids, mask *Node) *Node
	// Pictures is what the network reads of pictures; the first axis numbers them.
	Pictures *tensors.Tensor
	// BOS is what prompts begin with, EOS ends a text. Both are below Vocab.
	BOS, EOS int32
	Vocab    int
	// Positions are those of a text.
	Positions int
}

// options are the ways to write, by name. All leave the prompts of the test room among 9 positions.
func options(eos int32) map[string]generate.Options {
	drawn := func(s generate.Sampling) *generate.Sampling { s.Seed = 3; return &s }
	all := map[string]generate.Options{
		"greedy":           {},
		"greedy, at least": {MinNewTokens: 4, RepetitionPenalty: 1.6, NoRepeatNGram: 2},
		"beams":            {Beams: 3, Return: 3, LengthPenalty: 1},
		"beams, early":     {Beams: 4, Return: 2, LengthPenalty: -1, EarlyStopping: true},
		"beams, paper": {Beams: 3, Return: 2, LengthPenalty: 2, LenRule: generate.LenRulePaper, MinNewTokens: 2,
			RepetitionPenalty: 1.3},
		"nucleus":     {Return: 4, Sampling: drawn(generate.Sampling{TopK: 9, TopP: 0.9}), RepetitionPenalty: 1.1},
		"temperature": {Return: 2, Sampling: drawn(generate.Sampling{Temperature: 1.7})},
		"drawn beams": {Beams: 3, Return: 3, Sampling: drawn(generate.Sampling{TopP: 0.95, Temperature: 1.5})},
	}
	for name, o := range all {
		o.MaxNewTokens, o.EOS = 6, eos
		all[name] = o
	}
	return all
}

// Check compares all ways to write, for prompts of equal and of different length. names, if there are any, choose among
// the ways.
func Check(t *testing.T, backend compute.Backend, c Captioner, names ...string) {
	t.Helper()
	program, err := generate.NewCachedProgram(backend, c.Store, c.Prefill, c.Advance)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(program.Close)
	whole, err := mlx.NewExec(backend, c.Store, func(scope *mlx.Scope, in []*Node) *Node {
		return c.Whole(scope, in[0], in[1], in[2], in[3])
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(whole.Finalize)
	prompts := make([][]int32, c.Pictures.Shape().Dimensions[0])
	for i := range prompts {
		prompts[i] = []int32{c.BOS}
	}
	ended := map[bool]int{}
	for name, o := range options(c.EOS) {
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		compare(t, name+", no prompts", c, program, whole, prompts, o, ended)
		longer := slices.Clone(prompts)
		for i := range longer {
			for k := range i % 3 {
				longer[i] = append(longer[i][:1+k:1+k], int32(4+i+k)%int32(c.Vocab))
			}
		}
		compare(t, name+", prompts", c, program, whole, longer, o, ended)
	}
	if len(names) == 0 && (ended[true] == 0 || ended[false] == 0) {
		t.Errorf("%d texts ended and %d did not: the comparison says little", ended[true], ended[false])
	}
}

// tolerance is that of sums of log-probabilities. One token of another text in sight moves them by more.
const tolerance = 2e-5

// compare compares the texts of one search and counts those that ended.
func compare(t *testing.T, name string, c Captioner, program *generate.CachedProgram, whole *mlx.Exec,
	prompts [][]int32, o generate.Options, ended map[bool]int) {
	t.Helper()
	got, err := program.Continue(t.Context(), []*tensors.Tensor{c.Pictures}, prompts, c.Positions, o)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	places := len(prompts) * o.Width()
	want, err := generate.Generate(t.Context(), &recompute.Model{Prompts: prompts,
		Logits: func(rows []int32, texts [][]int32) ([]float32, error) { return c.logits(whole, rows, texts, places) }},
		prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	for r := range want {
		for i, text := range want[r] {
			ended[text.Ended]++
			if !slices.Equal(got[r][i].Tokens, text.Tokens) || math.Abs(got[r][i].LogProb-text.LogProb) > tolerance ||
				math.Abs(got[r][i].Score-text.Score) > tolerance {
				t.Errorf("%s, picture %d, text %d: %s, want %s", name, r, i, show(got[r][i]), show(text))
			}
		}
	}
}

func show(t generate.Text) string { return fmt.Sprintf("%v %.5f %.5f", t.Tokens, t.LogProb, t.Score) }

// logits computes what follows each text from all of it. One program serves all lengths.
func (c Captioner) logits(whole *mlx.Exec, rows []int32, texts [][]int32, places int) ([]float32, error) {
	ids, mask, picture := make([]int32, places*c.Positions), make([]int32, places*c.Positions), make([]int32, places)
	for i := range places {
		text := texts[min(i, len(texts)-1)]
		copy(ids[i*c.Positions:], text)
		for k := range text {
			mask[i*c.Positions+k] = 1
		}
		picture[i] = rows[min(i, len(rows)-1)]
	}
	out, err := whole.Call1(c.Pictures, tensors.FromFlatDataAndDimensions(picture, places),
		tensors.FromFlatDataAndDimensions(ids, places, c.Positions),
		tensors.FromFlatDataAndDimensions(mask, places, c.Positions))
	if err != nil {
		return nil, err
	}
	all, err := tensors.CopyFlatData[float32](out)
	var next []float32
	for i, text := range texts {
		next = append(next, all[(i*c.Positions+len(text)-1)*c.Vocab:][:c.Vocab]...)
	}
	return next, err
}
