package dataset

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
)

// feed reads a stream some samples ahead of the batches.
type feed struct {
	stream Stream
	queue  []fed
	state  json.RawMessage // behind the last sample that a batch took
}

// fed is a sample and where the stream stood behind it.
type fed struct {
	sample Sample
	state  json.RawMessage
}

// fill reads until n samples are queued.
func (f *feed) fill(ctx context.Context, n int) error {
	for len(f.queue) < n {
		sample, err := f.stream.Next(ctx)
		if err != nil {
			return fmt.Errorf("dataset: %s: %w", f.stream.Name(), err)
		}
		state, err := f.stream.State()
		if err != nil {
			return fmt.Errorf("dataset: %s: where the stream stands: %w", f.stream.Name(), err)
		}
		f.queue = append(f.queue, fed{sample, slices.Clone(state)})
	}
	return nil
}

// next takes the next sample.
func (f *feed) next(ctx context.Context) (*Sample, error) {
	if err := f.fill(ctx, 1); err != nil {
		return nil, err
	}
	first := f.queue[0]
	f.queue[0] = fed{}
	f.queue = f.queue[1:]
	f.state = first.state
	return &first.sample, nil
}

// ahead is the n samples that come next; they stay in the stream.
func (f *feed) ahead(ctx context.Context, n int) ([]Sample, error) {
	if err := f.fill(ctx, n); err != nil {
		return nil, err
	}
	all := make([]Sample, n)
	for i := range all {
		all[i] = f.queue[i].sample
	}
	return all, nil
}

// spares is how many samples of a stream are read ahead to stand in for bad ones.
func (l *Loader) spares() int { return 8 + l.o.BatchSize/16 }

// openFeeds opens the streams of the mixture where the start has them.
func (l *Loader) openFeeds() error {
	var states map[string]json.RawMessage
	if text := l.o.Start.Streams; text != "" {
		if err := json.Unmarshal([]byte(text), &states); err != nil {
			return fmt.Errorf("dataset: cannot continue: where the streams stand is not to be read: %w", err)
		}
	}
	for i := range l.mix.parts {
		set := l.mix.parts[i].Stream
		if set == nil {
			continue
		}
		state, known := states[set.Name]
		if string(state) == "null" {
			state = nil
		}
		if l.o.Start.Streams != "" && !known {
			l.closeFeeds()
			return fmt.Errorf("dataset: cannot continue: the checkpoint does not say where the stream %s stands; is "+
				"this the data that the run was started with?", set.Name)
		}
		stream, err := set.Open(l.ctx, l.o.Seed, state)
		if err != nil {
			l.closeFeeds()
			return fmt.Errorf("dataset: %s: %w", set.Name, err)
		}
		if l.feeds == nil {
			l.feeds = make([]*feed, len(l.mix.parts))
		}
		l.feeds[i] = &feed{stream: stream, state: state}
	}
	return nil
}

// streamStates is where the streams stand behind the batches laid out so far; "" without streams.
func (l *Loader) streamStates() (string, error) {
	if len(l.feeds) == 0 {
		return "", nil
	}
	states := map[string]json.RawMessage{}
	for i, f := range l.feeds {
		if f != nil && f.state != nil {
			states[l.mix.parts[i].Stream.Name] = f.state
		} else if f != nil {
			states[l.mix.parts[i].Stream.Name] = json.RawMessage("null")
		}
	}
	text, err := json.Marshal(states)
	if err != nil {
		return "", fmt.Errorf("dataset: where the streams stand cannot be written: %w", err)
	}
	return string(text), nil
}

// closeFeeds closes the streams. They are only read, so that there is nothing to lose and nothing to report.
func (l *Loader) closeFeeds() {
	for _, f := range l.feeds {
		if f != nil {
			_ = f.stream.Close()
		}
	}
	l.feeds = nil
}
