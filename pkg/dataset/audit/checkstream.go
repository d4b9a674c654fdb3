package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"blip2/pkg/dataset"
)

// CheckStream is Check for a data set that can only be read in order: it is read once, from front to back. It holds 8
// bytes per picture, and keeps the pictures' keys in the journal, or without one in a temporary file.
func CheckStream(ctx context.Context, set *dataset.StreamSet, o CheckOptions) (*CheckReport, error) {
	if set.Once == nil {
		return nil, fmt.Errorf("%s cannot be read from front to back", set.Name)
	}
	c := &streamChecker{set: set, report: &CheckReport{Name: set.Name, Problems: []Problem{}, Twice: []Duplicate{}}}
	l, err := openStreamLog(o.Journal, set.Fingerprint, c.count)
	if err != nil {
		return nil, err
	}
	c.log = l
	err = c.run(ctx, max(o.Workers, 1), o.Progress)
	if err == nil {
		err = c.finish()
	}
	if err = errors.Join(err, l.close()); err != nil {
		return nil, err
	}
	return c.report, nil
}

// streamChecker is a CheckStream in progress.
type streamChecker struct {
	set    *dataset.StreamSet
	log    *streamLog
	hashes []uint64
	report *CheckReport
}

// count adds the next sample of the stream to the report.
func (c *streamChecker) count(f finding) {
	c.hashes = append(c.hashes, f.hash)
	c.report.Pictures++
	c.report.Texts += f.texts
	c.report.note(f.problems)
}

// streamJob is a sample on its way through the workers.
type streamJob struct {
	sample  dataset.Sample
	state   []byte // of the stream, behind the sample
	percent int
	found   finding
	done    chan struct{}
}

// run checks what the log does not know yet. Samples are looked at by several workers, and counted in order. What was
// looked at before an interrupt or an error is kept.
func (c *streamChecker) run(ctx context.Context, workers int, progress func(int)) error {
	pass, err := c.set.Once(ctx, c.log.state)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	jobs, order := make(chan *streamJob), make(chan *streamJob, 2*workers)
	var group sync.WaitGroup
	var ended error
	group.Go(func() {
		ended = supply(ctx, pass, jobs, order)
		close(jobs)
		close(order)
	})
	for range workers {
		group.Go(func() {
			for j := range jobs {
				j.found = examine(j.sample.Example, j.sample.Picture, j.sample.Err, nil)
				j.sample = dataset.Sample{}
				close(j.done)
			}
		})
	}
	var failed error
	for j := range order {
		<-j.done
		if failed != nil {
			continue
		}
		c.count(j.found)
		if failed = c.log.add(j.found, j.state); failed != nil {
			stop()
		} else if progress != nil {
			progress(j.percent)
		}
	}
	group.Wait()
	if ended == io.EOF {
		ended = nil
	}
	if failed != nil {
		ended = failed
	}
	return errors.Join(ended, pass.Close())
}

// supply gives the samples of a stream to the workers, and their order to the one who counts, until the end or an
// error.
func supply(ctx context.Context, pass dataset.Pass, jobs, order chan<- *streamJob) error {
	for {
		sample, err := pass.Next(ctx)
		if err != nil {
			return err
		}
		state, err := pass.State()
		if err != nil {
			return err
		}
		j := &streamJob{sample: sample, state: state, percent: int(100 * pass.Done()),
			done: make(chan struct{})}
		order <- j // who reads it waits for j.done, and goes on to the end whatever happens
		jobs <- j
	}
}

// finish finds the pictures that occur twice.
func (c *streamChecker) finish() error {
	count, pairs := duplicates(c.hashes)
	c.report.Duplicates = count
	keys := map[int]string{}
	for _, p := range pairs {
		keys[int(p[0])], keys[int(p[1])] = "", ""
	}
	if err := c.log.keys(keys); err != nil {
		return err
	}
	for _, p := range pairs {
		c.report.Twice = append(c.report.Twice, Duplicate{keys[int(p[0])], keys[int(p[1])]})
	}
	return nil
}
