package naming_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// TestDetect tells networks apart by files that hold a part of them, as LAVIS writes them, or more than is used.
func TestDetect(t *testing.T) {
	by := func(sample, publisher string) file { f, _ := export(t, find(t, sample), publisher); return f }
	const lavis, hf, original = naming.LAVIS, naming.HuggingFace, naming.Original
	bert := file{}
	for name, tensor := range numbered(find(t, "BERT").spec.Params()) {
		name = strings.Replace(name, "Qformer.cls.", "cls.", 1)
		bert[strings.Replace(name, "Qformer.bert.", "bert.", 1)] = tensor
	}
	for _, c := range []struct {
		what, model, publisher string
		f                      file
	}{
		{"stage 1 without encoder", naming.BLIP2Stage1, lavis, by("stage 1 with EVA", lavis).without("visual_encoder.")},
		{"stage 2 without encoder and OPT", naming.BLIP2OPT, lavis, by("OPT with EVA", lavis).without("visual_encoder.",
			"opt_model.")},
		{"stage 2 without encoder and T5", naming.BLIP2T5, lavis, by("T5 with EVA", lavis).without("visual_encoder.",
			"t5_model.")},
		{"captioning, without OPT", naming.BLIP2OPT, lavis, by("OPT with EVA", lavis).without("opt_model.")},
		{"captioning with CLIP, without T5", naming.BLIP2T5, lavis, by("T5 with CLIP", lavis).without("t5_model.")},
		{"stage 2 without encoder", naming.BLIP2T5, lavis, by("T5 with EVA", lavis).without("visual_encoder.")},
		{"the Q-Former alone", naming.BLIP2Stage1, lavis, by("OPT with EVA", lavis).only("Qformer.", "query_tokens")},
		{"ViT-g with its end", naming.EVAViT, original, by("EVA", original).with(file{"norm.weight": zeros(6),
			"norm.bias":   zeros(6),
			"head.weight": zeros(2, 6), "head.bias": zeros(2)})},
		{"ViT-L with its end", naming.CLIPViT, original, by("CLIP's encoder", original).with(file{"ln_post.weight": zeros(6),
			"ln_post.bias": zeros(6), "proj": zeros(6, 2)})},
		{"all of CLIP with sizes", naming.CLIP, original, by("CLIP", original).with(file{"input_resolution": zeros(),
			"context_length": zeros(),
			"vocab_size":     zeros()})},
		{"CLIP's image side", naming.CLIP, hf, by("CLIP", hf).without("text_", "logit_scale")},
		{"OPT without model.", naming.OPT, hf, by("OPT", hf).renamed(func(s string) string {
			return strings.TrimPrefix(s,
				"model.")
		})},
		{"OPT with lm_head only", naming.OPT, hf, by("OPT", hf).without("embed_tokens").with(file{"lm_head.weight": zeros(13,
			8)})},
		{"T5's encoder", naming.T5, hf, by("T5", hf).only("shared.", "encoder.")},
		{"T5's decoder", naming.T5, hf, by("T5", hf).only("shared.", "decoder.", "lm_head")},
		{"BERT", naming.BERT, hf, bert},
		{"BERT without bert.", naming.BERT, hf, bert.renamed(func(s string) string {
			return strings.TrimPrefix(s,
				"bert.")
		})},
		{"old BERT", naming.BERT, hf, bert.renamed(func(s string) string {
			return strings.NewReplacer("LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta").Replace(s)
		}).with(file{"bert.pooler.dense.weight": zeros(4, 4), "cls.seq_relationship.bias": zeros(2)})},
		{"early revision", naming.BLIP2OPT, hf, by("OPT with EVA", hf).without("qkv.bias").with(file{
			"vision_model.encoder.layers.0.self_attn.q_bias": zeros(6),
			"vision_model.encoder.layers.0.self_attn.v_bias": zeros(6)})},
	} {
		d, err := naming.Detect(c.f.Names())
		if err != nil || d.Model != c.model || d.Publisher != c.publisher || d.Unknown != 0 {
			t.Errorf("%s: %s by %s (%d known, %d unknown), error %v; want %s by %s", c.what, d.Model, d.Publisher, d.Known,
				d.Unknown, err, c.model, c.publisher)
		}
	}
	_, err := naming.Detect([]string{"layer4.0.conv1.weight", "fc.weight"})
	says(t, "another network", err, "2 tensors", "no network that is known", "layer4.0.conv1.weight")
	if _, err := naming.Detect(nil); err == nil {
		t.Error("nothing is a network")
	}
}

