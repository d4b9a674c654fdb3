package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/metrics/lemma"
	"blip2/pkg/metrics/vqa"
)

type scoreVQAOptions struct {
	results, questions, annotations string
	scorer                          string
	lemmatize                       bool
	answeredOnly                    bool
	perQuestion                     string
}

func newScoreVQACmd(app *App) *cobra.Command {
	var opts scoreVQAOptions
	cmd := &cobra.Command{
		Use:   "vqa",
		Short: "Accuracy of answers: VQA v2, OK-VQA and A-OKVQA",
		Long: `Scores answers against those of several people, overall, by type of answer and by type of question,
as one of two scorers does: "official" is the VQA challenge's, "lavis" its older copy inside LAVIS, from which published
BLIP-2 figures come. They differ: the copy never normalises articles and number words of the people's answers. For
A-OKVQA both count a third for every equal direct answer, at most 1; "official" leaves out the questions marked as
difficult, as A-OKVQA's own evaluator does.

Results are a list of {"question_id", "answer"}, LAVIS's lists ("pred_ans"), such objects line by line, or A-OKVQA's
predictions by id. Annotations are the official files. All may be compressed with gzip.

For OK-VQA the nouns and verbs of the predictions are replaced by their lemmas first (--lemmatize), as those of the
published answers are; the score without that is printed too. The lemmatiser is close to that of the reference, not
equal: it gives the same for about 97 of 100 answers.

Questions without a result count as wrong. That, results without a question, answers given twice, empty answers and a
number of questions that no published split has are said on stderr.`,
		Example: `  blip2 score vqa --results results.json --questions v2_OpenEnded_mscoco_val2014_questions.json \
    --annotations v2_mscoco_val2014_annotations.json
  blip2 score vqa --results okvqa.json --annotations mscoco_val2014_annotations.json --lemmatize --scorer lavis
  blip2 score vqa --results preds.json --annotations aokvqa_v1p0_val.json --per-question out.jsonl --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runScoreVQA(app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.results, "results", "", "`file` of the answers to score")
	flags.StringVar(&opts.questions, "questions", "", "`file` of the questions: checks that none is missing")
	flags.StringVar(&opts.annotations, "annotations", "", "`file` of the people's answers (default: those that LAVIS's "+
		"A-OKVQA\nresults carry)")
	flags.StringVar(&opts.scorer, "scorer", string(vqa.Official), "official or lavis")
	flags.BoolVar(&opts.lemmatize, "lemmatize", false, "replace nouns and verbs of the answers by their lemmas (OK-VQA)")
	flags.BoolVar(&opts.answeredOnly, "answered-only", false, "leave out questions without a result")
	flags.StringVar(&opts.perQuestion, "per-question", "", "write the score of every question to this `file`, as JSON "+
		"lines")
	completeFiles(cmd, "results", "questions", "annotations")
	if err := cmd.RegisterFlagCompletionFunc("scorer", cobra.FixedCompletions(
		[]string{string(vqa.Official), string(vqa.LAVIS)}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined just above
	}
	return cmd
}

// completeFiles makes the shell complete flags with JSON files.
func completeFiles(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := cmd.MarkFlagFilename(flag, "json", "jsonl", "gz"); err != nil {
			panic(err) // the caller defined the flag
		}
	}
}

// vqaReport is what the command prints.
type vqaReport struct {
	Scorer          string               `json:"scorer"`
	Layout          vqa.Layout           `json:"layout"`
	Split           string               `json:"split,omitempty"`
	Questions       int                  `json:"questions"`
	Answered        int                  `json:"answered"`
	Overall         float64              `json:"overall"`
	PerAnswerType   map[string]vqa.Group `json:"per_answer_type,omitempty"`
	PerQuestionType map[string]vqa.Group `json:"per_question_type,omitempty"`
	Lemmatized      bool                 `json:"lemmatized"`
	// WithoutLemmas is the overall score of the answers as they are; only if they were lemmatized.
	WithoutLemmas *float64      `json:"overall_without_lemmas,omitempty"`
	Problems      []vqa.Problem `json:"problems"`
}

func runScoreVQA(app *App, opts scoreVQAOptions) error {
	scorer, err := vqa.ParseScorer(opts.scorer)
	if err != nil {
		return &UsageError{Err: err}
	}
	if opts.results == "" {
		return usagef("--results is missing: the file of answers to score")
	}
	err = checkOutputs([]namedFile{{"--results", opts.results}, {"--questions", opts.questions},
		{"--annotations", opts.annotations}}, namedFile{"--per-question", opts.perQuestion})
	if err != nil {
		return err
	}
	results, err := vqa.ReadResults(opts.results)
	if err != nil {
		return err
	}
	annotations, err := opts.readAnnotations(results)
	if err != nil {
		return err
	}
	report := vqaReport{Scorer: string(scorer), Layout: annotations.Layout, Lemmatized: opts.lemmatize}
	report.Problems = annotations.Check()
	if opts.questions != "" {
		ids, err := vqa.ReadQuestionIDs(opts.questions)
		if err != nil {
			return err
		}
		report.Problems = append(report.Problems, annotations.CheckQuestions(ids)...)
	}
	var problems []vqa.Problem
	report.Split, problems = vqa.FindSplit(annotations.Layout.Splits(), len(annotations.Questions))
	report.Problems = append(report.Problems, problems...)
	report.Problems = append(report.Problems, vqa.CheckLemmas(report.Split, opts.lemmatize)...)

	asked, kept := annotations.Asked(scorer, results)
	if left := len(annotations.Questions) - len(asked); left > 0 {
		app.Log.Info("questions marked as difficult are left out, as A-OKVQA's evaluator does", "questions", left)
	}
	matched := vqa.Match(asked, kept, opts.answeredOnly)
	report.Problems = append(report.Problems, matched.Problems...)
	warnProblems(app, report.Problems)
	if len(matched.Questions) == 0 {
		return errors.New("no question has a result: are results and annotations of the same split?")
	}
	return opts.score(app, report, annotations, matched, annotations.Layout.Rule(scorer))
}

// readAnnotations reads the annotations, or takes those that the results carry.
func (o scoreVQAOptions) readAnnotations(results *vqa.Results) (*vqa.Annotations, error) {
	if o.annotations != "" {
		return vqa.ReadAnnotations(o.annotations)
	}
	questions := results.TruthQuestions()
	if questions == nil {
		return nil, usagef("--annotations is missing: the file of the people's answers")
	}
	return &vqa.Annotations{Layout: vqa.LayoutAOKVQA, Questions: questions}, nil
}

// score scores what was matched, writes the file of every question and prints the report.
func (o scoreVQAOptions) score(app *App, r vqaReport, a *vqa.Annotations, m *vqa.Matched, rule vqa.Scorer) error {
	predictions := m.Predictions
	judge := vqa.NewJudge(rule)
	if o.lemmatize {
		without := judge.Score(m.Questions, m.Predictions).Overall
		r.WithoutLemmas = &without
		predictions = lemmatize(m.Predictions)
	}
	scores := judge.Score(m.Questions, predictions)
	r.Questions, r.Overall = len(m.Questions), scores.Overall
	for _, answered := range m.Answered {
		if answered {
			r.Answered++
		}
	}
	r.PerAnswerType, r.PerQuestionType = named(scores.ByAnswerType, nil), named(scores.ByQuestionType, a.TypeNames)
	if o.perQuestion != "" {
		if err := writePerQuestion(o.perQuestion, m, predictions, scores.PerQuestion, o.lemmatize); err != nil {
			return err
		}
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// lemmatize returns the answers with lemmas; those that repeat are worked out once.
func lemmatize(answers []string) []string {
	l := lemma.New()
	known := map[string]string{}
	out := make([]string, len(answers))
	for i, answer := range answers {
		lemmas, ok := known[answer]
		if !ok {
			lemmas = l.Lemmatize(answer)
			known[answer] = lemmas
		}
		out[i] = lemmas
	}
	return out
}

// named replaces names of groups, and drops the groups if the only one has no name.
func named(groups map[string]vqa.Group, names map[string]string) map[string]vqa.Group {
	if _, ok := groups[""]; ok && len(groups) == 1 {
		return nil
	}
	out := make(map[string]vqa.Group, len(groups))
	for name, group := range groups {
		if full := names[name]; full != "" {
			name = full
		}
		out[name] = group
	}
	if len(out) < len(groups) {
		return groups // two types of one name: their own names tell them apart
	}
	return out
}

// warnProblems says on stderr what may make the scores wrong.
func warnProblems(app *App, problems []vqa.Problem) {
	for _, p := range problems {
		app.Log.Warn(p.Message)
	}
}

// perQuestionRow is a line of the file of every question.
type perQuestionRow struct {
	ID         string   `json:"question_id"`
	Type       string   `json:"question_type,omitempty"`
	AnswerType string   `json:"answer_type,omitempty"`
	Answered   bool     `json:"answered"`
	Prediction string   `json:"prediction"`
	Lemmatized *string  `json:"lemmatized,omitempty"`
	Answers    []string `json:"answers"`
	Accuracy   float64  `json:"accuracy"`
}

func writePerQuestion(path string, m *vqa.Matched, scored []string, accuracy []float64, lemmatized bool) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		buffer := bufio.NewWriter(w)
		encode := json.NewEncoder(buffer)
		encode.SetEscapeHTML(false)
		for i, q := range m.Questions {
			row := perQuestionRow{ID: q.ID, Type: q.Type, AnswerType: q.AnswerType, Answered: m.Answered[i],
				Prediction: m.Predictions[i], Answers: q.Answers, Accuracy: accuracy[i]}
			if lemmatized {
				row.Lemmatized = &scored[i]
			}
			if err := encode.Encode(row); err != nil {
				return err
			}
		}
		return buffer.Flush()
	})
}

// writeText prints the report as tables.
func (r vqaReport) writeText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	split := r.Split
	if split == "" {
		split = "-"
	}
	fmt.Fprintf(w, "SPLIT\tSCORER\tQUESTIONS\tANSWERED\tACCURACY\n")
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.2f\n", split, r.Scorer, r.Questions, r.Answered, r.Overall)
	if r.WithoutLemmas != nil {
		fmt.Fprintf(w, "without lemmas\t\t\t\t%.2f\n", *r.WithoutLemmas)
	}
	writeGroups(w, "ANSWER TYPE", r.PerAnswerType)
	writeGroups(w, "QUESTION TYPE", r.PerQuestionType)
	return w.Flush()
}

func writeGroups(w io.Writer, title string, groups map[string]vqa.Group) {
	if len(groups) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\tQUESTIONS\tACCURACY\n", title)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		label := name
		if label == "" {
			label = "(none)"
		}
		fmt.Fprintf(w, "%s\t%d\t%.2f\n", label, groups[name].Questions, groups[name].Accuracy)
	}
}
