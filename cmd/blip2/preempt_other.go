//go:build !(goexperiment.simd && amd64 && unix)

package main

// noPreemption has nothing to do: without the SIMD kernels preemption costs nothing.
func noPreemption() {}
