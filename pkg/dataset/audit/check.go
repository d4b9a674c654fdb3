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
	// was; "" for none. It fits one data set only, and is made anew for another.
	Journal  string
	Progress func(done int) // is told how many pictures were looked at, those of the journal included
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
	example, err := c.src.Example(i)
	if err != nil {
		c.add(i, Problem{fmt.Sprintf("picture %d", i), Unreadable, err.Error()})
		return nil
	}
	c.texts.Add(int64(len(example.Captions) + len(example.Questions)))
	problems := textProblems(example)
	kind, reason := c.picture(i)
	if kind != "" {
		problems = append(problems, Problem{example.Key, kind, reason})
	}
	if len(problems) > 0 {
		c.add(i, problems...)
		return nil
	}
	return c.journal.good(i, c.hashes[i], len(example.Captions)+len(example.Questions))
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

// picture reads, hashes and decodes picture i and says what is wrong with it.
func (c *checker) picture(i int) (kind, reason string) {
	r, err := c.src.Open(i)
	if err != nil {
		return Unreadable, err.Error()
	}
	data, err := io.ReadAll(io.LimitReader(r, maxPicture))
	if err = errors.Join(err, r.Close()); err != nil {
		return Unreadable, err.Error()
	}
	sum := sha256.Sum256(data)
	c.hashes[i] = max(binary.LittleEndian.Uint64(sum[:]), 1)
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
		for _, p := range c.found[i] {
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
	c.duplicates(r)
	return r
}

// duplicates finds pictures of equal hashes, without a table of all of them.
func (c *checker) duplicates(r *CheckReport) {
	order := make([]int32, 0, len(c.hashes))
	for i, h := range c.hashes {
		if h != 0 {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(c.hashes[a], c.hashes[b]), cmp.Compare(a, b))
	})
	var pairs [][2]int32
	first := int32(0)
	for k, i := range order {
		if k == 0 || c.hashes[i] != c.hashes[first] {
			first = i
			continue
		}
		r.Duplicates++
		pairs = append(pairs, [2]int32{i, first})
	}
	slices.SortFunc(pairs, func(a, b [2]int32) int { return cmp.Compare(a[0], b[0]) })
	for _, p := range pairs[:min(len(pairs), maxListed)] {
		r.Twice = append(r.Twice, Duplicate{c.key(int(p[0])), c.key(int(p[1]))})
	}
}

func (c *checker) key(i int) string {
	e, err := c.src.Example(i)
	if err != nil {
		return fmt.Sprintf("picture %d", i)
	}
	return e.Key
}
