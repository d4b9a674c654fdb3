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
	cfg  *config.Stage1
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
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: filepath.Join(run, runlog.ConfigFile)})
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
		h.VisionHeads = t.cfg.Vision.Heads
	}
	if h.QFormerHeads == 0 {
		h.QFormerHeads = t.cfg.QFormer.Heads
	}
}

// parts fills in what the run's configuration knows of the image encoder, which checkpoints do not hold where it was
// frozen: its file, how many blocks are used, and the size of the pictures.
func (t trained) parts(p *published.Parts) {
	t.hints(&p.Hints)
	if t.cfg == nil || !t.cfg.Vision.Freeze {
		return
	}
	if _, err := os.Stat(t.cfg.Vision.Weights); p.Vision == "" && err == nil {
		p.Vision = t.cfg.Vision.Weights
	}
	if p.Vision == "" {
		return // it was random, or the file is no longer where it was
	}
	if p.VisionLayers == 0 {
		p.VisionLayers = t.cfg.Vision.Layers
	}
	if p.ImageSize == 0 {
		p.ImageSize = t.cfg.Vision.ImageSize
	}
}

// source fills in what the run's configuration knows of a model that writes and no flag gives.
func (t trained) source(s *answer.Source) {
	p := published.Parts{Vision: s.Vision, VisionLayers: s.VisionLayers, ImageSize: s.ImageSize, Hints: s.Hints}
	t.parts(&p)
	s.Vision, s.VisionLayers, s.ImageSize, s.Hints = p.Vision, p.VisionLayers, p.ImageSize, p.Hints
	if t.cfg != nil && s.Tokenizer == "" {
		s.Tokenizer = t.cfg.Text.Vocab
	}
}
