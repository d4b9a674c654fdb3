package shard

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"sync"

	"blip2/pkg/dataset"
	"blip2/pkg/storage"
)

// plan says which shards a stream reads in which order.
type plan struct {
	o           Options
	seed        int64
	shards      []string
	maxLost     int  // per epoch
	once        bool // ends behind the first epoch
	fingerprint string
	cache       *cache // nil without
}

// streamSet makes the set of shards that are read in order.
func streamSet(o Options, shards []string) (*dataset.StreamSet, error) {
	if !o.Independent && len(shards) < o.Ranks {
		return nil, fmt.Errorf("shard: %s: %d shards cannot be divided among %d processes; write smaller ones "+
			"(blip2 data shard), or read them independently", o.Name, len(shards), o.Ranks)
	}
	c := newCache(&o)
	pass := passPlan(o, shards, c)
	return &dataset.StreamSet{Name: o.Name,
		Open: func(ctx context.Context, seed int64, state json.RawMessage) (dataset.Stream, error) {
			p := &plan{o: o, seed: seed, shards: shards, maxLost: o.MaxLost, cache: c}
			if p.maxLost == 0 {
				p.maxLost = len(shards) / 100
			}
			p.fingerprint = p.hash()
			return openStream(ctx, p, state)
		},
		Once: func(ctx context.Context, state json.RawMessage) (dataset.Pass, error) {
			return openStream(ctx, pass, state)
		},
		Fingerprint: pass.fingerprint}, nil
}

// passPlan reads every sample once, shard after shard in the order of the pattern. Shards that are missing or forbidden
// are reported as bad samples, however many they are.
func passPlan(o Options, shards []string, c *cache) *plan {
	o.Buffer, o.Lanes, o.InOrder, o.Resample = 1, 1, true, false
	o.Rank, o.Ranks, o.Independent = 0, 1, false
	p := &plan{o: o, shards: shards, maxLost: len(shards), cache: c, once: true}
	p.fingerprint = p.hash()
	return p
}

// hash names everything that decides the order, and of a single reading what it gives.
func (p *plan) hash() string {
	h := fnv.New64a()
	o := &p.o
	fmt.Fprintln(h, p.seed, o.Buffer, o.BufferBytes, o.Lanes, o.InOrder, o.Resample, o.Rank, o.Ranks, o.Independent)
	if p.once {
		fmt.Fprintln(h, "once", o.TopK)
	}
	for _, shard := range p.shards {
		name := storage.Redact(shard) // signatures of addresses may change
		if !p.once {
			name = tail(name)
		}
		fmt.Fprintln(h, name)
	}
	return strconv.FormatUint(h.Sum64(), 16)
}

// tail is the name of a shard and of its folder: a training goes on where its data has moved to another disk or bucket,
// but not on other data whose files happen to be called alike.
func tail(name string) string {
	if !storage.IsRemote(name) {
		if whole, err := filepath.Abs(name); err == nil {
			name = filepath.ToSlash(whole)
		}
	}
	return path.Join(path.Base(path.Dir(name)), path.Base(name))
}

// list is the shards of an epoch that a lane reads.
func (p *plan) list(epoch int64, lane int) []string {
	order := make([]int, len(p.shards))
	for i := range order {
		order[i] = i
	}
	first, step := p.o.Rank, p.o.Ranks
	key := int64(0)
	if p.o.Independent {
		first, step, key = 0, 1, int64(p.o.Rank)
	}
	d := newDraws(p.seed, epoch, forShards, key)
	switch {
	case p.o.Resample:
		for i := range order {
			order[i] = d.intN(len(order))
		}
	case !p.o.InOrder:
		shuffle(d, order)
	}
	var list []string
	for at := first + lane*step; at < len(order); at += p.o.Lanes * step {
		list = append(list, p.shards[order[at]])
	}
	return list
}

// object opens a shard, or its copy in the cache.
func (p *plan) object(ctx context.Context, shard string) (*storage.Object, error) {
	o, err := p.o.Store.Open(ctx, shard)
	if err != nil || p.cache == nil || !storage.IsRemote(shard) {
		return o, err
	}
	return p.cache.local(ctx, p.o.Store, o)
}

// position is where a stream stands between two buffers.
type position struct {
	Epoch  int64
	Buffer int64 // number in the epoch
	Turn   int   // the lane that gives next
	Lanes  []cursor
}

