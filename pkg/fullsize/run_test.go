package fullsize

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/vit"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// TestRun measures every kind of network on the Go backend.
func TestRun(t *testing.T) {
	backend := graphtest.Open(t, "go")
	passes := map[string][]string{"vision": {"image"}, "image side": {"image features"}, "opt": {"prompt", "next token"},
		"t5": {"encoder", "decoder step"}, "clip": {"image", "text"}, "blip": {"image", "next token"},
		"qformer": {"queries", "next token"}}
	for name, n := range tiny() {
		var events []string
		o := Options{Network: n, Sizes: sizesOf(n), Path: written(t, n, Safetensors, weights.F32), Warmup: 1, Steps: 2,
			OnEvent: func(what string, _ time.Duration) { events = append(events, what) }}
		r, err := Run(t.Context(), backend, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Tensors != len(n.Params()) || r.Parameters != model.Count(n.Params()) ||
			r.WeightBytes != n.Bytes(weights.F32) || r.Types["Float32"] != r.Tensors {
			t.Errorf("%s: %+v; want %d tensors of %d numbers", name, r, len(n.Params()), model.Count(n.Params()))
		}
		if l := r.Load; l.Seconds <= 0 || l.ReadBytes != r.WeightBytes || l.FileBytes <= r.WeightBytes || l.GBPerS <= 0 {
			t.Errorf("%s: loading %+v of %d bytes", name, l, r.WeightBytes)
		}
		want := []string{"read", "loaded"}
		for i, pass := range r.Passes {
			want = append(want, pass.Name+": compiled", pass.Name, pass.Name, pass.Name)
			if s := pass.StepSeconds; pass.Name != passes[name][i] || s.Min <= 0 || s.Min > s.Median || s.Median > s.Max {
				t.Errorf("%s: pass %d is %s and takes %+v", name, i, pass.Name, s)
			}
			if pass.GFLOPPerS != pass.FLOPs/pass.StepSeconds.Median/1e9 || !(pass.Result > 0) {
				t.Errorf("%s: pass %+v", name, pass)
			}
		}
		if len(r.Passes) != len(passes[name]) || !slices.Equal(events, want) {
			t.Errorf("%s: events %v, want %v", name, events, want)
		}
	}
}

// TestRunRepeats: results follow from the weights and the seed alone, not from the container.
func TestRunRepeats(t *testing.T) {
	backend := graphtest.Open(t, "go")
	n := tiny()["t5"]
	run := func(container string, seed int64) []float64 {
		r, err := Run(t.Context(), backend, Options{Network: n, Sizes: sizesOf(n), Steps: 1, Seed: seed,
			Path: written(t, n, container, weights.F32)})
		if err != nil {
			t.Fatal(err)
		}
		var results []float64
		for _, pass := range r.Passes {
			results = append(results, pass.Result)
		}
		return results
	}
	first := run(Safetensors, 1)
	if again := run(PyTorch, 1); !slices.Equal(again, first) {
		t.Errorf("from a PyTorch file %v, from safetensors %v", again, first)
	}
	if other := run(Safetensors, 2); other[0] == first[0] {
		t.Errorf("two seeds give the same %v", other)
	}
}

// TestFLOPs compares the work of every pass with the products of its graph.
func TestFLOPs(t *testing.T) {
	backend := graphtest.Open(t, "go")
	for name, n := range tiny() {
		store := mlx.NewStore()
		if err := model.Initialize(store, n.Params(), 1); err != nil {
			t.Fatal(err)
		}
		sizes := sizesOf(n)
		var past []*Node
		graph := NewGraph(backend, "pass")
		for _, p := range n.passes(sizes) {
			var in []*Node
			for i, tensor := range p.inputs(newRandom(1)) {
				in = append(in, Parameter(graph, p.name+string(rune('a'+i)), tensor.Shape()))
			}
			first := len(graph.Nodes())
			result, next := p.build(store.RootScope(), in, past)
			got := 0.0
			for _, node := range graph.Nodes()[first:] {
				if node.Type() == NodeTypeDotGeneral {
					got += graphtest.FLOPs(t, node) - inputFLOPs(t, node)
				}
			}
			if got != p.flops {
				t.Errorf("%s, %s: the graph's products make %.0f FLOPs, it says %.0f", name, p.name, got, p.flops)
			}
			if result.DType() != dtypes.Float32 {
				t.Errorf("%s, %s: the result is %s", name, p.name, result.DType())
			}
			past = next
		}
	}
}

// inputFLOPs is the work that a node's inputs need.
func inputFLOPs(t *testing.T, n *Node) float64 { return graphtest.FLOPs(t, n.Inputs()...) }

// TestReadBytes: a step of OPT reads everything but the positions, one of T5 its decoder without the projections of the
// encoder's output, one of a captioner its text side without those of the picture.
func TestReadBytes(t *testing.T) {
	backend := graphtest.Open(t, "go")
	for name, skip := range map[string]func(string) bool{
		"opt": func(s string) bool { return strings.Contains(s, "embed_positions") },
		"t5": func(s string) bool {
			return strings.HasPrefix(s, "encoder.") || s == "shared.weight" ||
				strings.Contains(s, "relative_attention_bias") || strings.Contains(s, "EncDecAttention.k") ||
				strings.Contains(s, "EncDecAttention.v")
		},
		"blip": func(s string) bool {
			return strings.HasPrefix(s, "visual_encoder.") || strings.Contains(s, "position_embeddings") ||
				strings.Contains(s, "crossattention.self.key") || strings.Contains(s, "crossattention.self.value")
		},
		"qformer": func(s string) bool {
			return s == "query_tokens" || strings.Contains(s, "position_embeddings") ||
				strings.Contains(s, "crossattention") || strings.Contains(s, "_query.")
		},
	} {
		n := tiny()[name]
		r, err := Run(t.Context(), backend, Options{Network: n, Sizes: sizesOf(n), Steps: 1,
			Path: written(t, n, Safetensors, weights.F32)})
		if err != nil {
			t.Fatal(err)
		}
		want := int64(0)
		for _, p := range n.Params() {
			if !skip(p.Name) {
				want += int64(4 * p.Size())
			}
		}
		step := r.Passes[1]
		if step.WeightBytes != want || step.WeightGBPerS != float64(want)/step.StepSeconds.Median/1e9 {
			t.Errorf("%s: a step reads %d bytes at %g GB/s, want %d", name, step.WeightBytes, step.WeightGBPerS, want)
		}
		if first := r.Passes[0]; first.WeightGBPerS != 0 {
			t.Errorf("%s: %s has a rate of %g GB/s", name, first.Name, first.WeightGBPerS)
		}
	}
}

// TestRunFrozen: loaded weights are not trained, and keep the file's type unless another is asked for.
func TestRunFrozen(t *testing.T) {
	n := tiny()["vision"]
	for _, tt := range []struct {
		precision pretrained.Precision
		types     map[string]int
	}{
		{pretrained.AsStored, map[string]int{"BFloat16": len(n.Params())}},
		{pretrained.Float32, map[string]int{"Float32": len(n.Params())}},
	} {
		store := mlx.NewStore()
		o := Options{Network: n, Path: written(t, n, Safetensors, weights.BF16), Precision: tt.precision,
			OnEvent: func(string, time.Duration) {}}
		r := &Result{}
		if err := o.load(t.Context(), graphtest.Open(t, "go"), store, r); err != nil {
			t.Fatal(err)
		}
		for v := range store.IterVariables() {
			if v.Trainable {
				t.Errorf("%s is trained", v.Path())
			}
		}
		if len(r.Types) != 1 || r.Types["BFloat16"] != tt.types["BFloat16"] || r.Types["Float32"] != tt.types["Float32"] {
			t.Errorf("types %v, want %v", r.Types, tt.types)
		}
		if r.Load.ReadBytes != n.Bytes(weights.BF16) {
			t.Errorf("%d bytes were read, want %d", r.Load.ReadBytes, n.Bytes(weights.BF16))
		}
	}
}

func TestRunRefuses(t *testing.T) {
	backend := graphtest.Open(t, "go")
	n := tiny()["opt"]
	path := written(t, n, Safetensors, weights.F32)
	bad := tiny()["opt"]
	bad.part.Params = slices.Clone(bad.part.Params)
	bad.part.Params[0].Init = model.Constant(math.Inf(1))
	infinite := written(t, bad, Safetensors, weights.F32)
	for _, tt := range []struct {
		change func(o *Options)
		want   string
	}{
		{func(o *Options) { o.Steps = 0 }, "at least 1"},
		{func(o *Options) { o.Warmup = -1 }, "0 or more"},
		{func(o *Options) { o.Sizes.Batch = 0 }, "a batch of 0"},
		{func(o *Options) { o.Sizes.Tokens = 0 }, "1 to 15 tokens, not 0"},
		{func(o *Options) { o.Sizes.Tokens = 16 }, "1 to 15 tokens, not 16"},
		{func(o *Options) { o.Network, o.Sizes.Tokens = tiny()["vision"], 3 }, "vision reads no text"},
		{func(o *Options) { o.Path = t.TempDir() }, o404},
		{func(o *Options) { o.Network, o.Sizes = tiny()["vision"], Sizes{Batch: 1, Compute: dtypes.Float32} }, path},
		{func(o *Options) { o.Path = infinite }, "not finite"},
	} {
		o := Options{Network: n, Sizes: sizesOf(n), Path: path, Steps: 1}
		tt.change(&o)
		if _, err := Run(t.Context(), backend, o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want one with %q", err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{Network: n, Sizes: sizesOf(n), Path: path, Steps: 1000, OnEvent: func(what string, _ time.Duration) {
		if what == "prompt" {
			cancel()
		}
	}}
	_, err := Run(ctx, backend, o)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "after 1 of 1000") {
		t.Errorf("cancelled: %v", err)
	}
}

