// Package spice computes SPICE (Anderson et al., 2016; spec/evaluation.md §3.6) by running the authors' Java program,
// which "blip2 plugin install spice" fetches. Without Java or the program there is no SPICE: it is never approximated.
package spice

import (
	"blip2/pkg/internal/measure"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Item is a candidate with its references, as the PTB tokenizer leaves them.
type Item struct {
	Candidate  string
	References []string
}

// Score is precision, recall and F of one kind of tuples. All three are NaN if neither side has such tuples.
type Score struct{ Precision, Recall, F float64 }

// Tuple is an object, an object with an attribute, or two objects with their relation.
type Tuple struct {
	Words   []string
	Matched bool
}

// Result is SPICE of one item. F of "All" is the metric; the other kinds are Object, Relation, Attribute, Color, Size
// and Cardinality. The order of tuples is the program's and not fixed.
type Result struct {
	Scores               map[string]Score
	Candidate, Reference []Tuple
}

// F is SPICE of the item, NaN if neither side has tuples.
func (r Result) F() float64 {
	s, ok := r.Scores["All"]
	if !ok {
		return math.NaN()
	}
	return s.F
}

// Mean is SPICE of a corpus: the mean over the items, NaN if one of them is.
func Mean(results []Result) float64 {
	sum := 0.0
	for _, r := range results {
		sum += r.F()
	}
	return sum / float64(len(results))
}

// Options say how to run the program.
type Options struct {
	// Dir is the folder of the installed program (device.DataDir).
	Dir string
	// ParseDir keeps the parses of captions from one run to the next; empty is none.
	ParseDir string
	// Java is the command; empty is java in $JAVA_HOME/bin, else in $PATH.
	Java string
	// Megabytes bounds the program's heap; 0 is 6144, which CoreNLP needs for long captions.
	Megabytes int
	// Threads is the number of parsers; 0 is one per processor.
	Threads int
	// Progress hears how many of the items are done; nil is silence.
	Progress func(done, of int)
	// Logger hears what the program is doing; nil is slog.Default().
	Logger *slog.Logger
}

const (
	// batch is how many items are parsed between two reports of progress.
	batch = 500
	// maxWords is the longest caption: the parser's time grows with the cube of the length.
	maxWords = 400
	// maxChars bounds captions of few, enormous words.
	maxChars = 20000
	// startTime and captionTime bound the time of a batch; usual are ten seconds and a twentieth of one.
	startTime, captionTime = 5 * time.Minute, 4 * time.Second
	// maxOutput bounds the program's answer for one batch.
	maxOutput = 1 << 30
)

// LengthError says that a caption is too long for the parser.
type LengthError struct {
	Item      int // from 0
	Reference int // from 0; -1 is the candidate
	Words     int
}

// Error names the caption.
func (e *LengthError) Error() string {
	what := "the candidate"
	if e.Reference >= 0 {
		what = "reference " + strconv.Itoa(e.Reference)
	}
	return fmt.Sprintf("SPICE: %s of item %d has %d words; the parser takes %d words and %d characters", what, e.Item,
		e.Words, maxWords, maxChars)
}

// Run scores items. The results are in their order. How the program merges tuples that mean the same depends on what
// else it scores (one picture in a thousand changes), so that all items go through one process, as in the reference.
// Where parses are kept, batches go before it: they fill the store, and nothing is lost if they are interrupted.
func Run(ctx context.Context, items []Item, o Options) ([]Result, error) {
	if err := checkLengths(items); err != nil {
		return nil, err
	}
	p, err := newProgram(ctx, o)
	if err != nil {
		return nil, err
	}
	progress := o.Progress
	if progress == nil {
		progress = func(int, int) {}
	}
	if p.caches() {
		for from := 0; len(items) > batch && from < len(items); from += batch {
			to := min(from+batch, len(items))
			if _, err := p.score(ctx, items[from:to]); err != nil {
				return nil, err
			}
			progress(min(to, len(items)-1), len(items)) // the last one is done when all are scored together
		}
	}
	results, err := p.score(ctx, items)
	if err == nil {
		progress(len(items), len(items))
	}
	return results, err
}

// checkLengths refuses captions that would be parsed for hours.
func checkLengths(items []Item) error {
	for i, item := range items {
		for k, text := range append([]string{item.Candidate}, item.References...) {
			if words := len(strings.Fields(text)); words > maxWords || len(text) > maxChars {
				return &LengthError{i, k - 1, words}
			}
		}
		if len(item.References) == 0 {
			return fmt.Errorf("SPICE: item %d has no reference", i)
		}
	}
	return nil
}

// score runs one batch.
func (p *program) score(ctx context.Context, items []Item) (results []Result, err error) {
	dir, err := os.MkdirTemp("", "blip2-spice-")
	if err != nil {
		return nil, fmt.Errorf("SPICE: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	in, out := filepath.Join(dir, "in.json"), filepath.Join(dir, "out.json")
	if err := os.WriteFile(in, encode(items), 0o600); err != nil {
		return nil, fmt.Errorf("SPICE: %w", err)
	}
	captions := len(items)
	for _, item := range items {
		captions += len(item.References)
	}
	limit := startTime + time.Duration(captions)*captionTime
	if err := p.run(ctx, limit, in, out); err != nil {
		return nil, err
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, fmt.Errorf("SPICE wrote no result: %w", err)
	}
	defer f.Close()
	return decode(io.LimitReader(f, maxOutput), len(items))
}

// encode writes the program's input in ASCII, which it reads right whatever its default encoding is.
func encode(items []Item) []byte {
	var b strings.Builder
	quote := func(s string) {
		b.WriteByte('"')
		for _, r := range s {
			switch {
			case r == '"' || r == '\\':
				b.WriteByte('\\')
				b.WriteRune(r)
			case r < ' ' || r == 0x7f:
				fmt.Fprintf(&b, `\u%04x`, r)
			case r < 0x80:
				b.WriteRune(r)
			case r > 0xffff:
				r -= 0x10000
				fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
			default:
				fmt.Fprintf(&b, `\u%04x`, r)
			}
		}
		b.WriteByte('"')
	}
	b.WriteByte('[')
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"image_id":"%d","test":`, i)
		quote(item.Candidate)
		b.WriteString(`,"refs":[`)
		for k, r := range item.References {
			if k > 0 {
				b.WriteByte(',')
			}
			quote(r)
		}
		b.WriteString("]}\n")
	}
	b.WriteByte(']')
	return []byte(b.String())
}

// answer is a row of the program's output.
type answer struct {
	ID     string                 `json:"image_id"`
	Scores map[string]answerScore `json:"scores"`
	Test   []answerTuple          `json:"test_tuples"`
	Refs   []answerTuple          `json:"ref_tuples"`
}

type answerScore struct {
	P *float64 `json:"pr"`
	R *float64 `json:"re"`
	F *float64 `json:"f"`
}

type answerTuple struct {
	Words   []string `json:"tuple"`
	Matched bool     `json:"truth_value"`
}

// decode reads the program's output for n items.
func decode(r io.Reader, n int) ([]Result, error) {
	var rows []answer
	if err := json.NewDecoder(r).Decode(&rows); err != nil {
		return nil, fmt.Errorf("SPICE's result cannot be read: %w", err)
	}
	results := make([]Result, n)
	for _, row := range rows {
		i, err := strconv.Atoi(row.ID)
		if err != nil || i < 0 || i >= n || results[i].Scores != nil {
			return nil, fmt.Errorf("SPICE's result has a row with the id %q", row.ID)
		}
		results[i].Scores = map[string]Score{}
		for kind, s := range row.Scores {
			results[i].Scores[kind] = Score{number(s.P), number(s.R), number(s.F)}
		}
		results[i].Candidate, results[i].Reference = tuples(row.Test), tuples(row.Refs)
	}
	for i, r := range results {
		if r.Scores == nil {
			return nil, fmt.Errorf("SPICE's result lacks item %d", i)
		}
	}
	return results, nil
}

// number is NaN for null.
func number(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

func tuples(list []answerTuple) []Tuple {
	out := make([]Tuple, len(list))
	for i, t := range list {
		out[i] = Tuple(t)
	}
	return out
}

// tail keeps the end of what is written to it.
type tail struct {
	kept   []byte
	memory bool // Java has said that memory is full
}

// maxTail is how much of the program's messages is kept.
const maxTail = 8 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	if strings.Contains(string(t.kept), "OutOfMemoryError") {
		t.memory = true
	}
	if len(t.kept) > maxTail {
		t.kept = append([]byte{}, t.kept[len(t.kept)-maxTail:]...)
	}
	return len(b), nil
}

// last returns the last lines that say something.
func (t *tail) last() string {
	var lines []string
	for line := range strings.Lines(string(t.kept)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "at ") && utf8.ValidString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(len(lines)-4, 0):], " | ")
}

// threads is the number of parsers.
func (o Options) threads() int {
	if o.Threads > 0 {
		return o.Threads
	}
	return measure.Processors
}
