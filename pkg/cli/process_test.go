//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"blip2/pkg/checkpoint"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
)

// programVar makes a copy of the test binary be the program.
const programVar = "BLIP2_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVar) == "1" {
		ctx, stop := NotifyInterrupt(context.Background(), os.Stderr)
		code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// process is the program in a process of its own.
type process struct {
	*exec.Cmd
	out   bytes.Buffer
	lines *bufio.Scanner // of stderr
	seen  []string
}

// startProgram starts the program. The environment has no variable of blip2's but our own.
func startProgram(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(t.Context(), exe, args...)}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "BLIP2_") {
			p.Env = append(p.Env, entry)
		}
	}
	p.Env = append(p.Env, programVar+"=1")
	p.Stdout = &p.out
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(stderr)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// until reads stderr up to a line with the text and says whether there was one.
func (p *process) until(text string) bool {
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
		if strings.Contains(p.lines.Text(), text) {
			return true
		}
	}
	return false
}

// finish waits for the end and returns the exit code, −1 after a signal.
func (p *process) finish() int {
	for p.lines.Scan() {
		p.seen = append(p.seen, p.lines.Text())
	}
	_ = p.Wait() // the code says it
	return p.ProcessState.ExitCode()
}

func (p *process) stderr() string { return strings.Join(p.seen, "\n") }

// trial is the folder of a training of ten steps that is saved after every step, and how it should end.
type trial struct {
	tried
	dir   string
	whole map[string]string // final files of a training without interruption
}

// tried is a command that trains, with the toys' configuration for it, and what stdout shows at the end.
type tried struct{ command, config, shows string }

// stages are those that must survive anything.
var stages = map[string]tried{
	"stage 1":              {"pretrain-stage1", toydata.ConfigFile, "image → text"},
	"stage 2 with OPT":     {"pretrain-stage2", toydata.OPTFile, "CIDEr"},
	"stage 2 with Flan-T5": {"pretrain-stage2", toydata.T5File, "CIDEr"},
}

// newTrial trains once without interruption.
func newTrial(t *testing.T, what tried) *trial {
	t.Helper()
	tr := &trial{tried: what, dir: t.TempDir()}
	if err := errors.Join(toydata.Write(tr.dir), toydata.WriteStage2(tr.dir)); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, tr.args("whole")...)
	if code := p.finish(); code != ExitOK {
		t.Fatalf("exit code %d\n%s", code, p.stderr())
	}
	tr.whole = tr.final(t, "whole")
	return tr
}

// args starts the run with the given name.
func (tr *trial) args(run string) []string {
	return []string{tr.command, "--config", filepath.Join(tr.dir, tr.config), "--set", "run.name=" + run,
		"--set", "checkpoint.every=1", "--set", "checkpoint.keep_last=2", "--set", "eval.before=false"}
}

func (tr *trial) run(name string) string { return filepath.Join(tr.dir, "runs", name) }

// final is what must not depend on interruptions: the last checkpoint, and the loss of every step.
func (tr *trial) final(t *testing.T, run string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{checkpoint.ModelFile, checkpoint.OptimizerFile, checkpoint.StateFile} {
		data, err := os.ReadFile(filepath.Join(tr.run(run), checkpoint.Folder, checkpoint.DirName(10), name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	rows, err := runlog.ReadMetrics(filepath.Join(tr.run(run), runlog.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		loss, _ := row.Value("loss")
		files["losses"] += fmt.Sprintln(row.Step, loss)
	}
	return files
}

func (tr *trial) check(t *testing.T, run string) {
	t.Helper()
	for name, got := range tr.final(t, run) {
		if want := tr.whole[name]; got != want && name == "losses" {
			t.Errorf("losses\n%swant\n%s", got, want)
		} else if got != want {
			t.Errorf("%s is not that of the training without interruption", name)
		}
	}
}

// TestStoppedProcess stops real processes of both stages in every way that there is; resumed, they end as if nothing
// had been.
func TestStoppedProcess(t *testing.T) {
	for name, what := range stages {
		t.Run(name, func(t *testing.T) {
			tr := newTrial(t, what)
			t.Run("interrupted", tr.interrupt)
			t.Run("killed", tr.kill)
		})
	}
}

// interrupt: Ctrl-C and SIGTERM save and exit with 130.
func (tr *trial) interrupt(t *testing.T) {
	run := tr.run("stopped")
	args := tr.args("stopped")
	for _, stop := range []struct {
		at     string
		signal os.Signal
	}{{"step 3/10", os.Interrupt}, {"step 7/10", syscall.SIGTERM}} {
		p := startProgram(t, args...)
		if !p.until(stop.at) {
			t.Fatalf("no %q\n%s", stop.at, p.stderr())
		}
		if err := p.Process.Signal(stop.signal); err != nil {
			t.Fatal(err)
		}
		if code := p.finish(); code != ExitInterrupted || !strings.Contains(p.stderr(), "go on with --resume="+run) ||
			!strings.Contains(p.stderr(), "stopping after the current step") || !strings.Contains(p.out.String(), run) {
			t.Fatalf("%v: exit code %d, stdout %q\n%s", stop.signal, code, p.out.String(), p.stderr())
		}
		args = []string{tr.command, "--resume=" + run}
	}
	p := startProgram(t, args...)
	if code := p.finish(); code != ExitOK || !strings.Contains(p.out.String(), tr.shows) {
		t.Fatalf("exit code %d, stdout %q\n%s", code, p.out.String(), p.stderr())
	}
	tr.check(t, "stopped")
}

// kill kills the program again and again, at a moment that chance picks, until it gets through.
func (tr *trial) kill(t *testing.T) {
	seed := uint64(os.Getpid())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	// From the first line on, in the middle of the steps and of the saving after them, and in the evaluation.
	for round, at := range []string{"training data", "msg=model", "step 1/10", "step 3/10", "step 5/10", "step 8/10",
		"step 10/10"} {
		args := tr.args("killed")
		if _, err := os.Stat(filepath.Join(tr.run("killed"), runlog.ConfigFile)); err == nil {
			args = append(args, "--resume")
		}
		p := startProgram(t, args...)
		if !p.until(at) {
			// The last round killed it so late that this step had been saved.
			if !strings.Contains(p.stderr(), "resumed") {
				t.Fatalf("round %d: no %q\n%s", round, at, p.stderr())
			}
		}
		time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond)
		if err := p.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		p.finish()
	}
	p := startProgram(t, append(tr.args("killed"), "--resume")...)
	if code := p.finish(); code != ExitOK {
		t.Fatalf("exit code %d\n%s", code, p.stderr())
	}
	tr.check(t, "killed")
	if strings.Contains(p.stderr(), "checkpoint skipped") {
		t.Errorf("a kill left a damaged checkpoint:\n%s", p.stderr())
	}
	entries, err := os.ReadDir(filepath.Join(tr.run("killed"), checkpoint.Folder))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got, want := strings.Join(left, " "), ".lock latest step-00000009 step-00000010"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

// TestProgramExitCodes: the process ends with the code of the command.
func TestProgramExitCodes(t *testing.T) {
	for args, want := range map[string]int{"version": ExitOK, "pretrain-stage1": ExitUsage,
		"report no-such-run": ExitFailure} {
		p := startProgram(t, strings.Fields(args)...)
		if code := p.finish(); code != want {
			t.Errorf("%s: exit code %d, want %d\n%s", args, code, want, p.stderr())
		}
	}
}
