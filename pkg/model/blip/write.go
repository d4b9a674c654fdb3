package blip

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// Prefill is a generate.Prefill: it reads the beginnings of captions, ids and mask [B, L] with padding on the left,
// about pictures of the given features [B, N, W].
func Prefill(scope *model.Scope, cfg Config, features, ids, mask *Node, room nn.Room) (
	logits *Node, fixed, cache []*Node) {
	cross := NewCross(scope, cfg, features)
	read := Decode(scope, cfg, cross, bert.Text{IDs: ids, Mask: mask, Room: room})
	return Logits(scope, cfg, read.Last()), nn.Nodes(cross), read.Cache.Nodes()
}

// Advance is a generate.Advance.
func Advance(scope *model.Scope, cfg Config, fixed, cache []*Node, parents, tokens *Node) (logits *Node, next []*Node) {
	read := Decode(scope, cfg, nn.KVOf(fixed), bert.Text{IDs: tokens, Cache: nn.CacheOf(cache).Pick(parents)})
	return Logits(scope, cfg, read.Hidden), read.Cache.Nodes()
}
