package measure

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// PeakMemory returns the most host memory in bytes that the process has held since it started or since ResetPeakMemory;
// 0 where the system does not tell.
func PeakMemory() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return parseKilobytes(string(text), "VmHWM:")
}

// parseKilobytes reads a line such as "VmHWM:  1234 kB" of Linux's /proc/PID/status or /proc/meminfo; 0 if there is
// none.
func parseKilobytes(text, key string) uint64 {
	for line := range strings.Lines(text) {
		value, ok := strings.CutPrefix(line, key)
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

// ResetPeakMemory starts the high-water mark anew from what the process holds now (proc(5), clear_refs). Where that is
// not allowed it returns an error and the mark stays: a later PeakMemory is an upper bound.
func ResetPeakMemory() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// Memory is what a process holds of the host's memory, in bytes; zeros where the system does not tell. Pages of mapped
// files count too, although the system takes them back when it needs them.
type Memory struct {
	Total uint64 `json:"total"` // resident set
	Anon  uint64 `json:"anon"`  // the process's own
	File  uint64 `json:"file"`  // pages of mapped files, program and libraries included, and shared memory
}

// MemoryNow returns what the process holds at the moment.
func MemoryNow() Memory {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return Memory{}
	}
	return parseMemory(string(text), uint64(os.Getpagesize()))
}

// parseMemory reads Linux's /proc/PID/statm: pages of address space, resident ones, and among these the shared.
func parseMemory(statm string, page uint64) Memory {
	fields := strings.Fields(statm)
	if len(fields) < 3 {
		return Memory{}
	}
	total, errTotal := strconv.ParseUint(fields[1], 10, 64)
	file, errFile := strconv.ParseUint(fields[2], 10, 64)
	if errors.Join(errTotal, errFile) != nil || file > total {
		return Memory{}
	}
	return Memory{Total: total * page, Anon: (total - file) * page, File: file * page}
}

// AvailableMemory returns how much more memory in bytes the process can get without swapping: what the machine can give
// to programs, and in a container with a limit no more than is left of that; 0 where the system does not tell.
func AvailableMemory() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	machine := parseKilobytes(string(text), "MemAvailable:")
	limit, err := memlimit.FromCgroup()
	if err != nil { // there is none
		return machine
	}
	return within(machine, limit, MemoryNow().Anon)
}

// within is what is left of a machine's memory under a limit of which some is used. Files that are mapped do not count:
// the system drops their pages when it needs them.
func within(machine, limit, used uint64) uint64 {
	return min(machine, limit-min(used, limit))
}

// sampleEvery is how often a Watch looks: a loader that copies a few gigabytes a second moves some 10 MB meanwhile.
const sampleEvery = 2 * time.Millisecond

// Watch follows the memory of the process until Stop. Only one may run at a time, because they share the high-water
// mark.
type Watch struct {
	exact bool // the mark could be reset, so that it is that of this watch
	stop  chan struct{}
	done  sync.WaitGroup
	peak  Memory // of the samples; the goroutine's until done
}

// StartWatch starts a watch.
func StartWatch() *Watch {
	w := &Watch{exact: ResetPeakMemory() == nil, stop: make(chan struct{}), peak: MemoryNow()}
	w.done.Go(func() {
		ticks := time.NewTicker(sampleEvery)
		defer ticks.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-ticks.C:
				w.sample()
			}
		}
	})
	return w
}

// sample takes the present memory into account. Peaks of the parts need not be those of one moment.
func (w *Watch) sample() {
	now := MemoryNow()
	w.peak.Total = max(w.peak.Total, now.Total)
	w.peak.Anon = max(w.peak.Anon, now.Anon)
	w.peak.File = max(w.peak.File, now.File)
}

// Stop ends the watch and returns the most memory since its start, each part by itself. Total is the system's own
// high-water mark where that can be reset, else the largest of the samples, as Anon and File always are.
func (w *Watch) Stop() Memory {
	close(w.stop)
	w.done.Wait()
	w.sample()
	if w.exact {
		w.peak.Total = max(w.peak.Total, PeakMemory())
	}
	return w.peak
}
