package runlog

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// ProgressOptions say where and how progress is shown.
type ProgressOptions struct {
	Out      io.Writer        // usually stderr
	Terminal bool             // Out is a terminal: a bar that is redrawn; otherwise one plain line per report
	Quiet    bool             // shows nothing
	Width    int              // columns of the terminal; 0 asks the terminal and falls back to 80
	Now      func() time.Time // nil means time.Now
}

const (
	// redrawEvery keeps a terminal calm when steps are short.
	redrawEvery = 100 * time.Millisecond
	// quietLimit is how long plain output stays silent before it shows a sign of life between reports.
	quietLimit = 30 * time.Second
)

// Progress shows one phase after the other: training, evaluation. Its methods and those of its phases and writers may
// be called from several goroutines.
type Progress struct {
	mu       sync.Mutex
	out      io.Writer
	o        ProgressOptions
	throttle time.Duration
	phase    *Phase // the one on show; nil between phases
}

// NewProgress returns a Progress that shows nothing yet.
func NewProgress(o ProgressOptions) *Progress {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Progress{out: o.Out, o: o, throttle: redrawEvery}
}

// Phase is a counted part of a run.
type Phase struct {
	p           *Progress
	unit        string
	done, total int
	fields      []Field
	pace        pace
	printed     time.Time // of the last plain line
	bar         *progressbar.ProgressBar
}

// Start begins a phase that counts in unit ("step", "evaluating") from done to total and ends the phase before.
func (p *Progress) Start(unit string, done, total int) *Phase {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.phase != nil {
		p.phase.end()
	}
	now := p.o.Now()
	ph := &Phase{p: p, unit: unit, done: done, total: total, printed: now}
	p.phase = ph
	if p.o.Quiet || !p.o.Terminal || total <= 0 {
		return ph
	}
	ph.bar = progressbar.NewOptions(total,
		progressbar.OptionSetWriter(p.out),
		progressbar.OptionSetWidth(p.barWidth()),
		progressbar.OptionSetPredictTime(false), // its estimate would count compilation as a step; pace does not
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionThrottle(p.throttle),
		progressbar.OptionSetTheme(progressbar.Theme{
			Saucer: "█", SaucerHead: "█", SaucerPadding: "░", BarStart: "", BarEnd: ""}),
		progressbar.OptionSetDescription(ph.line(p.textWidth())))
	_ = ph.bar.Set(done) // a bar that cannot be drawn must not stop a run
	_ = ph.bar.RenderBlank()
	return ph
}

// Advance says that done units are complete. It is called after every step.
func (ph *Phase) Advance(done int) {
	ph.p.mu.Lock()
	defer ph.p.mu.Unlock()
	now := ph.p.o.Now()
	ph.pace.add(done-ph.done, now)
	ph.done = min(done, max(ph.total, 0))
	switch {
	case ph.p.phase != ph || ph.p.o.Quiet:
	case ph.bar != nil:
		ph.redraw()
	case !ph.p.o.Terminal && now.Sub(ph.printed) >= quietLimit:
		ph.print(now)
	}
}

// Report shows measurements with the count of the last Advance: as one line, or in the bar until the next report.
func (ph *Phase) Report(fields ...Field) {
	ph.p.mu.Lock()
	defer ph.p.mu.Unlock()
	ph.fields = append(ph.fields[:0], fields...)
	switch {
	case ph.p.phase != ph || ph.p.o.Quiet:
	case ph.bar != nil:
		ph.redraw()
	case !ph.p.o.Terminal:
		ph.print(ph.p.o.Now())
	}
}

// Done ends the phase, complete or not. What was shown last stays.
func (ph *Phase) Done() {
	ph.p.mu.Lock()
	defer ph.p.mu.Unlock()
	if ph.p.phase == ph {
		ph.end()
	}
}

// Writer returns a writer for log lines to the same terminal: the bar makes room for each write and comes back below.
func (p *Progress) Writer() io.Writer { return p.Above(p.out) }

// Above is Writer for another stream that the terminal shows, such as stdout.
func (p *Progress) Above(out io.Writer) io.Writer { return progressWriter{p, out} }

