//go:build !unix

package measure

// CPUSeconds returns the processor time that the process has used, all cores together; 0, as this system does not tell.
func CPUSeconds() float64 { return 0 }
