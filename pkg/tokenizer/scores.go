package tokenizer

import (
	"math"
	"strconv"
	"strings"
)

// parseScore reads a number of JSON as the reference's library does, which is not always the nearest float64: the first
// digits that fit in 64 bits, as a float64, times or divided by a power of ten. Where two ways to cut a word have the
// same pieces, the last bit of their sums decides.
func parseScore(text string) (value float64, ok bool) {
	digits, negative := strings.CutPrefix(text, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	mantissa, exponent := uint64(0), 0
	full, fraction := false, false
	rest := ""
	for i := range len(digits) {
		c := digits[i]
		if c == '.' {
			fraction = true
			continue
		}
		if c < '0' || c > '9' {
			rest = digits[i:]
			break
		}
		full = full || mantissa > (math.MaxUint64-uint64(c-'0'))/10
		switch {
		case full && !fraction:
			exponent++
		case !full:
			mantissa = 10*mantissa + uint64(c-'0')
			if fraction {
				exponent--
			}
		}
	}
	if rest != "" {
		shift, valid := parseExponent(rest)
		if !valid {
			return 0, false
		}
		exponent += shift
	}
	value = scale(float64(mantissa), exponent)
	if negative {
		value = -value
	}
	return value, !math.IsInf(value, 0)
}

// parseExponent reads "e-05".
func parseExponent(text string) (exponent int, ok bool) {
	if text[0] != 'e' && text[0] != 'E' {
		return 0, false
	}
	digits, negative := strings.CutPrefix(text[1:], "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	if digits == "" {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		exponent = min(10*exponent+int(c-'0'), 1<<20)
	}
	if negative {
		exponent = -exponent
	}
	return exponent, true
}

// scale multiplies value by a power of ten in the reference's order of operations.
func scale(value float64, exponent int) float64 {
	const largest = 308
	for ; exponent < -largest && value != 0; exponent += largest {
		value /= 1e308
	}
	switch {
	case value == 0:
		return 0
	case exponent < 0:
		return value / powerOfTen(-exponent)
	default:
		return value * powerOfTen(exponent)
	}
}

// powerOfTen is the float64 nearest to 10^n, which math.Pow10 does not always give.
func powerOfTen(n int) float64 {
	if n <= 22 {
		return math.Pow10(n) // exact
	}
	power, err := strconv.ParseFloat("1e"+strconv.Itoa(n), 64)
	if err != nil {
		return math.Inf(1)
	}
	return power
}
