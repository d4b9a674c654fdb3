package caption

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// readTexts reads two files of the given names and contents.
func readTexts(t testing.TB, resultsName, results, annotationsName, annotations string) (*Set, error) {
	t.Helper()
	dir := t.TempDir()
	r, a := filepath.Join(dir, resultsName), filepath.Join(dir, "a", annotationsName)
	if err := os.Mkdir(filepath.Dir(a), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{r: results, a: annotations} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Read(r, a)
}

const cocoAnnotations = `{"images": [{"id": 1, "domain": "in-domain"}, {"id": 2, "domain": "out-domain"}],
  "annotations": [{"image_id": 2, "id": 0, "caption": "c"}, {"image_id": 1, "id": 1, "caption": "a"},
  {"image_id": 1, "id": 2, "caption": "b"}]}`

const twoResults = `[{"image_id": 1, "caption": "x"}, {"image_id": 2, "caption": "y"}]`

// zipped is a text compressed with gzip.
func zipped(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	one := []Item{{"1", "x", []string{"a", "b"}}, {"2", "y", []string{"c"}}}
	plain := []Item{{"0", "x", []string{"a", "b"}}, {"1", "y", []string{"c"}}}
	for _, tt := range []struct {
		name, resultsFile, results, annotationsFile, annotations string
		want                                                     []Item
	}{
		{"COCO", "r.json", `[{"image_id": 2, "caption": "y"}, {"image_id": 1, "caption": "x"}]`, "a.json",
			cocoAnnotations, one},
		{"no images", "r.json", twoResults, "a.json",
			`{"annotations": [{"image_id": 1, "caption": "a"}, {"image_id": "2", "caption": "c"},
			  {"image_id": 1, "caption": "b"}]}`, one},
		{"LAVIS", "r.json", twoResults, "a.json",
			`[{"image": "val2014/COCO_val2014_000000000001.jpg", "caption": ["a", "b"]},
			  {"image": "x_2.jpg", "caption": "c"}]`, one},
		{"LAVIS's NoCaps", "r.json", twoResults, "a.json",
			`[{"image": "val/0013.jpg", "img_id": 1, "caption": "a"},
			  {"image": "val/0014.jpg", "img_id": 2, "caption": "c"},
			  {"image": "val/0013.jpg", "img_id": 1, "caption": "b"}]`, one},
		{"by id", "r.json", `{"1": "x", "2": ["y"]}`, "a.json", `{"1": ["a", "b"], "2": "c"}`, one},
		{"plain JSON", "r.json", `["x", "y"]`, "a.json", `[["a", "b"], "c"]`, plain},
		{"text", "r.txt", "x\ny\n", "a.txt", "a\tb\r\nc\n", plain},
		{"text to COCO", "r.txt", "x\ny", "a.json", cocoAnnotations, one},
		{"lines of JSON", "r.jsonl", `{"image_id": 1, "caption": "x"}` + "\r\n" +
			`{"image_id": "2", "caption": "y"}` + "\n", "a.json", cocoAnnotations, one},
		{"lines of blip2 generate", "r.jsonl",
			`{"image": "val/COCO_val2014_000000000001.jpg", "prompt": "", "text": "x", "texts": []}
			{"image": "2.jpg", "prompt": "", "text": "y", "texts": []}`, "a.json", cocoAnnotations, one},
		{"a byte order mark", "r.json", "\ufeff[\"x\", \"y\"]", "a.txt", "\ufeffa\tb\nc\n", plain},
		{"gzip", "r.json.gz", zipped(t, twoResults), "a.json.gz", zipped(t, cocoAnnotations), one},
		{"gzip of text", "r.txt.gz", zipped(t, "x\ny\n"), "a.txt.gz", zipped(t, "a\tb\nc\n"), plain},
		{"a name twice in an object: the last", "r.json",
			`[{"image_id": 7, "image_id": 1, "caption": "q", "caption": "x", "Caption": "z"}, {"image_id": 2, "caption": "y"}]`,
			"a.json", cocoAnnotations, one},
	} {
		set, err := readTexts(t, tt.resultsFile, tt.results, tt.annotationsFile, tt.annotations)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if !reflect.DeepEqual(set.Items, tt.want) || len(set.Warnings) > 0 || set.Pictures != 2 || set.References != 3 {
			t.Errorf("%s: %+v, want %+v", tt.name, set, tt.want)
		}
	}
}

func TestErrorsNamePlaces(t *testing.T) {
	ok := `[{"image_id": 1, "caption": "x"}]`
	for _, tt := range []struct{ results, annotations, says string }{
		{``, cocoAnnotations, "r.json: line 1: unexpected end of JSON input"},
		{`{`, cocoAnnotations, "r.json: line 1: unexpected end"},
		{"[\n1,\n}", cocoAnnotations, "r.json: line 3: invalid character"},
		{`[1]`, cocoAnnotations, "r.json: entry 0: is a number, want an object"},
		{`[]`, cocoAnnotations, "r.json: there are no captions in it"},
		{`7`, cocoAnnotations, "r.json: is a number, want a list"},
		{`[{"image_id": 1, "caption": "x"}, {"image_id": 2}]`, cocoAnnotations, "r.json: entry 1: caption is missing"},
		{`[{"image_id": 1, "caption": 5}]`, cocoAnnotations, "r.json: entry 0: caption: is a number, want a string"},
		{`[{"image_id": 1, "caption": null}]`, cocoAnnotations, "r.json: entry 0: caption: is null, want a string"},
		{`[{"caption": "x"}]`, cocoAnnotations, "r.json: entry 0: image_id is missing"},
		{`[{"image_id": 1.5, "caption": "x"}]`, cocoAnnotations, "r.json: entry 0: image_id is 1.5, want a whole number"},
		{`[{"image_id": [1], "caption": "x"}]`, cocoAnnotations, "r.json: entry 0: image_id is a list, want a whole number"},
		{`["x", {"image_id": 1, "caption": "x"}]`, cocoAnnotations, "r.json: entry 1: some entries are plain texts"},
		{`{"1": ["x", "y"]}`, cocoAnnotations, "picture 1 has 2 captions, want 1"},
		{`{"1": "x", "2": "y", "1": "z"}`, cocoAnnotations, `r.json: entry 2: picture "1" was there before`},
		{`{"": "x"}`, cocoAnnotations, "r.json: entry 0: a picture has the empty name"},
		{`{"1": [3]}`, cocoAnnotations, `"1"[0]: is a number, want a string`},
		{"[{\"image_id\": 1, \"caption\": \"\xff\"}]", cocoAnnotations, "r.json: byte 29 is not UTF-8"},
		{`["x"]`, cocoAnnotations, "1 captions without ids, but"},
		{ok, `["a"]`, "the pictures have no ids"},
		{ok, `{"images": [{}], "annotations": []}`, "a.json: images[0]: id is missing"},
		{ok, `{"images": 3, "annotations": []}`, "a.json: images: is a number, want a list"},
		{ok, `{"annotations": [{"image_id": 1, "caption": "a"}, 3]}`, "a.json: annotations[1]: is a number"},
		{ok, `{"annotations": [{"image_id": 1, "caption": ["a"]}]}`, "a.json: annotations[0]: caption: is a list"},
		{ok, `[{"image": "x_1.jpg"}]`, "a.json: entry 0: caption is missing"},
		{ok, `[{"image": "x_1.jpg", "caption": ["a", 2]}]`, "a.json: entry 0: caption[1]: is a number"},
		{ok, `[{"caption": "a"}]`, "a.json: entry 0: image_id, img_id or image is missing"},
		{ok, `[]`, "a.json: there are no pictures in it"},
		{ok, `{"9": "a"}`, "do the files belong together?"},
	} {
		_, err := readTexts(t, "r.json", tt.results, "a.json", tt.annotations)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s and %.40s: %v; want %q", tt.results, tt.annotations, err, tt.says)
		}
	}
}

