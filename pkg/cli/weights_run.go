package cli

import (
	"os"
	"path/filepath"

	"blip2/pkg/answer"
	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/published"
	"blip2/pkg/runlog"
)

// trained is a checkpoint of a training run of this program.
type trained struct {
	path string // the folder with the weights
	cfg  *runSizes
}

// runSizes is what a run's configuration knows that its checkpoints do not hold.
type runSizes struct {
	vision       config.Vision
	encoder      string // where the image encoder's weights come from; empty if that is not known
	qformerHeads int
	llm          string // folder of stage 2's language model
	llmHeads     int    // of OPT; 0 if that is not known
	tokenizer    string // of what the model writes
}

// readRun reads the configuration of a run of either stage.
func readRun(app *App, run string) (*runSizes, error) {
	opts := config.LoadOptions{Path: filepath.Join(run, runlog.ConfigFile)}
	one, _, err := config.LoadStage1(opts)
	if err == nil {
		return &runSizes{vision: one.Vision, encoder: one.Vision.Weights, qformerHeads: one.QFormer.Heads,
			tokenizer: one.Text.Vocab}, nil
	}
	two, _, errTwo := config.LoadStage2(opts)
	if errTwo != nil {
		return nil, err // of a run of stage 1, as most are
	}
	out := &runSizes{vision: two.Vision, encoder: two.Vision.Weights, qformerHeads: two.QFormer.Heads, llm: two.LLM.Path,
		tokenizer: two.LLM.Path}
	if spec, err := published.ReadConfig(two.LLM.Path); err == nil && spec.OPT != nil {
		out.llmHeads = spec.OPT.Heads
	}
	if out.encoder == "" && two.Stage1 != "" { // then stage 1 has trained it
		from, err := findRun(app, two.Stage1)
		if err != nil {
			return out, nil // the folder is no longer there; a frozen encoder must then be named
		}
		out.encoder = from.path
	}
	return out, nil
}

// findRun returns the run that a path leads into: a run folder, whose newest good checkpoint counts, as it does for its
// checkpoints/latest, or a checkpoint in one. For any other path, and for a run whose configuration cannot be read, cfg
// is nil.
func findRun(app *App, path string) (trained, error) {
	run, newest := filepath.Clean(path), true
	if filepath.Base(filepath.Dir(run)) == checkpoint.Folder {
		newest = filepath.Base(run) == checkpoint.LatestFile
		run = filepath.Dir(filepath.Dir(run))
	}
	out := trained{path: path}
	if info, err := os.Stat(filepath.Join(run, checkpoint.Folder)); err != nil || !info.IsDir() {
		return out, nil
	}
	cfg, err := readRun(app, run)
	if err == nil {
		out.cfg = cfg
	} else {
		app.Log.Warn("the run's configuration cannot be used: give its sizes by flags", "err", err)
	}
	if !newest {
		return out, nil
	}
	dir, skipped, err := checkpoint.Latest(run)
	for _, damaged := range skipped {
		app.Log.Warn("checkpoint passed over", "err", damaged)
	}
	out.path = dir
	return out, err // which names the run
}

// hints fills in the sizes that the run's configuration knows and no flag gives.
func (t trained) hints(h *published.Hints) {
	if t.cfg == nil {
		return
	}
	if h.VisionHeads == 0 {
		h.VisionHeads = t.cfg.vision.Heads
	}
	if h.QFormerHeads == 0 {
		h.QFormerHeads = t.cfg.qformerHeads
	}
	if h.LLMHeads == 0 {
		h.LLMHeads = t.cfg.llmHeads
	}
}

// parts fills in what the run's configuration knows of what checkpoints do not hold because it was frozen: the language
// model's folder, and the image encoder's file, how many blocks are used, and the size of the pictures.
func (t trained) parts(p *published.Parts) {
	t.hints(&p.Hints)
	if t.cfg == nil {
		return
	}
	if _, err := os.Stat(t.cfg.llm); p.LLM == "" && err == nil {
		p.LLM = t.cfg.llm
	}
	if !t.cfg.vision.Freeze {
		return
	}
	if _, err := os.Stat(t.cfg.encoder); p.Vision == "" && err == nil {
		p.Vision = t.cfg.encoder
	}
	if p.Vision == "" {
		return // it was random, or the file is no longer where it was
	}
	if p.VisionLayers == 0 {
		p.VisionLayers = t.cfg.vision.Layers
	}
	if p.ImageSize == 0 {
		p.ImageSize = t.cfg.vision.ImageSize
	}
}

// source fills in what the run's configuration knows of a model that writes and no flag gives.
func (t trained) source(s *answer.Source) {
	p := published.Parts{Vision: s.Vision, LLM: s.LLM, VisionLayers: s.VisionLayers, ImageSize: s.ImageSize, Hints: s.Hints}
	t.parts(&p)
	s.Vision, s.LLM, s.VisionLayers, s.ImageSize, s.Hints = p.Vision, p.LLM, p.VisionLayers, p.ImageSize, p.Hints
	if t.cfg != nil && s.Tokenizer == "" {
		s.Tokenizer = t.cfg.tokenizer
	}
}
