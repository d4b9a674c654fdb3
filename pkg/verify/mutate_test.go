package verify

import (
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// copyCase unpacks an embedded case into a fresh folder and returns the folder.
func copyCase(t *testing.T, name string) string {
	t.Helper()
	sub, err := fs.Sub(Embedded(), name)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, sub); err != nil {
		t.Fatal(err)
	}
	return dir
}

// rewrite changes the tensors of a safetensors file of the case.
func rewrite(t *testing.T, dir, file string, change func(map[string]weights.Tensor)) {
	t.Helper()
	path := filepath.Join(dir, file)
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]weights.Tensor{}
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		tensor.Data = append([]byte{}, tensor.Data...)
		set[name] = tensor
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	change(set)
	var list []weights.Tensor
	for name, tensor := range set {
		tensor.Name = name
		list = append(list, tensor)
	}
	if err := weights.Write(path, list, nil); err != nil {
		t.Fatal(err)
	}
}

// add adds a number to one element of a tensor.
func add(t *testing.T, set map[string]weights.Tensor, name string, element int, x float32) {
	t.Helper()
	tensor, ok := set[name]
	if !ok {
		t.Fatalf("the case has no tensor %s", name)
	}
	values, err := tensor.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	values[element] += x
	set[name] = weights.FromFloat32(name, tensor.Shape, values)
}

// setConfig changes a key of case.json's config; nil removes it.
func setConfig(t *testing.T, dir, key string, value any) {
	t.Helper()
	path := filepath.Join(dir, caseFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	config := file["config"].(map[string]any)
	if config[key] = value; value == nil {
		delete(config, key)
	}
	if data, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// mutation spoils a case; the error must say the text.
type mutation struct {
	name  string
	spoil func(t *testing.T, dir string)
	says  string
}

func inFile(file string, change func(t *testing.T, set map[string]weights.Tensor)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		rewrite(t, dir, file, func(set map[string]weights.Tensor) { change(t, set) })
	}
}

func addTo(file, name string, element int, x float32) func(*testing.T, string) {
	return inFile(file, func(t *testing.T, set map[string]weights.Tensor) { add(t, set, name, element, x) })
}

func remove(file, name string) func(*testing.T, string) {
	return inFile(file, func(t *testing.T, set map[string]weights.Tensor) { delete(set, name) })
}

func config(key string, value any) func(*testing.T, string) {
	return func(t *testing.T, dir string) { setConfig(t, dir, key, value) }
}

func runMutations(t *testing.T, name string, mutations []mutation) {
	open := opener(t, "go")
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			dir := copyCase(t, name)
			m.spoil(t, dir)
			report, err := Run(t.Context(), Options{Dir: dir, OpenBackend: open})
			if err != nil {
				t.Fatal(err)
			}
			r := report.Results[0]
			if r.Status != Failed || r.Err == nil || !strings.Contains(r.Err.Error(), m.says) {
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, m.says)
			}
		})
	}
}

// TestSpoiledVision shows that a case of the image encoder fails whatever is changed in it.
func TestSpoiledVision(t *testing.T) {
	extra := func(_ *testing.T, set map[string]weights.Tensor) {
		set["more"] = weights.FromFloat32("more", []int{1}, []float32{1})
	}
	runMutations(t, "vit-clip-a", []mutation{
		{"weight", addTo(weightsFile, "conv1.weight", 7, 0.01), "features["},
		{"ln_vision", addTo(weightsFile, "ln_vision.bias", 0, 0.001), "ln_vision["},
		{"positions", addTo(weightsFile, "positional_embedding", 64, 0.001), "pos_embed_r0["},
		{"missing weight", remove(weightsFile, "ln_pre.bias"), "ln_pre.bias"},
		{"weight of another model", inFile(weightsFile, extra), "no tensor more"},
		{"weight of another shape", inFile(weightsFile, func(_ *testing.T, set map[string]weights.Tensor) {
			set["ln_pre.bias"] = weights.FromFloat32("", []int{1}, []float32{1})
		}), "ln_pre.bias has shape [1]"},
		{"pixels", addTo(inputsFile, "pixels", 0, 0.1), "features["},
		{"missing pixels", remove(inputsFile, "pixels_r1"), "pixels_r1"},
		{"output", addTo(outputsFile, "features_r1", 5, 0.01), "features_r1[0 0 5]"},
		{"output not a number", addTo(outputsFile, "features", 3, float32(math.NaN())), "features[0 0 3]"},
		{"output left out", inFile(outputsFile, extra), "more: recorded, but not compared"},
		{"missing output", remove(outputsFile, "ln_vision"), "ln_vision: there is no recorded output"},
		{"no outputs", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, outputsFile)); err != nil {
				t.Fatal(err)
			}
		}, outputsFile + " is missing"},
		{"wrong eps", config("vit_layer_norm_eps", 1e-6), "features"},
		{"missing key", config("vit_layer_norm_eps", nil), "vit_layer_norm_eps"},
		{"wrong encoder", config("vit", "eva"), "vit-clip"},
		{"wrong heads", config("vit_heads", 2), "features"},
		{"one size forgotten", config("resized_image_sizes", []int{84}), "features_r1: recorded, but not compared"},
	})
}

// TestSpoiledStage1 does the same for a case of the losses and gradients.
func TestSpoiledStage1(t *testing.T) {
	runMutations(t, "stage1-forward-eva-a", []mutation{
		{"temperature", addTo(weightsFile, "temp", 0, 0.001), "sim_i2t["},
		{"head", addTo(weightsFile, "itm_head.bias", 1, 0.01), "itm_logits["},
		{"gradient", addTo(outputsFile, "grad/query_tokens", 3, 0.01), "grad/query_tokens["},
		{"missing gradient", remove(outputsFile, "grad/temp"), "grad/temp: there is no recorded output"},
		{"other smoothing", config("label_smoothing", 0.11), "loss_"},
		{"other gather", config("itc_gather_grad", true), "grad/"},
		{"frozen", config("freeze_vit", true), "trainable"},
		{"replicas", config("replicas", 2), "replicas"},
		{"no losses", config("label_smoothing", nil), "label_smoothing"},
	})
}

func TestNoBackend(t *testing.T) {
	report, err := Run(t.Context(), Options{Dir: copyCase(t, "vit-clip-a")})
	if err != nil {
		t.Fatal(err)
	}
	if r := report.Results[0]; r.Status != Failed || !strings.Contains(r.Err.Error(), "backend") {
		t.Errorf("%s, error %v", r.Status, r.Err)
	}
}
