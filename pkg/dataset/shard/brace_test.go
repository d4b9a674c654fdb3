package shard

import (
	"slices"
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	for pattern, want := range map[string]string{
		"a.tar":                     "a.tar",
		"{a,b}":                     "a b",
		"x{1..3}y":                  "x1y x2y x3y",
		"{08..11}":                  "08 09 10 11",
		"{000..2}":                  "000 001 002",
		"{3..1}":                    "3 2 1",
		"{0..10..4}":                "0 4 8",
		"{10..0..-5}":               "10 5 0",
		"{-1..1}":                   "-1 0 1",
		"{a..e..2}":                 "a c e",
		"{c..a}":                    "c b a",
		"{a,b}{1,2}":                "a1 a2 b1 b2",
		"{a,b{1,2},{x..z}}":         "a b1 b2 x y z",
		"{{1..2},c}":                "1 2 c",
		"{,a}b":                     "b ab",
		"{a}":                       "{a}",
		"{}":                        "{}",
		"{a,b":                      "{a,b",
		"a}":                        "a}",
		"{a,{b,c}":                  "{a,b {a,c",
		"{1..b}":                    "{1..b}",
		"{1..2..x}":                 "{1..2..x}",
		`\{a,b\}`:                   "{a,b}",
		`{a\,b,c}`:                  "a,b c",
		"http://h/{0..1}.tar?a={b}": "http://h/0.tar?a={b} http://h/1.tar?a={b}",
	} {
		got, err := Expand(pattern)
		if err != nil || !slices.Equal(got, strings.Split(want, " ")) {
			t.Errorf("%s: %q, %v; want %s", pattern, got, err, want)
		}
	}
	got, err := Expand("{part0/part0,part1/part1,part2/part2}_node{00..15}_shard{000000..000118}.tar")
	if err != nil || len(got) != 5712 || got[0] != "part0/part0_node00_shard000000.tar" ||
		got[5711] != "part2/part2_node15_shard000118.tar" {
		t.Errorf("the reference's pattern: %d names, %v", len(got), err)
	}
}

func TestExpandIsBounded(t *testing.T) {
	for _, pattern := range []string{
		"{0..99999999999}", "{0..1048576}", strings.Repeat("{0..9}", 8), strings.Repeat("{a,", 30) + strings.Repeat("}", 30),
		strings.Repeat("x", 70_000), "{0..9999999999999999999}" + strings.Repeat("{0..9}", 7),
		strings.Repeat("y", 60_000) + "{0..999999}",
	} {
		if got, err := Expand(pattern); err == nil {
			t.Errorf("%.40s: %d names", pattern, len(got))
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"{a,b{1..3}}", "{08..11..2}_{x,y}.tar", "{{{", "}}{,}", `\{{a,b}\`, "{-3..3}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 300 {
			return
		}
		const most = 1000 // more only slow the search
		names, err := expandTo(s, most)
		if err == nil && len(names) == 0 || len(names) > most {
			t.Errorf("%q: %d names, %v", s, len(names), err)
		}
	})
}
