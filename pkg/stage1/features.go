package stage1

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
)

// ImageFeatures encodes pictures for retrieval: pixels [B, 3, S, S] → image features after ln_vision [B, N, W] and
// query features [B, Q, E] of unit length (spec/stage1.md 9).
func ImageFeatures(scope *model.Scope, cfg Config, pixels *Node) (embeds, feats *Node) {
	embeds = EncodeImages(scope, cfg, pixels)
	hidden := imagePass(scope, cfg, embeds).Hidden
	return nn.Float32(embeds), nn.UnitNorm(nn.Float32(nn.Linear(scope.At("vision_proj"), hidden)))
}

// Features are what a trained stage-1 model makes of pictures and texts, row by row (LAVIS's extract_features, which
// cuts no text).
type Features struct {
	Image, ImageProj *Node // [B, Q, H] of the image pass; [B, Q, E] of unit length
	Text, TextProj   *Node // [B, L, H] of the text pass; [B, L, E] of unit length, of which ITC uses position 0
	Multimodal       *Node // [B, Q, H] of the pass over picture and text together
}

// ExtractFeatures computes the features of pairs: pixels [B, 3, S, S], ids and mask [B, L].
func ExtractFeatures(scope *model.Scope, cfg Config, pixels, ids, mask *Node) Features {
	var f Features
	embeds := EncodeImages(scope, cfg, pixels)
	f.Image = imagePass(scope, cfg, embeds).Hidden
	f.ImageProj = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("vision_proj"), f.Image)))
	f.Text = textPass(scope, cfg, ids, mask, nil)
	f.TextProj = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("text_proj"), f.Text)))
	f.Multimodal, _ = matchPass(scope, cfg, ids, mask, qformer.NewCross(scope, cfg.QFormer, embeds), nil)
	return f
}

// imagePass runs the queries over image features [B, N, W], without dropout.
func imagePass(scope *model.Scope, cfg Config, embeds *Node) *qformer.Output {
	embeds = nn.Cast(embeds, cfg.compute())
	batch := embeds.Shape().Dimensions[0]
	return qformer.Forward(scope, cfg.QFormer, qformer.Input{
		Queries: qformer.Queries(scope, cfg.QFormer, embeds.Graph(), batch, cfg.compute()),
		Cross:   qformer.NewCross(scope, cfg.QFormer, embeds),
	}, nil)
}

// TextFeatures encodes texts for retrieval: ids and mask [T, L] → [T, E] of unit length.
func TextFeatures(scope *model.Scope, cfg Config, ids, mask *Node) *Node {
	hidden := textCLS(scope, cfg, ids, mask, nil)
	return nn.UnitNorm(nn.Float32(nn.Linear(scope.At("text_proj"), hidden)))
}

// MatchLogits scores pairs of picture and text: image features [P, N, W], ids and mask [P, L] → ITM logits [P, 2],
// averaged over the queries; class 1 is a match.
func MatchLogits(scope *model.Scope, cfg Config, embeds, ids, mask *Node) *Node {
	cross := qformer.NewCross(scope, cfg.QFormer, nn.Cast(embeds, cfg.compute()))
	_, logits := matchPass(scope, cfg, ids, mask, cross, nil)
	return logits
}

// captionLogits runs the text pass of ITG behind the cached queries: ids and mask [B, L] → logits [B, L, V] float32.
func captionLogits(scope *model.Scope, cfg Config, ids, mask *Node, past []qformer.KV, rng *nn.RNG) *Node {
	out := qformer.Forward(scope, cfg.QFormer, qformer.Input{
		TextIDs: ids, DType: cfg.compute(), Past: past,
		Mask: nn.CausalMask(mask, cfg.QFormer.Queries),
	}, rng)
	return qformer.LMLogits(scope, cfg.QFormer, out.Hidden)
}
