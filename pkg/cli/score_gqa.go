package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/metrics/vqa"
)

type scoreGQAOptions struct {
	results, questions string
	answeredOnly       bool
	perQuestion        string
}

func newScoreGQACmd(app *App) *cobra.Command {
	var opts scoreGQAOptions
	cmd := &cobra.Command{
		Use:   "gqa",
		Short: "Accuracy of answers to GQA's questions",
		Long: `Scores answers to GQA's questions, each of which has one right answer, in both ways that are in use:
"normalised" compares after punctuation, articles and number words are dealt with on both sides, as LAVIS does; "raw"
compares the strings as they are, as GQA's own evaluator does.

Results are LAVIS's list of {"question_id", "pred_ans", "gt_ans"}, which needs no question file, or GQA's list of
{"questionId", "prediction"}, which does. With the official question file the accuracies by structural and semantic type
are printed, too. All files may be compressed with gzip.`,
		Example: `  blip2 score gqa --results test_vqa_result.json
  blip2 score gqa --results predictions.json --questions testdev_balanced_questions.json --per-question out.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runScoreGQA(app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.results, "results", "", "`file` of the answers to score")
	flags.StringVar(&opts.questions, "questions", "", "`file` of the questions and their answers (default: the results' "+
		"gt_ans)")
	flags.BoolVar(&opts.answeredOnly, "answered-only", false, "leave out questions without a result")
	flags.StringVar(&opts.perQuestion, "per-question", "", "write the score of every question to this `file`, as JSON "+
		"lines")
	completeFiles(cmd, "results", "questions")
	return cmd
}

// gqaReport is what the command prints.
type gqaReport struct {
	Split      string               `json:"split,omitempty"`
	Questions  int                  `json:"questions"`
	Answered   int                  `json:"answered"`
	Normalised float64              `json:"normalised"` // percent
	Raw        float64              `json:"raw"`
	Structural map[string]vqa.Group `json:"per_structural_type,omitempty"` // normalised
	Semantic   map[string]vqa.Group `json:"per_semantic_type,omitempty"`
	Problems   []vqa.Problem        `json:"problems"`
}

func runScoreGQA(app *App, opts scoreGQAOptions) error {
	if opts.results == "" {
		return usagef("--results is missing: the file of answers to score")
	}
	err := checkOutputs([]namedFile{{"--results", opts.results}, {"--questions", opts.questions}},
		namedFile{"--per-question", opts.perQuestion})
	if err != nil {
		return err
	}
	results, err := vqa.ReadResults(opts.results)
	if err != nil {
		return err
	}
	questions, repeated, err := opts.readQuestions(results)
	if err != nil {
		return err
	}
	matched := vqa.Match(questions, results, opts.answeredOnly)
	report := gqaReport{Questions: len(matched.Questions)}
	report.Split, report.Problems = vqa.FindSplit(vqa.GQASplits(), len(questions))
	report.Problems = append(report.Problems, vqa.CheckRepeated(repeated)...)
	report.Problems = append(report.Problems, matched.Problems...)
	warnProblems(app, report.Problems)
	if len(matched.Questions) == 0 {
		return errors.New("no question has a result: are results and questions of the same split?")
	}
	answers := make([]string, len(matched.Questions))
	for i, q := range matched.Questions {
		answers[i] = q.Answers[0]
		if matched.Answered[i] {
			report.Answered++
		}
	}
	scores := vqa.ScoreGQA(matched.Predictions, answers)
	report.Normalised, report.Raw = scores.Normalised, scores.Raw
	structural, semantic := scores.ByType(matched.Questions)
	report.Structural, report.Semantic = named(structural, nil), named(semantic, nil)
	if opts.perQuestion != "" {
		if err := writePerGQA(opts.perQuestion, matched, scores); err != nil {
			return err
		}
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	return report.writeText(app.Out)
}

// readQuestions reads the questions, or takes the right answers that the results carry.
func (o scoreGQAOptions) readQuestions(results *vqa.Results) ([]vqa.Question, []string, error) {
	if o.questions != "" {
		return vqa.ReadGQAQuestions(o.questions)
	}
	questions := results.TruthQuestions()
	if questions == nil {
		return nil, nil, usagef("--questions is missing, and the results carry no right answers (gt_ans)")
	}
	for _, q := range questions {
		if len(q.Answers) != 1 {
			return nil, nil, fmt.Errorf("%s: question %s has %d right answers, GQA's have one; A-OKVQA's results are for "+
				"blip2 score vqa", o.results, q.ID, len(q.Answers))
		}
	}
	return questions, nil, nil
}

// perGQARow is a line of the file of every question.
type perGQARow struct {
	ID         string `json:"question_id"`
	Structural string `json:"structural_type,omitempty"`
	Semantic   string `json:"semantic_type,omitempty"`
	Answered   bool   `json:"answered"`
	Prediction string `json:"prediction"`
	Answer     string `json:"answer"`
	Normalised bool   `json:"normalised"`
	Raw        bool   `json:"raw"`
}

func writePerGQA(path string, m *vqa.Matched, s vqa.GQAScores) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		buffer := bufio.NewWriter(w)
		encode := json.NewEncoder(buffer)
		encode.SetEscapeHTML(false)
		for i, q := range m.Questions {
			row := perGQARow{q.ID, q.Type, q.AnswerType, m.Answered[i], m.Predictions[i], q.Answers[0], s.Matches[i],
				s.RawMatches[i]}
			if err := encode.Encode(row); err != nil {
				return err
			}
		}
		return buffer.Flush()
	})
}

// writeText prints the report as tables.
func (r gqaReport) writeText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	split := r.Split
	if split == "" {
		split = "-"
	}
	fmt.Fprintf(w, "SPLIT\tQUESTIONS\tANSWERED\tNORMALISED\tRAW\n")
	fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\t%.2f\n", split, r.Questions, r.Answered, r.Normalised, r.Raw)
	writeGroups(w, "STRUCTURAL TYPE", r.Structural)
	writeGroups(w, "SEMANTIC TYPE", r.Semantic)
	return w.Flush()
}
