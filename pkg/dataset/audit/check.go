// Package audit looks at data sets before a training does: whether every picture decodes and every text can be used,
// what occurs twice, how long texts are and how large pictures.
package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"blip2/pkg/dataset"
)

// maxPicture bounds what is read of one picture.
const maxPicture = 256 << 20

// maxListed bounds the problems and the duplicates that a report lists; all of them are counted.
const maxListed = 1000

// Kinds of Problem.
const (
	Unreadable = "unreadable" // the picture cannot be decoded, or its file is missing
	Truncated  = "truncated"  // the picture's file ends too early; a training can use what is there
	NoText     = "no text"    // nothing is left of a text after the text processor
)

// Problem is something of a sample that a training cannot use, or should not.
type Problem struct {
	Key    string `json:"key"`
	Kind   string `json:"kind"`
	Reason string `json:"reason"`
}

// Duplicate names two pictures whose files are equal byte by byte.
type Duplicate struct {
	Key   string `json:"key"`
	First string `json:"first"` // the one that comes first in the data set
}

// CheckReport is what Check found.
type CheckReport struct {
	Name       string      `json:"name"`
	Pictures   int         `json:"pictures"`
	Texts      int         `json:"texts"`
	Unreadable int         `json:"unreadable"`
	Truncated  int         `json:"truncated"`
	EmptyTexts int         `json:"empty_texts"`
	Duplicates int         `json:"duplicates"` // pictures that are equal to an earlier one
	Problems   []Problem   `json:"problems"`   // in the order of the data set, at most 1,000
	Twice      []Duplicate `json:"twice"`      // likewise
}

// Good reports whether a training can use every sample.
func (r *CheckReport) Good() bool { return r.Unreadable == 0 && r.EmptyTexts == 0 }

// CheckOptions say how Check goes about it.
type CheckOptions struct {
	Workers int
	// Journal is a file that remembers which pictures were good, so that a check that was interrupted goes on where it
	// was; "" for none. It fits one data set only, and is made anew for another. For a stream it remembers what was bad,
	// too, and where the stream stood.
	Journal string
	// Progress is told how many pictures were looked at, those of the journal included; for a stream, whose pictures are
	// counted only by the check, how many percent of it.
	Progress func(done int)
}

// Check decodes every picture of a source and processes every text. It holds 8 bytes per picture.
func Check(ctx context.Context, src dataset.Source, o CheckOptions) (*CheckReport, error) {
	j, err := openJournal(o.Journal, src)
	if err != nil {
		return nil, err
	}
	c := &checker{src: src, journal: j, hashes: make([]uint64, src.Len()), found: map[int][]Problem{}}
	err = c.run(ctx, max(o.Workers, 1), o.Progress)
	if err = errors.Join(err, j.close()); err != nil {
		return nil, err
	}
	return c.report(), nil
}

// checker is a Check in progress.
type checker struct {
	src     dataset.Source
	journal *journal
	hashes  []uint64 // of the pictures' files; 0 where there is none
	texts   atomic.Int64

	mu    sync.Mutex
	found map[int][]Problem // by picture
	err   error             // of the journal
}

func (c *checker) run(ctx context.Context, workers int, progress func(int)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var next, done atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= c.src.Len() {
					return
				}
				if err := c.look(i); err != nil {
					c.fail(err)
					stop()
				}
				if n := int(done.Add(1)); progress != nil {
					progress(n)
				}
			}
		})
	}
	group.Wait()
	if c.err != nil {
		return c.err
	}
	return ctx.Err()
}

func (c *checker) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// look checks picture i and its texts. What the journal knows to be good is not looked at again.
func (c *checker) look(i int) error {
	if hash, texts, good := c.journal.at(i); good {
		c.hashes[i] = hash
		c.texts.Add(int64(texts))
		return nil
	}
	f := examine(c.read(i))
	c.hashes[i] = f.hash
	c.texts.Add(int64(f.texts))
	if len(f.problems) > 0 {
		c.add(i, f.problems...)
		return nil
	}
	return c.journal.good(i, f.hash, f.texts)
}

// read reads picture i and what is known of it.
func (c *checker) read(i int) (e dataset.Example, picture []byte, known, readable error) {
	e, known = c.src.Example(i)
	if e.Key == "" {
		e.Key = fmt.Sprintf("picture %d", i)
	}
	if known != nil {
		return e, nil, known, nil
	}
	r, err := c.src.Open(i)
	if err != nil {
		return e, nil, nil, err
	}
	picture, err = io.ReadAll(io.LimitReader(r, maxPicture))
	return e, picture, nil, errors.Join(err, r.Close())
}

