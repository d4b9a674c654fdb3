package device

import (
	"blip2/pkg/internal/atomicfile"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// maxTries is how often in a row a request may fail without bringing a byte.
const maxTries = 6

// permanentError marks an error that trying again cannot cure.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

func permanent(err error) error { return permanentError{err} }

// checksumError says that bytes are not those that this program was made for.
type checksumError struct{ what, got, want string }

// Error names the thing and both checksums.
func (e *checksumError) Error() string {
	return fmt.Sprintf("%s: its SHA-256 is %s, expected %s", e.what, e.got, e.want)
}

// backoff waits 1, 2, 4, ... seconds, at most 30, before try number n+1.
func backoff(ctx context.Context, n int) error {
	timer := time.NewTimer(min(time.Second<<(n-1), 30*time.Second))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retry calls f until it succeeds, fails for good, or fails maxTries times in a row. f says whether it got further
// before it failed, which starts the count anew.
func (in *installer) retry(ctx context.Context, f func() (progress bool, err error)) error {
	for failures := 0; ; {
		progress, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var final permanentError
		if errors.As(err, &final) {
			return final.error
		}
		if progress {
			failures = 0
		}
		if failures++; failures >= maxTries {
			return fmt.Errorf("%w (tried %d times)", err, failures)
		}
		in.log.Warn("trying again", "try", failures+1, "error", err)
		if err := in.wait(ctx, failures); err != nil {
			return err
		}
	}
}

// get sends a GET request; its errors do not show passwords in the URL.
func (in *installer) get(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, permanent(fmt.Errorf("%s cannot be asked for", u.Redacted()))
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", "blip2")
	resp, err := in.client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		err = fmt.Errorf("%s: %w", u.Redacted(), err)
		var unknownHost *net.DNSError
		var badCertificate *tls.CertificateVerificationError
		switch {
		case errors.As(err, &unknownHost) && unknownHost.IsNotFound:
			err = permanent(err)
		case errors.As(err, &badCertificate):
			err = permanent(fmt.Errorf("%w; SSL_CERT_FILE names a file of further authorities", err))
		}
		return nil, err
	}
	return resp, nil
}

// networkHint says what to do without a network.
func networkHint(err error) error {
	var network net.Error
	if errors.As(err, &network) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w; without a network, fetch the wheels elsewhere and use --from, or name a mirror with "+
			"--index", err)
	}
	return err
}

// checkStatus returns an error unless the status is one of those wanted: a lasting one for what the server will
// always refuse, a passing one for overload and faults.
func checkStatus(resp *http.Response, want ...int) error {
	for _, code := range want {
		if resp.StatusCode == code {
			return nil
		}
	}
	err := fmt.Errorf("%s: the server answers %s", resp.Request.URL.Redacted(), resp.Status)
	switch code := resp.StatusCode; {
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooManyRequests,
		code == http.StatusRequestedRangeNotSatisfiable:
		return err
	}
	return permanent(err)
}

// download brings a wheel into the downloads folder and returns its path. What an earlier, interrupted call left is
// continued. The checksum is that of the program, whatever the server says.
func (in *installer) download(ctx context.Context, w wheel, step step) (string, error) {
	done := filepath.Join(in.store.downloads(), w.sha256+".whl")
	part := filepath.Join(in.store.downloads(), w.sha256+".part")
	if sum, err := hashFile(done); err == nil && sum == w.sha256 {
		return done, nil
	}
	u, err := in.lookup(ctx, w)
	if err != nil {
		return "", err
	}
	for anew := 0; ; anew++ {
		whole, err := in.complete(ctx, u, part, w, step)
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("%w; the next run continues the download", ctx.Err())
			}
			return "", fmt.Errorf("downloading %s: %w", w.file, err)
		}
		sum, err := hashFile(part)
		if err != nil {
			return "", diskError(err)
		}
		if sum == w.sha256 {
			break
		}
		if err := os.Remove(part); err != nil {
			return "", diskError(err)
		}
		if whole || anew == 2 {
			return "", &checksumError{what: "downloaded " + w.file + " from " + u.Redacted(), got: sum, want: w.sha256}
		}
		in.log.Warn("the download in pieces is damaged; starting anew", "file", w.file)
	}
	if err := os.Rename(part, done); err != nil {
		return "", diskError(err)
	}
	return done, nil
}