// outcome is a plan in a few words.
type outcome struct {
	filled, ignored, missing, unexpected int
	ignoredWhy                           string // contained in the reason of an ignored tensor
	says                                 []string
}

// TestPlan plans files that are not quite as they should be.
func TestPlan(t *testing.T) {
	opt, t5, eva := find(t, "OPT"), find(t, "T5"), find(t, "OPT with EVA")
	optFile, _ := export(t, opt, naming.HuggingFace)
	t5File, _ := export(t, t5, naming.HuggingFace)
	hf, _ := export(t, eva, naming.HuggingFace)
	words := optFile["model.decoder.embed_tokens.weight"]
	shared := t5File["shared.weight"]
	other := values(words.Shape, make([]float32, len(words.Data)/4)...)
	half, err := words.CastFloat(weights.BF16)
	if err != nil {
		t.Fatal(err)
	}
	const qkv = "vision_model.encoder.layers.1.self_attn."
	trained := slices.Clone(hf[qkv+"qkv.bias"].Data)
	trained[6*4+3] = 0x3f // the first key's
	wrong := func(name string, shape ...int) file { return hf.with(file{name: zeros(shape...)}) }
	for _, c := range []struct {
		what string
		s    sample
		f    naming.Source
		want outcome
	}{
		{"twin that is equal", opt, optFile.with(file{"lm_head.weight": words}),
			outcome{filled: len(optFile), ignored: 1, ignoredWhy: "equal to model.decoder.embed_tokens.weight"}},
		{"twin that differs", opt, optFile.with(file{"lm_head.weight": other}), outcome{filled: len(optFile), ignored: 1,
			says: []string{"model.decoder.embed_tokens.weight", "lm_head.weight", "differ"}}},
		{"twin of another type", opt, optFile.with(file{"lm_head.weight": half}), outcome{filled: len(optFile), ignored: 1,
			says: []string{"lm_head.weight", "differ"}}},
		{"only the second name", opt, optFile.without("embed_tokens").with(file{"lm_head.weight": words}),
			outcome{filled: len(optFile)}},
		{"three names", t5, t5File.with(file{"encoder.embed_tokens.weight": shared, "decoder.embed_tokens.weight": shared}),
			outcome{filled: len(t5File), ignored: 2, ignoredWhy: "equal to shared.weight"}},
		{"the two last names", t5, t5File.without("shared").with(file{"encoder.embed_tokens.weight": shared,
			"decoder.embed_tokens.weight": shared}), outcome{filled: len(t5File), ignored: 1, ignoredWhy: "equal to "}},
		{"a stray table", t5,
			t5File.with(file{"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": zeros(4, 2)}),
			outcome{filled: len(t5File), ignored: 1, ignoredWhy: "no positions"}},
		{"early revision", eva, hf.without("qkv.bias").with(file{
			"vision_model.encoder.layers.0.self_attn.q_bias": zeros(6),
			"vision_model.encoder.layers.0.self_attn.v_bias": zeros(6),
			qkv + "q_bias": zeros(6), qkv + "v_bias": zeros(6)}), outcome{filled: len(hf) + 2}},
		{"qkv.bias beside q_bias", eva, hf.with(file{qkv + "q_bias": zeros(6)}), outcome{filled: len(hf) + 2,
			says: []string{qkv + "qkv.bias", qkv + "q_bias", "both stand for visual_encoder.blocks.1.attn.q_bias",
				"remove one"}}},
		{"a tensor too many", eva, hf.with(file{"qformer.extra.weight": zeros(1),
			"vision_model.encoder.layers.9.mlp.fc1.bias": zeros(9)}),
			outcome{filled: len(hf) + 2, unexpected: 2, says: []string{"2 tensors are not known", "qformer.extra.weight",
				"vision_model.encoder.layers.9.mlp.fc1.bias"}}},
		{"tensors missing", eva, hf.without("query_tokens", "fc1.bias"), outcome{filled: len(hf) + 2 - 5, missing: 5,
			says: []string{"5 tensors are missing", "query_tokens"}}},
		{"another rank", eva, wrong("query_tokens", 3, 4), outcome{filled: len(hf) + 2,
			says: []string{"query_tokens has shape [3 4], the model needs [1 3 4]"}}},
		{"a scalar", eva, wrong("language_projection.bias"), outcome{filled: len(hf) + 2,
			says: []string{"opt_proj.bias has shape []", "needs [8]"}}},
		{"a matrix as bias", eva, wrong(qkv+"qkv.bias", 3, 6), outcome{filled: len(hf) + 2,
			says: []string{qkv + "qkv.bias has shape [3 6], which is no bias of queries, keys and values"}}},
		{"a bias not of three", eva, wrong(qkv+"qkv.bias", 19), outcome{filled: len(hf) + 2,
			says: []string{qkv + "qkv.bias has shape [19]"}}},
		{"a scalar bias", eva, wrong(qkv + "qkv.bias"), outcome{filled: len(hf) + 2, says: []string{"no bias of queries"}}},
		{"another width", eva, wrong(qkv+"qkv.bias", 21), outcome{filled: len(hf) + 2,
			says: []string{"visual_encoder.blocks.1.attn.q_bias has shape [7]"}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			pl, err := plan(c.s, table(c.s, naming.HuggingFace), c.f)
			got := pl.Coverage()
			if len(c.want.says) > 0 {
				says(t, c.what, err, append(c.want.says, table(c.s, naming.HuggingFace).Name)...)
			} else if err != nil {
				t.Error(err)
			}
			if len(got.Filled) != c.want.filled || len(got.Ignored) != c.want.ignored || len(got.Missing) != c.want.missing ||
				len(got.Unexpected) != c.want.unexpected {
				t.Errorf("coverage %s of %d, want %+v", got, len(c.f.Names()), c.want)
			}
			if n := len(got.Consumed) + len(got.Ignored) + len(got.Unexpected); n < len(c.f.Names()) {
				t.Errorf("of %d tensors %d are accounted for", len(c.f.Names()), n)
			}
			if why := fmt.Sprint(got.Ignored); !strings.Contains(why, c.want.ignoredWhy) {
				t.Errorf("ignored are %s, want the reason %q", why, c.want.ignoredWhy)
			}
		})
	}
	// A key bias is found when the numbers are read.
	bias := hf[qkv+"qkv.bias"]
	bias.Data = trained
	pl, err := plan(eva, table(eva, naming.HuggingFace), hf.with(file{qkv + "qkv.bias": bias}))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = pl.Tensor("visual_encoder.blocks.1.attn.v_bias")
	says(t, "a trained key bias", err, qkv+"qkv.bias", "bias of key 0", "keys have no bias")
	if _, ok, err := pl.Tensor("nosuch"); ok || err != nil {
		t.Errorf("a tensor that is not of the part: %v, %v", ok, err)
	}
}

