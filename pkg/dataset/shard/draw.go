package shard

import "math/bits"

// draws is a splitmix64 generator whose start is a hash of what the draw is for: a function of its keys alone.
type draws struct{ state uint64 }

// What draws are for.
const (
	forShards = iota + 1
	forBuffer
)

func newDraws(keys ...int64) draws {
	h := uint64(0x9e3779b97f4a7c15)
	for i, key := range keys {
		h = mix(h ^ mix(uint64(key)+uint64(i+1)*0xd1b54a32d192ed03))
	}
	return draws{h}
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64 bits.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// intN is uniform in [0, n) for n ≥ 1; the bias of the multiplication is below n/2⁶⁴.
func (d *draws) intN(n int) int {
	d.state += 0x9e3779b97f4a7c15
	hi, _ := bits.Mul64(mix(d.state), uint64(n))
	return int(hi)
}

// shuffle is Fisher and Yates's.
func shuffle[T any](d draws, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := d.intN(i + 1)
		s[i], s[j] = s[j], s[i]
	}
}
