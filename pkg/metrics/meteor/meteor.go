// Package meteor computes METEOR 1.5 for English as coco-caption calls it ("-l en -norm", spec/evaluation.md §3.5):
// Denkowski and Lavie, "Meteor Universal", 2014. What the paper leaves open, the order and the ties of the alignment
// above all, was found by running METEOR on many sentences.
//
// Its data are not part of this program: a Scorer reads the synonyms and function words in METEOR's jar and the
// paraphrase table, which "blip2 plugin install meteor" fetches, through an index that it makes of them once.
package meteor

import (
	"blip2/pkg/internal/atomicfile"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"
)

// IndexName is the file in the data's folder that Open makes.
const IndexName = "meteor-index.bin"

// Segment is a candidate with its references, as the PTB tokenizer leaves them.
type Segment struct {
	Candidate  string
	References []string
}

// Scorer holds METEOR's data. It may be used by several goroutines.
type Scorer struct{ index *index }

// Open reads METEOR's data in dir, the folder that holds JarPath and TablePath. The first time it makes the index
// beside them, which takes some ten seconds; so it does again when the files have changed or the index is damaged.
// Where the folder cannot be written to, the index lasts as long as the Scorer.
func Open(ctx context.Context, dir string, log *slog.Logger) (*Scorer, error) {
	want, err := sourcesOf(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, IndexName)
	if x, err := openIndex(path, want); err == nil {
		return &Scorer{x}, nil
	}
	s, err := openLocked(ctx, dir, path, want, log)
	if atomicfile.NotWritable(err) {
		return openTemporary(ctx, dir, want, log)
	}
	return s, err
}

// openLocked makes the index unless another program is faster.
func openLocked(ctx context.Context, dir, path string, want [2]source, log *slog.Logger) (*Scorer, error) {
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, fmt.Errorf("locking %s: %w", lock.Path(), err)
	}
	defer lock.Close()
	if x, err := openIndex(path, want); err == nil {
		return &Scorer{x}, nil
	}
	if log != nil {
		log.Info("making the index of METEOR's paraphrase table; this happens once", "file", path)
	}
	return newScorer(ctx, dir, path, want)
}

// openTemporary makes an index that nobody finds again.
func openTemporary(ctx context.Context, dir string, want [2]source, log *slog.Logger) (*Scorer, error) {
	temp, err := os.MkdirTemp("", "blip2-meteor-")
	if err != nil {
		return nil, fmt.Errorf("METEOR's index: %w", atomicfile.Explain(err))
	}
	defer os.RemoveAll(temp) // what is mapped stays
	if log != nil {
		log.Warn("making the index of METEOR's paraphrase table for this time alone: its folder cannot be written to; "+
			"blip2 plugin install meteor makes it for good, as a user who may", "folder", dir)
	}
	return newScorer(ctx, dir, filepath.Join(temp, IndexName), want)
}

// newScorer makes the index at path and opens it.
func newScorer(ctx context.Context, dir, path string, want [2]source) (*Scorer, error) {
	if err := build(ctx, dir, path); err != nil {
		return nil, err
	}
	x, err := openIndex(path, want)
	if err != nil {
		return nil, err
	}
	return &Scorer{x}, nil
}

// Close gives the index back.
func (s *Scorer) Close() error { return s.index.close() }

// TooLargeError says that a candidate and a reference have more matches than are looked at.
type TooLargeError struct{ Segment, Reference int }

// Error names segment and reference by number, from 0.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("METEOR: segment %d and its reference %d have more than %d pairs of words that match, or more "+
		"than %d words", e.Segment, e.Reference, maxMatches, maxWords)
}

// Score returns the statistics of every segment against its best reference, the first one among equals. Without
// references that is an error. A *TooLargeError refuses what would take unbounded time.
func (s *Scorer) Score(ctx context.Context, segments []Segment) ([]Stats, error) {
	out := make([]Stats, len(segments))
	workers := min(runtime.GOMAXPROCS(0), max(len(segments), 1))
	errs := make([]error, workers)
	var next atomic.Int64
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			p := newPairing(s.index)
			for {
				from := int(next.Add(batch)) - batch
				if from >= len(segments) || ctx.Err() != nil {
					return
				}
				for i := from; i < min(from+batch, len(segments)); i++ {
					var err error
					if out[i], err = p.best(i, segments[i]); err != nil {
						errs[w] = err
						next.Store(int64(len(segments)))
						return
					}
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return nil, err
	}
	return out, nil
}

// batch is how many segments a worker takes at a time.
const batch = 16

// Corpus is METEOR of a corpus: the score of the summed statistics.
func Corpus(stats []Stats) float64 {
	var sum Stats
	for _, s := range stats {
		sum.Add(s)
	}
	return sum.Score()
}

// lineParts makes of a segment what METEOR makes of a SCORE line with it: a reference that holds ||| is several, and
// the caption evaluation takes ||| and a double space out of candidates.
func lineParts(g Segment) (candidate string, references []string) {
	candidate = strings.ReplaceAll(strings.ReplaceAll(g.Candidate, "|||", ""), "  ", " ")
	for _, r := range g.References {
		references = append(references, strings.Split(r, "|||")...)
	}
	return candidate, references
}

// NoReferenceError says that a segment has no reference.
type NoReferenceError struct{ Segment int }

// Error names the segment by number, from 0.
func (e *NoReferenceError) Error() string {
	return fmt.Sprintf("METEOR: segment %d has no reference", e.Segment)
}
