package naming_test

import (
	"slices"
	"strings"
	"testing"

	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// hasForm says whether the publisher has a form for a network: transformers has BLIP-2 with EVA only.
func hasForm(s sample, publisher string) bool {
	clips := s.spec.Vision != nil && s.spec.Vision.Arch == vit.CLIP
	return !clips || publisher != naming.HuggingFace
}

// TestRoundTrip: whatever the names, a model written and read again is the same bit for bit; every tensor of it has a
// name or a reason, every tensor of the file is used, and the names tell what the file is.
func TestRoundTrip(t *testing.T) {
	for _, s := range samples() {
		m, _ := naming.Find(s.spec.Model)
		for publisher, table := range m.Tables {
			t.Run(s.name+" by "+publisher, func(t *testing.T) {
				if s.spec.Model == naming.BERT {
					t.Skip("BERT is only read")
				}
				if !hasForm(s, publisher) {
					ours := numbered(s.spec.Params())
					_, _, err := table.Export(ours.Names(), ours.Info, ours.Tensor)
					says(t, s.name, err, "visual_encoder.class_embedding", table.Name, "has no name for it")
					return
				}
				f, dropped := export(t, s, publisher)
				detected, err := naming.Detect(f.Names())
				if err != nil || detected.Model != s.spec.Model || detected.Publisher != publisher || detected.Unknown != 0 ||
					detected.Known != len(f) {
					t.Errorf("detected %s by %s, %d known, %d not; error %v", detected.Model, detected.Publisher, detected.Known,
						detected.Unknown, err)
				}
				pl, err := plan(s, table, f)
				if err != nil {
					t.Fatal(err)
				}
				ours := numbered(s.spec.Params())
				cov := pl.Coverage()
				if len(cov.Missing)+len(cov.Unexpected)+len(cov.Ignored) != 0 || !slices.Equal(cov.Consumed, f.Names()) {
					t.Errorf("coverage %s of %d tensors", cov, len(f))
				}
				var lost []string
				for _, n := range dropped {
					if n.Reason == "" || table.WhyDropped(n.Name) != n.Reason {
						t.Errorf("%s is dropped for the reason %q, and then %q", n.Name, n.Reason, table.WhyDropped(n.Name))
					}
					lost = append(lost, n.Name)
					delete(ours, n.Name)
				}
				slices.Sort(lost)
				var fresh []string
				for _, n := range cov.Fresh {
					fresh = append(fresh, n.Name)
				}
				if !slices.Equal(lost, fresh) {
					t.Errorf("dropped when written %v, fresh when read %v", lost, fresh)
				}
				if !slices.Equal(cov.Filled, ours.Names()) {
					t.Errorf("filled are %d of %d tensors", len(cov.Filled), len(ours))
				}
				got := file{}
				for _, name := range cov.Filled {
					tensor, ok, err := pl.Tensor(name)
					if err != nil || !ok || tensor.Name != name {
						t.Fatalf("%s: %v, error %v", name, ok, err)
					}
					if dtype, ok, err := pl.DType(name); dtype != tensor.DType || !ok || err != nil {
						t.Errorf("%s is announced as %s, %v, %v", name, dtype, ok, err)
					}
					got[name] = tensor
				}
				sameFiles(t, got, ours)
			})
		}
	}
}

// TestShapes: shapes are told without reading numbers.
func TestShapes(t *testing.T) {
	for _, s := range samples() {
		m, _ := naming.Find(s.spec.Model)
		for publisher, table := range m.Tables {
			if s.spec.Model == naming.BERT || !hasForm(s, publisher) {
				continue
			}
			f, dropped := export(t, s, publisher)
			shapes, err := table.Shapes(blind{f})
			if err != nil || len(shapes) != len(s.spec.Params())-len(dropped) {
				t.Errorf("%s by %s: %d shapes, error %v", s.name, publisher, len(shapes), err)
			}
			for _, p := range s.spec.Params() {
				if got, ok := shapes[p.Name]; ok && !slices.Equal(got, p.Shape) {
					t.Errorf("%s by %s: %s has shape %v, want %v", s.name, publisher, p.Name, got, p.Shape)
				}
			}
		}
	}
}

// blind is a file whose numbers cannot be read.
type blind struct{ file }

func (b blind) Tensor(name string) (weights.Tensor, error) {
	panic("the numbers of " + name + " are read")
}

// TestNamesOfCLIP compares the table with another way to rename: text replacement.
func TestNamesOfCLIP(t *testing.T) {
	s := find(t, "CLIP")
	got, _ := export(t, s, naming.HuggingFace)
	want := file{}
	for name, tensor := range numbered(s.spec.Params()) {
		name, vision := strings.CutPrefix(name, "visual.")
		name = strings.NewReplacer("transformer.resblocks", "encoder.layers", "attn.", "self_attn.",
			"ln_pre", "pre_layrnorm", "ln_post", "post_layernorm", "ln_final", "final_layer_norm", "ln_1", "layer_norm1",
			"ln_2", "layer_norm2", "c_fc", "fc1", "c_proj", "fc2", "conv1", "embeddings.patch_embedding",
			"class_embedding", "embeddings.class_embedding", "token_embedding", "embeddings.token_embedding",
			"positional_embedding", "embeddings.position_embedding.weight").Replace(name)
		switch {
		case name == "logit_scale":
			want[name] = tensor
			continue
		case name == "proj":
			want["visual_projection.weight"] = transposed(t, tensor)
			continue
		case name == "text_projection":
			want["text_projection.weight"] = transposed(t, tensor)
			continue
		case vision:
			name = "vision_model." + name
		default:
			name = "text_model." + name
		}
		before, after, joined := strings.Cut(name, "in_proj_")
		if !joined {
			want[name] = tensor
			continue
		}
		third := len(tensor.Data) / 3
		shape := slices.Clone(tensor.Shape)
		shape[0] /= 3
		for i, part := range []string{"q", "k", "v"} {
			want[before+part+"_proj."+after] = weights.Tensor{DType: tensor.DType, Shape: shape,
				Data: tensor.Data[i*third:][:third]}
		}
	}
	for _, name := range []string{"vision_model.pre_layrnorm.bias",
		"vision_model.encoder.layers.1.self_attn.k_proj.weight",
		"text_model.encoder.layers.0.mlp.fc2.bias", "text_model.embeddings.position_embedding.weight"} {
		if _, ok := want[name]; !ok {
			t.Fatalf("the test's names are not those of transformers: no %s", name)
		}
	}
	sameFiles(t, got, want)
	_, err := plan(s, table(s, naming.HuggingFace), got.without("text_model.encoder.layers.0.self_attn.v_proj.bias"))
	says(t, "values are missing", err, "transformer.resblocks.0.attn.in_proj_bias",
		"(of text_model.encoder.layers.0.self_attn.v_proj.bias)")
}

// transposed exchanges rows and columns.
func transposed(t *testing.T, in weights.Tensor) weights.Tensor {
	t.Helper()
	v, err := in.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	h, w := in.Shape[0], in.Shape[1]
	out := make([]float32, len(v))
	for i := range v {
		out[i%w*h+i/w] = v[i]
	}
	return values([]int{w, h}, out...)
}

// TestNamesOfBLIP does the same for BLIP's captioner, whose files hold two tensors twice.
func TestNamesOfBLIP(t *testing.T) {
	s := find(t, "BLIP")
	ours := numbered(s.spec.Params())
	want := file{}
	for name, tensor := range ours {
		if rest, vision := strings.CutPrefix(name, "visual_encoder."); vision {
			name = "vision_model." + strings.NewReplacer("blocks", "encoder.layers", "attn.proj", "self_attn.projection",
				"attn.qkv", "self_attn.qkv", "norm1", "layer_norm1", "norm2", "layer_norm2", "cls_token",
				"embeddings.class_embedding", "pos_embed", "embeddings.position_embedding", "patch_embed.proj",
				"embeddings.patch_embedding").Replace(rest)
			if strings.HasPrefix(rest, "norm.") {
				name = "vision_model.post_layernorm." + strings.TrimPrefix(rest, "norm.")
			}
		}
		want[name] = tensor
	}
	got, _ := export(t, s, naming.HuggingFace)
	sameFiles(t, got, want)
	full := got.with(file{
		"text_decoder.bert.embeddings.position_ids":   zeros(1, 1),
		"text_decoder.cls.predictions.decoder.weight": ours["text_decoder.bert.embeddings.word_embeddings.weight"],
		"text_decoder.cls.predictions.decoder.bias":   ours["text_decoder.cls.predictions.bias"],
	})
	pl, err := plan(s, table(s, naming.HuggingFace), full)
	if err != nil || len(pl.Coverage().Ignored) != 3 || len(pl.Coverage().Filled) != len(ours) {
		t.Errorf("%v, error %v", pl.Coverage(), err)
	}
}

// TestNamesOfBLIP2 spells out a few names of LAVIS and transformers of each kind (spec/weights.md 2.1 and 3).
func TestNamesOfBLIP2(t *testing.T) {
	const layer = "Qformer.bert.encoder.layer.2."
	for _, c := range []struct{ sample, ours, hf string }{
		{"stage 1 with EVA", "visual_encoder.cls_token", "vision_model.embeddings.class_embedding"},
		{"stage 1 with EVA", "visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"},
		{"stage 1 with EVA", "visual_encoder.blocks.1.attn.q_bias", "vision_model.encoder.layers.1.self_attn.qkv.bias"},
		{"stage 1 with EVA", "visual_encoder.blocks.1.attn.v_bias", "vision_model.encoder.layers.1.self_attn.qkv.bias"},
		{"stage 1 with EVA", "visual_encoder.blocks.1.attn.proj.bias",
			"vision_model.encoder.layers.1.self_attn.projection.bias"},
		{"stage 1 with EVA", "ln_vision.weight", "vision_model.post_layernorm.weight"},
		{"stage 1 with EVA", "Qformer.bert.embeddings.LayerNorm.bias", "qformer.layernorm.bias"},
		{"stage 1 with EVA", "Qformer.bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"},
		{"stage 1 with EVA", layer + "attention.self.key.bias", "qformer.encoder.layer.2.attention.attention.key.bias"},
		{"stage 1 with EVA", layer + "attention.output.dense.bias", "qformer.encoder.layer.2.attention.output.dense.bias"},
		{"stage 1 with EVA", layer + "crossattention.self.key.bias",
			"qformer.encoder.layer.2.crossattention.attention.key.bias"},
		{"stage 1 with EVA", layer + "output_query.dense.bias", "qformer.encoder.layer.2.output_query.dense.bias"},
		{"stage 1 with EVA", layer + "intermediate.dense.bias", "qformer.encoder.layer.2.intermediate.dense.bias"},
		{"stage 1 with EVA", "vision_proj.bias", "vision_projection.bias"},
		{"stage 1 with EVA", "itm_head.bias", "itm_head.bias"},
		{"OPT with EVA", "opt_proj.weight", "language_projection.weight"},
		{"OPT with EVA", "opt_model.model.decoder.embed_tokens.weight", "language_model.model.decoder.embed_tokens.weight"},
		{"T5 with EVA", "t5_proj.weight", "language_projection.weight"},
		{"T5 with EVA", "t5_model.shared.weight", "language_model.shared.weight"},
		{"T5 with EVA", "t5_model.lm_head.weight", "language_model.lm_head.weight"},
	} {
		s := find(t, c.sample)
		if got := table(s, naming.HuggingFace).Ours(c.hf); !slices.Contains(got, c.ours) {
			t.Errorf("%s is %v, want %s", c.hf, got, c.ours)
		}
		if f, _ := export(t, s, naming.HuggingFace); f[c.hf].Shape == nil {
			t.Errorf("%s: transformers gets no %s", c.sample, c.hf)
		}
		if f, _ := export(t, s, naming.LAVIS); f[c.ours].Shape == nil {
			t.Errorf("%s: LAVIS gets no %s", c.sample, c.ours)
		}
	}
}
