package checkpoint

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLatestWithoutAny(t *testing.T) {
	run := t.TempDir()
	if dir, skipped, err := Latest(run); dir != "" || skipped != nil || !errors.Is(err, ErrNone) ||
		!strings.Contains(err.Error(), run) {
		t.Errorf("%q, %v, %v", dir, skipped, err)
	}
	if _, _, err := LoadLatest(filepath.Join(run, "nosuch")); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := Load(run); err == nil || !strings.Contains(err.Error(), "has no manifest.json: not a checkpoint") {
		t.Error(err)
	}
}

// TestEveryFlippedBitIsFound flips each bit of each file of a checkpoint in turn.
func TestEveryFlippedBitIsFound(t *testing.T) {
	run := t.TempDir()
	s := snapshot(12, 0, 3)
	dir := mustSave(t, run, s)
	if err := Verify(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ModelFile, OptimizerFile, StateFile, ManifestFile} {
		path := filepath.Join(dir, name)
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		good, err := io.ReadAll(file)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(good) {
			at, old := int64(bit/8), good[bit/8]
			if _, err := file.WriteAt([]byte{old ^ 1<<(bit%8)}, at); err != nil {
				t.Fatal(err)
			}
			if err := Verify(dir); err == nil || !strings.Contains(err.Error(), dir) {
				t.Fatalf("%s, bit %d: %v", name, bit, err)
			}
			if _, err := file.WriteAt([]byte{old}, at); err != nil {
				t.Fatal(err)
			}
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Verify(dir); err != nil {
		t.Error(err)
	}
}

// TestFallsBack damages the newest checkpoint in every way that a disk or a person does; the one before must be used.
func TestFallsBack(t *testing.T) {
	truncate := func(name string, by int) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			raw, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, raw[:len(raw)-by], 0o666))
		}
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	flip := func(name string) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			raw, err := os.ReadFile(path)
			raw[len(raw)-2] ^= 1
			return errors.Join(err, os.WriteFile(path, raw, 0o666))
		}
	}
	folderFor := func(dir string) error {
		path := filepath.Join(dir, ModelFile)
		return errors.Join(os.Remove(path), os.Mkdir(path, 0o777))
	}
	emptied := func(dir string) error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o777)) }
	fileFor := func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o666)) }
	otherStep := editManifest(func(m *manifest) { m.Step = 21 })
	otherFormat := editManifest(func(m *manifest) { m.Format = "blip2-checkpoint-2" })
	noOptimizer := editManifest(func(m *manifest) { delete(m.Files, OptimizerFile) })
	noModel := editManifest(func(m *manifest) { delete(m.Files, ModelFile) })
	foreign := editManifest(func(m *manifest) { m.Files["../../x"] = fileInfo{} })
	for name, c := range map[string]struct {
		damage func(dir string) error
		want   string
	}{
		"flip in model":        {flip(ModelFile), "model.safetensors: damaged: SHA-256 is"},
		"flip in optimizer":    {flip(OptimizerFile), "optimizer.safetensors: damaged: SHA-256 is"},
		"flip in state":        {flip(StateFile), "state.json: damaged: SHA-256 is"},
		"flip in manifest":     {flip(ManifestFile), "manifest.json: damaged: "},
		"model cut":            {truncate(ModelFile, 1), "model.safetensors: damaged: it has "},
		"state cut":            {truncate(StateFile, 1), "state.json: damaged: it has "},
		"manifest cut":         {truncate(ManifestFile, 5), "manifest.json: damaged: "},
		"no manifest":          {remove(ManifestFile), "has no manifest.json"},
		"no model":             {remove(ModelFile), "model.safetensors: missing"},
		"no optimizer":         {remove(OptimizerFile), "optimizer.safetensors: missing"},
		"folder for model":     {folderFor, "model.safetensors: not a regular file"},
		"empty directory":      {emptied, "has no manifest.json"},
		"file for directory":   {fileFor, "not a directory"},
		"other step":           {otherStep, "of step 21, state.json of step 20"},
		"other format":         {otherFormat, "this program reads"},
		"optimizer not listed": {noOptimizer, "does not list optimizer.safetensors, which is there"},
		"model not listed":     {noModel, "does not list model.safetensors"},
		"path in manifest":     {foreign, `lists "../../x", which is not part`},
	} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			older, newest := mustSave(t, run, snapshot(10, 0, 50)), mustSave(t, run, snapshot(20, 0, 50))
			if err := c.damage(newest); err != nil {
				t.Fatal(err)
			}
			dir, skipped, err := Latest(run)
			if dir != older || err != nil || len(skipped) != 1 {
				t.Fatalf("latest is %s, %v, %v", dir, skipped, err)
			}
			if text := skipped[0].Error(); !strings.Contains(text, newest) || !strings.Contains(text, c.want) {
				t.Errorf("got %v\nwant %s", text, c.want)
			}
			if _, err := Load(newest); err == nil {
				t.Error("the damaged one was loaded")
			}
			// Training goes on from the older one and meets the damaged one's step again.
			mustSave(t, run, snapshot(20, 1, 50))
			l, skipped, err := LoadLatest(run)
			if err != nil || len(skipped) != 0 || l.Step != 20 {
				t.Fatalf("after saving again: %v, %v", skipped, err)
			}
			if err := errors.Join(checkConsistent(l), l.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// editManifest changes a manifest the way a person with an editor does: the result is well-formed.
func editManifest(edit func(*manifest)) func(dir string) error {
	return func(dir string) error {
		path := filepath.Join(dir, ManifestFile)
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var m manifest
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		edit(&m)
		if raw, err = m.encode(); err != nil {
			return err
		}
		return os.WriteFile(path, raw, 0o666)
	}
}

func TestAllDamaged(t *testing.T) {
	run := t.TempDir()
	for step := range 3 {
		dir := mustSave(t, run, snapshot(step, 0, 2))
		if err := os.Truncate(filepath.Join(dir, ModelFile), 10); err != nil {
			t.Fatal(err)
		}
	}
	dir, skipped, err := Latest(run)
	if dir != "" || len(skipped) != 3 || !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "damaged are 3") ||
		!strings.Contains(err.Error(), DirName(2)) {
		t.Errorf("%q, %v, %v", dir, skipped, err)
	}
}
