package shard

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/dataset"
)

// toy is a source of n pictures with two captions each; every seventh is bad.
type toy struct{ n int }

func (s toy) Name() string  { return "toy" }
func (s toy) Len() int      { return s.n }
func (s toy) Texts(int) int { return 2 }

func (s toy) Example(i int) (dataset.Example, error) {
	return dataset.Example{Key: fmt.Sprintf("folder/%d.jpg", i), ImageID: int64(i * 10), URL: "http://h/" + fmt.Sprint(i),
		License: "CC <BY>", Captions: []string{fmt.Sprintf("caption %d", i), "a \"second\" <one>", "третья"}}, nil
}

func (s toy) Open(i int) (io.ReadCloser, error) {
	switch {
	case i%21 == 7:
		return nil, errors.New("gone")
	case i%21 == 14:
		return io.NopCloser(strings.NewReader("<html>")), nil
	}
	return io.NopCloser(strings.NewReader(pixels(i))), nil
}

func folderOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(e.Name(), IndexSuffix) { // holds a time stamp
			data = nil
		}
		all[e.Name()] = string(data)
	}
	return all
}

// What is written is read back: pictures, captions, and what else is known, in the order of the source.
func TestWriteAndRead(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "new")
	o := WriteOptions{Dir: dir, Samples: 10, MaxBad: -1}
	m, err := Write(ctx, toy{45}, o)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Complete || len(m.Shards) != 5 || len(m.Left) != 4 || m.Left[0].Index != 7 || m.Left[0].Key != "folder/7.jpg" {
		t.Errorf("manifest %+v", m)
	}
	for _, s := range m.Shards { // they have their indexes
		if _, err := os.Stat(filepath.Join(dir, s.File+IndexSuffix)); err != nil {
			t.Error(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, s.File))
		if members, err2 := theirs(data); err != nil || err2 != nil || len(members) != 2*s.Samples {
			t.Errorf("%s: %d members, %v, %v", s.File, len(members), err, err2)
		}
	}
	x := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	at := 0
	for i := range 45 {
		if i%21 == 7 || i%21 == 14 {
			continue
		}
		want, _ := toy{}.Example(i)
		got, err := x.Example(at)
		want.Key = fmt.Sprintf("%s/%09d", m.Shards[at/10].File, i)
		if err != nil || x.Texts(at) != 3 || !slices.Equal(got.Captions, want.Captions) || got.Key != want.Key ||
			got.ImageID != want.ImageID || got.URL != want.URL || got.License != want.License {
			t.Fatalf("sample %d: %+v, %v; want %+v", at, got, err, want)
		}
		r, err := x.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(r); err != nil || string(data) != pixels(i) {
			t.Errorf("sample %d: %d bytes, %v", at, len(data), err)
		}
		at++
	}
	if at != x.Len() {
		t.Errorf("%d samples, want %d", x.Len(), at)
	}
	ranked := filepath.Join(t.TempDir(), "ranked")
	if _, err := Write(ctx, toy{5}, WriteOptions{Dir: ranked, Ranked: true}); err != nil {
		t.Fatal(err)
	}
	if y := openSource(t, Options{}, filepath.Join(ranked, "*.tar")); y.Texts(0) != 2 {
		t.Errorf("of ranked captions %d are used", y.Texts(0))
	}
}

