package dataset

import (
	"errors"
	"fmt"
	"io"
)

// Example is what is known of one picture.
type Example struct {
	Key       string   // file name relative to the image folder; names the sample in messages
	ImagePath string   // where the picture lies; "" for a picture inside an archive
	ImageID   int64    // id in the annotation file
	Captions  []string // as written in the annotation file, none of them blank
	License   string   // licence of the picture, name and address; "" if the file does not say
	URL       string   // where the picture comes from; "" if the file does not say

	Questions []Question // of a set of questions; it has no captions
}

// Source is a set of pictures with texts. Its methods are safe for concurrent use.
type Source interface {
	// Name is what to call the set in messages.
	Name() string
	// Len is the number of pictures.
	Len() int
	// Texts is the number of texts of picture i, 0 ≤ i < Len, and at least 1. It comes from memory, never from disk.
	Texts(i int) int
	// Example is what is known of picture i, with Texts(i) captions or questions. It may have to be read from disk, and
	// fail.
	Example(i int) (Example, error)
	// Open opens the encoded picture i.
	Open(i int) (io.ReadCloser, error)
}

var errNoSource = errors.New("dataset: no source of pictures is given; name at least one annotation file")

// Concat puts several sources one after the other; rows are drawn in proportion to their number of rows.
func Concat(sources ...Source) (Source, error) {
	if len(sources) == 0 {
		return nil, errNoSource
	}
	if len(sources) == 1 {
		return sources[0], nil
	}
	c := &concat{sources: sources, ends: make([]int, len(sources))}
	total := 0
	for i, s := range sources {
		total += s.Len()
		c.ends[i] = total
	}
	return c, nil
}

type concat struct {
	sources []Source
	ends    []int // index after the last picture of each source
}

func (c *concat) Name() string {
	return fmt.Sprintf("%s and %d more", c.sources[0].Name(), len(c.sources)-1)
}

func (c *concat) Len() int { return c.ends[len(c.ends)-1] }

func (c *concat) find(i int) (Source, int) {
	start := 0
	for s, end := range c.ends {
		if i < end {
			return c.sources[s], i - start
		}
		start = end
	}
	panic(fmt.Sprintf("dataset: picture %d of %d", i, c.Len()))
}

func (c *concat) Texts(i int) int {
	s, at := c.find(i)
	return s.Texts(at)
}

func (c *concat) Example(i int) (Example, error) {
	s, at := c.find(i)
	return s.Example(at)
}

func (c *concat) Open(i int) (io.ReadCloser, error) {
	s, at := c.find(i)
	return s.Open(at)
}

// FirstTexts is the source with the first n texts of every picture; the source itself if n is 0. Captions that are
// ranked, best first, are drawn from the best two in BLIP-2 (spec/data.md §6).
func FirstTexts(src Source, n int) Source {
	if n <= 0 {
		return src
	}
	return firstTexts{src, n}
}

type firstTexts struct {
	Source
	n int
}

func (f firstTexts) Texts(i int) int { return min(f.Source.Texts(i), f.n) }

func (f firstTexts) Example(i int) (Example, error) {
	e, err := f.Source.Example(i)
	e.Captions = e.Captions[:min(len(e.Captions), f.n)]
	e.Questions = e.Questions[:min(len(e.Questions), f.n-len(e.Captions))]
	return e, err
}

// First is the source's first n pictures; the source itself if it has no more, or if n is 0.
func First(src Source, n int) Source {
	if n <= 0 || n >= src.Len() {
		return src
	}
	return first{src, n}
}

type first struct {
	Source
	n int
}

func (f first) Len() int { return f.n }
