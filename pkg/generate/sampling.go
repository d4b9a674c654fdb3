package generate

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling says how tokens are drawn. The zero value of a field is given in brackets where it means something else
// than 0. Hugging Face's generate has TopK 50 unless told otherwise, also where only top_p is given.
type Sampling struct {
	Temperature float64 // divides scores (1)
	TopK        int     // only so many of the most likely tokens can come (0: all)
	// TopP cuts off the least likely tokens as long as the others' probabilities still sum up to at least TopP (1:
	// none).
	TopP float64
	Seed int64
	// Keys name the rows for the random numbers, as pictures' numbers in a data set do: the draws of a row depend on the
	// seed and its key, not on what else is in the batch. Nil means the rows' numbers.
	Keys []int64
}

// check reports settings that make no sense.
func (s *Sampling) check() error {
	switch {
	case s == nil:
	case !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0):
		return fmt.Errorf("temperature %g must be above 0", s.Temperature)
	case s.TopK < 0:
		return fmt.Errorf("top_k %d must not be negative", s.TopK)
	case !(s.TopP >= 0 && s.TopP <= 1):
		return fmt.Errorf("top_p %g must be above 0 and at most 1", s.TopP)
	}
	return nil
}

// minKept is how many tokens no filter may go below: beams need a choice.
func (o Options) minKept() int {
	if o.Beams > 1 {
		return 2
	}
	return 1
}

// Filter applies temperature, TopK and TopP, in this order, to scores of at least one possible token: what cannot be
// drawn gets the score −Inf. Of the most likely tokens, minKept always stay.
func (s Sampling) Filter(scores []float32, minKept int) {
	if s.Temperature != 0 && s.Temperature != 1 {
		for i := range scores {
			scores[i] /= float32(s.Temperature)
		}
	}
	if k := max(s.TopK, minKept); s.TopK > 0 && k < len(scores) {
		least := kthLargest(scores, k)
		for i, v := range scores {
			if v < least {
				scores[i] = minusInf
			}
		}
	}
	if s.TopP != 0 && s.TopP < 1 {
		s.nucleus(scores, minKept)
	}
}

// kthLargest returns the kth largest of the scores, of which there are more than k.
func kthLargest(scores []float32, k int) float32 {
	best := make([]float32, 0, k+1) // ascending
	for _, v := range scores {
		if len(best) == k && v <= best[0] {
			continue
		}
		at, _ := slices.BinarySearch(best, v)
		best = slices.Insert(best, at, v)
		best = best[max(len(best)-k, 0):]
	}
	return best[0]
}

// nucleus takes out the least likely tokens whose probabilities sum up to no more than 1 − TopP. Like the reference it
// rounds probabilities and their sums to single precision, and sums in double precision.
func (s Sampling) nucleus(scores []float32, minKept int) {
	var order []uint64 // possible tokens, least likely first, equals by index: the score's rank above the token
	for i, v := range scores {
		if v != minusInf {
			order = append(order, uint64(rank(v))<<32|uint64(i))
		}
	}
	slices.Sort(order)
	probs := Softmax(scores)
	out, sum := float32(1-s.TopP), 0.0
	for _, key := range order[:max(len(order)-minKept, 0)] {
		i := uint32(key)
		if sum += float64(probs[i]); float32(sum) > out {
			return
		}
		scores[i] = minusInf
	}
}

// rank maps numbers to integers in the same order.
func rank(v float32) uint32 {
	bits := math.Float32bits(v + 0) // −0 becomes 0
	if bits>>31 == 1 {
		return ^bits
	}
	return bits | 1<<31
}

// Softmax returns the probabilities that belong to scores: exactly 0 for −Inf.
func Softmax(scores []float32) []float32 {
	best := scores[largest(scores)]
	probs, sum := make([]float32, len(scores)), 0.0
	for i, v := range scores {
		if v != minusInf {
			e := math.Exp(float64(v - best))
			probs[i], sum = float32(e), sum+e
		}
	}
	for i, p := range probs {
		probs[i] = float32(float64(p) / sum)
	}
	return probs
}

// rng returns the generator of the given text of a row.
func (s Sampling) rng(row, text int) *rand.Rand {
	key := int64(row)
	if s.Keys != nil {
		key = s.Keys[row]
	}
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, []int64{s.Seed, key, int64(text)}) // a hash does not fail
	return rand.New(rand.NewPCG(uint64(s.Seed), h.Sum64()))
}

// draw picks a token with the probability that belongs to its score.
func draw(scores []float32, rng *rand.Rand) int32 {
	probs := Softmax(scores)
	var total float64
	for _, p := range probs {
		total += float64(p)
	}
	at, last := rng.Float64()*total, 0
	for i, p := range probs {
		if p == 0 {
			continue
		}
		if last = i; at < float64(p) {
			break
		}
		at -= float64(p)
	}
	return int32(last)
}
