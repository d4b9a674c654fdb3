package blip

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// Prefill is a generate.Prefill: it reads the beginnings of captions, ids and mask [B, L] with padding on the left,
// about pictures of the given features [B, N, W]. The keys and values of picture and beginning are there once for all
// texts of a row.
func Prefill(scope *model.Scope, cfg Config, features, ids, mask *Node, newTokens, width int) (
	logits *Node, fixed, cache []*Node) {
	cross := NewCross(scope, cfg, features)
	begun := Decode(scope, cfg, Input{Text: bert.Text{IDs: ids, Mask: mask}, Cross: cross})
	shared := &nn.Shared{KV: begun.KV, Mask: mask}
	rows := ids.Shape().Dimensions[0]
	empty := nn.NewCache(ids.Graph(), features.DType(), cfg.Layers, rows*width, cfg.Heads, newTokens,
		cfg.Hidden/cfg.Heads)
	return Logits(scope, cfg, begun.Last()), append(shared.Nodes(), CrossNodes(cross)...), empty.Nodes()
}

// Advance is a generate.Advance.
func Advance(scope *model.Scope, cfg Config, fixed, cache []*Node, parents, tokens *Node) (logits *Node, next []*Node) {
	ids, split := InsertAxes(tokens, -1), len(fixed)-2*cfg.Layers
	read := Decode(scope, cfg, Input{Cross: CrossOf(fixed[split:]), Text: bert.Text{IDs: ids, Mask: OnesLike(ids),
		Shared: nn.SharedOf(fixed[:split]), Cache: nn.CacheOf(cache).Pick(parents)}})
	return Logits(scope, cfg, read.Last()), read.Cache.Nodes()
}

// CrossNodes lists what the cross-attention reads, to hand it from one program to the next; CrossOf puts it together
// again.
func CrossNodes(cross []nn.KV) []*Node {
	var nodes []*Node
	for _, kv := range cross {
		nodes = append(nodes, kv.K, kv.V)
	}
	return nodes
}

// CrossOf is the inverse of CrossNodes.
func CrossOf(nodes []*Node) []nn.KV {
	var cross []nn.KV
	for i := 0; i < len(nodes); i += 2 {
		cross = append(cross, nn.KV{K: nodes[i], V: nodes[i+1]})
	}
	return cross
}
