package naming_test

import (
	"fmt"
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
	"blip2/pkg/published"
	"blip2/pkg/weights"
)

// file is a checkpoint in memory.
type file map[string]weights.Tensor

func (f file) Names() []string { return slices.Sorted(maps.Keys(f)) }

func (f file) Info(name string) (weights.Tensor, error) {
	t, err := f.Tensor(name)
	t.Data = nil
	return t, err
}

func (f file) Tensor(name string) (weights.Tensor, error) {
	t, ok := f[name]
	if !ok {
		return t, fmt.Errorf("no tensor %s", name)
	}
	t.Name = name
	return t, nil
}

// with returns a copy with further tensors.
func (f file) with(more file) file {
	out := maps.Clone(f)
	maps.Copy(out, more)
	return out
}

// without returns a copy without the tensors whose names contain one of the texts.
func (f file) without(texts ...string) file {
	out := maps.Clone(f)
	maps.DeleteFunc(out, func(name string, _ weights.Tensor) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(name, text) })
	})
	return out
}

// only returns the tensors whose names have one of the prefixes.
func (f file) only(prefixes ...string) file {
	out := maps.Clone(f)
	maps.DeleteFunc(out, func(name string, _ weights.Tensor) bool {
		return !slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
	return out
}

// renamed returns a copy with other names.
func (f file) renamed(to func(string) string) file {
	out := file{}
	for name, t := range f {
		out[to(name)] = t
	}
	return out
}

// values makes a tensor.
func values(shape []int, v ...float32) weights.Tensor { return weights.FromFloat32("", shape, v) }

// zeros makes a tensor of zeros.
func zeros(shape ...int) weights.Tensor {
	return values(shape, make([]float32, model.Param{Shape: shape}.Size())...)
}

// numbered returns a tensor of each parameter's shape; no two numbers are equal.
func numbered(params []model.Param) file {
	f, next := file{}, float32(1)
	for _, p := range params {
		v := make([]float32, p.Size())
		for i := range v {
			v[i] = next
			next++
		}
		f[p.Name] = values(p.Shape, v...)
	}
	return f
}

// sameFiles compares names, shapes and numbers.
func sameFiles(t *testing.T, got, want file) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("no tensor %s", name)
		} else if !slices.Equal(g.Shape, w.Shape) || g.DType != w.DType || !slices.Equal(g.Data, w.Data) {
			t.Errorf("%s is %s %v and differs from the %s %v that it should be", name, g.DType, g.Shape, w.DType, w.Shape)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("a tensor %s too many", name)
		}
	}
}

// sample is a small network.
type sample struct {
	name string
	spec published.Spec
}

