package device

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
)

// Names of the backends as users write them.
const (
	backendAuto = "auto"
	backendGo   = "go"
	backendCPU  = "xla:cpu"
	backendCUDA = "xla:cuda"
	xlaPrefix   = "xla:"
)

// Kinds of plugin.
const (
	KindCPU   = "cpu"
	KindCUDA  = "cuda"
	kindOther = "other"
)

// OptionError says that an option has a value that is not allowed. Commands report it as wrong usage.
type OptionError struct {
	Option string // name of the option: backend, dtype, devices, ...
	Value  string // what was given
	Reason string // what is allowed, or why it is refused
}

// Error names the option, the value and what is allowed.
func (e *OptionError) Error() string { return fmt.Sprintf("%s %q: %s", e.Option, e.Value, e.Reason) }

// Backends returns the backends a user can name, in the order in which help should list them.
func Backends() []string {
	return []string{backendGo, backendCPU, backendCUDA, "xla:/path/plugin.so", backendAuto}
}

// aliases are names that people type for lack of ours; they are suggested, not accepted, so that a config has one
// spelling only.
var aliases = map[string]string{
	"cpu": backendCPU, "xla": backendCPU, "xla:host": backendCPU, "pjrt": backendCPU,
	"gpu": backendCUDA, "cuda": backendCUDA, "xla:gpu": backendCUDA, "nvidia": backendCUDA,
	"golang": backendGo, "simplego": backendGo, "native": backendGo,
}

// ParseBackend checks the name of a backend and returns it in its one spelling: "" is auto, paths are cleaned.
// An unknown name is an *OptionError that lists the valid ones and the nearest.
func ParseBackend(name string) (string, error) {
	low := strings.ToLower(strings.TrimSpace(name))
	switch low {
	case "", backendAuto:
		return backendAuto, nil
	case backendGo, backendCPU, backendCUDA:
		return low, nil
	}
	if strings.HasPrefix(low, backendGo+":") {
		return low, nil
	}
	path, isXLA := strings.CutPrefix(strings.TrimSpace(name), xlaPrefix)
	if isXLA && filepath.IsAbs(path) {
		return xlaPrefix + filepath.Clean(path), nil
	}
	if isXLA && (strings.ContainsRune(path, filepath.Separator) || strings.HasSuffix(path, ".so")) {
		return "", &OptionError{"backend", name, "the plugin's path must be absolute, as in xla:/path/plugin.so"}
	}
	valid := "valid backends: " + strings.Join(Backends(), ", ")
	if near := nearest(low); near != "" {
		valid = "did you mean " + near + "? (" + valid + ")"
	}
	return "", &OptionError{"backend", name, "unknown; " + valid}
}

// nearest returns the backend most like name, or "" if none is close.
func nearest(name string) string {
	if to, ok := aliases[name]; ok {
		return to
	}
	best, bestDistance := "", 3
	for _, candidate := range []string{backendGo, backendCPU, backendCUDA, backendAuto} {
		// A distance of half the name or more is no resemblance.
		if d := editDistance(name, candidate); d < bestDistance && 2*d <= len(candidate) {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// editDistance is the number of single-letter insertions, removals and changes between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// kindOf returns the kind of plugin that a parsed XLA backend name asks for. A path is judged by its file name: the
// options a plugin accepts differ by kind, and it refuses those it does not know.
func kindOf(name string) string {
	switch name {
	case backendCPU:
		return KindCPU
	case backendCUDA:
		return KindCUDA
	}
	base := strings.ToLower(filepath.Base(strings.TrimPrefix(name, xlaPrefix)))
	switch {
	case strings.Contains(base, "cuda") || strings.Contains(base, "gpu"):
		return KindCUDA
	case strings.Contains(base, "cpu"):
		return KindCPU
	}
	return kindOther
}

// allocators are the values that the CUDA plugin's option of that name takes.
var allocators = []string{"default", "bfc", "cuda_async", "platform", "vmm"}

// validate checks the options that do not depend on the backend.
func (o Options) validate() error {
	if o.Devices < 0 {
		return &OptionError{"devices", fmt.Sprint(o.Devices), "must be 0 or more"}
	}
	if o.MemoryFraction < 0 || o.MemoryFraction > 1 {
		return &OptionError{"memory_fraction", fmt.Sprint(o.MemoryFraction), "must be above 0 and at most 1"}
	}
	if o.Allocator != "" && !slices.Contains(allocators, o.Allocator) {
		return &OptionError{"allocator", o.Allocator, "must be one of " + strings.Join(allocators, ", ")}
	}
	for _, id := range o.VisibleDevices {
		if id < 0 {
			return &OptionError{"visible_devices", fmt.Sprint(id), "GPUs are numbered from 0"}
		}
	}
	_, err := parseDType(o.DType)
	return err
}

// DTypePolicy says which number types the model uses on a device. Softmax, LayerNorm statistics and losses are always
// computed in f32, whatever it says.
type DTypePolicy struct {
	// Compute is the type of activations and matrix products.
	Compute dtypes.DType
	// Frozen is the type in which frozen towers are stored on the device.
	Frozen dtypes.DType
	// Params is the type of trained weights and optimizer slots: always f32.
	Params dtypes.DType
}

// String returns for example "compute bf16, frozen bf16, params f32".
func (p DTypePolicy) String() string {
	return fmt.Sprintf("compute %s, frozen %s, params %s", shortDType(p.Compute), shortDType(p.Frozen),
		shortDType(p.Params))
}

// shortDType returns the name of a type as options write it.
func shortDType(d dtypes.DType) string {
	switch d {
	case dtypes.Float32:
		return "f32"
	case dtypes.BFloat16:
		return "bf16"
	case dtypes.Float16:
		return "f16"
	}
	return d.String()
}

// parseDType reads auto (returned as InvalidDType), f32, bf16 or f16.
func parseDType(s string) (dtypes.DType, error) {
	switch strings.ToLower(s) {
	case "", "auto":
		return dtypes.InvalidDType, nil
	case "f32", "float32":
		return dtypes.Float32, nil
	case "bf16", "bfloat16":
		return dtypes.BFloat16, nil
	case "f16", "fp16", "float16":
		return dtypes.Float16, nil
	}
	return dtypes.InvalidDType, &OptionError{"dtype", s, "must be auto, f32, bf16 or f16"}
}

// policyFor returns the number types for a backend: f32 on processors, bf16 on CUDA, or what forced says.
func policyFor(name, kind, forced string) (DTypePolicy, error) {
	compute, err := parseDType(forced)
	if err != nil {
		return DTypePolicy{}, err
	}
	switch {
	case compute == dtypes.InvalidDType && kind == KindCUDA:
		compute = dtypes.BFloat16
	case compute == dtypes.InvalidDType:
		compute = dtypes.Float32
	case compute != dtypes.Float32 && name == backendGo:
		return DTypePolicy{}, &OptionError{"dtype", forced, "the Go backend multiplies 16-bit matrices some hundred " +
			"times slower than f32 ones and lacks 16-bit softmax and LayerNorm; use f32 or auto, or an XLA backend"}
	}
	return DTypePolicy{Compute: compute, Frozen: compute, Params: dtypes.Float32}, nil
}
