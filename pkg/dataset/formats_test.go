package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listing writes what a source holds, a line per picture.
func listing(t *testing.T, src Source) string {
	t.Helper()
	var b strings.Builder
	for i := range src.Len() {
		e := example(t, src, i)
		if n := len(e.Captions) + len(e.Questions); n != src.Texts(i) {
			t.Errorf("picture %d has %d texts, Texts says %d", i, n, src.Texts(i))
		}
		fmt.Fprintf(&b, "%s #%d", e.Key, e.ImageID)
		for _, c := range e.Captions {
			fmt.Fprintf(&b, " %q", c)
		}
		for _, q := range e.Questions {
			fmt.Fprintf(&b, " %s:%q", q.ID, q.Text)
			for _, a := range q.Answers {
				fmt.Fprintf(&b, " %s=%g", a.Text, a.Weight)
			}
			if len(q.Choices) > 0 {
				fmt.Fprintf(&b, " %v[%d]", q.Choices, q.Correct)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func packedText(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// ten is VQA's list of answers.
func ten(answers string) string {
	var all []string
	for i, a := range strings.Fields(answers) {
		all = append(all, fmt.Sprintf(`{"answer": %q, "answer_confidence": "yes", "answer_id": %d}`, a, i+1))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func TestFormats(t *testing.T) {
	vqa := `{"questions": [{"image_id": 42, "question": "What is it?", "question_id": 420},
		{"image_id": 7, "question": "How many?", "question_id": 70}, {"image_id": 42, "question": "Why?",
		"question_id": 421}], "data_subtype": "val2014", "info": {"images": []}}`
	for _, c := range []struct {
		name, text, picture string
		file                AnnotationFile
		questions           string
		want                string
	}{
		{name: "LAVIS list of captions", picture: "a/x.jpg",
			text: `[{"image": "a/x.jpg", "caption": "One.", "image_id": "coco_5"},
				{"image": "a/y.jpg", "caption": "Two", "image_id": "coco_6", "dataset": "coco"},
				{"image": "a/x.jpg", "caption": "Three", "image_id": "coco_5"}]`,
			want: `a/x.jpg #5 "One." "Three"|a/y.jpg #6 "Two"`},
		{name: "LAVIS object: the key is the sample id", picture: "x.jpg",
			text: `{"17": {"image": "x.jpg", "caption": "one"}, "s \u0041\"18": {"image": "y.jpg", "caption": "two"}}`,
			want: `x.jpg #17 "one"|y.jpg #1 "two"`},
		{name: "captions of evaluation", picture: "val2014/COCO_val2014_000000000042.jpg",
			text: `[{"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["a", "b", "...", "c"]}]`,
			want: `val2014/COCO_val2014_000000000042.jpg #42 "a" "b" "c"`},
		{name: "annotations before images", picture: "a.jpg",
			text: `{"annotations": [{"image_id": 2, "caption": "two"}, {"image_id": 1, "caption": "one"},
				{"image_id": 2, "caption": "too"}], "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]}`,
			want: `a.jpg #1 "one"|b.jpg #2 "two" "too"`},
		{name: "Karpathy", picture: "val2014/c_9.jpg", file: AnnotationFile{Split: "train+restval"},
			text: `{"images": [{"filepath": "val2014", "sentids": [1], "filename": "c_9.jpg", "imgid": 0, "split": "restval",
				"sentences": [{"tokens": ["a"], "raw": "A.", "imgid": 0, "sentid": 1}, {"raw": "B", "sentid": 2}], "cocoid": 9},
				{"filename": "f.jpg", "split": "test", "sentences": [{"raw": "C"}]},
				{"filename": "f.jpg", "split": "train", "sentences": [{"raw": "D"}]}], "dataset": "coco"}`,
			want: `val2014/c_9.jpg #9 "A." "B"|f.jpg #1 "D"`},
		{name: "LAVIS VQA", picture: "x.jpg",
			text: `[{"question_id": 1, "question": "Q?", "answer": ["yes", "no", "yes", "yes"], "image": "x.jpg",
				"dataset": "vqa"},
				{"question_id": "b", "question": "R?", "image": "x.jpg"},
				{"image": "x.jpg", "question": "S?", "question_id": 3, "answer": "blue", "dataset": "vg"}]`,
			want: `x.jpg #0 1:"Q?" yes=0.75 no=0.25 b:"R?" 3:"S?" blue=1`},
		{name: "official VQA", picture: "COCO_val2014_000000000042.jpg", questions: vqa,
			text: `{"annotations": [{"question_id": 70, "image_id": 7, "multiple_choice_answer": "2", "answers": ` +
				ten("2 2 3 2 2 2 2 2 2 2") +
				`}, {"image_id": 42, "question_id": 420, "answers": ` + ten("a b a b a a a a a a") + `}], "data_type": "mscoco"}`,
			want: `COCO_val2014_000000000042.jpg #42 420:"What is it?" a=0.8 b=0.2 421:"Why?"|` +
				`COCO_train2014_000000000007.jpg #7 70:"How many?" 2=0.9 3=0.1`},
		{name: "official questions of a test set", picture: "test2015/COCO_test2015_000000000042.jpg", text: vqa,
			want: `test2015/COCO_test2015_000000000042.jpg #42 420:"What is it?" 421:"Why?"|` +
				`train2014/COCO_train2014_000000000007.jpg #7 70:"How many?"`},
		{name: "OK-VQA", picture: "COCO_val2014_000000000042.jpg", questions: vqa,
			text: `{"annotations": [{"question_id": 420, "image_id": 42, "answers": [{"answer_id": 1, "raw_answer": "racing",
				"answer_confidence": "yes", "answer": "race"}, {"answer": "race", "raw_answer": "race"}]}]}`,
			want: `COCO_val2014_000000000042.jpg #42 420:"What is it?" race=1 421:"Why?"|` +
				`COCO_train2014_000000000007.jpg #7 70:"How many?"`},
		{name: "GQA rows", picture: "2.jpg",
			text: `[{"image": "2.jpg", "question": "Q", "question_id": "0201", "answer": "no",
			"fullAnswer": "No, it is not."}]`, want: `2.jpg #2 0201:"Q" no=1`},
		{name: "official GQA", picture: "images/n1.jpg", text: `{"02930": {"semantic": [{"operation": "select"}], "question":
			"Is it?", "imageId": "n1", "isBalanced": true, "answer": "no", "types": {"structural": "verify"}}}`,
			want: `images/n1.jpg #0 02930:"Is it?" no=1`},
		{name: "A-OKVQA", picture: "000000000042.jpg", file: AnnotationFile{Split: "val"},
			text: `[{"split": "val", "image_id": 42, "question_id": "q", "question": "What?", "choices": ["a", "b"],
				"correct_choice_idx": 1, "direct_answers": ["b", "b", "c", "b"], "rationales": ["since"]},
				{"split": "val", "image_id": 42, "question_id": "r", "question": "Who?", "choices": ["c", "d"],
				"correct_choice_idx": 0}]`,
			want: `000000000042.jpg #42 q:"What?" b=0.75 c=0.25 [a b][1] r:"Who?" c=1 [c d][0]`},
		{name: "VG captions", picture: "VG_100K_2/9.jpg",
			text: `[{"image": "VG_100K_2/9.jpg", "caption": "a cat", "image_id": "vg_9"}]`,
			want: `VG_100K_2/9.jpg #9 "a cat"`},
		{name: "Visual Genome's regions", picture: "VG_100K_2/9.jpg",
			text: `[{"regions": [{"region_id": 1, "phrase": "a cat", "image_id": 9, "x": 1}, {"phrase": "", "image_id": 9},
				{"region_id": 2, "phrase": "a hat", "image_id": 9}], "id": 9}, {"id": 10, "regions": []}]`,
			want: `VG_100K_2/9.jpg #9 "a cat" "a hat"`},
		{name: "Visual Genome's questions", picture: "VG_100K/9.jpg",
			text: `[{"id": 9, "qas": [{"a_objects": [], "question": "What?", "image_id": 9, "qa_id": 5, "answer": "A cat.",
				"q_objects": []}, {"question": "Where?", "image_id": 9, "qa_id": 6, "answer": "Here."}]}]`,
			want: `VG_100K/9.jpg #9 5:"What?" A cat.=1 6:"Where?" Here.=1`},
		{name: "NoCaps references", picture: "0013.jpg",
			text: `{"licenses": [], "info": {}, "images": [{"id": 0, "open_images_id": "0013", "file_name": "0013.jpg",
				"domain": "near-domain"}], "annotations": [{"image_id": 0, "id": 0, "caption": "a"},
				{"image_id": 0, "caption": "b"}]}`,
			want: `0013.jpg #0 "a" "b"`},
		{name: "NoCaps without captions", picture: "val/0013.jpg", file: AnnotationFile{Bare: true},
			text: `[{"image": "val/0013.jpg", "img_id": 3}, {"image": "val/0014.jpg", "img_id": 4}]`,
			want: `val/0013.jpg #3 ""|val/0014.jpg #4 ""`},
		{name: "easy-VQA", picture: "0.png",
			text: `[["what is the shape?", "circle", 0], ["is it red?", "no", 0], ["why?", "yes", 1]]`,
			want: `0.png #0 :"what is the shape?" circle=1 :"is it red?" no=1|1.png #1 :"why?" yes=1`},
		{name: "jsonl", picture: "a.jpg", text: "\ufeff" + `{"image": "a.jpg", "caption": "x\ny"}` + "\r\n\n" +
			`{"file_name": "b.jpg", "text": "z", "split": ""}`, want: `a.jpg #0 "x\ny"|b.jpg #1 "z"`},
		{name: "csv", picture: "a b.jpg",
			text: "\ufefffilepath,title\r\na b.jpg,\"one, \"\"two\"\"\nthree\"\r\nb.jpg,four\r\na b.jpg,\"five\"",
			want: `a b.jpg #0 "one, \"two\"\nthree" "five"|b.jpg #1 "four"`},
		{name: "csv with semicolons and split", picture: "a.jpg", file: AnnotationFile{Split: "train"},
			text: "image;caption;split\na.jpg;one;train\nb.jpg;two;val\n", want: `a.jpg #0 "one"`},
		{name: "csv with several captions", picture: "a.jpg", text: "image,caption,text\na.jpg,one,two\n",
			want: `a.jpg #0 "one" "two"`},
		{name: "csv of questions", picture: "a.jpg", text: "path,question,answer,question_id\na.jpg,Why?,so,7\n",
			want: `a.jpg #0 7:"Why?" so=1`},
		{name: "csv with quotes inside of fields", picture: "a.jpg",
			text: "image,caption\na.jpg,a 5\" pipe\nb.jpg,7\"\nc.jpg,a \"b\" c\nd.jpg,\"e\nf\"\"\" g\"h\n",
			want: `a.jpg #0 "a 5\" pipe"|b.jpg #1 "7\""|c.jpg #2 "a \"b\" c"|d.jpg #3 "e\nf\" g\"h"`},
		{name: "tsv as pandas writes it", picture: "a.jpg",
			text: "image\tcaption\na.jpg\t\"a \"\"b\"\"\tc\"\nb.jpg\t\"open\nc.jpg\t\"d\"\"\n",
			want: `a.jpg #0 "a \"b\"\tc"|b.jpg #1 "\"open"|c.jpg #2 "\"d\"\""`},
		{name: "a value that Python lacks", picture: "a.jpg",
			text: `[{"image": "a.jpg", "caption": "x", "score": NaN}, {"image": "b.jpg", "caption": NaN}]`,
			want: `a.jpg #0 "x"`},
		{name: "tsv", picture: "a.jpg", text: "caption\tpath\n\"quoted\" word\ta.jpg\n", want: `a.jpg #0 "\"quoted\" word"`},
		{name: "columns named", picture: "a.jpg", file: AnnotationFile{Columns: Columns{Image: "where", Caption: "What"}},
			text: "where,What,caption,image\na.jpg,one,two,three\n", want: `a.jpg #0 "one"`},
		{name: "fields named", picture: "a.jpg", file: AnnotationFile{Columns: Columns{Image: "where", Caption: "alt"}},
			text: `[{"where": "a.jpg", "alt": "one", "caption": "two", "image": 3}]`, want: `a.jpg #0 "one"`},
		{name: "names by pattern", picture: "pic-0005.webp", file: AnnotationFile{ImageName: "pic-%04d.webp"},
			text: `[{"image_id": 5, "caption": "one"}]`, want: `pic-0005.webp #5 "one"`},
		{name: "an object of lists", picture: "b.jpg", file: AnnotationFile{Split: "val"},
			text: `{"version": 1, "train": [{"image": "a.jpg", "caption": "one"}],
				"val": [{"image": "b.jpg", "caption": "two"}]}`,
			want: `b.jpg #0 "two"`},
		{name: "Flickr30K's table", picture: "1.jpg", file: AnnotationFile{Split: "train"},
			text: "raw,sentids,split,filename,img_id\n\"[\"\"One.\"\", \"\"Two\"\"]\",\"[0, 1]\",train,1.jpg,0\n" +
				"[not a list],[],train,2.jpg,1\n",
			want: `1.jpg #0 "One." "Two"|2.jpg #1 "[not a list]"`},
		{name: "format given", picture: "a.jpg", file: AnnotationFile{Format: FormatJSONL},
			text: `{"image": "a.jpg", "caption": ["x"]}`, want: `a.jpg #0 "x"`},
	} {
		for _, pack := range []bool{false, true} {
			text, questions := c.text, c.questions
			if pack {
				text, questions = packedText(text), packedText(questions)
			}
			folder := writeFolder(t, text, map[string][]byte{c.picture: []byte("picture")})
			c.file.Annotations, c.file.Images = folder.Annotations, folder.Images
			if c.questions != "" {
				c.file.Questions = filepath.Join(filepath.Dir(folder.Annotations), "questions")
				if err := os.WriteFile(c.file.Questions, []byte(questions), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			src, err := OpenAnnotations(c.file)
			if err != nil {
				t.Errorf("%s (packed: %v): %v", c.name, pack, err)
				continue
			}
			if got := listing(t, src); got != strings.ReplaceAll(c.want, "|", "\n")+"\n" {
				t.Errorf("%s (packed: %v) gives\n%swant\n%s", c.name, pack, got, strings.ReplaceAll(c.want, "|", "\n"))
			}
			opened := false
			for i := range src.Len() {
				if f, err := src.Open(i); err == nil {
					f.Close()
					opened = opened || example(t, src, i).Key == c.picture
				}
			}
			if !opened {
				t.Errorf("%s: the picture is not opened", c.name)
			}
			if err := src.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSeveralFilesOneSet: a pattern names files that make one set, in the order of their names.
func TestSeveralFilesOneSet(t *testing.T) {
	folder := writeFolder(t, "[]", map[string][]byte{"b.jpg": nil})
	dir := filepath.Dir(folder.Annotations)
	for name, text := range map[string]string{"2.part": `[{"image": "a.jpg", "caption": "third"}]`,
		"1.part": `{"image": "b.jpg", "caption": "first"}` + "\n" + `{"image": "a.jpg", "caption": "second"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, err := OpenAnnotations(AnnotationFile{Annotations: filepath.Join(dir, "*.part"), Images: folder.Images})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, src); got != "b.jpg #0 \"first\"\na.jpg #1 \"second\" \"third\"\n" {
		t.Errorf("%s", got)
	}
}

// TestNamesOfTheSameHash: pictures are told apart by their names, not by what is kept of them.
func TestNamesOfTheSameHash(t *testing.T) {
	table := newKeyTable(nil)
	names := []string{"a", "b", "12", "012"}
	table.same = func(number int, key []byte) (bool, error) { return names[number] == string(key), nil }
	for i, name := range names {
		if _, known, err := table.find([]byte(name)); known || err != nil {
			t.Fatalf("%s is known", name)
		}
		table.add([]byte(name), i)
	}
	for h := range table.hashes.keys { // all collide now
		if table.hashes.values[h] != 0 {
			table.hashes.keys[h] = 1
		}
	}
	all := hashTable{}
	for h, v := range table.hashes.values {
		if v != 0 {
			all.add(table.hashes.keys[h], v)
		}
	}
	for slot, known, seen := 0, true, 0; ; seen++ {
		if slot, known = all.find(1, slot, seen == 0); !known {
			if seen != 3 {
				t.Errorf("%d of 3 keys of the same hash are found", seen)
			}
			break
		}
	}
	if n, known, _ := table.find([]byte("12")); !known || n != 2 {
		t.Errorf("12 is number %d, %v", n, known)
	}
}

func TestPacked(t *testing.T) {
	p := packed{width: 5}
	for i := range 3*packedChunk + 7 {
		p.append(uint64(i) * 12345 % maxOffset)
	}
	p.set(packedChunk, maxOffset-1)
	for _, i := range []int{0, 1, packedChunk - 1, packedChunk + 1, 3*packedChunk + 6} {
		if p.at(i) != uint64(i)*12345%maxOffset {
			t.Errorf("number %d is %d", i, p.at(i))
		}
	}
	if p.at(packedChunk) != maxOffset-1 {
		t.Error("a number that was set is another one")
	}
}

// TestRealFiles reads the real files that the specification names, where they are there.
func TestRealFiles(t *testing.T) {
	data := filepath.Join(repository(t), "..", "shared", "data")
	if _, err := os.Stat(data); err != nil {
		t.Skip(err)
	}
	at := func(name string) string { return filepath.Join(data, filepath.FromSlash(name)) }
	for _, c := range []struct {
		file                        AnnotationFile
		images, captions, questions int
	}{
		{AnnotationFile{Annotations: at("flickr8k-mini/captions.json"), Images: at("flickr8k-mini/images"),
			Split: "train"}, 800, 4000, 0},
		{AnnotationFile{Annotations: at("coco-mini/captions.json"), Images: at("coco-mini/images")}, 370, 1850, 0},
		{AnnotationFile{Annotations: at("vqa-mini/aokvqa_with_images.json"), Images: at("coco-mini/images")}, 62, 0, 63},
		{AnnotationFile{Annotations: at("vqa-mini/vqav2-subset/annotations_valid.json.gz"),
			Questions: at("vqa-mini/vqav2-subset/questions_valid.json.gz"), Images: t.TempDir()}, 0, 0, 8977},
		{AnnotationFile{Annotations: at("coco-eval/coco_karpathy_val.json"), Images: t.TempDir()}, 5000, 25010, 0},
		{AnnotationFile{Annotations: at("coco-eval/coco_karpathy_test_gt.json"), Images: t.TempDir(),
			ImageName: "COCO_val2014_%012d.jpg"}, 5000, 25010, 0},
		{AnnotationFile{Annotations: at("coco-eval/captions_val2017.json"), Images: t.TempDir()}, 5000, 25014, 0},
		{AnnotationFile{Annotations: at("coco-eval/nocaps_val_images.json"), Images: t.TempDir(), Bare: true}, 4500, 0, 0},
		{AnnotationFile{Annotations: at("easy-vqa/test_questions.json"), Images: t.TempDir()}, 1000, 0, 9673},
	} {
		if strings.Contains(c.file.Images, "TestRealFiles") { // without the pictures, but for one
			for _, name := range []string{"COCO_train2014_000000413918.jpg", "val2014/COCO_val2014_000000184613.jpg",
				"COCO_val2014_000000391895.jpg", "000000397133.jpg", "val/0013ea2087020901.jpg", "0.png"} {
				name = filepath.Join(c.file.Images, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o644)); err != nil {
					t.Fatal(err)
				}
			}
		}
		src, err := OpenAnnotations(c.file)
		if err != nil {
			t.Errorf("%s: %v", c.file.Annotations, err)
			continue
		}
		n := src.Counts()
		if c.images > 0 && n.Images != c.images || n.Captions != c.captions || n.Questions != c.questions || n.Withheld > 0 {
			t.Errorf("%s: %+v", c.file.Annotations, n)
		}
		for i := 0; i < src.Len(); i += 7 {
			if e := example(t, src, i); len(e.Captions)+len(e.Questions) != src.Texts(i) {
				t.Errorf("%s: picture %d is %+v", c.file.Annotations, i, e)
			}
		}
		src.Close()
	}
}

// TestRowsInAFewBytes measures what a row takes in memory: of 10⁵ rows here, and of BLIP2_ROWS rows if that is set.
func TestRowsInAFewBytes(t *testing.T) {
	n := 100_000
	if text := os.Getenv("BLIP2_ROWS"); text != "" {
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		row  func(i int) string
		most float64
	}{
		{"web", webRow, 10},
		{"five captions each", func(i int) string {
			return fmt.Sprintf(`{"image":"%09d.jpg","caption":"caption %d","image_id":"coco_%d"}`, i/5, i, i/5)
		}, 10},
	} {
		file := generated(t, n, c.row)
		before := heap()
		src, err := OpenAnnotations(file)
		if err != nil {
			t.Fatal(err)
		}
		per := float64(heap()-before) / float64(n)
		t.Logf("%s: %d rows, %.2f bytes per row", c.name, n, per)
		if per > c.most {
			t.Errorf("%s: %.1f bytes per row", c.name, per)
		}
		for _, i := range []int{0, src.Len() / 3, src.Len() - 1} {
			e := example(t, src, i)
			var row struct{ Image, Caption string }
			if err := json.Unmarshal([]byte(c.row(i*n/src.Len())), &row); err != nil {
				t.Fatal(err)
			}
			if e.Key != row.Image || !slices.Contains(e.Captions, row.Caption) || len(e.Captions) != src.Texts(i) {
				t.Errorf("picture %d is %+v, want %+v", i, e, row)
			}
		}
		src.Close()
	}
}

// generated writes a jsonl file of n rows, with the first picture in place.
func generated(tb testing.TB, n int, row func(i int) string) AnnotationFile {
	tb.Helper()
	dir := tb.TempDir()
	file := AnnotationFile{Annotations: filepath.Join(dir, "rows.jsonl"), Images: dir}
	var b bytes.Buffer
	f, err := os.Create(file.Annotations)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		b.WriteString(row(i))
		b.WriteByte('\n')
		if b.Len() > 1<<20 || i == n-1 {
			if _, err := f.Write(b.Bytes()); err != nil {
				tb.Fatal(err)
			}
			b.Reset()
		}
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	var first struct{ Image string }
	if err := json.Unmarshal([]byte(row(0)), &first); err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(first.Image)), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, first.Image), nil, 0o644); err != nil {
		tb.Fatal(err)
	}
	return file
}
