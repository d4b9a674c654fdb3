package shard

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"blip2/pkg/dataset"
	"blip2/pkg/storage"
)

// A stream reads several shards at the same time: lane l of L reads the shards at the places l, l+L, l+2L, … of the
// epoch's order, one after the other, on to the next epoch. What a lane gives is a function of where it starts.

// cursor is where a lane stands.
type cursor struct {
	epoch  int64
	place  int   // in the lane's list of shards
	offset int64 // in the shard, unpacked
	resync bool  // a header must be looked for there
}

// item is what a lane gives: a sample, or the end of an epoch.
type item struct {
	sample dataset.Sample
	next   cursor  // behind it
	done   float64 // how much of the lane's shards was read, of one epoch
	ended  bool    // nothing but the end of an epoch
	lost   error   // why the shard that the sample stands for cannot be read
	err    error   // the lane cannot go on
}

func (i *item) bytes() int64 { return int64(len(i.sample.Picture)) + 512 }

// queue is a bounded queue between a lane and the stream.
type queue struct {
	mu     sync.Mutex
	cond   sync.Cond
	items  []item
	bytes  int64
	limit  int64
	closed bool
}

func newQueue(limit int64) *queue {
	q := &queue{limit: limit}
	q.cond.L = &q.mu
	return q
}

// put waits for room, and says whether the queue is still open. An item larger than the queue goes in alone.
func (q *queue) put(i item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.items) > 0 && q.bytes+i.bytes() > q.limit {
		q.cond.Wait()
	}
	if q.closed {
		return false
	}
	q.items = append(q.items, i)
	q.bytes += i.bytes()
	q.cond.Broadcast()
	return true
}

// take waits for an item; ok is false once the queue is closed.
func (q *queue) take() (i item, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.items) == 0 {
		q.cond.Wait()
	}
	if q.closed {
		return item{}, false
	}
	i = q.items[0]
	q.items[0] = item{}
	q.items = q.items[1:]
	q.bytes -= i.bytes()
	q.cond.Broadcast()
	return i, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.items = true, nil
	q.cond.Broadcast()
}

// lane reads one of the stream's sequences of shards.
type lane struct {
	p      *plan
	number int
	queue  *queue
}

// run fills the queue from a cursor on, until the queue is closed or an error ends the lane.
func (l *lane) run(ctx context.Context, at cursor) {
	for {
		shards := l.p.list(at.epoch, l.number)
		for at.place < len(shards) {
			err := l.shard(ctx, shards[at.place], at)
			if err != nil && !l.lose(shards[at.place], at, err) {
				return
			}
			at = cursor{epoch: at.epoch, place: at.place + 1}
		}
		at = cursor{epoch: at.epoch + 1}
		if !l.queue.put(item{next: at, ended: true}) || l.p.once {
			return
		}
	}
}

// errQueueClosed ends the lanes of a stream that was closed.
var errQueueClosed = errors.New("shard: the stream is closed")

// lose decides on a shard that cannot be read any further: one that is missing or forbidden is given as a bad sample;
// everything else ends the lane.
func (l *lane) lose(shard string, at cursor, err error) bool {
	if errors.Is(err, errQueueClosed) {
		return false
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		l.queue.put(item{err: err})
		return false
	}
	l.p.o.Log.Warn("a shard is passed over", "shard", storage.Redact(shard), "error", err)
	return l.queue.put(item{lost: err, next: cursor{epoch: at.epoch, place: at.place + 1},
		sample: dataset.Sample{Example: dataset.Example{Key: baseName(shard)}, Err: fmt.Errorf("%s: %w", gone, err)}})
}

// shard reads a shard from a cursor to its end.
func (l *lane) shard(ctx context.Context, shard string, at cursor) error {
	in, o, err := l.p.open(ctx, shard, at.offset)
	if err != nil {
		return err
	}
	defer o.close()
	r := newSampleReader(in, true)
	r.tar.resync = at.resync
	name, base := storage.Redact(shard), baseName(shard)
	var s sample
	for {
		switch err := r.next(&s); {
		case err == io.EOF:
			return l.finish(in, name, base, at)
		case err != nil:
			return err
		}
		next := cursor{epoch: at.epoch, place: at.place, offset: s.end, resync: s.resync}
		if s.bad == cutOff {
			next = cursor{epoch: at.epoch, place: at.place + 1}
		}
		done := (float64(at.place) + o.part()) / float64(len(l.p.shards))
		if !l.queue.put(item{sample: l.sample(&s, name, base), next: next, done: done}) {
			return errQueueClosed
		}
		if s.bad == cutOff {
			return nil
		}
	}
}

