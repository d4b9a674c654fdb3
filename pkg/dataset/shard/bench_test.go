package shard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// benchShards writes four shards of pictures of 60 KB with their indexes, and returns their contents by name.
func benchShards(b *testing.B) (dir string, files map[string][]byte) {
	b.Helper()
	const perShard, size = 250, 60 << 10
	dir, files = b.TempDir(), map[string][]byte{}
	for i := range 4 {
		name := fmt.Sprintf("s%03d.tar", i)
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			b.Fatal(err)
		}
		w := &tarWriter{w: file}
		for j := range perShard {
			key := fmt.Sprintf("%06d", i*perShard+j)
			picture := make([]byte, size)
			copy(picture, pixels(i*perShard+j))
			if err := errors.Join(w.add(key+".jpg", picture), w.add(key+".json", []byte(`["a caption", "b"]`))); err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(w.close(), file.Close()); err != nil {
			b.Fatal(err)
		}
		if _, err := (&Indexer{CacheDir: b.TempDir()}).Index(context.Background(), filepath.Join(dir, name)); err != nil {
			b.Fatal(err)
		}
		for _, n := range []string{name, name + IndexSuffix} {
			if files[n], err = os.ReadFile(filepath.Join(dir, n)); err != nil {
				b.Fatal(err)
			}
		}
	}
	return dir, files
}

// BenchmarkRead is the reading of one sample, captions and picture.
func BenchmarkRead(b *testing.B) {
	dir, files := benchShards(b)
	url := onServer(b, files, nil)
	for name, folder := range map[string]string{"disk": dir, "http": url} {
		b.Run("anywhere/"+name, func(b *testing.B) {
			x := openSource(b, Options{}, folder+"/s{000..003}.tar")
			buf := make([]byte, 64<<10)
			i := 0
			for b.Loop() {
				i = (i + 617) % x.Len()
				_, err := x.Example(i)
				r, err2 := x.Open(i)
				if err := errors.Join(err, err2); err != nil {
					b.Fatal(err)
				}
				n, err := io.ReadFull(r, buf)
				if err != io.ErrUnexpectedEOF || r.Close() != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(n))
			}
		})
		b.Run("in order/"+name, func(b *testing.B) {
			set := openStreams(b, Options{NoIndex: true}, folder+"/s{000..003}.tar")
			s := start(b, set, 1, nil)
			for b.Loop() {
				sample, err := s.Next(context.Background())
				if err != nil || sample.Err != nil {
					b.Fatal(err, sample.Err)
				}
				b.SetBytes(int64(len(sample.Picture)))
			}
		})
	}
}
