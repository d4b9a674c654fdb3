package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sort"
	"strings"
	"sync"

	"blip2/pkg/dataset"
	"blip2/pkg/storage"
)

// Indexed is shards with random access: a dataset.Source. It holds 24 bytes per sample, mapped from the index files
// where the system can.
type Indexed struct {
	name   string
	topK   int
	shards []indexedShard
	ends   []int // number of samples up to and with each shard
	files  *openFiles
	spans  *spans
	ctx    context.Context
	stop   context.CancelFunc
}

type indexedShard struct {
	location string
	base     string
	remote   bool
	index    *index
}

// maxRemoteIndex bounds the index of one shard elsewhere, in bytes: ten million samples.
const maxRemoteIndex = 240 << 20

// openIndexed loads or makes the indexes of all shards.
func openIndexed(ctx context.Context, o Options, shards []string) (*Indexed, error) {
	x := &Indexed{name: o.Name, topK: o.TopK, shards: make([]indexedShard, len(shards)), ends: make([]int, len(shards)),
		files: newOpenFiles(o.Store), spans: &spans{held: map[int]span{}}}
	x.ctx, x.stop = context.WithCancel(context.Background())
	err := forAll(ctx, len(shards), max(8, runtime.GOMAXPROCS(0)), func(ctx context.Context, i int) error {
		s := &x.shards[i]
		s.location, s.base, s.remote = shards[i], baseName(shards[i]), storage.IsRemote(shards[i])
		var err error
		if s.remote {
			s.index, err = remoteIndex(ctx, o.Store, s.location)
		} else {
			s.location = strings.TrimPrefix(s.location, "file://")
			s.index, _, err = o.Indexer.load(ctx, s.location)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, x.Close())
	}
	total := 0
	for i := range x.shards {
		total += x.shards[i].index.len()
		x.ends[i] = total
	}
	if total == 0 {
		return nil, errors.Join(fmt.Errorf("shard: %s: the shards hold no samples", o.Name), x.Close())
	}
	return x, nil
}

// remoteIndex reads the index that lies beside a shard elsewhere.
func remoteIndex(ctx context.Context, store *storage.Store, shard string) (*index, error) {
	data, err := store.ReadAll(ctx, indexOf(shard), maxRemoteIndex)
	if err != nil {
		return nil, fmt.Errorf("the index of a shard: %w; make it with blip2 data index and put it there, or set "+
			"index: never", err)
	}
	x, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("shard: %s: %w", storage.Redact(indexOf(shard)), err)
	}
	return x, nil
}

// Name is the name given, or the pattern.
func (x *Indexed) Name() string { return x.name }

// Len is the number of samples, those included that cannot be used.
func (x *Indexed) Len() int { return x.ends[len(x.ends)-1] }

// find gives the shard of sample i and its place there.
func (x *Indexed) find(i int) (*indexedShard, int) {
	n := sort.SearchInts(x.ends, i+1)
	if n > 0 {
		i -= x.ends[n-1]
	}
	return &x.shards[n], i
}

// Texts is the number of captions of sample i that are used; 1 for a sample that cannot be used.
func (x *Indexed) Texts(i int) int {
	s, at := x.find(i)
	return s.index.texts(at, x.topK)
}

// Example reads the captions of sample i.
func (x *Indexed) Example(i int) (dataset.Example, error) {
	s, at := x.find(i)
	e := s.index.at(at)
	r, err := x.reader(s, &e, i, false)
	if err != nil {
		return dataset.Example{Key: fmt.Sprintf("%s/byte %d", s.base, e.start)}, s.wrap(&e, err)
	}
	defer r.release()
	key, err := sampleKey(r, e.start, s.index.tarSize)
	example := dataset.Example{Key: s.base + "/" + key, ImageID: int64(i)}
	switch {
	case e.bad != good:
		return example, s.wrap(&e, errors.New(e.bad.String()))
	case err != nil:
		return example, s.wrap(&e, err)
	}
	data := make([]byte, e.text.size)
	if err := r.readAt(data, e.text.data); err != nil {
		return example, s.wrap(&e, err)
	}
	rec := record{}
	if e.json {
		err = rec.fault(rec.parse(data, nil))
	} else {
		err = rec.fault(rec.parse(nil, data))
	}
	if err == nil && (rec.texts() != e.captions || rec.ranked != e.ranked) {
		err = errStale
	}
	if err != nil {
		return example, s.wrap(&e, err)
	}
	rec.fill(&example, x.topK)
	return example, nil
}

