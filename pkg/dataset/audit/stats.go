package audit

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"io"
	"math"
	"slices"
	"strings"

	_ "image/gif" // sizes of pictures
	_ "image/jpeg"
	_ "image/png"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"blip2/pkg/dataset"
)

// StatsOptions say what Stats looks at.
type StatsOptions struct {
	// Sample is how many pictures are opened for their size, spread evenly; 0 for none, negative for all. Of a stream,
	// which is read whole anyway, all are.
	Sample int
	// Length counts a text's tokens; nil leaves them out.
	Length func(text string) int
	// Within are the lengths in tokens whose share of the texts is given, such as max_len.
	Within   int
	Progress func(done int) // is told how many pictures were looked at; of a stream, how many percent of it
}

// Stats are the sizes of a data set.
type Stats struct {
	Name     string      `json:"name"`
	Pictures int         `json:"pictures"`
	Texts    int         `json:"texts"`
	Unusable int         `json:"unusable"` // pictures of whose texts nothing can be read, and broken members of shards
	PerImage Histogram   `json:"texts_per_picture"`
	Words    Histogram   `json:"words_per_text"` // after the text processor
	Tokens   *Histogram  `json:"tokens_per_text,omitempty"`
	Fit      *float64    `json:"tokens_fit,omitempty"` // share of the texts of at most so many tokens as fit, 0 to 1
	Sizes    *SizeReport `json:"picture_sizes,omitempty"`
}

// SizeReport tells of the pictures that were opened.
type SizeReport struct {
	Opened  int            `json:"opened"`
	Failed  int            `json:"failed"`
	Formats map[string]int `json:"formats"`
	Width   Histogram      `json:"width"`
	Height  Histogram      `json:"height"`
	Bytes   Histogram      `json:"bytes"`
}

// Histogram sums up whole numbers.
type Histogram struct {
	Count  int     `json:"count"`
	Min    int     `json:"min"`
	Median int     `json:"median"`
	P99    int     `json:"p99"`
	Max    int     `json:"max"`
	Mean   float64 `json:"mean"`
	Bins   []Bin   `json:"bins,omitempty"`
}

// Bin counts the numbers From ≤ x ≤ To.
type Bin struct {
	From  int `json:"from"`
	To    int `json:"to"`
	Count int `json:"count"`
}

// counter counts how often each number occurs: texts and pictures have few different ones.
type counter map[int]int

// bins is how many bins a Histogram has at most.
const bins = 12

func (c counter) histogram() Histogram {
	var h Histogram
	values := make([]int, 0, len(c))
	sum := 0.0
	for v, n := range c {
		values = append(values, v)
		h.Count += n
		sum += float64(v) * float64(n)
	}
	if h.Count == 0 {
		return h
	}
	slices.Sort(values)
	h.Min, h.Max, h.Mean = values[0], values[len(values)-1], sum/float64(h.Count)
	h.Median, h.P99 = c.quantile(values, h.Count, 0.5), c.quantile(values, h.Count, 0.99)
	width := max(1, int(math.Ceil(float64(h.Max-h.Min+1)/bins)))
	for from := h.Min; from <= h.Max; from += width {
		b := Bin{From: from, To: min(from+width-1, h.Max)}
		for _, v := range values {
			if v >= b.From && v <= b.To {
				b.Count += c[v]
			}
		}
		h.Bins = append(h.Bins, b)
	}
	return h
}

// quantile is the smallest value that at least a part q of all numbers do not exceed.
func (c counter) quantile(values []int, count int, q float64) int {
	need, seen := int(math.Ceil(q*float64(count))), 0
	for _, v := range values {
		if seen += c[v]; seen >= need {
			return v
		}
	}
	return values[len(values)-1]
}

// Measure reads every text of a source and the heads of some pictures.
func Measure(ctx context.Context, src dataset.Source, o StatsOptions) (*Stats, error) {
	m := newMeasuring(src.Name(), o)
	step := 1
	if o.Sample > 0 {
		step = max(1, src.Len()/o.Sample)
	}
	for i := range src.Len() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, err := src.Example(i)
		m.texts(&e, err)
		if o.Sample != 0 && i%step == 0 {
			m.sizes.open(src, i)
		}
		if o.Progress != nil {
			o.Progress(i + 1)
		}
	}
	return m.result(), nil
}

