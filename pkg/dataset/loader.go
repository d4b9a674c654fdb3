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
	BatchSize  int // of all shards together
	ImageSize  int // S: pictures are S×S
	MaxTextLen int // L: tokens per text; unused without a tokenizer
	Seed       int64
	Unit       Unit // of the source given to NewLoader; "" means UnitCaption
	Caption    CaptionProcessor
	Question   QuestionProcessor
	Answers    AnswerMode  // "" means AnswersWeighted
	Crop       Crop        // zero means DefaultCrop
	Flip       float64     // probability of mirroring
	Augment    RandAugment // after crop and mirroring; none in BLIP-2's training
	Mean, Std  [3]float32  // zero means CLIP's
	EXIF       bool        // turn pictures upright by their EXIF tag; the reference does not
	Truncated  Truncated   // what to do with picture files that end too early; "" means TruncatedAccept

	// Shards > 1 divides every batch among processes: this one, Shard of 0 … Shards−1, gets the rows from
	// Shard·BatchSize/Shards on. What the shards get together is the batch that one process alone would get. Every
	// process reads the streams whole.
	Shard, Shards int

	Workers     int      // goroutines that decode; at least 1
	Prefetch    int      // batches prepared ahead; at least 1
	MaxBadShare float64  // greatest share of samples that may be bad (see Loader.Next)
	Start       Position // where to begin, from Batch.Position
}

// Loader gives training batches without end. Their contents are a function of the data, the options and the position
// alone: an epoch is a permutation keyed by (seed, epoch), and every random draw is keyed by (seed, epoch, row).
// Batches are always full; what is left at the end of an epoch is dropped.
type Loader struct {
	mix   *Mixture
	tok   Tokenizer
	o     LoaderOptions
	slots int // rows of a batch that are this shard's
	feeds []*feed

	stop   context.CancelFunc
	ctx    context.Context
	done   sync.WaitGroup
	queue  chan *pending // batches in order, finished or not
	tasks  chan task
	unused chan *Batch

	current *pending // taken from the queue by a Next that was interrupted
	failed  error
	counts  []PartCount
	epoch   int64 // of the last batch given, with its counts
	kept    []BadSample

	epochSeen, epochBad int64
}

// PartCount says how many samples were taken of one data set, and how many of them were bad.
type PartCount struct {
	Name         string
	Samples, Bad int64
}

// maxKept bounds the bad samples kept for the report.
const maxKept = 100

// pending is a batch in the making.
type pending struct {
	batch   *Batch
	order   *order
	first   int64           // position of the whole batch's first row in the epoch
	offset  int64           // rows of the batch that belong to shards before this one
	places  []place         // per slot
	samples map[int]*Sample // of slots that are a stream's
	spares  [][]Sample      // per part, of streams: what comes after the batch
	errs    []error         // per slot, nil where the sample is good
	left    atomic.Int32
	ready   chan struct{}
	bad     []BadSample // in the order of slots, then of replacements that were bad too
	badOf   []int64     // per part: slots whose own row was bad
	err     error
}

type task struct {
	p    *pending
	slot int
}

// NewLoader starts the workers on a single source. It fails if the source has fewer rows than a batch. Without a
// tokenizer (nil) batches have no TextIDs and no TextMask.
func NewLoader(src Source, tok Tokenizer, o LoaderOptions) (*Loader, error) {
	m, err := NewMixture(Mix{}, Part{Source: src, Unit: o.Unit})
	if err != nil {
		return nil, err
	}
	return NewMixtureLoader(m, tok, o)
}