// complete appends to part until it has the wheel's size. whole says that all of it came with one answer.
func (in *installer) complete(ctx context.Context, u *url.URL, part string, w wheel, step step) (whole bool,
	err error) {
	if size := sizeOf(part); size > w.size {
		if err := os.Truncate(part, 0); err != nil {
			return false, diskError(err)
		}
	}
	err = in.retry(ctx, func() (bool, error) {
		before := sizeOf(part)
		if before == w.size {
			return false, nil
		}
		whole = before == 0
		err := in.appendOnce(ctx, u, part, w, step)
		return sizeOf(part) > before, err
	})
	return whole, err
}

// appendOnce sends one request for the rest of a wheel and writes what comes.
func (in *installer) appendOnce(ctx context.Context, u *url.URL, part string, w wheel, step step) (err error) {
	ctx, alive, stop := in.watchdog(ctx)
	defer stop()
	offset := sizeOf(part)
	header := http.Header{"Accept-Encoding": {"identity"}}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := in.get(ctx, u, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return permanent(diskError(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if offset, err = in.rangeStart(resp, f, offset, w); err != nil {
		return err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return permanent(diskError(err))
	}
	body := &meter{r: io.LimitReader(resp.Body, w.size-offset+1), report: func(n int64) {
		alive()
		step.report("download", w.file, min(offset+n, w.size), w.size)
	}}
	n, err := io.Copy(fileWriter{f}, body)
	if err == nil {
		err = f.Sync()
	}
	switch {
	case err != nil && ctx.Err() != nil && context.Cause(ctx) == errStalled:
		return fmt.Errorf("%s: %w", u.Redacted(), errStalled)
	case err != nil:
		return fmt.Errorf("%s: %w", u.Redacted(), err)
	case offset+n > w.size:
		return permanent(fmt.Errorf("%s has more than the expected %d bytes", u.Redacted(), w.size))
	case offset+n < w.size:
		return fmt.Errorf("%s: connection ended after %d of %d bytes", u.Redacted(), offset+n, w.size)
	}
	return nil
}

// rangeStart checks the head of an answer and returns where in the file its body belongs. A server that ignores
// Range sends everything from the start.
func (in *installer) rangeStart(resp *http.Response, f *os.File, offset int64, w wheel) (int64, error) {
	fresh := func() error { return diskError(f.Truncate(0)) }
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		if err := fresh(); err != nil {
			return 0, permanent(err)
		}
	}
	if err := checkStatus(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return 0, err
	}
	total := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		var start, end int64
		_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &start, &end, &total)
		if err != nil || start != offset {
			if err := fresh(); err != nil {
				return 0, permanent(err)
			}
			return 0, fmt.Errorf("%s: the server sent the wrong part (Content-Range %q for offset %d)",
				resp.Request.URL.Redacted(), resp.Header.Get("Content-Range"), offset)
		}
	} else {
		if err := fresh(); err != nil {
			return 0, permanent(err)
		}
		offset = 0
	}
	if total >= 0 && total != w.size {
		return 0, permanent(fmt.Errorf("%s has %d bytes, expected %d", resp.Request.URL.Redacted(), total, w.size))
	}
	return offset, nil
}

// errStalled ends a request that brings nothing.
var errStalled = errors.New("no data for a minute")

// watchdog returns a context that ends when alive is not called for in.stall.
func (in *installer) watchdog(parent context.Context) (ctx context.Context, alive func(), stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	timer := time.AfterFunc(in.stall, func() { cancel(errStalled) })
	return ctx, func() { timer.Reset(in.stall) }, func() { timer.Stop(); cancel(nil) }
}

// meter reports how many bytes have passed.
type meter struct {
	r      io.Reader
	n      int64
	report func(n int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if n > 0 {
		m.report(m.n)
	}
	return n, err
}

// fileWriter writes to a file and marks failures as lasting: a full disk is no reason to ask the server again.
type fileWriter struct{ f *os.File }

func (w fileWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if err != nil {
		err = permanent(diskError(err))
	}
	return n, err
}

// sizeOf returns the size of a file, 0 if it cannot be read.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// hashFile returns the SHA-256 of a file in hexadecimal.
func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// diskError adds the remedy to errors of writing.
func diskError(err error) error {
	switch {
	case atomicfile.NoRoom(err):
		return fmt.Errorf("%w; make room or set %s to a folder on another disk", err, CacheEnv)
	case atomicfile.NotWritable(err):
		return fmt.Errorf("%w; set %s to a folder that you may write to", err, CacheEnv)
	}
	return err
}
