package generate

import (
	"context"
	"errors"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"

	"blip2/pkg/internal/recompute"
)

// logProbs are the log-probabilities of a text's next token after penalties, in double precision.
func logProbs(logits []float32, seen []int32, o Options, n int) []float64 {
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	out := make([]float64, len(logits))
	for i, v := range logits {
		out[i] = float64(v) - math.Log(sum)
		if o.RepetitionPenalty != 0 && slices.Contains(seen, int32(i)) {
			out[i] *= o.RepetitionPenalty
		}
	}
	if n <= o.MinNewTokens {
		out[o.EOS] = math.Inf(-1)
	}
	return out
}

// path is a text of the naive search.
type path struct {
	tokens     []int32
	sum, score float64
}

// naive is beam search in one row written down from the rules of both versions, with lists and sorting.
func naive(c *chain, row int, prompt []int32, o Options) []Text {
	paper := o.LenRule == LenRulePaper
	running, pool := []path{{}}, []path{}
	divide := func(sum float64, length int) float64 { return sum / math.Pow(float64(length), o.LengthPenalty) }
	enter := func(p path, length int) {
		p.score = divide(p.sum, length)
		pool = append(pool, p)
		sort.SliceStable(pool, func(i, j int) bool { return pool[i].score > pool[j].score })
		pool = pool[:min(len(pool), o.Beams)]
	}
	done := false
	for n := 1; n <= o.MaxNewTokens && !done; n++ {
		var all []path
		for _, p := range running {
			seen := append(append([]int32{}, prompt...), p.tokens...)
			for token, lp := range logProbs(c.next(row, p.tokens), seen, o, n) {
				all = append(all, path{tokens: append(append([]int32{}, p.tokens...), int32(token)), sum: p.sum + lp})
			}
		}
		sort.SliceStable(all, func(i, j int) bool { return all[i].sum > all[j].sum })
		all = all[:min(len(all), 2*o.Beams)]
		var next []path
		for rank, p := range all {
			ends := p.tokens[n-1] == o.EOS
			length := n
			if paper {
				length = len(prompt) + n - 1
			}
			if rank < o.Beams && (ends || n == o.MaxNewTokens && !paper) {
				enter(p, length)
			}
			if !ends && len(next) < o.Beams {
				next = append(next, p)
			}
		}
		running = next
		best, length := next[0].sum, n
		if paper {
			best, length = all[0].sum, len(prompt)+n-1
		}
		done = len(pool) == o.Beams && (o.EarlyStopping || pool[o.Beams-1].score >= divide(best, length))
	}
	if paper && !done {
		for _, p := range running {
			enter(p, len(prompt)+o.MaxNewTokens)
		}
	}
	var out []Text
	for _, p := range pool[:o.Return] {
		out = append(out, Text{Tokens: p.tokens, Ended: p.tokens[len(p.tokens)-1] == o.EOS, LogProb: p.sum, Score: p.score})
	}
	return out
}

// TestBeamsFollowTheRules compares the search with the naive one, over chains and options of all kinds.
func TestBeamsFollowTheRules(t *testing.T) {
	ended, cut, differ := 0, 0, 0
	for seed := range uint64(300) {
		o := Options{Beams: 2 + int(seed%4), MaxNewTokens: 1 + int(seed/3%8), EOS: int32(seed % 7),
			MinNewTokens: int(seed / 2 % 3), EarlyStopping: seed%5 == 0,
			LengthPenalty: []float64{-1, 0, 0.5, 1, 2}[seed/4%5], RepetitionPenalty: []float64{0, 1.3}[seed/5%2]}
		o.Return = 1 + int(seed)%o.Beams
		// More tokens than 2·K: each beam then has enough of its own.
		c := randomChain(seed, 2, 10, 12, 1.5)
		prompts := [][]int32{{3, 4, 3}, {5, 6, 0}}
		var tokens [2][][]int32
		for i, rule := range []LenRule{LenRuleCurrent, LenRulePaper} {
			o.LenRule = rule
			for row, got := range generated(t, c, prompts, o) {
				want := naive(c, row, prompts[row], o)
				if len(got) != len(want) {
					t.Fatalf("seed %d, %s: %d texts, want %d", seed, rule, len(got), len(want))
				}
				for k, text := range got {
					w := want[k]
					if !slices.Equal(text.Tokens, w.Tokens) || text.Ended != w.Ended ||
						math.Abs(text.LogProb-w.LogProb) > 1e-4 || math.Abs(text.Score-w.Score) > 1e-4 {
						t.Fatalf("seed %d, %s, row %d, options %+v:\ngot  %s\nwant %s", seed, rule, row, o, show(got), show(want))
					}
					tokens[i] = append(tokens[i], text.Tokens)
					if text.Ended {
						ended++
					} else {
						cut++
					}
				}
			}
		}
		if !slices.EqualFunc(tokens[0], tokens[1], slices.Equal[[]int32]) {
			differ++
		}
	}
	if ended < 300 || cut < 300 || differ < 30 {
		t.Errorf("%d texts ended, %d were cut off, the rules differ in %d of 300: the comparison says little",
			ended, cut, differ)
	}
}