// TestRows refuses queries, keys and values that do not stand one below the other.
func TestRows(t *testing.T) {
	s := find(t, "CLIP")
	f, _ := export(t, s, naming.HuggingFace)
	const layer = "vision_model.encoder.layers.0.self_attn."
	half, err := f[layer+"v_proj.bias"].CastFloat(weights.F16)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		f    file
		says []string
	}{
		"ragged": {f.with(file{layer + "k_proj.weight": zeros(5, 6)}), []string{"k_proj.weight is F32 [5 6]",
			"q_proj.weight", "[6 6]"}},
		"types": {f.with(file{layer + "v_proj.bias": half}), []string{"v_proj.bias is F16 [6]",
			"q_proj.bias, which is F32"}},
		"scalars": {f.with(file{layer + "q_proj.bias": zeros()}), []string{layer + "q_proj.bias is a scalar"}},
		"transposed": {f.with(file{"text_projection.weight": zeros(5)}),
			[]string{"text_projection.weight has shape [5], expected a matrix"}},
	} {
		_, err := plan(s, table(s, naming.HuggingFace), c.f)
		says(t, what, err, c.says...)
	}
}

// TestSurplus leaves out blocks behind those that are used.
func TestSurplus(t *testing.T) {
	s := find(t, "EVA")
	f, _ := export(t, s, naming.Original)
	small := *s.spec.Vision
	small.Layers = 1
	s.spec.Vision = &small
	part := naming.Part{What: "image encoder", Params: s.spec.Params(), Tables: []naming.Table{table(s, naming.Original)},
		Layers: naming.VisionPrefix + "blocks.*.**", Used: 1}
	pl, err := naming.NewPlan(part, f)
	if err != nil {
		t.Fatal(err)
	}
	cov := pl.Coverage()
	if len(cov.Ignored) != len(f)-len(cov.Consumed) || cov.Ignored[0].Reason != "block beyond the 1 that are used" {
		t.Errorf("ignored are %v", cov.Ignored)
	}
	for _, n := range cov.Ignored {
		if !strings.HasPrefix(n.Name, "blocks.1.") {
			t.Errorf("%s is ignored", n.Name)
		}
	}
	part.Used = 0 // a block 0 is not beyond those that are used, whatever the part says of it
	part.Layers = ""
	_, err = naming.NewPlan(part, f)
	says(t, "without a pattern of layers", err, "not known", "blocks.1.")
}

