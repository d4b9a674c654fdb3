package qformer

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// base is BLIP-2's Q-Former on an encoder of the given width.
func base(width int) Config {
	return Config{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Queries: 32, CrossAttentionFreq: 2,
		EncoderWidth: width, Vocab: 30523, MaxPositions: 512, LayerNormEps: 1e-12, Dropout: 0.1}
}

// group names the group of spec/model.md 5.6 that a tensor belongs to.
func group(name string) string {
	for _, g := range [][2]string{
		{"query_tokens", "queries"}, {"cls.predictions", "cls"}, {"word_embeddings", "words"},
		{"position_embeddings", "positions"}, {"embeddings.LayerNorm", "embedding LN"}, {".crossattention.", "cross"},
		{".attention.", "self"}, {"intermediate_query", "query FFN"}, {"output_query", "query FFN"},
		{".intermediate.", "text FFN"}, {".output.", "text FFN"},
	} {
		if strings.Contains(name, g[0]) {
			return g[1]
		}
	}
	return name
}

// TestPublishedSizes compares every group of spec/model.md 5.6.
func TestPublishedSizes(t *testing.T) {
	for width, cross := range map[int]int{1024: 16_542_720, 1408: 20_081_664} {
		want := map[string]int{"queries": 24_576, "words": 23_441_664, "positions": 393_216, "embedding LN": 1_536,
			"self": 28_366_848, "cross": cross, "text FFN": 56_687_616, "query FFN": 56_687_616, "cls": 622_651}
		got := map[string]int{}
		for _, p := range Params(base(width), true) {
			got[group(p.Name)] += p.Size()
		}
		for name, n := range got {
			if n != want[name] {
				t.Errorf("width %d, %s: %d parameters, want %d", width, name, n, want[name])
			}
		}
		if len(got) != len(want) {
			t.Errorf("width %d: groups %v, want %v", width, got, want)
		}
		body := map[int]int{1024: 182_121_216, 1408: 185_660_160}[width]
		if n := model.Count(Params(base(width), true)) - got["cls"] - got["queries"]; n != body {
			t.Errorf("width %d: BERT body of %d parameters, want %d", width, n, body)
		}
		// Stage 2's base counts ln_vision too, which is not the Q-Former's.
		stage2 := map[int]int{1024: 101_625_344, 1408: 105_165_056}[width] - 2*width
		if n := model.Count(Params(base(width), false)); n != stage2 {
			t.Errorf("width %d: %d parameters without text, want %d", width, n, stage2)
		}
	}
}

// TestNames: each name is declared once and is a path and back; without text only text's tensors are missing.
func TestNames(t *testing.T) {
	declared := map[string]bool{}
	for _, p := range Params(tiny(), true) {
		if declared[p.Name] || model.Name(model.Path(p.Name)) != p.Name {
			t.Errorf("name %q is declared twice or does not survive its path", p.Name)
		}
		declared[p.Name] = true
	}
	for _, p := range Params(tiny(), false) {
		if !declared[p.Name] {
			t.Errorf("%s exists only without text", p.Name)
		}
		delete(declared, p.Name)
	}
	for name := range declared {
		if g := group(name); !slices.Contains([]string{"words", "positions", "text FFN", "cls"}, g) {
			t.Errorf("%s of group %s is left out without text", name, g)
		}
	}
}