// TestExhaustive: with as many beams as there are texts, the best text of all is found.
func TestExhaustive(t *testing.T) {
	const vocab, length = 3, 3
	for seed := range uint64(20) {
		c := randomChain(seed, 1, length, vocab+1, 2)
		for _, table := range c.logits[0] {
			for _, line := range table {
				line[vocab] = -1e4 // a token that never comes stands for EOS
			}
		}
		var best path
		best.sum = math.Inf(-1)
		var walk func(p path)
		walk = func(p path) {
			if len(p.tokens) == length {
				if p.sum > best.sum {
					best = p
				}
				return
			}
			for token, lp := range logProbs(c.next(0, p.tokens), nil, Options{}, 1) {
				walk(path{tokens: append(append([]int32{}, p.tokens...), int32(token)), sum: p.sum + lp})
			}
		}
		walk(path{})
		got := generated(t, c, c.prompts(), Options{Beams: 27, MaxNewTokens: length, EOS: vocab})[0][0]
		if !slices.Equal(got.Tokens, best.tokens) || math.Abs(got.LogProb-best.sum) > 1e-5 {
			t.Errorf("seed %d: %v (%g), the best of all is %v (%g)", seed, got.Tokens, got.LogProb, best.tokens, best.sum)
		}
	}
}

// TestGreedy: one beam takes the most likely token, the first among equals, until EOS or the greatest length.
func TestGreedy(t *testing.T) {
	c := fixed(9, []float64{0.1, 0.4, 0.1, 0.4}, []float64{0.1, 0.1, 0.7, 0.1}, []float64{0.2, 0.1, 0.1, 0.6}, nil)
	for _, w := range []struct {
		max    int
		min    int
		tokens []int32
		ended  bool
	}{
		{9, 0, []int32{1, 2, 3}, true},
		{9, 2, []int32{1, 2, 3}, true},
		{9, 3, []int32{1, 2, 0, 1, 2, 3}, true},
		{2, 0, []int32{1, 2}, false},
		{1, 0, []int32{1}, false},
	} {
		got := generated(t, c, c.prompts(), Options{MaxNewTokens: w.max, MinNewTokens: w.min, EOS: 3})[0]
		if len(got) != 1 || !slices.Equal(got[0].Tokens, w.tokens) || got[0].Ended != w.ended {
			t.Errorf("at most %d, at least %d: %s, want %v", w.max, w.min, show(got), w.tokens)
		}
		if c.steps != len(w.tokens)-1 {
			t.Errorf("%d steps for %d tokens", c.steps, len(w.tokens))
		}
	}
}

// TestLengthPenalty: a penalty above 0 prefers the long text, one below 0 the short one.
func TestLengthPenalty(t *testing.T) {
	c := fixed(3, []float64{0.001, 0.549, 0.45}, []float64{0.008, 0.99, 0.002}, nil)
	for penalty, want := range map[float64][]int32{-1: {2}, 0: {1, 1, 1}, 1: {1, 1, 1}} {
		got := generated(t, c, c.prompts(), Options{Beams: 2, MaxNewTokens: 3, EOS: 2, LengthPenalty: penalty})[0][0]
		if !slices.Equal(got.Tokens, want) {
			t.Errorf("length penalty %g gives %v, want %v", penalty, got.Tokens, want)
		}
	}
}

