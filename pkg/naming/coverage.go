package naming

import (
	"fmt"
	"slices"
	"strings"
)

// Note is a tensor's name with the reason for what became of it.
type Note struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"`
}

// Coverage says what became of every tensor of a checkpoint file and of the part of the model that it fills. All
// lists are sorted by name.
type Coverage struct {
	Path   string   `json:"path"`   // the file or folder
	Format string   `json:"format"` // how its tensors are named
	Filled []string `json:"filled"` // tensors of the model that got their numbers from the file
	Fresh  []Note   `json:"fresh"`  // tensors of the model that keep their initialisation

	Consumed   []string `json:"consumed"`   // tensors of the file that were used
	Ignored    []Note   `json:"ignored"`    // tensors of the file that are known to be of no use here
	Missing    []string `json:"missing"`    // tensors that the model needs and the file has not, or not all parts of
	Unexpected []string `json:"unexpected"` // tensors of the file that the model does not know
	Changes    []string `json:"changes"`    // what was adapted, such as a resized position table
}

// String is the coverage in one line, for the log.
func (c *Coverage) String() string {
	s := fmt.Sprintf("%s: %s: %d of %d tensors used for %d of the model's", c.Path, c.Format, len(c.Consumed),
		len(c.Consumed)+len(c.Ignored)+len(c.Unexpected), len(c.Filled))
	for _, part := range []struct {
		n    int
		what string
	}{{len(c.Fresh), "left as initialised"}, {len(c.Missing), "MISSING"}, {len(c.Unexpected), "UNEXPECTED"}} {
		if part.n > 0 {
			s += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	if len(c.Ignored) > 0 {
		s += fmt.Sprintf(", %d ignored (%s)", len(c.Ignored), strings.Join(reasons(c.Ignored), "; "))
	}
	if len(c.Changes) > 0 {
		s += "; " + strings.Join(c.Changes, "; ")
	}
	return s
}

// Lines is the coverage in detail: the line of String, then what was not simply used, by reason.
func (c *Coverage) Lines() []string {
	return slices.Concat([]string{c.String()}, c.Gaps(), NoteLines("ignored", c.Ignored))
}

// Gaps says, by reason, what the file has not that the model has, and what it has that is not known.
func (c *Coverage) Gaps() []string {
	unexplained := func(names []string) []Note {
		var notes []Note
		for _, name := range names {
			notes = append(notes, Note{Name: name})
		}
		return notes
	}
	return slices.Concat(NoteLines("missing", unexplained(c.Missing)),
		NoteLines("unexpected", unexplained(c.Unexpected)), NoteLines("not in the file", c.Fresh))
}

// NoteLines says what became of tensors, in a line for each reason with the first names.
func NoteLines(what string, notes []Note) []string {
	var lines []string
	for _, reason := range reasons(notes) {
		var names []string
		for _, n := range notes {
			if n.Reason == reason {
				names = append(names, n.Name)
			}
		}
		line := what + " " + some(names)
		if len(names) > 1 {
			line = fmt.Sprintf("%s %d tensors, %s", what, len(names), some(names))
		}
		if reason != "" {
			line += ": " + reason
		}
		lines = append(lines, line)
	}
	return lines
}

// reasons returns the different reasons in the order in which they first occur.
func reasons(notes []Note) []string {
	var out []string
	for _, n := range notes {
		if !slices.Contains(out, n.Reason) {
			out = append(out, n.Reason)
		}
	}
	return out
}

// Sort puts all lists in the order of their names.
func (c *Coverage) Sort() {
	byName := func(a, b Note) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(c.Fresh, byName)
	slices.SortFunc(c.Ignored, byName)
	for _, list := range [][]string{c.Filled, c.Consumed, c.Missing, c.Unexpected} {
		slices.Sort(list)
	}
}
