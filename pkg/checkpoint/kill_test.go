package checkpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childVar names what a copy of the test binary does instead of running tests; its value is "MODE RUNDIR".
const childVar = "BLIP2_CHECKPOINT_TEST_CHILD"

func TestMain(m *testing.M) {
	mode, runDir, ok := strings.Cut(os.Getenv(childVar), " ")
	if !ok {
		os.Exit(m.Run())
	}
	err := errors.New("unknown mode " + mode)
	switch mode {
	case "save", "background":
		err = saveForever(runDir, mode == "background")
	case "limited":
		err = saveLimited(runDir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child starts a copy of this test binary in a mode.
func child(t *testing.T, mode, runDir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childVar+"="+mode+" "+runDir)
	return cmd
}

// saveForever resumes like a trainer and then saves step after step, each a few times, until it is killed. It prints
// every step that is on disk.
func saveForever(runDir string, background bool) error {
	const values = 50_000 // three tensors of 200 kB: long enough to be killed in
	l, skipped, err := LoadLatest(runDir)
	step := 0
	switch {
	case errors.Is(err, ErrNone) && len(skipped) == 0:
	case err != nil:
		return err
	default:
		if err := errors.Join(checkConsistent(l), l.Close()); err != nil {
			return err
		}
		step = l.Step
	}
	policy := Policy{KeepLast: 2}
	w := StartWriter(context.Background(), runDir, WriterOptions{Policy: policy, OnSaved: func(s Saved) {
		fmt.Println(s.Step)
	}})
	for {
		step++
		for attempt := range 1 + step%3 {
			s := snapshot(step, attempt, values)
			if background {
				if err := w.Enqueue(s); err != nil {
					return err
				}
				continue
			}
			if _, err := Save(context.Background(), runDir, s); err != nil {
				return err
			}
			fmt.Println(step)
			if _, err := Prune(runDir, policy); err != nil {
				return err
			}
		}
	}
}

// TestKilledProcess kills a process with SIGKILL at random moments while it saves, prunes and replaces checkpoints.
// Whatever was reported as saved must be there, whole, every time; the next process goes on from it.
func TestKilledProcess(t *testing.T) {
	rounds := 24
	if testing.Short() {
		rounds = 6
	}
	for _, mode := range []string{"save", "background"} {
		t.Run(mode, func(t *testing.T) {
			run := t.TempDir()
			last, leftovers := 0, 0
			for round := range rounds {
				reported := killOnce(t, mode, run)
				l, skipped, err := LoadLatest(run)
				if err != nil || len(skipped) != 0 {
					t.Fatalf("round %d: %v, skipped %v", round, err, skipped)
				}
				if err := errors.Join(checkConsistent(l), l.Close()); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if l.Step < reported || l.Step < last {
					t.Fatalf("round %d: the newest is step %d; %d was saved, %d was there before", round, l.Step, reported, last)
				}
				last = l.Step
				leftovers += countTemporary(t, run)
			}
			t.Logf("%d steps in %d processes, %d temporary directories were left", last, rounds, leftovers)
			if leftovers == 0 {
				t.Error("no process was killed while it wrote: the test proves nothing")
			}
			mustSave(t, run, snapshot(last+1, 0, 2))
			if n := countTemporary(t, run); n != 0 {
				t.Errorf("%d temporary directories survive the next save", n)
			}
		})
	}
}

// killOnce runs a saving process, kills it some moments after its first report and returns the last step reported.
func killOnce(t *testing.T, mode, run string) int {
	t.Helper()
	cmd := child(t, mode, run)
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	reported := 0
	read := func() error {
		var step int
		_, err := fmt.Fscanln(lines, &step)
		if err == nil {
			reported = step
		}
		return err
	}
	if err := read(); err != nil {
		_ = cmd.Wait()
		t.Fatalf("the process did not save anything: %v\n%s", err, failed.String())
	}
	time.Sleep(time.Duration(rand.IntN(40_000)) * time.Microsecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for err = read(); err == nil; err = read() {
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says that it was killed
	if failed.Len() > 0 {
		t.Fatalf("the process failed by itself: %s", failed.String())
	}
	return reported
}

// countTemporary counts what interrupted saves and prunes have left.
func countTemporary(t *testing.T, run string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(run, Folder, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range found {
		if filepath.Base(path) != lockFile {
			n++
		}
	}
	return n
}