// stream shuffles what its lanes give, one buffer after the other.
type stream struct {
	p       *plan
	cancel  context.CancelFunc
	done    sync.WaitGroup
	lanes   []*lane
	buffers chan *buffer
	now     *buffer // nil before the first
	given   int     // samples of now
	err     error
	skip    int // samples of the first buffer that were given before

	lost   int // shards of epoch lostIn
	lostIn int64
}

// buffer is consecutive samples in the order that they are given in.
type buffer struct {
	samples    []dataset.Sample
	start, end string // states, without the last part
	done       float64
	err        error
}

func openStream(ctx context.Context, p *plan, state json.RawMessage) (*stream, error) {
	at := position{Lanes: make([]cursor, p.o.Lanes)}
	s := &stream{p: p, buffers: make(chan *buffer), lanes: make([]*lane, p.o.Lanes)}
	if state != nil {
		var err error
		if at, s.skip, err = p.parseState(state); err != nil {
			return nil, err
		}
	}
	s.now = &buffer{end: p.state(&at)}
	if s.skip > 0 {
		s.now = &buffer{start: s.now.end, samples: make([]dataset.Sample, s.skip+1)}
		s.given = s.skip
	}
	// Only Close ends the reading: ctx is that of the call that opens.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	limit := max(p.o.BufferBytes/int64(4*p.o.Lanes), 64<<10)
	for i := range s.lanes {
		s.lanes[i] = &lane{p: p, number: i, queue: newQueue(limit)}
		s.done.Go(func() { s.lanes[i].run(running, at.Lanes[i]) })
	}
	s.done.Go(func() { s.fill(running, at) })
	return s, nil
}

