package device

import (
	"regexp"
	"strings"
)

// wheel is a file on PyPI, or in a Maven repository, that a plugin is made of.
type wheel struct {
	project string // name on PyPI
	maven   string // path in a Maven repository instead; such a file is kept whole
	version string
	file    string
	size    int64 // bytes
	sha256  string
	// unpacked is how many bytes of the wheel are kept after unpacking, for the free-space check.
	unpacked int64
}

// pluginSet is the pinned list of wheels of one kind of plugin on one platform.
type pluginSet struct {
	kind     string
	platform string // GOOS/GOARCH, or anyPlatform
	plugin   string // path of the plugin inside the unpacked wheels; files keep the paths they have there
	wheels   []wheel
	keep     *regexp.Regexp // files to unpack, by path in the wheel
	drop     *regexp.Regexp // exceptions from keep; may be nil
	licences []string       // what a user must know before using it
}

// wants says whether a file of a wheel is unpacked.
func (s *pluginSet) wants(name string) bool {
	return s.keep.MatchString(name) && (s.drop == nil || !s.drop.MatchString(name))
}

// main is the wheel that holds the plugin; its version names the set.
func (s *pluginSet) main() wheel { return s.wheels[0] }

// pinnedSets are the plugins and data this program was tested with. The two plugins are built from the same XLA (that
// of jaxlib 0.11.2). Raise both together and run "blip2 plugin check" and "blip2 verify" on each.
var pinnedSets = []*pluginSet{cpuSet, cudaSet, meteorSet, spiceSet}

var cpuSet = &pluginSet{
	kind: KindCPU, platform: "linux/amd64",
	plugin: "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so",
	keep:   regexp.MustCompile(`\.so$|/licenses/|\.dist-info/METADATA$`),
	wheels: []wheel{{
		project: "lammps-jax-pjrt-cpu", version: "0.11.2",
		file: "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl", size: 62711338,
		sha256:   "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
		unpacked: 201600336 + 11356 + 251851 + 672,
	}},
}

// setFor returns the pinned set of a kind for this platform, or nil.
func setFor(kind string) *pluginSet {
	for _, s := range pinnedSets {
		if s.kind == kind && fits(s.platform) {
			return s
		}
	}
	return nil
}

// pinnedVersion is the version of a kind that this program loads, the same on every platform.
func pinnedVersion(kind string) string {
	for _, s := range pinnedSets {
		if s.kind == kind {
			return s.main().version
		}
	}
	return ""
}

// normalProject spells a project's name as PyPI does in its index: lower case, runs of - _ . as one -.
func normalProject(name string) string {
	return strings.ToLower(separators.ReplaceAllString(name, "-"))
}

var separators = regexp.MustCompile(`[-_.]+`)
