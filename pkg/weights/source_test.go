package weights

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// put writes a file and returns its path.
func put(t testing.TB, dir, name string, contents []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, contents, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// encoded is a safetensors file of the tensors.
func encoded(t testing.TB, tensors ...Tensor) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Encode(&buf, tensors, nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// torchOf is a PyTorch file with one tensor of 4 elements: 1, 2, 3, 4.
func torchOf(name string) []byte { return torchZip(pickleOf(dict(str(name), vector("0", 4)))) }

func TestOpenAny(t *testing.T) {
	safe := func(name string) []byte { return encoded(t, FromFloat32(name, []int{1}, []float32{5})) }
	legacy := torchLegacy(pickleOf(dict(str("l"), vector("k", 1))), pickleOf(list(str("k"))),
		elementsOf(1, "\x00\x00\x00\x40"))
	const shards = `{"weight_map": {"s": "one.bin", "w": "two.bin", "l": "three.safetensors"}}`
	mixed := map[string][]byte{"one.bin": safe("s"), "two.bin": torchOf("w"), "three.safetensors": legacy}
	with := func(files map[string][]byte, name string, contents []byte) map[string][]byte {
		out := map[string][]byte{name: contents}
		for n, c := range files {
			out[n] = c
		}
		return out
	}
	for _, c := range []struct {
		name, open string // what to open in the folder, "" the folder itself
		files      map[string][]byte
		names      string
		container  string
	}{
		{"safetensors under another name", "model.bin", map[string][]byte{"model.bin": safe("s")}, "s", "safetensors"},
		{"zip under another name", "x.safetensors", map[string][]byte{"x.safetensors": torchOf("w")}, "w", "PyTorch zip"},
		{"legacy", "x.pt", map[string][]byte{"x.pt": legacy}, "l", "PyTorch legacy"},
		{"safetensors index", "my.index.json", with(mixed, "my.index.json", []byte(shards)), "l s w",
			"safetensors and PyTorch legacy and PyTorch zip, 3 shards"},
		{"index behind a byte order mark", "i.json", with(mixed, "i.json", []byte(" \n"+shards)), "l s w",
			"safetensors and PyTorch legacy and PyTorch zip, 3 shards"},
		{"folder: safetensors", "", map[string][]byte{SingleFile: safe("s"), TorchFile: torchOf("w")}, "s", "safetensors"},
		{"folder: safetensors index", "", map[string][]byte{
			IndexFile: []byte(`{"weight_map": {"a": "a", "b": "b"}}`), "a": safe("a"), "b": safe("b"), TorchFile: torchOf("w"),
		}, "a b", "safetensors, 2 shards"},
		{"folder: PyTorch", "", map[string][]byte{TorchFile: torchOf("w")}, "w", "PyTorch zip"},
		{"folder: PyTorch index", "", with(mixed, TorchIndexFile, []byte(shards)), "l s w",
			"safetensors and PyTorch legacy and PyTorch zip, 3 shards"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			size := int64(0)
			for name, contents := range c.files {
				put(t, dir, name, contents)
			}
			path := filepath.Join(dir, c.open)
			s, err := OpenAny(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := strings.Join(s.Names(), " "); got != c.names || s.Container() != c.container {
				t.Errorf("names %s, container %s", got, s.Container())
			}
			for _, f := range s.Files() {
				if f.Size != int64(len(c.files[filepath.Base(f.Path)])) {
					t.Errorf("%s has %d bytes", f.Path, f.Size)
				}
				size += f.Size
			}
			if size == 0 || s.Has("nosuch") || !s.Has(s.Names()[0]) || !strings.HasPrefix(s.Path(), dir) {
				t.Errorf("%d bytes, path %s", size, s.Path())
			}
			readAll(t, s)
			s.Drop("nosuch")
			if _, err := s.Tensor("nosuch"); err == nil || !strings.Contains(err.Error(), `no tensor "nosuch"`) ||
				!strings.HasPrefix(err.Error(), path) {
				t.Errorf("missing tensor: %v", err)
			}
		})
	}
}

func TestOpenAnyRefuses(t *testing.T) {
	tar := make([]byte, 512)
	copy(tar, "model.bin")
	copy(tar[257:], "ustar")
	for _, c := range []struct{ name, contents, want string }{
		{"empty", "", "the file is empty: download it again"},
		{"LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 42\n", "a Git LFS pointer, not the weights"},
		{"HTML", "<!DOCTYPE html>\n<html lang=\"en\">", "an HTML page saved in place of the weights"},
		{"HTML with spaces", "\ufeff \r\n\t<HTML><head>", "an HTML page saved in place of the weights"},
		{"XML", "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML or HTML text"},
		{"JSON error", `{"error": "Repository not found"}`, "has no weight_map, so it is not an index of shards"},
		{"broken JSON", `{"weight_map": {`, "not JSON"},
		{"gzip", "\x1f\x8b\x08\x00", "a gzip archive: unpack it"},
		{"tar", string(tar), "a tar archive: unpack it"},
		{"HDF5", "\x89HDF\r\n\x1a\n", "an HDF5 file"},
		{"GGUF", "GGUF\x03\x00\x00\x00", "a GGUF file"},
		{"NumPy", "\x93NUMPY\x01\x00", "a NumPy array"},
		{"text", "Not Found", "not a safetensors file"},
		{"short", "PK", "not a safetensors file: it has 2 bytes"},
		{"zip", "PK\x03\x04....", "a zip archive that is cut off or damaged"},
		{"pickle", "\x80\x04N.", "a pickle, but not of PyTorch"},
		{"damaged safetensors", "\x08\x00\x00\x00\x00\x00\x00\x00{      }", "truncated: the header needs 16"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "damaged safetensors" {
				c.contents = c.contents[:len(c.contents)-1]
			}
			dir := t.TempDir()
			path := put(t, dir, "pytorch_model-00001-of-00001.bin", []byte(c.contents))
			for _, open := range []func(string) (Source, error){OpenAny, openOne} {
				s, err := open(path)
				if err == nil {
					s.Close()
					t.Fatal("accepted")
				}
				if !strings.HasPrefix(err.Error(), path+": ") {
					t.Errorf("got %v\nwant the path first", err)
				}
			}
			if _, err := OpenAny(path); !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			// As a shard: neither an index inside an index nor anything else that is not weights.
			put(t, dir, TorchIndexFile, []byte(`{"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}`))
			if _, err := OpenAny(dir); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("as a shard: %v", err)
			}
		})
	}
}

