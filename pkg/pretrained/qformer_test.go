package pretrained

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// isBERT says whether BERT has the tensor.
func isBERT(name string) bool {
	return strings.HasPrefix(name, "Qformer.") && !strings.Contains(name, "crossattention") &&
		!strings.Contains(name, "_query")
}

// bertOf is the BERT that a Q-Former of that configuration starts from, under the names that transformers writes now.
func bertOf(cfg sizes) state {
	q := cfg.QFormer
	q.Vocab--
	return stateOf(qformer.Params(q, true)).rename(func(name string) string {
		if !isBERT(name) {
			return ""
		}
		return strings.TrimPrefix(name, "Qformer.")
	})
}

// old is BERT as it was published: gamma and beta, a decoder beside the word embeddings, pooler and second head.
func old(s state) state {
	out := s.rename(func(name string) string {
		if strings.Contains(name, "LayerNorm") {
			name = strings.NewReplacer(".weight", ".gamma", ".bias", ".beta").Replace(name)
		}
		return name
	})
	out["cls.predictions.decoder.weight"] = s["bert.embeddings.word_embeddings.weight"]
	out.add("bert.embeddings.token_type_embeddings.weight", 2, 8)
	out.add("bert.pooler.dense.weight", 8, 8)
	out.add("cls.seq_relationship.bias", 2)
	out["bert.embeddings.position_ids"] = weights.FromInt64("", []int{1, 2}, []int64{0, 1})
	return out
}

func loadQFormer(cfg sizes, path string, seed int64) (*mlx.Store, *Coverage, error) {
	store := mlx.NewStore()
	cov, err := LoadQFormer(store, cfg.qformer(), path, seed, Options{})
	return store, cov, err
}

func TestLoadBERT(t *testing.T) {
	cfg := small(vit.EVA)
	bert := bertOf(cfg)
	body := func(s state) state {
		return s.rename(func(name string) string {
			if !strings.HasPrefix(name, "bert.") {
				return ""
			}
			return strings.TrimPrefix(name, "bert.")
		})
	}
	decoderOnly := bert.clone()
	decoderOnly["cls.predictions.decoder.weight"] = decoderOnly["bert.embeddings.word_embeddings.weight"]
	delete(decoderOnly, "bert.embeddings.word_embeddings.weight")
	for name, c := range map[string]struct {
		file state
		head bool
	}{
		"new":             {bert, true},
		"old":             {old(bert), true},
		"only decoder":    {decoderOnly, true},
		"without prefix":  {bert.rename(func(n string) string { return strings.TrimPrefix(n, "bert.") }), true},
		"body of new":     {body(bert), false},
		"body of old one": {body(old(bert)), false},
	} {
		t.Run(name, func(t *testing.T) {
			store, cov, err := loadQFormer(cfg, c.file.file(t), 7)
			if err != nil {
				t.Fatal(err)
			}
			if len(cov.Consumed)+len(cov.Ignored) != len(c.file) {
				t.Errorf("%d consumed and %d ignored of %d", len(cov.Consumed), len(cov.Ignored), len(c.file))
			}
			checkFromBERT(t, cfg, store, bert, c.head)
			if fresh := slices.Contains(names(cov.Fresh), naming.LMHead+"bias"); fresh == c.head {
				t.Errorf("the coverage says LM head left as initialised: %v", fresh)
			}
		})
	}
}

