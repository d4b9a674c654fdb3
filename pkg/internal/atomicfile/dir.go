package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// WriteDir makes a folder that is either complete or absent, also after a crash or a power cut. It calls fill with a
// temporary folder beside path, syncs everything that fill put there, and renames it to path. If anything fails the
// temporary folder is removed, and so are parents of path that were made for it. Something at path is an error, unless
// it is an empty folder: that stays, as it may be a mounted disk, a link or where the process is, and gets its contents
// from a temporary folder inside it, all of them at the end. The error names path, and the remedy where the disk is
// full or the parent cannot be written to. A process that is killed leaves a hidden folder beside path, or in it.
func WriteDir(path string, fill func(dir string) error) error {
	path = filepath.Clean(path)
	err := checkFree(path)
	if err == nil {
		write := writeDir
		if _, missing := os.Stat(path); missing == nil {
			write = fillDir
		}
		err = write(path, fill)
	}
	if err != nil {
		return fmt.Errorf("writing folder %s: %w", path, Explain(err))
	}
	return nil
}

// TryDir finds out whether WriteDir could make a folder, before the work that would be lost otherwise. It leaves
// nothing.
func TryDir(path string) error {
	path = filepath.Clean(path)
	if err := tryDir(path); err != nil {
		return fmt.Errorf("a folder %s cannot be made: %w", path, Explain(err))
	}
	return nil
}

func tryDir(path string) error {
	if err := checkFree(path); err != nil {
		return err
	}
	made, err := makeParents(path)
	if err != nil {
		return err
	}
	defer removeEmpty(made)
	if _, missing := os.Stat(path); missing == nil {
		path = filepath.Join(path, "new") // an empty folder is filled from a temporary one inside it
	}
	temp, err := makeBeside(path)
	if err != nil {
		return err
	}
	return os.Remove(temp)
}

// writeDir is WriteDir where nothing is at path.
func writeDir(path string, fill func(dir string) error) (err error) {
	made, err := makeParents(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			removeEmpty(made)
		}
	}()
	temp, err := makeBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	if err := fill(temp); err != nil {
		return err
	}
	if err := syncTree(temp); err != nil {
		return err
	}
	// Not every system renames over an empty folder.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// fillDir is WriteDir where path is an empty folder.
func fillDir(path string, fill func(dir string) error) (err error) {
	temp, err := makeBeside(filepath.Join(path, "new"))
	if err != nil {
		return err
	}
	var moved []string
	defer func() {
		if err == nil {
			return
		}
		for _, name := range moved {
			err = errors.Join(err, os.RemoveAll(name))
		}
		err = errors.Join(err, os.RemoveAll(temp))
	}()
	if err := fill(temp); err != nil {
		return err
	}
	if err := syncTree(temp); err != nil {
		return err
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	if now, err := os.ReadDir(path); err != nil || len(now) != 1 {
		return errors.Join(err, errors.New("somebody has put something into the folder meanwhile"))
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if err := os.Rename(filepath.Join(temp, e.Name()), name); err != nil {
			return err
		}
		moved = append(moved, name)
	}
	if err := os.Remove(temp); err != nil {
		return err
	}
	return SyncDir(path)
}

// checkFree makes sure that there is nothing at path but perhaps an empty folder.
func checkFree(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if to, err := os.Readlink(path); err == nil {
			return fmt.Errorf("it is a link to %s, which does not exist: make that folder or remove the link", to)
		}
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return errors.New("there is a file in the place of the folder: choose another name")
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("the folder is not empty, it holds %s: choose another one, or remove it", entries[0].Name())
	}
	return nil
}

// makeParents makes the folders above path that are missing, and returns them, the innermost first.
func makeParents(path string) (made []string, err error) {
	parent := filepath.Dir(path)
	for dir := parent; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		made = append(made, dir)
	}
	if err := os.MkdirAll(parent, 0o777); err != nil {
		removeEmpty(made)
		return nil, err
	}
	return made, nil
}

// removeEmpty removes folders, unless somebody has put something into them.
func removeEmpty(dirs []string) {
	for _, dir := range dirs {
		_ = os.Remove(dir)
	}
}

// makeBeside makes a hidden folder with a fresh name.
func makeBeside(path string) (string, error) {
	for range 1000 {
		name := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x.tmp", filepath.Base(path), rand.Uint32()))
		if err := os.Mkdir(name, 0o777); !errors.Is(err, fs.ErrExist) {
			return name, err
		}
	}
	return "", errors.New("no free name for a temporary folder")
}

// syncTree makes the files and folders below dir durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			return SyncDir(path)
		case !e.Type().IsRegular():
			return nil
		}
		return syncFile(path)
	})
}

// syncFile syncs a file whoever wrote it. It is opened for writing, which some systems demand for that.
func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrPermission) { // a read-only file, as copies of some are
		file, err = os.Open(path)
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