// o404 is what is said of a folder without weights.
const o404 = "has neither"

// TestRunXLA: 16-bit weights stay what they are on XLA, and give nearly what float32 gives.
func TestRunXLA(t *testing.T) {
	backend := graphtest.OpenXLA(t)
	cfg := tinyOPT()
	cfg.Layers = 1
	n := NewOPT(cfg).Named("opt")
	results := map[weights.DType][]PassResult{}
	for _, dtype := range []weights.DType{weights.F32, weights.BF16} {
		sizes := sizesOf(n)
		sizes.Compute = ComputeType(dtype)
		r, err := Run(t.Context(), backend, Options{Network: n, Sizes: sizes, Steps: 1,
			Path: written(t, n, PyTorch, dtype)})
		if err != nil {
			t.Fatal(err)
		}
		if r.WeightBytes != n.Bytes(dtype) {
			t.Errorf("%d bytes are kept as %s, want %d", r.WeightBytes, dtype, n.Bytes(dtype))
		}
		results[dtype] = r.Passes
	}
	for i, want := range results[weights.F32] {
		got := results[weights.BF16][i].Result
		if got == want.Result || math.Abs(got-want.Result) > 0.05*want.Result {
			t.Errorf("%s: %g in bfloat16, %g in float32", want.Name, got, want.Result)
		}
	}
}

