package verify

import "testing"

// TestSpoiledClip shows that a case of CLIP fails whatever is changed in it.
func TestSpoiledClip(t *testing.T) {
	const layer = "text_model.encoder.layers.1."
	runGoldenMutations(t, "clip-text-image", "", []mutation{
		{"image tower", addTo(weightsFile, "vision_model.post_layernorm.bias", 0, 0.01), "image_features["},
		{"text tower", addTo(weightsFile, layer+"self_attn.v_proj.bias", 0, 0.05), "text_features["},
		{"scale", addTo(weightsFile, "logit_scale", 0, 0.001), "logits_per_image["},
		{"missing weight", remove(weightsFile, layer+"layer_norm1.bias"), "ln_1.bias"},
		{"missing keys", remove(weightsFile, layer+"self_attn.k_proj.bias"), "k_proj.bias"},
		{"text", inFile(inputsFile, func(t *testing.T, set map[string]weightsTensor) { flip(t, set, "input_ids") }),
			"text_features["},
		{"output", addTo(outputsFile, "image_embeds", 3, 0.001), "image_embeds["},
		{"missing output", remove(outputsFile, "text_embeds"), "text_embeds: there is no recorded output"},
		{"missing key", config("layer_norm_eps", nil), "layer_norm_eps"},
		{"wrong heads", config("text_heads", 1), "text_features["},
	})
}
