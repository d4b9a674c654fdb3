package configured

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/internal/toydata"
)

// faulty takes up to n batches of four with their keys, and gives the bad samples and the error that ended them.
func faulty(t *testing.T, s config.DataSource, start dataset.Position, n int) (keys [][]string, at []dataset.Position,
	bad []dataset.BadSample, err error) {
	t.Helper()
	training, err := Open(t.Context(), config.Data{Train: []config.DataSource{s}}, Shards(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := dataset.NewMixtureLoader(training.Mixture, nil, dataset.LoaderOptions{BatchSize: 4, ImageSize: 16, Seed: 3,
		Workers: 2, Prefetch: 1, MaxBadShare: 0.5, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		b, err := l.Next(t.Context())
		if err != nil {
			return keys, at, l.BadSamples(), err
		}
		keys, at = append(keys, slices.Clone(b.Keys)), append(at, b.Position())
		b.Release()
	}
	return keys, at, l.BadSamples(), nil
}

// inOrder says that shards are to be read in order.
func inOrder(s config.DataSource) config.DataSource {
	s.Index, s.Buffer, s.Expect.Images = "never", 6, toydata.TrainImages+toydata.HeldoutImages
	return s
}

// change writes a shard anew.
func change(t *testing.T, path string, how func(data []byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, how(data), 0o666); err != nil {
		t.Fatal(err)
	}
}

// A bit that is flipped in a picture costs that picture alone: it is named and replaced, and everything else stays
// where it was, whether shards are read anywhere or in order.
func TestTrainingWithFlippedBits(t *testing.T) {
	dir := toyShards(t)
	disk := config.DataSource{Shards: filepath.Join(dir, "shard-{000000..000003}.tar"), Name: "toy"}
	for _, s := range []config.DataSource{disk, inOrder(disk)} {
		t.Run("index "+s.Index, func(t *testing.T) {
			path := filepath.Join(dir, "shard-000001.tar")
			whole, _, none, err := faulty(t, s, dataset.Position{}, 12)
			if err != nil || len(none) > 0 {
				t.Fatal(err, none)
			}
			var good []byte
			change(t, path, func(data []byte) []byte {
				good = bytes.Clone(data)
				data[bytes.Index(data, []byte("\xff\xd8"))] ^= 1 // of the first JPEG file in it
				return data
			})
			got, _, bad, err := faulty(t, s, dataset.Position{}, 12)
			change(t, path, func([]byte) []byte { return good })
			if err != nil || len(bad) != 1 || !strings.HasPrefix(bad[0].Key, "shard-000001.tar/") {
				t.Fatalf("%v, %+v", err, bad)
			}
			changed := 0
			for i := range whole {
				for slot, key := range whole[i] {
					if got[i][slot] != key {
						changed++
						if key != bad[0].Key {
							t.Errorf("batch %d, slot %d: %s and not %s", i, slot, got[i][slot], key)
						}
					}
				}
			}
			if changed == 0 {
				t.Error("nothing was replaced")
			}
		})
	}
}

// A shard that is cut off is used as far as it goes: what is missing is named with the shard and the byte.
func TestTrainingWithTruncatedShard(t *testing.T) {
	dir := toyShards(t)
	change(t, filepath.Join(dir, "shard-000002.tar"), func(data []byte) []byte { return data[:len(data)-5*512] })
	disk := config.DataSource{Shards: filepath.Join(dir, "shard-{000000..000003}.tar"), Name: "toy"}
	for _, s := range []config.DataSource{disk, inOrder(disk)} {
		_, _, bad, err := faulty(t, s, dataset.Position{}, 16)
		if err != nil || !slices.ContainsFunc(bad, func(b dataset.BadSample) bool {
			return strings.Contains(b.Reason, "shard-000002.tar, byte ") && strings.Contains(b.Reason, "cut off")
		}) {
			t.Errorf("index %q: %v, %+v", s.Index, err, bad)
		}
	}
}

// A shard that disappears half-way stops a training that reads in order with its name. When it is back, the training
// goes on where it was, in the order that it would have had. Read anywhere, its samples are bad ones, named.
func TestTrainingWithoutAShard(t *testing.T) {
	dir := toyShards(t)
	var gone atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() && strings.HasSuffix(r.URL.Path, "2.tar") {
			http.NotFound(w, r)
			return
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s := inOrder(config.DataSource{Shards: server.URL + "/shard-{000000..000003}.tar", Name: "toy"})
	whole, _, _, err := faulty(t, s, dataset.Position{}, 30)
	if err != nil {
		t.Fatal(err)
	}
	gone.Store(true)
	got, at, _, err := faulty(t, s, dataset.Position{}, 30)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/shard-000002.tar") {
		t.Fatalf("after %d batches: %v", len(got), err)
	}
	gone.Store(false)
	var start dataset.Position
	if len(at) > 0 {
		start = at[len(at)-1]
	}
	rest, _, _, err := faulty(t, s, start, 30-len(got))
	if err != nil || !slices.EqualFunc(slices.Concat(got, rest), whole, slices.Equal) {
		t.Errorf("continued behind batch %d: another order, %v", len(got), err)
	}

	disk := config.DataSource{Shards: filepath.Join(dir, "shard-{000000..000003}.tar"), Name: "toy"}
	training, err := Open(t.Context(), config.Data{Train: []config.DataSource{disk}}, Shards(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "shard-000000.tar")); err != nil {
		t.Fatal(err)
	}
	l, err := dataset.NewMixtureLoader(training.Mixture, nil, dataset.LoaderOptions{BatchSize: 16, ImageSize: 16, Seed: 3,
		Workers: 2, Prefetch: 1, MaxBadShare: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 4 {
		var tooMany *dataset.BadShareError
		_, err := l.Next(t.Context())
		if errors.As(err, &tooMany) && strings.Contains(tooMany.Examples[0].Reason, "shard-000000.tar, byte ") {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("a third of the data is missing, and the training goes on")
}
