package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
)

// maxBenchBytes bounds the pictures of a stream that are held in memory for the stages behind the reading.
const maxBenchBytes = 256 << 20

// BenchStream is Bench for pictures that can only be read in order: they come as in a training. The reading goes on in
// the background as far as the stream reads ahead. It is therefore measured alone first, taking pictures as fast as
// they come, and the other stages with the first pictures in memory, at most 256 MiB of them. Options.Count must be
// given unless the set says how many pictures it has.
//
// The clock starts when the first picture has come, so that making connections does not count. What the stream has read
// ahead by then, and what it reads ahead at the end, make no difference if it is little beside all pictures.
func BenchStream(ctx context.Context, set *StreamSet, o BenchOptions) (*BenchReport, error) {
	if o.Count == 0 {
		o.Count = int(set.Pictures)
	}
	b := bench{set: set, o: o}
	return b.measure(ctx, func() (*stopwatch, error) {
		if err := b.hold(ctx); err != nil {
			return nil, err
		}
		return b.readAlone(ctx)
	})
}

// hold takes the first pictures into memory.
func (b *bench) hold(ctx context.Context) error {
	stream, err := b.set.Open(ctx, b.o.Seed, nil)
	if err != nil {
		return err
	}
	var held inMemory
	size := 0
	for len(held) < b.o.Count && size < maxBenchBytes && err == nil {
		var sample Sample
		sample, err = nextGood(ctx, stream)
		held = append(held, sample.Picture)
		size += len(sample.Picture)
	}
	b.src = held
	return errors.Join(err, stream.Close())
}

// readAlone measures how fast pictures come when nothing else is done.
func (b *bench) readAlone(ctx context.Context) (*stopwatch, error) {
	next, end, err := b.inOrder(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	watch := &stopwatch{name: "read"}
	var s scratch
	return watch, watch.time(func() error {
		for {
			if _, _, ok, err := next(&s); !ok || err != nil {
				return err
			}
		}
	})
}

// inOrder supplies a run with the pictures of the stream, from its beginning; end closes it.
func (b *bench) inOrder(ctx context.Context) (next supply, end func(), err error) {
	stream, err := b.set.Open(ctx, b.o.Seed, nil)
	if err != nil {
		return nil, nil, err
	}
	end = func() { _ = stream.Close() } // it was only read
	if _, err := nextGood(ctx, stream); err != nil {
		end()
		return nil, nil, err
	}
	var mu sync.Mutex
	given := 0
	take := func() (int, Sample, error) {
		mu.Lock()
		defer mu.Unlock()
		i := given
		if i >= b.o.Count {
			return i, Sample{}, nil
		}
		given++
		sample, err := nextGood(ctx, stream)
		return i, sample, err
	}
	return func(s *scratch) (int, string, bool, error) {
		i, sample, err := take()
		if err != nil || i >= b.o.Count {
			return i, b.set.Name, false, err
		}
		return i, sample.Example.Key, true, s.read(bytes.NewReader(sample.Picture))
	}, end, nil
}

// nextGood is the next sample of a stream; one that cannot be used is an error.
func nextGood(ctx context.Context, stream Stream) (Sample, error) {
	sample, err := stream.Next(ctx)
	if err == nil && sample.Err != nil {
		err = fmt.Errorf("%s: %w", sample.Example.Key, sample.Err)
	}
	return sample, err
}
