package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// CacheEnv names the folder of plugins and downloads; without it that is "blip2" in the user's cache folder.
const CacheEnv = "BLIP2_CACHE"

// CacheDir returns the folder that holds plugins/ and downloads/: $BLIP2_CACHE, or blip2 in os.UserCacheDir().
func CacheDir() (string, error) { return cacheDir("") }

// cacheDir is CacheDir unless the caller names a folder.
func cacheDir(named string) (string, error) {
	if named == "" {
		named = os.Getenv(CacheEnv)
	}
	if named != "" {
		return filepath.Abs(named)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder (%w); set %s to a folder for plugins", err, CacheEnv)
	}
	return filepath.Join(dir, "blip2"), nil
}

// manifestName is the file that makes a plugin folder an installed one. It is written last.
const manifestName = "installed.json"

// manifestFormat is the version of the manifest's layout.
const manifestFormat = 1

// manifest says what a plugin folder holds and where that came from.
type manifest struct {
	Format   int            `json:"format"`
	Kind     string         `json:"kind"`     // one of Kinds()
	Version  string         `json:"version"`  // of the wheel that holds the plugin
	Platform string         `json:"platform"` // GOOS/GOARCH, or any
	Pinned   bool           `json:"pinned"`   // every wheel had the checksum that is in the program
	Plugin   string         `json:"plugin"`   // path of the plugin, relative to the folder
	Wheels   []Wheel        `json:"wheels"`
	Files    []manifestFile `json:"files"`
}

// Wheel identifies a file on PyPI.
type Wheel struct {
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// manifestFile is one unpacked file, its path relative to the folder, with slashes.
type manifestFile struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// size is the sum of the sizes of all files.
func (m *manifest) size() (sum int64) {
	for _, f := range m.Files {
		sum += f.Size
	}
	return sum
}

// store is the folder <cache>/plugins, which holds one folder per plugin, <kind>-<version>.
type store struct{ cache string }

func (s store) plugins() string   { return filepath.Join(s.cache, "plugins") }
func (s store) downloads() string { return filepath.Join(s.cache, "downloads") }

// dir is the folder of a plugin of a kind and version.
func (s store) dir(kind, version string) string { return filepath.Join(s.plugins(), kind+"-"+version) }

// reinstall is the remedy for a damaged plugin.
func reinstall(kind string) string { return "blip2 plugin install " + kind + " --force" }

// readManifest reads the manifest of a plugin folder and checks it against the files' sizes. An absent manifest is
// fs.ErrNotExist: the folder is not an installed plugin.
func readManifest(dir string) (*manifest, error) {
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &manifest{}
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %v", path, err)
	}
	if m.Format != manifestFormat || m.Kind == "" || m.Plugin == "" || len(m.Files) == 0 {
		return nil, fmt.Errorf("%s is damaged or of another program version (format %d, expected %d)", path, m.Format,
			manifestFormat)
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Path)) {
			return nil, fmt.Errorf("%s is damaged: it names %q, which is outside its folder", path, f.Path)
		}
		name := filepath.Join(dir, filepath.FromSlash(f.Path))
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("installed file is missing: %w", err)
		}
		if info.Size() != f.Size {
			return nil, fmt.Errorf("installed file %s has %d bytes, expected %d", name, info.Size(), f.Size)
		}
	}
	if !slices.ContainsFunc(m.Files, func(f manifestFile) bool { return f.Path == m.Plugin }) {
		return nil, fmt.Errorf("%s is damaged: the plugin %q is not among its files", path, m.Plugin)
	}
	return m, nil
}

// installed is a plugin folder of the store.
type installed struct {
	dir     string
	kind    string
	version string
	m       *manifest // nil if damaged
	damage  error
}

// plugin is the path of the plugin's library.
func (i installed) plugin() string { return filepath.Join(i.dir, filepath.FromSlash(i.m.Plugin)) }

// usable says whether this program loads the plugin: good, for this machine, and of the pinned version, unless the user
// installed it in the knowledge that it is not.
func (i installed) usable() bool {
	return i.m != nil && fits(i.m.Platform) && (!i.m.Pinned || i.version == pinnedVersion(i.kind))
}

// platform names the machine as in pins and manifests.
func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// all returns the plugin folders of a kind ("" is every kind), good and damaged, the pinned version first.
func (s store) all(kind string) ([]installed, error) {
	entries, err := os.ReadDir(s.plugins())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("plugin folder: %w", err)
	}
	var found []installed
	for _, e := range entries {
		k, version, ok := strings.Cut(e.Name(), "-")
		if !e.IsDir() || !ok || checkKind(k) != nil || (kind != "" && k != kind) {
			continue
		}
		i := installed{dir: filepath.Join(s.plugins(), e.Name()), kind: k, version: version}
		i.m, i.damage = readManifest(i.dir)
		if errors.Is(i.damage, fs.ErrNotExist) && i.m == nil {
			i.damage = fmt.Errorf("%s: %w", i.dir, i.damage)
		}
		found = append(found, i)
	}
	slices.SortStableFunc(found, func(a, b installed) int {
		return order(a.version == pinnedVersion(a.kind), b.version == pinnedVersion(b.kind))
	})
	return found, nil
}

// order puts true before false.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// find returns the plugin of a kind that this program loads. Without one, reason says what there is instead.
func (s store) find(kind string) (plugin *installed, reason string) {
	all, err := s.all(kind)
	if err != nil {
		return nil, err.Error()
	}
	reason = "not installed"
	for _, i := range all {
		switch {
		case i.usable():
			return &i, ""
		case i.damage != nil:
			reason = fmt.Sprintf("the installed one is damaged (%v)", i.damage)
		case !fits(i.m.Platform):
			reason = fmt.Sprintf("the installed one is for %s, this is %s", i.m.Platform, platform())
		default:
			reason = fmt.Sprintf("the installed one is version %s, this program needs %s", i.version, pinnedVersion(kind))
		}
	}
	return nil, reason
}
