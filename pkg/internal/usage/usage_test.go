package usage

import (
	"os"
	"testing"
)

func TestParsePeakMemory(t *testing.T) {
	for _, tt := range []struct {
		status string
		want   uint64
	}{
		{"Name:\tblip2\nVmPeak:\t  999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t  1000 kB\n", 1234 << 10},
		{"Name:\tblip2\n", 0},
		{"VmHWM:\t many kB\n", 0},
	} {
		if got := parsePeakMemory(tt.status); got != tt.want {
			t.Errorf("parsePeakMemory(%q) = %d, want %d", tt.status, got, tt.want)
		}
	}
}

func TestParseCPUSeconds(t *testing.T) {
	const head = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 "
	for _, tt := range []struct {
		stat string
		want float64
	}{
		{head + "150 25 7 9 20 0 1 0", 1.75}, // utime 1.5 s, stime 0.25 s; the children's follow
		{head + "150", 0},
		{"", 0},
	} {
		if got := parseCPUSeconds(tt.stat); got != tt.want {
			t.Errorf("parseCPUSeconds(%q) = %g, want %g", tt.stat, got, tt.want)
		}
	}
}

// TestPeakMemory touches 64 MB and looks for them, and that the mark comes down again.
func TestPeakMemory(t *testing.T) {
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skipf("this system has no high-water mark of memory: %v", err)
	}
	ResetPeakMemory()
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
