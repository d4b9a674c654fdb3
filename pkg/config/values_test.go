package config

import (
	"encoding"
	"math"
	"testing"
	"time"
)

func TestValuesAsPeopleWriteThem(t *testing.T) {
	const bad = math.MinInt64
	tests := []struct {
		text                  string
		duration, count, size int64 // bad: must be refused
		share                 float64
	}{
		{"0", 0, 0, 0, 0},
		{"90s", int64(90 * time.Second), bad, bad, bad},
		{"2h30m", int64(150 * time.Minute), bad, bad, bad},
		{"1d", int64(24 * time.Hour), bad, bad, bad},
		{"1d12h", int64(36 * time.Hour), bad, bad, bad},
		{"1.5d", int64(36 * time.Hour), bad, bad, bad},
		{"1d-2h", bad, bad, bad, bad},
		{"d", bad, bad, bad, bad},
		{"200000d", bad, bad, bad, bad},
		{"100000d999999h", bad, bad, bad, bad},
		{"250000", bad, 250_000, 250_000, 250_000},
		{"250_000", bad, 250_000, 250_000, bad},
		{"250k", bad, 250_000, 250_000, bad},
		{"1.5M", bad, 1_500_000, 1_500_000, bad},
		{"0.1k", bad, 100, 100, bad},
		{"1e6", bad, 1_000_000, 1_000_000, 1e6},
		{"2B", bad, 2_000_000_000, 2, bad},
		{"5GB", bad, bad, 5_000_000_000, bad},
		{"512MiB", bad, bad, 512 << 20, bad},
		{"1.5 KiB", bad, bad, 1536, bad},
		{"9007199254740993", bad, 9007199254740993, 9007199254740993, 9007199254740993},
		{"1e30", bad, bad, bad, 1e30},
		{"1.5", bad, bad, bad, 1.5},
		{"1.0005k", bad, bad, bad, bad},
		{"0x10", bad, bad, bad, bad},
		{"5%", bad, bad, bad, 0.05},
		{"0.05", bad, bad, bad, 0.05},
		{"5e-2", bad, bad, bad, 0.05},
		{"nan", bad, bad, bad, bad},
		{"inf", bad, bad, bad, bad},
		{"%", bad, bad, bad, bad},
		{"", bad, bad, bad, bad},
		{"many", bad, bad, bad, bad},
	}
	for _, tt := range tests {
		var d Duration
		var c Count
		var size Size
		var share Share
		check := func(kind string, u encoding.TextUnmarshaler, got func() float64, want float64) {
			t.Helper()
			err := u.UnmarshalText([]byte(tt.text))
			if (err != nil) != (want == bad) {
				t.Errorf("%s %q: error %v, want refusal %v", kind, tt.text, err, want == bad)
			} else if err == nil && got() != want {
				t.Errorf("%s %q = %v, want %v", kind, tt.text, got(), want)
			}
		}
		check("duration", &d, func() float64 { return float64(d) }, float64(tt.duration))
		check("count", &c, func() float64 { return float64(c) }, float64(tt.count))
		check("size", &size, func() float64 { return float64(size) }, float64(tt.size))
		check("share", &share, func() float64 { return float64(share) }, tt.share)
	}
}

func TestDevices(t *testing.T) {
	for text, want := range map[string]Devices{"auto": 0, " AUTO ": 0, "1": 1, "8": 8, "1024": 1024} {
		var d Devices
		if err := d.UnmarshalText([]byte(text)); err != nil || d != want {
			t.Errorf("%q is %d, %v", text, int(d), err)
		}
		var back Devices
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%q reads back as %d, %v", d.String(), int(back), err)
		}
	}
	for _, text := range []string{"", "0", "-1", "all", "1.5", "1025", "8 GPUs"} {
		var d Devices
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d devices", text, int(d))
		}
	}
}

func TestCountKeepsAllDigits(t *testing.T) {
	var c Count
	if err := c.UnmarshalText([]byte("9007199254740993")); err != nil || c != 9007199254740993 {
		t.Errorf("got %d, %v", int64(c), err)
	}
}

