package runlog

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// ticker is a clock that a test moves.
type ticker struct{ now time.Time }

func (c *ticker) Now() time.Time       { return c.now }
func (c *ticker) pass(d time.Duration) { c.now = c.now.Add(d) }

func losses() []Field {
	return []Field{F("loss", 3.2144), F("loss_itc", 1.23), F("loss_itm", 0.61), F("loss_itg", 2.4), F("lr", 9.8e-5),
		F("img_per_s", 12.345)}
}

func TestProgressPlain(t *testing.T) {
	var out bytes.Buffer
	c := &ticker{noon}
	p := NewProgress(ProgressOptions{Out: &out, Now: c.Now})
	ph := p.Start("step", 100, 600)
	for step := 101; step <= 600; step++ {
		c.pass(time.Second / 4)
		if step == 101 {
			c.pass(20 * time.Second) // compilation
		}
		ph.Advance(step)
		if step == 101 || step == 120 || step == 600 {
			ph.Report(losses()...)
		}
		if step == 121 {
			c.pass(40 * time.Second)
		}
		if step == 122 {
			fmt.Fprintln(p.Writer(), "a log line")
		}
	}
	ph.Done()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := []string{
		"step 101/600  loss 3.214  itc 1.230  itm 0.610  itg 2.400  lr 9.8e-05  12.3 img/s",
		"step 120/600  loss 3.214  itc 1.230  itm 0.610  itg 2.400  lr 9.8e-05  12.3 img/s  eta 2m00s",
		"step 122/600  eta 17m10s", // one slow step of 21 so far
		"a log line",
	}
	for i, w := range want {
		if i >= len(lines) || lines[i] != w {
			t.Fatalf("line %d is wrong:\n%s\nwant\n%s", i+1, strings.Join(lines, "\n"), w)
		}
	}
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, "step 600/600  loss 3.214") || strings.Contains(last, "eta") {
		t.Errorf("last line %q", last)
	}
}

func TestProgressTerminal(t *testing.T) {
	var out bytes.Buffer
	c := &ticker{noon}
	p := NewProgress(ProgressOptions{Out: &out, Terminal: true, Width: 120, Now: c.Now})
	p.throttle = 0
	ph := p.Start("step", 0, 4)
	for step := 1; step <= 4; step++ {
		c.pass(time.Minute)
		ph.Advance(step)
		ph.Report(losses()...)
		if step == 2 {
			fmt.Fprintln(p.Writer(), "saved a checkpoint")
		}
	}
	ph.Done()
	eval := p.Start("evaluating", 0, 2)
	eval.Advance(1)
	eval.Done() // ended early
	text := out.String()
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if n := len([]rune(line)); n >= 120 {
			t.Errorf("%d columns are too many for 120: %q", n, line)
		}
	}
	for _, want := range []string{"  0% ░░░░", " 50% ███████░░░░░░░░  step 2/4  loss 3.214", "lr 9.8e-05  12.3 img/s  eta 2m00s",
		"\rsaved a checkpoint\n\r", "100% ███████████████  step 4/4  loss 3.214", "evaluating 1/2"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%q", want, text)
		}
	}
	if !strings.HasSuffix(text, "\n") {
		t.Error("the line of the bar was not ended")
	}
}

// TestProgressAbove: results on stdout, which the same terminal shows, do not stand in the line of the bar.
func TestProgressAbove(t *testing.T) {
	var screen bytes.Buffer
	p := NewProgress(ProgressOptions{Out: &screen, Terminal: true, Width: 120, Now: clock})
	p.throttle = 0
	ph := p.Start("picture", 0, 2)
	stdout := p.Above(&screen)
	for done := 1; done <= 2; done++ {
		fmt.Fprintln(stdout, "a result")
		ph.Advance(done)
	}
	ph.Done()
	if n := strings.Count(screen.String(), "\ra result\n"); n != 2 {
		t.Errorf("%d results have a line of their own in\n%q", n, screen.String())
	}
	fmt.Fprintln(stdout, "the end")
	if !strings.HasSuffix(screen.String(), "\nthe end\n") {
		t.Errorf("%q", screen.String())
	}
}

func TestProgressLineFits(t *testing.T) {
	c := &ticker{noon}
	for _, width := range []int{20, 60, 80, 120, 300} {
		p := NewProgress(ProgressOptions{Out: &bytes.Buffer{}, Terminal: true, Width: width, Now: c.Now})
		ph := p.Start("step", 0, 600)
		ph.Advance(1)
		c.pass(time.Second)
		ph.Advance(2)
		ph.Report(losses()...)
		line := ph.line(p.textWidth())
		if len(line) > p.textWidth() && width >= 60 {
			t.Errorf("width %d: %q has %d columns, %d are free", width, line, len(line), p.textWidth())
		}
		if !strings.HasPrefix(line, "step 2/600") || !strings.HasSuffix(line, "eta 9m58s") {
			t.Errorf("width %d: %q lost its count or its estimate", width, line)
		}
	}
}

func TestProgressQuiet(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		p := NewProgress(ProgressOptions{Out: &out, Terminal: terminal, Quiet: true, Now: clock})
		ph := p.Start("step", 0, 3)
		ph.Advance(1)
		ph.Report(losses()...)
		ph.Done()
		if out.Len() > 0 {
			t.Errorf("quiet progress wrote %q", out.String())
		}
		fmt.Fprint(p.Writer(), "log")
		if out.String() != "log" {
			t.Errorf("a log line became %q", out.String())
		}
	}
}

func TestProgressOldPhaseIsSilent(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(ProgressOptions{Out: &out, Now: clock})
	old := p.Start("step", 0, 3)
	p.Start("evaluating", 0, 3)
	old.Report(losses()...)
	old.Done()
	if out.Len() > 0 {
		t.Errorf("an ended phase wrote %q", out.String())
	}
}

func TestProgressStrangeCounts(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		p := NewProgress(ProgressOptions{Out: &bytes.Buffer{}, Terminal: terminal, Now: clock})
		for _, total := range []int{-1, 0, 1, 3} {
			ph := p.Start("step", 3, total)
			ph.Advance(7)
			ph.Report()
			ph.Done()
			ph.Done()
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 8400 * time.Millisecond: "8s", 80 * time.Second: "1m20s", 2*time.Hour + 5*time.Minute: "2h05m",
		76 * time.Hour: "3d04h"} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestFormatField(t *testing.T) {
	for want, f := range map[string]Field{
		"loss 10.123": F("loss", 10.1234), "itc 1.230": F("loss_itc", 1.23), "lr 0.0001": F("lr", 1e-4),
		"1.52 img/s": F("img_per_s", 1.52), "12346 img/s": F("img_per_s", 12345.6), "mfu 41.2%": F("mfu", 0.412),
		"temp 0.07": F("temp", 0.07), "loss NaN": F("loss", math.NaN())} {
		if got := formatField(f); got != want {
			t.Errorf("%v is %q, want %q", f, got, want)
		}
	}
}
