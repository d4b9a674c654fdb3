package ptb

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Tokenize cuts captions into tokens: in lower case, without punctuation, joined by single spaces; "" if none is left.
// All captions are one text, as the reference takes them: what a caption ends in can depend on how the next begins
// (a single letter and a period). Ends of lines inside a caption count as spaces. What is not UTF-8 counts as U+FFFD.
func Tokenize(captions []string) []string { return tokenize(captions, withoutPunctuation) }

// Lines is Tokenize with the punctuation tokens still there, for comparing with what the reference prints.
func Lines(captions []string) []string {
	return tokenize(captions, func(line []byte) string { return string(line) })
}

// chunkUnits is how much text is worth a goroutine of its own, in UTF-16 units.
const chunkUnits = 1 << 15

func tokenize(captions []string, finish func([]byte) string) []string {
	text, starts := join(captions)
	out := make([]string, len(captions))
	chunks := min(runtime.GOMAXPROCS(0), 1+len(text)/chunkUnits, max(1, len(captions)))
	results := make([]chunk, chunks)
	var wg sync.WaitGroup
	for k := range results {
		first, last := k*len(captions)/chunks, (k+1)*len(captions)/chunks
		results[k] = chunk{line: first, end: len(text), start: starts[first]}
		if last < len(captions) {
			results[k].end = starts[last]
		}
		wg.Go(func() { results[k].scan(text, finish, out) })
	}
	wg.Wait()
	for k := 1; k < chunks; k++ {
		if before := &results[k-1]; before.stopped > results[k].start {
			// A token reaches over the border: mark-up may hold ends of lines.
			before.end = results[k].end
			before.start = before.stopped
			before.scan(text, finish, out)
			results[k].stopped = before.stopped
			results[k].line, results[k].open = before.line, before.open
		}
	}
	return out
}

// join makes one text of the captions and says where each begins.
func join(captions []string) (text []uint16, starts []int) {
	size := 0
	for _, c := range captions {
		size += len(c) + 1
	}
	text = make([]uint16, 0, size)
	starts = make([]int, 0, len(captions)+1)
	for i, c := range captions {
		if i > 0 {
			text = append(text, '\n')
		}
		starts = append(starts, len(text))
		for _, r := range c {
			switch r {
			case '\n', '\r', '\v', '\f', 0x2028, 0x2029:
				r = ' '
			}
			text = utf16.AppendRune(text, r)
		}
	}
	return text, append(starts, len(text))
}

// chunk is a run of captions.
type chunk struct {
	line       int // the caption at start
	start, end int // in the text
	stopped    int // where the scan ended: behind end if a token reaches over it
	open       []byte
}

// scanners keep automata between calls, as far as they are built.
var scanners = sync.Pool{New: func() any { return newScanner() }}

