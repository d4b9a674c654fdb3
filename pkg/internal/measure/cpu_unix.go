//go:build unix

package measure

import (
	"syscall"
	"time"
)

// CPUSeconds returns the processor time that the process has used, all cores together, to the microsecond; 0 where the
// system does not tell. Unlike the clock it does not count what other programs take.
func CPUSeconds() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
