package generate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// logs returns the logarithms of chances, shifted: scores whose probabilities they are.
func logs(chances ...float64) []float32 {
	out := make([]float32, len(chances))
	for i, p := range chances {
		out[i] = float32(math.Log(p)) + 1.5
	}
	return out
}

func TestFilter(t *testing.T) {
	five := []float64{0.1, 0.4, 0.05, 0.3, 0.15}
	for _, c := range []struct {
		name    string
		filter  Sampling
		minKept int
		chances []float64
		want    []int // tokens that can come
	}{
		{"nothing", Sampling{}, 1, five, []int{0, 1, 2, 3, 4}},
		{"off", Sampling{Temperature: 1, TopP: 1}, 1, five, []int{0, 1, 2, 3, 4}},
		{"top 2", Sampling{TopK: 2}, 1, five, []int{1, 3}},
		{"top 1, two stay", Sampling{TopK: 1}, 2, five, []int{1, 3}},
		{"top 9 of 5", Sampling{TopK: 9}, 1, five, []int{0, 1, 2, 3, 4}},
		{"top 2 with equals", Sampling{TopK: 2}, 1, []float64{0.2, 0.3, 0.2, 0.2, 0.1}, []int{0, 1, 2, 3}},
		{"nucleus", Sampling{TopP: 0.84}, 1, five, []int{1, 3, 4}},
		{"nucleus, just not", Sampling{TopP: 0.86}, 1, five, []int{0, 1, 3, 4}},
		{"nucleus of one", Sampling{TopP: 0.01}, 1, five, []int{1}},
		{"nucleus of one, two stay", Sampling{TopP: 0.01}, 2, five, []int{1, 3}},
		{"nucleus of what top 2 leaves", Sampling{TopK: 2, TopP: 0.56}, 1, five, []int{1}},
		{"nucleus of what top 3 leaves", Sampling{TopK: 3, TopP: 0.56}, 1, five, []int{1, 3}},
		{"hot", Sampling{Temperature: 4, TopP: 0.8}, 1, five, []int{0, 1, 3, 4}},
		{"cold", Sampling{Temperature: 0.25, TopP: 0.8}, 1, five, []int{1, 3}},
		{"equals fall in order", Sampling{TopP: 0.5}, 1, []float64{0.25, 0.25, 0.25, 0.25}, []int{2, 3}},
	} {
		scores := logs(c.chances...)
		c.filter.Filter(scores, c.minKept)
		var got []int
		for i, v := range scores {
			if v != minusInf {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: tokens %v, want %v", c.name, got, c.want)
		}
		probs, total := Softmax(scores), 0.0
		for i, p := range probs {
			if (p == 0) == slices.Contains(c.want, i) {
				t.Errorf("%s: token %d has probability %g", c.name, i, p)
			}
			total += float64(p)
		}
		if math.Abs(total-1) > 1e-6 {
			t.Errorf("%s: the probabilities sum up to %g", c.name, total)
		}
	}
}

// TestPartialOrder: filters that put no more in order than they must keep the same tokens as when all are sorted, also
// where equal scores and sums on the edge make the order of summation matter.
func TestPartialOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for trial := range 400 {
		scores := make([]float32, 1+rng.IntN(3000))
		for i := range scores {
			switch trial % 4 {
			case 0:
				scores[i] = float32(4 * rng.NormFloat64())
			case 1:
				scores[i] = float32(rng.IntN(3)) // many equals
			case 2:
				scores[i] = 0 // all equal: sums are multiples of one number
			case 3:
				scores[i] = float32(i) / 9 // in order already
			}
			if rng.IntN(9) == 0 && i > 0 {
				scores[i] = minusInf
			}
		}
		possible := 0
		for _, v := range scores {
			if v != minusInf {
				possible++
			}
		}
		f := Sampling{TopP: rng.Float64()}
		switch {
		case trial%4 == 2:
			f.TopP = 1 - float64(rng.IntN(possible))/float64(possible) // a whole number of tokens goes
		case trial%5 == 0:
			f = Sampling{TopK: 1 + rng.IntN(len(scores))}
		}
		minKept := 1 + rng.IntN(2)
		want, got := slices.Clone(scores), slices.Clone(scores)
		sortedFilter(f, want, minKept)
		f.Filter(got, minKept)
		if !slices.Equal(got, want) {
			t.Fatalf("trial %d: %+v of %d scores, %d possible", trial, f, len(scores), possible)
		}
	}
}

// TestOrderOfSummation: behind a large probability small ones would be lost, in front of it they decide. The keys are
// so arranged that those below the first pivot are summed from the largest on.
func TestOrderOfSummation(t *testing.T) {
	const small = 40
	for tiny, want := range map[float32]int{0: small + 2, 0x1p-58: small + 1} {
		// Two that sum up to just what is rounded to 0x1p-4, and two that never go.
		probs := append(slices.Repeat([]float32{tiny}, small), 0x1p-28, 0x1p-4, 0.3, 0.6)
		keys := []uint64{key(42, 42), key(41, 41), key(40, 40)}
		for i := range small {
			keys = append(keys, key(float32(i), i))
		}
		keys = append(keys, key(43, 43))
		if got := leastLikely(keys, probs, 0x1p-4, len(keys)); got != want {
			t.Errorf("%d tokens go, want %d", got, want)
		}
	}
}

