package generate

import (
	"context"
	"fmt"
	"testing"
)

// vast is a model with the vocabulary of OPT whose logits cost next to nothing.
type vast struct{ pattern []float32 }

func (v vast) Start(context.Context) ([]float32, error) { return v.logits(8), nil }

func (v vast) Step(_ context.Context, parents []int, _ []int32) ([]float32, error) {
	return v.logits(len(parents)), nil
}

func (v vast) logits(texts int) []float32 {
	out := make([]float32, 0, texts*len(v.pattern))
	for range texts {
		out = append(out, v.pattern...)
	}
	return out
}

// vastLogits are logits of OPT's vocabulary.
func vastLogits() []float32 {
	var all []float32
	for _, line := range randomChain(1, 1, 1, 225, 2).logits[0][0] {
		all = append(all, line...)
	}
	return all[:50272]
}

// BenchmarkSearch measures what the search itself costs per text and token, with 8 rows and the vocabulary of OPT.
func BenchmarkSearch(b *testing.B) {
	v := vast{vastLogits()}
	for name, o := range map[string]Options{
		"greedy": {}, "beams": {Beams: 5, LengthPenalty: -1}, "nucleus": {Sampling: &Sampling{TopK: 50, TopP: 0.9}},
		"nucleus without top_k": {Sampling: &Sampling{TopP: 0.9}},
	} {
		o.MaxNewTokens, o.MinNewTokens, o.EOS = 10, 10, 2
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Generate(b.Context(), v, make([][]int32, 8), o); err != nil {
					b.Fatal(err)
				}
			}
			texts := float64(8 * o.Width() * o.MaxNewTokens * b.N)
			b.ReportMetric(b.Elapsed().Seconds()*1e6/texts, "µs/token")
		})
	}
}

// BenchmarkFilter measures what the filters of sampling cost for one text and token, with the vocabulary of OPT.
func BenchmarkFilter(b *testing.B) {
	logits := vastLogits()
	scores := make([]float32, len(logits))
	for _, filter := range []Sampling{{Temperature: 0.7}, {TopK: 50}, {TopK: 20000}, {TopK: 50, TopP: 0.9}, {TopP: 0.1},
		{TopP: 0.5}, {TopP: 0.9}, {TopP: 0.999}} {
		b.Run(fmt.Sprintf("temperature %g top_k %d top_p %g", filter.Temperature, filter.TopK, filter.TopP),
			func(b *testing.B) {
				for b.Loop() {
					copy(scores, logits)
					filter.Filter(scores, 1)
				}
			})
	}
}