// MeasureStream is Measure for a data set that can only be read in order: it is read once, from front to back.
func MeasureStream(ctx context.Context, set *dataset.StreamSet, o StatsOptions) (*Stats, error) {
	if set.Once == nil {
		return nil, fmt.Errorf("%s cannot be read from front to back", set.Name)
	}
	pass, err := set.Once(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer pass.Close()
	m := newMeasuring(set.Name, o)
	for {
		s, err := pass.Next(ctx)
		if err == io.EOF {
			return m.result(), nil
		}
		if err != nil {
			return nil, err
		}
		m.texts(&s.Example, s.Err)
		if o.Sample != 0 {
			m.sizes.look(s.Picture, s.Err)
		}
		if o.Progress != nil {
			o.Progress(int(100 * pass.Done()))
		}
	}
}

// measuring is a Measure in progress.
type measuring struct {
	o                       StatsOptions
	stats                   Stats
	perImage, words, tokens counter
	sizes                   sizes
}

func newMeasuring(name string, o StatsOptions) *measuring {
	return &measuring{o: o, stats: Stats{Name: name}, perImage: counter{}, words: counter{}, tokens: counter{},
		sizes: sizes{formats: map[string]int{}, width: counter{}, height: counter{}, bytes: counter{}}}
}

// texts measures the texts of the next picture; err is why nothing is known of them.
func (m *measuring) texts(e *dataset.Example, err error) {
	m.stats.Pictures++
	if err != nil {
		m.stats.Unusable++
		return
	}
	texts := textsOf(*e)
	m.perImage[len(texts)]++
	m.stats.Texts += len(texts)
	for _, text := range texts {
		m.words[len(strings.Fields(text))]++
		if m.o.Length != nil {
			m.tokens[m.o.Length(text)]++
		}
	}
}

func (m *measuring) result() *Stats {
	s := &m.stats
	s.PerImage, s.Words = m.perImage.histogram(), m.words.histogram()
	if m.o.Sample != 0 {
		s.Sizes = m.sizes.report()
	}
	if m.o.Length != nil {
		h := m.tokens.histogram()
		fit := 0
		for n, count := range m.tokens {
			if n <= m.o.Within {
				fit += count
			}
		}
		share := float64(fit) / float64(max(s.Texts, 1))
		s.Tokens, s.Fit = &h, &share
	}
	return s
}

// textsOf are an example's processed captions and questions.
func textsOf(e dataset.Example) []string {
	var out []string
	for _, c := range e.Captions {
		out = append(out, dataset.CaptionProcessor{}.Process(c))
	}
	for _, q := range e.Questions {
		out = append(out, dataset.QuestionProcessor{}.Process(q.Text))
	}
	return out
}

// sizes are those of the pictures that were opened.
type sizes struct {
	opened, failed       int
	formats              map[string]int
	width, height, bytes counter
}

// open looks at picture i.
func (s *sizes) open(src dataset.Source, i int) {
	r, err := src.Open(i)
	if err != nil {
		s.look(nil, err)
		return
	}
	defer r.Close()
	s.look(io.ReadAll(io.LimitReader(r, maxPicture)))
}

// look looks at the head of a picture's file; err is why it cannot be read.
func (s *sizes) look(data []byte, err error) {
	s.opened++
	if err != nil {
		s.failed++
		return
	}
	head, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		s.failed++
		return
	}
	s.formats[format]++
	s.width[head.Width]++
	s.height[head.Height]++
	s.bytes[len(data)]++
}

func (s *sizes) report() *SizeReport {
	return &SizeReport{Opened: s.opened, Failed: s.failed, Formats: s.formats, Width: s.width.histogram(),
		Height: s.height.histogram(), Bytes: s.bytes.histogram()}
}
