package stage2

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
)

// QueryEmbeds encodes pictures as the language model reads them: pixels [B, 3, S, S] (CLIP-normalised) → [B, Q, D] in
// the compute type. The scope is the model's root, as in all functions of this package.
func QueryEmbeds(scope *model.Scope, cfg Config, pixels *Node) *Node {
	return queryEmbeds(scope, cfg, pixels, nil)
}

// queryEmbeds is QueryEmbeds with the Q-Former's dropout; rng nil means none.
func queryEmbeds(scope *model.Scope, cfg Config, pixels *Node, rng *nn.RNG) *Node {
	encoder := cfg.Vision
	encoder.Remat = encoder.Remat && !cfg.FreezeVision
	features := vit.Forward(scope.At("visual_encoder"), encoder, nn.Cast(pixels, cfg.compute()))
	if cfg.FreezeVision {
		features = StopGradient(features)
	}
	features = nn.LayerNorm(scope.At("ln_vision"), features, cfg.LNVisionEps)
	hidden := qformer.Forward(scope, cfg.QFormer, qformer.Input{
		Queries: qformer.Queries(scope, cfg.QFormer, pixels.Graph(), pixels.Shape().Dimensions[0], cfg.compute()),
		Cross:   qformer.NewCross(scope, cfg.QFormer, features),
	}, rng).Hidden
	return nn.Linear(scope.At("%s", cfg.projection()), hidden)
}

// Prefix puts query embeddings [B, Q, D] in front of texts, ids and mask [B, L]: embeddings [B, Q+L, D], and their mask
// [B, Q+L] in the type of the texts'.
func Prefix(scope *model.Scope, cfg Config, queries, ids, mask *Node) (embeds, all *Node) {
	var words *Node
	if cfg.OPT != nil {
		words = opt.Embed(scope.At("opt_model"), ids, queries.DType())
	} else {
		words = t5.Embed(scope.At("t5_model"), ids, queries.DType())
	}
	dims := queries.Shape().Dimensions
	seen := BroadcastToDims(Scalar(mask.Graph(), mask.DType(), 1), dims[0], dims[1])
	return Concatenate([]*Node{queries, words}, 1), Concatenate([]*Node{seen, mask}, 1)
}

// OPTLogits runs OPT over a prefix: embeddings [B, N, D] and their mask [B, N] → the logits of the token after each
// position, [B, N, V] float32.
func OPTLogits(scope *model.Scope, cfg Config, embeds, mask *Node) *Node {
	llm := scope.At("opt_model")
	return opt.Logits(llm, *cfg.OPT, opt.Forward(llm, *cfg.OPT, opt.Input{Embeds: embeds, Mask: mask}, nil).Hidden)
}

// T5Encode runs T5's encoder over a prefix: embeddings [B, N, D] and their mask [B, N] → [B, N, D].
func T5Encode(scope *model.Scope, cfg Config, embeds, mask *Node) *Node {
	return t5.Encode(scope.At("t5_model"), *cfg.T5, embeds, mask, nil)
}

// T5Logits runs T5's decoder over ids [B, L], which begin with t5.StartID, reading an encoded prefix [B, N, D] with its
// mask [B, N]: the logits of the token after each position, [B, L, V] float32.
func T5Logits(scope *model.Scope, cfg Config, encoded, mask, ids *Node) *Node {
	llm := scope.At("t5_model")
	hidden := t5.Decode(llm, *cfg.T5, t5.Input{Embeds: t5.Embed(llm, ids, encoded.DType()),
		Cross: t5.NewCross(llm, *cfg.T5, encoded, mask)}, nil).Hidden
	return t5.Logits(llm, *cfg.T5, hidden)
}
