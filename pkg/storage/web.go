package storage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// webFile is a file on a web server.
type webFile struct {
	store *Store
	url   string
}

// Close does nothing: connections belong to the client.
func (f *webFile) Close() error { return nil }

// stat asks for the first byte: unlike HEAD that is also allowed by addresses that are signed for reading, and it
// tells whether the server understands ranges.
func (f *webFile) stat(ctx context.Context) (Info, error) {
	resp, err := f.get(ctx, 0, 1)
	if err != nil {
		return Info{}, err
	}
	defer resp.Body.Close()
	info, _, err := f.info(resp)
	return info, err
}

func (f *webFile) read(ctx context.Context, pin Info, offset, n int64) (io.ReadCloser, error) {
	resp, err := f.get(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	if err := f.prepare(resp, pin, offset); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// prepare checks that an answer is of the pinned version and brings its body to offset.
func (f *webFile) prepare(resp *http.Response, pin Info, offset int64) error {
	info, start, err := f.info(resp)
	switch {
	case err != nil:
		return err
	case pin.Size >= 0 && info.Size >= 0 && info.Size != pin.Size,
		pin.Version != "" && info.Version != "" && info.Version != pin.Version:
		return ErrChanged
	case start > offset:
		return fmt.Errorf("the server sent bytes from %d where those from %d were asked for", start, offset)
	}
	// A server that ignores Range sends everything from the start.
	_, err = io.CopyN(io.Discard, resp.Body, offset-start)
	return unexpected(err)
}

// unexpected is the error for a body that ends before the part that was asked for.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// get sends a request for n bytes from offset, to the end if n is negative.
func (f *webFile) get(ctx context.Context, offset, n int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, lasting{errors.New("it is no web address that can be asked for")}
	}
	if n >= 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+max(n, 1)-1))
	} else {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "blip2")
	resp, err := f.store.o.Client.Do(req)
	if err != nil {
		return nil, webError(err)
	}
	if err := f.status(resp); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// webError leaves out the URL, which may hold a password, and finds what no further try would cure.
func webError(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var unknownHost *net.DNSError
	var badCertificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknownHost) && unknownHost.IsNotFound:
		return lasting{err}
	case errors.As(err, &badCertificate):
		return lasting{fmt.Errorf("%w; SSL_CERT_FILE names a file of further authorities", err)}
	}
	return err
}

// status is the error that an answer's status means.
func (f *webFile) status(resp *http.Response) error {
	code := resp.StatusCode
	err := fmt.Errorf("the server answers %s", resp.Status)
	switch {
	case code == http.StatusOK, code == http.StatusPartialContent,
		code == http.StatusRequestedRangeNotSatisfiable:
		return nil
	case code == http.StatusNotFound, code == http.StatusGone:
		return lasting{fmt.Errorf("%w: %w", err, fs.ErrNotExist)}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return lasting{fmt.Errorf("%w: %w", err, fs.ErrPermission)}
	case code == http.StatusPreconditionFailed:
		return ErrChanged
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly,
		code == http.StatusTooManyRequests:
		return f.store.retryAfter(resp.Header, err)
	}
	return lasting{err}
}

// retryAfter adds the wait that a server asks for, in seconds or as a date.
func (s *Store) retryAfter(h http.Header, err error) error {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, bad := strconv.ParseUint(text, 10, 31); bad == nil {
		return askedToWait{err, time.Duration(seconds) * time.Second}
	}
	if date, bad := http.ParseTime(text); bad == nil {
		return askedToWait{err, max(0, date.Sub(s.o.Now()))}
	}
	return err
}

// info reads the head of an answer: what the file is, and where in it the body starts.
func (f *webFile) info(resp *http.Response) (info Info, start int64, err error) {
	info.Version = resp.Header.Get("ETag")
	if info.Version == "" {
		info.Version = resp.Header.Get("Last-Modified")
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		info.ModTime = t
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return info, 0, lasting{fmt.Errorf("the server packs its answer (Content-Encoding %.20q), which hides the file's "+
			"offsets; switch that off for shards", e)}
	}
	contentRange := resp.Header.Get("Content-Range")
	switch resp.StatusCode {
	case http.StatusOK:
		info.Size = resp.ContentLength
		return info, 0, nil
	case http.StatusRequestedRangeNotSatisfiable:
		if _, err := fmt.Sscanf(contentRange, "bytes */%d", &info.Size); err != nil || info.Size != 0 {
			return info, 0, lasting{fmt.Errorf("the server has no such bytes (%s, Content-Range %.40q): the file is cut off "+
				"or was replaced", resp.Status, contentRange)}
		}
		return info, 0, nil
	}
	info.Ranges = true
	return partial(info, contentRange)
}

// partial reads Content-Range: "bytes 10-19/100", or "bytes 10-19/*" where the size is not known.
func partial(info Info, contentRange string) (Info, int64, error) {
	span, total, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	from, to, _ := strings.Cut(span, "-")
	start, err1 := strconv.ParseInt(from, 10, 64)
	end, err2 := strconv.ParseInt(to, 10, 64)
	info.Size = -1
	var err3 error
	if total != "*" {
		info.Size, err3 = strconv.ParseInt(total, 10, 64)
	}
	if err := errors.Join(err1, err2, err3); err != nil || start < 0 || end < start ||
		info.Size >= 0 && end >= info.Size {
		return info, 0, fmt.Errorf("the server sent Content-Range %.60q, which makes no sense", contentRange)
	}
	return info, start, nil
}
