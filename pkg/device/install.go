package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"blip2/pkg/internal/atomicfile"
)

// InstallOptions say which plugin to install and from where.
type InstallOptions struct {
	Kind string // one of Kinds()
	// From lists wheels, or folders of wheels, to take instead of downloading.
	From []string
	// AllowUnpinned takes wheels in From whose checksum is not the one in this program.
	AllowUnpinned bool
	// Index is the URL of a PyPI simple index; empty is $BLIP2_PYPI_INDEX, $PIP_INDEX_URL or PyPI itself.
	Index string
	// Force installs anew what is installed already.
	Force bool
	// CacheDir is the folder of plugins and downloads; empty is what CacheDir() says.
	CacheDir string
	// Progress hears how far the work is; nil is silence. It is called from the goroutine of Install.
	Progress func(Progress)
	// Logger hears of retries and waiting; nil is slog.Default().
	Logger *slog.Logger
}

// Progress is how far an installation is.
type Progress struct {
	Stage       string // "download" or "unpack"
	File        string // wheel being worked on
	Number, Of  int    // which of how many wheels, from 1
	Done, Total int64  // bytes of that wheel
}

// Installation is the result of Install.
type Installation struct {
	Kind    string `json:"kind"`
	Version string `json:"version"`
	Dir     string `json:"dir"`     // folder of the plugin
	Plugin  string `json:"plugin"`  // file to load
	Size    int64  `json:"size"`    // bytes on disk
	Pinned  bool   `json:"pinned"`  // every wheel had its pinned checksum
	Already bool   `json:"already"` // it was there before; nothing was done
	// Licences of data, a line each.
	Licences []string `json:"licences,omitempty"`
}

// Install puts a plugin into the store. It is safe against a second one at the same time, and against being killed
// at any point: a plugin is installed wholly or not at all, and downloads continue where they ended. Mistakes in o
// are *OptionError.
func Install(ctx context.Context, o InstallOptions) (*Installation, error) {
	in, err := newInstaller(o)
	if err != nil {
		return nil, err
	}
	return in.run(ctx)
}

// installer does one installation. Tests replace the fields below the line.
type installer struct {
	o     InstallOptions
	set   *pluginSet
	store store
	index *url.URL
	log   *slog.Logger

	client *http.Client
	wait   func(ctx context.Context, failures int) error
	stall  time.Duration // without data for this long a request is given up
	free   func(dir string) (int64, error)
	verify func(plugin string) error // checks the unpacked plugin
	at     func(point string)        // called between the steps
}

// newInstaller checks the options.
func newInstaller(o InstallOptions) (*installer, error) {
	if err := checkKind(o.Kind); err != nil {
		return nil, err
	}
	set := setFor(o.Kind)
	if set == nil {
		return nil, fmt.Errorf("there is no %s plugin for %s; use --backend go, or a plugin of your own with --backend "+
			"xla:/path/plugin.so", o.Kind, platform())
	}
	return newInstallerFor(set, o)
}

// newInstallerFor makes an installer of a set.
func newInstallerFor(set *pluginSet, o InstallOptions) (*installer, error) {
	index, err := indexURL(o.Index)
	if err != nil {
		return nil, err
	}
	if o.CacheDir, err = cacheDir(o.CacheDir); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = time.Minute
	in := &installer{o: o, set: set, store: store{o.CacheDir}, index: index, log: o.Logger,
		client: &http.Client{Transport: transport}, wait: backoff, stall: time.Minute, free: freeSpace,
		verify: checkLibrary, at: func(string) {}}
	if set.platform == anyPlatform {
		in.verify = isFile
	}
	if in.log == nil {
		in.log = slog.Default()
	}
	return in, nil
}

// step reports progress of one wheel.
type step struct {
	number, of int
	progress   func(Progress)
}

func (s step) report(stage, file string, done, total int64) {
	if s.progress != nil {
		s.progress(Progress{Stage: stage, File: file, Number: s.number, Of: s.of, Done: done, Total: total})
	}
}

