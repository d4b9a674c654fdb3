package configured

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
)

// folder writes an annotation file of n pictures with two captions each, and the first picture.
func folder(t *testing.T, n int) config.DataSource {
	t.Helper()
	dir := t.TempDir()
	text := "file_name,caption\n"
	for i := range n {
		text += fmt.Sprintf("%d.png,one\n%d.png,two\n", i, i)
	}
	s := config.DataSource{Annotations: filepath.Join(dir, "captions.csv"), Images: dir}
	if err := errors.Join(os.WriteFile(s.Annotations, []byte(text), 0o644),
		os.WriteFile(filepath.Join(dir, "0.png"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	return s
}

func shares(m *dataset.Mixture) string {
	var all []string
	for _, s := range m.Shares() {
		all = append(all, fmt.Sprintf("%d of %d", s.Quota, s.Rows))
	}
	return strings.Join(all, ", ")
}

func TestOpen(t *testing.T) {
	small, large := folder(t, 10), folder(t, 40)
	web := config.DataSource{Shards: "s3://bucket/{0..9}.tar", Expect: config.Expect{Images: 100}, Share: 0.2}
	opener := func(_ context.Context, s config.DataSource) (dataset.Source, *dataset.StreamSet, error) {
		return nil, &dataset.StreamSet{Name: s.Shards}, nil
	}
	weighted := func(s config.DataSource, w float64) config.DataSource { s.Weight = w; return s }
	image := large
	image.Unit, image.MaxTexts = "image", 1
	for _, c := range []struct {
		data config.Data
		want string
	}{
		{config.Data{Train: []config.DataSource{small, large}}, "20 of 20, 80 of 80"},
		{config.Data{Train: []config.DataSource{small, image}}, "10 of 20, 40 of 40"},
		{config.Data{Train: []config.DataSource{small, large}, Unit: "image"}, "10 of 10, 40 of 40"},
		{config.Data{Train: []config.DataSource{small, image}, Mix: config.Mix{By: "rows"}}, "20 of 20, 40 of 40"},
		{config.Data{Train: []config.DataSource{weighted(small, 1), weighted(large, 1)},
			Mix: config.Mix{By: "weights", EpochRows: 60}}, "30 of 20, 30 of 80"},
		{config.Data{Train: []config.DataSource{small, web}, Mix: config.Mix{By: "blip1"}}, "20 of 20, 20 of 100"},
	} {
		got, err := Open(t.Context(), c.data, opener)
		if err != nil {
			t.Errorf("%+v: %v", c.data, err)
			continue
		}
		if shares(got.Mixture) != c.want || got.Source.Len() < 10 {
			t.Errorf("%+v: %s, want %s", c.data, shares(got.Mixture), c.want)
		}
	}
}

func TestErrorsNameTheDataSet(t *testing.T) {
	good := folder(t, 3)
	missing := good
	missing.Annotations += "x"
	stream := func(context.Context, config.DataSource) (dataset.Source, *dataset.StreamSet, error) {
		return nil, &dataset.StreamSet{Name: "web"}, nil
	}
	for _, c := range []struct {
		list   []config.DataSource
		shards ShardOpener
		want   string
	}{
		{[]config.DataSource{good, missing}, nil, "[1]: dataset: reading the annotation file"},
		{[]config.DataSource{{Shards: "x.tar"}}, nil, "[0]: shards cannot be read here"},
		{[]config.DataSource{{Shards: "x.tar"}}, stream, "web"},
	} {
		_, err := Open(t.Context(), config.Data{Train: c.list}, c.shards)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "data.") {
			t.Errorf("error %v does not contain %q", err, c.want)
		}
	}
	if _, err := Evaluation(t.Context(), "data.heldout", []config.DataSource{good, {Shards: "x"}}, stream); err == nil ||
		!strings.Contains(err.Error(), "data.heldout[1]: the shards can only be read in order") {
		t.Errorf("evaluation on a stream: %v", err)
	}
	if src, err := Evaluation(t.Context(), "data.heldout", []config.DataSource{good}, nil); err != nil || src.Len() != 3 {
		t.Errorf("%v", err)
	}
}

// TestEvalOptions: what the section says of pictures holds for evaluation sets, too.
func TestEvalOptions(t *testing.T) {
	got := EvalOptions(config.Data{EXIF: true, Truncated: "reject", Workers: 3, MaxBadShare: 0.25})
	if !got.EXIF || got.Truncated != dataset.TruncatedReject || got.Workers != 3 || got.MaxBadShare != 0.25 {
		t.Errorf("%+v", got)
	}
}
