package device

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// PJRT interface versions. go-xla v0.4.2 is written against 0.104; plugins of 0.81, 0.106 and 0.115 were seen to work
// with it, older ones lack functions that it calls.
var (
	pinnedAPI = APIVersion{0, 115}
	oldestAPI = APIVersion{0, 81}
)

// machines are the ELF machine types of the processors that Go calls by these names.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkLibrary refuses a file that the dynamic linker would choke on: it kills the process on a truncated library,
// and its messages do not say what to do.
func checkLibrary(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("shared library: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a folder; name the .so file in it", path)
	}
	f, err := elf.Open(path)
	if err != nil {
		if _, isPath := err.(*fs.PathError); isPath {
			return fmt.Errorf("shared library: %w", err)
		}
		return fmt.Errorf("%s is not a shared library, or is cut short: %d bytes (%w)", path, info.Size(), err)
	}
	defer f.Close()
	if f.Type != elf.ET_DYN {
		return fmt.Errorf("%s is an ELF file but not a shared library", path)
	}
	if want := machines[runtime.GOARCH]; f.Machine != want {
		return fmt.Errorf("%s is for another processor: %s, this program needs %s", path, f.Machine, want)
	}
	for _, segment := range f.Progs {
		if end := segment.Off + segment.Filesz; segment.Type == elf.PT_LOAD && end > uint64(info.Size()) {
			return fmt.Errorf("%s is cut short: %d bytes of at least %d; install it again", path, info.Size(), end)
		}
	}
	return nil
}

// checkAPI refuses a plugin whose interface go-xla cannot speak.
func checkAPI(p *PluginInfo) error {
	v := p.API
	if v.Major == pinnedAPI.Major && v.Minor >= oldestAPI.Minor {
		return nil
	}
	return versionError(p, "")
}

// versionError says which version of the interface was found, which was expected, and what to do.
func versionError(p *PluginInfo, detail string) error {
	remedy := "install the plugin that this program was tested with: blip2 plugin install cpu (or cuda)"
	if p.Kind == KindCPU || p.Kind == KindCUDA {
		remedy = fmt.Sprintf("install the plugin that this program was tested with (blip2 plugin install %s) and use "+
			"--backend xla:%s", p.Kind, p.Kind)
	}
	if detail != "" {
		detail = " (" + detail + ")"
	}
	return fmt.Errorf("PJRT plugin %s is of another version: its interface is %s, this program works with %s, "+
		"at least %s%s; %s", p.Path, p.API, pinnedAPI, oldestAPI, detail, remedy)
}

// explainPJRT adds what the user needs to an error of go-xla or of the plugin. A plugin that was built for another
// interface refuses structs that are smaller than its own, in words that name only the struct.
func explainPJRT(p *PluginInfo, err error) error {
	message := strings.TrimSpace(err.Error())
	mismatch := strings.Contains(message, "struct_size") || strings.Contains(message, "software versions") ||
		strings.Contains(message, "_Args") && strings.Contains(message, "size")
	if mismatch {
		return versionError(p, message)
	}
	return fmt.Errorf("PJRT plugin %s: %w", p.Path, err)
}