// TestPaperCountsThePrompt: with a long prompt a text's length hardly matters.
func TestPaperCountsThePrompt(t *testing.T) {
	c := fixed(3, []float64{0.001, 0.549, 0.45}, []float64{0.008, 0.99, 0.002}, nil)
	for rule, want := range map[LenRule][]int32{LenRuleCurrent: {2}, LenRulePaper: {1, 1, 1}} {
		got := generated(t, c, [][]int32{make([]int32, 40)}, Options{Beams: 2, MaxNewTokens: 3, EOS: 2, LengthPenalty: -1,
			LenRule: rule})[0][0]
		if !slices.Equal(got.Tokens, want) {
			t.Errorf("%s gives %v, want %v", rule, got.Tokens, want)
		}
	}
}

// TestPenaltiesOnLogits: with one beam the repetition penalty acts on logits, by their sign, and sees the prompt.
func TestPenaltiesOnLogits(t *testing.T) {
	line := []float32{2, 1.5, -1, -1.2, -9}
	c := &chain{logits: [][][][]float32{{{line, line, line, line, line}}}}
	c.logits[0] = slices.Repeat(c.logits[0], 4)
	for _, w := range []struct {
		prompt  []int32
		penalty float64
		ngram   int
		want    []int32
	}{
		{nil, 1, 0, []int32{0, 0, 0, 0}},
		{nil, 1.5, 0, []int32{0, 1, 0, 0}},
		{[]int32{0, 0}, 1.5, 0, []int32{1, 0, 0, 0}},
		{[]int32{0, 1, 2}, 20, 0, []int32{0, 0, 0, 0}},
		{[]int32{2, 2}, 1.5, 0, []int32{0, 1, 0, 0}},
		{nil, 1, 1, []int32{0, 1, 2, 3}},
		{nil, 1, 2, []int32{0, 0, 1, 0}},
		{[]int32{0, 1, 0}, 1, 2, []int32{0, 2, 0, 3}},
		{[]int32{0, 0}, 1, 3, []int32{0, 1, 0, 0}},
	} {
		got := generated(t, c, [][]int32{w.prompt}, Options{MaxNewTokens: 4, EOS: 4, RepetitionPenalty: w.penalty,
			NoRepeatNGram: w.ngram})[0][0]
		if !slices.Equal(got.Tokens, w.want) {
			t.Errorf("prompt %v, penalty %g, n-gram %d: %v, want %v", w.prompt, w.penalty, w.ngram, got.Tokens, w.want)
		}
	}
}

// TestTies: of equal candidates the first counts. Of equal results the current rule puts the first in front; the
// paper's the last one added, and it lets no text in that is only as good as the worst kept.
func TestTies(t *testing.T) {
	c := fixed(1, []float64{0.25, 0.25, 0.25, 0.25})
	for _, w := range []struct {
		rule LenRule
		eos  int32
		want [][]int32
	}{
		{LenRuleCurrent, 3, [][]int32{{0}, {1}}}, {LenRulePaper, 3, [][]int32{{1}, {0}}},
		{LenRuleCurrent, 0, [][]int32{{0}, {1}}}, {LenRulePaper, 0, [][]int32{{1}, {0}}},
	} {
		got := generated(t, c, c.prompts(), Options{Beams: 2, Return: 2, MaxNewTokens: 1, EOS: w.eos, LenRule: w.rule})[0]
		if !slices.Equal(got[0].Tokens, w.want[0]) || !slices.Equal(got[1].Tokens, w.want[1]) {
			t.Errorf("%s, EOS %d: %s, want %v", w.rule, w.eos, show(got), w.want)
		}
	}
}

