package verify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// torchCase makes a case of kind lavis-pth out of a checkpoint that PyTorch wrote and its twin in safetensors.
func torchCase(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "case")
	fixtures := filepath.Join("..", "weights", "testdata")
	copyFile := func(from, to string) {
		data, err := os.ReadFile(filepath.Join(fixtures, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile("torch-zip.pth", "checkpoint.pth")
	copyFile("torch.safetensors", outputsFile)
	writeJSON(t, filepath.Join(dir, caseFile), map[string]any{
		"kind":      "lavis-pth",
		"config":    map[string]any{"file": "checkpoint.pth", "container": "zip"},
		"tolerance": map[string]any{"atol": 0.0, "rtol": 0.0},
	})
	const expected = `{
		"top_level": ["model", "optimizer", "epoch", "scaler", "config", "odd"],
		"epoch": 3,
		"scaler": {"scale": 65536.0, "_growth_tracker": 2},
		"config": {"name": "größer", "nested": {"list": [1, [2.5, null], []], "empty": {}, "7": true}},
		"dtypes": {"f64": "float64", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32", "i16": "int16",
			"i8": "int8", "u8": "uint8", "bool": "bool", "permuted": "float16", "expanded": "int64",
			"u16": "uint16", "u32": "uint32", "u64": "uint64"},
		"not_contiguous": ["transposed", "permuted", "steps", "columns", "expanded"],
		"offsets": {"steps": 1, "columns": 1, "tail": 5, "shared.bias": 4, "u64": 1},
		"one_storage": [["f32", "tied"], ["shared.weight", "shared.bias"]],
		"optimizer": {"slots": 2, "slot_names": ["exp_avg", "exp_avg_sq", "step"], "steps": [1.0],
			"param_groups": [{"lr": 0.001, "betas": [0.9, 0.98], "eps": 1e-08, "weight_decay": 0.01, "params": 2}]},
		"absent": "visual_encoder."
	}`
	if err := os.WriteFile(filepath.Join(dir, expectedFile), []byte(expected), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

// replaceExpected replaces a text that occurs once in expected.json.
func replaceExpected(old, with string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, expectedFile)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(raw), old) != 1 {
			t.Fatalf("%q occurs %d times", old, strings.Count(string(raw), old))
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(raw), old, with, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLavisPth changes every recorded fact in turn: each must make the case fail.
func TestLavisPth(t *testing.T) {
	run := func(t *testing.T, dir string) Result {
		t.Helper()
		report, err := Run(t.Context(), Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return report.Results[0]
	}
	if r := run(t, torchCase(t)); r.Status != Passed || r.Compared < 60 {
		t.Fatalf("%s: %d compared: %v", r.Status, r.Compared, r.Err)
	}
	for _, m := range []mutation{
		{"container", config("container", "legacy"), `container: got "zip", recorded "legacy"`},
		{"file", config("file", "../checkpoint.pth"), "leads out of the folder"},
		{"no file", config("file", "nosuch.pth"), "nosuch.pth"},
		{"value", addTo(outputsFile, "f32", 5, 1e-6), "f32[1 1]: bytes"},
		{"output missing", remove(outputsFile, "bf16"), "bf16: there is no recorded output"},
		{"output extra", inFile(outputsFile, func(_ *testing.T, set map[string]weights.Tensor) {
			set["more"] = weights.FromFloat32("more", nil, []float32{1})
		}), "more: recorded, but not compared"},
		{"dtype", inFile(outputsFile, func(_ *testing.T, set map[string]weights.Tensor) {
			x := set["f16"]
			x.DType = weights.BF16
			set["f16"] = x
		}), "f16: dtype F16, recorded BF16"},
		{"shape", inFile(outputsFile, func(_ *testing.T, set map[string]weights.Tensor) {
			x := set["f32"]
			x.Shape = []int{4, 3}
			set["f32"] = x
		}), "f32: shape [3 4], recorded [4 3]"},
		{"top level", replaceExpected(`"scaler", "config"`, `"config", "scaler"`), "top_level[3]"},
		{"epoch", replaceExpected(`"epoch": 3`, `"epoch": 4`), "epoch: got 3, recorded 4"},
		{"epoch as float", replaceExpected(`"epoch": 3`, `"epoch": 3.0`), "epoch: got 3, recorded 3.0"},
		{"scaler", replaceExpected("65536.0", "65536.5"), "scaler.scale: got 65536, recorded 65536.5"},
		{"scaler as integer", replaceExpected("65536.0", "65536"), "scaler.scale"},
		{"config text", replaceExpected("größer", "kleiner"), "config.name"},
		{"config null", replaceExpected("null", "0"), "config.nested.list[1][1]"},
		{"config length", replaceExpected("null], []", "null], [], 1"), "config.nested.list: got"},
		{"config key", replaceExpected(`"empty": {}, `, ""), "config.nested.empty: got map[], not recorded"},
		{"config key more", replaceExpected(`"empty": {}`, `"empty": {"a": 1}`), "config.nested.empty.a: recorded, but not"},
		{"config truth", replaceExpected("true", "1"), "config.nested.7: got true, recorded 1"},
		{"dtypes", replaceExpected(`"bf16": "bfloat16"`, `"bf16": "float16"`), `dtypes.bf16: got "bfloat16"`},
		{"not contiguous", replaceExpected(`"transposed", `, ""), "not_contiguous: got"},
		{"offset", replaceExpected(`"tail": 5`, `"tail": 4`), "offsets.tail: got 5, recorded 4"},
		{"one storage", replaceExpected(`["f32", "tied"], `, ""), "one_storage: got"},
		{"slots", replaceExpected(`"slots": 2`, `"slots": 3`), "optimizer.slots: got 2, recorded 3"},
		{"slot names", replaceExpected(`"step"]`, `"stop"]`), "optimizer.slot_names[2]"},
		{"steps", replaceExpected("[1.0]", "[2.0]"), "optimizer.steps[0]: got 1, recorded 2.0"},
		{"group", replaceExpected("0.98]", "0.99]"), "optimizer.param_groups[0].betas[1]"},
		{"params", replaceExpected(`"params": 2`, `"params": 1`), "optimizer.param_groups[0].params"},
		{"absent", replaceExpected("visual_encoder.", "shared."), "shared.bias: must be absent"},
		{"unknown", replaceExpected(`"epoch": 3`, `"epoch": 3, "mood": 1`), "mood: recorded in expected.json, but"},
	} {
		t.Run(m.name, func(t *testing.T) {
			dir := torchCase(t)
			m.spoil(t, dir)
			r := run(t, dir)
			if r.Status != Failed || !strings.Contains(r.Err.Error(), m.says) {
				t.Errorf("%s: %v\nwant %s", r.Status, r.Err, m.says)
			}
		})
	}
}
