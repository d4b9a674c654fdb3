package runlog

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestSummaryKeys(t *testing.T) {
	dir := t.TempDir()
	s := Summary{Steps: 600, ImgPerS: 12.5, Loss: 4.25, Started: noon,
		Scores: Scores{Retrieval: map[string]RetrievalScores{
			SplitTrain:   {Images: 100, Texts: 500, I2TR1: 41, T2IR1: 38, ChanceR1: 1, ChanceT2IR1: 1},
			SplitHeldout: {Images: 18, Texts: 90, I2TR10: 50}}},
		RetrievalBefore: map[string]RetrievalScores{SplitTrain: {I2TR1: 1}}}
	if err := WriteSummary(dir, s); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, SummaryFile))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]any
	if err := json.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]float64{
		"steps": 600, "img_per_s": 12.5, "loss": 4.25,
		"retrieval.train.i2t_r1": 41, "retrieval.train.t2i_r1": 38, "retrieval.train.chance_r1": 1,
		"retrieval.train.chance_t2i_r1": 1, "retrieval.train.images": 100, "retrieval.train.texts": 500,
		"retrieval.heldout.i2t_r10": 50, "retrieval_before.train.i2t_r1": 1,
	} {
		var at any = raw
		for _, key := range strings.Split(path, ".") {
			at = at.(map[string]any)[key]
		}
		if at != want {
			t.Errorf("%s is %v, want %v", path, at, want)
		}
	}
	back, err := ReadSummary(dir)
	if err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestSummaryOfDivergedRun(t *testing.T) {
	dir := t.TempDir()
	if err := WriteSummary(dir, Summary{Loss: Float(math.NaN()), LossITC: Float(math.Inf(1)), LossITM: 0.5}); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSummary(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !math.IsNaN(float64(s.Loss)) || !math.IsNaN(float64(s.LossITC)) || s.LossITM != 0.5 {
		t.Errorf("losses %v %v %v", s.Loss, s.LossITC, s.LossITM)
	}
}

func TestGalleryRoundTrip(t *testing.T) {
	dir := t.TempDir()
	g := Gallery{Items: []GalleryItem{{Image: "gallery/a.jpg", Split: SplitTrain, Key: "a",
		Captions: []string{`a "small" dog & <b>`, "ein Hund"}, Generated: "a dog", BestMatch: "a cat",
		BestMatchProb: 0.25, BestMatchCorrect: true, Credit: "N. N., CC BY 2.0"}}}
	if err := WriteGallery(dir, g); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, GalleryFile))
	if !strings.Contains(string(data), `& <b>`) {
		t.Errorf("a caption is not readable in the file:\n%s", data)
	}
	back, err := ReadGallery(dir)
	if err != nil || !reflect.DeepEqual(back, g) {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestReadSummaryErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadSummary(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
	os.WriteFile(filepath.Join(dir, SummaryFile), []byte(`{"steps":`), 0o644)
	if _, err := ReadSummary(dir); err == nil || !strings.Contains(err.Error(), SummaryFile) {
		t.Errorf("a torn file gives %v", err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.txt")
	for _, text := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != text {
			t.Errorf("file holds %q, want %q", got, text)
		}
	}
	if err := WriteFile(filepath.Join(dir, "none", "x"), nil); err == nil {
		t.Error("no error for a missing folder")
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x")); err == nil {
		t.Error("no error when a folder has the name")
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("temporary files were left: %v", entries)
	}
}
