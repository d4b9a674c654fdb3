package dataset

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

// LoaderOptions say what a Loader gives. Everything but Workers and Prefetch decides the contents of the batches.
type LoaderOptions struct {
	BatchSize  int
	ImageSize  int // S: pictures are S×S
	MaxTextLen int // L: tokens per text
	Seed       int64
	Unit       Unit // "" means UnitCaption
	Caption    CaptionProcessor
	Crop       Crop       // zero means DefaultCrop
	Flip       float64    // probability of mirroring
	Mean, Std  [3]float32 // zero means CLIP's
	EXIF       bool       // turn pictures upright by their EXIF tag; the reference does not

	Workers     int      // goroutines that decode; at least 1
	Prefetch    int      // batches prepared ahead; at least 1
	MaxBadShare float64  // greatest share of samples that may be bad (see Loader.Next)
	Start       Position // where to begin, from Batch.Position
}

// Loader gives training batches without end. Their contents are a function of the source, the options and the position
// alone: an epoch is a permutation of the rows keyed by (seed, epoch), and every draw of augmentation is keyed by
// (seed, epoch, row). Batches are always full; what is left at the end of an epoch is dropped.
type Loader struct {
	src  Source
	tok  Tokenizer
	o    LoaderOptions
	rows rows

	stop   context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup
	queue  chan *pending // batches in order, finished or not
	tasks  chan task
	unused chan *Batch

	current *pending // taken from the queue by a Next that was interrupted
	failed  error
	seen    int64
	bad     int64
	epoch   int64 // of the last batch given, with its counts
	kept    []BadSample

	epochSeen, epochBad int64
}

// maxKept bounds the bad samples kept for the report.
const maxKept = 100

// pending is a batch in the making.
type pending struct {
	batch *Batch
	epoch int64
	first int64   // position of slot 0 in the epoch
	rows  []int64 // per slot
	errs  []error // per slot, nil where the sample is good
	left  atomic.Int32
	ready chan struct{}
	bad   []BadSample // in the order of slots, then of replacements that were bad too
	slots int64       // slots whose own row was bad
	err   error
}

type task struct {
	p    *pending
	slot int
}

