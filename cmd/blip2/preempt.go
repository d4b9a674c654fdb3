//go:build goexperiment.simd && amd64 && unix

package main

import (
	"os"
	"strings"
	"syscall"
)

// noPreemption turns off the runtime's asynchronous preemption, by starting the program again with it in GODEBUG, the
// only place where it can be set.
//
// The runtime of Go 1.26 saves and restores whole vector registers around an asynchronous preemption, which leaves
// their upper halves marked as in use. From then on every switch between old and new vector instructions costs tens
// of cycles on some processors, and math.Exp switches with every operation: 600 ns instead of 6 measured on an
// AVX-512 Xeon, a whole training step on the Go backend 2 to 4 times slower. What fails here is only slow: it is
// ignored.
func noPreemption() {
	const setting = "asyncpreemptoff="
	debug := os.Getenv("GODEBUG")
	if strings.Contains(debug, setting) {
		return
	}
	self, err := os.Executable()
	if err != nil {
		return
	}
	if debug != "" {
		debug += ","
	}
	env := []string{"GODEBUG=" + debug + setting + "1"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "GODEBUG=") {
			env = append(env, entry)
		}
	}
	_ = syscall.Exec(self, os.Args, env)
}
