package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"blip2/pkg/internal/atomicfile"
)

// States of a plugin in a list.
const (
	StateInstalled = "installed"     // in the store, and what this program loads
	StateAvailable = "available"     // can be installed
	StateDamaged   = "damaged"       // in the store, but files are missing or of the wrong size
	StateUnused    = "not used"      // in the store, but another version, or for another machine
	StateFound     = "found outside" // not in the store, but in a folder that go-xla searches
)

// PluginStatus is one line of the list of plugins.
type PluginStatus struct {
	Kind     string `json:"kind"` // one of Kinds()
	Version  string `json:"version,omitempty"`
	State    string `json:"state"`
	Path     string `json:"path,omitempty"`     // file of the plugin, or its folder if it is damaged
	Size     int64  `json:"size,omitempty"`     // bytes on disk, or that an installation takes
	Download int64  `json:"download,omitempty"` // bytes to download, if available
	Pinned   bool   `json:"pinned"`             // the version this program was tested with
	Detail   string `json:"detail,omitempty"`   // what is wrong, or where it was found
	// Wheels are what to download, for machines without a network, or what was unpacked.
	Wheels []Wheel `json:"wheels,omitempty"`
}

// List returns the plugins that are installed, found in other folders, or can be installed on this machine. cacheDir
// is the folder of plugins; empty is what CacheDir() says.
func List(cacheDir string) ([]PluginStatus, error) {
	h := newHost(cacheDir)
	if h.storeErr != nil {
		return nil, h.storeErr
	}
	return h.list()
}

func (h host) list() ([]PluginStatus, error) {
	all, err := h.store.all("")
	if err != nil {
		return nil, err
	}
	var list []PluginStatus
	for _, kind := range Kinds() {
		used := false
		for _, i := range all {
			if i.kind == kind {
				s := i.status(!used)
				used = used || s.State == StateInstalled
				list = append(list, s)
			}
		}
		if used {
			continue
		}
		if path, source := h.searchPath(kind); path != "" && !isData(kind) {
			list = append(list, PluginStatus{Kind: kind, State: StateFound, Path: path, Size: sizeOf(path), Detail: source})
		}
		if set := setFor(kind); set != nil {
			s := PluginStatus{Kind: kind, Version: set.main().version, State: StateAvailable, Pinned: true}
			for _, w := range set.wheels {
				s.Size += w.unpacked
				s.Download += w.size
				s.Wheels = append(s.Wheels, Wheel{File: w.file, Size: w.size, SHA256: w.sha256})
			}
			s.Detail = "blip2 plugin install " + kind
			list = append(list, s)
		}
	}
	return list, nil
}

// status describes a plugin folder; first says that no folder before it is the one in use.
func (i installed) status(first bool) PluginStatus {
	s := PluginStatus{Kind: i.kind, Version: i.version, Path: i.dir, Pinned: i.m != nil && i.m.Pinned}
	switch {
	case i.damage != nil:
		s.State, s.Detail = StateDamaged, i.damage.Error()
		return s
	case !i.usable():
		s.State = StateUnused
		s.Detail = fmt.Sprintf("this program needs %s for %s", pinnedVersion(i.kind), platform())
	case !first:
		s.State, s.Detail = StateUnused, "another installed one comes first"
	default:
		s.State = StateInstalled
	}
	if !i.m.Pinned && s.Detail == "" {
		s.Detail = "not the tested wheel"
	}
	s.Path, s.Size, s.Wheels = i.plugin(), i.m.size(), i.m.Wheels
	return s
}

// Remove deletes all installed plugins of a kind, good or not, and returns how many bytes that freed and the folders
// that are gone. cacheDir is the folder of plugins; empty is what CacheDir() says.
func Remove(ctx context.Context, kind, cacheDir string) (folders []string, bytes int64, err error) {
	if err := checkKind(kind); err != nil {
		return nil, 0, err
	}
	h := newHost(cacheDir)
	if h.storeErr != nil {
		return nil, 0, h.storeErr
	}
	if _, err := os.Stat(h.store.plugins()); errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	unlock, err := lockStore(ctx, h.store, slog.Default())
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if err := sweep(h.store); err != nil {
		return nil, 0, err
	}
	all, err := h.store.all(kind)
	if err != nil {
		return nil, 0, err
	}
	for _, i := range all {
		bytes += folderSize(i.dir)
		// Renamed first: a folder of which half is gone must not look installed.
		gone := filepath.Join(h.store.plugins(), tempPrefix+filepath.Base(i.dir))
		if err := os.Rename(i.dir, gone); err != nil {
			return folders, bytes, diskError(err)
		}
		folders = append(folders, i.dir)
		if err := os.RemoveAll(gone); err != nil {
			return folders, bytes, diskError(err)
		}
	}
	return folders, bytes, atomicfile.SyncDir(h.store.plugins())
}

// folderSize adds up the files in a folder; what cannot be read counts as nothing.
func folderSize(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			sum += sizeOf(path)
		}
		return nil
	})
	return sum
}
