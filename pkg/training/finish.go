package training

import (
	"math"
	"path/filepath"
	"time"

	"blip2/pkg/report"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// finish writes the summary and the report.
func (r *Run) finish() (*Result, error) {
	last, err := r.lastInterval()
	if err != nil {
		return nil, err
	}
	status := map[trainer.Status]string{trainer.Finished: runlog.StatusFinished, trainer.TimeUp: runlog.StatusTimeLimit,
		trainer.Interrupted: runlog.StatusInterrupted}[r.outcome.Status]
	if r.outcome.ImgPerS > 0 {
		last.ImgPerS = r.outcome.ImgPerS
	}
	if err := r.summarise(status, last); err != nil {
		return nil, err
	}
	page, err := report.Build(r.RunDir)
	if err != nil {
		return nil, err
	}
	return &Result{Summary: r.Summary, Report: page, Status: r.outcome.Status}, nil
}

// fail leaves word of what ended the training: in log.txt, and in the summary and the report if there is one already.
// What cannot be written, as on a full disk, is left as it is.
func (r *Run) fail(cause error) {
	r.logFile.Error("failed", "error", cause)
	if r.last.Step == 0 {
		return
	}
	err := r.summarise(runlog.StatusFailed, r.last)
	if err == nil {
		_, err = report.Build(r.RunDir)
	}
	if err != nil {
		r.logFile.Error("failed", "error", err)
	}
}

// summarise writes summary.json: what is known of the run after its last interval.
func (r *Run) summarise(status string, last trainer.Interval) error {
	c, s := r.config, &r.Summary
	s.Status = status
	s.Command, s.Version, s.Commit = r.CommandLine, r.Version, r.Commit
	s.Backend, s.Device, s.DType = r.Device.Name, r.Device.Description, r.Device.DTypes.String()
	s.Started, s.Seconds = r.started.UTC(), runlog.Float(time.Since(r.started).Seconds())
	s.CompileSeconds = runlog.Float(r.step.CompileTime().Seconds())
	s.Steps, s.BatchSize, s.ImgPerS = r.At.Step, c.Train.BatchSize, runlog.Float(last.ImgPerS)
	s.MFU = runlog.Float(r.mfu(last.ImgPerS))
	s.Epochs = runlog.Float(float64(s.Steps) * float64(s.BatchSize) / float64(r.rows()))
	s.Loss = runlog.Float(last.Loss)
	for i, name := range r.model.Task.Terms {
		s.SetTerm(name, last.Terms[i])
	}
	return runlog.WriteSummary(r.RunDir, *s)
}

// mfu is the share of the device's matmul rate that the counted work of the model takes at a speed in pictures per
// second; 0 where one of the two is not known.
func (r *Run) mfu(imgPerS float64) float64 {
	peak := r.Device.PeakFLOPs()
	if peak <= 0 || r.model.StepFLOPs <= 0 {
		return 0
	}
	return imgPerS * r.model.StepFLOPs / float64(r.config.Train.BatchSize) / peak
}

// lastInterval is what was logged last: by this start or, if it made no step, by one before. Without either, losses
// are not numbers.
func (r *Run) lastInterval() (trainer.Interval, error) {
	last := r.last
	if last.Step > 0 {
		return last, nil
	}
	rows, err := runlog.ReadMetrics(filepath.Join(r.RunDir, runlog.MetricsFile))
	if err != nil {
		return last, err
	}
	value := func(key string) float64 {
		for i := len(rows) - 1; i >= 0; i-- { // evaluations have rows of their own
			if v, ok := rows[i].Value(key); ok {
				return v
			}
		}
		return math.NaN()
	}
	last.Loss, last.ImgPerS = value("loss"), value("img_per_s")
	for _, name := range r.model.Task.Terms {
		last.Terms = append(last.Terms, value(name))
	}
	return last, nil
}
