package stage2

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/published"
)

// tiny are specifications of small models with OPT, with opt-350m's kind of OPT, and with T5.
func tiny() map[string]published.Spec {
	spec := func(model string) published.Spec {
		return published.Spec{Model: model, LNVisionEps: 1e-5,
			Vision: &vit.Config{Arch: vit.EVA, ImageSize: 28, PatchSize: 14, Width: 8, Layers: 1, Heads: 2, MLPRatio: 2,
				LayerNormEps: 1e-6},
			QFormer: &qformer.Config{Hidden: 8, Layers: 2, Heads: 2, Intermediate: 12, Queries: 3, CrossAttentionFreq: 2,
				EncoderWidth: 8, LayerNormEps: 1e-12, Dropout: 0.1}}
	}
	withOPT, narrow, withT5 := spec(naming.BLIP2OPT), spec(naming.BLIP2OPT), spec(naming.BLIP2T5)
	withOPT.OPT = &opt.Config{Vocab: 17, Hidden: 12, Layers: 2, Heads: 3, FFN: 16, Positions: 24, LayerNormEps: 1e-5}
	withOPT.LLMWidth = 12
	narrow.OPT = &opt.Config{Vocab: 17, Hidden: 12, Layers: 2, Heads: 3, FFN: 16, Positions: 24, LayerNormEps: 1e-5,
		EmbedDim: 10, PostNorm: true}
	narrow.LLMWidth = 10
	withT5.T5 = &t5.Config{Vocab: 17, Hidden: 12, HeadDim: 4, Heads: 2, FFN: 16, EncoderLayers: 2, DecoderLayers: 2,
		Activation: nn.GELU, Buckets: 8, MaxDistance: 16, RMSNormEps: 1e-6}
	withT5.LLMWidth = 12
	return map[string]published.Spec{"OPT": withOPT, "narrow OPT": narrow, "T5": withT5}
}

// prompts of different length, special tokens included.
var prompts = [][]int32{{2, 5, 7}, {2}, {2, 9, 4, 11, 3}}

const pictureSize = 3 * 28 * 28

// pictures makes the pixels of n pictures from the given one on.
func pictures(first, n int) *tensors.Tensor {
	var values []float32
	for i := range n {
		values = append(values, graphtest.Normals(uint64(100+first+i), pictureSize, 1)...)
	}
	return tensors.FromFlatDataAndDimensions(values, n, 3, 28, 28)
}

// tested is a small model on a backend.
type tested struct {
	cfg     Config
	store   *mlx.Store
	backend compute.Backend
	*Generator
}

