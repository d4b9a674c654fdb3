package vqa

// GQAScores are the two accuracies that are reported for GQA, in percent, not rounded.
type GQAScores struct {
	// Normalised compares after Normalise on both sides, as LAVIS does.
	Normalised float64
	// Raw compares the strings as they are, as the official evaluator does.
	Raw float64
	// Matches and RawMatches say it per answer.
	Matches, RawMatches []bool
}

// ScoreGQA scores predictions against as many right answers.
func ScoreGQA(predictions, answers []string) GQAScores {
	if len(predictions) != len(answers) {
		panic("vqa: as many predictions as answers are needed")
	}
	m := newMemory()
	s := GQAScores{Matches: make([]bool, len(answers)), RawMatches: make([]bool, len(answers))}
	same, raw := 0, 0
	for i, answer := range answers {
		if s.Matches[i] = m.normalise(predictions[i]) == m.normalise(answer); s.Matches[i] {
			same++
		}
		if s.RawMatches[i] = predictions[i] == answer; s.RawMatches[i] {
			raw++
		}
	}
	if n := float64(len(answers)); n > 0 {
		// The order of the operations is the reference's, so that the last bit is too.
		s.Normalised, s.Raw = float64(same)/n*100, 100*float64(raw)/n
	}
	return s
}

// ByType groups the normalised accuracy by the questions' structural types (Type) and semantic types (AnswerType).
func (s GQAScores) ByType(questions []Question) (structural, semantic map[string]Group) {
	byType, bySemantic := map[string]*sum{}, map[string]*sum{}
	for i, q := range questions {
		v := 0.0
		if s.Matches[i] {
			v = 1
		}
		addTo(byType, q.Type, v)
		addTo(bySemantic, q.AnswerType, v)
	}
	plain := NewJudge(Direct) // does not round
	return plain.groups(byType), plain.groups(bySemantic)
}
