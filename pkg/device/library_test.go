package device

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// elfFile makes the head of an ELF file with one loaded segment of the given length.
func elfFile(t *testing.T, kind elf.Type, machine elf.Machine, segment uint64) []byte {
	t.Helper()
	const headerSize, progSize = 64, 56
	h := elf.Header64{Type: uint16(kind), Machine: uint16(machine), Version: 1, Phoff: headerSize, Ehsize: headerSize,
		Phentsize: progSize, Phnum: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	p := elf.Prog64{Type: uint32(elf.PT_LOAD), Filesz: segment, Memsz: segment}
	var b bytes.Buffer
	for _, part := range []any{h, p} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestCheckLibrary(t *testing.T) {
	here, ok := machines[runtime.GOARCH]
	if !ok {
		t.Skip("no plugins for " + runtime.GOARCH)
	}
	dir := t.TempDir()
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"good":      {elfFile(t, elf.ET_DYN, here, 100), ""},
		"truncated": {elfFile(t, elf.ET_DYN, here, 5000), "cut short: 120 bytes of at least 5000"},
		"program":   {elfFile(t, elf.ET_EXEC, here, 100), "not a shared library"},
		"other cpu": {elfFile(t, elf.ET_DYN, elf.EM_S390, 100), "another processor"},
		"text":      {[]byte("hello"), "not a shared library"},
		"empty":     {nil, "not a shared library"},
	} {
		path := writeFile(t, filepath.Join(dir, name), string(c.data))
		err := checkLibrary(path)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the file is not named in: %v", name, err)
		}
	}
	if err := checkLibrary(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if err := checkLibrary(dir); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("folder: %v", err)
	}
}

func TestVersionMismatch(t *testing.T) {
	for version, good := range map[APIVersion]bool{
		{0, 115}: true, {0, 106}: true, {0, 81}: true, {0, 200}: true, {0, 80}: false, {0, 0}: false, {1, 115}: false,
	} {
		p := &PluginInfo{Path: "/x/plugin.so", Kind: KindCPU, API: version}
		err := checkAPI(p)
		if (err == nil) != good {
			t.Errorf("version %s: %v", version, err)
		}
		if err == nil {
			continue
		}
		for _, want := range []string{"/x/plugin.so", version.String(), "0.115", "blip2 plugin install cpu"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
	}
}

func TestExplainPJRT(t *testing.T) {
	p := &PluginInfo{Path: "/x/plugin.so", Kind: kindOther, API: APIVersion{0, 130}}
	mismatch := explainPJRT(p, errors.New("PJRT error (code=3): Unexpected PJRT_Client_Create_Args size: expected 80, "+
		"got 72. Check installed software versions."))
	if s := mismatch.Error(); !strings.Contains(s, "another version") || !strings.Contains(s, "0.130") ||
		!strings.Contains(s, "expected 80") {
		t.Errorf("got %v", mismatch)
	}
	other := explainPJRT(p, errors.New("PJRT error (code=8): out of memory"))
	if s := other.Error(); !strings.Contains(s, "/x/plugin.so") || !strings.Contains(s, "out of memory") ||
		strings.Contains(s, "version") {
		t.Errorf("got %v", other)
	}
}

func TestSiteOf(t *testing.T) {
	site := t.TempDir()
	plugin := writeFile(t, filepath.Join(site, "jax_plugins", "xla_cuda13", "xla_cuda_plugin.so"), "")
	if got := siteOf(plugin); got != "" {
		t.Errorf("without nvidia/: %q", got)
	}
	writeFile(t, filepath.Join(site, "nvidia", "cu13", "lib", "libcudart.so.13"), "")
	if got := siteOf(plugin); got != site {
		t.Errorf("siteOf = %q, want %q", got, site)
	}
	link := filepath.Join(t.TempDir(), "plugin.so")
	if err := os.Symlink(plugin, link); err != nil {
		t.Fatal(err)
	}
	if got, err := filepath.EvalSymlinks(site); err != nil || siteOf(link) != got {
		t.Errorf("through a link: %q, want %q (%v)", siteOf(link), got, err)
	}
}
