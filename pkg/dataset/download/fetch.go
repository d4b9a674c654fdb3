package download

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/storage"
)

// Options say how files are fetched.
type Options struct {
	Dir   string         // folder of data
	Store *storage.Store // nil means one with default options
	Keep  bool           // archives are kept after they were unpacked
	// Progress is told how much of a file is there; size is 0 while it is not known. nil means nobody is.
	Progress func(f File, done, size int64)
}

// Outcome says what became of a file.
type Outcome string

// The outcomes.
const (
	Fetched Outcome = "fetched"
	Present Outcome = "present" // it was there, whole
)

// suffixes of the files beside one that is being fetched: its bytes so far, and which version of it they are of.
const (
	partSuffix    = ".part"
	versionSuffix = ".version"
)

// Fetch fetches a file into the folder, checks it, and unpacks it if it is an archive. The file appears under its name
// when it is complete. What an interrupted call has fetched is kept and taken up again if the server still has the
// same version.
func Fetch(ctx context.Context, f File, o Options) (Outcome, error) {
	if o.Store == nil {
		o.Store = storage.New(storage.Options{})
		defer o.Store.Close()
	}
	target := filepath.Join(o.Dir, filepath.FromSlash(f.Path))
	mark := target + ".unpacked"
	if exists(mark) || f.Into == "" && exists(target) {
		return Present, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return "", err
	}
	outcome := Present
	if !exists(target) {
		if err := fetch(ctx, f, target, o); err != nil {
			return "", fmt.Errorf("%s: %w", f.URL, err)
		}
		outcome = Fetched
	}
	if f.Into == "" {
		return outcome, nil
	}
	if err := unpack(ctx, target, filepath.Join(o.Dir, filepath.FromSlash(f.Into))); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", target, err)
	}
	// The mark stands for the archive, which may go.
	if err := atomicfile.Write(mark, func(w io.Writer) error { _, err := io.WriteString(w, f.URL+"\n"); return err }); err != nil {
		return "", err
	}
	if !o.Keep {
		return outcome, os.Remove(target)
	}
	return outcome, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fetch brings the whole file under its name.
func fetch(ctx context.Context, f File, target string, o Options) error {
	object, err := o.Store.Open(ctx, f.URL)
	if err != nil {
		return err
	}
	defer object.Close()
	info := object.Info()
	part, sum := target+partSuffix, md5.New()
	have, err := resume(part, info, sum)
	if err != nil {
		return err
	}
	if err := appendRest(ctx, object, part, have, info.Size, sum, func(done int64) {
		if o.Progress != nil {
			o.Progress(f, done, max(info.Size, 0))
		}
	}); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); f.MD5 != "" && got != f.MD5 {
		return errors.Join(fmt.Errorf("its MD5 is %s, published is %s: the file was damaged on the way, or replaced; "+
			"what was fetched is gone, try again", got, f.MD5), os.Remove(part), os.Remove(part+versionSuffix))
	}
	if err := os.Rename(part, target); err != nil {
		return err
	}
	return errors.Join(os.Remove(part+versionSuffix), atomicfile.SyncDir(filepath.Dir(target)))
}

// resume returns how much of the file is there already, and hashes it. What is of another version, or cannot be gone
// on with, counts as nothing.
func resume(part string, info storage.Info, sum hash.Hash) (int64, error) {
	version := fmt.Sprintf("%d %s", info.Size, info.Version)
	known, err := os.ReadFile(part + versionSuffix)
	if err == nil && string(known) == version && info.Ranges && info.Version != "" {
		file, err := os.Open(part)
		if err == nil {
			have, err := io.Copy(sum, file)
			return have, errors.Join(err, file.Close())
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		return 0, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return 0, os.WriteFile(part+versionSuffix, []byte(version), 0o666)
}

// appendRest fetches the file from the offset on.
func appendRest(ctx context.Context, object *storage.Object, part string, offset, size int64, sum hash.Hash,
	progress func(int64)) (err error) {
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if offset == size {
		return nil
	}
	body := object.Range(ctx, offset, -1)
	defer body.Close()
	w := &meter{io.MultiWriter(file, sum), offset, progress}
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("%w; what was fetched is kept, and the same command goes on with it", atomicfile.Explain(err))
	}
	if size > 0 && w.done != size {
		return fmt.Errorf("%d bytes came, the server announced %d", w.done, size)
	}
	return file.Sync()
}

// meter counts what is written.
type meter struct {
	w        io.Writer
	done     int64
	progress func(int64)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.done += int64(n)
	m.progress(m.done)
	return n, err
}
