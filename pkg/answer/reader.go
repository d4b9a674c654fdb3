package answer

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"blip2/pkg/dataset"
)

// Loaded is a picture that was read, or why it could not be.
type Loaded struct {
	Name   string
	Index  int // among all inputs
	Image  *dataset.RGB
	Pixels []float32 // [3, S, S]
	Err    error
}

// Reader reads pictures ahead, several at a time, and gives them in order.
type Reader struct {
	queue  chan chan Loaded
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// Read starts to read all inputs; at most ahead pictures are kept. numbers are their indices among all inputs; nil
// counts from 0. keepImages keeps the pictures themselves beside their pixels. The caller closes the reader.
func (c *Checkpoint) Read(ctx context.Context, in Inputs, numbers []int, ahead int, keepImages bool) *Reader {
	ctx, cancel := context.WithCancel(ctx)
	r := &Reader{queue: make(chan chan Loaded, max(ahead, 1)), cancel: cancel}
	slots := make(chan struct{}, max(runtime.GOMAXPROCS(0), 1))
	r.done.Go(func() {
		defer close(r.queue)
		var workers sync.WaitGroup
		defer workers.Wait()
		for i, name := range in.Names {
			l, place := Loaded{Name: name, Index: i}, make(chan Loaded, 1)
			if numbers != nil {
				l.Index = numbers[i]
			}
			select {
			case r.queue <- place:
			case <-ctx.Done():
				return
			}
			slots <- struct{}{}
			workers.Go(func() {
				defer func() { <-slots }()
				l.Image, l.Err = in.Decode(ctx, name)
				if l.Err == nil {
					l.Pixels, l.Err = c.Pixels(l.Image)
					if l.Err != nil {
						l.Err = fmt.Errorf("%s: %w", name, l.Err)
					}
				}
				if !keepImages || l.Err != nil {
					l.Image = nil
				}
				place <- l
			})
		}
	})
	return r
}

// Next returns the next picture; ok is false behind the last one, and when the reader was stopped.
func (r *Reader) Next() (l Loaded, ok bool) {
	place, ok := <-r.queue
	if !ok {
		return l, false
	}
	return <-place, true
}

// Close stops reading.
func (r *Reader) Close() {
	r.cancel()
	for range r.queue { // until it is closed
	}
	r.done.Wait()
}
