package dataset

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/tokenizer"
)

const cocoJSON = `{"info": {"year": 2014},
 "licenses": [{"id": 4, "name": "Attribution License", "url": "http://l/4"}],
 "images": [
  {"id": 9, "file_name": "train/b.jpg", "split": "train", "license": 4, "flickr_url": "http://f/b"},
  {"id": 5, "file_name": "a.jpg", "split": "train", "coco_url": "http://c/a"},
  {"id": 7, "file_name": "c.jpg", "split": "val"},
  {"id": 8, "file_name": "d.jpg", "split": "train"}],
 "annotations": [
  {"image_id": 5, "id": 1, "caption": "A dog."},
  {"image_id": 9, "id": 2, "caption": "Second"},
  {"image_id": "5", "id": 3, "caption": "a DOG\n"},
  {"image_id": 5, "id": 4, "caption": " !!! "},
  {"image_id": 7, "id": 5, "caption": "other split"},
  {"image_id": 8, "id": 6, "caption": ""},
  {"image_id": 99, "id": 7, "caption": "nowhere"}]}`

func TestOpenCOCO(t *testing.T) {
	file := writeFolder(t, cocoJSON, map[string][]byte{"train/b.jpg": nil})
	file.Split = "train"
	c, err := OpenCaptions(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []Example{
		{"train/b.jpg", filepath.Join(file.Images, "train", "b.jpg"), 9, []string{"Second"},
			"Attribution License http://l/4", "http://f/b"},
		{"a.jpg", filepath.Join(file.Images, "a.jpg"), 5, []string{"A dog.", "a DOG\n"}, "", "http://c/a"},
	}
	for i := range want {
		if i >= c.Len() || !reflect.DeepEqual(example(t, c, i), want[i]) {
			t.Errorf("examples %+v, want %+v", c.examples, want)
			break
		}
	}
	counts := CaptionCounts{Images: 2, Captions: 3, OtherSplit: 1, WithoutCaption: 1, EmptyCaptions: 2, UnknownImage: 1}
	if c.Len() != 2 || c.Counts() != counts || c.Name() != "captions.json" {
		t.Errorf("%q: %d examples, %+v, want %+v", c.Name(), c.Len(), c.Counts(), counts)
	}
	file.Split = ""
	if c, err = OpenCaptions(file); err != nil || c.Len() != 3 {
		t.Errorf("all splits: %v, %v", c, err)
	}
}

func TestOpenList(t *testing.T) {
	file := writeFolder(t, "\ufeff \n"+`[{"image": "val/COCO_val2014_000000000042.jpg", "caption": ["One.", "Two"]},
	  {"image": "x.png", "caption": "three", "image_id": "coco_17", "extra": {"a": [1]}},
	  {"image": "y.png", "captions": ["four"], "split": "s"},
	  {"image": "x.png", "caption": "five", "image_id": "coco_17"}]`, map[string][]byte{"y.png": nil})
	c, err := OpenCaptions(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range c.Len() {
		got = append(got, fmt.Sprint(example(t, c, i).ImageID, example(t, c, i).Captions))
	}
	if want := []string{"42 [One. Two]", "17 [three five]", "2 [four]"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAnnotationErrors(t *testing.T) {
	images := `{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": `
	for _, c := range []struct{ json, want string }{
		{"", "file is empty"},
		{"  \n", "file is empty"},
		{"<!DOCTYPE html><html>404", "HTML"},
		{"\x1f\x8b\x08", "gzip"},
		{"version https://git-lfs.github.com/spec/v1\n", "Git LFS"},
		{"caption,image\n", `not JSON (starts with "caption,image`},
		{cocoJSON[:len(cocoJSON)-20], "cut off"},
		{cocoJSON[:len(cocoJSON)-20], fmt.Sprintf("at byte %d (line 15)", len(cocoJSON)-20)},
		{"{\"images\":\n\n[}]}", "broken JSON at byte 14 (line 3)"},
		{`{"images": [], "annotations": []} x`, "broken JSON"},
		{`{"images": 3, "annotations": []}`, `"images" is a number, but should be a list`},
		{"{\"images\": [\n{\"id\": 1, \"file_name\": 7}]}", "line 2"},
		{`["a", "b"]`, "is a string, but should be an object"},
		{`{"questions": []}`, `lacks "images"`},
		{`{"images": []}`, `lacks "annotations"`},
		{`{"images": [], "annotations": []}`, "no images are listed"},
		{`[]`, "no images are listed"},
		{images + `[]}`, "no captions"},
		{images + `[{"image_id": 1, "caption": "..."}, {"image_id": 2, "caption": "x"}]}`, "1 empty, 1 of images not"},
		{images + `[{"image_id": 1, "category_id": 3}]}`, "annotation file for captions?"},
		{images + `[{"caption": "x"}]}`, `annotations[0] lacks "image_id"`},
		{images + `[{"image_id": [], "caption": "x"}]}`, "an id is []"},
		{`{"images": [{"id": "x", "file_name": "a.jpg"}], "annotations": []}`, `images[0]: the id "x"`},
		{`{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}], "annotations": []}`,
			"images[1]: the image id 1 occurs twice"},
		{`{"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": []}`, "leaves the image folder"},
		{`{"images": [{"id": 1, "file_name": "/etc/passwd"}], "annotations": []}`, "leaves the image folder"},
		{`{"images": [{"id": 1}], "annotations": []}`, "no file name"},
		{`[{"image": "x/../../a.jpg", "caption": "a"}]`, "item 0 of the list: the file name"},
		{`[{"image": "a.jpg"}]`, `item 0 of the list lacks "caption"`},
		{`[{"caption": "a"}]`, `item 0 of the list lacks "image"`},
		{`[{"image": "a.jpg", "caption": 4}]`, "a caption is 4"},
	} {
		file := writeFolder(t, c.json, nil)
		_, err := OpenCaptions(file)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file.Annotations) {
			t.Errorf("%.60q:\n error %v\n does not contain %q or the file", c.json, err, c.want)
		}
	}
}

func TestSplitErrors(t *testing.T) {
	file := writeFolder(t, cocoJSON, nil)
	file.Split = "test"
	if _, err := OpenCaptions(file); err == nil || !strings.Contains(err.Error(), `the file has "train", "val"`) {
		t.Errorf("unknown split: %v", err)
	}
	file = writeFolder(t, `[{"image": "a.jpg", "caption": "a"}]`, nil)
	file.Split = "test"
	if _, err := OpenCaptions(file); err == nil || !strings.Contains(err.Error(), "no split field") {
		t.Errorf("no split: %v", err)
	}
}

func TestMissingFiles(t *testing.T) {
	file := writeFolder(t, cocoJSON, nil)
	_, err := OpenCaptions(file)
	if err == nil || !strings.Contains(err.Error(), "train/b.jpg is missing") ||
		!strings.Contains(err.Error(), file.Images) {
		t.Errorf("no picture there: %v", err)
	}
	for _, broken := range []CaptionFile{
		{file.Annotations + "x", file.Images, "", ""},
		{file.Annotations, file.Images + "x", "", ""},
		{file.Annotations, file.Annotations, "", ""},
		{file.Annotations, "", "", ""},
	} {
		_, err := OpenCaptions(broken)
		if err == nil || !strings.Contains(err.Error(), file.Annotations) &&
			!strings.Contains(err.Error(), broken.Images) {
			t.Errorf("%+v: error %v", broken, err)
		}
	}
}

func TestConcat(t *testing.T) {
	if _, err := Concat(); err == nil {
		t.Error("no source is accepted")
	}
	a, b := &made{n: 3}, &made{n: 2, broken: map[int]bool{1: true}}
	s, err := Concat(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 5 || example(t, s, 3).ImageID != 1000 || example(t, s, 2).ImageID != 1002 {
		t.Errorf("%d pictures, %v, %v", s.Len(), example(t, s, 2), example(t, s, 3))
	}
	if _, err := s.Open(4); err == nil {
		t.Error("picture 4 is not the second of the second source")
	}
	if f, err := s.Open(3); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
}

// TestQuickstartData checks what ships with the project: the split, the licences, that every picture decodes and that
// every caption can be written with the reduced vocabulary.
func TestQuickstartData(t *testing.T) {
	dir := filepath.Join(repository(t), "data", "quickstart")
	words, err := tokenizer.LoadWordPiece(filepath.Join(dir, "vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if words.PadID() != 0 || words.VocabSize() > 4000 {
		t.Errorf("[PAD] is %d, %d pieces", words.PadID(), words.VocabSize())
	}
	attribution, err := os.ReadFile(filepath.Join(dir, "ATTRIBUTION.md"))
	if err != nil {
		t.Fatal(err)
	}
	for split, want := range map[string]int{"train": 100, "heldout": 18} {
		c, err := OpenCaptions(CaptionFile{Annotations: filepath.Join(dir, "captions.json"),
			Images: filepath.Join(dir, "images"), Split: split})
		if err != nil {
			t.Fatal(err)
		}
		if c.Len() != want || c.Counts().Captions != 5*want {
			t.Errorf("%s has %+v", split, c.Counts())
		}
		for i := range c.Len() {
			e := example(t, c, i)
			img, err := DecodeFile(e.ImagePath)
			if err != nil || max(img.W, img.H) > 320 {
				t.Errorf("%s: %v", e.Key, err)
			}
			if e.License == "" || !bytes.Contains(attribution, []byte(e.Key)) ||
				!bytes.Contains(attribution, []byte(e.URL)) {
				t.Errorf("%s: no attribution (licence %q)", e.Key, e.License)
			}
			for _, text := range e.Captions {
				ids := words.Encode(CaptionProcessor{}.Process(text))
				if len(ids) == 0 || slices.Contains(ids, words.UnkID()) {
					t.Errorf("%s: %q gives %v", e.Key, text, ids)
				}
			}
		}
	}
}

// TestQuickstartBatch takes a batch of the data that ships with the project all the way.
func TestQuickstartBatch(t *testing.T) {
	dir := filepath.Join(repository(t), "data", "quickstart")
	words, err := tokenizer.LoadWordPiece(filepath.Join(dir, "vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	src, err := OpenCaptions(CaptionFile{Annotations: filepath.Join(dir, "captions.json"),
		Images: filepath.Join(dir, "images"), Split: "train"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLoader(src, words, LoaderOptions{BatchSize: 20, ImageSize: 32, MaxTextLen: 16, Unit: UnitImage,
		Flip: 0.5, Workers: 2, Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 5 {
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range b.ImageIndex {
			e := example(t, src, int(id))
			processed := make([]string, len(e.Captions))
			for c, text := range e.Captions {
				processed[c] = CaptionProcessor{}.Process(text)
			}
			if !slices.Contains(processed, b.Captions[i]) || b.TextIDs[i*16] != words.CLSID() {
				t.Errorf("%s: caption %q", b.Keys[i], b.Captions[i])
			}
			pixels := b.Pixels[i*3*32*32 : (i+1)*3*32*32]
			if lo, hi := slices.Min(pixels), slices.Max(pixels); lo < -1.8 || hi > 2.2 || lo == hi {
				t.Errorf("%s: values from %g to %g", b.Keys[i], lo, hi)
			}
		}
		b.Release()
	}
}

// FuzzAnnotations checks that whatever is parsed is well-formed and nothing panics.
func FuzzAnnotations(f *testing.F) {
	f.Add([]byte(cocoJSON))
	f.Add([]byte(`[{"image": "a.jpg", "caption": ["x"], "image_id": "coco_1"}]`))
	f.Add([]byte(`[{"image": "../a.jpg", "caption": "x", "image_id": 1e5}]`))
	f.Add([]byte("\ufeff{}"))
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := parseAnnotations(data)
		if err != nil {
			return
		}
		if !json.Valid(bytes.TrimPrefix(data, []byte("\ufeff"))) {
			t.Fatalf("%q is no JSON, but parsed", data)
		}
		c := Captions{file: CaptionFile{Images: "folder"}}
		if err := c.collect(raw); err != nil {
			return
		}
		for _, e := range c.examples {
			rel, err := filepath.Rel("folder", e.ImagePath)
			if err != nil || strings.HasPrefix(rel, "..") || len(e.Captions) == 0 {
				t.Fatalf("example %+v", e)
			}
		}
	})
}