// NewMixtureLoader starts the workers on a mixture, and opens its streams where o.Start says.
func NewMixtureLoader(m *Mixture, tok Tokenizer, o LoaderOptions) (*Loader, error) {
	o.Mean, o.Std = normalisation(o.Mean, o.Std)
	if o.Crop == (Crop{}) {
		o.Crop = DefaultCrop()
	}
	if tok == nil {
		o.MaxTextLen = 0
	}
	o.Shards = max(o.Shards, 1)
	if err := o.check(tok != nil); err != nil {
		return nil, err
	}
	if err := m.CheckBatch(o.BatchSize); err != nil {
		return nil, err
	}
	if at := o.Start; at.Epoch < 0 || at.Epoch > maxEpoch || at.Index < 0 || at.Index > m.epoch {
		return nil, fmt.Errorf("dataset: cannot continue at row %d of epoch %d: %s has %d rows; is this the data set "+
			"that the run was started with?", at.Index, at.Epoch, m.Name(), m.epoch)
	}
	l := &Loader{mix: m, tok: tok, o: o, slots: o.BatchSize / o.Shards, queue: make(chan *pending, o.Prefetch),
		tasks: make(chan task, o.Workers), unused: make(chan *Batch, o.Prefetch+2)}
	for i := range m.parts {
		l.counts = append(l.counts, PartCount{Name: m.parts[i].name()})
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	if err := l.openFeeds(); err != nil {
		l.stop()
		return nil, err
	}
	l.done.Go(l.produce)
	for range o.Workers {
		l.done.Go(l.work)
	}
	return l, nil
}

func (o *LoaderOptions) check(texts bool) error {
	for name, v := range map[string]int{"batch size": o.BatchSize, "image size": o.ImageSize,
		"number of workers": o.Workers, "number of prefetched batches": o.Prefetch} {
		if v < 1 {
			return fmt.Errorf("dataset: the %s is %d; it must be at least 1", name, v)
		}
	}
	if err := errors.Join(o.Truncated.check(), o.Augment.check()); err != nil {
		return err
	}
	c := o.Crop
	switch {
	case texts && o.MaxTextLen < 2:
		return fmt.Errorf("dataset: the text length is %d; [CLS] and [SEP] need 2", o.MaxTextLen)
	case !(0 < c.Scale[0] && c.Scale[0] <= c.Scale[1] && c.Scale[1] <= 1):
		return fmt.Errorf("dataset: the crop's share of the area is %v; need 0 < from ≤ to ≤ 1", c.Scale)
	case !(0 < c.Ratio[0] && c.Ratio[0] <= c.Ratio[1]) || math.IsInf(c.Ratio[1], 1):
		return fmt.Errorf("dataset: the crop's aspect ratio is %v; need 0 < from ≤ to", c.Ratio)
	case !(0 <= o.Flip && o.Flip <= 1):
		return fmt.Errorf("dataset: the probability of flipping is %g; need 0 to 1", o.Flip)
	case !(0 <= o.MaxBadShare && o.MaxBadShare <= 1):
		return fmt.Errorf("dataset: the allowed share of bad samples is %g; need 0 to 1", o.MaxBadShare)
	case o.Shard < 0 || o.Shard >= o.Shards || o.BatchSize%o.Shards != 0:
		return fmt.Errorf("dataset: shard %d of %d of a batch of %d; need a shard below their number, and a batch size "+
			"that is a multiple of it", o.Shard, o.Shards, o.BatchSize)
	case !o.Answers.known():
		return fmt.Errorf("dataset: unknown way to draw answers %q; %q, %q and %q are known", o.Answers,
			AnswersWeighted, AnswersDistinct, AnswersAll)
	}
	return nil
}

// Rows is the number of rows of an epoch.
func (l *Loader) Rows() int64 { return l.mix.epoch }

// BatchesPerEpoch is the number of full batches in an epoch.
func (l *Loader) BatchesPerEpoch() int64 { return l.mix.epoch / int64(l.o.BatchSize) }

// produce lays out batch after batch and hands their slots to the workers.
func (l *Loader) produce() {
	at := l.o.Start
	order := l.mix.order(l.o.Seed, at.Epoch)
	for {
		if at.Index+int64(l.o.BatchSize) > l.mix.epoch {
			at.Epoch, at.Index = at.Epoch+1, 0
			order = l.mix.order(l.o.Seed, at.Epoch)
		}
		p := l.layOut(order, at.Index)
		at.Index += int64(l.o.BatchSize)
		if p.err == nil {
			at.Streams, p.err = l.streamStates()
		}
		p.batch.Epoch, p.batch.Index, p.batch.streams = at.Epoch, at.Index, at.Streams
		if !l.handOut(p) {
			return
		}
	}
}

// layOut says what stands in the slots of the batch at a position, and takes what is due from the streams.
func (l *Loader) layOut(order *order, first int64) *pending {
	p := &pending{batch: l.takeBatch(), order: order, first: first, offset: int64(l.o.Shard * l.slots),
		places: make([]place, l.slots), errs: make([]error, l.slots), ready: make(chan struct{}),
		badOf: make([]int64, len(l.mix.parts))}
	p.left.Store(int32(l.slots))
	if len(l.feeds) == 0 {
		for slot := range p.places {
			p.places[slot] = order.at(first + p.offset + int64(slot))
		}
		return p
	}
	p.samples, p.spares = map[int]*Sample{}, make([][]Sample, len(l.mix.parts))
	for i := range l.o.BatchSize {
		at := order.at(first + int64(i))
		slot := i - int(p.offset)
		mine := 0 <= slot && slot < l.slots
		if mine {
			p.places[slot] = at
		}
		if f := l.feeds[at.part]; f != nil {
			sample, err := f.next(l.ctx)
			if err != nil {
				p.err, p.places = err, nil
				return p
			}
			if mine {
				p.samples[slot] = sample
			}
		}
	}
	for part, f := range l.feeds {
		if f != nil {
			p.spares[part], p.err = f.ahead(l.ctx, l.spares())
		}
		if p.err != nil {
			p.places = nil
			return p
		}
	}
	return p
}

// handOut gives a batch to Next and its slots to the workers. It returns whether to go on.
func (l *Loader) handOut(p *pending) bool {
	if p.err != nil {
		close(p.ready)
	}
	select {
	case l.queue <- p:
	case <-l.ctx.Done():
		return false
	}
	if p.err != nil {
		return false
	}
	for slot := range p.places {
		select {
		case l.tasks <- task{p, slot}:
		case <-l.ctx.Done():
			return false
		}
	}
	return true
}

func (l *Loader) takeBatch() *Batch {
	select {
	case b := <-l.unused:
		return b
	default:
		return newBatch(l.slots, l.o.ImageSize, l.o.MaxTextLen, l.unused)
	}
}

// work fills slots; whoever fills the last one of a batch replaces its bad samples.
func (l *Loader) work() {
	var s scratch
	for {
		select {
		case t := <-l.tasks:
			t.p.errs[t.slot] = l.fill(&s, t.p, t.slot, t.p.places[t.slot], t.p.samples[t.slot])
			if t.p.left.Add(-1) == 0 {
				l.replaceBad(&s, t.p)
				close(t.p.ready)
			}
		case <-l.ctx.Done():
			return
		}
	}
}

// fill writes what stands at a place to a slot of the batch: a row of a source, or a stream's sample.
func (l *Loader) fill(s *scratch, p *pending, slot int, at place, sample *Sample) error {
	var err error
	if sample != nil {
		err = l.fillSample(s, p, slot, at, sample)
	} else {
		err = l.fillRow(s, p, slot, at)
	}
	if err != nil {
		return err
	}
	size := 3 * l.o.ImageSize * l.o.ImageSize
	return s.write(p.batch.Pixels[slot*size:(slot+1)*size], l.o.transform(s, p.order.epoch, at.key))
}

// fillRow fills in the text of a row and opens its picture.
func (l *Loader) fillRow(s *scratch, p *pending, slot int, at place) error {
	b, part := p.batch, &l.mix.parts[at.part]
	image, text := p.order.image(at)
	b.ImageIndex[slot], b.Keys[slot] = part.firstImg+int64(image), fmt.Sprintf("picture %d", image)
	e, err := part.Source.Example(image)
	if err != nil {
		return err
	}
	b.Keys[slot] = e.Key
	if err := l.fillText(b, slot, p.order, at.key, &e, text); err != nil {
		return err
	}
	return s.load(part.Source, image, l.o.Truncated, l.o.EXIF)
}

// fillSample fills in a text of a stream's sample, drawn anew, and opens its picture.
func (l *Loader) fillSample(s *scratch, p *pending, slot int, at place, sample *Sample) error {
	b, e := p.batch, &sample.Example
	b.ImageIndex[slot], b.Keys[slot] = l.mix.images+at.key, e.Key
	if sample.Err != nil {
		return sample.Err
	}
	n := len(e.Captions) + len(e.Questions)
	if n == 0 {
		return errNoCaption
	}
	draws := newStream(l.o.Seed, p.order.epoch, at.key, purposeCaption)
	if err := l.fillText(b, slot, p.order, at.key, e, int(draws.intN(int64(n)))); err != nil {
		return err
	}
	return s.loadBytes(sample.Picture, l.o.Truncated, l.o.EXIF)
}

// transform draws the augmentation of a row whose picture is open.
func (o *LoaderOptions) transform(s *scratch, epoch, row int64) transform {
	box := o.Crop.RandomBox(s.w, s.h, o.Seed, epoch, row)
	flip := newStream(o.Seed, epoch, row, purposeFlip)
	t := transform{box: &box, size: o.ImageSize, flip: flip.float64() < o.Flip, mean: o.Mean, std: o.Std}
	if o.Augment.Ops > 0 {
		t.augment, t.draws = o.Augment, o.Augment.Draw(o.Seed, epoch, row)
	}
	return t
}

// fillText writes text number text of a picture to a slot: a caption, or a question and its answer.
func (l *Loader) fillText(b *Batch, slot int, o *order, key int64, e *Example, text int) error {
	b.Captions[slot], b.Questions[slot], b.QuestionIDs[slot], b.Answers[slot] = "", "", "", ""
	b.AnswerSets[slot] = nil
	var encoded string
	switch {
	case text < len(e.Captions):
		encoded = l.o.Caption.Process(e.Captions[text])
		if len(encoded) == len(l.o.Caption.Prompt) {
			return errNoCaption
		}
		b.Captions[slot] = encoded
	case text-len(e.Captions) < len(e.Questions):
		q := &e.Questions[text-len(e.Captions)]
		if encoded = l.o.Question.Process(q.Text); encoded == "" {
			return errNoQuestion
		}
		draws := newStream(l.o.Seed, o.epoch, key, purposeAnswer)
		answers, err := l.o.Answers.pick(q.Answers, &draws)
		if err != nil {
			return err
		}
		b.Questions[slot], b.QuestionIDs[slot] = encoded, q.ID
		b.Answers[slot], b.AnswerSets[slot] = answers[0].Text, answers
	default:
		return fmt.Errorf("text %d of the picture is asked for, but it has %d: did its annotation file change?", text,
			len(e.Captions)+len(e.Questions))
	}
	if l.tok != nil {
		from, to := slot*l.o.MaxTextLen, (slot+1)*l.o.MaxTextLen
		l.tok.EncodeCaptionInto(b.TextIDs[from:to], b.TextMask[from:to], encoded)
	}
	return nil
}

// replaceTries bounds the draws for one replacement.
const replaceTries = 64

// replaceBad fills the slots of bad samples. It runs alone on its batch; what it takes for a slot depends only on the
// slot's position and on which samples are bad, so that it is the same in every shard.
func (l *Loader) replaceBad(s *scratch, p *pending) {
	var planned map[int64]bool // pictures that the whole batch was to have
	for slot, err := range p.errs {
		if err == nil {
			continue
		}
		p.badOf[p.places[slot].part]++
		l.noteBad(p, slot, err)
		if planned == nil {
			planned = l.planned(p)
		}
	}
	for slot, err := range p.errs {
		if err == nil {
			continue
		}
		if p.samples[slot] != nil {
			err = l.replaceSample(s, p, slot, err)
		} else {
			err = l.replaceRow(s, p, slot, planned, err)
		}
		if p.errs[slot] = err; err != nil && p.err == nil {
			p.err = fmt.Errorf("dataset: %s: no replacement for the bad sample %s among %d draws: %w",
				l.mix.parts[p.places[slot].part].name(), p.batch.Keys[slot], replaceTries, err)
		}
	}
}

func (l *Loader) noteBad(p *pending, slot int, err error) {
	p.bad = append(p.bad, BadSample{Key: p.batch.Keys[slot], Reason: err.Error(),
		Source: l.mix.parts[p.places[slot].part].name()})
}

// planned are the pictures of the whole batch, as laid out.
func (l *Loader) planned(p *pending) map[int64]bool {
	all := make(map[int64]bool, l.o.BatchSize)
	for i := range int64(l.o.BatchSize) {
		at := p.order.at(p.first + i)
		if part := &l.mix.parts[at.part]; part.Source != nil {
			image, _ := p.order.image(at)
			all[part.firstImg+int64(image)] = true
		}
	}
	return all
}

// replaceRow draws other rows of the same source. In the first half of the tries every slot of the batch has rows of
// its own to draw from, and a picture that is in the batch already is passed over, for it would be a negative of
// itself.
func (l *Loader) replaceRow(s *scratch, p *pending, slot int, planned map[int64]bool, err error) error {
	at := p.places[slot]
	part := &l.mix.parts[at.part]
	position := p.offset + int64(slot)
	shared := epochOrder(newStreamSeed(l.o.Seed, p.order.epoch, p.first, purposeReplace), int64(at.part), part.n)
	own := newStream(l.o.Seed, p.order.epoch, p.first+position, purposeReplace)
	for try := range int64(replaceTries) {
		candidate := try*int64(l.o.BatchSize) + position
		apart := try < replaceTries/2 && candidate < part.n
		row := own.intN(part.n)
		if apart {
			row = shared.at(candidate)
		}
		with := p.order.again(at.part, row)
		if image, _ := p.order.image(with); try < replaceTries/2 && planned[part.firstImg+int64(image)] {
			continue
		}
		if err = l.fill(s, p, slot, with, nil); err == nil {
			return nil
		}
		l.noteBad(p, slot, err)
	}
	return err
}

// replaceSample takes one of the samples that follow the batch in the stream; it will come again in its own place.
func (l *Loader) replaceSample(s *scratch, p *pending, slot int, err error) error {
	at := p.places[slot]
	spares := p.spares[at.part]
	draws := newStream(l.o.Seed, p.order.epoch, p.first+p.offset+int64(slot), purposeReplace)
	start := draws.intN(int64(len(spares)))
	for try := range len(spares) {
		sample := &spares[(int(start)+try)%len(spares)]
		if err = l.fill(s, p, slot, at, sample); err == nil {
			return nil
		}
		l.noteBad(p, slot, err)
	}
	return err
}

// errClosed is what Next gives after Close.
var errClosed = errors.New("dataset: the loader is closed")

// Next gives the next batch, waiting for it if need be. A sample that cannot be used (unreadable picture, empty
// caption) is counted and replaced by another one of its data set, chosen as a function of the position. Once more than
// MaxBadShare of an epoch's samples are bad (see badAllowed), Next fails with a BadShareError.
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
	if p.order.epoch != l.epoch {
		l.epoch, l.epochSeen, l.epochBad = p.order.epoch, 0, 0
	}
	for _, at := range p.places {
		l.counts[at.part].Samples++
	}
	l.epochSeen += int64(len(p.places))
	for part, n := range p.badOf { // bad replacements do not count: the share is that of the data set's rows
		l.counts[part].Bad += n
		l.epochBad += n
	}
	for _, s := range p.bad {
		l.keep(s)
	}
	if float64(l.epochBad) > badAllowed(l.o.MaxBadShare, l.epochSeen, l.mix.epoch/int64(l.o.Shards)) {
		return &BadShareError{Source: l.mix.Name(), Bad: l.epochBad, Seen: l.epochSeen, Allowed: l.o.MaxBadShare,
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
		if k.Key == s.Key && k.Source == s.Source {
			return
		}
	}
	if len(l.kept) < maxKept {
		l.kept = append(l.kept, s)
	}
}

// Seen is the number of samples of the batches given so far, and how many samples were bad on the way.
func (l *Loader) Seen() (samples, bad int64) {
	for _, c := range l.counts {
		samples, bad = samples+c.Samples, bad+c.Bad
	}
	return samples, bad
}

// Counts are the samples of the batches given so far by data set. Like Seen it must not run beside Next.
func (l *Loader) Counts() []PartCount { return append([]PartCount(nil), l.counts...) }

// BadSamples are the bad samples met so far, one per data set and key, at most 100. Like Seen it must not run beside
// Next.
func (l *Loader) BadSamples() []BadSample { return append([]BadSample(nil), l.kept...) }

// Close stops the workers, waits for them and closes the streams.
func (l *Loader) Close() {
	l.stop()
	l.done.Wait()
	l.closeFeeds()
}
