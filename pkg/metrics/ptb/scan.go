package ptb

import (
	"bytes"
	"runtime"
	"slices"
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
	out := make([]string, len(captions))
	if len(captions) == 0 {
		return out
	}
	text, starts := join(captions)
	chunks := make([]chunk, min(runtime.GOMAXPROCS(0), 1+len(text)/chunkUnits, len(captions)))
	var wg sync.WaitGroup
	for k := range chunks {
		first, last := k*len(captions)/len(chunks), (k+1)*len(captions)/len(chunks)
		chunks[k] = chunk{start: starts[first], end: starts[last], out: out[first:last]}
		wg.Go(func() { chunks[k].scan(text, finish) })
	}
	wg.Wait()
	if slices.ContainsFunc(chunks, func(c chunk) bool { return c.beyond }) {
		// A token reaches over a border, as mark-up may: what follows was cut from a wrong place.
		whole := chunk{end: len(text), out: out}
		whole.scan(text, finish)
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
	start, end int      // in the text
	out        []string // of its captions
	beyond     bool     // its last token reaches over its end
}

// scanners keep automata between calls, as far as they are built.
var scanners = sync.Pool{New: func() any { return newScanner() }}

// scan cuts the chunk's text and finishes its lines.
func (c *chunk) scan(text []uint16, finish func([]byte) string) {
	s := scanners.Get().(*scanner)
	defer scanners.Put(s)
	s.text, s.hopeless = text, nil
	lines := lineWriter{out: c.out, finish: finish}
	pos := c.start
	for pos < c.end {
		size, r := s.match(pos)
		token, rule := text[pos:pos+size-rules[r].split], &rules[r]
		pos += len(token)
		switch rule.as {
		case drop:
			continue
		case lineEnd:
			lines.end()
			continue
		case repeat:
			pos--
		case acronym:
			pos--
			if len(token) == 2 {
				token = token[:1]
			}
		}
		lines.add(token, rule)
	}
	c.beyond = pos > c.end
	if c.end == len(text) {
		lines.end()
	}
	s.text = nil
}

// lineWriter collects tokens as the reference prints them, one line per caption.
type lineWriter struct {
	line   []byte
	out    []string // of the lines still to come
	finish func([]byte) string
}

// end finishes a line.
func (w *lineWriter) end() {
	if len(w.out) > 0 {
		w.out[0] = w.finish(w.line)
		w.out = w.out[1:]
	}
	w.line = w.line[:0]
}

// add writes a token. Ends of lines inside it end lines, as they do in the reference's output.
func (w *lineWriter) add(token []uint16, r *rule) {
	if len(w.line) > 0 {
		w.line = append(w.line, ' ')
	}
	if w.addPlain(token, r) {
		return
	}
	text := lower(rewrite(string(utf16.Decode(token)), r))
	for {
		line, rest, more := strings.Cut(text, "\n")
		w.line = append(w.line, line...)
		if !more {
			return
		}
		w.end()
		text = rest
	}
}

// addPlain writes a token that only needs small letters; false if it needs more.
func (w *lineWriter) addPlain(token []uint16, r *rule) bool {
	if r.as != keep && r.as != hyphens {
		return false
	}
	n := len(w.line)
	for _, c := range token {
		switch {
		case c >= utf8.RuneSelf || c == '\n':
			w.line = w.line[:n]
			return false
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		}
		w.line = append(w.line, byte(c))
	}
	return true
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

const stride = 64

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