// errStale says that what lies at a place of a shard is not what the index says.
var errStale = errors.New("the shard is not the one that was indexed: it was replaced or is damaged; make its index " +
	"anew (blip2 data index)")

func (s *indexedShard) wrap(e *entry, err error) error {
	return fmt.Errorf("%s, byte %d: %w", storage.Redact(s.location), e.start, err)
}

// fault is a fault as an error.
func (r *record) fault(f fault) error {
	if f == good {
		return nil
	}
	return errors.New(f.String())
}

// fill writes what a record says to an example.
func (r *record) fill(e *dataset.Example, topK int) {
	e.Captions, e.Questions, e.URL, e.License = r.used(topK), r.questions, r.url, r.license
	if r.hasID {
		e.ImageID = r.id
	}
}

// sampleKey reads the key of the sample whose first header is at start.
func sampleKey(r *partReader, start, size int64) (string, error) {
	in := newFileInput(r, size, block)
	in.pos = start
	t := tarReader{in: in}
	var m member
	if err := t.next(&m); err != nil {
		return fmt.Sprintf("byte %d", start), err
	}
	key, _, ok := splitName(m.name, nil)
	if !ok {
		return fmt.Sprintf("byte %d", start), errStale
	}
	return string(key), nil
}

// Open opens the picture of sample i.
func (x *Indexed) Open(i int) (io.ReadCloser, error) {
	s, at := x.find(i)
	e := s.index.at(at)
	if e.bad != good {
		return nil, s.wrap(&e, errors.New(e.bad.String()))
	}
	r, err := x.reader(s, &e, i, true)
	if err != nil {
		return nil, s.wrap(&e, err)
	}
	var head [block]byte
	if err := r.readAt(head[:], e.picture.data-block); err != nil {
		r.release()
		return nil, s.wrap(&e, err)
	}
	if size, ok := number(head[124:136]); !ok || size != e.picture.size || !checksum(head[:]) {
		r.release()
		return nil, s.wrap(&e, errStale)
	}
	return &picture{section: io.NewSectionReader(r, e.picture.data, e.picture.size), r: r, s: s, e: e}, nil
}

// picture reads a picture out of its shard.
type picture struct {
	section *io.SectionReader
	r       *partReader
	s       *indexedShard
	e       entry
}

func (p *picture) Read(b []byte) (int, error) {
	n, err := p.section.Read(b)
	if err != nil && err != io.EOF {
		err = p.s.wrap(&p.e, err)
	}
	return n, err
}

// Close gives the shard back.
func (p *picture) Close() error {
	p.r.release()
	return nil
}

// reader gives access to the part of a shard that a sample lies in. A remote sample is read whole, with one request;
// unless this is the last use of it, it is held for the Open that follows an Example.
func (x *Indexed) reader(s *indexedShard, e *entry, i int, last bool) (*partReader, error) {
	f, err := x.files.acquire(x.ctx, s)
	if err != nil {
		return nil, err
	}
	r := &partReader{ctx: x.ctx, file: f, files: x.files}
	if !s.remote || e.bad != good {
		return r, nil
	}
	if r.span = x.spans.take(i); r.span.data == nil {
		end := max(e.picture.data+e.picture.size, e.text.data+e.text.size)
		if end-e.start > e.picture.size+e.text.size+maxText {
			return r, nil // much else lies between them
		}
		r.span = span{e.start, make([]byte, end-e.start)}
		if err := f.object.ReadAt(x.ctx, r.span.data, e.start); err != nil {
			r.release()
			return nil, err
		}
	}
	if !last {
		x.spans.put(i, r.span)
	}
	return r, nil
}

// Close frees the indexes and files; nothing of the source may be used afterwards.
func (x *Indexed) Close() error {
	x.stop()
	err := x.files.close()
	for i := range x.shards {
		if s := &x.shards[i]; s.index != nil {
			err = errors.Join(err, s.index.close())
		}
	}
	return err
}

