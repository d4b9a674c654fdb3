package dataset

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// EvalOptions say how an EvalSet prepares pictures and texts.
type EvalOptions struct {
	ImageSize   int // S: pictures are squashed to S×S
	MaxTextLen  int // L: tokens per text
	Caption     CaptionProcessor
	Mean, Std   [3]float32 // zero means CLIP's
	EXIF        bool       // as in LoaderOptions
	Truncated   Truncated  // as in LoaderOptions
	Workers     int        // goroutines that decode; at least 1
	MaxBadShare float64    // greatest share of pictures that may be unreadable (see EvalSet.Images)
}

// EvalSet is a source for evaluation: every picture with the evaluation transform (squashed to S×S, bicubic, not
// cropped) and every caption tokenised, text after text in the order of their pictures. Pictures are decoded on demand.
type EvalSet struct {
	src      Source
	o        EvalOptions
	ids      []int32
	mask     []int32
	txt2img  []int
	captions []string

	mu  sync.Mutex
	bad map[int]string // reason by picture
}

// NewEvalSet tokenises all captions of a source.
func NewEvalSet(src Source, tok Tokenizer, o EvalOptions) (*EvalSet, error) {
	o.Mean, o.Std = normalisation(o.Mean, o.Std)
	if o.ImageSize < 1 || o.MaxTextLen < 2 || o.Workers < 1 {
		return nil, fmt.Errorf("dataset: evaluation needs an image size and a number of workers of at least 1 and a "+
			"text length of at least 2, not %d, %d and %d", o.ImageSize, o.Workers, o.MaxTextLen)
	}
	e := &EvalSet{src: src, o: o, bad: map[int]string{}}
	for i := range src.Len() {
		example, err := src.Example(i)
		if err != nil {
			return nil, fmt.Errorf("dataset: %s: picture %d: %w", src.Name(), i, err)
		}
		for _, c := range example.Captions {
			e.txt2img = append(e.txt2img, i)
			e.captions = append(e.captions, c)
		}
	}
	if len(e.captions) == 0 {
		return nil, fmt.Errorf("dataset: %s has no captions to evaluate on", src.Name())
	}
	n := o.MaxTextLen
	e.ids, e.mask = make([]int32, len(e.captions)*n), make([]int32, len(e.captions)*n)
	for t, c := range e.captions {
		tok.EncodeCaptionInto(e.ids[t*n:(t+1)*n], e.mask[t*n:(t+1)*n], o.Caption.Process(c))
	}
	return e, nil
}

// Name is the name of the source.
func (e *EvalSet) Name() string { return e.src.Name() }

// NumImages is the number of pictures.
func (e *EvalSet) NumImages() int { return e.src.Len() }

// NumTexts is the number of captions of all pictures together.
func (e *EvalSet) NumTexts() int { return len(e.captions) }

// Example is picture i.
func (e *EvalSet) Example(i int) (Example, error) { return e.src.Example(i) }

// Open opens the encoded picture i.
func (e *EvalSet) Open(i int) (io.ReadCloser, error) { return e.src.Open(i) }

// Readable says whether picture i was not found bad so far.
func (e *EvalSet) Readable(i int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bad[i] == ""
}

// Caption is text t as written in the annotation file.
func (e *EvalSet) Caption(t int) string { return e.captions[t] }

// Txt2Img maps every text to its picture. It must not be changed.
func (e *EvalSet) Txt2Img() []int { return e.txt2img }

// Img2Txt lists the texts of every picture.
func (e *EvalSet) Img2Txt() [][]int {
	all := make([][]int, e.NumImages())
	for t, i := range e.txt2img {
		all[i] = append(all[i], t)
	}
	return all
}

// Texts are the ids and masks [hi−lo, L] of texts lo ≤ t < hi. They must not be changed.
func (e *EvalSet) Texts(lo, hi int) (ids, mask []int32) {
	n := e.o.MaxTextLen
	return e.ids[lo*n : hi*n], e.mask[lo*n : hi*n]
}

// Images writes pictures lo ≤ i < hi to dst [hi−lo, 3, S, S]. An unreadable picture is written as zeros, the mean
// picture, and counted (see BadSamples): nothing can stand in for it, so that its captions count as misses. More than
// MaxBadShare of all pictures being bad is a BadShareError.
func (e *EvalSet) Images(ctx context.Context, lo, hi int, dst []float32) error {
	size := 3 * e.o.ImageSize * e.o.ImageSize
	if lo < 0 || hi < lo || hi > e.NumImages() || len(dst) != (hi-lo)*size {
		panic(fmt.Sprintf("dataset: pictures %d to %d of %d into %d values", lo, hi, e.NumImages(), len(dst)))
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(e.o.Workers, hi-lo) {
		workers.Go(func() {
			var s scratch
			for ctx.Err() == nil {
				at := int(next.Add(1)) - 1
				if lo+at >= hi {
					return
				}
				e.image(&s, lo+at, dst[at*size:(at+1)*size])
			}
		})
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	bad := len(e.bad)
	e.mu.Unlock()
	if float64(bad) > e.o.MaxBadShare*float64(e.NumImages()) {
		return &BadShareError{Source: e.Name(), Bad: int64(bad), Seen: int64(e.NumImages()), Allowed: e.o.MaxBadShare,
			Examples: e.BadSamples()}
	}
	return nil
}

func (e *EvalSet) image(s *scratch, i int, dst []float32) {
	err := s.load(e.src, i, e.o.Truncated, e.o.EXIF)
	if err == nil {
		err = s.write(dst, transform{size: e.o.ImageSize, mean: e.o.Mean, std: e.o.Std})
	}
	if err != nil {
		clear(dst)
		e.mu.Lock()
		e.bad[i] = err.Error()
		e.mu.Unlock()
	}
}

// BadSamples are the pictures that could not be read so far, in the order of the source.
func (e *EvalSet) BadSamples() []BadSample {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []BadSample
	for _, i := range slices.Sorted(maps.Keys(e.bad)) {
		key := fmt.Sprintf("picture %d", i)
		if example, err := e.src.Example(i); err == nil {
			key = example.Key
		}
		all = append(all, BadSample{Key: key, Reason: e.bad[i]})
	}
	return all
}
