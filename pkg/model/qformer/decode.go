package qformer

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// SharedQueries is what texts about pictures have in front of them: every layer's keys and values of the queries, as an
// image pass leaves them (spec/stage1.md 3). All queries are visible.
func SharedQueries(cfg Config, kv []KV) *nn.Shared {
	pictures := kv[0].K.Shape().Dimensions[0]
	ones := BroadcastToDims(Scalar(kv[0].K.Graph(), dtypes.Int32, 1), pictures, cfg.Queries)
	return &nn.Shared{KV: kv, Mask: ones}
}

// Decode reads texts token by token, as generation does: the text pass of ITG, in the compute type of what is in front
// of the text, SharedQueries and perhaps words. Queries do not see the text, so that their keys and values hold for all
// of it. The scope is the model's root.
func Decode(scope *model.Scope, cfg Config, text bert.Text) *bert.Read {
	text.Ahead = cfg.Queries
	r := bert.NewReader(text)
	x := r.Embed(cfg.bert(), scope.At("Qformer").At("bert").At("embeddings"), text.Shared.KV[0].K.DType())
	for i := range cfg.Layers {
		l := cfg.layer(scope, i, nil)
		x = l.FeedForward(textSide, r.SelfAttention(l, x))
	}
	return r.End(x)
}