// partReader reads a shard at any place; what lies in span is in memory.
type partReader struct {
	ctx   context.Context
	file  *openFile
	files *openFiles
	span  span
}

func (r *partReader) readAt(p []byte, at int64) error {
	if from := at - r.span.start; r.span.data != nil && from >= 0 && from+int64(len(p)) <= int64(len(r.span.data)) {
		copy(p, r.span.data[from:])
		return nil
	}
	return r.file.object.ReadAt(r.ctx, p, at)
}

// ReadAt fills p, or fails.
func (r *partReader) ReadAt(p []byte, at int64) (int, error) {
	if err := r.readAt(p, at); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (r *partReader) release() { r.files.release(r.file) }

// span is bytes of a shard.
type span struct {
	start int64
	data  []byte
}

// spans holds samples that were read for their captions until their pictures are asked for.
type spans struct {
	mu    sync.Mutex
	held  map[int]span
	order []int
	bytes int
}

// maxSpans bounds what spans holds, in bytes.
const maxSpans = 64 << 20

func (c *spans) put(i int, s span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[i]; ok {
		return
	}
	c.held[i] = s
	c.order = append(c.order, i)
	c.bytes += len(s.data)
	for c.bytes > maxSpans || len(c.order) > 1024 {
		c.bytes -= len(c.held[c.order[0]].data)
		delete(c.held, c.order[0])
		c.order = c.order[1:]
	}
}

func (c *spans) take(i int) span {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.held[i]
	if ok {
		delete(c.held, i)
		c.bytes -= len(s.data)
	}
	return s
}

// openFiles keeps some shards open.
type openFiles struct {
	store *storage.Store
	mu    sync.Mutex
	open  map[*indexedShard]*openFile
	clock int64
}

// maxOpen bounds the local shards that are open without being read.
const maxOpen = 128

type openFile struct {
	once   sync.Once
	object *storage.Object
	err    error
	shard  *indexedShard
	users  int
	used   int64
}

func newOpenFiles(store *storage.Store) *openFiles {
	return &openFiles{store: store, open: map[*indexedShard]*openFile{}}
}

// acquire opens a shard, which must be released.
func (c *openFiles) acquire(ctx context.Context, s *indexedShard) (*openFile, error) {
	c.mu.Lock()
	f := c.open[s]
	if f == nil {
		f = &openFile{shard: s}
		c.open[s] = f
	}
	f.users++
	c.clock++
	f.used = c.clock
	c.evict()
	c.mu.Unlock()
	f.once.Do(func() { f.object, f.err = c.openShard(ctx, s) })
	if f.err != nil {
		c.release(f)
		return nil, f.err
	}
	return f, nil
}

// openShard opens a shard and makes sure that it is the one that was indexed.
func (c *openFiles) openShard(ctx context.Context, s *indexedShard) (*storage.Object, error) {
	o, err := c.store.Open(ctx, s.location)
	if err != nil {
		return nil, err
	}
	info := o.Info()
	switch {
	case info.Size != s.index.tarSize, !s.remote && info.ModTime.UnixNano() != s.index.modified:
		err = errStale
	case !info.Ranges:
		err = errors.New("the server does not send parts of files (Range); set index: never")
	default:
		return o, nil
	}
	return nil, errors.Join(err, o.Close())
}

// release gives a shard back. One that could not be opened is forgotten, so that it is tried again.
func (c *openFiles) release(f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.users--
	if f.err != nil && c.open[f.shard] == f {
		delete(c.open, f.shard)
	}
}

// evict closes the shard that was not used for longest if there are too many.
func (c *openFiles) evict() {
	if len(c.open) <= maxOpen {
		return
	}
	var oldest *openFile
	for _, f := range c.open {
		if f.users == 0 && !f.shard.remote && (oldest == nil || f.used < oldest.used) {
			oldest = f
		}
	}
	if oldest != nil {
		delete(c.open, oldest.shard)
		_ = oldest.object.Close() // it was only read
	}
}

func (c *openFiles) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for s, f := range c.open {
		if f.object != nil {
			err = errors.Join(err, f.object.Close())
		}
		delete(c.open, s)
	}
	return err
}

var _ dataset.Source = (*Indexed)(nil)
