package cli

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

func scoreTensors(t *testing.T, tensors ...weights.Tensor) string {
	t.Helper()
	return writeTensors(t, "scores", tensors)
}

func retrievalJSON(t *testing.T, args ...string) retrievalReport {
	t.Helper()
	got := runApp(t, nil, append([]string{"score", "retrieval", "--json"}, args...)...)
	var report retrievalReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != ExitOK {
		t.Fatalf("code %d, %s, %v", got.code, got.err, err)
	}
	return report
}

func TestScoreRetrieval(t *testing.T) {
	// Image 0 owns texts 0 and 2, image 1 owns text 1: image→text is right for image 1, text→image for texts 1 and 2.
	i2t := weights.FromFloat32("i2t", []int{2, 3}, []float32{1, 3, 2, 1, 3, 2})
	t2i := weights.FromFloat32("t2i", []int{3, 2}, []float32{1, 2, 1, 2, 2, 1})
	for name, text := range map[string]string{"img2txt": `{"img2txt": [[0, 2], [1]]}`, "txt2img": `{"txt2img": [0, 1, 0]}`,
		"captions": `[{"image": "a", "caption": "x"}, {"image": "b", "caption": ["y"]}, {"image": "a", "caption": "z"}]`} {
		r := retrievalJSON(t, "--scores", scoreTensors(t, i2t, t2i), "--texts", writeFile(t, "map.json", text))
		if r.Metrics["txt_r1"] != 50 || math.Abs(r.Metrics["img_r1"]-200.0/3) > 1e-9 || r.Images != 2 || r.Texts != 3 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	mapping := writeFile(t, "map.json", `{"txt2img": [0, 1, 0]}`)
	one := retrievalJSON(t, "--scores", scoreTensors(t, i2t), "--texts", mapping)
	if one.Metrics["txt_r1"] != 50 || math.Abs(one.Metrics["img_r1"]-200.0/3) > 1e-9 {
		t.Errorf("one matrix for both directions: %+v", one.Metrics)
	}
	got := runApp(t, nil, "score", "retrieval", "--scores", scoreTensors(t, i2t, t2i), "--texts", mapping)
	want := `DIRECTION                   R@1    R@5     R@10    MEAN   QUERIES  CANDIDATES
picture to text             50.00  100.00  100.00  83.33  2        3
text to picture             66.67  100.00  100.00  88.89  3        2
picture to text, by chance  50.00  100.00  100.00  83.33  2        3
text to picture, by chance  50.00  100.00  100.00  83.33  3        2
`
	if got.out != want || !strings.Contains(got.err, "not the size of a published test split") {
		t.Errorf("%s%s", got.err, got.out)
	}
}

// Scores and features may come from torch.save.
func TestScoreRetrievalPyTorch(t *testing.T) {
	const file = "../weights/testdata/torch-bare.pth"
	mapping := writeFile(t, "map.json", `{"img2txt": [[0], [1], [], []]}`)
	if r := retrievalJSON(t, "--scores", file, "--i2t", "columns", "--texts", mapping); r.Images != 4 || r.Texts != 2 {
		t.Errorf("%+v", r)
	}
	got := runApp(t, nil, "score", "retrieval", "--features", file, "--image-feats", "f32", "--text-feats", "transposed",
		"--backend", "go")
	if got.code != ExitOK || !strings.Contains(got.out, "picture to text") {
		t.Errorf("features: %s", got.err)
	}
}

func TestScoreRetrievalFeatures(t *testing.T) {
	images := weights.FromFloat32("image_feats", []int{2, 2, 2}, []float32{1, 0, 1, 0, 1, 0, 0, 1})
	texts := weights.FromFloat32("text_feat", []int{2, 2}, []float32{1, 0, 0, 1})
	path := scoreTensors(t, images, texts)
	got := runApp(t, nil, "score", "retrieval", "--features", path, "--backend", "go", "--json")
	var report retrievalReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil {
		t.Fatalf("%s, %v", got.err, err)
	}
	// Picture 1 is like both texts, and the tie goes to text 0.
	if report.Metrics["txt_r1"] != 50 || report.Metrics["img_r1"] != 100 ||
		!strings.Contains(got.err, "same number each") {
		t.Errorf("%+v, %s", report.Metrics, got.err)
	}
	texts.Data[3] = 0x40 // 1 becomes 3
	got = runApp(t, nil, "score", "retrieval", "--features", scoreTensors(t, images, texts), "--backend", "go")
	if !strings.Contains(got.err, "do not have length 1") {
		t.Errorf("%s", got.err)
	}
}

func TestScoreRetrievalErrors(t *testing.T) {
	nan := float32(math.NaN())
	square := scoreTensors(t, weights.FromFloat32("i2t", []int{2, 3}, []float32{1, 2, 3, 4, 5, nan}))
	flat := scoreTensors(t, weights.FromFloat32("sims", []int{6}, make([]float32, 6)))
	unknown := scoreTensors(t, weights.FromFloat32("x", []int{1, 1}, make([]float32, 1)))
	odd := scoreTensors(t, weights.FromFloat32("image_feats", []int{2, 3}, make([]float32, 6)),
		weights.FromFloat32("text_feat", []int{2, 2}, make([]float32, 4)))
	three, two := writeFile(t, "three.json", `{"txt2img": [0, 1, 1]}`), writeFile(t, "two.json", `{"txt2img": [0, 1]}`)
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"", ExitUsage, "give one of --scores and --features"},
		{"--scores a --features b", ExitUsage, "give one of"},
		{"--scores missing.safetensors", ExitFailure, "missing.safetensors"},
		{"--scores " + square, ExitUsage, "say with --texts"},
		{"--scores " + square + " --texts " + two, ExitFailure, "2 pictures and 2 texts, but the scores are of 2 and 3"},
		{"--scores " + flat, ExitFailure, "a matrix of pictures and texts is needed"},
		{"--scores " + unknown, ExitFailure, "name it with --i2t"},
		{"--scores " + square + " --i2t y --texts " + three, ExitFailure, "y"},
		{"--features " + unknown, ExitFailure, "--image-feats"},
		{"--features " + odd, ExitFailure, "[pictures, queries, width]"},
	} {
		got := runApp(t, nil, append([]string{"score", "retrieval"}, strings.Fields(tt.args)...)...)
		if got.code != tt.code || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%s: code %d, stderr %q; want %d and %q", tt.args, got.code, got.err, tt.code, tt.want)
		}
	}
	got := runApp(t, nil, "score", "retrieval", "--scores", square, "--texts", three)
	if !strings.Contains(got.err, "not numbers rank last") {
		t.Errorf("a score that is not a number: %s", got.err)
	}
}
