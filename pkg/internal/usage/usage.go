// Package usage tells what the process has used: memory and processor time.
package usage

import (
	"os"
	"strconv"
	"strings"
)

// PeakMemory returns the most host memory in bytes that the process has held since it started or since
// ResetPeakMemory; 0 where the system does not tell.
func PeakMemory() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return parsePeakMemory(string(text))
}

// parsePeakMemory reads the line "VmHWM:  1234 kB" of Linux's /proc/PID/status.
func parsePeakMemory(status string) uint64 {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kilobytes, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return 0
		}
		return kilobytes << 10
	}
	return 0
}

// ResetPeakMemory starts the high-water mark anew from what the process holds now (proc(5), clear_refs). Where that
// is not allowed the mark stays, and a later PeakMemory is an upper bound.
func ResetPeakMemory() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// CPUSeconds returns the processor time that the process has used, all cores together; 0 where the system does not
// tell. Unlike the clock it does not count what other programs take.
func CPUSeconds() float64 {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	return parseCPUSeconds(string(text))
}

// ticksPerSecond is the unit of Linux's /proc/PID/stat on every architecture that Go supports.
const ticksPerSecond = 100

// parseCPUSeconds adds up utime and stime of Linux's /proc/PID/stat (fields 14 and 15). The second field is the
// program's name in parentheses, which may hold anything, so fields are counted from its end.
func parseCPUSeconds(stat string) float64 {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0
	}
	total := 0.0
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0
		}
		total += float64(ticks)
	}
	return total / ticksPerSecond
}
