package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"blip2/pkg/dataset"
)

// inOrder is a source as a set that can only be read in order; given counts the samples that it gave.
func inOrder(src dataset.Source, given *int) *dataset.StreamSet {
	return &dataset.StreamSet{Name: src.Name(), Fingerprint: fmt.Sprint(src.Name(), src.Len()),
		Once: func(_ context.Context, state json.RawMessage) (dataset.Pass, error) {
			first := 0
			if state != nil {
				if err := json.Unmarshal(state, &first); err != nil {
					return nil, err
				}
			}
			return &pass{dataset.SourcePass(src, first), first, given}, nil
		}}
}

type pass struct {
	dataset.Pass
	at    int
	given *int
}

func (p *pass) Next(ctx context.Context) (dataset.Sample, error) {
	s, err := p.Pass.Next(ctx)
	if err == nil {
		p.at++
		*p.given++
	}
	return s, err
}

func (p *pass) State() (json.RawMessage, error) { return json.Marshal(p.at) }

// What is found in a stream is what is found where pictures can be read anywhere.
func TestCheckStream(t *testing.T) {
	want, err := Check(t.Context(), newPictures(t), CheckOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	given, percent := 0, 0
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for workers := range 4 {
		got, err := CheckStream(t.Context(), inOrder(newPictures(t), &given), CheckOptions{Workers: workers,
			Progress: func(done int) { percent = done }})
		if err != nil {
			t.Fatal(err)
		}
		want.Texts = 13 - 2 // nothing is known of a picture of a stream that cannot be read
		if !reflect.DeepEqual(got, want) || percent != 100 {
			t.Errorf("%d %%:\n%+v, want\n%+v", percent, got, want)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
}

// A check of a stream that was interrupted goes on where it was, and knows what it found before, duplicates included.
func TestCheckStreamGoesOn(t *testing.T) {
	const n = 3*blockSamples + 7
	many := func() *pictures {
		one, p := newPictures(t), &pictures{opened: make([]int, n)}
		for i := range n {
			p.files = append(p.files, append([]byte("no picture "), fmt.Sprint(i-100*(i/(n-3)))...))
			p.captions = append(p.captions, []string{fmt.Sprint("caption ", i)})
		}
		copy(p.files, one.files)
		copy(p.captions, one.captions)
		return p
	}
	given := 0
	whole, err := CheckStream(t.Context(), inOrder(many(), &given), CheckOptions{Workers: 2})
	if err != nil || whole.Pictures != n || whole.Duplicates != 4 || given != n {
		t.Fatalf("%d pictures, %d duplicates, %d given, %v", whole.Pictures, whole.Duplicates, given, err)
	}
	path := filepath.Join(t.TempDir(), "journal")
	for stop, seen := range map[int]int{2: 0, 300: 0, 700: 0} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		given = 0
		_, err := CheckStream(ctx, inOrder(many(), &given), CheckOptions{Workers: 3, Journal: path,
			Progress: func(int) {
				if seen++; seen == stop {
					cancel()
				}
			}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted: %v", err)
		}
		before := given
		got, err := CheckStream(t.Context(), inOrder(many(), &given), CheckOptions{Workers: 3, Journal: path})
		if err != nil || !reflect.DeepEqual(got, whole) {
			t.Errorf("stopped at %d: another report, %v", stop, err)
		}
		if given > n+1 { // the one that was read for nothing when the interrupt came
			t.Errorf("stopped at %d with %d samples, %d in all were given", stop, before, given)
		}
	}
	journal, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cut": journal[:len(journal)-5], "nothing": nil,
		"no journal": []byte("BLIP2CHK"),
		"flipped":    append(bytes.Clone(journal[:len(journal)/2]), strings.Repeat("x", len(journal)/2)...)} {
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := CheckStream(t.Context(), inOrder(many(), &given), CheckOptions{Workers: 1, Journal: path})
		if err != nil || !reflect.DeepEqual(got, whole) {
			t.Errorf("%s: another report, %v", name, err)
		}
		if data, err := os.ReadFile(path); err != nil || len(data) < len(journal)-2*blockSamples {
			t.Errorf("%s: the journal has %d bytes, %v", name, len(data), err)
		}
	}
	given = 0
	other := inOrder(many(), &given)
	other.Fingerprint = "another"
	if _, err := CheckStream(t.Context(), other, CheckOptions{Workers: 1, Journal: path}); err != nil || given != n {
		t.Errorf("the journal of another data set was used: %d given, %v", given, err)
	}
}

func TestMeasureStream(t *testing.T) {
	o := StatsOptions{Sample: -1, Within: 3, Length: func(text string) int { return len(strings.Fields(text)) + 1 }}
	p := newPictures(t)
	p.files[3] = []byte("nor this") // missing ones differ: of a stream's sample either everything is there or nothing
	want, err := Measure(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	given := 0
	got, err := MeasureStream(t.Context(), inOrder(p, &given), o)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n%+v, want\n%+v", err, got, want)
	}
	p.files[3] = nil
	if got, err := MeasureStream(t.Context(), inOrder(p, &given), StatsOptions{}); err != nil || got.Unusable != 1 ||
		got.Pictures != 6 || got.Sizes != nil {
		t.Errorf("%v, %+v", err, got)
	}
}

// FuzzStreamLog: whatever a block of a journal holds, it is refused, or written again it says the same.
func FuzzStreamLog(f *testing.F) {
	l := &streamLog{}
	if err := l.add(finding{"a", 7, 2, []Problem{{"a", NoText, "why"}}}, []byte(`{"at":1}`)); err != nil {
		f.Fatal(err)
	}
	block := append(append(appendText(nil, `{"at":1}`), 1), l.samples...)
	f.Add(block)
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		state, found, ok := parseBlock(data)
		if !ok || len(found) == 0 || len(found) >= blockSamples {
			return
		}
		l := &streamLog{}
		for _, s := range found {
			if err := l.add(s, state); err != nil {
				t.Fatal(err)
			}
		}
		again := append(binary.AppendUvarint(appendText(nil, string(l.next)), uint64(l.n)), l.samples...)
		stateAgain, foundAgain, ok := parseBlock(again)
		if !ok || !bytes.Equal(stateAgain, state) || !reflect.DeepEqual(foundAgain, found) {
			t.Fatalf("%+v becomes %+v", found, foundAgain)
		}
	})
}
