package dataset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"blip2/pkg/internal/measure"
)

// Pictures are encoded pictures by number; every Source is one.
type Pictures interface {
	Len() int
	Open(i int) (io.ReadCloser, error)
}

// IsPictureName says whether a file's ending is that of a picture in a format that Decode reads.
func IsPictureName(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp":
		return true
	}
	return false
}

// PictureFolder is all pictures in a folder and below, in the order of their names.
func PictureFolder(dir string) (Pictures, error) {
	var f folder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !e.IsDir() && IsPictureName(path) {
			f = append(f, path)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("dataset: looking for pictures: %w", err)
	}
	if len(f) == 0 {
		return nil, fmt.Errorf("dataset: %s holds no pictures", dir)
	}
	return f, nil
}

type folder []string

func (f folder) Len() int                          { return len(f) }
func (f folder) Open(i int) (io.ReadCloser, error) { return os.Open(f[i]) }

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Count   int         // pictures per run; beyond the last the first come again. 0 is all of them once
	Size    int         // S: pictures become S×S
	Workers []int       // numbers of goroutines to measure the whole way with
	Augment RandAugment // also measured where it has operations
	Seed    int64
}

// BenchReport is the speed of the way of pictures into a batch.
type BenchReport struct {
	Pictures  int     `json:"pictures"`
	MeanBytes float64 `json:"mean_bytes"` // of an encoded picture
	MeanSize  float64 `json:"mean_pixels"`
	Size      int     `json:"size"`
	JPEG      string  `json:"jpeg_decoder"`
	// Stages are measured one at a time by one worker, each over all pictures. The way as a whole is faster than their
	// sum where stages are done in one.
	Stages []BenchStage `json:"stages"`
	Runs   []BenchRun   `json:"runs"`
}

// BenchStage is the time of one stage for all pictures.
type BenchStage struct {
	Name       string  `json:"name"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`      // processor time of the process; 0 where it is not known
	PerSecond  float64 `json:"images_per_s"`     // by the clock
	PerCPU     float64 `json:"images_per_cpu_s"` // by processor time
}