// A writing that is stopped anywhere is continued by the same call, and leaves the same bytes.
func TestWriteContinues(t *testing.T) {
	o := WriteOptions{Samples: 9, MaxBytes: 12_000, MaxBad: -1, Dir: filepath.Join(t.TempDir(), "whole")}
	if _, err := Write(context.Background(), toy{60}, o); err != nil {
		t.Fatal(err)
	}
	want := folderOf(t, o.Dir)
	for name, data := range want {
		if len(data) > 12_000 && strings.HasSuffix(name, ".tar") {
			t.Errorf("%s has %d bytes", name, len(data))
		}
	}
	for _, stop := range []int{0, 1, 5} {
		o.Dir = filepath.Join(t.TempDir(), "part")
		ctx, cancel := context.WithCancel(context.Background())
		n := 0
		o.OnShard = func(Written, float64) {
			if n++; n > stop {
				cancel()
			}
		}
		_, err := Write(ctx, toy{60}, o)
		cancel()
		if err == nil || !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		// As after a kill between a shard and the manifest, and in the middle of a shard.
		writeFile(t, filepath.Join(o.Dir, fmt.Sprintf("shard-%06d.tar", stop+1)), []byte("half"))
		writeFile(t, filepath.Join(o.Dir, fmt.Sprintf(".shard-%06d.tar.1a2b3c4d.tmp", stop+1)), []byte("half"))
		told := 0
		o.OnShard = func(Written, float64) { told++ }
		m, err := Write(context.Background(), toy{60}, o)
		if err != nil || told != len(m.Shards) {
			t.Fatalf("continued at %d: told of %d shards, %v", stop, told, err)
		}
		got := folderOf(t, o.Dir)
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("continued at %d: %s is different", stop, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("continued at %d: %d files, want %d", stop, len(got), len(want))
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	if _, err := Write(ctx, toy{20}, WriteOptions{Dir: filepath.Join(dir, "a")}); err == nil ||
		!strings.Contains(err.Error(), "folder/7.jpg") {
		t.Errorf("bad samples: %v", err)
	}
	o := WriteOptions{Dir: filepath.Join(dir, "b"), MaxBad: 5}
	if _, err := Write(ctx, toy{20}, o); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(ctx, toy{21}, o); err == nil || !strings.Contains(err.Error(), "another source") {
		t.Errorf("another source: %v", err)
	}
	o.Samples = 7
	if _, err := Write(ctx, toy{20}, o); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("other settings: %v", err)
	}
	t.Chdir(dir)
	if _, err := Write(ctx, toy{5}, WriteOptions{Dir: "s3://bucket/x"}); err == nil ||
		!strings.Contains(err.Error(), "on this machine") {
		t.Errorf("a bucket: %v", err)
	}
	if _, err := os.Stat("s3:"); err == nil {
		t.Error("a folder is called s3:")
	}
	mine := filepath.Join(dir, "c")
	if err := os.Mkdir(mine, 0o777); err != nil {
		t.Fatal(err)
	}
	data := tarOf(t, tar.FormatUSTAR)
	writeFile(t, filepath.Join(mine, "shard-000000.tar"), data)
	if _, err := Write(ctx, toy{5}, WriteOptions{Dir: mine}); err == nil {
		t.Error("somebody else's shards are overwritten")
	}
	if got, err := os.ReadFile(filepath.Join(mine, "shard-000000.tar")); err != nil || !bytes.Equal(got, data) {
		t.Error("they were changed")
	}
}

// Shards written from shards that can only be read in order are those that are written from them by their indexes, and
// a writing that is stopped goes on without reading what is done.
func TestWriteStream(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 10, 3, 25, 1, 12))
	o := WriteOptions{Samples: 7, MaxBytes: 9_000, Dir: filepath.Join(t.TempDir(), "anywhere")}
	if _, err := Write(t.Context(), openSource(t, Options{}, filepath.Join(dir, "*.tar")), o); err != nil {
		t.Fatal(err)
	}
	want := folderOf(t, o.Dir)
	delete(want, ManifestName) // holds where the stream stood
	set := openStreams(t, Options{NoIndex: true}, filepath.Join(dir, "*.tar"))
	for _, stop := range []int{0, 1, 4, 100} {
		o.Dir = filepath.Join(t.TempDir(), "in order")
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		o.OnShard = func(Written, float64) {
			if n++; n > stop {
				cancel()
			}
		}
		if _, err := WriteStream(ctx, set, o); stop < 100 && !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		cancel()
		o.OnShard = nil
		var given []int
		counted := *set
		counted.Once = func(ctx context.Context, state json.RawMessage) (dataset.Pass, error) {
			given = append(given, len(state))
			return set.Once(ctx, state)
		}
		m, err := WriteStream(t.Context(), &counted, o)
		if err != nil || !m.Complete || m.Pictures != 51 {
			t.Fatalf("continued at %d: %+v, %v", stop, m, err)
		}
		if len(given) > 1 || len(given) == 1 && given[0] == 0 {
			t.Errorf("continued at %d: it was read from the beginning", stop)
		}
		got := folderOf(t, o.Dir)
		delete(got, ManifestName)
		if !maps.Equal(got, want) {
			t.Errorf("stopped at %d: other shards", stop)
		}
		other := openStreams(t, Options{NoIndex: true, TopK: -1, Name: set.Name}, filepath.Join(dir, "*.tar"))
		_, err = WriteStream(t.Context(), other, o)
		if err == nil || !strings.Contains(err.Error(), "choose another folder") {
			t.Errorf("other captions: %v", err)
		}
	}
}