// loadVar names the checkpoint that a copy of the test binary is to load.
const loadVar = "BLIP2_TEST_LOAD"

// TestLoadingMemory: loading takes the memory of the tensors and little beyond, whatever is in one piece. The largest
// tensor here is a third of the network. Every checkpoint is loaded in a process of its own: what a test before has
// freed late, or the C library keeps, would be taken from there.
func TestLoadingMemory(t *testing.T) {
	n := NewOPT(opt.Config{Vocab: 20000, Hidden: 512, Layers: 6, Heads: 8, FFN: 2048, Positions: 32,
		LayerNormEps: 1e-5}).Named("opt")
	backend := graphtest.OpenXLA(t)
	if measure.MemoryNow().Total == 0 {
		t.Skip("this system does not tell a process's memory")
	}
	if path := os.Getenv(loadVar); path != "" {
		o := Options{Network: n, Path: path, Precision: pretrained.AsStored, OnEvent: func(string, time.Duration) {}}
		store, r := mlx.NewStore(), &Result{}
		defer store.Finalize()
		if err := o.load(t.Context(), backend, store, r); err != nil {
			t.Fatal(err)
		}
		if r.Load.Ratio < 0.9 || r.Load.Ratio > 1.15 {
			t.Errorf("loading took %.2f times the tensors: %+v", r.Load.Ratio, r.Load)
		}
		return
	}
	for _, container := range Containers() {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), loadVar+"="+written(t, n, container, weights.F32))
		out, err := cmd.CombinedOutput()
		if passed := bytes.Contains(out, []byte("--- PASS: "+t.Name())); err != nil || !passed {
			t.Errorf("%s: %v\n%s", container, err, out)
		}
	}
}

