//go:build goexperiment.simd && amd64 && unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asProgram makes the test binary start as blip2 does and print what it was started with.
const asProgram = "BLIP2_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	noPreemption()
	fmt.Printf("%s\n%s\n", os.Getenv("GODEBUG"), strings.Join(os.Args[1:], " "))
}

// TestNoPreemption: the program starts itself again with asynchronous preemption off, keeping other settings and its
// arguments, and leaves a choice of the user alone.
func TestNoPreemption(t *testing.T) {
	for given, want := range map[string]string{
		"":                            "asyncpreemptoff=1",
		"gctrace=0":                   "gctrace=0,asyncpreemptoff=1",
		"asyncpreemptoff=0":           "asyncpreemptoff=0",
		"gctrace=0,asyncpreemptoff=1": "gctrace=0,asyncpreemptoff=1",
	} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "verify", "--quiet")
		cmd.Env = append(os.Environ(), "GODEBUG="+given, asProgram+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("GODEBUG=%q: %v\n%s", given, err, out)
		}
		if got := string(out); got != want+"\nverify --quiet\n" {
			t.Errorf("GODEBUG=%q: started with %q, want %q", given, got, want)
		}
	}
}
