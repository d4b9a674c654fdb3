package device

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxUnpacked bounds what all wheels of a plugin may unpack to; the CUDA set has about 4 GB.
const maxUnpacked = 16 << 30

// unpacker writes files of wheels into a folder.
type unpacker struct {
	dir   string
	wants func(name string) bool // by path in the wheel
	left  int64                  // bytes that may still be written
	files []manifestFile
	step  step
}

// wheel unpacks the wanted files of one wheel. Anything that is not as it should be is an error that names the wheel
// and the entry: names that lead out of the folder, links, damaged or overlong data, a file that is there already.
func (u *unpacker) wheel(ctx context.Context, file, path string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%s is not a wheel, or is damaged: %w", path, err)
	}
	defer z.Close()
	var total, done int64
	var wanted []*zip.File
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/") || !u.wants(f.Name) {
			continue
		}
		if err := checkEntry(f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		wanted = append(wanted, f)
		if total += int64(f.UncompressedSize64); f.UncompressedSize64 > maxUnpacked || total > u.left {
			return fmt.Errorf("%s unpacks to more than the %d bytes that are allowed", path, int64(maxUnpacked))
		}
	}
	for _, f := range wanted {
		if err := ctx.Err(); err != nil {
			return err
		}
		report := func(n int64) { u.step.report("unpack", file, done+n, total) }
		if err := u.entry(ctx, f, report); err != nil {
			return fmt.Errorf("%s: %s: %w", path, f.Name, err)
		}
		done += int64(f.UncompressedSize64)
	}
	u.left -= total
	return nil
}

// whole copies a file that is kept as it is.
func (u *unpacker) whole(ctx context.Context, file, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return diskError(err)
	}
	defer f.Close()
	out, err := os.OpenFile(filepath.Join(u.dir, file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return diskError(err)
	}
	defer func() { err = errors.Join(err, diskError(out.Close())) }()
	total, sum := sizeOf(path), sha256.New()
	if total > u.left {
		return fmt.Errorf("%s has more than the %d bytes that are allowed", path, int64(maxUnpacked))
	}
	in := &meter{r: contextReader{ctx, f}, report: func(n int64) { u.step.report("unpack", file, n, total) }}
	n, err := io.Copy(io.MultiWriter(fileWriter{out}, sum), in)
	if err != nil {
		var disk permanentError
		if errors.As(err, &disk) {
			return disk.error
		}
		return err
	}
	u.left -= n
	u.files = append(u.files, manifestFile{Path: file, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))})
	return diskError(out.Sync())
}

// checkEntry refuses names that lead out of the folder and everything but plain files.
func checkEntry(f *zip.File) error {
	local := path.Clean(f.Name) == f.Name && filepath.IsLocal(filepath.FromSlash(f.Name))
	if !local || strings.ContainsRune(f.Name, '\\') {
		return fmt.Errorf("refusing the entry %q: it leads out of the folder", f.Name)
	}
	if !f.Mode().IsRegular() {
		return fmt.Errorf("refusing the entry %q: it is not a plain file", f.Name)
	}
	return nil
}

// entry writes one file and its line of the manifest. archive/zip checks the length and the CRC.
func (u *unpacker) entry(ctx context.Context, f *zip.File, report func(int64)) (err error) {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	defer r.Close()
	name := filepath.Join(u.dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return diskError(err)
	}
	mode := fs.FileMode(0o644)
	if f.Mode()&0o111 != 0 || strings.Contains(f.Name, "/bin/") {
		mode = 0o755 // ptxas and nvlink are run by XLA
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return diskError(err)
	}
	defer func() { err = errors.Join(err, diskError(out.Close())) }()
	sum := sha256.New()
	in := &meter{r: contextReader{ctx, io.LimitReader(r, int64(f.UncompressedSize64)+1)}, report: report}
	n, err := io.Copy(io.MultiWriter(fileWriter{out}, sum), in)
	if err != nil {
		var disk permanentError
		if errors.As(err, &disk) {
			return disk.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("damaged: %w", err)
	}
	if n != int64(f.UncompressedSize64) {
		return fmt.Errorf("damaged: %d bytes instead of %d", n, f.UncompressedSize64)
	}
	u.files = append(u.files, manifestFile{Path: f.Name, Size: n, SHA256: hex.EncodeToString(sum.Sum(nil))})
	return diskError(out.Sync())
}

// contextReader ends a long copy when the context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