// fill makes buffers until the stream is closed.
func (s *stream) fill(ctx context.Context, at position) {
	epochs := 0 // without a sample
	none := at.Lanes[0] == cursor{}
	for {
		b := &buffer{start: s.p.state(&at)}
		ended, err := s.collect(b, &at)
		if ended {
			epochs++
		}
		none = none && len(b.samples) == 0
		if len(b.samples) > 0 {
			epochs = 0
		} else if err == nil && (epochs > 1 || ended && s.p.once) {
			err = io.EOF
			if !s.p.once || none {
				err = fmt.Errorf("shard: %s: the shards hold no samples", s.p.o.Name)
			}
		}
		if err != nil {
			b = &buffer{err: err}
		}
		shuffle(newDraws(s.p.seed, at.Epoch, forBuffer, at.Buffer, int64(s.p.o.Rank)), b.samples)
		if at.Buffer++; ended {
			at.Epoch, at.Buffer, at.Turn = at.Epoch+1, 0, 0
		}
		b.end = s.p.state(&at)
		if len(b.samples) == 0 && err == nil {
			continue
		}
		select {
		case s.buffers <- b:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// collect takes samples from the lanes in turn until the buffer is full or the epoch ends.
func (s *stream) collect(b *buffer, at *position) (ended bool, err error) {
	bytes := int64(0)
	for len(b.samples) < s.p.o.Buffer && bytes < s.p.o.BufferBytes {
		lane := -1
		for i := range s.lanes {
			if n := (at.Turn + i) % len(s.lanes); at.Lanes[n].epoch == at.Epoch {
				lane = n
				break
			}
		}
		if lane < 0 {
			return true, nil
		}
		i, ok := s.lanes[lane].queue.take()
		switch {
		case !ok:
			return false, errQueueClosed
		case i.err != nil:
			return false, i.err
		}
		at.Lanes[lane], at.Turn = i.next, (lane+1)%len(s.lanes)
		b.done = i.done
		if i.lost != nil {
			if err := s.lose(at.Epoch, i.lost); err != nil {
				return false, err
			}
		}
		if !i.ended {
			b.samples = append(b.samples, i.sample)
			bytes += i.bytes()
		}
	}
	return false, nil
}

// lose counts the shards that could not be read in an epoch.
func (s *stream) lose(epoch int64, err error) error {
	if epoch != s.lostIn {
		s.lostIn, s.lost = epoch, 0
	}
	if s.lost++; s.lost > max(s.p.maxLost, 0) {
		return fmt.Errorf("%w; %d shards of this epoch could not be read, and %d are allowed", err, s.lost,
			max(s.p.maxLost, 0))
	}
	return nil
}

// Name is the name given to the shards, or the pattern.
func (s *stream) Name() string { return s.p.o.Name }

// Next is the next sample.
func (s *stream) Next(ctx context.Context) (dataset.Sample, error) {
	for s.err == nil && (s.given == len(s.now.samples) || s.skip > 0) {
		select {
		case b := <-s.buffers:
			if s.err = b.err; s.err != nil {
				break
			}
			s.now, s.given, s.skip = b, s.skip, 0
			if s.given >= len(b.samples) {
				s.err = fmt.Errorf("shard: %s: cannot continue: a buffer has %d samples and had at least %d when the stream "+
					"was left; were the shards replaced?", s.p.o.Name, len(b.samples), s.given+1)
			}
		case <-ctx.Done():
			return dataset.Sample{}, ctx.Err()
		}
	}
	if s.err != nil {
		return dataset.Sample{}, s.err
	}
	sample := s.now.samples[s.given]
	s.now.samples[s.given] = dataset.Sample{}
	s.given++
	return sample, nil
}

// Done is how much of a single reading was given.
func (s *stream) Done() float64 {
	if s.err == io.EOF {
		return 1
	}
	return s.now.done
}

// Close ends the reading and waits for it.
func (s *stream) Close() error {
	s.cancel()
	for _, l := range s.lanes {
		l.queue.close()
	}
	s.done.Wait()
	if s.err == nil {
		s.err = errQueueClosed
	}
	return nil
}

// State is where the stream stands: the beginning of the buffer and how many of its samples were given.
func (s *stream) State() (json.RawMessage, error) {
	text, given := s.now.start, s.given
	if given == len(s.now.samples) {
		text, given = s.now.end, 0
	}
	return json.RawMessage(text + strconv.Itoa(given) + "}"), nil
}

// state writes a position, up to the number of samples given.
func (p *plan) state(at *position) string {
	b := append([]byte(`{"of":"`), p.fingerprint...)
	b = strconv.AppendInt(append(b, `","epoch":`...), at.Epoch, 10)
	b = strconv.AppendInt(append(b, `,"buffer":`...), at.Buffer, 10)
	b = strconv.AppendInt(append(b, `,"turn":`...), int64(at.Turn), 10)
	b = append(b, `,"lanes":[`...)
	for i, c := range at.Lanes {
		if i > 0 {
			b = append(b, ',')
		}
		resync := int64(0)
		if c.resync {
			resync = 1
		}
		for j, v := range []int64{c.epoch, int64(c.place), c.offset, resync} {
			b = append(b, "[,,,"[j])
			b = strconv.AppendInt(b, v, 10)
		}
		b = append(b, ']')
	}
	return string(append(b, `],"given":`...))
}

// parseState reads what State gave.
func (p *plan) parseState(state json.RawMessage) (at position, given int, err error) {
	var s struct {
		Of     string     `json:"of"`
		Epoch  int64      `json:"epoch"`
		Buffer int64      `json:"buffer"`
		Turn   int        `json:"turn"`
		Lanes  [][4]int64 `json:"lanes"`
		Given  int        `json:"given"`
	}
	if err := json.Unmarshal(state, &s); err != nil {
		return at, 0, fmt.Errorf("shard: %s: cannot continue: the state is not to be read: %w", p.o.Name, err)
	}
	if s.Of != p.fingerprint {
		return at, 0, fmt.Errorf("shard: %s: cannot continue: the list of shards or the name of their folder, the seed, "+
			"the buffer, the lanes or the number of processes is not what it was; restore it, or start the data anew", p.o.Name)
	}
	at = position{Epoch: s.Epoch, Buffer: s.Buffer, Turn: s.Turn}
	valid := len(s.Lanes) == p.o.Lanes && s.Epoch >= 0 && s.Turn >= 0 && s.Turn < p.o.Lanes && s.Given >= 0 &&
		s.Given < p.o.Buffer
	for _, c := range s.Lanes {
		valid = valid && c[0] >= s.Epoch && c[0] <= s.Epoch+1 && c[1] >= 0 && c[1] <= int64(len(p.shards)) && c[2] >= 0
		at.Lanes = append(at.Lanes, cursor{c[0], int(c[1]), c[2], c[3] == 1})
	}
	if !valid {
		return at, 0, fmt.Errorf("shard: %s: cannot continue: the state makes no sense", p.o.Name)
	}
	return at, s.Given, nil
}