// TestInit: BERT's start — normal matrices, biases 0, LayerNorms (1, 0) (spec/model.md 5.5) — at its spread or another.
func TestInit(t *testing.T) {
	for spread, std := range map[float64]float64{0: 0.02, 0.1: 0.1} {
		cfg := tiny()
		cfg.InitializerRange = spread
		for _, p := range Params(cfg, true) {
			want := model.Normal(std)
			switch {
			case strings.HasSuffix(p.Name, "LayerNorm.weight"):
				want = model.Constant(1)
			case strings.HasSuffix(p.Name, "bias"):
				want = model.Constant(0)
			}
			if p.Init != want {
				t.Errorf("spread %g: %s starts as %v, want %v", spread, p.Name, p.Init, want)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"3 heads": func(c *Config) { c.Heads = 3 }, "0 heads": func(c *Config) { c.Heads = 0 },
		"cross_attention_freq": func(c *Config) { c.CrossAttentionFreq = 0 },
	} {
		cfg := tiny()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}

// TestEveryTensorWorks: the passes read exactly the declared tensors and each has a gradient: all of them with texts,
// and those of Params(cfg, false) in the image pass. Only key biases have none: they shift a row's scores alike.
func TestEveryTensorWorks(t *testing.T) {
	cfg := tiny()
	for _, text := range []bool{true, false} {
		params := Params(cfg, text)
		grads := run(t, storeOf(t, params), inputs(t, cfg, lengths), func(scope *mlx.Scope, in []*Node) []*Node {
			queries, cross := start(scope, cfg, in[inFeatures], batch)
			image := Forward(scope, cfg, Input{Queries: queries, Cross: cross}, nil)
			loss := probe(image.Hidden)
			if text {
				mask := nn.CausalMask(in[inMask], cfg.Queries)
				out := Forward(scope, cfg, Input{TextIDs: in[inIDs], Past: image.SelfKV, Mask: mask}, nil)
				loss = Add(loss, probe(LMLogits(scope, cfg, out.Hidden)))
			}
			var vars []*Node
			for _, p := range params {
				v := scope.Store().GetVariable(model.Path(p.Name))
				if !v.InUseByGraph(in[0].Graph()) {
					t.Errorf("text %v: the graph does not read %s", text, p.Name)
				}
				vars = append(vars, v.NodeValue(in[0].Graph()))
			}
			return Gradient(loss, vars...)
		})
		for i, p := range params {
			size := largest(grads[i])
			if strings.HasSuffix(p.Name, "key.bias") {
				if size > 1e-4 {
					t.Errorf("text %v: %s has gradient %g, want 0 up to rounding", text, p.Name, size)
				}
			} else if !(size > 1e-3) {
				t.Errorf("text %v: %s has gradient %g", text, p.Name, size)
			}
		}
	}
}

// textPass evaluates a text-only pass over the ids with the given mask: [batch, L, H].
func textPass(t *testing.T, cfg Config, ids, mask []int32) []float32 {
	t.Helper()
	in := []any{tensors.FromFlatDataAndDimensions(ids, batch, len(ids)/batch),
		tensors.FromFlatDataAndDimensions(mask, batch, len(ids)/batch)}
	return run(t, storeOf(t, Params(cfg, true)), in, func(scope *mlx.Scope, in []*Node) []*Node {
		return []*Node{Forward(scope, cfg, Input{TextIDs: in[0], Mask: nn.PaddingMask(in[1])}, nil).Hidden}
	})[0]
}

// TestPaddingDoesNotMatter: what stands at padded positions, and how many there are, changes no token; word order does.
func TestPaddingDoesNotMatter(t *testing.T) {
	cfg := tiny()
	ids := []int32{5, 6, 7, 8, 9, 5, 6, 7, 0, 0, 5, 7, 6, 0, 0}
	mask := []int32{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0}
	got := textPass(t, cfg, ids, mask)
	other := slices.Clone(ids)
	other[8], other[9] = 17, 3
	cut := []int32{5, 6, 7, 5, 6, 7, 5, 7, 6}
	changed, short := textPass(t, cfg, other, mask), textPass(t, cfg, cut, slices.Repeat([]int32{1}, 9))
	row := func(x []float32, l, text, token int) []float32 {
		return x[(text*l+token)*cfg.Hidden:][:cfg.Hidden]
	}
	for token := range 3 {
		want := row(got, 5, 1, token)
		if !slices.Equal(row(changed, 5, 1, token), want) {
			t.Errorf("token %d changes with the ids at padded positions", token)
		}
		same(t, "token without padding", row(short, 3, 1, token), want)
		if slices.Equal(row(got, 5, 0, token), want) {
			t.Errorf("token %d does not see the words behind it", token)
		}
		if slices.Equal(row(got, 5, 2, token), want) {
			t.Errorf("token %d does not notice another word order", token)
		}
	}
}

// TestDropout: there is none without a generator or at rate 0; with both it changes the pass, keyed by the state.
func TestDropout(t *testing.T) {
	cfg := tiny()
	pass := func(rate float64, seed int64, random bool) []float32 {
		c, in := cfg, inputs(t, cfg, lengths)
		c.Dropout = rate
		state, err := RNGStateFromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		in[inState] = state
		return run(t, storeOf(t, Params(cfg, true)), in, func(scope *mlx.Scope, in []*Node) []*Node {
			var rng *nn.RNG
			if random {
				rng = nn.NewRNG(in[inState])
			}
			queries, cross := start(scope, c, in[inFeatures], batch)
			return []*Node{Forward(scope, c, Input{Queries: queries, Cross: cross}, rng).Hidden}
		})[0]
	}
	plain, dropped := pass(0, 1, false), pass(0.3, 1, true)
	if !slices.Equal(plain, pass(0.3, 1, false)) || !slices.Equal(plain, pass(0, 1, true)) {
		t.Error("the pass is not the plain one without a generator, or at rate 0")
	}
	if slices.Equal(plain, dropped) || slices.Equal(dropped, pass(0.3, 2, true)) {
		t.Error("dropout changes nothing, or is the same for two states")
	}
	if !slices.Equal(dropped, pass(0.3, 1, true)) {
		t.Error("the same state drops differently")
	}
}

// TestQueryTokens: every picture starts from the same learned queries.
func TestQueryTokens(t *testing.T) {
	cfg := tiny()
	store := storeOf(t, Params(cfg, true))
	want := tensors.MustCopyFlatData[float32](store.GetVariable("/query_tokens").MustValue())
	got := run(t, store, inputs(t, cfg, lengths), func(scope *mlx.Scope, in []*Node) []*Node {
		queries := Queries(scope, cfg, in[0].Graph(), batch, dtypes.Float32)
		queries.AssertDims(batch, cfg.Queries, cfg.Hidden)
		return []*Node{queries}
	})[0]
	if !slices.Equal(got, slices.Repeat(want, batch)) {
		t.Errorf("queries %v, want %v for each picture", got, want)
	}
}

// TestEmbeddings: without layers the output is LN(queries ‖ word + position), positions counted from the first token
// and one LayerNorm for both (spec/model.md 5.2).
func TestEmbeddings(t *testing.T) {
	cfg := tiny()
	cfg.Layers = 0
	store := storeOf(t, Params(cfg, true))
	get := func(name string) []float32 {
		return tensors.MustCopyFlatData[float32](store.GetVariable(model.Path(name)).MustValue())
	}
	queries, words := get("query_tokens"), get("Qformer.bert.embeddings.word_embeddings.weight")
	positions := get("Qformer.bert.embeddings.position_embeddings.weight")
	weight, bias := get("Qformer.bert.embeddings.LayerNorm.weight"), get("Qformer.bert.embeddings.LayerNorm.bias")
	ids := []int32{5, 6, 7, 8, 9, 5, 6, 7, 0, 0, 5, 7, 6, 0, 0}
	in := []any{tensors.FromFlatDataAndDimensions(ids, batch, length)}
	got := run(t, store, in, func(scope *mlx.Scope, in []*Node) []*Node {
		q := Queries(scope, cfg, in[0].Graph(), batch, dtypes.Float32)
		return []*Node{Forward(scope, cfg, Input{Queries: q, TextIDs: in[0]}, nil).Hidden}
	})[0]
	h, rows := cfg.Hidden, cfg.Queries+length
	for r := range batch * rows {
		row, text := make([]float64, h), r%rows-cfg.Queries
		var mean, variance float64
		for c := range row {
			if text < 0 {
				row[c] = float64(queries[r%rows*h+c])
			} else {
				row[c] = float64(words[int(ids[r/rows*length+text])*h+c]) + float64(positions[text*h+c])
			}
			mean += row[c] / float64(h)
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / float64(h)
		}
		for c, v := range row {
			want := (v-mean)/math.Sqrt(variance+cfg.LayerNormEps)*float64(weight[c]) + float64(bias[c])
			if d := math.Abs(float64(got[r*h+c]) - want); !(d <= 1e-5) {
				t.Fatalf("row %d, feature %d is %g, want %g", r, c, got[r*h+c], want)
			}
		}
	}
}
