package cli

import (
	"blip2/pkg/internal/measure"
	"fmt"
	"os"
	"slices"
	"strings"
)

// benchMachine is what a measurement must say about the machine.
type benchMachine struct {
	CPU   string   `json:"cpu"`     // as the system calls it; empty if it does not tell
	Cores int      `json:"cores"`   // that this process may use at once
	SIMD  []string `json:"simd"`    // vector instructions that matter to matrix products
	Load  string   `json:"loadavg"` // over 1, 5 and 15 minutes, before the measurement
}

// thisMachine reads what Linux tells; elsewhere the fields are empty.
func thisMachine() benchMachine {
	m := benchMachine{Cores: measure.Processors}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU, m.SIMD = parseCPUInfo(string(text))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 3 {
			m.Load = strings.Join(fields[:3], " ")
		}
	}
	return m
}

// parseCPUInfo reads the first processor of Linux's /proc/cpuinfo.
func parseCPUInfo(text string) (model string, simd []string) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			if model != "" || simd != nil {
				break // the next processor is the same
			}
			continue
		}
		switch strings.TrimSpace(key) {
		case "model name":
			model = strings.TrimSpace(value)
		case "flags", "Features":
			flags := strings.Fields(value)
			for _, name := range []string{"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve"} {
				if slices.Contains(flags, name) {
					simd = append(simd, name)
				}
			}
		}
	}
	return model, simd
}

// String returns for example "Intel Xeon (avx2 avx512f), 2 cores, load 0.5 0.4 0.3".
func (m benchMachine) String() string {
	name := m.CPU
	if name == "" {
		name = "unknown processor"
	}
	if len(m.SIMD) > 0 {
		name += " (" + strings.Join(m.SIMD, " ") + ")"
	}
	name += fmt.Sprintf(", %d cores", m.Cores)
	if m.Load != "" {
		name += ", load " + m.Load
	}
	return name
}
