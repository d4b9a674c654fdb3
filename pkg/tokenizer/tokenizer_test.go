package tokenizer

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func TestPad(t *testing.T) {
	rows := [][]int32{{1, 2, 3}, {}, {4}}
	for _, tt := range []struct {
		length    int
		side      Side
		ids, mask []int32
	}{
		{0, Right, []int32{1, 2, 3, 9, 9, 9, 4, 9, 9}, []int32{1, 1, 1, 0, 0, 0, 1, 0, 0}},
		{4, Left, []int32{9, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 4}, []int32{0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1}},
	} {
		ids, mask, width := Pad(rows, tt.length, 9, tt.side)
		if !slices.Equal(ids, tt.ids) || !slices.Equal(mask, tt.mask) || width*len(rows) != len(ids) {
			t.Errorf("padding to %d on side %d: %v %v, width %d", tt.length, tt.side, ids, mask, width)
		}
	}
	if ids, mask, width := Pad(nil, 5, 0, Left); len(ids) != 0 || len(mask) != 0 || width != 5 {
		t.Errorf("no rows: %v %v %d", ids, mask, width)
	}
}

// TestLiteral checks that literal text gives no special token in any way, but other added tokens.
func TestLiteral(t *testing.T) {
	for name, tt := range map[string]struct {
		text    string
		literal []int32
		usual   []int32
	}{
		"bert": {"a [S] É", []int32{2, 1, 0, 0, 0, 4, 2}, []int32{2, 1, 2, 4, 2}},
		"t5":   {"a</s>", []int32{2, 0, 1}, []int32{2, 1, 1}},
	} {
		file := tokenizerJSONs()[name]
		if name == "t5" {
			file = strings.Replace(file, `{"normalizer"`, `{"added_tokens":[{"id":1,"content":"</s>","special":true}],"normalizer"`, 1)
			file = strings.Replace(file, `"byte_fallback":true,`, "", 1)
		}
		p, err := fromTokenizerJSON([]byte(file), emptyConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Encode(tt.text, EncodeOptions{Literal: true}); !slices.Equal(got, tt.literal) {
			t.Errorf("%s: literal %q gives %v, want %v", name, tt.text, got, tt.literal)
		}
		if got := p.Encode(tt.text, EncodeOptions{}); !slices.Equal(got, tt.usual) {
			t.Errorf("%s: %q gives %v, want %v", name, tt.text, got, tt.usual)
		}
	}
}

func TestPieces(t *testing.T) {
	tok, err := Load(writeFolder(t, map[string]string{fileVocabJSON: `{"a":0,"":1,"ab":2,"b":3}`, fileMerges: "a b\n",
		fileAdded: `{"<x>":4}`}))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int32]string{0: "a", 1: "", 2: "ab", 4: "<x>"} {
		piece, ok := tok.Piece(id)
		back, known := tok.ID(want)
		if piece != want || !ok || back != id || !known {
			t.Errorf("id %d is %q, %t; %q is %d, %t", id, piece, ok, want, back, known)
		}
	}
	for _, id := range []int32{-1, 5, math.MaxInt32} {
		if piece, ok := tok.Piece(id); ok || piece != "" {
			t.Errorf("id %d is %q", id, piece)
		}
	}
	if id, ok := tok.ID("c"); ok {
		t.Errorf("c is %d", id)
	}
	if want := (SpecialIDs{-1, -1, -1, -1, -1, -1, -1}); tok.Special() != want || tok.VocabSize() != 5 {
		t.Errorf("special ids %+v, %d in all", tok.Special(), tok.VocabSize())
	}
}

// TestLinear checks that words without end, and other texts made to be slow, take time in proportion to their length.
func TestLinear(t *testing.T) {
	const size = 1 << 16
	texts := map[string]string{
		"one letter": strings.Repeat("a", size), "merges": strings.Repeat("abracadabra", size/11),
		"marks": strings.Repeat("\u0301\u0323", size/4), "spaces": strings.Repeat(" ", size),
		"almost special": strings.Repeat("<extra_id_", size/10), "quotes": strings.Repeat("'", size),
		"special": strings.Repeat("</s>", size/4), "broken": strings.Repeat("\xf0\x9f", size/2),
	}
	for name, p := range smallTokenizers(t) {
		for kind, text := range texts {
			start := time.Now()
			p.Encode(text, EncodeOptions{})
			if took := time.Since(start); took > 5*time.Second { // quadratic time would be minutes
				t.Errorf("%s: %s of %d bytes took %v", name, kind, size, took)
			}
		}
	}
}

