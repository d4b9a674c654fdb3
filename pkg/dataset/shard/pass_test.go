package shard

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/dataset"
)

// passOf starts a reading from front to back that ends with the test.
func passOf(t testing.TB, set *dataset.StreamSet, state []byte) dataset.Pass {
	t.Helper()
	p, err := set.Once(context.Background(), state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// rest is what a reading gives up to its end, and where it stood before each sample and behind the last.
func rest(t testing.TB, p dataset.Pass) (all []string, states [][]byte) {
	t.Helper()
	done := p.Done()
	for {
		state, err := p.State()
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, state)
		s, err := p.Next(context.Background())
		if err == io.EOF {
			if p.Done() != 1 {
				t.Errorf("%g is done at the end", p.Done())
			}
			return all, states
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Done() < done || p.Done() > 1 {
			t.Errorf("first %g, then %g is done", done, p.Done())
		}
		done = p.Done()
		all = append(all, describe(t, &s))
	}
}

// A single reading gives every sample once, in the order of the shards, whatever the ranks and the buffer, and goes on
// at any sample where it was left.
func TestPass(t *testing.T) {
	shards := shardsOf(t, 10, 3, 25, 1, 12)
	packed := map[string][]byte{}
	for name, data := range shards {
		packed[name] = gzipped(t, data)
	}
	dir := inFolder(t, shards)
	x := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	var want []string
	for i := range x.Len() {
		e, err := x.Example(i)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e.Key)
	}
	o := small()
	o.NoIndex, o.Rank, o.Ranks = true, 1, 2
	for name, folder := range map[string]string{"disk": dir, "packed": inFolder(t, packed),
		"http": onServer(t, shards, nil), "packed over HTTP": onServer(t, packed, nil)} {
		set := openStreams(t, o, folder+"/s{000..004}.tar")
		got, states := rest(t, passOf(t, set, nil))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		for at := 0; at < len(states); at += 1 + at%4 {
			if got, _ := rest(t, passOf(t, set, states[at])); !slices.Equal(got, want[at:]) {
				t.Errorf("%s, from sample %d: %q, want %q", name, at, got, want[at:])
			}
		}
	}
}

// A reading says which samples and shards cannot be used, in their places, however many there are.
func TestPassWithDamage(t *testing.T) {
	shards := shardsOf(t, 4, 5, 6, 3)
	shards["s001.tar"][2*block] ^= 1 // pixels, or a header
	cut := len(shards["s002.tar"])
	shards["s002.tar"] = shards["s002.tar"][:cut-6*block]
	delete(shards, "s000.tar")
	url := onServer(t, shards, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/s003.tar" {
			http.Error(w, "", http.StatusForbidden)
		}
		return r.URL.Path == "/s003.tar"
	})
	set := openStreams(t, Options{}, url+"/s{000..003}.tar")
	p := passOf(t, set, nil)
	reasons := map[string]string{}
	var last string
	for {
		s, err := p.Next(context.Background())
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if last = s.Example.Key; s.Err != nil {
			reasons[s.Example.Key] = s.Err.Error()
		}
	}
	for key, want := range map[string]string{"s000.tar": "the shard cannot be read: ", "s003.tar": "/s003.tar: "} {
		if !strings.Contains(reasons[key], want) {
			t.Errorf("%s: %q does not contain %q", key, reasons[key], want)
		}
	}
	if !slices.ContainsFunc(slices.Collect(maps.Values(reasons)), func(s string) bool {
		return strings.Contains(s, "/s002.tar, byte ") && strings.Contains(s, "cut off")
	}) || last != "s003.tar" {
		t.Errorf("%q, the last is %s", reasons, last)
	}
	other := openStreams(t, Options{TopK: -1}, url+"/s{000..003}.tar")
	state, err := p.State()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Once(context.Background(), state); err == nil || other.Fingerprint == set.Fingerprint {
		t.Error("a reading with other captions goes on")
	}
	empty := openStreams(t, Options{}, onServer(t, map[string][]byte{"e.tar": make([]byte, 2*block)}, nil)+"/e.tar")
	if _, err := passOf(t, empty, nil).Next(context.Background()); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("shards without samples: %v", err)
	}
}

// max_texts holds for shards in order, too, in training and in a single reading.
func TestFirstTextsOfStreams(t *testing.T) {
	set := openStreams(t, Options{NoIndex: true}, filepath.Join(inFolder(t, shardsOf(t, 5)), "*.tar"))
	one := set.FirstTexts(1)
	for i, s := range []dataset.Stream{start(t, one, 1, nil), passOf(t, one, nil), passOf(t, set.FirstTexts(0), nil)} {
		sample, err := s.Next(context.Background())
		if err != nil || len(sample.Example.Captions) != []int{1, 1, 2}[i] {
			t.Errorf("stream %d: %q, %v", i, sample.Example.Captions, err)
		}
	}
	if one.Fingerprint == set.Fingerprint || one.Name != set.Name {
		t.Errorf("%q, %q", one.Fingerprint, one.Name)
	}
}