// run installs the set.
func (in *installer) run(ctx context.Context) (*Installation, error) {
	// Before anything is written, so that it also works where the store may only be read.
	if done := in.present(); done != nil {
		return done, nil
	}
	for _, dir := range []string{in.store.plugins(), in.store.downloads()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, diskError(err)
		}
	}
	unlock, err := lockStore(ctx, in.store, in.log)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(in.store); err != nil {
		return nil, err
	}
	if done := in.present(); done != nil {
		return done, nil // another installation was faster
	}
	if err := in.checkSpace(); err != nil {
		return nil, err
	}
	wheels, err := in.collect(ctx)
	if err != nil {
		return nil, err
	}
	in.at("downloaded")
	return in.place(ctx, wheels)
}

// present returns the plugin that is installed already, or nil if there is work to do.
func (in *installer) present() *Installation {
	own, _ := in.store.find(in.set.kind)
	if own == nil || in.o.Force {
		return nil
	}
	return result(own.dir, own.m, true)
}

// lockStore keeps other installations out; it waits for one that is running.
func lockStore(ctx context.Context, s store, log *slog.Logger) (unlock func(), err error) {
	path := filepath.Join(s.plugins(), ".lock")
	l := flock.New(path)
	ok, err := l.TryLock()
	if err == nil && !ok {
		log.Warn("another installation is running; waiting for it", "lock", path)
		_, err = l.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, diskError(err))
	}
	// The file stays: removing it would let a third process lock a new one while a second holds this.
	return func() { _ = l.Close() }, nil
}

const (
	tempPrefix = ".tmp-" // unfinished installations
	oldPrefix  = ".old-" // the installation that is being replaced
)

// sweep removes what killed installations left. It is called under the lock, so nobody is using it. A folder that
// was put aside for a new one that never came is put back.
func sweep(s store) error {
	entries, err := os.ReadDir(s.plugins())
	if err != nil {
		return fmt.Errorf("plugin folder: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.plugins(), e.Name())
		if name, ok := strings.CutPrefix(e.Name(), oldPrefix); ok {
			if _, err := os.Stat(filepath.Join(s.plugins(), name)); errors.Is(err, fs.ErrNotExist) {
				if err := os.Rename(path, filepath.Join(s.plugins(), name)); err != nil {
					return diskError(err)
				}
				continue
			}
		} else if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return diskError(err)
		}
	}
	return nil
}

// checkSpace refuses to start what the disk cannot hold. Wheels and unpacked files are on it together for a while.
func (in *installer) checkSpace() error {
	var need int64
	for _, w := range in.set.wheels {
		need += w.unpacked
		if len(in.o.From) == 0 {
			have := sizeOf(filepath.Join(in.store.downloads(), w.sha256+".whl")) +
				sizeOf(filepath.Join(in.store.downloads(), w.sha256+".part"))
			need += max(w.size-have, 0)
		}
	}
	need += need / 50 // file-system overhead
	free, err := in.free(in.store.plugins())
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if free < need {
		return fmt.Errorf("not enough room in %s: %d MB are free, the %s plugin needs %d MB; make room or set %s to a "+
			"folder on another disk", in.store.cache, free>>20, in.set.kind, need>>20+1, CacheEnv)
	}
	return nil
}

// localWheel is a wheel on this machine whose checksum has been verified, or accepted.
type localWheel struct {
	path   string
	record Wheel
	pinned bool
	// version is that of the file's name if the wheel is not the pinned one.
	version string
}

// collect returns the wheels of the set, from files or from the index.
func (in *installer) collect(ctx context.Context) ([]localWheel, error) {
	if len(in.o.From) > 0 {
		return in.fromFiles(ctx)
	}
	var wheels []localWheel
	for i, w := range in.set.wheels {
		path, err := in.download(ctx, w, step{i + 1, len(in.set.wheels), in.o.Progress})
		if err != nil {
			return nil, networkHint(err)
		}
		in.at("wheel")
		wheels = append(wheels, localWheel{path, Wheel{w.file, w.size, w.sha256}, true, w.version})
	}
	return wheels, nil
}

