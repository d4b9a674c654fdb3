package verify

import (
	"testing"
)

// TestSpoiledGenerate shows that a case of the search fails whatever is changed in it.
func TestSpoiledGenerate(t *testing.T) {
	// few leaves the first run, greedy, and one with beams, and changes them.
	few := func(change func(greedy, beams map[string]any)) func(*testing.T, string) {
		return changeJSON(expectedFile, func(file map[string]any) {
			runs := file["runs"].([]any)
			greedy := runs[0].(map[string]any)
			for _, r := range runs {
				if beams := r.(map[string]any); beams["num_beams"].(float64) > 1 {
					file["runs"] = []any{greedy, beams}
					change(greedy, beams)
					return
				}
			}
		})
	}
	both := func(spoil func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			few(func(_, _ map[string]any) {})(t, dir)
			spoil(t, dir)
		}
	}
	for model, weight := range map[string]string{
		"opt": "model.decoder.final_layer_norm.bias", "t5": "decoder.final_layer_norm.weight",
	} {
		t.Run(model, func(t *testing.T) {
			runGoldenMutations(t, "generate", model, []mutation{
				{"greedy token", few(func(r, _ map[string]any) { sequence(r)["tokens"].([]any)[0] = 1 }), "runs[0].sequences[0]"},
				{"token", few(func(_, r map[string]any) { sequence(r)["tokens"].([]any)[0] = 1 }), "runs[1].sequences[0]"},
				{"score", few(func(_, r map[string]any) { sequence(r)["score"] = -0.01 }), "runs[1].score[0]"},
				{"no beams", few(func(_, r map[string]any) { r["num_beams"] = -1 }), "beams"},
				{"no such input", few(func(r, _ map[string]any) { r["input"] = "z9" }), "attention_mask/z9"},
				{"weight", both(inFile(weightsFile, func(t *testing.T, set map[string]weightsTensor) {
					add(t, set, weight, 0, 3)
				})), "runs["},
				{"missing weight", both(remove(weightsFile, weight)), weight},
				{"other model", config("model", "gpt"), `model "gpt": known are`},
			})
		})
	}
	runGoldenMutations(t, "generate", "opt", []mutation{
		{"few positions", config("llm_positions", 4), "embed_positions"},
		{"text too long", few(func(r, _ map[string]any) { r["max_new_tokens"] = 1000 }), "1000 new ones"},
	})
}
