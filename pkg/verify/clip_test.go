package verify

import (
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/vit"
)

// numbered returns a tensor of each parameter's shape, all of them different.
func numbered(params []model.Param) tensorSet {
	set, next := tensorSet{}, float32(0)
	for _, p := range params {
		a := array{p.Shape, make([]float32, p.Size())}
		for i := range a.values {
			a.values[i] = next
			next++
		}
		set[p.Name] = a
	}
	return set
}

// sameSets compares two sets of tensors.
func sameSets(t *testing.T, got, want tensorSet) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("no tensor %s", name)
		} else if !slices.Equal(g.shape, w.shape) || !slices.Equal(g.values, w.values) {
			t.Errorf("%s: %v, want %v", name, g, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("a tensor %s too many", name)
		}
	}
}

// clipHF renames a model as transformers does.
func clipHF(set tensorSet) tensorSet {
	out := tensorSet{"text_model.embeddings.position_ids": array{[]int{1, 2}, []float32{0, 1}}}
	for name, a := range set {
		name, vision := strings.CutPrefix(name, "visual.")
		name = strings.NewReplacer("transformer.resblocks", "encoder.layers", "out_proj", "out_proj", "attn.", "self_attn.",
			"ln_pre", "pre_layrnorm", "ln_post", "post_layernorm", "ln_final", "final_layer_norm", "ln_1", "layer_norm1",
			"ln_2", "layer_norm2", "c_fc", "fc1", "c_proj", "fc2", "conv1", "embeddings.patch_embedding",
			"class_embedding", "embeddings.class_embedding", "token_embedding", "embeddings.token_embedding",
			"positional_embedding", "embeddings.position_embedding.weight").Replace(name)
		switch {
		case name == "logit_scale":
			out[name] = a
			continue
		case name == "proj":
			out["visual_projection.weight"] = a.transposed()
			continue
		case name == "text_projection":
			out["text_projection.weight"] = a.transposed()
			continue
		case vision:
			name = "vision_model." + name
		default:
			name = "text_model." + name
		}
		before, after, joined := strings.Cut(name, "in_proj_")
		if !joined {
			out[name] = a
			continue
		}
		shape := slices.Clone(a.shape)
		shape[0] /= 3
		for i, part := range []string{"q", "k", "v"} {
			third := len(a.values) / 3
			out[before+part+"_proj."+after] = array{shape, a.values[i*third : (i+1)*third]}
		}
	}
	return out
}

// TestClipOfHuggingFace: every tensor of a CLIPModel finds its place.
func TestClipOfHuggingFace(t *testing.T) {
	cfg := clip.Config{
		Image: vit.Config{Arch: vit.CLIP, ImageSize: 4, PatchSize: 2, Width: 4, Layers: 2, Heads: 2, MLPRatio: 1.5},
		Text:  clip.Text{Vocab: 5, Context: 3, Width: 2, Layers: 1, Heads: 1, MLP: 3}, Embed: 3,
	}
	want := numbered(clip.Params(cfg))
	hf := clipHF(want)
	for _, name := range []string{"vision_model.pre_layrnorm.bias",
		"vision_model.encoder.layers.1.self_attn.k_proj.weight", "text_model.encoder.layers.0.mlp.fc2.bias", "text_model.embeddings.position_embedding.weight"} {
		if _, ok := hf[name]; !ok {
			t.Fatalf("the test's names are not those of transformers: no %s", name)
		}
	}
	got, err := clipOfHuggingFace(hf)
	if err != nil {
		t.Fatal(err)
	}
	sameSets(t, got, want)
	delete(hf, "text_model.encoder.layers.0.self_attn.v_proj.bias")
	if _, err := clipOfHuggingFace(hf); err == nil || !strings.Contains(err.Error(), "v_proj.bias") {
		t.Errorf("values are missing: error %v", err)
	}
}

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