// sortedFilter is Filter by its definition: all tokens in order, probabilities summed in this order.
func sortedFilter(s Sampling, scores []float32, minKept int) {
	var order []int // possible tokens, least likely first
	for i, v := range scores {
		if v != minusInf {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	if k := max(s.TopK, minKept); s.TopK > 0 && k < len(order) {
		least := scores[order[len(order)-k]]
		for _, i := range order {
			if scores[i] < least {
				scores[i] = minusInf
			}
		}
	}
	if s.TopP == 0 || s.TopP == 1 {
		return
	}
	probs, sum := Softmax(scores), 0.0
	for _, i := range order[:max(len(order)-minKept, 0)] {
		if sum += float64(probs[i]); float32(sum) > float32(1-s.TopP) {
			return
		}
		scores[i] = minusInf
	}
}

// TestRank: the order of numbers is that of their ranks, and 0 has one.
func TestRank(t *testing.T) {
	inf := float32(math.Inf(1))
	order := []float32{-inf, -1e30, -2, -1, -1e-40, 0, 1e-40, 1, 2, 1e30, inf}
	for i := 1; i < len(order); i++ {
		if rank(order[i-1]) >= rank(order[i]) {
			t.Errorf("%g does not come before %g", order[i-1], order[i])
		}
	}
	if negative := float32(math.Copysign(0, -1)); rank(negative) != rank(0) {
		t.Error("−0 is not 0")
	}
}

func TestTemperature(t *testing.T) {
	scores := []float32{1, 2, -4}
	Sampling{Temperature: 0.5}.Filter(scores, 1)
	if !slices.Equal(scores, []float32{2, 4, -8}) {
		t.Errorf("scores %v at half the temperature", scores)
	}
}

// TestDraws: tokens come as often as their probabilities say, also drawn after a filter.
func TestDraws(t *testing.T) {
	const n = 20000
	for _, c := range []struct {
		filter Sampling
		want   []float64
	}{
		{Sampling{}, []float64{0.1, 0.5, 0.15, 0.25}},
		{Sampling{TopK: 2}, []float64{0, 2.0 / 3, 0, 1.0 / 3}},
		{Sampling{TopP: 0.85}, []float64{0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9}},
	} {
		chain := fixed(1, []float64{0.1, 0.5, 0.15, 0.25})
		texts := generated(t, chain, chain.prompts(), Options{Return: n, MaxNewTokens: 1, EOS: 0, Sampling: &c.filter})[0]
		count := make([]float64, 4)
		for _, text := range texts {
			if len(text.Tokens) != 1 || text.Ended != (text.Tokens[0] == 0) {
				t.Fatalf("%s", show([]Text{text}))
			}
			count[text.Tokens[0]]++
		}
		for i, want := range c.want {
			if sd := math.Sqrt(want * (1 - want) / n); !(math.Abs(count[i]/n-want) <= 5*sd) {
				t.Errorf("%+v: token %d comes in %g of the draws, want %g", c.filter, i, count[i]/n, want)
			}
		}
	}
}

// TestDrawnBeams: the first candidates are drawn by their probabilities, and never one twice.
func TestDrawnBeams(t *testing.T) {
	const n = 4000
	first, chances := make([]float64, 5), []float64{0.1, 0.45, 0.15, 0.25, 0.05}
	for seed := range int64(n) {
		c := fixed(1, chances)
		texts := generated(t, c, c.prompts(), Options{Beams: 2, Return: 2, MaxNewTokens: 1, EOS: 4,
			Sampling: &Sampling{Seed: seed}})[0]
		if len(texts) != 2 || texts[0].Tokens[0] == texts[1].Tokens[0] || texts[0].Score < texts[1].Score {
			t.Fatalf("seed %d: %s", seed, show(texts))
		}
		for _, text := range texts {
			first[text.Tokens[0]]++
		}
	}
	for i, p := range chances {
		// Drawn first, or second behind another.
		want := p
		for j, q := range chances {
			if j != i {
				want += q * p / (1 - q)
			}
		}
		if sd := math.Sqrt(want * (1 - want) / n); !(math.Abs(first[i]/n-want) <= 5*sd) {
			t.Errorf("token %d comes in %g of the pairs, want %g", i, first[i]/n, want)
		}
	}
}

// TestSeeds: the same seed and key draw the same, others differ, and the texts of a row differ.
func TestSeeds(t *testing.T) {
	c := randomChain(1, 1, 12, 9, 0.5)
	draw := func(s Sampling) string {
		return show(generated(t, c, c.prompts(), Options{Return: 2, MaxNewTokens: 12, EOS: 0, Sampling: &s})[0])
	}
	want := draw(Sampling{Seed: 5})
	for what, same := range map[string]string{
		"again": draw(Sampling{Seed: 5}), "key 0": draw(Sampling{Seed: 5, Keys: []int64{0}}),
	} {
		if same != want {
			t.Errorf("%s: %s, want %s", what, same, want)
		}
	}
	for what, other := range map[string]string{
		"seed": draw(Sampling{Seed: 6}), "key": draw(Sampling{Seed: 5, Keys: []int64{1}}),
	} {
		if other == want {
			t.Errorf("another %s draws the same", what)
		}
	}
	texts := generated(t, c, c.prompts(), Options{Return: 2, MaxNewTokens: 12, EOS: 0, Sampling: &Sampling{}})[0]
	if slices.Equal(texts[0].Tokens, texts[1].Tokens) {
		t.Error("both texts are drawn alike")
	}
}

// TestPenalizeRepetition: by sign, and once for a token that occurs twice.
func TestPenalizeRepetition(t *testing.T) {
	scores := []float32{4, -4, 3, 0, minusInf}
	PenalizeRepetition(scores, []int32{0, 1, 1, 0, 3, 4}, 2)
	if !slices.Equal(scores, []float32{2, -8, 3, 0, minusInf}) {
		t.Errorf("scores %v", scores)
	}
}
