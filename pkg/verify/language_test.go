package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// runSpoiled is runMutations on a recorded case.
func runSpoiled(t *testing.T, name string, mutations []mutation) {
	recorded := filepath.Join(goldenDir(t), name)
	if _, err := os.Stat(recorded); err != nil {
		t.Skipf("no recorded case: %v", err)
	}
	open := opener(t, "go")
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			if err := os.CopyFS(dir, os.DirFS(recorded)); err != nil {
				t.Fatal(err)
			}
			makeWritable(t, dir)
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

// setInt replaces one element of an integer input.
func setInt(name string, element int, value int64) func(*testing.T, string) {
	return inFile(inputsFile, func(t *testing.T, set map[string]weights.Tensor) {
		tensor := set[name]
		values, err := tensor.Int64s()
		if err != nil {
			t.Fatal(err)
		}
		values[element] = value
		set[name] = weights.FromInt64(name, tensor.Shape, values)
	})
}

// TestSpoiledOPT shows that a case of OPT fails whatever is changed in it.
func TestSpoiledOPT(t *testing.T) {
	layer := "model.decoder.layers.2."
	runSpoiled(t, "opt-lm-b", []mutation{
		{"weight", addTo(weightsFile, layer+"fc1.weight", 7, 0.1), "logits/"},
		{"position table", addTo(weightsFile, "model.decoder.embed_positions.weight", 5*48, 0.1), "logits/"},
		{"missing weight", remove(weightsFile, layer+"fc2.bias"), "fc2.bias"},
		{"embeddings", addTo(inputsFile, "inputs_embeds/hole", 0, 0.1), "logits/hole["},
		{"mask", setInt("attention_mask/left", 0, 0), "logits/left"},
		{"label", setInt("labels/right", 6, 3), "loss"},
		{"id", setInt("input_ids/left", 13, 3), "logits/left_ids["},
		{"mask out of range", setInt("attention_mask/hole", 3, 2), "attention_mask/hole[0 3] is 2, not 0 or 1"},
		{"label out of range", setInt("labels/right", 4, -1), "labels/right[0 4] is -1, not -100 or an id"},
		{"id out of range", setInt("input_ids/left", 2, 101), "input_ids/left[0 2] is 101, not an id"},
		{"gradient", addTo(outputsFile, "grad/inputs_embeds/right", 3, 0.01), "grad/inputs_embeds/right["},
		{"missing mask", remove(inputsFile, "attention_mask/right"), "attention_mask/right"},
		{"wrong eps", config("llm_layer_norm_eps", 1e-6), "logits/"},
		{"missing key", config("llm_heads", nil), "number of heads"},
		{"wrong heads", config("llm_heads", 5), "48 is not divisible by 5"},
		{"too few positions", config("llm_positions", 9), "embed_positions"},
	})
}

// TestSpoiledT5 does the same for a case of T5.
func TestSpoiledT5(t *testing.T) {
	runSpoiled(t, "t5-seq2seq-b", []mutation{
		{"weight", addTo(weightsFile, "encoder.block.1.layer.1.DenseReluDense.wi_1.weight", 7, 0.1), "encoder_last"},
		{"position bias", addTo(weightsFile,
			"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 4, 0.1), "logits["},
		{"missing weight", remove(weightsFile, "lm_head.weight"), "lm_head.weight"},
		{"embeddings", addTo(inputsFile, "inputs_embeds", 0, 0.1), "encoder_last"},
		{"mask", setInt("attention_mask", 0, 0), "encoder_last"},
		{"label", setInt("labels", 6, 3), "loss"},
		{"mask out of range", setInt("decoder_attention_mask", 0, -1), "decoder_attention_mask[0 0] is -1"},
		{"label out of range", setInt("labels", 4, 90), "labels[0 4] is 90, not -100 or an id"},
		{"gradient", addTo(outputsFile, "grad/inputs_embeds", 3, 0.01), "grad/inputs_embeds["},
		{"other gelu", config("llm_act", "gelu"), "encoder_last"},
		{"no gelu", config("llm_act", "relu"), `activation "relu"`},
		{"wrong eps", config("llm_layer_norm_eps", 1e-5), "encoder_last"},
		{"other distances", config("relative_attention_max_distance", 64), "encoder_last"},
		{"missing key", config("llm_head_dim", nil), "head size"},
	})
}
