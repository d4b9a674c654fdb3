package download

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"blip2/pkg/internal/atomicfile"
)

// unpack writes the files of a zip archive into a folder. Files that are there with their size are passed over, so that
// an interrupted call goes on. Names that leave the folder, and links, are refused.
func unpack(ctx context.Context, path, dir string) error {
	archive, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%w; remove the file and fetch it again", err)
	}
	defer archive.Close()
	for _, entry := range archive.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.FromSlash(entry.Name)
		if strings.HasPrefix(entry.Name, "__MACOSX/") { // forks that some archives carry
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the name %q leaves the folder", entry.Name)
		}
		if err := unpackOne(entry, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
	}
	return nil
}

func unpackOne(entry *zip.File, target string) error {
	if entry.FileInfo().IsDir() {
		return os.MkdirAll(target, 0o777)
	}
	if !entry.Mode().IsRegular() {
		return fmt.Errorf("it is no plain file")
	}
	if info, err := os.Stat(target); err == nil && info.Size() == int64(entry.UncompressedSize64) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
		return err
	}
	r, err := entry.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return atomicfile.Write(target, func(w io.Writer) error {
		// One byte more than the archive announces would show that it lies.
		n, err := io.Copy(w, io.LimitReader(r, int64(entry.UncompressedSize64)+1))
		if err == nil && n != int64(entry.UncompressedSize64) {
			err = fmt.Errorf("%d bytes, the archive announces %d", n, entry.UncompressedSize64)
		}
		return err
	})
}