func TestConcurrentPipelines(t *testing.T) {
	const text = "a photo of the dog's 12 cafés, 日本 </s> ab"
	for name, p := range smallTokenizers(t) {
		want := p.Encode(text, EncodeOptions{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					if got := p.Encode(text, EncodeOptions{}); !slices.Equal(got, want) {
						t.Errorf("%s: got %v, want %v", name, got, want)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestValidUTF8(t *testing.T) {
	for in, want := range map[string]string{
		"aé": "aé", "\xff": "\ufffd", "\xe2\x82a": "\ufffda", "\xe2\x82\xe2\x82\xac": "\ufffd€",
		"\xf0\x9f\x98": "\ufffd", "\xed\xa0\x80": "\ufffd\ufffd\ufffd", "\xc0\x80": "\ufffd\ufffd",
		"\xf4\x90\x80\x80": "\ufffd\ufffd\ufffd\ufffd", "\ufffd\xfe": "\ufffd\ufffd", "\xe0\x9f\x80": "\ufffd\ufffd\ufffd",
	} {
		if got := validUTF8(in); got != want {
			t.Errorf("validUTF8(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestClusters(t *testing.T) {
	for _, clusters := range [][]string{
		{"a", "b"}, {"a\u0301\u0323", "b"}, {"\r\n", "\n", "\r", "a"}, {"\x01", "\u0301"}, {"\u200d", "a"},
		{"👨\u200d👩", "👨\u200d\u200d", "👩"}, {"🇩🇪", "🇫🇷", "🇯"}, {"\u1100\u1161\u11a8", "가\u11a8", "각", "\u1161"},
		{"क\u094dक", "क", "क\u0301\u094dक", "क\u094d\u200c", "क"}, {"\u0600a", "\u0903"}, {"a\u0903", "\u0e33"},
		{"👍🏽", "©\u200d©"},
	} {
		text := strings.Join(clusters, "")
		if clusters[len(clusters)-1] == "\u0903" || clusters[len(clusters)-1] == "\u0e33" {
			clusters = slices.Concat(clusters[:len(clusters)-2], []string{clusters[len(clusters)-2] + clusters[len(clusters)-1]})
		}
		var got []string
		for rest := text; rest != ""; {
			n := loadClusters().clusterEnd(rest)
			got = append(got, rest[:n])
			rest = rest[n:]
		}
		if !slices.Equal(got, clusters) {
			t.Errorf("%q has the clusters %q, want %q", text, got, clusters)
		}
	}
}

// TestCanonical compares the slow way to normal forms with golang.org/x/text, which is right where no newer character
// takes part, and checks what only the slow way does.
func TestCanonical(t *testing.T) {
	newer := loadNewer()
	for _, text := range []string{"e\u0301\u0323 q\u0307\u0323", "각 \u1100\u1161\u11a8", "\u1e69 s\u0323\u0307", "Å\u0327", "\u0958 \u2126",
		"a\u0315\u0300\u05ae\u0300b", "\u0b47\u0300\u0b3e", "\u1100\u0300\u1161", "o\u0302\u0301\u0302"} {
		if got, want := string(decompose(text, newer)), norm.NFD.String(text); got != want {
			t.Errorf("decomposed %+q is %+q, want %+q", text, got, want)
		}
		if got, want := string(compose(decompose(text, newer), newer)), norm.NFC.String(text); got != want {
			t.Errorf("composed %+q is %+q, want %+q", text, got, want)
		}
	}
	long := "a" + strings.Repeat("\u0301", 40)
	if got, want := canonical(long, norm.NFC), "á"+strings.Repeat("\u0301", 39); got != want {
		t.Errorf("many marks become %+q, want %+q", got, want)
	}
	for _, text := range []string{"\u0899\u0898", "\U00011935\U00011930", "\u0898\u0316"} {
		if got := canonical(text, norm.NFC); got != text {
			t.Errorf("%+q becomes %+q: newer than Unicode 9", text, got)
		}
	}
}

func TestLowerEach(t *testing.T) {
	for in, want := range map[string]string{"ABC": "abc", "ΟΔΟΣ": "οδοσ", "İI": "i\u0307i", "ǅẞ": "ǆß", "abc": "abc",
		"\u1c89\ua7cb\ua7dc\U00010d50\U00016ea0": "\u1c8a\u0264\u019b\U00010d70\U00016ebb"} {
		if got := lowerEach(in); got != want {
			t.Errorf("lowerEach(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestScores compares numbers whose nearest float64 the reference reads right, and those it does not.
func TestScores(t *testing.T) {
	for text, want := range map[string]float64{
		"0": 0, "-0.0": 0, "1": 1, "-2.5": -2.5, "1e3": 1000, "1.5E+2": 150, "25e-1": 2.5, "1e-400": 0,
		"-3.5449328422546387": -3.5449328422546387, "12345678901234567890123": 1.2345678901234567e22,
		"-3.9598512649536133": -3.9598512649536137, // one unit in the last place off
	} {
		if got, ok := parseScore(text); !ok || got != want {
			t.Errorf("parseScore(%s) = %v, %t; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "-", "x", `"1"`, "1e", "1e+", "1ex", "1e400", "-1e309", "null", "[1]"} {
		if got, ok := parseScore(text); ok {
			t.Errorf("parseScore(%q) = %v", text, got)
		}
	}
	for n := range 309 {
		want, err := strconv.ParseFloat("1e"+strconv.Itoa(n), 64)
		if got, ok := parseScore("1e" + strconv.Itoa(n)); err != nil || !ok || got != want {
			t.Errorf("1e%d is %v, want %v", n, got, want)
		}
	}
}

func TestTrie(t *testing.T) {
	keys := []trieKey{{"", 9}, {"a", 1}, {"abc", 2}, {"abc", 3}, {"b\xff", 4}, {"é", 5}}
	for i := range 300 {
		keys = append(keys, trieKey{"x" + string(rune(i)), int32(100 + i)})
	}
	tree := newTrie(keys)
	for text, want := range map[string][2]int{"": {0, 0}, "abd": {1, 1}, "abcd": {2, 3}, "b\xff\xff": {4, 2}, "éa": {5, 2},
		"xÿ": {355, 3}, "x\x00": {100, 2}, "xx": {220, 2}, "c": {0, 0}} {
		if value, n := tree.longest(text); int(value) != want[0] || n != want[1] {
			t.Errorf("%q: %d, %d; want %v", text, value, n, want)
		}
	}
	if _, n := newTrie(nil).longest("a"); n != 0 {
		t.Error("an empty trie has keys")
	}
}

// TestEqualResults merges a pair whose result another pair gives, too: the reference takes it as soon as the result is
// queued, whatever the present pair's place in the list.
func TestEqualResults(t *testing.T) {
	b, err := newBytePairs(bpeConfig{vocab: map[string]int32{"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4, "abc": 5},
		merges: [][2]string{{"b", "c"}, {"a", "bc"}, {"a", "b"}, {"ab", "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string][]int32{"abc": {5}, "ab": {4}, "bcab": {3, 4}, "aabcb": {0, 5, 1}, "xa": {0}} {
		if got := b.append(nil, word, false); !slices.Equal(got, want) {
			t.Errorf("%q gives %v, want %v", word, got, want)
		}
	}
}

func TestWordSplits(t *testing.T) {
	gpt2 := byteLevelSplitter{classes: loadWordClasses()}
	clip := clipSplitter{classes: loadWordClasses(), literals: []string{endOfText}}
	collect := func(s splitter, text string) []string {
		var words []string
		s.split(text, true, func(word string) bool {
			words = append(words, word)
			return true
		})
		return words
	}
	for _, tt := range []struct {
		s    splitter
		text string
		want []string
	}{
		{gpt2, "it's  a\n\n b1½ !!'s", []string{"it", "'s", " ", " a", "\n\n", " b", "1½", " !!'", "s"}},
		{gpt2, " \t", []string{" \t"}},
		{gpt2, "a \u00a0b\u3000", []string{"a", " ", "\u00a0", "b", "\u3000"}},
		{gpt2, "'re'RE '", []string{"'re", "'", "RE", " '"}},
		{clip, "it's  12a!!<|endoftext|>", []string{"it", "'s", "1", "2", "a", "!!<|", "endoftext", "|>"}},
		{clip, "a<|endoftext|>", []string{"a", "<|endoftext|>"}},
		{spaceSplitter{}, " a\u3000b ", []string{"a", "b"}},
		{bertSplitter{}, " a,b ..", []string{"a", ",", "b", ".", "."}},
		{metaspace{mark: "_"}, "a  b_", []string{"_a", "_", "_b", "_"}},
		{metaspace{mark: "_", prefix: prefixNever, whole: true}, "a b", []string{"a_b"}},
	} {
		if got := collect(tt.s, tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%T: %q is split into %q, want %q", tt.s, tt.text, got, tt.want)
		}
		for stop := range tt.want { // yield may stop at any word
			count := 0
			tt.s.split(tt.text, true, func(string) bool {
				count++
				return count <= stop
			})
			if count != stop+1 {
				t.Errorf("%T: %q: %d words after the one that was to be the last", tt.s, tt.text, count-stop-1)
			}
		}
	}
}

// TestTables checks that the tables are sorted and say what they are for.
func TestTables(t *testing.T) {
	for name, list := range map[string]string{"letter": unicode16Letter, "number": unicode16Number,
		"word": unicode16InWord, "mark": unicode8Mark, "punctuation": unicode8Punctuation, "other": unicode8Other,
		"newer": afterUnicode9, "control": clusterControl, "extend": clusterExtend, "spacing": clusterSpacing,
		"prepend": clusterPrepend, "picture": clusterPicture, "consonant": clusterConsonant} {
		last := rune(-1)
		for _, item := range strings.Fields(list) {
			r := parseRange(item)
			if r.first <= last || r.last < r.first || r.last > utf8.MaxRune {
				t.Errorf("%s: %q comes after %x", name, item, last)
			}
			last = r.last
		}
	}
	classes := loadWordClasses()
	for text, want := range map[string]wordClass{"a": wordLetter, "é": wordLetter, "日": wordLetter, "1": wordNumber,
		"½": wordNumber, "\u00a0": wordSpace, "\t": wordSpace, "!": wordOther, "\u0301": wordOther,
		"\U00010d50": wordLetter, "\U0002ebf0": wordLetter, "😀": wordOther} {
		if got, n := classes.of(text); got != want || n != len(text) {
			t.Errorf("%q is of class %d, want %d", text, got, want)
		}
	}
}
