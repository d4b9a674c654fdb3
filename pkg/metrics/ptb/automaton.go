package ptb

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"sort"
	"strings"
	"sync"
)

// grammar is the rules as one nondeterministic automaton over classes of characters.
type grammar struct {
	nodes   []node
	starts  []int32 // the node that begins rule i
	classes [1 << 16]uint8
	count   int // of classes
	ahead   []lookahead
}

// node consumes one character of its classes, ends a rule or, without either, leads on without a character.
type node struct {
	to     []int32
	member [4]uint64 // the classes it takes
	rule   int32     // of which it is the end; -1: none
	eats   bool
}

// lookahead says how long the token is where a rule has matched what follows it, too.
type lookahead struct {
	fixed int      // characters that follow; -1: that varies
	token *grammar // else the token alone
	next  *grammar // and what follows alone
}

// theGrammar compiles the rules when the first text comes.
var theGrammar = sync.OnceValue(func() *grammar {
	expand := expander()
	var whole, token, next []*syntax.Regexp
	for _, r := range rules {
		token, next = append(token, parse(expand(r.pattern))), append(next, parse(expand(r.ahead)))
		whole = append(whole, parse("(?:"+expand(r.pattern)+")(?:"+expand(r.ahead)+")"))
	}
	parts := append(append(slices.Clone(whole), token...), next...)
	classes, count, sample := characterClasses(parts)
	g := compile(whole, classes, count, sample)
	for i := range rules {
		la := lookahead{fixed: -1}
		if shortest, longest := lengths(next[i]); shortest == longest {
			la.fixed = shortest
		} else {
			la.token = compile(token[i:i+1], classes, count, sample)
			la.next = compile(next[i:i+1], classes, count, sample)
		}
		g.ahead = append(g.ahead, la)
	}
	return g
})

// parse reads a pattern, whose letters outside of classes stand for both cases.
func parse(pattern string) *syntax.Regexp {
	re, err := syntax.Parse(bothCases(pattern), syntax.Perl)
	if err != nil {
		panic(err) // the patterns are constants
	}
	return re.Simplify()
}

// bothCases replaces letters by classes of their cases.
func bothCases(pattern string) string {
	var b strings.Builder
	inClass := false
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			end := i + 2
			if pattern[i+1] == 'x' {
				end = i + strings.IndexByte(pattern[i:], '}') + 1
			}
			b.WriteString(pattern[i:end])
			i = end - 1
		case strings.HasPrefix(pattern[i:], "(?") && !inClass:
			end := i + strings.IndexByte(pattern[i:], ':')
			b.WriteString(pattern[i : end+1])
			i = end
		case inClass || !isLetter(c):
			inClass = c == '[' || inClass && c != ']'
			b.WriteByte(c)
			if c == '[' && strings.HasPrefix(pattern[i:], "[:digit:]") {
				b.WriteString(":digit:]")
				i += len(":digit:]")
			}
		default:
			b.WriteString("[" + strings.ToLower(string(c)) + strings.ToUpper(string(c)) + otherCases[c|0x20] + "]")
		}
	}
	return b.String()
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// otherCases are characters that some case mapping leads to an English letter.
var otherCases = map[byte]string{'i': "\u0130\u0131", 'k': "\u212A", 's': "\u017F"}

// lengths returns how many characters a pattern takes at least and at most; -1 is without limit.
func lengths(re *syntax.Regexp) (shortest, longest int) {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return 0, 0
	case syntax.OpLiteral:
		return len(re.Rune), len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1, 1
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			s, l := lengths(sub)
			shortest += s
			if longest >= 0 {
				longest += l
			}
			if l < 0 {
				longest = -1
			}
		}
		return shortest, longest
	case syntax.OpAlternate:
		shortest, longest = lengths(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			s, l := lengths(sub)
			shortest = min(shortest, s)
			if l < 0 || longest >= 0 {
				longest = max(longest, l)
			}
			if l < 0 {
				longest = -1
			}
		}
		return shortest, longest
	}
	return 0, -1 // repetitions
}

// characterClasses divides the 16-bit characters into classes that no part of the patterns tells apart, and gives a
// character of each.
func characterClasses(parts []*syntax.Regexp) (classes [1 << 16]uint8, count int, sample []rune) {
	sets := map[string][]rune{}
	bounds := map[rune]bool{0: true}
	var walk func(*syntax.Regexp)
	walk = func(re *syntax.Regexp) {
		for _, set := range charSets(re) {
			key := string(set)
			if _, ok := sets[key]; ok {
				continue
			}
			sets[key] = set
			for i := 0; i < len(set); i += 2 {
				bounds[set[i]], bounds[set[i+1]+1] = true, true
			}
		}
		for _, sub := range re.Sub {
			walk(sub)
		}
	}
	for _, re := range parts {
		walk(re)
	}
	keys := make([]string, 0, len(sets))
	for key := range sets {
		keys = append(keys, key)
	}
	starts := make([]rune, 0, len(bounds))
	for r := range bounds {
		if r <= 0xFFFF {
			starts = append(starts, r)
		}
	}
	slices.Sort(starts)
	ids := map[string]uint8{}
	signature := make([]byte, (len(keys)+7)/8)
	for i, r := range starts {
		clear(signature)
		for k, key := range keys {
			if inSet(sets[key], r) {
				signature[k/8] |= 1 << (k % 8)
			}
		}
		id, ok := ids[string(signature)]
		if !ok {
			id = uint8(len(ids))
			ids[string(signature)] = id
			sample = append(sample, r)
		}
		end := rune(0x10000)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		for c := r; c < end; c++ {
			classes[c] = id
		}
	}
	return classes, len(ids), sample
}

