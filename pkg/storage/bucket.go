package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// provider opens the buckets of one kind of storage, without new tries of its own: those are the Store's.
type provider struct {
	open func(ctx context.Context, name string, query url.Values) (*blob.Bucket, error)
	// pin makes a request fail if the object is not the version that Info.Version names.
	pin func(version string, as func(any) bool)
	// version names the contents of an object.
	version func(*blob.Attributes) string
	// answer is the HTTP answer that an error comes from; nil if it does not come from one.
	answer func(error) (status int, header http.Header)
}

func providers() map[string]provider {
	return map[string]provider{"s3": s3Provider(), "gs": gcsProvider()}
}

// bucket opens a bucket, or gives the one that is open already.
func (s *Store) bucket(ctx context.Context, l location) (*openBucket, error) {
	p := providers()[l.scheme]
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[l.bucket]
	if b == nil {
		u, err := url.Parse(l.bucket)
		if err != nil {
			return nil, fmt.Errorf("the bucket's name or options cannot be read")
		}
		// The bucket outlives this call.
		if b, err = p.open(context.WithoutCancel(ctx), u.Host, u.Query()); err != nil {
			return nil, err
		}
		s.buckets[l.bucket] = b
	}
	return &openBucket{store: s, provider: p, Bucket: b}, nil
}

// takeBool takes a switch out of a bucket's options.
func takeBool(q url.Values, keys ...string) (on bool, err error) {
	for _, key := range keys {
		if text := q.Get(key); text != "" {
			if on, err = strconv.ParseBool(text); err != nil {
				return false, fmt.Errorf("option %s is %q; write true or false", key, text)
			}
		}
		q.Del(key)
	}
	return on, nil
}

// openBucket is a bucket with what is particular to its kind.
type openBucket struct {
	store *Store
	provider
	*blob.Bucket
}

// explain sorts the errors of a bucket into those that last and those that pass.
func (b *openBucket) explain(err error) error {
	if err == nil {
		return nil
	}
	status, header := b.answer(err)
	switch code := gcerrors.Code(err); {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, code == gcerrors.PermissionDenied:
		return lasting{fmt.Errorf("%w: %w (are the credentials those of this bucket? ?anonymous=true behind the address "+
			"reads public ones)", err, fs.ErrPermission)}
	case code == gcerrors.NotFound:
		return lasting{fmt.Errorf("%w: %w", err, fs.ErrNotExist)}
	case status == http.StatusPreconditionFailed, code == gcerrors.FailedPrecondition:
		return ErrChanged
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests:
	case 400 <= status && status < 500, code == gcerrors.InvalidArgument, code == gcerrors.Unimplemented:
		return lasting{err}
	}
	return b.store.retryAfter(header, err)
}

// bucketFile is an object in a bucket.
type bucketFile struct {
	bucket *openBucket
	key    string
}

// Close does nothing: the bucket belongs to the Store.
func (f *bucketFile) Close() error { return nil }

func (f *bucketFile) stat(ctx context.Context) (Info, error) {
	a, err := f.bucket.Attributes(ctx, f.key)
	if err != nil {
		return Info{}, f.bucket.explain(err)
	}
	if a.ContentEncoding == "gzip" {
		return Info{}, lasting{errors.New("the object is marked as packed in transit (Content-Encoding: gzip), which " +
			"hides its offsets; remove that mark")}
	}
	return Info{Size: a.Size, ModTime: a.ModTime, Ranges: true, Version: f.bucket.version(a)}, nil
}

func (f *bucketFile) read(ctx context.Context, pin Info, offset, n int64) (io.ReadCloser, error) {
	r, err := f.bucket.NewRangeReader(ctx, f.key, offset, n, &blob.ReaderOptions{
		BeforeRead: func(as func(any) bool) error {
			if pin.Version != "" {
				f.bucket.pin(pin.Version, as)
			}
			return nil
		}})
	if err != nil {
		return nil, f.bucket.explain(err)
	}
	if r.Size() != pin.Size {
		_ = r.Close()
		return nil, ErrChanged
	}
	return bucketReader{r, f.bucket}, nil
}

// bucketReader explains the errors of a body.
type bucketReader struct {
	*blob.Reader
	bucket *openBucket
}

func (r bucketReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = r.bucket.explain(err)
	}
	return n, err
}