// TestRowsDoNotMatter: a row's texts are the same alone and beside others, and a row that is done costs no more steps.
func TestRowsDoNotMatter(t *testing.T) {
	together := randomChain(3, 4, 8, 12, 2)
	for _, o := range []Options{
		{MaxNewTokens: 8, EOS: 3}, {Beams: 3, MaxNewTokens: 8, EOS: 3, LengthPenalty: 1, Return: 3},
		{Beams: 3, MaxNewTokens: 8, EOS: 3, EarlyStopping: true}, {Beams: 4, MaxNewTokens: 8, EOS: 3, LenRule: LenRulePaper},
		{MaxNewTokens: 8, EOS: 3, Sampling: &Sampling{TopK: 5, Keys: []int64{7, 8, 9, 10}}, Return: 2},
		{Beams: 2, MaxNewTokens: 8, EOS: 3, Sampling: &Sampling{TopP: 0.9, Keys: []int64{7, 8, 9, 10}}},
	} {
		all := generated(t, together, together.prompts(), o)
		for row := range all {
			alone := &chain{logits: together.logits[row : row+1]}
			one := o
			if o.Sampling != nil {
				s := *o.Sampling
				s.Keys = s.Keys[row : row+1]
				one.Sampling = &s
			}
			if got := generated(t, alone, alone.prompts(), one)[0]; show(got) != show(all[row]) {
				t.Errorf("options %+v, row %d: alone %s, with others %s", o, row, show(got), show(all[row]))
			}
		}
	}
}

// TestFewTokens: with fewer tokens than candidates, what no beam holds yet is filled with what the others lack.
func TestFewTokens(t *testing.T) {
	c := randomChain(1, 1, 6, 2, 1)
	for _, rule := range []LenRule{LenRuleCurrent, LenRulePaper} {
		got := generated(t, c, c.prompts(), Options{Beams: 4, Return: 4, MaxNewTokens: 6, EOS: 1, LenRule: rule,
			LengthPenalty: 1})[0]
		if len(got) != 4 || len(got[0].Tokens) == 0 {
			t.Errorf("%s: %s", rule, show(got))
		}
		if !slices.IsSortedFunc(got, func(a, b Text) int { return int(math.Copysign(1, b.Score-a.Score)) }) {
			t.Errorf("%s: not the best first: %s", rule, show(got))
		}
	}
}

// TestStrongLengthPenalty: scores below those of empty places are scores, too.
func TestStrongLengthPenalty(t *testing.T) {
	for seed := range uint64(20) {
		c := randomChain(seed, 1, 9, 9, 2)
		got := generated(t, c, c.prompts(), Options{Beams: 3, Return: 3, MaxNewTokens: 9, MinNewTokens: 3, EOS: 1,
			LengthPenalty: -14})[0]
		if len(got) != 3 {
			t.Fatalf("seed %d: %s", seed, show(got))
		}
		for i, text := range got {
			if want := text.LogProb * math.Pow(float64(len(text.Tokens)), 14); len(text.Tokens) < 3 ||
				math.Abs(text.Score/want-1) > 1e-5 || i > 0 && text.Score > got[i-1].Score {
				t.Errorf("seed %d, text %d: %s", seed, i, show(got))
			}
		}
	}
}

// TestDeadEnd: where bans leave no text that goes on, there are still as many texts as were asked for, with numbers.
func TestDeadEnd(t *testing.T) {
	for seed := range uint64(20) {
		for _, rule := range []LenRule{LenRuleCurrent, LenRulePaper} {
			c := randomChain(seed, 1, 20, 4, 2)
			got := generated(t, c, c.prompts(), Options{Beams: 2, Return: 2, MaxNewTokens: 20, MinNewTokens: 20, EOS: 1,
				NoRepeatNGram: 2, LenRule: rule})[0]
			if len(got) != 2 {
				t.Fatalf("seed %d, %s: %s", seed, rule, show(got))
			}
			for _, text := range got {
				if math.IsInf(text.LogProb, 0) || math.IsInf(text.Score, 0) {
					t.Errorf("seed %d, %s: %s", seed, rule, show(got))
				}
			}
		}
	}
}

