package qformer

import (
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
)

// Decode reads texts token by token, as generation does: the text pass of ITG. What stands in front of them are the
// queries, as SelfKV of an image pass (spec/stage1.md 3): they do not see the text, so that their keys and values hold
// for all of it. The compute type is that of these. The scope is the model's root.
func Decode(scope *model.Scope, cfg Config, text bert.Text) *bert.Read {
	past := text.Front
	if text.Cache != nil {
		past = text.Cache.KV
	}
	text.Ahead = cfg.Queries
	r := bert.NewReader(text)
	x := r.Embed(cfg.bert(), scope.At("Qformer").At("bert").At("embeddings"), past[0].K.DType())
	for i := range cfg.Layers {
		l := cfg.layer(scope, i, nil)
		x = l.FeedForward(textSide, r.SelfAttention(l, x))
	}
	return r.End(x)
}
