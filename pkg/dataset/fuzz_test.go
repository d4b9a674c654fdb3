package dataset

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// memory is a file in memory.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// parsed collects a file in memory as OpenAnnotations does, but for the check that pictures are there.
func parsed(data []byte, format Format) (*Annotated, error) {
	a := &Annotated{file: AnnotationFile{Annotations: "fuzz", Images: "folder", Name: "fuzz"},
		licenses: map[string]string{}, patterns: []string{"%s.jpg"}, readers: sync.Pool{New: func() any { return &reader{} }}}
	d, err := newDocument("fuzz", memory{bytes.NewReader(data)}, int64(len(data)), format, Columns{})
	if err != nil {
		return nil, err
	}
	a.docs = []*document{d}
	return a, a.collect()
}

// checkParsed reads everything that was found again: it must be there, within the folder, and the same each time.
func checkParsed(t *testing.T, data []byte, format Format) {
	a, err := parsed(data, format)
	if a != nil {
		defer a.Close()
	}
	if err != nil {
		if !strings.Contains(err.Error(), "fuzz") {
			t.Fatalf("error %v does not name the file", err)
		}
		return
	}
	texts := 0
	for i := range a.Len() {
		e, err := a.Example(i)
		if err != nil {
			if a.table.heads.n == 0 && !strings.Contains(err.Error(), "image id") &&
				!strings.Contains(err.Error(), "leaves the image folder") {
				t.Fatalf("picture %d cannot be read again: %v", i, err)
			}
			continue
		}
		if n := len(e.Captions) + len(e.Questions); n != a.Texts(i) {
			t.Fatalf("picture %d has %d texts, Texts says %d", i, n, a.Texts(i))
		}
		texts += a.Texts(i)
		if e.ImagePath != "" {
			if rel, err := filepath.Rel("folder", e.ImagePath); err != nil || !filepath.IsLocal(rel) {
				t.Fatalf("picture %d is %s", i, e.ImagePath)
			}
		}
		for _, c := range e.Captions {
			if blank([]byte(c)) {
				t.Fatalf("picture %d has the caption %q", i, c)
			}
		}
		if a.docs[0].parquet != nil {
			if r, err := a.Open(i); err == nil {
				r.Close()
			}
		}
	}
	if n := a.counts.Captions + a.counts.Questions; n < texts {
		t.Fatalf("%d texts, counted %d", texts, n)
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add([]byte(cocoJSON))
	for _, text := range []string{
		`[{"image": "a.jpg", "caption": ["x"], "image_id": "coco_1"}]`,
		`[{"image": "../a.jpg", "caption": "x", "image_id": 1e5}]`,
		`{"k": {"image": "a", "question": "q", "answer": ["y", "n"], "choices": ["y"], "correct_choice_idx": 0}, "k": {}}`,
		`{"images": [{"filepath": "v", "filename": "f", "sentences": [{"raw": "A"}], "cocoid": 9}]}`,
		`{"questions": [{"image_id": 1, "question": "q", "question_id": 2}], "annotations": [{"question_id": 2}]}`,
		`[{"id": 1, "regions": [{"phrase": "a"}]}, {"id": 2, "qas": [{"question": "q", "answer": "a", "qa_id": 3}]}]`,
		`[["q", "a", 0], ["q", "a", "../0"], ["q", "a", "..0"]]`, "\ufeff{}", "<html>", "{\"image\":\"a\",\"caption\":\"b\"}\n{}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkParsed(t, data, FormatJSON) })
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"image\":\"a\",\"caption\":\"b\"}\r\n\n{\"image_id\":1,\"question\":\"b\"}"))
	f.Add([]byte("{\"image\":\"a\",\"caption\":[\"b\",\"c\"]}\n{\"image\":\"a\",\"caption\":\"d\"}"))
	f.Fuzz(func(t *testing.T, data []byte) { checkParsed(t, data, FormatJSONL) })
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("image,caption\na.jpg,\"one, \"\"two\"\"\nthree\"\r\nb.jpg,four"), true)
	f.Add([]byte("caption\tpath\n\"quoted\" word\ta.jpg\n"), false)
	f.Add([]byte("path;text;text\n/a;b;c\n"), true)
	f.Add([]byte("caption\tpath\na\t...\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, csv bool) {
		if csv {
			checkParsed(t, data, FormatCSV)
		} else {
			checkParsed(t, data, FormatTSV)
		}
	})
}

// FuzzParquet begins with small files: what is found on the way is made smaller byte by byte, which takes minutes for
// large ones.
func FuzzParquet(f *testing.F) {
	data, err := os.ReadFile(recordedParquet("names.parquet"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	type row struct {
		Path    string   `parquet:"path,delta"`
		Caption []string `parquet:"caption,list,dict,snappy"`
		ImageID int64    `parquet:"image_id,delta"`
		Picture []byte   `parquet:"jpg,optional,gzip"`
	}
	for _, version := range []int{1, 2} {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[row](&b, parquet.DataPageVersion(version))
		_, err := w.Write([]row{{"a/1.jpg", []string{"x", "y"}, 5, []byte("P")}, {"a/2.jpg", []string{"x"}, 6, nil}})
		if err := errors.Join(err, w.Close()); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkParsed(t, data, FormatParquet) })
}

// TestHostileFiles: what would take memory without end is refused while little is held.
func TestHostileFiles(t *testing.T) {
	long := strings.Repeat("a", maxLine)
	for name, c := range map[string]struct {
		data   string
		format Format
		want   string
	}{
		"line without an end": {`{"image": "` + long + `"`, FormatJSONL, "longer than 1024 KiB"},
		"open quote":          {"image,caption\na,\"" + strings.Repeat("b\n", maxLine), FormatCSV, "an open quote?"},
		"many columns":        {"image,caption" + strings.Repeat(",x", maxLine/4) + "\na,b\n", FormatCSV, "2 fields"},
		"deep":                {strings.Repeat("[", 1<<20), FormatJSON, "cut off"},
		"deep and closed": {`[{"x": ` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + "}]", FormatJSON,
			"nested"},
		"entry without end": {`[{"image": "` + strings.Repeat("a", maxItem), FormatJSON, "longer than 16 MiB"},
		"too many texts": {`[{"image": "a", "caption": [` + strings.Repeat(`"x",`, maxTexts) + `"x"]}]`, FormatJSON,
			"65536 texts"},
		"wrong types": {`[{"image": ["a"], "caption": "x"}]`, FormatJSON, `"image" is a list`},
		"bomb":        {packedText(strings.Repeat("0", 40<<20)), FormatAuto, "300 times"},
	} {
		a, err := parsed([]byte(c.data), c.format)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not contain %q", name, err, c.want)
		}
		if a != nil {
			a.Close()
		}
	}
}
