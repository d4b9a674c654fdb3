// Package naming says how the programs that publish checkpoints name the tensors of each network, and which of ours
// each tensor is. Ours are LAVIS's names, for networks that LAVIS has; for the others those of the first publication.
//
// A way of naming is a Table of rules with wildcards (vision.go, qformer.go, llm.go, clip.go, blip.go). One machine
// reads the tables in both directions: Plan decides for every tensor of a file and of the model what becomes of it,
// Export turns the model's tensors into a file's. A tensor of a file is used, ignored for a stated reason, or an error;
// a tensor of the model is filled, left to its initialisation for a stated reason, or an error. Nothing is passed over
// in silence: Coverage has it all.
//
// spec/weights.md 2–8 is where the names come from.
package naming

import (
	"slices"
	"strings"

	"blip2/pkg/weights"
)

// Source is an open checkpoint: one file, or the shards of a folder.
type Source interface {
	Names() []string // sorted
	// Info returns a tensor without its data.
	Info(name string) (weights.Tensor, error)
	Tensor(name string) (weights.Tensor, error)
}

// Table is one way to name the tensors of a checkpoint.
type Table struct {
	// Name says what is named and by whom, such as "BERT under Hugging Face names".
	Name string
	// Arch is the architecture of the image encoder in it; empty where there is none or no choice.
	Arch string
	// Respell replaces the last component of the file's names before they are looked up.
	Respell map[string]string
	// Rules map names of the file to names of the model; in either direction the first that matches counts.
	Rules []Rule
	// Ignored are names of the file that the model has no use for. They are tried before the rules.
	Ignored []Exception
	// Dropped are names of the model that this way of naming has no place for.
	Dropped []Exception
	// Twins are names of the model that a file may hold beside, or in place of, another that is the same tensor.
	Twins []Twin
	// Copies says that a tensor of the model which the file lacks starts as a copy of another: from, to.
	Copies []Rule
	// Fresh are tensors of the model that this format never has: they keep their initialisation.
	Fresh []Exception
	// Optional are groups of tensors of the model of which a file of this format has all or none.
	Optional []Exception
}

// Exception is a pattern of names with the reason for treating them apart.
type Exception struct{ Pattern, Reason string }

// Twin are the model's names of one tensor that two modules share: Name is the one that the model has.
type Twin struct{ Name, Other string }

// compose puts the tables of a model's parts together under a new name.
func compose(name string, parts ...Table) Table {
	out := Table{Name: name, Respell: map[string]string{}}
	for _, p := range parts {
		for from, to := range p.Respell {
			out.Respell[from] = to
		}
		out.Rules = append(out.Rules, p.Rules...)
		out.Ignored = append(out.Ignored, p.Ignored...)
		out.Dropped = append(out.Dropped, p.Dropped...)
		out.Twins = append(out.Twins, p.Twins...)
		out.Copies = append(out.Copies, p.Copies...)
		out.Fresh = append(out.Fresh, p.Fresh...)
		out.Optional = append(out.Optional, p.Optional...)
	}
	return out
}

// targets returns the tensors of the model that the file's tensor contributes to, none if it is ignored or unknown.
func (t Table) targets(name string) []target {
	if _, ok := find(t.Ignored, name); ok {
		return nil
	}
	if at := strings.LastIndexByte(name, '.'); at >= 0 {
		if last, ok := t.Respell[name[at+1:]]; ok {
			name = name[:at+1] + last
		}
	}
	for _, r := range t.Rules {
		if targets := r.targets(name); targets != nil {
			return targets
		}
	}
	return nil
}

// Knows counts the names that the table has a rule for and those that it has neither a rule nor a reason to ignore.
func (t Table) Knows(names []string) (known, unknown int) {
	for _, name := range names {
		if len(t.targets(name)) > 0 {
			known++
		} else if _, ok := find(t.Ignored, name); !ok {
			unknown++
		}
	}
	return known, unknown
}

// Ours returns the model's names of the tensors that the file's tensor contributes to.
func (t Table) Ours(name string) []string {
	var out []string
	for _, target := range t.targets(name) {
		out = append(out, target.name)
	}
	return out
}

// find returns the reason of the first exception that matches the name.
func find(list []Exception, name string) (reason string, ok bool) {
	for _, e := range list {
		if _, ok := match(e.Pattern, name); ok {
			return e.Reason, true
		}
	}
	return "", false
}

// twinOf returns the tensor that the model has in place of the named one; the name itself if it is no twin.
func (t Table) twinOf(name string) string {
	if i := slices.IndexFunc(t.Twins, func(w Twin) bool { return w.Other == name }); i >= 0 {
		return t.Twins[i].Name
	}
	return name
}

// WhyDropped returns the reason why this way of naming has no place for the model's tensor, empty if it has one.
func (t Table) WhyDropped(name string) string {
	reason, _ := find(t.Dropped, name)
	return reason
}