// sample is a sample as the stream gives it.
func (l *lane) sample(s *sample, name, base string) dataset.Sample {
	key := string(s.key)
	if key == "" {
		key = fmt.Sprintf("byte %d", s.start)
	}
	out := dataset.Sample{Example: dataset.Example{Key: base + "/" + key, ImageID: -1}, Err: s.err(name)}
	if out.Err == nil {
		out.Picture = s.pixels
		s.record.fill(&out.Example, l.p.o.TopK)
	}
	return out
}

// maxTrailer bounds what a packed shard may have behind its archive, in bytes.
const maxTrailer = 64 << 20

// finish reads what is behind the end of the archive of a packed shard, for only there its checksum stands.
func (l *lane) finish(in input, name, base string, at cursor) error {
	s, ok := in.(*packedInput)
	if !ok || s.done {
		return nil
	}
	s.done = true
	n, err := io.CopyN(io.Discard, s.r, maxTrailer)
	reason := ""
	switch {
	case err == nil:
		reason = "the archive has more behind its end than is reasonable"
	case err != io.EOF:
		t := tarReader{in: in}
		var d *Damage
		if err = t.cut(err); !errors.As(err, &d) {
			return err
		}
		reason = d.Reason
	default:
		return nil
	}
	bad := sample{start: s.pos + n, bad: damaged, reason: reason}
	next := cursor{epoch: at.epoch, place: at.place + 1}
	if !l.queue.put(item{sample: l.sample(&bad, name, base), next: next}) {
		return errQueueClosed
	}
	return nil
}

// packedInput is the contents of a .tar.gz.
type packedInput struct {
	streamInput
	done bool
}

// readAhead is the size of the buffer of each lane for what comes over the network, in bytes.
const readAhead = 256 << 10

// opened is a shard that is being read.
type opened struct {
	o    *storage.Object
	r    io.ReadCloser
	from int64 // first byte read
	n    int64 // bytes read
}

// Read counts what is read.
func (f *opened) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.n += int64(n)
	return n, err
}

// part is how much of the shard was read, 0 if its size is not known.
func (f *opened) part() float64 {
	if size := f.o.Info().Size; size > 0 {
		return float64(f.from+f.n) / float64(size)
	}
	return 0
}

// close ends the reading; the shard was only read, so that there is nothing to lose.
func (f *opened) close() {
	_ = f.r.Close()
	_ = f.o.Close()
}

// open opens a shard for reading in order from an offset. A packed shard must be unpacked up to there.
func (p *plan) open(ctx context.Context, shard string, offset int64) (input, *opened, error) {
	o, err := p.object(ctx, shard)
	if err != nil {
		return nil, nil, err
	}
	head := make([]byte, len(gzipMagic))
	if size := o.Info().Size; size < 0 || size >= int64(len(head)) {
		if err := o.ReadAt(ctx, head, 0); err != nil {
			return nil, nil, errors.Join(err, o.Close())
		}
	}
	from := offset
	packed := string(head) == string(gzipMagic)
	if packed {
		from = 0
	} else if size := o.Info().Size; size >= 0 && offset > size {
		return nil, nil, errors.Join(shorter(o.Name(), offset), o.Close())
	}
	f := &opened{o: o, r: o.Range(ctx, from, -1), from: from}
	buffered := bufio.NewReaderSize(f, readAhead)
	if !packed {
		return &streamInput{r: buffered, length: o.Info().Size, pos: offset}, f, nil
	}
	in, err := unpack(buffered, offset)
	if err != nil {
		f.close()
		if err == io.EOF {
			err = shorter(o.Name(), offset)
		}
		return nil, nil, err
	}
	return in, f, nil
}

// shorter is the error for a shard that ends before the place where the stream was left.
func shorter(shard string, offset int64) error {
	return fmt.Errorf("shard: %s ends before byte %d, where the stream was left: it was replaced; start the data anew",
		shard, offset)
}

// unpack gives the contents of a packed shard from an offset on. Damage before it shows when it is read.
func unpack(r io.Reader, offset int64) (input, error) {
	in := &packedInput{streamInput: streamInput{length: -1}}
	z, err := gzip.NewReader(r)
	if err == nil {
		in.r = z
		err = in.skip(offset)
	}
	if err != nil {
		var fault *storage.Error
		if errors.As(err, &fault) || err == io.EOF {
			return nil, err
		}
		in.r = failing{err}
	}
	return in, nil
}

// failing is a reader that has failed.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
