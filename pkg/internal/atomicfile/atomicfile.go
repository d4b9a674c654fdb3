// Package atomicfile writes files that are either complete or absent, also after a crash or a power cut.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Write calls fill with a temporary file in path's directory, syncs it, renames it to path and syncs the directory.
// If anything fails the temporary file is removed and whatever was at path stays. Of a link, the file that it leads to
// is written. What is no file but takes bytes, such as /dev/stdout, /dev/null or a named pipe, is written to as it is.
// The error names path, and the remedy where the disk is full or the directory cannot be written to.
func Write(path string, fill func(io.Writer) error) error {
	target, stream, err := resolve(path)
	switch {
	case err != nil:
	case stream:
		err = writeStream(path, fill)
	default:
		err = write(target, fill)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, Explain(err))
	}
	return nil
}

func write(path string, fill func(io.Writer) error) (err error) {
	file, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	if err := fill(file); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	// The new file is in place and its contents are on disk; a directory that cannot be synced does not undo that.
	return SyncDir(filepath.Dir(path))
}

// resolve follows a link to the file that is meant, which need not exist. It says whether path is to be written to in
// place, because it is a device, a pipe, or a file that the process has open.
func resolve(path string) (target string, stream bool, err error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return "", false, errors.New("it is a folder: name a file")
	case err == nil && !info.Mode().IsRegular():
		return path, true, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", false, err
	}
	target = path
	for range maxLinks {
		if strings.HasPrefix(target, "/proc/") { // where /dev/stdout leads
			return path, true, nil
		}
		next, err := os.Readlink(target)
		if err != nil { // no link, or nothing is there yet
			return target, false, nil
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(target), next)
		}
		target = next
	}
	return "", false, errors.New("it is a link that leads to too many others")
}

// maxLinks is how many links are followed, as many as Linux follows.
const maxLinks = 40

// writeStream appends to what is there.
func writeStream(path string, fill func(io.Writer) error) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return fill(file)
}

// createBeside creates a hidden file with a fresh name; unlike os.CreateTemp it leaves the mode to the umask.
func createBeside(path string) (*os.File, error) {
	for range 1000 {
		name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x.tmp", filepath.Base(path), rand.Uint32()))
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
	return nil, errors.New("no free name for a temporary file")
}

// NoRoom says whether an error of writing comes from a full disk or a used-up quota.
func NoRoom(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// NotWritable says whether an error of writing comes from missing permission or a read-only file system.
func NotWritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// Explain adds the remedy to errors that a full disk or missing permission causes; others pass unchanged.
func Explain(err error) error {
	switch {
	case NoRoom(err):
		return fmt.Errorf("%w: free some space there or choose another folder", err)
	case NotWritable(err):
		return fmt.Errorf("%w: make the folder writable or choose another one", err)
	}
	return err
}
