package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// saveWheels writes the wheels of a test set into a folder.
func saveWheels(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		writeFile(t, filepath.Join(dir, name), string(data))
	}
	return dir
}

// fromInstaller is an installer that takes local wheels and has no index.
func fromInstaller(t *testing.T, set *pluginSet, from ...string) *installer {
	t.Helper()
	in := testInstaller(t, set, "http://127.0.0.1:1/simple", t.TempDir())
	in.o.From = from
	return in
}

func TestInstallFromFiles(t *testing.T) {
	set, files := testSet(t)
	dir := saveWheels(t, files)
	writeFile(t, filepath.Join(dir, "other-1.0-py3-none-any.whl"), "not ours")
	for name, from := range map[string][]string{
		"folder": {dir},
		"files":  {filepath.Join(dir, set.wheels[1].file), filepath.Join(dir, set.wheels[0].file)},
	} {
		t.Run(name, func(t *testing.T) {
			in := fromInstaller(t, set, from...)
			got, err := in.run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, in.store, got)
		})
	}
	if _, err := os.Stat(filepath.Join(dir, set.wheels[0].file)); err != nil {
		t.Errorf("the user's own wheel is gone: %v", err)
	}
}

func TestInstallRefusesFiles(t *testing.T) {
	set, files := testSet(t)
	dir := saveWheels(t, files)
	main := filepath.Join(dir, set.wheels[0].file)
	tampered := saveWheels(t, files)
	writeFile(t, filepath.Join(tampered, set.wheels[0].file), "other bytes")
	for name, c := range map[string]struct {
		from []string
		want []string
	}{
		"missing wheel":  {[]string{main}, []string{"lacks 1 wheel", set.wheels[1].file}},
		"missing file":   {[]string{filepath.Join(dir, "none.whl")}, []string{"none.whl"}},
		"empty folder":   {[]string{t.TempDir()}, []string{"lacks 2 wheels"}},
		"not a wheel":    {[]string{writeFile(t, filepath.Join(t.TempDir(), "a.so"), "")}, []string{"xla:/path/plugin.so"}},
		"wrong checksum": {[]string{tampered}, []string{set.wheels[0].sha256, "its SHA-256 is", "--allow-unpinned"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := fromInstaller(t, set, c.from...)
			_, err := in.run(context.Background())
			if err == nil {
				t.Fatal("installed")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			checkNothing(t, in.store)
		})
	}
}

// checkNothing makes sure that nothing is installed and no temporary folder is left.
func checkNothing(t *testing.T, s store) {
	t.Helper()
	if own, _ := s.find(KindCPU); own != nil {
		t.Error("something is installed")
	}
	entries, err := os.ReadDir(s.plugins())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

func TestUnpinnedWheel(t *testing.T) {
	set, files := testSet(t)
	dir := saveWheels(t, map[string][]byte{set.wheels[1].file: files[set.wheels[1].file]})
	other := zipped(t, entry{"plug/plugin.so", []byte("newer"), 0})
	writeFile(t, filepath.Join(dir, "Plug.In-9.9-py3-none-any.whl"), string(other))
	in := fromInstaller(t, set, dir)
	in.o.AllowUnpinned = true
	got, err := in.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.Pinned || got.Version != "9.9" {
		t.Errorf("unexpected installation: %+v", got)
	}
	own, reason := in.store.find(KindCPU)
	if own == nil || own.version != "9.9" {
		t.Errorf("not used: %+v, %s", own, reason)
	}
}

func TestBadWheels(t *testing.T) {
	set, files := testSet(t)
	good := entry{"plug/plugin.so", []byte("library"), 0}
	whole := zipped(t, good, entry{"plug/more.so", noise(5, 5000), 0})
	broken := append([]byte{}, whole...)
	copy(broken[len(broken)/2:], noise(6, 64))
	for name, c := range map[string]struct {
		wheel []byte
		want  string
	}{
		"not a zip":         {[]byte("<html>"), "not a wheel, or is damaged"},
		"cut short":         {whole[:len(whole)-100], "not a wheel, or is damaged"},
		"damaged inside":    {broken, "damaged"},
		"without plugin":    {zipped(t, entry{"else/x.so", nil, 0}), "holds no plug/plugin.so"},
		"path above":        {zipped(t, good, entry{"../evil.so", nil, 0}), "leads out of the folder"},
		"absolute path":     {zipped(t, good, entry{"/tmp/evil.so", nil, 0}), "leads out of the folder"},
		"path with dots":    {zipped(t, good, entry{"plug/../../evil.so", nil, 0}), "leads out of the folder"},
		"backslashes":       {zipped(t, good, entry{`..\evil.so`, nil, 0}), "leads out of the folder"},
		"symbolic link":     {zipped(t, good, entry{"plug/link.so", []byte("/etc/passwd"), 0o120777}), "not a plain file"},
		"same name twice":   {zipped(t, good, good), "exists"},
		"name of manifest?": {zipped(t, entry{"installed.json/licenses/x", nil, 0}, good), "installed.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := saveWheels(t, map[string][]byte{set.wheels[0].file: c.wheel, set.wheels[1].file: files[set.wheels[1].file]})
			in := fromInstaller(t, set, dir)
			in.o.AllowUnpinned = true
			_, err := in.run(context.Background())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v; want %q in it", err, c.want)
			}
			checkNothing(t, in.store)
		})
	}
}

