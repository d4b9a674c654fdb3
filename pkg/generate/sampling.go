package generate

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/bits"
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
	case s.Temperature != 0 && !(s.Temperature >= LeastTemperature) || math.IsInf(s.Temperature, 0):
		return fmt.Errorf("temperature %g must be at least %g", s.Temperature, LeastTemperature)
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

// fewLargest is up to where it is quicker to keep the largest scores in order than to part all of them.
const fewLargest = 256

// kthLargest returns the kth largest of the scores, of which there are more than k.
func kthLargest(scores []float32, k int) float32 {
	if k <= fewLargest {
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
	keys := make([]uint64, len(scores))
	for i, v := range scores {
		keys[i] = key(v, i)
	}
	rest := keys[cutLeast(keys, func(known int, more []uint64) bool { return known+len(more) <= len(keys)-k }):]
	return scores[uint32(slices.Min(rest))]
}

// nucleus takes out the least likely tokens whose probabilities sum up to no more than 1 − TopP. Like the reference it
// rounds probabilities and their sums to single precision, and sums in double precision.
func (s Sampling) nucleus(scores []float32, minKept int) {
	var keys []uint64 // of possible tokens
	for i, v := range scores {
		if v != minusInf {
			keys = append(keys, key(v, i))
		}
	}
	for _, k := range keys[:leastLikely(keys, Softmax(scores), float32(1-s.TopP), len(keys)-minKept)] {
		scores[uint32(k)] = minusInf
	}
}

// leastLikely moves the keys of the least likely tokens to the front, as many as have together no more probability than
// out, but no more than most, and returns how many these are.
//
// No more keys are put in order than it takes to find the last that goes. So probabilities are summed in another order
// than from the least on; where that might matter, all is done again in this order.
func leastLikely(keys []uint64, probs []float32, out float32, most int) int {
	// Sums above the edge are rounded to more than out; the order of summation changes less than the doubt.
	edge := (float64(out) + float64(math.Nextafter32(out, 2))) / 2
	doubt, unsure := float64(len(keys))*0x1p-51, false
	sum := 0.0
	fits := func(known int, more []uint64) bool {
		if known+len(more) > most {
			return false
		}
		total := sum
		for _, k := range more {
			total += float64(probs[uint32(k)])
		}
		unsure = unsure || math.Abs(total-edge) <= doubt
		if float32(total) > out {
			return false
		}
		sum = total
		return true
	}
	n := cutLeast(keys, fits)
	if unsure {
		slices.Sort(keys)
		for n, sum = 0, 0; n < len(keys) && fits(n, keys[n:n+1]); {
			n++
		}
	}
	return n
}

// key orders tokens by their scores, equals by index: the score's rank above the index.
func key(score float32, index int) uint64 { return uint64(rank(score))<<32 | uint64(index) }

// fewKeys are quickly sorted.
const fewKeys = 32

// cutLeast moves the smallest of different keys, as many as fit, to the front, in any order, and returns how many these
// are. fits says whether more keys still fit behind known smaller ones, which it has allowed; they are the next in
// order, as a set. It must not allow more than it has refused.
func cutLeast(keys []uint64, fits func(known int, more []uint64) bool) int {
	low, high := 0, len(keys) // keys in front of low fit, and no more than those in front of high do
	for rounds := 4 * bits.Len(uint(len(keys))); high-low > fewKeys && rounds > 0; rounds-- {
		middle := low + partition(keys[low:high])
		if fits(low, keys[low:middle]) {
			low = middle
		} else {
			high = middle
		}
	}
	slices.Sort(keys[low:high])
	for low < high && fits(low, keys[low:low+1]) {
		low++
	}
	return low
}

// partition moves keys below one of them to the front and returns how many these are, at least one. There are three or
// more keys.
func partition(keys []uint64) int {
	a, b, c := keys[0], keys[len(keys)/2], keys[len(keys)-1]
	pivot := max(min(a, b), min(max(a, b), c)) // the one in the middle
	n := 0
	for i, k := range keys {
		if k < pivot {
			keys[i], keys[n] = keys[n], k
			n++
		}
	}
	return n
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
