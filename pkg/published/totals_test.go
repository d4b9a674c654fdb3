package published

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// bertBase is the Q-Former of all published checkpoints, for an encoder of the given width.
func bertBase(width int) *qformer.Config {
	return &qformer.Config{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Queries: 32, CrossAttentionFreq: 2,
		EncoderWidth: width, Vocab: 30523, MaxPositions: 512, LayerNormEps: 1e-12, Dropout: 0.1}
}

// preset returns BLIP-2 of published sizes: encoder "L" or "g", language model empty for stage 1.
func preset(t *testing.T, encoder, llm string) Spec {
	t.Helper()
	names := map[string]string{"L": "clip-vit-l14", "g": "eva-vit-g14"}
	v, err := vit.Preset(names[encoder])
	if err != nil {
		t.Fatal(err)
	}
	v.MLPRatio = vit.RatioOf(v.MLPWidth(), v.Width) // as shapes tell it
	s := Spec{Model: naming.BLIP2Stage1, Vision: &v, QFormer: bertBase(v.Width), QFormerText: true, EmbedDim: 256,
		LNVisionEps: LNVisionEps}
	if llm == "" {
		return s
	}
	s.QFormerText, s.EmbedDim, s.QFormer.Vocab, s.QFormer.MaxPositions = false, 0, 0, 0
	if strings.HasPrefix(llm, "opt") {
		o, err := opt.Preset(llm)
		if err != nil {
			t.Fatal(err)
		}
		s.Model, s.OPT = naming.BLIP2OPT, &o
		return s.withLLMWidth()
	}
	m, err := t5.Preset(llm)
	if err != nil {
		t.Fatal(err)
	}
	s.Model, s.T5 = naming.BLIP2T5, &m
	return s.withLLMWidth()
}

// trained counts what is neither the image encoder's nor the language model's.
func trained(s Spec) int {
	return model.Count(slices.DeleteFunc(s.Params(), func(p model.Param) bool { return isVision(p) || isLLM(p) }))
}

// TestTotals checks the numbers of parameters of spec/model.md 5.6 to the unit.
func TestTotals(t *testing.T) {
	for _, c := range []struct {
		encoder, llm   string
		trained, total int
	}{
		{"L", "", 183_165_758, 183_165_758 + 290_581_504},
		{"g", "", 186_705_470, 186_705_470 + 985_894_528},
		{"L", "opt-2.7b", 103_593_984, 103_593_984 + 290_581_504 + 2_651_596_800},
		{"g", "opt-2.7b", 107_133_696, 107_133_696 + 985_894_528 + 2_651_596_800},
		{"g", "opt-6.7b", 108_314_880, 108_314_880 + 985_894_528 + 6_658_473_984},
		{"L", "flan-t5-xl", 103_200_256, 103_200_256 + 290_581_504 + 2_849_757_184},
		{"g", "flan-t5-xl", 106_739_968, 106_739_968 + 985_894_528 + 2_849_757_184},
		{"g", "flan-t5-xxl", 108_314_880, 108_314_880 + 985_894_528 + 11_135_332_352},
	} {
		s := preset(t, c.encoder, c.llm)
		if err := s.Validate(); err != nil {
			t.Errorf("%s with %s: %v", c.encoder, c.llm, err)
		}
		if got := trained(s); got != c.trained {
			t.Errorf("%s with %s: %d parameters are trained, want %d", c.encoder, c.llm, got, c.trained)
		}
		if got := model.Count(s.Params()); got != c.total {
			t.Errorf("%s with %s: %d parameters, want %d", c.encoder, c.llm, got, c.total)
		}
	}
	for _, c := range []struct {
		encoder      string
		pixels, want int
	}{{"L", 364, 291_011_584}, {"g", 364, 986_485_888}, {"g", 490, 987_258_880}} {
		s := preset(t, c.encoder, "")
		s.Vision.ImageSize = c.pixels
		if got := model.Count(s.Params()) - trained(s); got != c.want {
			t.Errorf("%s at %d px has %d parameters, want %d", c.encoder, c.pixels, got, c.want)
		}
	}
}

// shapesOf are the shapes of a network's tensors.
func shapesOf(s Spec) map[string][]int {
	out := map[string][]int{}
	for _, p := range s.Params() {
		out[p.Name] = p.Shape
	}
	return out
}