func TestWarnings(t *testing.T) {
	set, err := readTexts(t, "r.json", `[{"image_id": 1, "caption": "?"}, {"image_id": "1", "caption": "z"},
		{"image_id": 9, "caption": "q"}, {"image_id": 4, "caption": "w"}]`, "captions_val2014.json",
		`{"images": [{"id": 1}, {"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}], "annotations": [
		{"image_id": 1, "id": 5, "caption": "."}, {"image_id": 2, "id": 5, "caption": "b"},
		{"image_id": 8, "id": 6, "caption": "b"}, {"image_id": 3, "id": 7, "caption": "b"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	set.CheckTokens(Tokenize(set.Items))
	for _, want := range []string{
		"1 pictures are in images twice; each counts once: 1",
		"1 annotations have an id that came before; all count: 5",
		"1 annotations are of pictures that are not in images; they do not count: 8",
		"2 of 4 pictures have no result and are left out: 2, 3",
		"1 pictures have no reference and are left out: 4",
		"1 results are of pictures that the annotations do not have; they do not count: 9",
		"1 results are of a picture that had one before; the first counts: 1",
		"the annotations have 4 pictures; coco-val2014 has 40504",
		"1 captions have no word: 1",
		"1 pictures have references without a word only: 1",
	} {
		found := false
		for i, got := range set.Warnings {
			if got == want {
				set.Warnings[i], found = "", true
			}
		}
		if !found {
			t.Errorf("no warning %q", want)
		}
	}
	if rest := strings.Join(set.Warnings, ""); rest != "" {
		t.Errorf("more warnings: %s", rest)
	}
}

func TestSplit(t *testing.T) {
	set, err := readTexts(t, "r.json", `["a dog", "a cat"]`, "a.json", cocoAnnotations)
	if err != nil {
		t.Fatal(err)
	}
	split, err := EvaluateSplit(t.Context(), set, "domain", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(split.Parts) != 2 || split.Part("in-domain").Alone.Images != 1 || split.Part("near-domain") != nil {
		t.Errorf("parts %+v", split.Parts)
	}
	_, err = EvaluateSplit(t.Context(), set, "colour", Options{})
	if err == nil || !strings.Contains(err.Error(), "do not say its colour") {
		t.Errorf("error %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`[{"image_id": 2, "caption": "y"}]`, cocoAnnotations)
	f.Add(`["x", "y"]`, `[["a", "b"], "c"]`)
	f.Add(`{"1": "x"}`, `[{"image": "x_1.jpg", "caption": ["a"]}]`)
	f.Add(`[{"image_id": 2`, "{\"annotations\": [}")
	f.Fuzz(func(t *testing.T, results, annotations string) {
		r, err := newDocument("r.json", []byte(results))
		if err != nil {
			return
		}
		a, err := newDocument("a.json", []byte(annotations))
		if err != nil {
			return
		}
		set, err := newSet(r, a)
		if err != nil {
			if !strings.Contains(err.Error(), ".json") {
				t.Errorf("error %v names no file", err)
			}
			return
		}
		images := Tokenize(set.Items)
		set.CheckTokens(images)
		if _, err := Evaluate(t.Context(), images, Options{}); err != nil {
			t.Error(err)
		}
	})
}

// TestFilesThatAreNotResults says what else they are.
func TestFilesThatAreNotResults(t *testing.T) {
	for want, results := range map[string]string{
		"are the two files exchanged": cocoAnnotations,
		"is the file whole":           zipped(t, twoResults)[:30],
		"entry 1: caption is missing": `{"image_id": 1, "caption": "x"} {"image_id": 2}`,
		"value 1: line 2: invalid":    `{"image_id": 1, "caption": "x"}` + "\n{x}",
		"entry 0: caption: is a list": `{"image_id": 1, "caption": ["x"]}`,
		`"1": is a number`:            `{"1": 7}`,
	} {
		_, err := readTexts(t, "r.json", results, "a.json", cocoAnnotations)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v; want %s", results, err, want)
		}
	}
	_, err := readTexts(t, "r.json", twoResults, "a.json", `{"images": [{"cocoid": 1, "sentences": [{"raw": "a"}]}]}`)
	if err == nil || !strings.Contains(err.Error(), "images but no annotations") {
		t.Errorf("Karpathy's file: %v", err)
	}
	if _, err := unpack([]byte(zipped(t, "12345")), 4); err == nil || !strings.Contains(err.Error(), "more than 4") {
		t.Errorf("an archive that unpacks to more than is allowed: %v", err)
	}
}
