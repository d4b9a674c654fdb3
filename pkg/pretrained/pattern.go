package pretrained

import "strings"

// A pattern is a tensor name in which the component "*" stands for any one component (a layer number, "weight"), and
// "**" as the last component for one or more. Two names of the same tensor are two patterns with the same wildcards in
// the same order.

// match returns what the pattern's wildcards stand for in the name.
func match(pattern, name string) (wild []string, ok bool) {
	for {
		want, restOfPattern, more := strings.Cut(pattern, ".")
		if want == "**" {
			return append(wild, name), name != ""
		}
		got, rest, moreName := strings.Cut(name, ".")
		switch {
		case want == "*" && got != "":
			wild = append(wild, got)
		case want != got:
			return nil, false
		}
		if more != moreName {
			return nil, false
		}
		if !more {
			return wild, true
		}
		pattern, name = restOfPattern, rest
	}
}

// expand puts the wildcards' values into the pattern.
func expand(pattern string, wild []string) string {
	parts := strings.Split(pattern, ".")
	for i, p := range parts {
		if p == "*" || p == "**" {
			parts[i], wild = wild[0], wild[1:]
		}
	}
	return strings.Join(parts, ".")
}

// op says how the numbers of the file's tensors become those of the model's.
type op int

const (
	// opCopy: one tensor on either side, the same numbers.
	opCopy op = iota
	// opRows: the file's tensors one below the other are the model's.
	opRows
	// opQKVBias: the file's tensor is the model's first, then as many zeros, then the model's second.
	opQKVBias
)

// rule says that tensors of the file and tensors of the model are the same. One of theirs and ours has one pattern;
// all have the same wildcards. Rules can be read in both directions.
type rule struct {
	op           op
	theirs, ours []string
}

// same is the rule that a tensor of the file is a tensor of the model.
func same(theirs, ours string) rule { return rule{opCopy, []string{theirs}, []string{ours}} }

// rows is the rule that a tensor of the model is cut into several by its rows.
func rows(ours string, theirs ...string) rule { return rule{opRows, theirs, []string{ours}} }

// qkvBias is the rule for an attention whose file has one bias for queries, keys and values, but whose keys have none.
func qkvBias(theirs, q, v string) rule { return rule{opQKVBias, []string{theirs}, []string{q, v}} }

// target is a tensor of the model that a tensor of the file contributes to.
type target struct {
	name  string
	rule  rule
	wild  []string
	slot  int // which of rule.theirs the file's tensor is
	piece int // which of rule.ours the target is
}

// targets returns what the file's tensor of that name contributes to.
func (r rule) targets(name string) []target {
	for slot, pattern := range r.theirs {
		wild, ok := match(pattern, name)
		if !ok {
			continue
		}
		var out []target
		for piece, ours := range r.ours {
			out = append(out, target{expand(ours, wild), r, wild, slot, piece})
		}
		return out
	}
	return nil
}