func TestUnpackIsBounded(t *testing.T) {
	set, _ := testSet(t)
	bomb := zipped(t, entry{"a/bomb.so", make([]byte, 1<<20), 0})
	path := writeFile(t, filepath.Join(t.TempDir(), "x.whl"), string(bomb))
	u := &unpacker{dir: t.TempDir(), wants: set.wants, left: 1000}
	if err := u.wheel(context.Background(), "x.whl", path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(u.dir); len(left) != 0 {
		t.Errorf("something was unpacked: %v", left)
	}
}

func TestPluginIsVerifiedBeforeItIsInstalled(t *testing.T) {
	set, files := testSet(t)
	in := fromInstaller(t, set, saveWheels(t, files))
	in.verify = checkLibrary
	if _, err := in.run(context.Background()); err == nil || !strings.Contains(err.Error(), "not a shared library") {
		t.Errorf("got %v", err)
	}
	checkNothing(t, in.store)
}

func TestFullDisk(t *testing.T) {
	set, files := testSet(t)
	m := newMirror(t, set, files)
	in := testInstaller(t, set, m.URL+"/simple", t.TempDir())
	in.free = func(string) (int64, error) { return 300_000, nil }
	_, err := in.run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "not enough room") || !strings.Contains(err.Error(), CacheEnv) {
		t.Errorf("got %v", err)
	}
	if len(m.log) != 0 {
		t.Errorf("requests in spite of the full disk: %q", m.log)
	}
	in.free = func(string) (int64, error) { return 700_000, nil }
	if _, err := in.run(context.Background()); err != nil {
		t.Errorf("with enough room: %v", err)
	}
}

func TestFullDiskWhileWriting(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	_, err = fileWriter{full}.Write([]byte("x"))
	var final permanentError
	if !errors.As(err, &final) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v", err)
	}
}

func TestNoPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	set, files := testSet(t)
	in := fromInstaller(t, set, saveWheels(t, files))
	if err := os.Chmod(in.o.CacheDir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := in.run(context.Background()); err == nil || !strings.Contains(err.Error(), CacheEnv) {
		t.Errorf("got %v", err)
	}
}

func TestForceReplacesDamage(t *testing.T) {
	set, files := testSet(t)
	in := fromInstaller(t, set, saveWheels(t, files))
	got, err := in.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, got.Plugin, strings.Repeat("x", 200_000)) // same size: only checksums can tell
	if again, err := in.run(context.Background()); err != nil || !again.Already {
		t.Fatalf("without --force: %+v, %v", again, err)
	}
	in.o.Force = true
	if got, err = in.run(context.Background()); err != nil || got.Already {
		t.Fatalf("with --force: %+v, %v", got, err)
	}
	checkInstalled(t, in.store, got)
	in.o.Force = false
	if err := os.Truncate(got.Plugin, 10); err != nil { // seen without checksums: mended without --force
		t.Fatal(err)
	}
	if got, err = in.run(context.Background()); err != nil || got.Already {
		t.Fatalf("after truncation: %+v, %v", got, err)
	}
	checkInstalled(t, in.store, got)
}