// finding is what was found out about one picture.
type finding struct {
	key      string
	hash     uint64 // of the picture's file; 0 where there is none
	texts    int
	problems []Problem
}

// examine looks at a picture and its texts: known is why nothing is known of it, readable why its file cannot be read.
func examine(e dataset.Example, picture []byte, known, readable error) finding {
	f := finding{key: e.Key}
	if known != nil {
		f.problems = []Problem{{e.Key, Unreadable, known.Error()}}
		return f
	}
	f.texts = len(e.Captions) + len(e.Questions)
	f.problems = textProblems(e)
	if readable != nil {
		f.problems = append(f.problems, Problem{e.Key, Unreadable, readable.Error()})
		return f
	}
	sum := sha256.Sum256(picture)
	f.hash = max(binary.LittleEndian.Uint64(sum[:]), 1)
	if kind, reason := pictureProblem(picture); kind != "" {
		f.problems = append(f.problems, Problem{e.Key, kind, reason})
	}
	return f
}

func (c *checker) add(i int, problems ...Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found[i] = problems
}

// textProblems names the texts of which nothing is left.
func textProblems(e dataset.Example) []Problem {
	var out []Problem
	var caption dataset.CaptionProcessor
	for _, text := range e.Captions {
		if caption.Process(text) == "" {
			out = append(out, Problem{e.Key, NoText, fmt.Sprintf("nothing is left of the caption %.60q", text)})
		}
	}
	var question dataset.QuestionProcessor
	for _, q := range e.Questions {
		if question.Process(q.Text) == "" {
			out = append(out, Problem{e.Key, NoText, fmt.Sprintf("nothing is left of the question %.60q", q.Text)})
		}
	}
	return out
}

// pictureProblem decodes a picture and says what is wrong with it.
func pictureProblem(data []byte) (kind, reason string) {
	_, strict := dataset.DecodeAs(bytes.NewReader(data), dataset.TruncatedReject)
	if strict == nil {
		return "", ""
	}
	if _, err := dataset.DecodeAs(bytes.NewReader(data), dataset.TruncatedAccept); err != nil {
		return Unreadable, err.Error()
	}
	return Truncated, strict.Error()
}

// report counts what was found.
func (c *checker) report() *CheckReport {
	r := &CheckReport{Name: c.src.Name(), Pictures: c.src.Len(), Texts: int(c.texts.Load()),
		Problems: []Problem{}, Twice: []Duplicate{}}
	pictures := make([]int, 0, len(c.found))
	for i := range c.found {
		pictures = append(pictures, i)
	}
	slices.Sort(pictures)
	for _, i := range pictures {
		r.note(c.found[i])
	}
	count, pairs := duplicates(c.hashes)
	r.Duplicates = count
	for _, p := range pairs {
		r.Twice = append(r.Twice, Duplicate{c.key(int(p[0])), c.key(int(p[1]))})
	}
	return r
}

// note counts problems, and lists them while there is room.
func (r *CheckReport) note(problems []Problem) {
	for _, p := range problems {
		switch p.Kind {
		case Unreadable:
			r.Unreadable++
		case Truncated:
			r.Truncated++
		case NoText:
			r.EmptyTexts++
		}
		if len(r.Problems) < maxListed {
			r.Problems = append(r.Problems, p)
		}
	}
}

// duplicates finds equal hashes, but for zeros, without a table of all of them: how many are those of an earlier
// picture, and the first pairs of picture and earlier picture.
func duplicates(hashes []uint64) (count int, pairs [][2]int32) {
	order := make([]int32, 0, len(hashes))
	for i, h := range hashes {
		if h != 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(hashes[a], hashes[b]), cmp.Compare(a, b))
	})
	first := int32(0)
	for k, i := range order {
		if k == 0 || hashes[i] != hashes[first] {
			first = i
			continue
		}
		pairs = append(pairs, [2]int32{i, first})
	}
	slices.SortFunc(pairs, func(a, b [2]int32) int { return cmp.Compare(a[0], b[0]) })
	return len(pairs), pairs[:min(len(pairs), maxListed)]
}

func (c *checker) key(i int) string {
	e, err := c.src.Example(i)
	if err != nil {
		return fmt.Sprintf("picture %d", i)
	}
	return e.Key
}