// TestFromShapes: the shapes of published networks, heads and epsilons included, tell all that there is to tell.
func TestFromShapes(t *testing.T) {
	specs := map[string]Spec{}
	for _, encoder := range []string{"L", "g"} {
		for _, llm := range []string{"", "opt-125m", "opt-350m", "opt-1.3b", "opt-2.7b", "opt-6.7b", "flan-t5-small",
			"flan-t5-xl",
			"flan-t5-xxl"} {
			specs[encoder+" "+llm] = preset(t, encoder, llm)
		}
	}
	large := preset(t, "g", "opt-2.7b")
	large.Vision.ImageSize = 364
	specs["g at 364 px"] = large
	without := preset(t, "g", "opt-2.7b")
	without.Vision, without.OPT = nil, nil
	specs["without frozen parts"] = without
	captioner, err := blip.Preset("blip-large")
	if err != nil {
		t.Fatal(err)
	}
	captioner.Vision.MLPRatio = vit.RatioOf(4096, 1024)
	specs["BLIP"] = Spec{Model: naming.BLIPCaption, BLIP: &captioner}
	full, err := clip.Preset("clip-vit-l14")
	if err != nil {
		t.Fatal(err)
	}
	full.Image.MLPRatio = vit.RatioOf(4096, 1024)
	specs["CLIP"] = Spec{Model: naming.CLIP, CLIP: &full}
	for _, name := range []string{"opt-350m", "opt-6.7b", "opt-13b", "opt-30b", "opt-66b"} {
		o, err := opt.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = Spec{Model: naming.OPT, OPT: &o}
	}
	flan, err := t5.Preset("flan-t5-large")
	if err != nil {
		t.Fatal(err)
	}
	flan.Activation = nn.GELUNew // alone it is not BLIP-2's
	specs["flan-t5-large"] = Spec{Model: naming.T5, T5: &flan}
	bert := *bertBase(0)
	bert.Queries, bert.CrossAttentionFreq, bert.Vocab = 0, 0, 30522
	specs["BERT"] = Spec{Model: naming.BERT, BERT: &bert}
	for name, want := range specs {
		got, err := FromShapes(want.Model, shapesOf(want))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameSpec(t, name, got, want)
	}
}

// TestFromShapesOfTiny: any sizes are told, only heads are not; hints give them.
func TestFromShapesOfTiny(t *testing.T) {
	for name, want := range tiny() {
		got, err := FromShapes(want.Model, shapesOf(want))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want.LNVisionEps != 0 {
			want.LNVisionEps = LNVisionEps
		}
		want.EOS, want.BOS = 0, 0
		sameSpec(t, name, got.hinted(hints), want)
	}
}

// TestFromShapesRefuses shapes that tell no sizes.
func TestFromShapesRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		network, name string
		shape         []int // nil takes the tensor out
		says          string
	}{
		"no queries":          {"stage1", "query_tokens", nil, "Q-Former's width"},
		"queries of two axes": {"stage1", "query_tokens", []int{3, 4}, "Q-Former's width"},
		"no patches":          {"stage1", "visual_encoder.patch_embed.proj.weight", nil, "image encoder's width"},
		"no cross-attention": {"blip2-opt", "Qformer.bert.encoder.layer.0.crossattention.self.key.weight", nil,
			"cross-attention reads"},
		"no positions": {"opt", "model.decoder.embed_positions.weight", []int{2, 8}, "number of OPT's positions"},
		"no position buckets": {"t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", nil,
			"number of T5's heads"},
		"a head of no width":    {"t5", "encoder.block.0.layer.0.SelfAttention.q.weight", []int{0, 8}, "width of T5's heads"},
		"no token table":        {"clip", "token_embedding.weight", nil, "text tower's"},
		"no words":              {"blip", "text_decoder.bert.embeddings.word_embeddings.weight", nil, "text decoder's width"},
		"BERT without words":    {"bert", naming.WordEmbeddings, nil, "BERT's width"},
		"no MLP in the encoder": {"eva", "visual_encoder.blocks.0.mlp.fc1.weight", []int{}, "MLP"},
	} {
		spec := tiny()[c.network]
		shapes := shapesOf(spec)
		if c.shape == nil {
			delete(shapes, c.name)
		} else {
			shapes[c.name] = c.shape
		}
		_, err := FromShapes(spec.Model, shapes)
		says(t, what, err, c.says, "cannot be told")
	}
}

// TestHostileLayers: numbers in names do not make a model larger than the file is.
func TestHostileLayers(t *testing.T) {
	for name, add := range map[string]string{"blip2-opt": "Qformer.bert.encoder.layer.%s.x",
		"opt": "model.decoder.layers.%s.fc1.weight", "t5": "decoder.block.%s.x", "eva": "visual_encoder.blocks.%s.x",
		"clip": "transformer.resblocks.%s.x", "blip": "text_decoder.bert.encoder.layer.%s.x"} {
		spec := tiny()[name]
		shapes := shapesOf(spec)
		plain := len(shapes)
		for _, number := range []string{"2000000000", "9223372036854775807", "99999999999999999999", "-1"} {
			more := maps.Clone(shapes)
			more[strings.ReplaceAll(add, "%s", number)] = []int{1}
			got, err := FromShapes(spec.Model, more)
			if err != nil {
				continue
			}
			if n := len(got.Params()); n > 40*plain {
				t.Errorf("%s with layer %s: %d tensors", name, number, n)
			}
		}
	}
}