type progressWriter struct {
	p   *Progress
	out io.Writer
}

func (w progressWriter) Write(data []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	ph := w.p.phase
	if ph == nil || ph.bar == nil {
		return w.out.Write(data)
	}
	_ = ph.bar.Clear() // a bar that cannot be drawn must not lose the log line
	n, err := w.out.Write(data)
	if !ph.bar.IsFinished() {
		ph.redraw()
	}
	return n, err
}

// end leaves the line of the bar. The mutex is held.
func (ph *Phase) end() {
	if ph.bar != nil {
		fmt.Fprintln(ph.p.out)
	}
	ph.p.phase = nil
}

func (ph *Phase) redraw() {
	ph.bar.Describe(ph.line(ph.p.textWidth()))
	_ = ph.bar.Set(ph.done) // as in Start
}

func (ph *Phase) print(now time.Time) {
	fmt.Fprintln(ph.p.out, ph.line(0))
	ph.printed = now
	ph.fields = ph.fields[:0] // a sign of life between reports does not repeat old measurements
}

// line is "step 120/600  loss 3.214  …  eta 1m20s". If it must fit a width, measurements at its end give way.
func (ph *Phase) line(width int) string {
	head := fmt.Sprintf("%s %d/%d", ph.unit, ph.done, ph.total)
	tail := ""
	if eta, ok := ph.pace.left(ph.total - ph.done); ok {
		tail = "  eta " + formatDuration(eta)
	}
	for _, f := range ph.fields {
		text := "  " + formatField(f)
		if width > 0 && len(head)+len(text)+len(tail) > width {
			break
		}
		head += text
	}
	return head + tail
}

// barWidth is the number of cells of the bar itself: an eighth of the terminal, so that 120 columns hold all losses.
func (p *Progress) barWidth() int { return min(max(p.columns()/8, 8), 30) }

// textWidth is what the bar leaves: "100% " before it, two spaces and a margin for the cursor after it.
func (p *Progress) textWidth() int { return max(p.columns()-p.barWidth()-9, 1) }

func (p *Progress) columns() int {
	if p.o.Width > 0 {
		return p.o.Width
	}
	if f, ok := p.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// pace is the mean time of a step. The first step counts only as the start, because it contains compilation, and after
// fifty steps older ones fade, because the load of a machine changes.
type pace struct {
	last    time.Time
	n       int
	perStep float64 // seconds
}

func (c *pace) add(steps int, now time.Time) {
	if steps <= 0 {
		return
	}
	if !c.last.IsZero() {
		c.n++
		seconds := now.Sub(c.last).Seconds() / float64(steps)
		c.perStep += (seconds - c.perStep) * max(1/float64(c.n), 0.02)
	}
	c.last = now
}

// left is the time that steps take, unknown before the second step and of no interest after the last.
func (c *pace) left(steps int) (time.Duration, bool) {
	if c.n == 0 || steps <= 0 {
		return 0, false
	}
	return time.Duration(c.perStep * float64(steps) * float64(time.Second)), true
}

// formatDuration writes 8s, 1m20s, 2h05m or 3d04h.
func formatDuration(d time.Duration) string {
	s := int(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
	}
}

// formatField writes a measurement as a person reads it: "itc 1.234", "lr 9.8e-05", "12.3 img/s", "mfu 41.2%".
func formatField(f Field) string {
	switch f.Key {
	case "img_per_s":
		if f.Value >= 100 {
			return fmt.Sprintf("%.0f img/s", f.Value)
		}
		return fmt.Sprintf("%.3g img/s", f.Value)
	case "mfu":
		return fmt.Sprintf("mfu %.1f%%", 100*f.Value)
	case "lr":
		return fmt.Sprintf("lr %.3g", f.Value)
	case "loss", "loss_itc", "loss_itm", "loss_itg":
		return fmt.Sprintf("%s %.3f", strings.TrimPrefix(f.Key, "loss_"), f.Value)
	default:
		return fmt.Sprintf("%s %.4g", f.Key, f.Value)
	}
}
