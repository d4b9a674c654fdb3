package verify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// spoilExpected changes expected.json of a case.
func spoilExpected(change func(map[string]any)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, expectedFile)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		change(v)
		if data, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSpoiledQFormerInit shows that a case of the Q-Former's start fails whatever is changed in it.
func TestSpoiledQFormerInit(t *testing.T) {
	source := filepath.Join(goldenDir(t), "qformer-init-old-a")
	if _, err := os.Stat(source); err != nil {
		t.Skipf("no recorded case: %v", err)
	}
	set := func(key string, value any) func(*testing.T, string) {
		return spoilExpected(func(v map[string]any) { v[key] = value })
	}
	setIn := func(key, name string, value any) func(*testing.T, string) {
		return spoilExpected(func(v map[string]any) { v[key].(map[string]any)[name] = value })
	}
	const query = "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight"
	for _, m := range []mutation{
		{"nothing", func(*testing.T, string) {}, ""},
		{"weight", addTo(weightsFile, "bert.encoder.layer.0.intermediate.dense.weight", 3, 1e-6), query + "["},
		{"output", addTo(outputsFile, query, 3, 1e-6), query + "["},
		{"output left out", inFile(outputsFile, func(_ *testing.T, s map[string]weights.Tensor) {
			s["more"] = weights.FromFloat32("more", []int{1}, []float32{1})
		}), "more"},
		{"missing weight", remove(weightsFile, "bert.embeddings.LayerNorm.beta"), "LayerNorm.bias"},
		{"vocabulary", config("qformer_vocab", 150), "token ids"},
		{"unused", set("unused", []string{}), "unused"},
		{"sources", setIn("sources", query, "bert.pooler.dense.bias"), "consumed"},
		{"constant", setIn("constant", "Qformer.bert.encoder.layer.0.crossattention.output.LayerNorm.bias", 1),
			"crossattention.output.LayerNorm.bias"},
		{"drawn", set("drawn", []string{"Qformer.bert.encoder.layer.0.output.LayerNorm.bias"}), "want N(0, 0.02²)"},
		{"drawn without a tensor", set("drawn", []string{"x"}), "x: the model has no such tensor"},
		{"appended", setIn("appended", "Qformer.cls.predictions.bias", "one row, drawn"), "predictions.bias appended"},
		{"appended zeros", setIn("appended", "Qformer.bert.embeddings.word_embeddings.weight", "one row, 0"),
			"word_embeddings.weight appended"},
		{"appended somehow", setIn("appended", "Qformer.cls.predictions.bias", "?"), "unknown"},
		{"temperature", setIn("others", "temp", 0.06), "temp"},
		{"uniform", setIn("others", "vision_proj.weight", map[string]any{"uniform": []float64{-0.1, 0.1}}),
			"want U(±0.1)"},
		{"wide uniform", setIn("others", "vision_proj.weight", map[string]any{"uniform": []float64{-0.2, 0.2}}),
			"want U(±0.2)"},
		{"normal", setIn("others", "query_tokens", map[string]any{"normal": []float64{0, 0.05}}), "want N(0, 0.05²)"},
		{"start unknown", setIn("others", "query_tokens", map[string]any{"gamma": 1}), "unknown"},
		{"tie", set("tied", []any{}), "decoder"},
	} {
		t.Run(m.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "case")
			if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			makeWritable(t, dir)
			m.spoil(t, dir)
			report, err := Run(t.Context(), Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			r := report.Results[0]
			if m.says == "" {
				if r.Status != Passed {
					t.Fatalf("%s: %v", r.Status, r.Err)
				}
				return
			}
			if r.Status != Failed || !strings.Contains(r.Err.Error(), m.says) {
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, m.says)
			}
		})
	}
}

// makeWritable lets a copy of read-only files be changed.
func makeWritable(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Chmod(filepath.Join(dir, e.Name()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