// checkFromBERT holds every tensor of the store against BERT or, where BERT has none, against its initialisation.
func checkFromBERT(t *testing.T, cfg sizes, store *mlx.Store, bert state, head bool) {
	t.Helper()
	params := cfg.qformer()
	initialised := mlx.NewStore()
	if err := model.Initialize(initialised, params, 7); err != nil {
		t.Fatal(err)
	}
	for _, p := range params {
		got, fresh := stored(t, store, p.Name), stored(t, initialised, p.Name)
		from := strings.NewReplacer("Qformer.", "", "_query", "").Replace(p.Name)
		source, ok := bert[from]
		switch {
		case !ok || p.Name == "query_tokens" || (!head && strings.HasPrefix(p.Name, naming.LMHead)):
			if !sameBits(got, fresh) {
				t.Errorf("%s is not as initialised", p.Name)
			}
		case p.Name == naming.WordEmbeddings || p.Name == naming.LMHead+"bias":
			want := floats(t, source)
			n := len(want)
			if !sameBits(got[:n], want) {
				t.Errorf("%s: the rows of BERT differ", p.Name)
			}
			if len(got) != p.Size() || (len(got)-n > 1) == slices.Equal(got[n:], make([]float32, len(got)-n)) {
				t.Errorf("%s: the row of [DEC] is %v", p.Name, got[n:])
			}
		case !sameBits(got, floats(t, source)):
			t.Errorf("%s is not %s", p.Name, from)
		}
	}
}

// TestSeed shows that the row of [DEC] and all that BERT has not follow from the seed.
func TestSeed(t *testing.T) {
	cfg := small(vit.EVA)
	path := bertOf(cfg).file(t)
	var rows [3][]float32
	for i, seed := range []int64{1, 1, 2} {
		store, _, err := loadQFormer(cfg, path, seed)
		if err != nil {
			t.Fatal(err)
		}
		all := stored(t, store, naming.WordEmbeddings)
		rows[i] = append(all[len(all)-8:], stored(t, store, "query_tokens")...)
	}
	if !slices.Equal(rows[0], rows[1]) {
		t.Error("the same seed gives different numbers")
	}
	for i := range rows[0] {
		if rows[0][i] == rows[2][i] {
			t.Fatalf("number %d is the same for two seeds", i)
		}
	}
}

func TestLoadStage1(t *testing.T) {
	cfg := small(vit.EVA)
	params := cfg.qformer()
	plain := stateOf(params)
	full := plain.clone()
	for name, x := range stateOf(cfg.vision()) {
		full[name] = x
	}
	full[naming.LMHead+"decoder.weight"], full[naming.LMHead+"decoder.bias"] = full[naming.WordEmbeddings],
		full[naming.LMHead+"bias"]
	full["Qformer.bert.embeddings.position_ids"] = weights.FromInt64("", []int{1, 2}, []int64{0, 1})
	other := plain.clone()
	other[naming.LMHead+"decoder.weight"], other[naming.LMHead+"decoder.bias"] = other[naming.WordEmbeddings],
		other[naming.LMHead+"bias"]
	delete(other, naming.WordEmbeddings)
	delete(other, naming.LMHead+"bias")
	for name, file := range map[string]state{"own": plain, "lavis": full, "other names of tied": other} {
		t.Run(name, func(t *testing.T) {
			store, cov, err := loadQFormer(cfg, file.file(t), 7)
			if err != nil {
				t.Fatal(err)
			}
			mustEqual(t, store, params, plain)
			if len(cov.Filled) != len(params) || len(cov.Fresh) != 0 ||
				len(cov.Ignored) != len(file)-len(params) || size(store) != len(params) {
				t.Errorf("coverage %s of %d", cov, len(params))
			}
		})
	}
}

