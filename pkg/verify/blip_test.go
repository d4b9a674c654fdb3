package verify

import "testing"

// fewRuns leaves one run of each list in expected.json and changes them.
func fewRuns(change func(runs, paperRuns map[string]any)) func(*testing.T, string) {
	return changeJSON(expectedFile, func(file map[string]any) {
		first := func(list string) map[string]any {
			file[list] = file[list].([]any)[:1]
			return file[list].([]any)[0].(map[string]any)
		}
		change(first("runs"), first("paper_runs"))
	})
}

// sequence returns the first recorded text of a run.
func sequence(run map[string]any) map[string]any { return run["sequences"].([]any)[0].(map[string]any) }

// TestSpoiledBlip shows that a case of the captioner fails whatever is changed in it.
func TestSpoiledBlip(t *testing.T) {
	// both spoils a case of which few searches are left, to save time.
	both := func(spoil func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			fewRuns(func(_, _ map[string]any) {})(t, dir)
			spoil(t, dir)
		}
	}
	const decoder = "text_decoder.bert.encoder.layer.1."
	runGoldenMutations(t, "blip-caption", "", []mutation{
		{"encoder", both(addTo(weightsFile, "visual_encoder.norm.bias", 0, 0.01)), "image_embeds["},
		{"decoder", both(addTo(weightsFile, decoder+"crossattention.output.dense.bias", 0, 0.05)), "first_logits["},
		{"twin", both(addTo("hf/model.safetensors", decoder+"output.dense.bias", 0, 1e-3)), "lavis: " + decoder},
		{"twin's config", both(changeJSON("hf/config.json", func(file map[string]any) {
			file["text_config"].(map[string]any)["num_attention_heads"] = 2
		})), "hf: config.json"},
		{"missing twin", both(remove("hf/model.safetensors", decoder+"output.dense.bias")), "tensors are missing"},
		{"mask", both(inFile(inputsFile, func(t *testing.T, set map[string]weightsTensor) { flip(t, set, "text_mask") })),
			"logits["},
		{"nucleus", both(addTo(outputsFile, "nucleus_probs", 5, 0.01)), "nucleus_probs["},
		{"wrong eps", both(config("vit_layer_norm_eps", 1e-2)), "image_embeds["},
		{"wrong start", both(config("bos_token_id", 7)), "first_logits["},
		{"no such token", both(config("bos_token_id", 1000)), "bos_token_id 1000"},
		{"token", fewRuns(func(run, _ map[string]any) { sequence(run)["tokens"].([]any)[0] = 1 }),
			"runs[0].sequences[0].tokens[0]"},
		{"token by the paper's rule", fewRuns(func(_, run map[string]any) { sequence(run)["tokens"].([]any)[0] = 1 }),
			"paper_runs[0].sequences[0].tokens[0]"},
		{"score", fewRuns(func(run, _ map[string]any) { sequence(run)["score"] = -0.5 }), "runs[0].score[0]"},
		{"end", fewRuns(func(run, _ map[string]any) {
			sequence(run)["ended"] = !sequence(run)["ended"].(bool)
		}), "runs[0].sequences[0].ended"},
		{"text too few", fewRuns(func(run, _ map[string]any) {
			run["sequences"] = run["sequences"].([]any)[1:]
		}), "recorded"},
		{"rule", fewRuns(func(_, run map[string]any) { run["len_rule"] = "newest" }), "length rule"},
	})
}

// TestSpoiledSampling does the same for a case of the filter.
func TestSpoiledSampling(t *testing.T) {
	run := func(change func(run map[string]any)) func(*testing.T, string) {
		return changeJSON(expectedFile, func(file map[string]any) { change(file["runs"].([]any)[0].(map[string]any)) })
	}
	runGoldenMutations(t, "sampling-filter", "", []mutation{
		{"kept", run(func(r map[string]any) { r["kept"].([]any)[0] = 3 }), "runs[0].kept[0]"},
		{"temperature", run(func(r map[string]any) { r["temperature"] = 0.75 }), "probs/0["},
		{"top_k", run(func(r map[string]any) { r["top_k"] = 3 }), "probs/0["},
		{"probability", addTo(outputsFile, "probs/1", 0, 0.01), "probs/1[0 0]"},
		{"run left out", changeJSON(expectedFile, func(file map[string]any) { file["runs"] = file["runs"].([]any)[1:] }),
			"recorded"},
		{"logits", remove(inputsFile, "logits"), "logits"},
	})
}
