package verify

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// writeRetrieval writes a case of two images and three texts: image 0 owns texts 0 and 2, image 1 owns text 1. By rank,
// image→text is right for image 1 alone, text→image for texts 1 and 2.
func writeRetrieval(t *testing.T, change func(files map[string]string, inputs map[string]weights.Tensor)) string {
	t.Helper()
	files := map[string]string{
		caseFile: `{"kind": "retrieval-metrics", "tolerance": {"atol": 1e-9, "rtol": 0},
			"config": {"items": [{"name": "few", "img2txt": [[0, 2], [1]]}]}}`,
		expectedFile: `{"few": {"txt_r1": 50, "txt_r5": 100, "txt_r10": 100, "txt_r_mean": 83.33333333333333,
			"img_r1": 66.66666666666667, "img_r5": 100, "img_r10": 100, "img_r_mean": 88.88888888888889,
			"r_mean": 86.11111111111111, "agg_metrics": 83.33333333333333}}`,
	}
	inputs := map[string]weights.Tensor{
		"few/i2t": weights.FromFloat32("few/i2t", []int{2, 3}, []float32{1, 3, 2, 1, 3, 2}),
		"few/t2i": weights.FromFloat32("few/t2i", []int{3, 2}, []float32{1, 2, 1, 2, 2, 1}),
	}
	if change != nil {
		change(files, inputs)
	}
	root := t.TempDir()
	writeCase(t, root, "case", files)
	var list []weights.Tensor
	for _, tensor := range inputs {
		list = append(list, tensor)
	}
	dir := filepath.Join(root, "case")
	if err := weights.Write(filepath.Join(dir, inputsFile), list, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRetrievalMetrics(t *testing.T) {
	replace := func(file, old, text string) func(map[string]string, map[string]weights.Tensor) {
		return func(files map[string]string, _ map[string]weights.Tensor) {
			if !strings.Contains(files[file], old) {
				t.Fatalf("%s has no %s", file, old)
			}
			files[file] = strings.Replace(files[file], old, text, 1)
		}
	}
	scores := func(name string, shape []int, v ...float32) func(map[string]string, map[string]weights.Tensor) {
		return func(_ map[string]string, inputs map[string]weights.Tensor) {
			inputs[name] = weights.FromFloat32(name, shape, v)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(map[string]string, map[string]weights.Tensor)
		says   string // empty: the case passes
	}{
		{"as it is", nil, ""},
		{"a metric", replace(expectedFile, `"img_r1": 66.66666666666667`, `"img_r1": 66.7`), "few/img_r1: got 66.6"},
		{"a mean", replace(expectedFile, `"r_mean": 86.11111111111111`, `"r_mean": 86`), "few/r_mean"},
		{"a metric of another kind", replace(expectedFile, "txt_r10", "txt_r20"), "recorded are"},
		{"an item more", replace(expectedFile, `{"few"`, `{"more": {}, "few"`), "1 items, but 2 expected"},
		{"an item less", replace(caseFile, `"few"`, `"many"`), "many: nothing expected"},
		{"another owner", replace(caseFile, "[1]]", "[]]"), "few/"},
		{"a text too many", replace(caseFile, "[1]]", "[3]]"), "text 3 of image 1"},
		{"an image too many", replace(caseFile, "[1]]", "[1], []]"), "texts of 3 images"},
		{"the scores", scores("few/i2t", []int{2, 3}, 3, 1, 2, 1, 3, 2), "few/txt_r1"},
		{"not a number", scores("few/i2t", []int{2, 3}, 1, 3, 2, 1, float32(math.NaN()), 2), "few/txt_r1"},
		{"the shape", scores("few/t2i", []int{6}, 1, 2, 1, 2, 2, 1), "not that of a matrix"},
		{"a matrix is missing", func(_ map[string]string, in map[string]weights.Tensor) { delete(in, "few/t2i") }, "few/t2i"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report, err := Run(t.Context(), Options{Dir: writeRetrieval(t, tt.change)})
			if err != nil {
				t.Fatal(err)
			}
			switch r := report.Results[0]; {
			case tt.says == "" && r.Status != Passed:
				t.Errorf("%s: %v", r.Status, r.Err)
			case tt.says != "" && (r.Status != Failed || !strings.Contains(r.Err.Error(), tt.says)):
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, tt.says)
			}
		})
	}
}
