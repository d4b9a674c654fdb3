package pretrained

import (
	"maps"
	"slices"
	"strings"
	"testing"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// bridge lists what stage 2 trains, with a projection to 5 features.
func (s sizes) bridge(llm string) []model.Param {
	return slices.Concat(qformer.Params(s.QFormer, false), model.LayerNorm("ln_vision", s.Vision.Width),
		qformer.ProjectionParams(s.QFormer, llm+"_proj", 5))
}

// reasonOf returns the reason of the note about the named tensor, "" if there is none.
func reasonOf(notes []Note, name string) string {
	for _, n := range notes {
		if n.Name == name {
			return n.Reason
		}
	}
	return ""
}

// TestLoadBridgeFromStage1 is the table of spec/stage2.md 1, from a state dict with the image encoder in it: what the
// query side has is loaded, the text side and the heads are dropped, the projection is new.
func TestLoadBridgeFromStage1(t *testing.T) {
	cfg := small(vit.EVA)
	file := stateOf(slices.Concat(cfg.vision(), cfg.qformer()))
	file["Qformer.bert.embeddings.position_ids"] = weights.FromInt64("", []int{1, 2}, []int64{0, 1})
	for _, llm := range []string{"opt", "t5"} {
		params := cfg.bridge(llm)
		store := mlx.NewStore()
		cov, err := LoadBridge(store, params, llm, file.file(t), 3, Options{})
		if err != nil {
			t.Fatal(err)
		}
		loaded := slices.DeleteFunc(slices.Clone(params), func(p model.Param) bool { return strings.Contains(p.Name, "_proj.") })
		mustEqual(t, store, loaded, file)
		if size(store) != len(params) || len(cov.Filled) != len(loaded) || len(cov.Missing)+len(cov.Unexpected) != 0 {
			t.Errorf("%d tensors of %d, coverage %s", size(store), len(params), cov)
		}
		if got := names(cov.Fresh); !slices.Equal(got, []string{llm + "_proj.bias", llm + "_proj.weight"}) {
			t.Errorf("new are %v", got)
		}
		for name, want := range map[string]string{
			"temp":                         "head of stage 1",
			"itm_head.weight":              "head of stage 1",
			"Qformer.cls.predictions.bias": "head of stage 1",
			naming.WordEmbeddings:          "text side",
			"Qformer.bert.encoder.layer.1.intermediate.dense.weight": "text side",
			"Qformer.bert.encoder.layer.0.output.LayerNorm.bias":     "text side",
			"visual_encoder.pos_embed":                               "image encoder",
			"Qformer.bert.embeddings.position_ids":                   "buffer",
		} {
			if got := reasonOf(cov.Ignored, name); !strings.Contains(got, want) {
				t.Errorf("%s is dropped for %q, want %q", name, got, want)
			}
		}
	}
}

// TestLoadBridgeFromStage2: a checkpoint of stage 2 gives the projection too, to its own language model only.
func TestLoadBridgeFromStage2(t *testing.T) {
	cfg := small(vit.CLIP)
	params := cfg.bridge("opt")
	path := stateOf(params).file(t)
	store := mlx.NewStore()
	cov, err := LoadBridge(store, params, "opt", path, 3, Options{})
	if err != nil || len(cov.Filled) != len(params) || len(cov.Fresh)+len(cov.Ignored) != 0 {
		t.Fatalf("coverage %s, error %v", cov, err)
	}
	mustEqual(t, store, params, read(t, path))
	cov, err = LoadBridge(mlx.NewStore(), cfg.bridge("t5"), "t5", path, 3, Options{})
	if err != nil || !slices.Equal(names(cov.Fresh), []string{"t5_proj.bias", "t5_proj.weight"}) {
		t.Fatalf("coverage %s, error %v", cov, err)
	}
	if got := reasonOf(cov.Ignored, "opt_proj.weight"); got != "projection to another language model" {
		t.Errorf("the projection to OPT is dropped for %q", got)
	}
	params[len(params)-2].Shape[0] = 7
	_, err = LoadBridge(mlx.NewStore(), params, "opt", path, 3, Options{})
	says(t, err, path, "opt_proj.weight", "[5 8]", "[7 8]")
}

// TestLoadBridgeFromHF reads a checkpoint of transformers, with a language model in it.
func TestLoadBridgeFromHF(t *testing.T) {
	cfg := small(vit.EVA)
	params := cfg.bridge("t5")
	m, _ := naming.Find(naming.BLIP2T5)
	ours := stateOf(slices.Concat(cfg.vision(), params))
	outputs, _, err := m.Tables[naming.HuggingFace].Export(slices.Sorted(maps.Keys(ours)),
		func(name string) (weights.Tensor, error) { return ours[name], nil },
		func(name string) (weights.Tensor, error) { return ours[name], nil })
	if err != nil {
		t.Fatal(err)
	}
	theirs := state{}
	for _, o := range outputs {
		data, err := o.Data()
		if err != nil {
			t.Fatal(err)
		}
		theirs[o.Name] = weights.Tensor{DType: o.DType, Shape: o.Shape, Data: data}
	}
	theirs.add("language_model.shared.weight", 4, 5)
	store := mlx.NewStore()
	cov, err := LoadBridge(store, params, "t5", theirs.file(t), 3, Options{})
	if err != nil || len(cov.Filled) != len(params) {
		t.Fatalf("coverage %s, error %v", cov, err)
	}
	mustEqual(t, store, params, ours)
}

// TestLoadBridgeFromBERT: without stage 1 the query side starts from BERT, old names and new.
func TestLoadBridgeFromBERT(t *testing.T) {
	cfg := small(vit.EVA)
	bert := bertOf(cfg)
	for name, file := range map[string]state{"new": bert, "old": old(bert)} {
		params := cfg.bridge("opt")
		store := mlx.NewStore()
		cov, err := LoadBridge(store, params, "opt", file.file(t), 3, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if size(store) != len(params) {
			t.Errorf("%s: %d tensors, want %d", name, size(store), len(params))
		}
		for ours, theirs := range map[string]string{
			"Qformer.bert.embeddings.LayerNorm.weight":                     "bert.embeddings.LayerNorm.weight",
			"Qformer.bert.encoder.layer.1.attention.self.query.weight":     "bert.encoder.layer.1.attention.self.query.weight",
			"Qformer.bert.encoder.layer.2.intermediate_query.dense.bias":   "bert.encoder.layer.2.intermediate.dense.bias",
			"Qformer.bert.encoder.layer.2.output_query.LayerNorm.weight":   "bert.encoder.layer.2.output.LayerNorm.weight",
			"Qformer.bert.encoder.layer.0.output_query.dense.weight":       "bert.encoder.layer.0.output.dense.weight",
			"Qformer.bert.encoder.layer.0.attention.output.LayerNorm.bias": "bert.encoder.layer.0.attention.output.LayerNorm.bias",
		} {
			if !sameBits(stored(t, store, ours), floats(t, bert[theirs])) {
				t.Errorf("%s: %s is not BERT's %s", name, ours, theirs)
			}
		}
		for _, ours := range []string{"query_tokens", "Qformer.bert.encoder.layer.0.crossattention.self.key.weight",
			"opt_proj.weight", "ln_vision.bias"} {
			if reasonOf(cov.Fresh, ours) == "" {
				t.Errorf("%s: %s is not reported as new", name, ours)
			}
		}
	}
}

// TestLoadLLM: alone in its file, and inside a folder of BLIP-2; in the type that is asked for.
func TestLoadLLM(t *testing.T) {
	llm := opt.Params(opt.Config{Vocab: 7, Hidden: 6, Layers: 1, Heads: 2, FFN: 8, Positions: 5, LayerNormEps: 1e-5})
	params := model.Prefixed("opt_model.", llm)
	alone := stateOf(llm)
	inside := alone.rename(func(name string) string { return "language_model." + name })
	inside.add("query_tokens", 1, 3, 8)
	inside.add("vision_model.post_layernorm.weight", 4)
	inside.add("language_projection.bias", 6)
	for name, file := range map[string]state{"alone": alone, "in BLIP-2": inside} {
		store := mlx.NewStore()
		cov, err := LoadLLM(store, naming.OPT, "opt_model.", params, file.file(t), Options{Precision: Uniform(weights.F32)})
		if err != nil || len(cov.Filled) != len(params) {
			t.Fatalf("%s: coverage %s, error %v", name, cov, err)
		}
		mustEqual(t, store, params, alone.rename(func(name string) string { return "opt_model." + name }))
	}
	_, err := LoadLLM(mlx.NewStore(), naming.OPT, "opt_model.", params, stateOf(small(vit.EVA).qformer()).file(t), Options{})
	says(t, err, "language model", "give the folder of OPT or Flan-T5")
}
