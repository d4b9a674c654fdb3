package storage

import (
	"context"
	"io"
)

// reader reads a part of an object and starts again where it stopped when that fails.
type reader struct {
	o        *Object
	ctx      context.Context
	at, end  int64 // end is -1 if the size is not known
	body     io.ReadCloser
	dog      *watchdog // of the present body
	failures int       // in a row, without a byte between them
	err      error     // final
}

// Read reads on.
func (r *reader) Read(p []byte) (int, error) {
	if r.end >= 0 {
		p = p[:max(0, min(int64(len(p)), r.end-r.at))]
		if r.err == nil && r.at >= r.end {
			r.err = io.EOF
		}
	}
	for r.err == nil {
		n, err := r.readOnce(p)
		if r.at += int64(n); n > 0 {
			r.failures = 0
			return n, nil
		}
		if err == nil {
			if len(p) == 0 {
				return 0, nil
			}
			continue
		}
		r.drop()
		if err == io.EOF {
			if r.end < 0 {
				r.err = io.EOF
				break
			}
			err = io.ErrUnexpectedEOF
		}
		r.failures++
		r.err = r.o.store.again(r.ctx, r.o.name, r.at, r.failures, err)
	}
	return 0, r.err
}

// readOnce reads once from the body, opening it if there is none.
func (r *reader) readOnce(p []byte) (int, error) {
	if r.body == nil {
		r.dog = r.o.store.watchdog(r.ctx)
		n := int64(-1)
		if r.end >= 0 {
			n = r.end - r.at
		}
		body, err := r.o.back.read(r.dog.ctx, r.o.info, r.at, n)
		if err != nil {
			return 0, r.dog.explain(err)
		}
		r.body = body
	}
	r.dog.resume()
	n, err := r.body.Read(p)
	r.dog.pause()
	return n, r.dog.explain(err)
}

// drop gives up the present body.
func (r *reader) drop() {
	if r.dog != nil {
		r.dog.stop()
		r.dog = nil
	}
	if r.body != nil {
		_ = r.body.Close()
		r.body = nil
	}
}

// Close ends the reading.
func (r *reader) Close() error {
	r.drop()
	if r.err == nil {
		r.err = io.ErrClosedPipe
	}
	return nil
}
