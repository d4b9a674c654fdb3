package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// format names the layout; a later, incompatible one gets another name.
const format = "blip2-checkpoint-1"

// manifest lists the files of a checkpoint.
type manifest struct {
	Format string              `json:"format"`
	Step   int                 `json:"step"`
	Files  map[string]fileInfo `json:"files"`
}

type fileInfo struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

func (m manifest) encode() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", "  ")
	return append(raw, '\n'), err
}

// Verify reads a whole checkpoint directory and compares it with its manifest. The error names the damaged file and
// what was expected of it.
func Verify(dir string) error {
	_, err := verify(dir)
	return err
}

// verified is a checkpoint that agrees with its manifest, and the small files that were decoded to find that out.
type verified struct {
	dir      string
	manifest manifest
	state    savedState
}

func verify(dir string) (verified, error) {
	m, err := readManifest(dir)
	if err != nil {
		return verified{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		path := filepath.Join(dir, name)
		sum, err := hashFile(path, m.Files[name].Size)
		if err != nil {
			return verified{}, err
		}
		if want := m.Files[name].SHA256; sum != want {
			return verified{}, fmt.Errorf("%s: damaged: SHA-256 is %s, the manifest says %s", path, sum, want)
		}
	}
	s, err := readState(dir)
	if err != nil {
		return verified{}, err
	}
	if s.Step != m.Step {
		return verified{}, fmt.Errorf("%s: damaged: it is of step %d, %s of step %d",
			filepath.Join(dir, ManifestFile), m.Step, StateFile, s.Step)
	}
	return verified{dir: dir, manifest: m, state: s}, nil
}

// readManifest reads the manifest and checks all that can be checked without reading the other files: that it is
// exactly what Save would write, and that the files are there with their sizes.
func readManifest(dir string) (manifest, error) {
	path := filepath.Join(dir, ManifestFile)
	m, err := decodeManifest(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s: has no %s: not a checkpoint, or not a complete one", dir, ManifestFile)
	}
	if err != nil {
		return m, err
	}
	for _, name := range []string{ModelFile, StateFile} {
		if _, ok := m.Files[name]; !ok {
			return m, fmt.Errorf("%s: damaged: does not list %s", path, name)
		}
	}
	if _, ok := m.Files[OptimizerFile]; !ok {
		if _, err := os.Lstat(filepath.Join(dir, OptimizerFile)); err == nil {
			return m, fmt.Errorf("%s: damaged: does not list %s, which is there", path, OptimizerFile)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		if name != ModelFile && name != OptimizerFile && name != StateFile {
			return m, fmt.Errorf("%s: damaged: lists %.100q, which is not part of a checkpoint", path, name)
		}
		if err := checkSize(filepath.Join(dir, name), m.Files[name].Size); err != nil {
			return m, err
		}
	}
	return m, nil
}

func decodeManifest(path string) (manifest, error) {
	var m manifest
	raw, err := readSmall(path)
	if err != nil {
		return m, err
	}
	if err := decodeStrict(raw, &m); err != nil {
		return m, fmt.Errorf("%s: damaged: %w", path, err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%s: format is %.100q, this program reads %q", path, m.Format, format)
	}
	// Whatever flipped bit or edit the decoder forgives shows here.
	if canonical, err := m.encode(); err != nil || !bytes.Equal(canonical, raw) {
		return m, fmt.Errorf("%s: damaged: not as it was written", path)
	}
	return m, nil
}

func checkSize(path string, want int64) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: missing, though the manifest lists it", path)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", path)
	}
	if info.Size() != want {
		return fmt.Errorf("%s: damaged: it has %d bytes, the manifest says %d", path, info.Size(), want)
	}
	return nil
}

// hashFile returns the SHA-256 in hexadecimal of a file of about that size.
func hashFile(path string, size int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.CopyBuffer(onlyWriter{sum}, file, make([]byte, min(1<<20, size+1))); err != nil {
		return "", err // names the path already
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// onlyWriter hides other methods, so that io.CopyBuffer uses its buffer.
type onlyWriter struct{ io.Writer }

// readSmall reads a JSON file of a checkpoint; what is longer than any such file can be is refused, not read.
func readSmall(path string) ([]byte, error) {
	const most = 64 << 20
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > most {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, most)
	}
	return raw, nil
}