// scan cuts the chunk's text and finishes its lines.
func (c *chunk) scan(text []uint16, finish func([]byte) string, out []string) {
	s := scanners.Get().(*scanner)
	defer scanners.Put(s)
	s.text, s.hopeless = text, nil
	line, pos := c.open, c.start
	end := func() {
		if c.line < len(out) {
			out[c.line] = finish(line)
		}
		c.line++
		line = line[:0]
	}
	for pos < c.end {
		size, r := s.match(pos)
		token := text[pos : pos+size]
		pos += size
		if rules[r].as == lineEnd {
			end()
			continue
		}
		if rules[r].as == drop {
			continue
		}
		pos -= rules[r].split
		token = token[:len(token)-rules[r].split]
		switch rules[r].as {
		case repeat:
			pos--
		case acronym:
			if pos--; len(token) == 2 {
				token = token[:1]
			}
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		line = s.write(line, token, rules[r])
		for {
			cut := bytes.IndexByte(line, '\n')
			if cut < 0 {
				break
			}
			rest := bytes.Clone(line[cut+1:])
			line = line[:cut]
			end()
			line = append(line, rest...)
		}
	}
	if c.stopped = pos; pos == len(text) {
		end()
	}
	c.open = bytes.Clone(line)
	s.text = nil
}

// scanner finds the longest match at a place.
type scanner struct {
	g     *grammar
	whole *dfa
	token []*dfa // of rules whose lookahead varies in length
	next  []*dfa
	text  []uint16

	// hopeless remembers, at every stride-th place that was reached in vain, the states in which it was: without it, a
	// text that keeps promising a longer token takes time by the square of its length.
	hopeless map[place]bool
}

type place struct {
	pos   int
	state int32
}

const stride = 256

func newScanner() *scanner {
	g := theGrammar()
	s := &scanner{g: g, whole: newDFA(g), token: make([]*dfa, len(rules)), next: make([]*dfa, len(rules))}
	for i, la := range g.ahead {
		if la.fixed < 0 {
			s.token[i], s.next[i] = newDFA(la.token), newDFA(la.next)
		}
	}
	return s
}

// match returns the length of the token at pos and its rule. There is always one.
func (s *scanner) match(pos int) (size int, rule int32) {
	d, state := s.whole, s.whole.start
	end, rule := pos+1, int32(len(rules)-1)
	tried := len(s.text)
	var visited []place
	for i := pos; i < len(s.text); i++ {
		if state = d.step(state, s.g.classes[s.text[i]]); state == dead {
			break
		}
		if f := d.final[state]; f >= 0 {
			end, rule = i+1, f
		}
		if i%stride == 0 && i > pos+stride {
			p := place{i, state}
			if s.hopeless[p] {
				break
			}
			visited = append(visited, p)
		}
	}
	_ = tried
	for _, p := range visited {
		if p.pos >= end {
			if s.hopeless == nil {
				s.hopeless = map[place]bool{}
			}
			s.hopeless[p] = true
		}
	}
	return s.withoutAhead(pos, end, rule) - pos, rule
}

// withoutAhead returns where the token of a match ends: at the last place from which the rest of the match is what the
// rule wants to see ahead.
func (s *scanner) withoutAhead(pos, end int, rule int32) int {
	if fixed := s.g.ahead[rule].fixed; fixed >= 0 {
		return end - fixed
	}
	d, state := s.token[rule], s.token[rule].start
	best := end
	for i := pos; i < end; i++ {
		if state = d.step(state, s.g.classes[s.text[i]]); state == dead {
			break
		}
		if d.final[state] >= 0 && s.follows(i+1, end, rule) {
			best = i + 1
		}
	}
	return best
}

// follows says whether the text from pos to end is what the rule wants to see ahead.
func (s *scanner) follows(pos, end int, rule int32) bool {
	d, state := s.next[rule], s.next[rule].start
	for i := pos; i < end && state != dead; i++ {
		state = d.step(state, s.g.classes[s.text[i]])
	}
	return d.final[state] >= 0
}

// write appends the token as the reference prints it.
func (s *scanner) write(line []byte, token []uint16, r rule) []byte {
	if r.as == keep || r.as == hyphens {
		if n := len(line); true {
			for _, c := range token {
				if c >= utf8.RuneSelf {
					line = line[:n]
					return append(line, lower(rewrite(string(utf16.Decode(token)), r))...)
				}
				if 'A' <= c && c <= 'Z' {
					c |= 0x20
				}
				line = append(line, byte(c))
			}
		}
		return line
	}
	return append(line, lower(rewrite(string(utf16.Decode(token)), r))...)
}

var (
	openQuotes  = strings.NewReplacer("&apos;", "`", "'", "`", `"`, "``", "&quot;", "``")
	closeQuotes = strings.NewReplacer("&apos;", "'", `"`, "''", "&quot;", "''")
	curlyQuotes = strings.NewReplacer("\u0091", "`", "\u2018", "`", "\u201B", "`", "\u2039", "`", "\u0092", "'",
		"\u2019", "'", "\u203A", "'", "\u0093", "``", "\u201C", "``", "\u00AB", "``", "\u0094", "''", "\u201D", "''",
		"\u00BB", "''")
	fractions  = strings.NewReplacer("\u00BC", "1/4", "\u00BD", "1/2", "\u00BE", "3/4", "\u2153", "1/3", "\u2154", "2/3")
	currencies = strings.NewReplacer("\u00A2", "cents", "\u00A3", "#", "\u0080", "$", "\u00A4", "$", "\u20A0", "$",
		"\u20AC", "$")
	roundBrackets = strings.NewReplacer("(", "-LRB-", ")", "-RRB-")
)

// rewrite makes the token of the text.
func rewrite(text string, r rule) string {
	switch r.as {
	case hyphens:
		if text = strings.ReplaceAll(text, "\u00AD", ""); text == "" {
			return "-"
		}
	case opening:
		return curlyQuotes.Replace(openQuotes.Replace(text))
	case closing:
		return curlyQuotes.Replace(closeQuotes.Replace(text))
	case ampersand:
		for i := 0; i+5 <= len(text); i++ {
			if strings.EqualFold(text[i:i+5], "&amp;") {
				text = text[:i+1] + text[i+5:]
			}
		}
	case dash:
		return "--"
	case dashes:
		if len(text) == 3 || len(text) == 4 {
			return "--"
		}
	case ellipsis:
		return "..."
	case fraction:
		return fractions.Replace(text)
	case currency:
		return currencies.Replace(text)
	case spaces:
		return strings.ReplaceAll(text, " ", "\u00A0")
	case phone:
		return roundBrackets.Replace(strings.ReplaceAll(text, " ", "\u00A0"))
	case brackets:
		return roundBrackets.Replace(text)
	case literal:
		return r.text
	}
	return text
}

// lower is Java's String.toLowerCase: like strings.ToLower, but İ keeps its dot and a sigma that ends a word is final.
func lower(s string) string {
	if !strings.ContainsAny(s, "İΣ") {
		return strings.ToLower(s)
	}
	runes := []rune(s)
	var b strings.Builder
	for i, r := range runes {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && finalSigma(runes, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// finalSigma says whether a cased letter stands before place i and none behind, marks and apostrophes not counted.
func finalSigma(runes []rune, i int) bool {
	cased := func(at, step int) bool {
		for at += step; 0 <= at && at < len(runes); at += step {
			if r := runes[at]; !ignorable(r) {
				return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) ||
					unicode.In(r, unicode.Other_Lowercase, unicode.Other_Uppercase)
			}
		}
		return false
	}
	return cased(i, -1) && !cased(i, 1)
}

// ignorable says whether a character does not count where words end.
func ignorable(r rune) bool {
	switch r {
	case '\'', '.', ':', '^', '`', 0xA8, 0xAD, 0xAF, 0xB4, 0xB7, 0xB8, 0x2019, 0x2018, 0x2024, 0x2027:
		return true
	}
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}

// punctuation are the tokens that coco-caption takes out. Brackets are not taken out: the list has them in capitals,
// the tokens are in small letters.
func punctuation(token []byte) bool {
	switch string(token) {
	case "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";":
		return true
	}
	return false
}

// withoutPunctuation is the line as coco-caption returns it.
func withoutPunctuation(line []byte) string {
	line = bytes.TrimRightFunc(line, pythonSpace)
	kept := make([]byte, 0, len(line))
	for first := true; len(line) > 0 || first; first = false {
		token, rest, more := bytes.Cut(line, []byte(" "))
		if !punctuation(token) {
			if len(kept) > 0 {
				kept = append(kept, ' ')
			}
			kept = append(kept, token...)
		}
		if line = rest; !more {
			break
		}
	}
	return string(kept)
}

// pythonSpace is what Python's str.rstrip takes away.
func pythonSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F
}