func TestOpenAnyWrongPath(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenAny(filepath.Join(dir, "nosuch")); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "nosuch") {
		t.Errorf("missing path: %v", err)
	}
	if _, err := OpenTorch(filepath.Join(dir, "nosuch.pth")); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "nosuch.pth") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenTorch(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder as a file: %v", err)
	}
	if _, err := OpenTorch("testdata/reference.safetensors"); err == nil ||
		!strings.Contains(err.Error(), "not a PyTorch file") {
		t.Errorf("safetensors as PyTorch: %v", err)
	}
	if _, err := OpenAny(dir); err == nil || !strings.Contains(err.Error(), "has neither model.safetensors nor "+
		"model.safetensors.index.json nor pytorch_model.bin nor pytorch_model.bin.index.json") {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, TorchFile), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAny(dir); err == nil || !strings.Contains(err.Error(), "pytorch_model.bin: not a regular file") {
		t.Errorf("folder in place of a file: %v", err)
	}
}

// TestIndexInCircles: an index that lists itself or another index.
func TestIndexInCircles(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, IndexFile, []byte(`{"weight_map": {"w": "model.safetensors.index.json"}}`))
	if _, err := OpenAny(dir); err == nil || !strings.Contains(err.Error(), "a JSON file in place of weights") {
		t.Errorf("got %v", err)
	}
	put(t, dir, IndexFile, []byte(`{"weight_map": {"w": "other.json"}}`))
	put(t, dir, "other.json", []byte(`{"weight_map": {"w": "model.safetensors.index.json"}}`))
	if _, err := OpenAny(dir); err == nil ||
		!strings.Contains(err.Error(), "other.json: a JSON file in place of weights") {
		t.Errorf("got %v", err)
	}
}

// TestShardsMayBeLinks, as in the cache of the Hugging Face hub.
func TestShardsMayBeLinks(t *testing.T) {
	dir := t.TempDir()
	blob := put(t, t.TempDir(), "0123456789abcdef", torchOf("w"))
	if err := os.Symlink(blob, filepath.Join(dir, "a.bin")); err != nil {
		t.Skip(err)
	}
	put(t, dir, TorchIndexFile, []byte(`{"metadata": {}, "weight_map": {"w": "a.bin"}}`))
	s, err := OpenAny(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !slices.Equal(s.Names(), []string{"w"}) {
		t.Errorf("names %v", s.Names())
	}
}

// TestDropGivesMemoryBack reads a file of 64 MB and watches what the process has in memory.
func TestDropGivesMemoryBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	const elems = 16 << 20
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := Write(path, []Tensor{FromFloat32("small", []int{1}, []float32{7}),
		FromFloat32("large", []int{elems}, make([]float32, elems))}, nil); err != nil {
		t.Fatal(err)
	}
	s, err := OpenAny(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tensor, err := s.Tensor("large")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, b := range tensor.Data {
		sum += int(b)
	}
	before := residentFile(t)
	s.Drop("large")
	if after := residentFile(t); sum != 0 || before-after < 4*elems*9/10 {
		t.Errorf("mapped files took %d bytes before and %d after", before, after)
	}
	if tensor.Data[len(tensor.Data)-1] != 0 {
		t.Error("the data changed")
	}
}

// residentFile returns how much of mapped files the process has in memory.
func residentFile(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kb := 0
			for _, c := range rest {
				if c >= '0' && c <= '9' {
					kb = 10*kb + int(c-'0')
				}
			}
			return kb << 10
		}
	}
	t.Skip("no RssFile")
	return 0
}