// NewLoader starts the workers. It fails if the source has fewer rows than a batch.
func NewLoader(src Source, tok Tokenizer, o LoaderOptions) (*Loader, error) {
	o.Mean, o.Std = normalisation(o.Mean, o.Std)
	if o.Crop == (Crop{}) {
		o.Crop = DefaultCrop()
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	r, err := newRows(src, o.Unit)
	if err != nil {
		return nil, err
	}
	if err := r.checkBatch(src, o.BatchSize); err != nil {
		return nil, err
	}
	if o.Start.Epoch < 0 || o.Start.Index < 0 || o.Start.Index > r.n {
		return nil, fmt.Errorf("dataset: cannot continue at row %d of epoch %d: %s has %d rows; is this the data set "+
			"that the run was started with?", o.Start.Index, o.Start.Epoch, src.Name(), r.n)
	}
	l := &Loader{src: src, tok: tok, o: o, rows: r, queue: make(chan *pending, o.Prefetch),
		tasks: make(chan task, o.Workers), unused: make(chan *Batch, o.Prefetch+2)}
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.done.Go(l.produce)
	for range o.Workers {
		l.done.Go(l.work)
	}
	return l, nil
}

func (o *LoaderOptions) check() error {
	for name, v := range map[string]int{"batch size": o.BatchSize, "image size": o.ImageSize,
		"number of workers": o.Workers, "number of prefetched batches": o.Prefetch} {
		if v < 1 {
			return fmt.Errorf("dataset: the %s is %d; it must be at least 1", name, v)
		}
	}
	c := o.Crop
	switch {
	case o.MaxTextLen < 2:
		return fmt.Errorf("dataset: the text length is %d; [CLS] and [SEP] need 2", o.MaxTextLen)
	case !(0 < c.Scale[0] && c.Scale[0] <= c.Scale[1] && c.Scale[1] <= 1):
		return fmt.Errorf("dataset: the crop's share of the area is %v; need 0 < from ≤ to ≤ 1", c.Scale)
	case !(0 < c.Ratio[0] && c.Ratio[0] <= c.Ratio[1]) || math.IsInf(c.Ratio[1], 1):
		return fmt.Errorf("dataset: the crop's aspect ratio is %v; need 0 < from ≤ to", c.Ratio)
	case !(0 <= o.Flip && o.Flip <= 1):
		return fmt.Errorf("dataset: the probability of flipping is %g; need 0 to 1", o.Flip)
	case !(0 <= o.MaxBadShare && o.MaxBadShare <= 1):
		return fmt.Errorf("dataset: the allowed share of bad samples is %g; need 0 to 1", o.MaxBadShare)
	}
	return nil
}

// Rows is the number of rows of an epoch.
func (l *Loader) Rows() int64 { return l.rows.n }

// BatchesPerEpoch is the number of full batches in an epoch.
func (l *Loader) BatchesPerEpoch() int64 { return l.rows.n / int64(l.o.BatchSize) }

// produce lays out batch after batch and hands their slots to the workers.
func (l *Loader) produce() {
	at := l.o.Start
	order := epochOrder(l.o.Seed, at.Epoch, l.rows.n)
	size := int64(l.o.BatchSize)
	for {
		if at.Index+size > l.rows.n {
			at = Position{Epoch: at.Epoch + 1}
			order = epochOrder(l.o.Seed, at.Epoch, l.rows.n)
		}
		p := &pending{batch: l.takeBatch(), epoch: at.Epoch, first: at.Index, rows: make([]int64, size),
			errs: make([]error, size), ready: make(chan struct{})}
		p.left.Store(int32(size))
		for i := range p.rows {
			p.rows[i] = order.at(at.Index + int64(i))
		}
		at.Index += size
		p.batch.Epoch, p.batch.Index = at.Epoch, at.Index
		select {
		case l.queue <- p:
		case <-l.ctx.Done():
			return
		}
		for slot := range p.rows {
			select {
			case l.tasks <- task{p, slot}:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

func (l *Loader) takeBatch() *Batch {
	select {
	case b := <-l.unused:
		return b
	default:
		return newBatch(l.o.BatchSize, l.o.ImageSize, l.o.MaxTextLen, l.unused)
	}
}

// work fills slots; whoever fills the last one of a batch replaces its bad samples.
func (l *Loader) work() {
	var s scratch
	for {
		select {
		case t := <-l.tasks:
			t.p.errs[t.slot] = l.fill(&s, t.p, t.slot, t.p.rows[t.slot])
			if t.p.left.Add(-1) == 0 {
				l.replaceBad(&s, t.p)
				close(t.p.ready)
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// fill writes row to a slot of the batch.
func (l *Loader) fill(s *scratch, p *pending, slot int, row int64) error {
	image, caption := l.rows.at(l.src, l.o.Seed, p.epoch, row)
	b := p.batch
	b.ImageIndex[slot], b.Keys[slot] = int64(image), fmt.Sprintf("picture %d", image)
	e, err := l.src.Example(image)
	if err != nil {
		return err
	}
	b.Keys[slot] = e.Key
	text := l.o.Caption.Process(e.Captions[caption])
	if len(text) == len(l.o.Caption.Prompt) {
		return errNoCaption
	}
	if err := s.load(l.src, image, l.o.EXIF); err != nil {
		return err
	}
	box := l.o.Crop.RandomBox(s.img.W, s.img.H, l.o.Seed, p.epoch, row)
	flip := newStream(l.o.Seed, p.epoch, row, purposeFlip)
	size := 3 * l.o.ImageSize * l.o.ImageSize
	s.write(b.Pixels[slot*size:(slot+1)*size], &box, l.o.ImageSize, flip.float64() < l.o.Flip, l.o.Mean, l.o.Std)
	b.Captions[slot] = text
	from, to := slot*l.o.MaxTextLen, (slot+1)*l.o.MaxTextLen
	l.tok.EncodeCaptionInto(b.TextIDs[from:to], b.TextMask[from:to], text)
	return nil
}

// replaceTries bounds the draws for one replacement; in the first half of them a picture that is in the batch already
// is passed over, for it would be a negative of itself.
const replaceTries = 64

// replaceBad fills the slots of bad samples with rows drawn for their positions. It runs alone on its batch and goes
// from slot to slot, so that the outcome depends only on which samples are bad.
func (l *Loader) replaceBad(s *scratch, p *pending) {
	var tried map[int64]bool // bad rows of this batch
	for slot, err := range p.errs {
		if err == nil {
			continue
		}
		if tried == nil {
			tried = map[int64]bool{}
		}
		tried[p.rows[slot]] = true
		p.slots++
		p.bad = append(p.bad, BadSample{p.batch.Keys[slot], err.Error()})
	}
	for slot, err := range p.errs {
		if err == nil {
			continue
		}
		draws := newStream(l.o.Seed, p.epoch, p.first+int64(slot), purposeReplace)
		for try := range replaceTries {
			row := draws.intN(l.rows.n)
			if tried[row] || try < replaceTries/2 && l.inBatch(p, row) {
				continue
			}
			if err = l.fill(s, p, slot, row); err == nil {
				break
			}
			tried[row] = true
			p.bad = append(p.bad, BadSample{p.batch.Keys[slot], err.Error()})
		}
		if p.errs[slot] = err; err != nil && p.err == nil {
			p.err = fmt.Errorf("dataset: %s: no replacement for the bad sample %s among %d draws: %w", l.src.Name(),
				p.batch.Keys[slot], replaceTries, err)
		}
	}
}

// inBatch says whether the picture of row is in one of the good slots.
func (l *Loader) inBatch(p *pending, row int64) bool {
	image, _ := l.rows.at(l.src, l.o.Seed, p.epoch, row)
	for slot, err := range p.errs {
		if err == nil && p.batch.ImageIndex[slot] == int64(image) {
			return true
		}
	}
	return false
}

// errClosed is what Next gives after Close.
var errClosed = errors.New("dataset: the loader is closed")

// Next gives the next batch, waiting for it if need be. A sample that cannot be used (unreadable picture, empty
// caption) is counted and replaced by another row, drawn as a function of the position. Once more than MaxBadShare of
// an epoch's samples are bad (see badAllowed), Next fails with a BadShareError.
// After an interrupt by ctx the loader can go on; after any other error it cannot. Not for concurrent use.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	if l.failed != nil {
		return nil, l.failed
	}
	if l.ctx.Err() != nil {
		return nil, errClosed
	}
	if l.current == nil {
		select {
		case l.current = <-l.queue:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	select {
	case <-l.current.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p := l.current
	l.current = nil
	if l.failed = l.account(p); l.failed != nil {
		return nil, l.failed
	}
	return p.batch, nil
}

// account counts the bad samples of a batch, in the order of batches.
func (l *Loader) account(p *pending) error {
	if p.epoch != l.epoch {
		l.epoch, l.epochSeen, l.epochBad = p.epoch, 0, 0
	}
	l.seen += int64(len(p.rows))
	l.epochSeen += int64(len(p.rows))
	l.bad += p.slots // bad replacements do not count: the share is that of the data set's rows
	l.epochBad += p.slots
	for _, s := range p.bad {
		l.keep(s)
	}
	if float64(l.epochBad) > badAllowed(l.o.MaxBadShare, l.epochSeen, l.rows.n) {
		return &BadShareError{Source: l.src.Name(), Bad: l.epochBad, Seen: l.epochSeen, Allowed: l.o.MaxBadShare,
			Examples: l.BadSamples()}
	}
	return p.err
}

// badAllowed is how many of the rows seen in an epoch may be bad. Up to 1,000 rows the share is that of the whole
// epoch, whatever the order; of more rows it is that of the rows seen, at least 1,000, and three standard deviations
// of chance are added, so that a data set just below the limit is not stopped by an unlucky beginning.
func badAllowed(share float64, seen, rows int64) float64 {
	const window = 1000
	if rows <= window {
		return share * float64(rows)
	}
	allowed := share * float64(max(seen, window))
	return allowed + 3*math.Sqrt(allowed)
}

func (l *Loader) keep(s BadSample) {
	for _, k := range l.kept {
		if k.Key == s.Key {
			return
		}
	}
	if len(l.kept) < maxKept {
		l.kept = append(l.kept, s)
	}
}

// Seen is the number of samples of the batches given so far, and how many samples were bad on the way.
func (l *Loader) Seen() (samples, bad int64) { return l.seen, l.bad }

// BadSamples are the bad samples met so far, one per key, at most 100. Like Seen it must not run beside Next.
func (l *Loader) BadSamples() []BadSample { return append([]BadSample(nil), l.kept...) }

// Close stops the workers and waits for them.
func (l *Loader) Close() {
	l.stop()
	l.done.Wait()
}
