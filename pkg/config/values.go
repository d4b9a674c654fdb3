package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span written as people write it: "90s", "2h30m", "1d", "1d12h".
type Duration time.Duration

// Std returns the span as a time.Duration.
func (d Duration) Std() time.Duration { return time.Duration(d) }

const day = 24 * time.Hour

// UnmarshalText reads "90s", "2h30m", "500ms", "1d", "1d12h" or "0".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration; write it like 90s, 2h30m or 1d", text)
	}
	*d = Duration(v)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	var days time.Duration
	if head, rest, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseFloat(head, 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 100_000 {
			return 0, fmt.Errorf("bad number of days %q", head)
		}
		days = time.Duration(n * float64(day))
		if s = rest; s == "" {
			return days, nil
		}
		if rest[0] == '-' || rest[0] == '+' {
			return 0, fmt.Errorf("sign inside of %q", s)
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, err
	}
	if days < 0 {
		v = -v
	}
	if total := days + v; (total >= days) == (v >= 0) {
		return total, nil
	}
	return 0, fmt.Errorf("%q is too long", s)
}

// String writes the span so that UnmarshalText reads it back, without units that are zero: "2h30m", "1d", "0s".
func (d Duration) String() string {
	v := time.Duration(d)
	days := v / day
	rest := v % day
	switch {
	case days == 0:
		return trimZeroUnits(rest.String())
	case rest == 0:
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, trimZeroUnits(rest.Abs().String()))
}

// trimZeroUnits turns "2h30m0s" into "2h30m" and "2h0m0s" into "2h".
func trimZeroUnits(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Count is a whole number that may be written short: "250k" is 250,000 and "1.5M" is 1,500,000.
type Count int64

// Int returns the number as an int.
func (c Count) Int() int { return int(c) }

// UnmarshalText reads "250000", "250_000", "250k", "1.5M", "2B" or "1e6".
func (c *Count) UnmarshalText(text []byte) error {
	v, err := parseScaled(string(text), map[string]float64{"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9})
	if err != nil {
		return fmt.Errorf("%q is not a count; write it like 2000, 250k or 1.5M", text)
	}
	*c = Count(v)
	return nil
}

// String writes the number short where that is exact, and in full otherwise.
func (c Count) String() string {
	for _, unit := range []struct {
		size Count
		name string
	}{{1e9, "B"}, {1e6, "M"}, {1e3, "k"}} {
		if c != 0 && c%unit.size == 0 {
			return strconv.FormatInt(int64(c/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(c), 10)
}

// Devices is a number of devices, or "auto", which is 0.
type Devices int

// UnmarshalText reads "auto" or a whole number from 1.
func (d *Devices) UnmarshalText(text []byte) error {
	word := strings.TrimSpace(string(text))
	if strings.EqualFold(word, "auto") {
		*d = 0
		return nil
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 || n > maxDevices {
		return fmt.Errorf("%q is not a number of devices; write auto, or 1 to %d", text, maxDevices)
	}
	*d = Devices(n)
	return nil
}

// maxDevices is more than any machine has.
const maxDevices = 1024

// String writes auto or the number.
func (d Devices) String() string {
	if d == 0 {
		return "auto"
	}
	return strconv.Itoa(int(d))
}

// Size is a number of bytes: "5GB" is 5·10⁹ and "512MiB" is 512·2²⁰.
type Size int64

// UnmarshalText reads "1048576", "5GB", "512 MiB", "1.5TB"; B may be left out.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := parseScaled(strings.TrimSuffix(strings.TrimSpace(string(text)), "B"), map[string]float64{"": 1,
		"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40})
	if err != nil {
		return fmt.Errorf("%q is not a size; write it like 5GB or 512MiB", text)
	}
	*s = Size(v)
	return nil
}

// String writes the size in the largest unit in which it is a whole number.
func (s Size) String() string {
	for _, unit := range []struct {
		size Size
		name string
	}{{1 << 40, "TiB"}, {1e12, "TB"}, {1 << 30, "GiB"}, {1e9, "GB"}, {1 << 20, "MiB"}, {1e6, "MB"}, {1 << 10, "KiB"},
		{1e3, "kB"}} {
		if s != 0 && s%unit.size == 0 {
			return strconv.FormatInt(int64(s/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// parseScaled reads a decimal number with one of the given unit suffixes; the product must be a whole number.
func parseScaled(s string, units map[string]float64) (int64, error) {
	s = strings.TrimSpace(s)
	end := len(s)
	for end > 0 && (s[end-1] < '0' || s[end-1] > '9') && s[end-1] != '.' {
		end--
	}
	scale, known := units[strings.TrimSpace(s[end:])]
	if !known {
		return 0, fmt.Errorf("unknown unit %q", s[end:])
	}
	digits := strings.ReplaceAll(s[:end], "_", "")
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil && scale == 1 {
		return n, nil // beyond 2⁵³ a float would round
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsAny(digits, "xXpPnN") {
		return 0, fmt.Errorf("bad number %q", digits)
	}
	f *= scale
	if whole := math.Round(f); math.Abs(f-whole) <= 1e-9*math.Abs(f) {
		f = whole
	}
	if f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
		return 0, fmt.Errorf("%q is not a whole number in range", s)
	}
	return int64(f), nil
}

// Share is a fraction written as a number or in percent: "0.05" and "5%" are the same.
type Share float64

// Float returns the fraction as a float64.
func (s Share) Float() float64 { return float64(s) }

// UnmarshalText reads "0.05", "5e-2" or "5%".
func (s *Share) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(number, "xXpP_") {
		return fmt.Errorf("%q is not a share; write it like 0.05 or 5%%", text)
	}
	if percent {
		v /= 100
	}
	*s = Share(v)
	return nil
}

// String writes the fraction as the shortest number that reads back the same.
func (s Share) String() string { return formatFloat(float64(s)) }

// LossScale is the factor of a loss in float16: "dynamic" is 0, "none" is 1.
type LossScale float64

// UnmarshalText reads "dynamic", "none" or a positive number.
func (l *LossScale) UnmarshalText(text []byte) error {
	switch word := strings.TrimSpace(string(text)); word {
	case "dynamic":
		*l = 0
	case "none":
		*l = 1
	default:
		v, err := strconv.ParseFloat(word, 64)
		if err != nil || !(v > 0 && v <= math.MaxFloat32) || strings.ContainsAny(word, "xXpP_") {
			return fmt.Errorf("%q is not a loss scale; write dynamic, none or a number above 0 like 1024", text)
		}
		*l = LossScale(v)
	}
	return nil
}

// String writes the scale so that UnmarshalText reads it back.
func (l LossScale) String() string {
	switch l {
	case 0:
		return "dynamic"
	case 1:
		return "none"
	}
	return formatFloat(float64(l))
}

func formatFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// AutoCount is a Count that may also be left to the program.
type AutoCount int64

// Auto is the AutoCount that the program chooses.
const Auto AutoCount = -1

// UnmarshalText reads "auto" or a Count.
func (a *AutoCount) UnmarshalText(text []byte) error {
	if strings.TrimSpace(string(text)) == "auto" {
		*a = Auto
		return nil
	}
	var c Count
	if err := c.UnmarshalText(text); err != nil || c < 0 {
		return fmt.Errorf("%q is not a count; write it like 2000 or 1.5M, or auto", text)
	}
	*a = AutoCount(c)
	return nil
}

// String writes the number as Count does, or "auto".
func (a AutoCount) String() string {
	if a == Auto {
		return "auto"
	}
	return Count(a).String()
}
