package vqa

import (
	"fmt"
	"strings"
)

// Split is a published part of a data set.
type Split struct {
	Name      string
	Questions int
}

// Splits returns the published splits with annotations in the layout.
func (l Layout) Splits() []Split {
	if l == LayoutAOKVQA {
		return []Split{{"A-OKVQA val", 1145}, {"A-OKVQA train", 17056}}
	}
	return []Split{{OKVQAVal, 5046}, {"OK-VQA train", 9009}, {"VQA v2 val", 214354}, {"VQA v2 train", 443757},
		{"VQA v1 val", 121512}, {"VQA v1 train", 248349}}
}

// OKVQAVal is the split on which OK-VQA is reported; its answers are lemmas.
const OKVQAVal = "OK-VQA val"

// GQASplits returns the published splits of GQA with answers.
func GQASplits() []Split {
	return []Split{{"GQA test-dev balanced", 12578}, {"GQA val balanced", 132062}, {"GQA train balanced", 943000},
		{"GQA test-dev", 172174}}
}

// FindSplit returns the name of the split of that many questions, and a problem if there is none.
func FindSplit(splits []Split, questions int) (name string, problems []Problem) {
	all := make([]string, len(splits))
	for i, s := range splits {
		if s.Questions == questions {
			return s.Name, nil
		}
		all[i] = fmt.Sprintf("%s %d", s.Name, s.Questions)
	}
	p := problem(ProblemSplit, nil, "%s is no published split (%s): the scores are not comparable with published ones",
		plural(questions, "question", "questions"), strings.Join(all, ", "))
	p.Count = questions
	return "", []Problem{p}
}

// CheckLemmas says when answers should have been lemmatised and were not, or the other way round.
func CheckLemmas(split string, lemmatized bool) []Problem {
	switch {
	case split == OKVQAVal && !lemmatized:
		return []Problem{problem(ProblemLemmas, nil,
			"the answers of OK-VQA are lemmas: published BLIP-2 figures are those of --lemmatize")}
	case split != "" && split != OKVQAVal && lemmatized:
		return []Problem{problem(ProblemLemmas, nil, "%s is not scored on lemmas: --lemmatize is for OK-VQA", split)}
	}
	return nil
}