// asked is a source of questions.
type asked struct{ toy }

func (s asked) Example(i int) (dataset.Example, error) {
	e, err := s.toy.Example(i)
	e.Captions = e.Captions[:i%2]
	for k := range i % 4 {
		e.Questions = append(e.Questions, dataset.Question{ID: fmt.Sprint(k), Text: "what is \"this\"?", Correct: -1,
			Answers: []dataset.Answer{{Text: "a cat", Weight: 0.7}, {Text: "кот", Weight: 0.3}}})
	}
	if i%4 == 3 {
		e.Questions[0].Choices, e.Questions[0].Correct, e.Questions[1].ID = []string{"cat", "dog"}, 1, ""
		e.Questions[2].Answers = nil
	}
	return e, err
}

// Questions are packed with their answers, the weights of these and choices, and come back as they were, anywhere and
// in order.
func TestWriteQuestions(t *testing.T) {
	o := WriteOptions{Dir: t.TempDir(), MaxBad: 1} // the first has neither captions nor questions
	src := asked{toy{4}}
	if m, err := Write(t.Context(), src, o); err != nil || len(m.Left) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	x := openSource(t, Options{}, o.Dir)
	p := passOf(t, openStreams(t, Options{NoIndex: true}, o.Dir), nil)
	for i := range x.Len() {
		want, err := src.Example(i + 1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := x.Example(i)
		s, err2 := p.Next(t.Context())
		if err := errors.Join(err, err2, s.Err); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.Questions, want.Questions) || !reflect.DeepEqual(s.Example.Questions, want.Questions) ||
			!slices.Equal(got.Captions, want.Captions) || x.Texts(i) != len(want.Captions)+len(want.Questions) {
			t.Errorf("sample %d: %+v, in order %+v, want %+v", i, got, s.Example, want)
		}
	}
	o.Dir, o.Ranked = t.TempDir(), true
	if _, err := Write(t.Context(), src, o); err == nil || !strings.Contains(err.Error(), "ranked captions go without") {
		t.Errorf("ranked: %v", err)
	}
}

// A source and a stream after another are written together, whatever they are, and continued in either.
func TestWriteInOrder(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 5, 6))
	var sets [3]*dataset.StreamSet
	x := openSource(t, Options{Name: "x"}, filepath.Join(dir, "s000.tar"))
	y := openStreams(t, Options{Name: "y", NoIndex: true}, filepath.Join(dir, "s001.tar"))
	for i, parts := range [][]dataset.Part{{{Source: x}, {Stream: y}}, {{Stream: y}, {Source: x}},
		{{Source: x}, {Stream: y}, {Source: x}}} {
		var err error
		if sets[i], err = dataset.InOrder(parts...); err != nil {
			t.Fatal(err)
		}
		all, states := rest(t, passOf(t, sets[i], nil))
		for at, state := range states {
			if got, _ := rest(t, passOf(t, sets[i], state)); !slices.Equal(got, all[at:]) {
				t.Errorf("set %d from sample %d: %q, want %q", i, at, got, all[at:])
			}
		}
		if n := []int{11, 11, 16}[i]; len(all) != n {
			t.Errorf("set %d has %d samples: %q", i, len(all), all)
		}
	}
	if sets[0].Fingerprint == sets[1].Fingerprint || sets[0].Name != "x and 1 more" {
		t.Errorf("%q, %q", sets[0].Fingerprint, sets[0].Name)
	}
	o := WriteOptions{Samples: 4, Dir: t.TempDir()}
	m, err := WriteStream(t.Context(), sets[2], o)
	if err != nil || m.Pictures != 16 || len(m.Shards) != 4 {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{`{"set":7}`, `{"set":0,"state":-1}`, `{"set":0,"state":"x"}`, `[]`} {
		if p, err := sets[0].Once(t.Context(), []byte(bad)); err == nil {
			t.Errorf("the state %s is taken: %v", bad, p)
		}
	}
	if _, err := dataset.InOrder(dataset.Part{Stream: &dataset.StreamSet{Name: "endless"}}); err == nil {
		t.Error("a stream without an end is read from front to back")
	}
}