func TestNoRows(t *testing.T) {
	if out, err := Generate(t.Context(), &chain{}, nil, Options{MaxNewTokens: 1}); err != nil || len(out) != 0 {
		t.Errorf("no prompts give %v, error %v", out, err)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Beams: 2, Return: 2, MaxNewTokens: 3, EOS: 1}
	for says, change := range map[string]func(*Options){
		"not be negative":     func(o *Options) { o.MinNewTokens = -1 },
		"at least 1":          func(o *Options) { o.MaxNewTokens = 0 },
		"repetition penalty":  func(o *Options) { o.RepetitionPenalty = -1 },
		"penalty NaN":         func(o *Options) { o.RepetitionPenalty = math.NaN() },
		"length penalty":      func(o *Options) { o.LengthPenalty = math.Inf(1) },
		"from 1e-05 to":       func(o *Options) { o.RepetitionPenalty = 1e-6 },
		"to 100000":           func(o *Options) { o.RepetitionPenalty = 1e6 },
		"from -31.4 to 31.4":  func(o *Options) { o.LengthPenalty = -32 },
		"at least 1e-10":      func(o *Options) { o.Sampling = &Sampling{Temperature: 1e-11} },
		"length rule \"old\"": func(o *Options) { o.LenRule = "old" },
		"do not give 3":       func(o *Options) { o.Return = 3 },
		"without sampling":    func(o *Options) { o.Beams = 1 },
		"several beams":       func(o *Options) { o.LenRule, o.Sampling = LenRulePaper, &Sampling{} },
		"temperature":         func(o *Options) { o.Sampling = &Sampling{Temperature: -1} },
		"top_k":               func(o *Options) { o.Sampling = &Sampling{TopK: -1} },
		"top_p":               func(o *Options) { o.Sampling = &Sampling{TopP: 1.1} },
		"keys":                func(o *Options) { o.Sampling = &Sampling{Keys: []int64{1, 2}} },
		"none of the model's": func(o *Options) { o.EOS = 7 },
		"that ends a text":    func(o *Options) { o.EOS = -1 },
	} {
		o, c := good, randomChain(1, 1, 3, 7, 1)
		if _, err := Generate(t.Context(), c, c.prompts(), o); err != nil {
			t.Fatal(err)
		}
		change(&o)
		if _, err := Generate(t.Context(), c, c.prompts(), o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: error %v, want one that says %q", o, err, says)
		}
	}
	c := randomChain(1, 1, 3, 7, 1)
	for _, id := range []int32{-1, 7} {
		_, err := Generate(t.Context(), c, [][]int32{{id}}, good)
		if err == nil || !strings.Contains(err.Error(), "prompt") {
			t.Errorf("a prompt with token %d: error %v", id, err)
		}
	}
}

// broken is a model that answers what it is told to.
type broken struct {
	start, step []float32
	err         error
	steps       int
}

func (b *broken) Start(context.Context) ([]float32, error) { return slices.Clone(b.start), nil }

func (b *broken) Step(context.Context, []int, []int32) ([]float32, error) {
	b.steps++
	return slices.Clone(b.step), b.err
}

func TestBrokenModels(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for says, m := range map[string]*broken{
		"0 logits for 1 rows":  {},
		"1 logits for 1 rows":  {start: []float32{1}},
		"not a number":         {start: []float32{1, nan, 2}},
		"infinite":             {start: []float32{1, inf, 2}},
		"2 logits for 1 texts": {start: []float32{1, 2, 3}, step: []float32{1, 2}},
		"out of memory":        {start: []float32{1, 2, 3}, err: errors.New("out of memory")},
		"row 0, token 2":       {start: []float32{1, 2, 3}, step: []float32{-inf, -inf, -inf}},
	} {
		for _, k := range []int{1, 2} {
			o := Options{Beams: k, MaxNewTokens: 4, EOS: 0}
			if k == 2 && m.step != nil {
				m = &broken{start: m.start, step: slices.Repeat(m.step, 2), err: m.err}
				says = strings.Replace(says, "2 logits for 1", "4 logits for 2", 1)
			}
			if _, err := Generate(t.Context(), m, [][]int32{nil}, o); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%d beams: error %v, want one that says %q", k, err, says)
			}
		}
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := &broken{start: []float32{1, 2, 3}, step: []float32{1, 2, 3}}
	if _, err := Generate(ctx, m, [][]int32{nil}, Options{MaxNewTokens: 9}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	stop := &recompute.Model{Prompts: [][]int32{{0}}, Logits: func(_ []int32, texts [][]int32) ([]float32, error) {
		if len(texts[0]) == 4 {
			cancel()
		}
		return []float32{1, 2, 3}, nil
	}}
	if _, err := Generate(ctx, stop, [][]int32{nil}, Options{MaxNewTokens: 50}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled on the way: error %v", err)
	}
}