func newModel(t *testing.T, spec published.Spec) tested {
	t.Helper()
	cfg, err := NewConfig(spec)
	if err != nil {
		t.Fatal(err)
	}
	store := graphtest.Store(t, spec.Params(), 2)
	backend := graphtest.Open(t, "go")
	g, err := NewGenerator(backend, store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return tested{cfg, store, backend, g}
}

// plain is a generate.Model that computes every text from its first token, alone and without padding.
type plain struct {
	t     *testing.T
	m     tested
	rows  []int
	texts [][]int32
}

func (p *plain) Start(context.Context) ([]float32, error) {
	for row := range prompts {
		p.rows, p.texts = append(p.rows, row), append(p.texts, nil)
	}
	return p.logits(), nil
}

func (p *plain) Step(_ context.Context, parents []int, tokens []int32) ([]float32, error) {
	rows, texts := make([]int, len(parents)), make([][]int32, len(parents))
	for i, parent := range parents {
		rows[i], texts[i] = p.rows[parent], append(slices.Clone(p.texts[parent]), tokens[i])
	}
	p.rows, p.texts = rows, texts
	return p.logits(), nil
}

// logits of the texts' next tokens.
func (p *plain) logits() []float32 {
	var out []float32
	for i, text := range p.texts {
		out = append(out, p.m.nextLogits(p.t, p.rows[i], text)...)
	}
	return out
}

// nextLogits are those of the token behind a text, by the functions for whole sequences.
func (m tested) nextLogits(t *testing.T, row int, text []int32) []float32 {
	t.Helper()
	cfg, first := m.cfg, prompts[row]
	if cfg.OPT != nil {
		first = slices.Concat(first, text)
	}
	answer := append([]int32{t5.StartID}, text...)
	ones := tensors.FromFlatDataAndDimensions(slices.Repeat([]int32{1}, len(first)), 1, len(first))
	all := graphtest.Run(t, m.backend, m.store, func(scope *mlx.Scope, in []*Node) []*Node {
		embeds, mask := Prefix(scope, cfg, QueryEmbeds(scope, cfg, in[0]), in[1], in[2])
		if cfg.OPT != nil {
			return []*Node{OPTLogits(scope, cfg, embeds, mask)}
		}
		return []*Node{T5Logits(scope, cfg, T5Encode(scope, cfg, embeds, mask), mask, in[3])}
	}, pictures(row, 1), tensors.FromFlatDataAndDimensions(first, 1, len(first)), ones,
		tensors.FromFlatDataAndDimensions(answer, 1, len(answer)))[0]
	return all[len(all)-17:]
}

// TestGenerate: the texts are those of a search that keeps nothing and computes every text alone, and so are those of a
// batch whose prompts are of different length.
func TestGenerate(t *testing.T) {
	for name, spec := range tiny() {
		m := newModel(t, spec)
		for _, o := range []generate.Options{{MaxNewTokens: 6, EOS: 3, RepetitionPenalty: 1.5, NoRepeatNGram: 1},
			{MaxNewTokens: 5, MinNewTokens: 3, EOS: 3, Beams: 3, Return: 2, NoRepeatNGram: 1}} {
			seen := make([][]int32, len(prompts))
			if m.cfg.T5 != nil {
				seen = slices.Repeat([][]int32{{t5.StartID}}, len(prompts))
			}
			want, err := generate.Generate(t.Context(), &plain{t: t, m: m}, seen, o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Generate(t.Context(), pictures(0, len(prompts)), m.cfg.NewPrompts(prompts), o)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameTexts(t, fmt.Sprintf("%s with %d beams", name, o.Beams), got, want)
			for row, prompt := range prompts {
				alone, err := m.Generate(t.Context(), pictures(row, 1), m.cfg.NewPrompts([][]int32{prompt}), o)
				if err != nil {
					t.Fatal(err)
				}
				sameTexts(t, fmt.Sprintf("%s, prompt %d alone", name, row), alone, want[row:row+1])
			}
			if slices.Equal(want[0][0].Tokens, want[2][0].Tokens) {
				t.Errorf("%s: two pictures and prompts give the same text %v: the test tells nothing", name, want[0][0].Tokens)
			}
		}
	}
}

// sameTexts compares tokens and, to 1e-3, scores.
func sameTexts(t *testing.T, what string, got, want [][]generate.Text) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for row := range want {
		for i, w := range want[row] {
			g := got[row][i]
			if !slices.Equal(g.Tokens, w.Tokens) || g.Ended != w.Ended || math.Abs(g.Score-w.Score) > 1e-3 {
				t.Errorf("%s: text %d of row %d is %+v, want %+v", what, i, row, g, w)
			}
		}
	}
}

// TestPrompts: OPT's padding stands on the left, T5's on the right.
func TestPrompts(t *testing.T) {
	for name, want := range map[string]Prompts{
		"OPT": {2, 3, []int32{1, 1, 2, 2, 5, 7}, []int32{0, 0, 1, 1, 1, 1}},
		"T5":  {2, 3, []int32{2, 0, 0, 2, 5, 7}, []int32{1, 0, 0, 1, 1, 1}},
	} {
		cfg, err := NewConfig(tiny()[name])
		if err != nil {
			t.Fatal(err)
		}
		got := cfg.NewPrompts([][]int32{{2}, {2, 5, 7}})
		if got.Rows != want.Rows || got.Length != want.Length || !slices.Equal(got.IDs, want.IDs) || !slices.Equal(got.Mask,
			want.Mask) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestGenerateRefuses what cannot be.
func TestGenerateRefuses(t *testing.T) {
	m := newModel(t, tiny()["OPT"])
	two := m.cfg.NewPrompts(prompts[:2])
	for want, f := range map[string]func() error{
		"1 pictures and 2 prompts": func() error {
			_, err := m.Generate(t.Context(), pictures(0, 1), two, generate.Options{MaxNewTokens: 1})
			return err
		},
		"more than OPT's 24 positions": func() error {
			_, err := m.Generate(t.Context(), pictures(0, 2), two, generate.Options{MaxNewTokens: 19})
			return err
		},
		"prompt 1 has no tokens": func() error {
			_, err := m.Generate(t.Context(), pictures(0, 2), m.cfg.NewPrompts([][]int32{{2}, {}}),
				generate.Options{MaxNewTokens: 1})
			return err
		},
		"prompt 0 has no tokens": func() error {
			_, err := m.Generate(t.Context(), pictures(0, 1), m.cfg.NewPrompts([][]int32{{}}), generate.Options{MaxNewTokens: 1})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	if _, err := m.Generate(t.Context(), pictures(0, 2), two, generate.Options{MaxNewTokens: 18, EOS: 3}); err != nil {
		t.Errorf("as long as can be: %v", err)
	}
}

// TestConfig reports what is missing or does not fit.
func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*published.Spec){
		"lacks the image encoder":                     func(s *published.Spec) { s.Vision = nil },
		"lacks the image encoder and the Q-Former":    func(s *published.Spec) { s.Vision, s.QFormer = nil, nil },
		"lacks the language model":                    func(s *published.Spec) { s.OPT = nil },
		"one language model":                          func(s *published.Spec) { s.T5 = tiny()["T5"].T5 },
		"encoder width 8 is not the vision width 16":  func(s *published.Spec) { s.Vision.Width = 16 },
		"vision width 8 is not divisible by 3 heads":  func(s *published.Spec) { s.Vision.Heads = 3 },
		"qformer hidden size 8 is not divisible by 3": func(s *published.Spec) { s.QFormer.Heads = 3 },
		"OPT: hidden size 12 is not divisible by 5":   func(s *published.Spec) { s.OPT.Heads = 5 },
	} {
		s := tiny()["OPT"]
		change(&s)
		if _, err := NewConfig(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	s := tiny()["T5"]
	s.T5.Heads = 0
	if _, err := NewConfig(s); err == nil || !strings.Contains(err.Error(), "T5") {
		t.Errorf("T5 without heads: error %v", err)
	}
	for name, width := range map[string]int{"OPT": 12, "narrow OPT": 10, "T5": 12} {
		cfg, err := NewConfig(tiny()[name])
		if err != nil || cfg.Width() != width || cfg.QFormer.Dropout != 0 || !cfg.FreezeVision {
			t.Errorf("%s: %+v, error %v", name, cfg, err)
		}
	}
}

// TestBucket: prompts get few lengths, and never more than the model has room for.
func TestBucket(t *testing.T) {
	for _, tt := range []struct{ length, limit, want int }{{1, 99, 8}, {8, 99, 8}, {9, 99, 16}, {33, 99, 48}, {50, 60, 60},
		{128, 999, 128}, {129, 999, 256}, {257, 999, 384}, {300, 310, 310}, {7, 7, 7}} {
		if got := bucket(tt.length, tt.limit); got != tt.want {
			t.Errorf("%d tokens with room for %d are padded to %d, want %d", tt.length, tt.limit, got, tt.want)
		}
	}
}

// TestPaddingChangesNothing: prompts padded to other lengths give the same texts and, to rounding, scores, under both
// length rules and with penalties that see prompts. Prompts of many lengths are compiled for few.
func TestPaddingChangesNothing(t *testing.T) {
	defer func(before []int) { promptBuckets = before }(promptBuckets)
	for name, spec := range tiny() {
		m := newModel(t, spec)
		queries, err := m.Encode(t.Context(), pictures(0, len(prompts)))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []generate.Options{{MaxNewTokens: 5, EOS: 3, RepetitionPenalty: 1.5},
			{MaxNewTokens: 5, EOS: 3, Beams: 3, Return: 3, RepetitionPenalty: 1.4, LengthPenalty: -1,
				LenRule: generate.LenRulePaper}} {
			var want [][]generate.Text
			for _, buckets := range [][]int{{1, 2, 3, 4, 5}, {8}, {11}} {
				promptBuckets = buckets
				got, err := m.Write(t.Context(), queries, m.cfg.NewPrompts(prompts), o)
				if err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want = got
				}
				sameTexts(t, fmt.Sprintf("%s, padded to %d", name, buckets[0]), got, want)
			}
		}
	}
}

// TestEncodeOnce: pictures are encoded once for several prompts, and a picture's place in the batch does not matter.
func TestEncodeOnce(t *testing.T) {
	m := newModel(t, tiny()["OPT"])
	o := generate.Options{MaxNewTokens: 4, EOS: 3}
	queries, err := m.Encode(t.Context(), pictures(0, 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][][]int32{{{2, 5}, {2, 7}}, {{2, 9, 4}, {2}}} {
		got, err := m.Write(t.Context(), queries, m.cfg.NewPrompts(pair), o)
		if err != nil {
			t.Fatal(err)
		}
		want, err := m.Generate(t.Context(), pictures(0, 2), m.cfg.NewPrompts(pair), o)
		if err != nil {
			t.Fatal(err)
		}
		sameTexts(t, fmt.Sprint(pair), got, want)
	}
	if stats := m.Stats(); stats.Compilations != 2 {
		t.Errorf("%d programs, want one for prompts and one for steps", stats.Compilations)
	}
}