// place unpacks the wheels into a temporary folder beside the final one and renames it, the manifest written last.
func (in *installer) place(ctx context.Context, wheels []localWheel) (*Installation, error) {
	m := &manifest{Format: manifestFormat, Kind: in.set.kind, Version: wheels[0].version, Platform: in.set.platform,
		Pinned: true, Plugin: in.set.plugin}
	temp, err := os.MkdirTemp(in.store.plugins(), tempPrefix+m.Kind+"-")
	if err != nil {
		return nil, diskError(err)
	}
	defer os.RemoveAll(temp) // gone already after the rename
	u := &unpacker{dir: temp, wants: in.set.wants, left: maxUnpacked}
	for i, w := range wheels {
		u.step = step{i + 1, len(wheels), in.o.Progress}
		unpack := u.wheel
		if in.set.wheels[i].maven != "" {
			unpack = u.whole
		}
		if err := unpack(ctx, w.record.File, w.path); err != nil {
			return nil, err
		}
		m.Wheels = append(m.Wheels, w.record)
		m.Pinned = m.Pinned && w.pinned
		in.at("unpacked")
	}
	m.Files = u.files
	if err := in.check(temp, m, wheels[0]); err != nil {
		return nil, err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return nil, diskError(err)
	}
	if err := writeManifest(temp, m); err != nil {
		return nil, err
	}
	in.at("manifest")
	final := in.store.dir(m.Kind, m.Version)
	if err := in.swap(temp, final); err != nil {
		return nil, err
	}
	in.at("renamed")
	in.tidy(wheels)
	if own, _ := in.store.find(m.Kind); own != nil && own.dir != final {
		in.log.Warn("another installed plugin comes first; remove both and install again to change that",
			"used", own.dir, "installed", final)
	}
	return result(final, m, false), nil
}

// check makes sure that the plugin is among the unpacked files and is a library for this machine.
func (in *installer) check(temp string, m *manifest, w localWheel) error {
	if !slices.ContainsFunc(m.Files, func(f manifestFile) bool { return f.Path == m.Plugin }) {
		return fmt.Errorf("%s holds no %s: it is not the wheel of the %s plugin", w.path, m.Plugin, m.Kind)
	}
	return in.verify(filepath.Join(temp, filepath.FromSlash(m.Plugin)))
}

// writeManifest writes the manifest and makes the names in all folders durable.
func writeManifest(dir string, m *manifest) error {
	err := atomicfile.Write(filepath.Join(dir, manifestName), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(m)
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return atomicfile.SyncDir(path)
	})
}

// swap puts temp in the place of final. A folder that is there is put aside first; sweep brings it back if the
// process dies in between.
func (in *installer) swap(temp, final string) error {
	old := filepath.Join(filepath.Dir(final), oldPrefix+filepath.Base(final))
	err := os.Rename(final, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	in.at("aside")
	if err := os.Rename(temp, final); err != nil {
		return diskError(err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(final)); err != nil {
		return diskError(err)
	}
	return diskError(os.RemoveAll(old))
}

// tidy removes the downloads that are installed now; leaving one behind costs room only, so errors are logged.
func (in *installer) tidy(wheels []localWheel) {
	for _, w := range wheels {
		if filepath.Dir(w.path) != in.store.downloads() {
			continue
		}
		if err := os.Remove(w.path); err != nil {
			in.log.Warn("cannot remove a download", "error", err)
		}
	}
}

// result describes an installed plugin.
func result(dir string, m *manifest, already bool) *Installation {
	var licences []string
	if set := setFor(m.Kind); set != nil {
		licences = set.licences
	}
	return &Installation{Kind: m.Kind, Version: m.Version, Dir: dir, Size: m.size(), Pinned: m.Pinned, Already: already,
		Licences: licences,
		Plugin:   filepath.Join(dir, filepath.FromSlash(m.Plugin))}
}
