package generate

import (
	"context"
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

// BenchmarkSearch measures what the search itself costs per text and token, with 8 rows and the vocabulary of OPT.
func BenchmarkSearch(b *testing.B) {
	pattern := randomChain(1, 1, 1, 225, 2).logits[0][0]
	v := vast{}
	for _, line := range pattern {
		v.pattern = append(v.pattern, line...)
	}
	v.pattern = v.pattern[:50272]
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
