package weights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"blip2/pkg/internal/atomicfile"
)

// DefaultShardBytes is the most data in one file, as Hugging Face's libraries have it: 5 GB.
const DefaultShardBytes = 5_000_000_000

// DirOptions are the choices of WriteDir.
type DirOptions struct {
	// MaxShardBytes is the most bytes of tensor data in one file; 0 is DefaultShardBytes. A tensor that is larger gets a
	// file of its own.
	MaxShardBytes int64
	// Metadata go into every file; nil is {"format": "pt"}, without which other libraries refuse the files.
	Metadata map[string]string
	// Add, if set, puts further files into the folder before it becomes visible: config.json, tokenizer files ...
	Add func(dir string) error
}

// WriteDir writes the weights of a model folder in Hugging Face's layout: model.safetensors, or if that would be too
// large the shards model-00001-of-0000N.safetensors … and model.safetensors.index.json. The tensors are split in the
// order given, as Hugging Face's libraries split them.
//
// The folder appears as a whole: everything is written into a hidden folder beside it, synced and renamed. After an
// error or when ctx is cancelled nothing is left. A folder that is there and not empty is an error.
func WriteDir(ctx context.Context, dir string, tensors []Lazy, o DirOptions) error {
	files, err := planDir(tensors, o)
	if err != nil {
		return fmt.Errorf("writing folder %s: %w", dir, err)
	}
	return atomicfile.WriteDir(dir, func(temp string) error {
		for _, f := range files {
			if err := f.write(ctx, temp); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		if o.Add != nil {
			if err := o.Add(temp); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// dirFile is a file of weights to be written, or the index.
type dirFile struct {
	name    string
	head    []byte // the header of tensors, or the whole index
	tensors []Lazy
}

func (f dirFile) write(ctx context.Context, dir string) (err error) {
	file, err := os.OpenFile(filepath.Join(dir, f.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return encode(&cancellable{ctx, file}, f.head, f.tensors)
}

// cancellable is a writer that fails once its context is done.
type cancellable struct {
	ctx context.Context
	w   io.Writer
}

func (c *cancellable) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

// planDir splits the tensors into files and makes their headers, so that tensors that cannot be written fail before
// anything is.
func planDir(tensors []Lazy, o DirOptions) ([]dirFile, error) {
	metadata := o.Metadata
	if metadata == nil {
		metadata = map[string]string{"format": "pt"}
	}
	if o.MaxShardBytes < 0 {
		return nil, fmt.Errorf("the limit of a shard is %d bytes, expected a positive number", o.MaxShardBytes)
	}
	shards, total, err := split(tensors, o.MaxShardBytes)
	if err != nil {
		return nil, err
	}
	index := newIndex(total)
	var files []dirFile
	for i, shard := range shards {
		name := SingleFile
		if len(shards) > 1 {
			name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		}
		head, _, err := encodeHeader(shard, metadata)
		if err != nil {
			return nil, err
		}
		files = append(files, dirFile{name, head, shard})
		if err := index.add(shard, name); err != nil {
			return nil, err
		}
	}
	if len(shards) == 1 {
		return files, nil
	}
	raw, err := index.encode()
	return append(files, dirFile{name: IndexFile, head: raw}), err
}

// split distributes the tensors over shards: one that would exceed the limit begins a new shard, and one that exceeds
// it alone gets its own, while the shard before it goes on. At least one shard is returned.
func split(tensors []Lazy, limit int64) (shards [][]Lazy, total int64, err error) {
	if limit == 0 {
		limit = DefaultShardBytes
	}
	var current []Lazy
	size := int64(0)
	for _, t := range tensors {
		bytes, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", clip(t.Name), err)
		}
		n := int64(bytes)
		total += n
		if n > limit {
			shards = append(shards, []Lazy{t})
			continue
		}
		if size+n > limit {
			shards = append(shards, current)
			current, size = nil, 0
		}
		current = append(current, t)
		size += n
	}
	if len(current) > 0 || len(shards) == 0 {
		shards = append(shards, current)
	}
	return shards, total, nil
}

// shardIndex is the content of an index file.
type shardIndex struct {
	Metadata struct {
		TotalSize int64 `json:"total_size"` // bytes of tensor data
	} `json:"metadata"`
	WeightMap map[string]string `json:"weight_map"` // tensor → file
}

func newIndex(total int64) *shardIndex {
	x := &shardIndex{WeightMap: map[string]string{}}
	x.Metadata.TotalSize = total
	return x
}

func (x *shardIndex) add(tensors []Lazy, file string) error {
	for _, t := range tensors {
		if _, twice := x.WeightMap[t.Name]; twice {
			return fmt.Errorf("tensor %s: the name occurs twice", clip(t.Name))
		}
		x.WeightMap[t.Name] = file
	}
	return nil
}

func (x *shardIndex) encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(x)
	return buf.Bytes(), err
}
