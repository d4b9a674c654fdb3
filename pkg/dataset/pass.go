package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Pass is a data set read from front to back a single time: Next gives io.EOF behind the last sample. The samples come
// in the order in which they are stored.
type Pass interface {
	Stream
	// Done is how much of the data set was given, 0 to 1, as far as that is known.
	Done() float64
}

// FirstTexts is the set with the first n texts of every picture; the set itself if n is 0.
func (s *StreamSet) FirstTexts(n int) *StreamSet {
	if n <= 0 {
		return s
	}
	cut := *s
	cut.Fingerprint = fmt.Sprintf("%s, first %d", s.Fingerprint, n)
	cut.Open = func(ctx context.Context, seed int64, state json.RawMessage) (Stream, error) {
		stream, err := s.Open(ctx, seed, state)
		if err != nil {
			return nil, err
		}
		return cutStream{stream, n}, nil
	}
	if s.Once != nil {
		cut.Once = func(ctx context.Context, state json.RawMessage) (Pass, error) {
			pass, err := s.Once(ctx, state)
			if err != nil {
				return nil, err
			}
			return cutPass{pass, n}, nil
		}
	}
	return &cut
}

type cutStream struct {
	Stream
	n int
}

func (c cutStream) Next(ctx context.Context) (Sample, error) { return cutTexts(c.Stream, ctx, c.n) }

type cutPass struct {
	Pass
	n int
}

func (c cutPass) Next(ctx context.Context) (Sample, error) { return cutTexts(c.Pass, ctx, c.n) }

// cutTexts is a stream's next sample with its first n texts.
func cutTexts(s Stream, ctx context.Context, n int) (Sample, error) {
	sample, err := s.Next(ctx)
	e := &sample.Example
	e.Captions = e.Captions[:min(len(e.Captions), n)]
	e.Questions = e.Questions[:min(len(e.Questions), n-len(e.Captions))]
	return sample, err
}

// InOrder is several data sets read one after the other, each from front to back; it has Once alone. All streams of it
// must have one, too.
func InOrder(parts ...Part) (*StreamSet, error) {
	if len(parts) == 0 {
		return nil, errNoSource
	}
	set := &StreamSet{Name: parts[0].name()}
	if len(parts) > 1 {
		set.Name = fmt.Sprintf("%s and %d more", set.Name, len(parts)-1)
	}
	for i := range parts {
		p := &parts[i]
		switch {
		case p.Source != nil:
			set.Fingerprint += fmt.Sprintf("%q %d\n", p.Source.Name(), p.Source.Len())
		case p.Stream.Once == nil:
			return nil, fmt.Errorf("dataset: %s cannot be read from front to back", p.name())
		default:
			set.Fingerprint += p.Stream.Fingerprint + "\n"
		}
	}
	set.Once = func(ctx context.Context, state json.RawMessage) (Pass, error) {
		c := &chain{name: set.Name, parts: parts}
		var at chainState
		if state != nil {
			if err := json.Unmarshal(state, &at); err != nil || at.Set < 0 || at.Set >= len(parts) {
				return nil, fmt.Errorf("dataset: %s: cannot continue: the state %.100q is not to be read", set.Name, state)
			}
		}
		if err := c.open(ctx, at); err != nil {
			return nil, err
		}
		return c, nil
	}
	return set, nil
}

// chain reads one set after the other.
type chain struct {
	name  string
	parts []Part
	at    int
	pass  Pass
}

// chainState is where a chain stands.
type chainState struct {
	Set   int             `json:"set"`
	State json.RawMessage `json:"state,omitempty"`
}

func (c *chain) open(ctx context.Context, at chainState) error {
	c.at, c.pass = at.Set, nil
	p := &c.parts[at.Set]
	var err error
	if p.Stream != nil {
		c.pass, err = p.Stream.Once(ctx, at.State)
		return err
	}
	first := 0
	if at.State != nil {
		err = json.Unmarshal(at.State, &first)
	}
	if err != nil || first < 0 || first > p.Source.Len() {
		return fmt.Errorf("dataset: %s: cannot continue: the state %.100q is not to be read", p.name(), at.State)
	}
	c.pass = SourcePass(p.Source, first)
	return nil
}

func (c *chain) Name() string { return c.name }

func (c *chain) Next(ctx context.Context) (Sample, error) {
	for {
		s, err := c.pass.Next(ctx)
		if err != io.EOF || c.at == len(c.parts)-1 {
			return s, err
		}
		if err := c.pass.Close(); err != nil {
			return Sample{}, err
		}
		if err := c.open(ctx, chainState{Set: c.at + 1}); err != nil {
			return Sample{}, err
		}
	}
}

func (c *chain) State() (json.RawMessage, error) {
	inner, err := c.pass.State()
	if err != nil {
		return nil, err
	}
	return json.Marshal(chainState{c.at, inner})
}

func (c *chain) Done() float64 { return (float64(c.at) + c.pass.Done()) / float64(len(c.parts)) }

func (c *chain) Close() error {
	if c.pass == nil {
		return nil
	}
	return c.pass.Close()
}

// SourcePass reads a source from picture first on; its state is the number of the next picture.
func SourcePass(src Source, first int) Pass { return &sourcePass{src: src, next: first} }

type sourcePass struct {
	src  Source
	next int
}

func (p *sourcePass) Name() string { return p.src.Name() }

func (p *sourcePass) Next(ctx context.Context) (Sample, error) {
	if err := ctx.Err(); err != nil {
		return Sample{}, err
	}
	if p.next >= p.src.Len() {
		return Sample{}, io.EOF
	}
	i := p.next
	p.next++
	e, err := p.src.Example(i)
	if e.Key == "" {
		e.Key = fmt.Sprintf("picture %d", i)
	}
	s := Sample{Example: e, Err: err}
	if err == nil {
		s.Picture, s.Err = readPicture(p.src, i)
	}
	return s, nil
}

// readPicture reads the file of picture i.
func readPicture(src Pictures, i int) ([]byte, error) {
	r, err := src.Open(i)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err = errors.Join(err, r.Close()); err == nil && len(data) > maxFileBytes {
		err = errTooLarge
	}
	return data, err
}

func (p *sourcePass) State() (json.RawMessage, error) { return json.Marshal(p.next) }
func (p *sourcePass) Done() float64                   { return float64(p.next) / float64(max(p.src.Len(), 1)) }
func (p *sourcePass) Close() error                    { return nil }
