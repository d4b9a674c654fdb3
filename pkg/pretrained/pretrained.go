// Package pretrained fills a model's store from published checkpoints: image encoders (OpenAI CLIP, EVA-CLIP), BERT,
// and stage-1 checkpoints of LAVIS, under the names that LAVIS or Hugging Face give their tensors.
//
// Names are mapped by tables (tables.go), one per way of naming; everything else is one machine that reads a table:
// pattern.go matches names, plan.go decides for every tensor of the file and of the model what becomes of it, fill.go
// moves the numbers. A tensor of the file is used, ignored for a stated reason, or an error; a tensor of the model is
// filled, left to its initialisation for a stated reason, or an error. Nothing is passed over in silence.
//
// spec/weights.md 2–4 and 7 is where the names come from, spec/model.md 5.5 how BERT becomes a Q-Former.
package pretrained

import (
	"bytes"
	"fmt"
	"io"
	"os"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/weights"
)

// LoadVision fills the image encoder, under visual_encoder, from path: a safetensors file, or a folder with
// model.safetensors or its shards. The file may hold more than the encoder and more blocks than are used.
//
// Known are the published encoder files (bare names), LAVIS checkpoints with visual_encoder.*, openai/clip-vit-* and
// the vision_model of BLIP-2 folders of Hugging Face. Numbers become float32. A position table of another grid is
// resized to cfg.ImageSize.
//
// ln_vision is not loaded, also where the file has it: it is no part of the frozen encoder, but is trained with the
// Q-Former and comes with its checkpoint or starts at (1, 0) (spec/model.md 1 and 5.5).
//
// Names and shapes are checked before the store is changed; the error then names the tensors, and the Coverage, which
// is nil only if the file could not be opened or recognised, lists all of them. Only unreadable numbers are found
// later: then the store is partly filled and of no use.
func LoadVision(store *mlx.Store, cfg vit.Config, path string) (*Coverage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cov, err := load(store, visionPart(cfg), path)
	if err != nil {
		return cov, fmt.Errorf("image encoder: %w", err)
	}
	return cov, nil
}

// LoadQFormer fills the tensors that params lists, those of a stage-1 model without its image encoder, from path: a
// file or folder as for LoadVision that holds either of
//
//   - BERT: the text feed-forward networks are copied to the query side, the word embeddings get a row for [DEC] drawn
//     from N(0, 0.02²), and what BERT has not — query tokens, cross-attention, heads, ln_vision, and its LM head where
//     the file has none — is initialised from seed as model.Initialize does;
//   - a stage-1 state dict under LAVIS names, such as a checkpoint of this program.
//
// Errors and the Coverage are as for LoadVision. A word embedding table that does not belong to the vocabulary that
// params are made for is an error that names both sizes.
func LoadQFormer(store *mlx.Store, params []model.Param, path string, seed int64) (*Coverage, error) {
	cov, err := load(store, qformerPart(params, seed), path)
	if err == nil {
		err = model.Initialize(store, params, seed)
	}
	if err != nil {
		return cov, fmt.Errorf("Q-Former: %w", err)
	}
	return cov, nil
}

// load opens the checkpoint, recognises its format and moves the part's tensors into the store.
func load(store *mlx.Store, p part, path string) (*Coverage, error) {
	src, err := open(path)
	if err != nil {
		return nil, err // names the path
	}
	defer src.Close() // read only: nothing can be lost
	cov, err := p.fill(store, src)
	if cov != nil {
		cov.Path = path
	}
	if err != nil {
		return cov, fmt.Errorf("%s: %w", path, err)
	}
	return cov, nil
}

// fill moves the part's tensors from the open checkpoint into the store.
func (p part) fill(store *mlx.Store, src source) (*Coverage, error) {
	f, err := p.recognise(src)
	if err != nil {
		return nil, err
	}
	plan, cov := newPlan(p, f, src)
	if err := plan.check(cov); err != nil {
		return cov, err
	}
	return cov, plan.fill(store, cov)
}

// source is an open checkpoint: one file, or the shards of a folder.
type source interface {
	Names() []string // sorted
	Tensor(name string) (weights.Tensor, error)
	Close() error
}

func open(path string) (source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return weights.OpenDir(path)
	}
	f, err := weights.Open(path)
	if err != nil && isPickle(path) {
		return nil, fmt.Errorf("%w: this is a PyTorch file; give the same checkpoint as safetensors", err)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// isPickle tells PyTorch's containers by their first bytes: a ZIP archive, or a bare pickle of protocol 2.
func isPickle(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(file, head); err != nil {
		return false
	}
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte{0x80, 2})
}
