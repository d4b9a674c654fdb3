// Package storage opens files for reading by path or URL: local files, web servers (http, https), and buckets of S3
// and its relatives (s3) and of Google Cloud Storage (gs) through gocloud.dev.
//
// Faults that pass (a broken connection, an overloaded server, a body that ends too early or stops coming) are tried
// again where reading stopped, with growing waits; faults that last are errors with the name of the file and the
// offset. A file is pinned when it is opened: if it is replaced meanwhile, reading fails rather than giving a mixture
// of two versions.
package storage

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"gocloud.dev/blob"
)

// Options are the choices of a Store; the zero value is good.
type Options struct {
	Tries      int           // how often in a row a request may fail without bringing a byte; 0 means 8
	Backoff    time.Duration // wait before the second try, doubled from try to try; 0 means half a second
	MaxBackoff time.Duration // longest wait of our own choice; 0 means 30 s
	MaxWait    time.Duration // longest wait that a server may ask for (Retry-After); 0 means 5 minutes
	Stall      time.Duration // longest wait for the next byte of an answer; 0 means a minute
	Client     *http.Client  // for http and https; nil means one of its own
	Log        *slog.Logger  // told of every new try; nil means nobody is

	// Wait pauses between two tries; nil means the system's clock.
	Wait func(ctx context.Context, d time.Duration) error
	// Now is the time that a Retry-After date is compared with; nil means the system's clock.
	Now func() time.Time
}

// Store opens files. It is safe for concurrent use.
type Store struct {
	o Options

	mu      sync.Mutex
	buckets map[string]*blob.Bucket // by their URL
}

// New makes a Store.
func New(o Options) *Store {
	setDefault(&o.Tries, 8)
	setDefault(&o.Backoff, time.Second/2)
	setDefault(&o.MaxBackoff, 30*time.Second)
	setDefault(&o.MaxWait, 5*time.Minute)
	setDefault(&o.Stall, time.Minute)
	if o.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = 32
		transport.DisableCompression = true
		o.Client = &http.Client{Transport: transport}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wait == nil {
		o.Wait = wait
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{o: o, buckets: map[string]*blob.Bucket{}}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Close closes the connections to buckets. Objects of the store cannot be read afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	for url, b := range s.buckets {
		if err := b.Close(); err != nil && first == nil {
			first = err
		}
		delete(s.buckets, url)
	}
	s.o.Client.CloseIdleConnections()
	return first
}

// Info is what is known of a file before it is read.
type Info struct {
	Size    int64     // bytes; -1 if the server does not say
	Version string    // changes whenever the contents do, as far as the server tells; "" if it does not
	ModTime time.Time // zero if the server does not say
	Ranges  bool      // a part can be read without what is before it
}

// Object is a file in one version. It is safe for concurrent use.
type Object struct {
	store *Store
	back  backend
	name  string
	info  Info
}

// backend is one file on one kind of storage.
type backend interface {
	// stat asks for the size and version.
	stat(ctx context.Context) (Info, error)
	// read opens n bytes from offset, to the end if n is negative. The body may be shorter or longer than asked for.
	// It fails if the file is not the pinned version.
	read(ctx context.Context, pin Info, offset, n int64) (io.ReadCloser, error)
	io.Closer
}

// Open pins a file. location is a path, file:///path, http(s)://host/path, s3://bucket/key or gs://bucket/key; options
// of a bucket are put behind as a query, such as s3://bucket/key?region=eu-west-1&endpoint=http://host:9000.
func (s *Store) Open(ctx context.Context, location string) (*Object, error) {
	l, err := parse(location)
	if err != nil {
		return nil, err
	}
	o := &Object{store: s, name: l.name}
	if o.back, err = s.backend(ctx, l); err != nil {
		return nil, &Error{Name: l.name, Offset: -1, Permanent: true, Err: err}
	}
	failures := 0
	for {
		o.info, err = o.statOnce(ctx)
		if err == nil {
			return o, nil
		}
		failures++
		if err := s.again(ctx, l.name, -1, failures, err); err != nil {
			_ = o.back.Close()
			return nil, err
		}
	}
}

func (o *Object) statOnce(ctx context.Context) (Info, error) {
	dog := o.store.watchdog(ctx)
	defer dog.stop()
	info, err := o.back.stat(dog.ctx)
	return info, dog.explain(err)
}

// backend picks the kind of storage.
func (s *Store) backend(ctx context.Context, l location) (backend, error) {
	switch l.scheme {
	case "":
		return openFile(l.key)
	case "http", "https":
		return &webFile{store: s, url: l.key}, nil
	}
	b, err := s.bucket(ctx, l)
	if err != nil {
		return nil, err
	}
	return &bucketFile{bucket: b, key: l.key}, nil
}

// Name is the path or URL for messages, without passwords and signatures.
func (o *Object) Name() string { return o.name }

// Info is the pinned size and version.
func (o *Object) Info() Info { return o.info }

// Close frees the object; its readers must not be used afterwards.
func (o *Object) Close() error { return o.back.Close() }

// Range reads n bytes from offset, to the end if n is negative. The request is sent by the first Read. Read gives
// io.EOF after exactly n bytes, or after the file's size if that is known, and an *Error in every other case.
// Cancelling ctx ends it. Not for concurrent use.
func (o *Object) Range(ctx context.Context, offset, n int64) io.ReadCloser {
	end := o.info.Size
	if n >= 0 {
		end = offset + n
	}
	return &reader{o: o, ctx: ctx, at: offset, end: end}
}

// ReadAt fills p from offset, or fails.
func (o *Object) ReadAt(ctx context.Context, p []byte, offset int64) error {
	if f, ok := o.back.(*localFile); ok {
		return f.readAt(o, p, offset)
	}
	r := o.Range(ctx, offset, int64(len(p)))
	defer r.Close()
	_, err := io.ReadFull(r, p)
	return err
}

// ReadAll reads a whole file of at most limit bytes.
func (s *Store) ReadAll(ctx context.Context, location string, limit int64) ([]byte, error) {
	o, err := s.Open(ctx, location)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	if o.info.Size > limit {
		return nil, fmt.Errorf("storage: %s has %d bytes, more than the %d allowed", o.name, o.info.Size, limit)
	}
	r := o.Range(ctx, 0, -1)
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("storage: %s has more than the %d bytes allowed", o.name, limit)
	}
	return data, nil
}
