package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"blip2/pkg/internal/atomicfile"
)

// Policy says which checkpoints survive pruning. The newest good one and the one that `latest` names always do, and so
// does everything newer than the newest good one.
type Policy struct {
	KeepLast  int   // this many of the newest complete ones; 0 prunes nothing
	KeepEvery int   // also every step that is a multiple of this; 0 for none
	Protect   []int // also these steps, such as the best by a metric
}

// Prune deletes the checkpoints of a run folder that the policy does not keep and returns their directories. A
// directory disappears from view before its files are deleted, so that an interrupted Prune leaves no half checkpoint.
// To be sure that a good one remains Prune verifies from the newest on until it finds one; without one it deletes none.
func Prune(runDir string, p Policy) (removed []string, err error) { return prune(runDir, p, "") }

// prune is Prune; knownGood, if not empty, is a directory that was just saved and need not be read again.
func prune(runDir string, p Policy, knownGood string) (removed []string, err error) {
	if p.KeepLast <= 0 {
		return nil, nil
	}
	root := filepath.Join(runDir, Folder)
	found, err := list(runDir)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	unlock, err := lock(filepath.Join(root, lockFile))
	if err != nil {
		return nil, fmt.Errorf("pruning %s: %w", root, err)
	}
	defer unlock()
	for _, c := range doomed(root, found, p, knownGood) {
		hidden := filepath.Join(root, tempPrefix+"pruned-"+filepath.Base(c.dir))
		if err := errors.Join(os.RemoveAll(hidden), os.Rename(c.dir, hidden), os.RemoveAll(hidden)); err != nil {
			return removed, fmt.Errorf("pruning %s: %w", root, atomicfile.Explain(err))
		}
		removed = append(removed, c.dir)
	}
	return removed, nil
}

// doomed selects what to delete from the checkpoints found, newest first.
func doomed(root string, found []numbered, p Policy, knownGood string) []numbered {
	keep := map[string]bool{filepath.Join(root, readLatest(root)): true, knownGood: true}
	good, kept := -1, 0
	for _, c := range found {
		if _, err := readManifest(c.dir); err != nil {
			continue // incomplete: does not count as one of the last
		}
		if good < 0 && (c.dir == knownGood || isGood(c)) {
			good = c.step
			keep[c.dir] = true
		}
		if kept < p.KeepLast {
			keep[c.dir] = true
			kept++
		}
	}
	var out []numbered
	for _, c := range found {
		every := p.KeepEvery > 0 && c.step%p.KeepEvery == 0
		if c.step < good && !keep[c.dir] && !every && !slices.Contains(p.Protect, c.step) {
			out = append(out, c)
		}
	}
	return out
}

func isGood(c numbered) bool {
	_, err := verifyNumbered(c)
	return err == nil
}

// readLatest returns the name in the `latest` file, empty if there is none.
func readLatest(root string) string {
	raw, err := os.ReadFile(filepath.Join(root, LatestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