// charSets returns the sets of characters that a part consumes, as pairs of first and last.
func charSets(re *syntax.Regexp) [][]rune {
	switch re.Op {
	case syntax.OpCharClass:
		return [][]rune{re.Rune}
	case syntax.OpAnyCharNotNL:
		return [][]rune{{0, '\n' - 1, '\n' + 1, 0xFFFF}}
	case syntax.OpLiteral:
		var out [][]rune
		for _, r := range re.Rune {
			out = append(out, literalSet(r, re.Flags))
		}
		return out
	}
	return nil
}

// literalSet is one character, or its cases.
func literalSet(r rune, flags syntax.Flags) []rune {
	inst := syntax.Inst{Op: syntax.InstRune, Rune: []rune{r}, Arg: uint32(flags)}
	all := []rune{r, r}
	for _, c := range []rune{r ^ 0x20, 0x212A, 0x017F} {
		if c != r && flags&syntax.FoldCase != 0 && inst.MatchRune(c) {
			all = append(all, c, c)
		}
	}
	return all
}

func inSet(set []rune, r rune) bool {
	if len(set) <= 8 {
		for i := 0; i < len(set); i += 2 {
			if set[i] <= r && r <= set[i+1] {
				return true
			}
		}
		return false
	}
	i := sort.Search(len(set)/2, func(i int) bool { return r <= set[2*i+1] })
	return 2*i < len(set) && set[2*i] <= r
}

// compile joins the programs of the patterns; pattern i becomes rule i.
func compile(patterns []*syntax.Regexp, classes [1 << 16]uint8, count int, sample []rune) *grammar {
	g := &grammar{classes: classes, count: count}
	for i, re := range patterns {
		prog, err := syntax.Compile(re)
		if err != nil {
			panic(err) // the patterns are constants
		}
		base := int32(len(g.nodes))
		g.starts = append(g.starts, base+int32(prog.Start))
		for k := range prog.Inst {
			inst, n := &prog.Inst[k], node{rule: -1}
			switch inst.Op {
			case syntax.InstAlt, syntax.InstAltMatch:
				n.to = []int32{base + int32(inst.Out), base + int32(inst.Arg)}
			case syntax.InstMatch:
				n.rule = int32(i)
			case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
				n.to, n.eats = []int32{base + int32(inst.Out)}, true
				for id, r := range sample {
					if inst.MatchRune(r) {
						n.member[id/64] |= 1 << (id % 64)
					}
				}
			case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
				n.to = []int32{base + int32(inst.Out)}
			}
			g.nodes = append(g.nodes, n)
		}
	}
	return g
}

// Special states of a dfa.
const (
	dead    = 0
	unbuilt = -1
)

// dfa is the deterministic automaton of a grammar, as far as texts have needed it. The reference's has 3,500 states;
// so many this one can have, too.
type dfa struct {
	g     *grammar
	next  []int32 // [state·classes + class]
	final []int32 // rule that ends in a state; -1: none
	sets  [][]int32
	ids   map[string]int32
	start int32

	mark  []uint32 // of nodes visited in round
	round uint32
}

func newDFA(g *grammar) *dfa {
	d := &dfa{g: g, ids: map[string]int32{}, mark: make([]uint32, len(g.nodes))}
	d.state(nil)
	d.round++
	var set []int32
	for _, n := range g.starts {
		set = d.close(set, n)
	}
	d.start = d.state(set)
	return d
}

// close adds the nodes that node n leads to without a character.
func (d *dfa) close(set []int32, n int32) []int32 {
	if d.mark[n] == d.round {
		return set
	}
	d.mark[n] = d.round
	nd := &d.g.nodes[n]
	if nd.eats || nd.rule >= 0 {
		return append(set, n)
	}
	for _, to := range nd.to {
		set = d.close(set, to)
	}
	return set
}

// state returns the state of a set of nodes.
func (d *dfa) state(set []int32) int32 {
	slices.Sort(set)
	key := make([]byte, 0, 4*len(set))
	final := int32(-1)
	for _, n := range set {
		key = binary.LittleEndian.AppendUint32(key, uint32(n))
		if r := d.g.nodes[n].rule; r >= 0 && (final < 0 || r < final) {
			final = r
		}
	}
	if id, ok := d.ids[string(key)]; ok {
		return id
	}
	id := int32(len(d.sets))
	d.ids[string(key)] = id
	d.sets, d.final = append(d.sets, set), append(d.final, final)
	row := make([]int32, d.g.count)
	if id != dead {
		for i := range row {
			row[i] = unbuilt
		}
	}
	d.next = append(d.next, row...)
	return id
}

// step returns the state after a character of the class.
func (d *dfa) step(state int32, class uint8) int32 {
	at := int(state)*d.g.count + int(class)
	if to := d.next[at]; to != unbuilt {
		return to
	}
	d.round++
	var set []int32
	for _, n := range d.sets[state] {
		nd := &d.g.nodes[n]
		if nd.eats && nd.member[class/64]>>(class%64)&1 == 1 {
			set = d.close(set, nd.to[0])
		}
	}
	to := d.state(set)
	d.next[at] = to
	return to
}
