package checkpoint

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWriter(t *testing.T) {
	run := t.TempDir()
	var saved []int
	w := StartWriter(context.Background(), run, WriterOptions{
		Policy:  Policy{KeepLast: 2, KeepEvery: 4, Protect: []int{1}},
		OnSaved: func(s Saved) { saved = append(saved, s.Step) },
	})
	for step := range 10 {
		if step == 8 {
			if err := w.Wait(); err != nil { // also in the middle
				t.Fatal(err)
			}
			w.Protect(7)
		}
		if err := w.Enqueue(snapshot(step, 0, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Wait(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(saved, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
		t.Errorf("saved %v", saved)
	}
	if got := steps(t, run); !slices.Equal(got, []int{0, 4, 7, 8, 9}) {
		t.Errorf("left are %v", got)
	}
	if err := w.Wait(); err != nil {
		t.Errorf("second Wait: %v", err)
	}
}

// TestEnqueueWaitsForTheOneInFlight shows that Enqueue returns at once when idle and blocks while a save goes on.
func TestEnqueueWaitsForTheOneInFlight(t *testing.T) {
	w := StartWriter(context.Background(), t.TempDir(), WriterOptions{})
	started, release := make(chan int), make(chan struct{})
	w.save = func(_ context.Context, _ string, s Snapshot) (string, error) {
		started <- s.Step
		<-release
		return "", nil
	}
	if err := w.Enqueue(Snapshot{Step: 1}); err != nil { // returns although release never came
		t.Fatal(err)
	}
	second := make(chan error)
	go func() { second <- w.Enqueue(Snapshot{Step: 2}) }()
	if got := <-started; got != 1 {
		t.Fatalf("step %d is saved first", got)
	}
	select {
	case got := <-started:
		t.Fatalf("step %d is saved beside step 1", got)
	case err := <-second:
		t.Fatalf("Enqueue did not wait: %v", err)
	default:
	}
	release <- struct{}{}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if got := <-started; got != 2 {
		t.Fatalf("step %d is saved second", got)
	}
	close(release)
	if err := w.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestWriterErrors(t *testing.T) {
	run := t.TempDir()
	w := StartWriter(context.Background(), run, WriterOptions{})
	if err := w.Enqueue(Snapshot{Step: -1}); err != nil {
		t.Fatalf("an error of the save itself came too early: %v", err)
	}
	if err := w.Enqueue(snapshot(1, 0, 2)); err == nil {
		t.Fatal("the error did not surface at the next Enqueue")
	}
	if got := visible(t, run); len(got) != 0 {
		t.Errorf("the snapshot was saved although Enqueue failed: %v", got)
	}
	if err := w.Wait(); err != nil {
		t.Errorf("the error was reported twice: %v", err)
	}
	if err := errors.Join(w.Enqueue(snapshot(1, 0, 2)), w.Wait()); err != nil { // trying again works
		t.Error(err)
	}
	if err := w.Enqueue(Snapshot{Step: -1}); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(); err == nil {
		t.Error("Wait did not report the error")
	}
}

func TestWriterReportsPruning(t *testing.T) {
	run := t.TempDir()
	var pruned []string
	w := StartWriter(context.Background(), run, WriterOptions{
		Policy:  Policy{KeepLast: 1},
		OnSaved: func(s Saved) { pruned = append(pruned, s.Pruned...) },
	})
	if err := errors.Join(w.Enqueue(snapshot(1, 0, 2)), w.Enqueue(snapshot(2, 0, 2)), w.Wait()); err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(run, Folder, DirName(1))}; !slices.Equal(pruned, want) {
		t.Errorf("pruned %v, want %v", pruned, want)
	}
}

func TestWriterCancel(t *testing.T) {
	run := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	w := StartWriter(ctx, run, WriterOptions{})
	w.save = func(ctx context.Context, run string, s Snapshot) (string, error) {
		return saver{free: freeBytes, wrap: func(name string, to io.Writer) io.Writer {
			if name == OptimizerFile { // the model is written already
				cancel()
			}
			return to
		}}.save(ctx, run, s)
	}
	if err := w.Enqueue(snapshot(1, 0, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v", err)
	}
	if err := w.Enqueue(snapshot(2, 0, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("Enqueue: %v", err)
	}
	if got := visible(t, run); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if _, err := os.Stat(filepath.Join(run, Folder)); err != nil {
		t.Error(err)
	}
}

// BenchmarkSave writes, hashes and syncs a snapshot of 3 × 64 MB.
func BenchmarkSave(b *testing.B) {
	s := snapshot(1, 0, 16<<20)
	run := b.TempDir()
	b.SetBytes(3 * 64 << 20)
	for b.Loop() {
		mustSave(b, run, s)
	}
}

// BenchmarkVerify hashes the same.
func BenchmarkVerify(b *testing.B) {
	dir := mustSave(b, b.TempDir(), snapshot(1, 0, 16<<20))
	b.SetBytes(3 * 64 << 20)
	for b.Loop() {
		if err := Verify(dir); err != nil {
			b.Fatal(err)
		}
	}
}
