// Package pretrained fills a model's store from published checkpoints: image encoders (OpenAI CLIP, EVA-CLIP), BERT,
// language models, and checkpoints of BLIP-2, under the names that LAVIS or Hugging Face give their tensors.
//
// Package naming says which tensor of a file is which of the model; this package fits what differs in shape (fit.go)
// and moves the numbers (fill.go), one tensor at a time, so that the largest is all that is in memory beside the model.
//
// spec/model.md 5.5 says how BERT becomes a Q-Former.
package pretrained

import (
	"fmt"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// Coverage says what became of every tensor of a checkpoint and of the part of the model that it fills.
type Coverage = naming.Coverage

// Note is a tensor's name with the reason for what became of it.
type Note = naming.Note

// LoadVision fills the image encoder, under visual_encoder, from path: a file or folder as weights.OpenAny takes them.
// It may hold more than the encoder and more blocks than are used.
//
// Known are the published encoder files (bare names), LAVIS checkpoints with visual_encoder.*, openai/clip-vit-* and
// the vision_model of BLIP-2 folders of Hugging Face. A position table of another grid is resized to cfg.ImageSize.
//
// ln_vision is not loaded, also where the file has it: it is no part of the frozen encoder, but is trained with the
// Q-Former and comes with its checkpoint or starts at (1, 0) (spec/model.md 1 and 5.5).
//
// Names and shapes are checked before the store is changed; the error then names the tensors, and the Coverage, which
// is nil only if the file could not be opened or recognised, lists all of them. Unreadable numbers are found later, but
// before the store is changed too.
func LoadVision(store *mlx.Store, cfg vit.Config, path string, o Options) (*Coverage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cov, err := loadPath(store, VisionPart(cfg), path, o)
	if err != nil {
		return cov, fmt.Errorf("image encoder: %w", err)
	}
	return cov, nil
}

// LoadQFormer fills the tensors that params lists, those of a stage-1 model without its image encoder, from path: a
// file or folder as for LoadVision that holds one of
//
//   - BERT: the text feed-forward networks are copied to the query side, the word embeddings get a row for [DEC] drawn
//     from N(0, 0.02²), and what BERT has not — query tokens, cross-attention, heads, ln_vision, and its LM head where
//     the file has none — is initialised from seed as model.Initialize does;
//   - a stage-1 state dict under LAVIS names, such as a checkpoint of this program;
//   - Blip2ForImageTextRetrieval of Hugging Face, which lacks the LM head and the ITC temperature: they are initialised.
//
// Errors and the Coverage are as for LoadVision. A word embedding table that does not belong to the vocabulary that
// params are made for is an error that names both sizes.
func LoadQFormer(store *mlx.Store, params []model.Param, path string, seed int64, o Options) (*Coverage, error) {
	cov, err := loadPath(store, QFormerPart(params, seed), path, o)
	if err == nil {
		err = model.InitializeOn(o.Backend, store, params, seed)
	}
	if err != nil {
		return cov, fmt.Errorf("Q-Former: %w", err)
	}
	return cov, nil
}

// Load fills the part's tensors from an open checkpoint. Errors and the Coverage are as for LoadVision; tensors that
// stay as initialised are the caller's to draw.
func Load(store *mlx.Store, p Part, src naming.Source, o Options) (*Coverage, error) {
	return p.load(store, src, o)
}

// loadPath opens the checkpoint, recognises its format and moves the part's tensors into the store.
func loadPath(store *mlx.Store, p Part, path string, o Options) (*Coverage, error) {
	src, err := weights.OpenAny(path)
	if err != nil {
		return nil, err // names the path
	}
	defer src.Close() // read only: nothing can be lost
	cov, err := p.load(store, src, o)
	if cov != nil {
		cov.Path = path
	}
	if err != nil {
		return cov, fmt.Errorf("%s: %w", path, err)
	}
	return cov, nil
}

// Part is a naming.Part with what fits tensors whose shape in a file may differ from the model's.
type Part struct {
	naming.Part
	adapters func(t naming.Table) map[string]adapter // by the model's name
}

// VisionPart is the image encoder.
func VisionPart(cfg vit.Config) Part {
	p := Part{Part: naming.Part{
		What:    "image encoder",
		Absence: " (BLIP-2 checkpoints have none where it was frozen: give the encoder's own file)",
		Setting: "vision", Params: model.Prefixed(naming.VisionPrefix, vit.Params(cfg)), Tables: naming.VisionTables(),
		Arch: cfg.Arch, Layers: naming.VisionPrefix + "blocks.*.**", Used: cfg.Layers,
		Elsewhere: []naming.Exception{{Pattern: "ln_vision.*",
			Reason: "trained with the Q-Former, not part of the frozen encoder"}},
	}}
	if cfg.Arch == vit.CLIP {
		p.Layers = naming.VisionPrefix + "transformer.resblocks.*.**"
	}
	return p.Resizing(cfg)
}

// Resizing returns the part with a position table of the image encoder, if it has one, resized to cfg's.
func (p Part) Resizing(cfg vit.Config) Part {
	p.adapters = func(naming.Table) map[string]adapter {
		return map[string]adapter{naming.VisionPrefix + cfg.PositionName(): positionTable{cfg}}
	}
	return p
}

// QFormerPart is all of a stage-1 model but its image encoder.
func QFormerPart(params []model.Param, seed int64) Part {
	return Part{
		Part: naming.Part{What: "Q-Former", Setting: "qformer", Params: params, Tables: naming.QFormerTables()},
		adapters: func(t naming.Table) map[string]adapter {
			words := vocabulary{seed: seed}
			if t.Name == naming.BERTName {
				words.added = 1
			}
			return map[string]adapter{naming.WordEmbeddings: words, naming.LMHead + "bias": words}
		},
	}
}
