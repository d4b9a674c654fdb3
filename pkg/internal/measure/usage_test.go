package measure

import (
	"os"
	"testing"
	"time"
)

func TestParseKilobytes(t *testing.T) {
	for _, tt := range []struct {
		status string
		want   uint64
	}{
		{"Name:\tblip2\nVmPeak:\t  999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t  1000 kB\n", 1234 << 10},
		{"Name:\tblip2\n", 0},
		{"VmHWM:\t many kB\n", 0},
	} {
		if got := parseKilobytes(tt.status, "VmHWM:"); got != tt.want {
			t.Errorf("parseKilobytes(%q) = %d, want %d", tt.status, got, tt.want)
		}
	}
}

// TestCPUSeconds: work shows in the processor time, however little it is.
func TestCPUSeconds(t *testing.T) {
	before := CPUSeconds()
	if before == 0 {
		t.Skip("this system does not tell")
	}
	sum := 0
	for i := range 20_000_000 {
		sum += i & 7
	}
	if took := CPUSeconds() - before; took <= 0 || took > 10 {
		t.Errorf("adding up to %d took %g s", sum, took)
	}
}

// TestPeakMemory touches 64 MB and looks for them, and that the mark comes down again.
func TestPeakMemory(t *testing.T) {
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skipf("this system has no high-water mark of memory: %v", err)
	}
	if err := ResetPeakMemory(); err != nil {
		t.Skipf("the high-water mark cannot be reset: %v", err)
	}
	before := PeakMemory()
	const size = 64 << 20
	block := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	if after := PeakMemory(); after < before+size/2 {
		t.Errorf("peak went from %d to %d bytes over a block of %d", before, after, size+int(block[0])-1)
	}
}

func TestParseMemory(t *testing.T) {
	for _, tt := range []struct {
		statm string
		want  Memory
	}{
		{"900 50 20 10 0 70 0\n", Memory{Total: 50 * 4096, Anon: 30 * 4096, File: 20 * 4096}},
		{"900 50\n", Memory{}},
		{"900 x 20\n", Memory{}},
		{"900 20 50\n", Memory{}},
	} {
		if got := parseMemory(tt.statm, 4096); got != tt.want {
			t.Errorf("parseMemory(%q) = %v, want %v", tt.statm, got, tt.want)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct{ machine, limit, used, want uint64 }{
		{machine: 100, limit: 1000, used: 10, want: 100},
		{machine: 100, limit: 60, used: 10, want: 50},
		{machine: 100, limit: 60, used: 70, want: 0}, // a limit that was lowered
	} {
		if got := within(tt.machine, tt.limit, tt.used); got != tt.want {
			t.Errorf("within(%d, %d, %d) = %d, want %d", tt.machine, tt.limit, tt.used, got, tt.want)
		}
	}
}

// TestWatch touches 64 MB of its own while a watch runs.
func TestWatch(t *testing.T) {
	if MemoryNow().Total == 0 {
		t.Skip("this system does not tell a process's memory")
	}
	const size = 64 << 20
	before := MemoryNow()
	w := StartWatch()
	block := make([]byte, size)
	for i := range block {
		block[i] = 1
	}
	time.Sleep(10 * sampleEvery)
	peak := w.Stop()
	if peak.Anon < before.Anon+size/2 || peak.Total < before.Total+size/2 {
		t.Errorf("before %+v, peak %+v over a block of %d", before, peak, len(block))
	}
	if peak.File > before.File+size/2 {
		t.Errorf("the block counts as a file: before %+v, peak %+v", before, peak)
	}
}