func TestTwoInstallationsAtOnce(t *testing.T) {
	set, files := testSet(t)
	m := newMirror(t, set, files)
	cache := t.TempDir()
	var wg sync.WaitGroup
	results := make([]*Installation, 4)
	errs := make([]error, 4)
	for i := range results {
		in := testInstaller(t, set, m.URL+"/simple", cache)
		wg.Go(func() { results[i], errs[i] = in.run(context.Background()) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, r := range results {
		if !r.Already {
			fresh++
		}
	}
	if fresh != 1 || m.requests(set.wheels[0].file) != 1 {
		t.Errorf("%d of 4 installed, with %d downloads", fresh, m.requests(set.wheels[0].file))
	}
	checkInstalled(t, store{cache}, nil)
}

// victimEnv tells the test binary to be the process that is killed: "point cache wheels".
const victimEnv = "BLIP2_TEST_VICTIM"

// TestVictim is not a test: TestKilled runs it in a process of its own, which kills itself at the given point.
func TestVictim(t *testing.T) {
	point, rest, _ := strings.Cut(os.Getenv(victimEnv), "|")
	cache, wheels, ok := strings.Cut(rest, "|")
	if !ok {
		t.Skip("runs only as a child of TestKilled")
	}
	die := func(at string) {
		if at == point {
			p, err := os.FindProcess(os.Getpid())
			if err == nil {
				err = p.Kill()
			}
			fmt.Println(err)
			select {}
		}
	}
	set, _ := testSet(t)
	in := testInstaller(t, set, "http://127.0.0.1:1/simple", cache)
	in.o.From = []string{wheels}
	in.o.Force = true
	in.o.Progress = func(p Progress) {
		if p.Number == 1 && p.Done > p.Total/2 {
			die("half unpacked")
		}
	}
	in.at = die
	if _, err := in.run(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func TestKilled(t *testing.T) {
	set, files := testSet(t)
	wheels := saveWheels(t, files)
	for point, afterwards := range map[string]string{
		// "old": what was installed before is still there; "new": the new one is.
		"downloaded": "old", "half unpacked": "old", "unpacked": "old", "manifest": "old", "aside": "none", "renamed": "new",
		"never": "new",
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, installed before: %t", point, before), func(t *testing.T) {
				s := store{t.TempDir()}
				if before {
					addPlugin(t, s, KindCPU, pinnedVersion(KindCPU), true)
				}
				cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
				cmd.Env = append(os.Environ(), victimEnv+"="+point+"|"+s.cache+"|"+wheels)
				out, err := cmd.CombinedOutput()
				if (err == nil) != (point == "never") {
					t.Fatalf("the victim ended with %v: %s", err, out)
				}
				own, _ := s.find(KindCPU)
				var have string
				switch {
				case own == nil:
					have = "none"
				case own.m.Plugin == set.plugin:
					have = "new"
				default:
					have = "old"
				}
				want := afterwards
				if want == "old" && !before {
					want = "none"
				}
				if have != want {
					t.Errorf("%q is installed, want %q", have, want)
				}
				second := fromInstaller(t, set, wheels)
				second.store, second.o.Force = s, true
				got, err := second.run(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				checkInstalled(t, s, got)
			})
		}
	}
}

func TestSweepPutsBackWhatWasSetAside(t *testing.T) {
	s := store{t.TempDir()}
	addPlugin(t, s, KindCPU, pinnedVersion(KindCPU), true)
	dir := s.dir(KindCPU, pinnedVersion(KindCPU))
	if err := os.Rename(dir, filepath.Join(s.plugins(), oldPrefix+filepath.Base(dir))); err != nil {
		t.Fatal(err)
	}
	if own, _ := s.find(KindCPU); own != nil {
		t.Fatal("a folder that was set aside counts as installed")
	}
	if err := sweep(s); err != nil {
		t.Fatal(err)
	}
	if own, reason := s.find(KindCPU); own == nil {
		t.Errorf("not put back: %s", reason)
	}
}

func TestRemove(t *testing.T) {
	cache := t.TempDir()
	s := store{cache}
	addPlugin(t, s, KindCPU, "0.1", true)
	addPlugin(t, s, KindCPU, pinnedVersion(KindCPU), true)
	cuda := addPlugin(t, s, KindCUDA, pinnedVersion(KindCUDA), true)
	gone, bytes, err := Remove(context.Background(), KindCPU, cache)
	if err != nil || len(gone) != 2 || bytes < 14 {
		t.Errorf("removed %q, %d bytes, %v", gone, bytes, err)
	}
	if left, err := s.all(""); err != nil || len(left) != 1 || left[0].plugin() != cuda {
		t.Errorf("left: %+v, %v", left, err)
	}
	gone, _, err = Remove(context.Background(), KindCPU, filepath.Join(cache, "nowhere"))
	if err != nil || len(gone) != 0 {
		t.Errorf("removing nothing: %q, %v", gone, err)
	}
	var option *OptionError
	if _, _, err := Remove(context.Background(), "tpu", cache); !errors.As(err, &option) {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestPins(t *testing.T) {
	for _, s := range pinnedSets {
		if !isData(s.kind) && s.main().version != pinnedSets[0].main().version {
			t.Errorf("%s is of another XLA than %s", s.kind, pinnedSets[0].kind)
		}
		for _, w := range s.wheels {
			project, version := parseWheelName(w.file)
			if (w.maven == "") != strings.HasSuffix(w.file, ".whl") || project != w.project ||
				version != w.version || len(w.sha256) != 64 || w.size <= 0 || w.unpacked <= 0 {
				t.Errorf("pin of %s: %+v", s.kind, w)
			}
		}
		if !s.wants(s.plugin) {
			t.Errorf("%s is not unpacked", s.plugin)
		}
	}
	for file, want := range map[string]bool{
		"nvidia/cu13/lib/libcublas.so.13": true, "nvidia/cu13/bin/ptxas": true, "nvidia/cudnn/lib/libcudnn_ops.so.9": true,
		"nvidia/cu13/nvvm/libdevice/libdevice.10.bc": true, "nvidia/cu13/lib/libnvrtc-builtins.so.13.0": true,
		"nvidia_cublas-1.dist-info/licenses/License.txt": true, "nvidia/cu13/include/cuda.h": false,
		"nvidia/cu13/lib/libnvrtc.alt.so.13": false, "nvidia/cu13/bin/nvcc": false,
		"nvidia/cu13/lib/libcudart_static.a": false,
	} {
		if cudaSet.wants(file) != want {
			t.Errorf("cudaSet.wants(%q) = %t", file, !want)
		}
	}
	for _, library := range cudaLibraries {
		if !cudaSet.wants(library.path) {
			t.Errorf("%s is loaded but not unpacked", library.path)
		}
	}
	if _, err := newInstaller(InstallOptions{Kind: "tpu", Logger: slog.Default()}); err == nil {
		t.Error("a TPU plugin can be installed")
	}
}

// Data sets hold files of a Maven repository, which are kept whole, beside wheels.
func TestInstallWholeFile(t *testing.T) {
	const text = "PK and so on"
	sum := sha256.Sum256([]byte(text))
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/repo/org/x/1/x-1.jar" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}))
	defer repository.Close()
	t.Setenv(MavenEnv, repository.URL+"/repo")
	set := &pluginSet{kind: KindSPICE, platform: anyPlatform, plugin: "x-1.jar", keep: regexp.MustCompile("x"),
		wheels:   []wheel{jar("org/x/1", "x-1.jar", int64(len(text)), hex.EncodeToString(sum[:]))},
		licences: []string{"free"}}
	set.wheels[0].version = pinnedVersion(KindSPICE)
	in, err := newInstallerFor(set, InstallOptions{Kind: KindSPICE, CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	done, err := in.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(done.Plugin); err != nil || string(data) != text {
		t.Errorf("installed %q, %v", data, err)
	}
	if dir, err := CheckData(context.Background(), KindSPICE, in.o.CacheDir); err != nil || dir != done.Dir {
		t.Errorf("checked %s: %v", dir, err)
	}
	if err := os.WriteFile(done.Plugin, []byte("PK and so On"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckData(context.Background(), KindSPICE, in.o.CacheDir); err == nil ||
		!strings.Contains(err.Error(), "blip2 plugin install spice --force") {
		t.Errorf("a damaged file: %v", err)
	}
	var missing *MissingDataError
	if _, err := DataDir(KindMETEOR, in.o.CacheDir); !errors.As(err, &missing) ||
		missing.Remedy() != "blip2 plugin install meteor" {
		t.Errorf("missing data: %v", err)
	}
	t.Setenv(MavenEnv, "ftp://x")
	var option *OptionError
	if _, err := mavenURL("x"); !errors.As(err, &option) {
		t.Errorf("a repository that is none: %v", err)
	}
}