// BenchRun is the way as a whole.
type BenchRun struct {
	Workers    int     `json:"workers"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
	PerSecond  float64 `json:"images_per_s"`
	PerCPU     float64 `json:"images_per_cpu_s"`
}

// Bench measures the way of pictures into a training batch: read, decode the part that a random crop needs, resize it,
// augment it if asked for, and copy it normalised into the batch. It fails on the first picture that cannot be used.
func Bench(ctx context.Context, src Pictures, o BenchOptions) (*BenchReport, error) {
	if o.Count == 0 {
		o.Count = src.Len()
	}
	if src.Len() < 1 {
		return nil, errors.New("dataset: a benchmark needs pictures")
	}
	b := bench{src: src, o: o}
	return b.measure(ctx, func() (*stopwatch, error) { return nil, nil })
}

// measure makes the report. read measures the reading by itself; nil where it is a stage like the others.
func (b *bench) measure(ctx context.Context, read func() (*stopwatch, error)) (*BenchReport, error) {
	if b.o.Size < 1 || b.o.Count < 1 {
		return nil, errors.New("dataset: a benchmark needs pictures, and sizes of at least 1")
	}
	if err := b.o.Augment.check(); err != nil {
		return nil, err
	}
	b.report = &BenchReport{Pictures: b.o.Count, Size: b.o.Size, JPEG: jpegDecoderName()}
	watch, err := read()
	if err != nil {
		return nil, err
	}
	if err := b.stages(ctx, watch); err != nil {
		return nil, err
	}
	for _, n := range b.o.Workers {
		if err := b.run(ctx, n); err != nil {
			return nil, err
		}
	}
	return b.report, nil
}

type bench struct {
	src    Pictures
	set    *StreamSet // where the pictures of a run come from, if not from src
	o      BenchOptions
	report *BenchReport
}

// loader are the options of the loader whose work is measured.
func (b *bench) loader() LoaderOptions {
	o := LoaderOptions{ImageSize: b.o.Size, Seed: b.o.Seed, Crop: DefaultCrop(), Flip: 0.5, Augment: b.o.Augment}
	o.Mean, o.Std = normalisation(o.Mean, o.Std)
	return o
}

// stopwatch sums up the time of a stage.
type stopwatch struct {
	name      string
	wall, cpu float64
}

func (w *stopwatch) time(f func() error) error {
	start, cpu := time.Now(), measure.CPUSeconds()
	err := f()
	w.wall += time.Since(start).Seconds()
	w.cpu += measure.CPUSeconds() - cpu
	return err
}

// benchGroup is how many pictures go through a stage together: enough for the clock, few enough for memory.
const benchGroup = 16

// stages measures the stages by groups of pictures. read is the reading, if that was measured by itself.
func (b *bench) stages(ctx context.Context, read *stopwatch) error {
	watches := []*stopwatch{{name: "read"}, {name: "decode"}, {name: "resize"}, {name: "augment"}, {name: "copy"}}
	group := make([]scratch, benchGroup)
	for at := 0; at < b.o.Count; at += benchGroup {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.group(group[:min(benchGroup, b.o.Count-at)], at, watches); err != nil {
			return err
		}
	}
	if read != nil {
		watches[0] = read
	}
	for _, w := range watches {
		if w.name == "augment" && b.o.Augment.Ops == 0 {
			continue
		}
		n := float64(b.o.Count)
		b.report.Stages = append(b.report.Stages, BenchStage{Name: w.name, Seconds: w.wall, CPUSeconds: w.cpu,
			PerSecond: rate(n, w.wall), PerCPU: rate(n, w.cpu)})
	}
	b.report.MeanBytes /= float64(b.o.Count)
	b.report.MeanSize /= float64(b.o.Count)
	return nil
}

func rate(n, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return n / seconds
}

// group takes pictures from place at on through all stages, one stage after the other.
func (b *bench) group(group []scratch, at int, watches []*stopwatch) error {
	o := b.loader()
	steps := make([]transform, len(group))
	parts := make([]*Box, len(group))
	dst := make([]float32, 3*o.ImageSize*o.ImageSize)
	each := func(f func(s *scratch, i int) error) func() error {
		return func() error {
			for i := range group {
				if err := f(&group[i], i); err != nil {
					return fmt.Errorf("dataset: picture %d: %w", (at+i)%b.src.Len(), err)
				}
			}
			return nil
		}
	}
	for i, stage := range []func(s *scratch, i int) error{
		func(s *scratch, i int) error { return b.read(s, at+i) },
		func(s *scratch, i int) (err error) {
			if err = s.open(TruncatedAccept, false); err != nil {
				return err
			}
			steps[i] = o.transform(s, 0, int64(at+i))
			parts[i], err = s.decode(steps[i].box)
			b.report.MeanBytes += float64(s.file.Len())
			b.report.MeanSize += float64(s.w * s.h)
			return err
		},
		func(s *scratch, i int) error {
			s.resizer.Resize(&s.cut, &s.img, parts[i], o.ImageSize, o.ImageSize, Bicubic)
			return nil
		},
		func(s *scratch, i int) error {
			s.augmenter.apply(&s.cut, steps[i].augment, steps[i].draws)
			return nil
		},
		func(s *scratch, i int) error {
			Normalize(dst, &s.cut, steps[i].flip, o.Mean, o.Std)
			return nil
		},
	} {
		if err := watches[i].time(each(stage)); err != nil {
			return err
		}
	}
	return nil
}

// read reads the file of picture i of the run.
func (b *bench) read(s *scratch, i int) error {
	r, err := b.src.Open(i % b.src.Len())
	if err != nil {
		return err
	}
	return errors.Join(s.read(r), r.Close())
}

// supply reads the next picture of a run; ok is false at its end. name says which one it is, in messages. It is safe
// for concurrent use.
type supply func(s *scratch) (i int, name string, ok bool, err error)

// anywhere supplies a run with the pictures of src.
func (b *bench) anywhere() supply {
	var next atomic.Int64
	return func(s *scratch) (int, string, bool, error) {
		i := int(next.Add(1)) - 1
		if i >= b.o.Count {
			return i, "", false, nil
		}
		return i, fmt.Sprintf("picture %d", i%b.src.Len()), true, b.read(s, i)
	}
}

// run measures the whole way with a number of workers.
func (b *bench) run(ctx context.Context, workers int) error {
	if workers < 1 {
		return fmt.Errorf("dataset: a benchmark with %d workers", workers)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next, end := b.anywhere(), func() {}
	if b.set != nil {
		var err error
		if next, end, err = b.inOrder(ctx); err != nil {
			return err
		}
	}
	defer end()
	o := b.loader()
	var group sync.WaitGroup
	watch := stopwatch{}
	err := watch.time(func() error {
		for range workers {
			group.Go(func() {
				var s scratch
				dst := make([]float32, 3*o.ImageSize*o.ImageSize)
				for more := true; more && ctx.Err() == nil; {
					var err error
					if more, err = whole(&s, &o, dst, next); err != nil {
						cancel(err)
					}
				}
			})
		}
		group.Wait()
		return context.Cause(ctx)
	})
	if err != nil {
		return err
	}
	n := float64(b.o.Count)
	b.report.Runs = append(b.report.Runs, BenchRun{Workers: workers, Seconds: watch.wall, CPUSeconds: watch.cpu,
		PerSecond: rate(n, watch.wall), PerCPU: rate(n, watch.cpu)})
	return nil
}

// whole takes the next picture the whole way, if there is one.
func whole(s *scratch, o *LoaderOptions, dst []float32, next supply) (more bool, err error) {
	i, name, ok, err := next(s)
	if !ok && err == nil {
		return false, nil
	}
	if err == nil {
		err = s.open(TruncatedAccept, false)
	}
	if err == nil {
		err = s.write(dst, o.transform(s, 0, int64(i)))
	}
	if err != nil {
		return false, fmt.Errorf("dataset: %s: %w", name, err)
	}
	return true, nil
}

// InMemory reads the pictures of src once and gives them from memory, for measurements that leave the disk out.
func InMemory(src Pictures) (Pictures, error) {
	all := make(inMemory, src.Len())
	for i := range all {
		r, err := src.Open(i)
		if err != nil {
			return nil, err
		}
		all[i], err = io.ReadAll(io.LimitReader(r, maxFileBytes))
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("dataset: picture %d: %w", i, err)
		}
	}
	return all, nil
}

type inMemory [][]byte

func (m inMemory) Len() int                          { return len(m) }
func (m inMemory) Open(i int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m[i])), nil }