// samples are small networks of every kind; no two sizes of one network are equal, where that is possible.
func samples() []sample {
	eva := &vit.Config{Arch: vit.EVA, ImageSize: 42, PatchSize: 14, Width: 6, Layers: 2, Heads: 2, MLPRatio: 1.5}
	openAI := &vit.Config{Arch: vit.CLIP, ImageSize: 42, PatchSize: 14, Width: 6, Layers: 2, Heads: 2, MLPRatio: 1.5}
	text := &qformer.Config{Hidden: 4, Layers: 3, Heads: 2, Intermediate: 5, Queries: 3, CrossAttentionFreq: 2,
		EncoderWidth: 6, Vocab: 11, MaxPositions: 7}
	queries := *text
	queries.Vocab, queries.MaxPositions = 0, 0
	decoder := &opt.Config{Vocab: 13, Hidden: 8, Layers: 2, Heads: 2, FFN: 9, Positions: 10}
	narrow := &opt.Config{Vocab: 13, Hidden: 8, Layers: 2, Heads: 2, FFN: 9, Positions: 10, EmbedDim: 6, PostNorm: true}
	seq2seq := &t5.Config{Vocab: 13, Hidden: 8, HeadDim: 3, Heads: 2, FFN: 9, EncoderLayers: 2, DecoderLayers: 3,
		Activation: nn.GELU, Buckets: 4, MaxDistance: 5}
	whole := *openAI
	return []sample{
		{"stage 1 with EVA", published.Spec{Model: naming.BLIP2Stage1, Vision: eva, QFormer: text, QFormerText: true,
			EmbedDim: 2}},
		{"stage 1 with CLIP", published.Spec{Model: naming.BLIP2Stage1, Vision: openAI, QFormer: text, QFormerText: true,
			EmbedDim: 2}},
		{"OPT with EVA", published.Spec{Model: naming.BLIP2OPT, Vision: eva, QFormer: &queries, OPT: decoder, LLMWidth: 8}},
		{"OPT with CLIP", published.Spec{Model: naming.BLIP2OPT, Vision: openAI, QFormer: &queries, OPT: narrow,
			LLMWidth: 6}},
		{"T5 with EVA", published.Spec{Model: naming.BLIP2T5, Vision: eva, QFormer: &queries, T5: seq2seq, LLMWidth: 8}},
		{"T5 with CLIP", published.Spec{Model: naming.BLIP2T5, Vision: openAI, QFormer: &queries, T5: seq2seq, LLMWidth: 8}},
		{"OPT", published.Spec{Model: naming.OPT, OPT: decoder}},
		{"OPT-350m", published.Spec{Model: naming.OPT, OPT: narrow}},
		{"T5", published.Spec{Model: naming.T5, T5: seq2seq}},
		{"CLIP", published.Spec{Model: naming.CLIP, CLIP: &clip.Config{Image: whole, Embed: 5,
			Text: clip.Text{Vocab: 12, Context: 7, Width: 4, Layers: 2, Heads: 2, MLP: 9}}}},
		{"BLIP", published.Spec{Model: naming.BLIPCaption, BLIP: &blip.Config{Vision: vit.Config{Arch: vit.BLIP,
			ImageSize: 32,
			PatchSize: 16, Width: 6, Layers: 2, Heads: 2, MLPRatio: 1.5}, Hidden: 4, Layers: 2, Heads: 2, Intermediate: 5,
			Vocab: 11, MaxPositions: 7}}},
		{"BERT", published.Spec{Model: naming.BERT, BERT: &qformer.Config{Hidden: 4, Layers: 3, Heads: 2, Intermediate: 5,
			Vocab: 11, MaxPositions: 7}}},
		{"EVA", published.Spec{Model: naming.EVAViT, Vision: eva}},
		{"CLIP's encoder", published.Spec{Model: naming.CLIPViT, Vision: openAI}},
	}
}

// find returns the sample of that name.
func find(t *testing.T, name string) sample {
	t.Helper()
	for _, s := range samples() {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no sample %s", name)
	return sample{}
}

// export names a model's tensors as the publisher does.
func export(t *testing.T, s sample, publisher string) (f file, dropped []naming.Note) {
	t.Helper()
	m, ok := naming.Find(s.spec.Model)
	table, known := m.Tables[publisher]
	if !ok || !known {
		t.Fatalf("%s has no names by %s", s.name, publisher)
	}
	ours := numbered(s.spec.Params())
	var names []string
	for _, p := range s.spec.Params() {
		names = append(names, p.Name)
	}
	outputs, dropped, err := table.Export(names, ours.Info, ours.Tensor)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	f = file{}
	for _, o := range outputs {
		if _, twice := f[o.Name]; twice {
			t.Errorf("%s: %s is written twice", s.name, o.Name)
		}
		data, err := o.Data()
		if err != nil {
			t.Fatal(err)
		}
		f[o.Name] = weights.Tensor{Name: o.Name, DType: o.DType, Shape: o.Shape, Data: data}
	}
	return f, dropped
}

// plan plans how a file fills a sample's model.
func plan(s sample, table naming.Table, src naming.Source) (*naming.Plan, error) {
	return naming.NewPlan(naming.Part{What: s.spec.Model, Params: s.spec.Params(), Tables: []naming.Table{table}}, src)
}

// tables returns a publisher's table of the sample's network.
func table(s sample, publisher string) naming.Table {
	m, _ := naming.Find(s.spec.Model)
	return m.Tables[publisher]
}

// says checks that there is an error with every one of the texts.
func says(t *testing.T, what string, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one that says %q", what, texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %q does not say %q", what, err, text)
		}
	}
}
