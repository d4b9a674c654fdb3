package fullsize

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// The containers that Write knows.
const (
	Safetensors = "safetensors"
	PyTorch     = "pth"
)

// Containers lists them.
func Containers() []string { return []string{Safetensors, PyTorch} }

// Written says what Write did.
type Written struct {
	Path    string  `json:"path"`    // file, or folder of safetensors
	Bytes   int64   `json:"bytes"`   // of its tensors
	Seconds float64 `json:"seconds"` // until all was on the disk; 0: it was there already
}

// Write makes a checkpoint of random numbers with the network's tensors in the folder dir, as a user would have it: a
// folder of safetensors in shards of at most 5 GB, or a PyTorch file. Weights have the spread with which they would
// start training, LayerNorms are at (1, 0). The numbers depend on nothing but the network and the type: what a run
// before has left in dir is used again.
func (n Network) Write(ctx context.Context, dir, container string, dtype weights.DType) (Written, error) {
	w := Written{Path: filepath.Join(dir, n.Name+"-"+strings.ToLower(string(dtype))),
		Bytes: n.Bytes(dtype)}
	write := writeSafetensors
	if container == PyTorch {
		w.Path += ".pth"
		write = writePyTorch
	}
	if _, err := os.Stat(w.Path); !errors.Is(err, fs.ErrNotExist) {
		return w, err // nil if it is there: both writers leave something whole or nothing
	}
	start := time.Now()
	err := write(ctx, w.Path, n.Params(), dtype)
	w.Seconds = time.Since(start).Seconds()
	return w, err
}

func writeSafetensors(ctx context.Context, path string, params []model.Param, dtype weights.DType) error {
	fill := newFiller(dtype)
	list := make([]weights.Lazy, len(params))
	for i, p := range params {
		list[i] = weights.Lazy{Name: p.Name, DType: dtype, Shape: p.Shape,
			Data: func() ([]byte, error) { return fill.data(p) }}
	}
	return weights.WriteDir(ctx, path, list, weights.DirOptions{})
}

func writePyTorch(ctx context.Context, path string, params []model.Param, dtype weights.DType) error {
	fill := newFiller(dtype)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return writeTorch(path, params, dtype, func(p model.Param) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return fill.data(p)
	})
}

// readThrough reads all files of an open checkpoint once, so that the system has them in memory where there is room, and
// returns how many bytes there are.
func readThrough(ctx context.Context, files []weights.FileSize) (int64, error) {
	total := int64(0)
	buffer := make([]byte, 1<<20)
	for _, f := range files {
		n, err := readFile(ctx, f.Path, buffer)
		if err != nil {
			return 0, fmt.Errorf("reading %s into the page cache: %w", f.Path, err)
		}
		total += n
	}
	return total, nil
}

func readFile(ctx context.Context, path string, buffer []byte) (total int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close() // read only: nothing can be lost
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := file.Read(buffer)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