func TestValuesStringReadsBack(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 90 * time.Second: "1m30s", 150 * time.Minute: "2h30m",
		2 * time.Hour: "2h", 24 * time.Hour: "1d", 36*time.Hour + time.Second: "1d12h0m1s", -36 * time.Hour: "-1d12h",
		10 * time.Minute: "10m", 500 * time.Millisecond: "500ms", 20 * time.Hour: "20h"} {
		var back Duration
		if got := Duration(d).String(); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		} else if err := back.UnmarshalText([]byte(got)); err != nil || back.Std() != d {
			t.Errorf("%q reads back as %v, %v; want %v", got, back.Std(), err, d)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1", 999: "999", 2000: "2k", 2500: "2500", 250_000: "250k",
		1_500_000: "1500k", 3_000_000: "3M", 7_000_000_000: "7B", -1000: "-1k"} {
		var back Count
		if got := Count(n).String(); got != want {
			t.Errorf("count %d is written %q, want %q", n, got, want)
		} else if err := back.UnmarshalText([]byte(got)); err != nil || back.Int() != int(n) {
			t.Errorf("%q reads back as %d, %v", got, back, err)
		}
	}
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1000: "1kB", 1024: "1KiB", 512 << 20: "512MiB",
		5_000_000_000: "5GB", 1 << 40: "1TiB", 12345: "12345B"} {
		var back Size
		if got := Size(n).String(); got != want {
			t.Errorf("size %d is written %q, want %q", n, got, want)
		} else if err := back.UnmarshalText([]byte(got)); err != nil || int64(back) != n {
			t.Errorf("%q reads back as %d, %v", got, int64(back), err)
		}
	}
	for _, v := range []float64{0, 0.05, 1. / 3., 1e-9, 1} {
		var back Share
		if err := back.UnmarshalText([]byte(Share(v).String())); err != nil || back.Float() != v {
			t.Errorf("%v reads back as %v, %v", v, back.Float(), err)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"lr", "min_lr", "warmup_lr", "schedule", "weight_decay"}
	for name, want := range map[string]string{"lrr": "lr", "shedule": "schedule", "wieght_decay": "weight_decay",
		"min-lr": "min_lr", "SCHEDULE": "schedule"} {
		if got, near := Nearest(name, keys); got != want || !near {
			t.Errorf("nearest to %q is %q (near %v), want %q", name, got, near, want)
		}
	}
	if got, near := Nearest("photographs", keys); near {
		t.Errorf("%q counts as close to photographs", got)
	}
	if got, near := Nearest("x", nil); got != "" || near {
		t.Errorf("no candidates gave %q, %v", got, near)
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3},
		{"größe", "grosse", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance of %q and %q is %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := editDistance(tt.b, tt.a); got != tt.want {
			t.Errorf("distance of %q and %q is %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}

func TestInterval(t *testing.T) {
	for text, want := range map[string]string{"[1,)": "at least 1", "(0,1]": "above 0, at most 1",
		"[0,1)": "at least 0, below 1", "[2,1048576]": "2 to 1048576",
		"(,5)": "below 5", "(0,)": "above 0"} {
		in, err := parseInterval(text)
		if err != nil || in.String() != want {
			t.Errorf("%s reads as %q, %v; want %q", text, in, err, want)
		}
	}
	in, _ := parseInterval("(0,1]")
	for v, want := range map[float64]bool{0: false, 1e-300: true, 1: true, 1.0000001: false, -1: false,
		math.NaN(): false} {
		if in.contains(v) != want {
			t.Errorf("(0,1] contains %v: %v", v, !want)
		}
	}
	for _, text := range []string{"", "1", "[a,b]", ","} {
		if in, err := parseInterval(text); err == nil {
			t.Errorf("%q was read as %v", text, in)
		}
	}
}

func TestLossScale(t *testing.T) {
	for text, want := range map[string]LossScale{"dynamic": 0, "none": 1, "1": 1, "1024": 1024, " 0.5 ": 0.5,
		"1e3": 1000} {
		var l LossScale
		if err := l.UnmarshalText([]byte(text)); err != nil || l != want {
			t.Errorf("%q is %v, error %v, want %v", text, l, err, want)
		}
		var again LossScale
		if err := again.UnmarshalText([]byte(l.String())); err != nil || again != l {
			t.Errorf("%q is written as %q, which is %v, error %v", text, l, again, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "inf", "nan", "1e39", "0x10", "1_0", "static", "dynamic 4"} {
		var l LossScale
		if err := l.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted as %v", text, l)
		}
	}
}
