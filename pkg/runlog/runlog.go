// Package runlog writes and reads what a run leaves in its folder while it works and when it ends: metrics.jsonl,
// TensorBoard event files, summary.json and gallery.json, and the progress that a person watches meanwhile.
//
// The formats live here, so that the trainer that writes them and the report that reads them share one definition.
// docs/run-folder.md describes them for users.
package runlog

import (
	"errors"
	"io"
	"path/filepath"
	"time"

	"blip2/pkg/internal/atomicfile"
)

// Names of the files of a run folder.
const (
	ConfigFile  = "config.yaml"   // the resolved configuration
	MetricsFile = "metrics.jsonl" // one Row per logging interval
	SummaryFile = "summary.json"  // the Summary, written when the run ends
	GalleryFile = "gallery.json"  // the Gallery
	GalleryDir  = "gallery"       // the pictures that gallery.json names
	LogFile     = "log.txt"       // the log lines of the terminal
	ReportFile  = "report.html"   // the page built from all of them
)

// Field is one named measurement of an interval, such as {"loss_itc", 2.31}.
type Field struct {
	Key   string
	Value float64
}

// F returns the field key = value.
func F(key string, value float64) Field { return Field{Key: key, Value: value} }

// Options say how Open treats what is in the run folder already.
type Options struct {
	// ResumeStep is the last step of the checkpoint that the run goes on from: what was logged after it is cut off,
	// so that the resumed run has one clean series. 0 starts a new series.
	ResumeStep int
	// Now tells the time of a row; nil means time.Now.
	Now func() time.Time
	// Host ends the name of the event file; empty means the name of the machine.
	Host string
}

// Log writes the measurements of a run to metrics.jsonl and to a TensorBoard event file.
// It is used by one goroutine at a time.
type Log struct {
	metrics *Metrics
	events  *Events
	now     func() time.Time
}

// Open opens the logs of a run folder that exists.
func Open(runDir string, o Options) (*Log, error) {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	metrics, err := OpenMetrics(filepath.Join(runDir, MetricsFile), o.ResumeStep)
	if err != nil {
		return nil, err
	}
	events, err := CreateEvents(runDir, o.Host, now(), o.ResumeStep)
	if err != nil {
		return nil, errors.Join(err, metrics.Close())
	}
	return &Log{metrics: metrics, events: events, now: now}, nil
}

// Record writes the measurements of one step to both logs, in the order given.
// In TensorBoard the key k has the tag train/k, unless it names its own group, as "eval/loss" does.
func (l *Log) Record(step int, fields ...Field) error {
	row := Row{Step: step, Time: l.now(), Fields: fields}
	if err := l.metrics.Append(row); err != nil {
		return err
	}
	return l.events.Scalars(row)
}

// Image writes an encoded picture (PNG or JPEG) to the TensorBoard log.
func (l *Log) Image(step int, tag string, encoded []byte) error {
	return l.events.Image(step, l.now(), tag, encoded)
}

// Text writes a text to the TensorBoard log.
func (l *Log) Text(step int, tag, text string) error { return l.events.Text(step, l.now(), tag, text) }

// Close flushes both logs to disk and closes them.
func (l *Log) Close() error {
	return errors.Join(l.metrics.Close(), l.events.Close())
}

// WriteFile writes a file so that path holds either the old content or all of the new one, even after a crash.
func WriteFile(path string, data []byte) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