// TestPublishedSizes: the names are those of the help, and the networks as large as the published ones.
func TestPublishedSizes(t *testing.T) {
	for name, want := range map[string]struct {
		parameters int
		dtype      weights.DType
		tokens     int
	}{
		"vit-g":         {985_894_528, weights.F32, 0},
		"vit-l-qformer": {0, weights.F32, 0},
		"clip-vit-l14":  {427_616_513, weights.F32, 77},
		"blip-large":    {0, weights.F32, 4},
		"qformer":       {186_307_387, weights.F32, 1},
		"opt-125m":      {125_239_296, weights.F32, 64},
		"opt-2.7b":      {2_651_596_800, weights.BF16, 64},
		"opt-6.7b":      {6_658_473_984, weights.BF16, 64},
		"flan-t5-small": {76_961_152, weights.F32, 64},
		"flan-t5-xl":    {2_849_757_184, weights.BF16, 64},
		"flan-t5-xxl":   {11_135_332_352, weights.BF16, 64},
	} {
		n, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := model.Count(n.Params()); want.parameters != 0 && got != want.parameters {
			t.Errorf("%s has %d parameters, want %d", name, got, want.parameters)
		}
		if n.Name != name || n.DType != want.dtype || n.Tokens != want.tokens || !slices.Contains(Names(), name) {
			t.Errorf("%s: %s, %s, %d tokens; want %s, %d", name, n.Name, n.DType, n.Tokens, want.dtype, want.tokens)
		}
		if err := n.Validate(Sizes{Batch: 1, Tokens: n.Tokens}); err != nil {
			t.Error(err)
		}
	}
	if cfg := stage1OfBERTBase(vit.Config{Arch: vit.CLIP, ImageSize: 28, PatchSize: 14, Width: 16, Layers: 1,
		Heads: 2, MLPRatio: 2}); cfg.QFormer.Validate() != nil || cfg.Vision.Validate() != nil {
		t.Errorf("the stage-1 model is not valid: %+v", cfg)
	}
	if _, err := Find("gpt-5"); err == nil || !strings.Contains(err.Error(), `"gpt-5"`) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestComputeType(t *testing.T) {
	for dtype, want := range map[weights.DType]dtypes.DType{weights.F32: dtypes.Float32, weights.BF16: dtypes.BFloat16,
		weights.F16: dtypes.Float16} {
		if got := ComputeType(dtype); got != want {
			t.Errorf("%s is computed in %s, want %s", dtype, got, want)
		}
	}
}