// indexed is a file whose index lists tensors that no shard holds.
type indexed struct {
	file
	absent map[string]string
}

func (x indexed) Absent() map[string]string { return x.absent }

// TestAbsent: an index may list the second names of shared tensors, and what is ignored anyway; nothing else.
func TestAbsent(t *testing.T) {
	s := find(t, "T5")
	f, _ := export(t, s, naming.HuggingFace)
	table := table(s, naming.HuggingFace)
	const stray = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
	pl, err := plan(s, table, indexed{f, map[string]string{"encoder.embed_tokens.weight": "a",
		"decoder.embed_tokens.weight": "b",
		stray:                         "b"}})
	if err != nil || len(pl.Coverage().Ignored) != 3 {
		t.Errorf("%v, error %v", pl.Coverage(), err)
	}
	_, err = plan(s, table, indexed{f.without("final_layer_norm"), map[string]string{
		"encoder.final_layer_norm.weight": "model-2.safetensors", "decoder.embed_tokens.weight": "model-1.safetensors"}})
	says(t, "a lost tensor", err, "the index places encoder.final_layer_norm.weight in model-2.safetensors",
		"download the shard again", "2 tensors are missing")
	_, err = plan(s, table, indexed{f.without("shared"),
		map[string]string{"encoder.embed_tokens.weight": "model-1.safetensors"}})
	says(t, "both names lost", err, "the index places encoder.embed_tokens.weight", "missing: shared.weight")
}

// TestExportRefuses what cannot be written.
func TestExportRefuses(t *testing.T) {
	s := find(t, "stage 1 with EVA")
	ours := numbered(s.spec.Params())
	hf := table(s, naming.HuggingFace)
	const bias = "visual_encoder.blocks.0.attn.v_bias"
	for what, c := range map[string]struct {
		f    file
		says []string
	}{
		"an unknown name": {ours.with(file{"nosuch.weight": zeros(1)}), []string{"nosuch.weight", hf.Name,
			"no name for it"}},
		"half of a bias":       {ours.without(bias), []string{"no tensor " + bias}},
		"biases of two widths": {ours.with(file{bias: zeros(7)}), []string{bias, "no biases of the same attention"}},
	} {
		_, _, err := hf.Export(c.f.Names(), c.f.Info, c.f.Tensor)
		says(t, what, err, c.says...)
	}
	s = find(t, "CLIP")
	ours = numbered(s.spec.Params())
	const in = "visual.transformer.resblocks.0.attn.in_proj_bias"
	for _, shape := range [][]int{{17}, {}} {
		f := ours.with(file{in: zeros(shape...)})
		_, _, err := table(s, naming.HuggingFace).Export(f.Names(), f.Info, f.Tensor)
		says(t, "rows", err, in, "cannot be shared out among 3")
	}
}

