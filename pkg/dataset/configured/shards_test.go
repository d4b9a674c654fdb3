package configured

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
	"blip2/pkg/internal/toydata"
)

// toyShards writes the toy data set as shards, and returns their folder.
func toyShards(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := toydata.Write(dir); err != nil {
		t.Fatal(err)
	}
	src, err := dataset.OpenCaptions(dataset.CaptionFile{Annotations: filepath.Join(dir, toydata.CaptionFile),
		Images: filepath.Join(dir, toydata.ImagesDir)})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "shards")
	if _, err := shard.Write(t.Context(), src, shard.WriteOptions{Dir: out, Samples: 5}); err != nil {
		t.Fatal(err)
	}
	return out
}

// batches takes n batches of a data set from a position on: keys and captions, and the position behind each.
func batches(t *testing.T, d config.Data, start dataset.Position, n int) (all [][]string, at []dataset.Position) {
	t.Helper()
	training, err := Open(t.Context(), d, Shards(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := dataset.NewMixtureLoader(training.Mixture, nil, dataset.LoaderOptions{BatchSize: 4, ImageSize: 16,
		MaxTextLen: 8, Seed: 7, Workers: 2, Prefetch: 2, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		b, err := l.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, slices.Concat(b.Keys, b.Captions))
		at = append(at, b.Position())
		b.Release()
	}
	return all, at
}

// Training takes shards from a disk and from a web server, anywhere and in order, and goes on where it was left.
func TestTrainingOnShards(t *testing.T) {
	dir := toyShards(t)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	disk := config.DataSource{Shards: filepath.Join(dir, "shard-{000000..000003}.tar"), Name: "toy"}
	web := config.DataSource{Shards: server.URL + "/shard-{000000..000003}.tar", Name: "toy"}
	inOrder := func(s config.DataSource) config.DataSource {
		s.Index, s.Buffer, s.Expect.Images = "never", 6, toydata.TrainImages+toydata.HeldoutImages
		return s
	}
	var first [2][][]string
	for i, pair := range [][]config.DataSource{{disk, web}, {inOrder(disk), inOrder(web)}} {
		for _, s := range pair {
			d := config.Data{Train: []config.DataSource{s}}
			want, at := batches(t, d, dataset.Position{}, 14)
			if first[i] == nil {
				first[i] = want
			}
			if !slices.EqualFunc(want, first[i], slices.Equal) {
				t.Errorf("%s, index %q: another order", s.Shards, s.Index)
			}
			if !strings.HasPrefix(want[0][0], "shard-") {
				t.Errorf("keys %q", want[0])
			}
			for _, left := range []int{0, 4, 9} {
				if got, _ := batches(t, d, at[left], 14-left-1); !slices.EqualFunc(got, want[left+1:], slices.Equal) {
					t.Errorf("%s, index %q, continued behind batch %d: another order", s.Shards, s.Index, left)
				}
			}
		}
	}
	if _, err := Evaluation(t.Context(), "data.heldout", []config.DataSource{disk}, Shards(nil)); err != nil {
		t.Error(err)
	}
}
