package retrieval

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestReadMapping(t *testing.T) {
	want := Mapping{Img2Txt: [][]int{{0, 2}, {1}}, Texts: 3}
	for _, text := range []string{
		`{"img2txt": [[0, 2], [1]]}`,
		`{"img2txt": [[0, 2], 1], "note": "a single text as a number"}`,
		`{"txt2img": [0, 1, 0]}`,
		`[{"image": "a", "caption": ["x"]}, {"image": "b", "caption": "y"}, {"image": "a", "captions": ["z"]}]`,
		`{"images": [{"id": 9}, {"id": "4"}], "annotations": [{"image_id": 9, "caption": "x"}, {"image_id": 4},
			{"image_id": "9"}]}`,
		`{"annotations": [{"image_id": 9}, {"image_id": 4}, {"image_id": 9}], "images": [{"id": 9}, {"id": 4}]}`,
	} {
		path := filepath.Join(t.TempDir(), "map.json")
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, err := w.Write([]byte(text))
		if err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		for _, data := range [][]byte{[]byte(text), packed.Bytes()} {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadMapping(path); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v", text, got, err)
			}
		}
	}
}

func TestReadMappingErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                         "the file is the end of the text",
		`3`:                        "the file is a number",
		`{}`:                       "no texts are named",
		`[]`:                       "no texts are named",
		`[3]`:                      "item 0 is a number",
		`[{"caption": "x"}]`:       `item 0 lacks "image"`,
		`{"txt2img": []}`:          "txt2img is empty",
		`{"txt2img": [0, -1]}`:     "txt2img[1]: the image -1",
		`{"txt2img": [0, 1e9]}`:    "no whole number",
		`{"txt2img": [999999999]}`: "txt2img[0]: the image 999999999",
		`{"img2txt": [[0], [-2]]}`: "img2txt[1]: the text -2",
		`{"img2txt": [[999999]]}`:  "without gaps",
		`{"img2txt": {"0": [1]}}`:  "an object where [ is needed",
		`{"annotations": [{"image_id": 1}], "images": []}`: "there is no image 1",
		`{"annotations": [{"caption": "x"}]}`:              `annotations[0] lacks "image_id"`,
		`{"images": [{"id": 1}, {"id": 1}]}`:               "occurs twice",
		`{"txt2img": [0]} x`:                               "more after the value",
	} {
		path := filepath.Join(t.TempDir(), "map.json")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadMapping(path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
	if _, err := ReadMapping("missing.json"); err == nil || !strings.Contains(err.Error(), "missing.json") {
		t.Error(err)
	}
}

func TestEven(t *testing.T) {
	m, err := Even(2, 4)
	if err != nil || !reflect.DeepEqual(m.Img2Txt, [][]int{{0, 1}, {2, 3}}) {
		t.Error(m, err)
	}
	for _, n := range [][2]int{{2, 3}, {0, 0}, {3, 0}} {
		if _, err := Even(n[0], n[1]); err == nil {
			t.Errorf("%v is even", n)
		}
	}
}

func TestEvaluate(t *testing.T) {
	i2t := [][]float32{{1, 3, 2}, {1, 3, 2}}
	both, err := Evaluate(i2t, Transpose(i2t), [][]int{{0, 2}, {1}})
	if err != nil || both.ImageToText.R1 != 50 || both.ImageToText.R5 != 100 {
		t.Errorf("%+v, %v", both, err)
	}
	m := both.Metrics()
	if m["txt_r1"] != 50 || m["agg_metrics"] != m["txt_r_mean"] || m["r_mean"] != (m["txt_r_mean"]+m["img_r_mean"])/2 {
		t.Errorf("%v", m)
	}
	for _, tt := range []struct {
		i2t, t2i [][]float32
		img2txt  [][]int
	}{
		{nil, nil, nil},
		{i2t, i2t, [][]int{{0}, {1}}},
		{i2t, Transpose(i2t), [][]int{{0}}},
		{i2t, Transpose(i2t), [][]int{{0}, {3}}},
	} {
		if _, err := Evaluate(tt.i2t, tt.t2i, tt.img2txt); err == nil {
			t.Errorf("%v is scored", tt)
		}
	}
}

func FuzzMapping(f *testing.F) {
	for _, s := range []string{`{"img2txt": [[0]]}`, `{"txt2img": [0, 0]}`, `[{"image": "a", "caption": ["x"]}]`,
		`{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMapping(data)
		if err != nil {
			return
		}
		if _, err := Invert(m.Img2Txt, m.Texts); err != nil || len(m.Img2Txt) == 0 || m.Texts == 0 {
			t.Errorf("%+v: %v", m, err)
		}
	})
}