// TestAllow turns missing and unexpected tensors into entries of the coverage.
func TestAllow(t *testing.T) {
	s := find(t, "OPT")
	f, _ := export(t, s, naming.HuggingFace)
	part := naming.Part{What: "opt", Params: s.spec.Params(), Tables: []naming.Table{table(s, naming.HuggingFace)},
		AllowMissing: true, AllowUnexpected: true}
	pl, err := naming.NewPlan(part, f.without("embed_positions").with(file{"extra": zeros(1)}))
	if err != nil {
		t.Fatal(err)
	}
	cov := pl.Coverage()
	if !slices.Equal(cov.Missing, []string{"model.decoder.embed_positions.weight"}) || !slices.Equal(cov.Unexpected,
		[]string{"extra"}) {
		t.Errorf("coverage %v", cov.Lines())
	}
	if _, ok, err := pl.Tensor("model.decoder.embed_positions.weight"); ok || err != nil {
		t.Errorf("a missing tensor: %v, %v", ok, err)
	}
}

// TestCoverageLines: what is the same for many tensors is said once.
func TestCoverageLines(t *testing.T) {
	cov := naming.Coverage{Path: "p", Format: "f", Missing: []string{"m"}}
	for i := range 9 {
		cov.Ignored = append(cov.Ignored, naming.Note{Name: fmt.Sprintf("i%d", i), Reason: "buffer"})
	}
	cov.Ignored = append(cov.Ignored, naming.Note{Name: "x", Reason: "head"})
	got := strings.Join(cov.Lines()[1:], "\n")
	want := "missing m\nignored 9 tensors, i0, i1, i2, i3, i4 and 4 more: buffer\nignored x: head"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTwinsAreNotKept: numbers that were read to compare them are given back.
func TestTwinsAreNotKept(t *testing.T) {
	s := find(t, "OPT")
	f, _ := export(t, s, naming.HuggingFace)
	f = f.with(file{"lm_head.weight": f["model.decoder.embed_tokens.weight"]})
	src := &dropping{file: f}
	if _, err := plan(s, table(s, naming.HuggingFace), src); err != nil {
		t.Fatal(err)
	}
	slices.Sort(src.dropped)
	if !slices.Equal(src.dropped, []string{"lm_head.weight", "model.decoder.embed_tokens.weight"}) {
		t.Errorf("given back are %v", src.dropped)
	}
}

// dropping is a file that records what is given back.
type dropping struct {
	file
	dropped []string
}

func (d *dropping) Drop(name string) { d.dropped = append(d.dropped, name) }

// FuzzPlan plans tensors of any names and shapes for every network.
func FuzzPlan(f *testing.F) {
	for _, s := range samples() {
		for _, p := range s.spec.Params() {
			f.Add([]byte(p.Name+"\n"+p.Name+".x"), uint8(len(p.Shape)))
		}
	}
	f.Add([]byte("vision_model.encoder.layers.99999999999.self_attn.qkv.bias\n....\n*.**"), uint8(3))
	f.Fuzz(func(t *testing.T, names []byte, rank uint8) {
		src := file{}
		for i, name := range bytes.Split(names, []byte("\n")) {
			shape := slices.Repeat([]int{i % 4}, int(rank+uint8(i))%5)
			src[string(name)] = zeros(shape...)
		}
		d, err := naming.Detect(src.Names())
		if err != nil {
			return
		}
		if _, err := d.Table.Shapes(src); err != nil {
			return
		}
		for _, s := range samples() {
			if s.spec.Model != d.Model {
				continue
			}
			pl, err := plan(s, d.Table, src)
			if err == nil {
				t.Errorf("%q fills %s", names, s.name)
			}
			for _, p := range s.spec.Params() {
				_, _, _ = pl.Tensor(p.Name) // must not panic, whatever check said
			}
		}
	})
}