// TestRecordedStage1 loads both parts of recorded models from one file.
func TestRecordedStage1(t *testing.T) {
	for _, name := range []string{"stage1-forward-clip-a", "stage1-forward-eva-a"} {
		t.Run(name, func(t *testing.T) {
			dir := golden(t, name)
			var c struct {
				Config struct {
					Vit       string  `json:"vit"`
					ImageSize int     `json:"image_size"`
					PatchSize int     `json:"patch_size"`
					Width     int     `json:"vit_width"`
					VitLayers int     `json:"vit_layers"`
					VitHeads  int     `json:"vit_heads"`
					MLPRatio  float64 `json:"vit_mlp_ratio"`
					Queries   int     `json:"num_query_tokens"`
					CrossFreq int     `json:"cross_attention_freq"`
					Vocab     int     `json:"qformer_vocab"`
					Hidden    int     `json:"qformer_hidden"`
					Layers    int     `json:"qformer_layers"`
					Heads     int     `json:"qformer_heads"`
					Inner     int     `json:"qformer_intermediate"`
					Positions int     `json:"qformer_positions"`
					EmbedDim  int     `json:"embed_dim"`
				}
			}
			readJSON(t, filepath.Join(dir, "case.json"), &c)
			x := c.Config
			cfg := sizes{EmbedDim: x.EmbedDim,
				Vision: vit.Config{Arch: x.Vit, ImageSize: x.ImageSize, PatchSize: x.PatchSize, Width: x.Width,
					Layers: x.VitLayers, Heads: x.VitHeads, MLPRatio: x.MLPRatio},
				QFormer: qformer.Config{Hidden: x.Hidden, Layers: x.Layers, Heads: x.Heads, Intermediate: x.Inner,
					Queries: x.Queries, CrossAttentionFreq: x.CrossFreq, EncoderWidth: x.Width, Vocab: x.Vocab,
					MaxPositions: x.Positions}}
			path := filepath.Join(dir, "weights.safetensors")
			store, cov, err := loadQFormer(cfg, path, 1)
			if err != nil {
				t.Fatal(err)
			}
			more, err := LoadVision(store, cfg.Vision, path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			file := read(t, path)
			mustEqual(t, store, append(cfg.vision(), cfg.qformer()...), file)
			if n := len(cov.Consumed) + len(more.Consumed); n != len(file) {
				t.Errorf("%d of %d tensors used", n, len(file))
			}
		})
	}
}

func TestQFormerErrors(t *testing.T) {
	cfg := small(vit.EVA)
	bert := bertOf(cfg)
	lavis := stateOf(cfg.qformer())
	change := func(s state, f func(state)) state { s = s.clone(); f(s); return s }
	drop := func(s state, name string) state { return change(s, func(s state) { delete(s, name) }) }
	for name, c := range map[string]struct {
		file state
		says []string
	}{
		"larger vocabulary": {change(bert, func(s state) {
			s.add("bert.embeddings.word_embeddings.weight", 33, 8)
			s.add("cls.predictions.bias", 33)
		}), []string{"the checkpoint has 33 token ids, but text.vocab makes 20: give the vocabulary"}},
		"[DEC] in BERT": {change(bert, func(s state) {
			s.add("bert.embeddings.word_embeddings.weight", 21, 8)
			s.add("cls.predictions.bias", 21)
		}), []string{"has 21 token ids", "makes 20:"}},
		"vocabulary of lavis": {change(lavis, func(s state) {
			s.add(naming.WordEmbeddings, 20, 8)
			s.add(naming.LMHead+"bias", 20)
		}), []string{"has 20 token ids", "makes 21, [DEC] included,"}},
		"embedding width": {change(bert, func(s state) { s.add("bert.embeddings.word_embeddings.weight", 20, 9) }),
			[]string{"word_embeddings.weight has shape [20 9], the model needs [20 8]"}},
		"untied": {change(old(bert), func(s state) { s.add("cls.predictions.decoder.weight", 20, 8) }),
			[]string{"bert.embeddings.word_embeddings.weight and cls.predictions.decoder.weight differ"}},
		"untied in lavis": {change(lavis, func(s state) { s.add(naming.LMHead+"decoder.bias", 21) }),
			[]string{naming.LMHead + "bias and " + naming.LMHead + "decoder.bias differ"}},
		"missing": {drop(bert, "bert.encoder.layer.1.intermediate.dense.bias"), []string{"2 tensors are missing",
			"layer.1.intermediate.dense.bias", "layer.1.intermediate_query.dense.bias"}},
		"half a head": {drop(bert, "cls.predictions.bias"),
			[]string{"1 tensors are missing: Qformer.cls.predictions.bias"}},
		"unexpected": {change(bert, func(s state) { s.add("classifier.weight", 2, 8) }),
			[]string{"not known: classifier.weight"}},
		"more layers": {change(bert, func(s state) { s.add("bert.encoder.layer.3.output.dense.bias", 8) }),
			[]string{"not known: bert.encoder.layer.3"}},
		"two norms": {change(bert, func(s state) { s.add("bert.embeddings.LayerNorm.gamma", 8) }),
			[]string{"bert.embeddings.LayerNorm.gamma and bert.embeddings.LayerNorm.weight both stand for"}},
		"positions": {change(bert, func(s state) { s.add("bert.embeddings.position_embeddings.weight", 5, 8) }),
			[]string{"position_embeddings.weight has shape [5 8]", "sizes under qformer"}},
		"missing query": {drop(lavis, "query_tokens"), []string{"missing: query_tokens"}},
		"no cross": {drop(lavis, "Qformer.bert.encoder.layer.2.crossattention.self.key.bias"),
			[]string{"missing: Qformer.bert.encoder.layer.2.crossattention.self.key.bias"}},
		"stage 2": {change(drop(lavis, naming.WordEmbeddings), func(s state) { s.add("opt_proj.bias", 3) }),
			[]string{"not known: opt_proj.bias", "missing: " + naming.WordEmbeddings}},
		"no Q-Former": {encoder(cfg.Vision), []string{"no Q-Former is in it", "blocks.0.attn.q_bias"}},
		"many":        {change(bert, manyUnknown), []string{"9 tensors are not known", "and 4 more"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := c.file.file(t)
			store, _, err := loadQFormer(cfg, path, 7)
			says(t, err, append(c.says, path)...)
			if n := size(store); n != 0 {
				t.Errorf("%d tensors in the store after an error", n)
			}
			if err != nil && strings.Count(err.Error(), "token ids") > 1 {
				t.Errorf("the error repeats itself: %v", err)
			}
		})
	}
	_, _, err := loadQFormer(cfg, "no-such-file", 0)
	says(t, err, "no-such-file")
}

func manyUnknown(s state) {
	for i := range 9 {
		s.add(fmt.Sprintf("adapter.%d", i), 1)
	}
}

// TestCoverage checks that the log line and the details name what matters.
func TestCoverage(t *testing.T) {
	cfg := small(vit.EVA)
	path := old(bertOf(cfg)).file(t)
	_, cov, err := loadQFormer(cfg, path, 7)
	if err != nil {
		t.Fatal(err)
	}
	line := cov.String()
	for _, text := range []string{path, "BERT", fmt.Sprintf("%d left as initialised", len(cov.Fresh)), "5 ignored",
		"pooler", "[DEC] appended"} {
		if !strings.Contains(line, text) {
			t.Errorf("the log line %q does not say %q", line, text)
		}
	}
	details := strings.Join(cov.Lines(), "\n")
	for _, text := range []string{"ignored bert.pooler.dense.weight: pooler",
		"not in the file query_tokens: BERT has",
		"ignored cls.predictions.decoder.weight: equal to bert.embeddings.word_embeddings.weight"} {
		if !strings.Contains(details, text) {
			t.Errorf("the details do not say %q:\n%s", text, details)
		}
	}

	broken := bertOf(cfg)
	delete(broken, "bert.encoder.layer.0.output.dense.bias")
	broken.add("extra", 1)
	_, cov, err = loadQFormer(cfg, broken.file(t), 7)
	if err == nil || cov == nil {
		t.Fatalf("error %v, coverage %v", err, cov)
	}
	details = strings.Join(cov.Lines(), "\n")
	for _, text := range []string{"2 MISSING", "1 UNEXPECTED", "unexpected extra",
		"missing 2 tensors, Qformer.bert.encoder.layer.0.output.dense.bias"} {
		if !strings.Contains(details, text) {
			t.Errorf("the details of an error do not say %q:\n%s", text, details)
		}
	}
}
