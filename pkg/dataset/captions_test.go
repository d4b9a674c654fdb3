package dataset

import (
	"bytes"
	"context"
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
		{Key: "train/b.jpg", ImagePath: filepath.Join(file.Images, "train", "b.jpg"), ImageID: 9,
			Captions: []string{"Second"}, License: "Attribution License http://l/4", URL: "http://f/b"},
		{Key: "a.jpg", ImagePath: filepath.Join(file.Images, "a.jpg"), ImageID: 5,
			Captions: []string{"A dog.", "a DOG\n"}, URL: "http://c/a"},
	}
	for i := range want {
		if i >= c.Len() || !reflect.DeepEqual(example(t, c, i), want[i]) {
			t.Errorf("example %d of %d is not %+v", i, c.Len(), want[i])
			break
		}
	}
	counts := Counts{Images: 2, Captions: 3, OtherSplit: 1, WithoutText: 1, EmptyTexts: 2, UnknownImage: 1}
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
	for _, c := range []struct{ text, want string }{
		{"", "file is empty"},
		{"  \n", "file is empty"},
		{"<!DOCTYPE html><html>404", "HTML"},
		{"PK\x03\x04xx", "zip"},
		{"\x1f\x8b\x08", "unpacking"},
		{"(\xb5/\xfd\x04\x00", "zstd"},
		{"version https://git-lfs.github.com/spec/v1\n", "Git LFS"},
		{"plain words\n", `neither JSON nor a table (starts with "plain words`},
		{"caption,size\na,2\n", "line 1: no column is known to hold the file names"},
		{"image,path,caption\na,b,c\n", `line 1: the columns "image" and "path"`},
		{"image,caption\na.jpg,one\nb.jpg,two,more\n", "line 3 (byte 24): it has 3 fields"},
		{"image,caption\na.jpg,caf\xe9\n", "line 2 (byte 14): the text is not UTF-8"},
		{"\xff\xfei\x00m\x00", "UTF-16"},
		{"image,caption\na.jpg,one\nb.jpg,\"open\n\n", "line 3 (byte 24): a quote is opened and never closed"},
		{"image,caption\n../a.jpg,one\n", "line 2 (byte 14): the file name"},
		{`{"image": "a.jpg", "caption": "x"}` + "\n{\n", "line 2 (byte 36): broken JSON"},
		{`{"image": "a.jpg", "caption": "x"}` + "\n[\"q\", \"a\"]\n", "a row of 2 values"},
		{cocoJSON[:len(cocoJSON)-20], "cut off"},
		{cocoJSON[:len(cocoJSON)-20], fmt.Sprintf("line 15 (byte %d)", len(cocoJSON)-20)},
		{"{\"images\":\n\n[}]}", "line 3 (byte 13): broken JSON: a value is missing"},
		{`{"images": [], "annotations": []} x`, "broken JSON: there is more"},
		{`{"images": 3, "annotations": []}`, `the object lacks "images"`},
		{"{\"images\": [\n{\"id\": 1, \"file_name\": 7}]}", "line 2 (byte 13): images[0]"},
		{`["a", "b"]`, "it is a text, but should be an object"},
		{`[7]`, "it is a number, but should be an object"},
		{`{"images": [{"id": 1, "file_name": "a.jpg"}]}`, `lacks "annotations"`},
		{`{"annotations": []}`, `lacks "images"`},
		{`{"images": [], "annotations": []}`, "no images are listed"},
		{`{"questions": []}`, "no images are listed"},
		{`[]`, "no images are listed"},
		{`{}`, "no images are listed"},
		{images + `[]}`, "no captions"},
		{images + `[{"image_id": 1, "caption": "..."}, {"image_id": 2, "caption": "x"}]}`, "1 empty texts, 1 of images not"},
		{images + `[{"image_id": 1, "category_id": 3}]}`, "annotation file for captions?"},
		{images + `[{"caption": "x"}]}`, `annotations[0]: it lacks "image_id"`},
		{images + `[{"image_id": [], "caption": "x"}]}`, `"image_id" is a list`},
		{images + `[{"image_id": 1, "question_id": 2, "answers": []}]}`, "name the file of the questions"},
		{`{"images": [{"id": "x", "file_name": "a.jpg"}], "annotations": []}`, `images[0]: the id "x"`},
		{`{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}], "annotations": []}`,
			"images[1]: the image id 1 occurs twice"},
		{`{"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": []}`, "leaves the image folder"},
		{`{"images": [{"id": 1, "file_name": "/etc/passwd"}], "annotations": []}`, "leaves the image folder"},
		{`{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "x"}]}`, "a picture with the id 1 is missing"},
		{`[{"image": "x/../../a.jpg", "caption": "a"}]`, "item 0 of the list: the file name"},
		{`[{"image": "a\u0000.jpg", "caption": "a"}]`, "zero byte"},
		{`[{"image": "` + strings.Repeat("a", 5000) + `", "caption": "a"}]`, "5000 bytes long"},
		{`[{"image": "a.jpg"}]`, `item 0 of the list: it lacks "caption"`},
		{`[{"caption": "a"}]`, `item 0 of the list: it lacks "image"`},
		{`[{"image": "a.jpg", "caption": 4}]`, "a caption is 4"},
		{`[{"image": "a.jpg", "caption": {"de": ["x"]}}, 5]`, "item 1 of the list: it is a number"},
		{`[{"image": "a.jpg", "caption": "a", "x": ` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}]`,
			"nested more than"},
	} {
		file := writeFolder(t, c.text, nil)
		_, err := OpenCaptions(file)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file.Annotations) {
			t.Errorf("%.60q:\n error %v\n does not contain %q or the file", c.text, err, c.want)
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
		{Annotations: file.Annotations + "x", Images: file.Images},
		{Annotations: file.Annotations, Images: file.Images + "x"},
		{Annotations: file.Annotations, Images: file.Annotations},
		{Annotations: file.Annotations},
		{Annotations: filepath.Dir(file.Annotations), Images: file.Images},
		{Annotations: filepath.Join(filepath.Dir(file.Annotations), "*.csv"), Images: file.Images},
	} {
		_, err := OpenCaptions(broken)
		if err == nil || !strings.Contains(err.Error(), file.Annotations) &&
			!strings.Contains(err.Error(), broken.Annotations) && !strings.Contains(err.Error(), broken.Images) {
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
