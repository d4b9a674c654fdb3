// Package checkpoint keeps the state of a training run in directories that are either complete or absent.
//
// A run folder holds
//
//	checkpoints/
//	  step-00000100/
//	    model.safetensors      trainable tensors under their published names
//	    optimizer.safetensors  optimizer slots; absent if the snapshot has none
//	    state.json             {"step": 100, "state": whatever the caller gave}
//	    manifest.json          step, and size and SHA-256 of each of the others
//	  latest                   name of the directory that was saved last, for people and scripts
//
// A checkpoint is written under a temporary name, synced, and renamed; `latest` is moved after that. A process killed
// at any moment leaves the earlier checkpoints as they were, and at most a hidden directory that the next Save
// removes. Reading trusts nothing: Latest and Load compare every file with the manifest.
//
// One process at a time saves into a run folder; a second one gets an error. Equal snapshots give equal bytes.
package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/weights"
)

// Names inside a run folder and inside a checkpoint directory.
const (
	Folder        = "checkpoints"
	LatestFile    = "latest"
	ModelFile     = "model.safetensors"
	OptimizerFile = "optimizer.safetensors"
	StateFile     = "state.json"
	ManifestFile  = "manifest.json"
)

const (
	dirPrefix  = "step-"
	tempPrefix = ".tmp-" // directories under construction or being deleted; never read, removed by the next Save
	lockFile   = ".lock"
)

// Snapshot is what a checkpoint holds. The caller must not change the tensors' data before Save has returned or the
// Writer is done with it.
type Snapshot struct {
	Step      int              // completed optimizer steps, not negative
	Model     []weights.Tensor // trainable tensors; the order given is kept in the file
	Optimizer []weights.Tensor // optimizer slots, by convention "m.<name>" and "v.<name>"; nil writes no file
	State     any              // everything else that resuming needs; must marshal to JSON
}

// ErrNone is wrapped by Latest and LoadLatest if a run folder has no good checkpoint.
var ErrNone = errors.New("no good checkpoint")

// DirName returns the name of the directory for a step, such as step-00000100.
func DirName(step int) string { return fmt.Sprintf("%s%08d", dirPrefix, step) }

// numbered is a checkpoint directory found in a run folder.
type numbered struct {
	step int
	dir  string
}

// list returns the checkpoint directories of a run folder, good or not, newest step first.
func list(runDir string) ([]numbered, error) {
	root := filepath.Join(runDir, Folder)
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []numbered
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), dirPrefix)
		if !ok {
			continue
		}
		// Only names that Save makes: step-1 and step-00000001 would be two directories for one step.
		if step, err := strconv.Atoi(digits); err == nil && DirName(step) == e.Name() {
			found = append(found, numbered{step: step, dir: filepath.Join(root, e.Name())})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return b.step - a.step })
	return found, nil
}
