package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/weights"
)

// reserve is kept free beside the files themselves, for the manifest, directories and partly used blocks.
const reserve = 1 << 20

// modelMetadata makes other libraries accept the files as weights of a PyTorch model.
func modelMetadata() map[string]string { return map[string]string{"format": "pt"} }

// Save writes a checkpoint and returns its directory. Before writing it checks the free space of the file system and
// removes what a killed process may have left. When Save returns without error the checkpoint is on disk and `latest`
// names it; on any error, cancellation of ctx included, there is no trace of it, except that if only `latest` could
// not be moved the checkpoint stays and is good. A checkpoint of the same step is replaced.
func Save(ctx context.Context, runDir string, s Snapshot) (dir string, err error) {
	return saver{free: freeBytes}.save(ctx, runDir, s)
}

// saver is Save with what tests replace.
type saver struct {
	free func(dir string) (free uint64, known bool, err error)
	wrap func(name string, w io.Writer) io.Writer // nil, or put between a file and what is written to it
}

// part is one file of a checkpoint to be written.
type part struct {
	name  string
	size  int64
	write func(io.Writer) error
}

func (sv saver) save(ctx context.Context, runDir string, s Snapshot) (string, error) {
	root := filepath.Join(runDir, Folder)
	parts, err := partsOf(s)
	if err != nil {
		return "", fmt.Errorf("checkpoint of step %d: %w", s.Step, err)
	}
	dir, err := sv.saveParts(ctx, root, s.Step, parts)
	if err != nil {
		return "", fmt.Errorf("checkpoint of step %d in %s: %w", s.Step, root, atomicfile.Explain(err))
	}
	return dir, nil
}

// partsOf encodes the small files and measures the large ones, so that unusable snapshots fail before any writing.
func partsOf(s Snapshot) ([]part, error) {
	if s.Step < 0 {
		return nil, errors.New("the step is negative")
	}
	state, err := encodeState(s)
	if err != nil {
		return nil, err
	}
	tensorPart := func(name string, tensors []weights.Tensor) (part, error) {
		size, err := weights.EncodedSize(tensors, modelMetadata())
		if err != nil {
			return part{}, fmt.Errorf("%s: %w", name, err)
		}
		return part{name, size, func(w io.Writer) error { return weights.Encode(w, tensors, modelMetadata()) }}, nil
	}
	model, err := tensorPart(ModelFile, s.Model)
	if err != nil {
		return nil, err
	}
	parts := []part{model}
	if s.Optimizer != nil {
		optimizer, err := tensorPart(OptimizerFile, s.Optimizer)
		if err != nil {
			return nil, err
		}
		parts = append(parts, optimizer)
	}
	return append(parts, bytesPart(StateFile, state)), nil
}

func bytesPart(name string, data []byte) part {
	return part{name, int64(len(data)), func(w io.Writer) error { _, err := w.Write(data); return err }}
}

func (sv saver) saveParts(ctx context.Context, root string, step int, parts []part) (_ string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(root, 0o777); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(root, lockFile))
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := removeLeftovers(root); err != nil {
		return "", err
	}
	if err := sv.checkSpace(root, parts); err != nil {
		return "", err
	}
	temp := filepath.Join(root, tempPrefix+DirName(step))
	if err := os.Mkdir(temp, 0o777); err != nil {
		return "", err
	}
	// After success this is the replaced checkpoint or nothing.
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := sv.fill(ctx, temp, step, parts); err != nil {
		return "", err
	}
	dir := filepath.Join(root, DirName(step))
	if err := moveInto(temp, dir, exchange); err != nil {
		return "", err
	}
	if err := atomicfile.SyncDir(root); err != nil {
		return "", err
	}
	return dir, atomicfile.Write(filepath.Join(root, LatestFile), bytesPart("", []byte(DirName(step)+"\n")).write)
}

// checkSpace refuses to start what cannot end well. The check is a courtesy: writing handles a full disk as well.
func (sv saver) checkSpace(root string, parts []part) error {
	need := uint64(reserve)
	for _, p := range parts {
		need += uint64(p.size)
	}
	free, known, err := sv.free(root)
	if err != nil {
		return fmt.Errorf("asking for the free space: %w", err)
	}
	if known && free < need {
		return fmt.Errorf("needs %d bytes (%.1f GB), the disk has %d bytes (%.1f GB) free: "+
			"free some space there or choose another folder", need, float64(need)/1e9, free, float64(free)/1e9)
	}
	return nil
}

// fill writes all files and the manifest into a fresh directory and makes them durable.
func (sv saver) fill(ctx context.Context, dir string, step int, parts []part) error {
	m := manifest{Format: format, Step: step, Files: map[string]fileInfo{}}
	for _, p := range parts {
		info, err := sv.writeFile(ctx, filepath.Join(dir, p.name), p)
		if err != nil {
			return err
		}
		m.Files[p.name] = info
	}
	raw, err := m.encode()
	if err != nil {
		return err
	}
	if _, err := sv.writeFile(ctx, filepath.Join(dir, ManifestFile), bytesPart(ManifestFile, raw)); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return atomicfile.SyncDir(dir)
}

// writeFile writes and syncs one file, hashing on the way. Each piece written is a chance to notice cancellation.
func (sv saver) writeFile(ctx context.Context, path string, p part) (info fileInfo, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	var to io.Writer = file
	if sv.wrap != nil {
		to = sv.wrap(p.name, file)
	}
	if err := p.write(&cancellable{ctx, io.MultiWriter(to, sum)}); err != nil {
		return info, fmt.Errorf("%s: %w", p.name, err)
	}
	if err := file.Sync(); err != nil {
		return info, err
	}
	return fileInfo{Size: p.size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// cancellable is a writer that fails once its context is done.
type cancellable struct {
	ctx context.Context
	w   io.Writer
}

func (c *cancellable) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// moveInto gives a finished directory its final name. A directory already there ends up under the temporary name:
// in one operation where the system can do that, so that at every moment the name leads to a complete checkpoint.
func moveInto(temp, dir string, exchange func(a, b string) error) error {
	if _, err := os.Lstat(dir); err != nil {
		return os.Rename(temp, dir)
	}
	if exchange(temp, dir) == nil {
		return nil
	}
	aside := filepath.Join(filepath.Dir(dir), tempPrefix+"replaced-"+filepath.Base(dir))
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return errors.Join(err, os.Rename(aside, dir))
	}
	return os.Rename(aside, temp)
}

// removeLeftovers deletes what processes that were killed while saving or pruning have left. The lock is held.
func removeLeftovers(root string) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, tempPrefix) ||
			strings.HasPrefix(name, "."+LatestFile+".") && strings.HasSuffix(name, ".tmp") {
			if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
				return fmt.Errorf("removing what an earlier process left: %w", err)
			}
		}
	}
	return nil
}
