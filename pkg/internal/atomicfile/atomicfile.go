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
	"syscall"
)

// Write calls fill with a temporary file in path's directory, syncs it, renames it to path and syncs the directory.
// If anything fails the temporary file is removed and whatever was at path stays. The error names path, and the
// remedy where the disk is full or the directory cannot be written to.
func Write(path string, fill func(io.Writer) error) error {
	if err := write(path, fill); err != nil {
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
