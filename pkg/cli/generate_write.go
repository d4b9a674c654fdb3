package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"strings"
	"unicode/utf8"

	"blip2/pkg/answer"
	"blip2/pkg/device"
	"blip2/pkg/generate"
	"blip2/pkg/runlog"
)

// record is one answer as it is written.
type record struct {
	Image  string        `json:"image"`
	Prompt string        `json:"prompt"`
	Text   string        `json:"text"` // the best
	Texts  []answer.Text `json:"texts"`
	// Settings tells results of other models and options apart.
	Settings string `json:"settings,omitempty"`
}

// badPicture is the line of a picture that could not be read, with --json.
type badPicture struct {
	Image string `json:"image"`
	Error string `json:"error"`
}

// maxNamed bounds how many pictures an error names.
const maxNamed = 5

// write answers all pictures.
func (g *generation) write(ctx context.Context) error {
	results, err := g.openResults()
	if err != nil {
		return err
	}
	inputs, numbers := results.open(g.inputs, g.asked)
	if g.attention != "" {
		inputs, numbers = g.inputs, nil // one picture, which is to be drawn even if it is answered
	}
	if done := len(g.inputs.Names) - len(inputs.Names); done > 0 {
		g.Log.Info("pictures that are answered already are left out", "pictures", done, "file", g.out)
	}
	defer results.close()
	if len(inputs.Names) == 0 {
		return results.finish(g.inputs, true)
	}
	g.progress = runlog.NewProgress(runlog.ProgressOptions{Out: g.Err, Terminal: isTerminal(g.Err),
		Quiet: g.Globals.Quiet})
	g.Log = g.logAbove(g.progress)
	if s, ok := results.(*screen); ok && isTerminal(g.Out) {
		s.out = g.progress.Above(g.Out)
	}
	reader := g.checkpoint.Read(ctx, inputs, numbers, 2*g.batch, g.attention != "")
	defer reader.Close()
	w := &writing{generation: g, reader: reader, results: results, total: len(inputs.Names)}
	// What cannot be read is found out before the model is loaded, if it is all that there is.
	first := w.next()
	if len(first) > 0 {
		err = w.load(ctx, first)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return w.stopped(ctx, err)
	}
	if answered := g.inputs.Without(w.isBad); len(answered.Names) > 0 {
		if err := results.finish(answered, len(w.bad) == 0); err != nil {
			return err
		}
	}
	return w.badError()
}

// writing is the state of write.
type writing struct {
	*generation
	reader  *answer.Reader
	results results
	model   *answer.Model
	device  *device.Device
	total   int
	done    int // answered pictures
	bad     []answer.Loaded
	phase   *runlog.Phase
}

// next returns the next batch of pictures that could be read.
func (w *writing) next() []answer.Loaded {
	var batch []answer.Loaded
	for len(batch) < w.batch {
		l, ok := w.reader.Next()
		switch {
		case !ok:
			return batch
		case l.Err == nil:
			batch = append(batch, l)
		case errors.Is(l.Err, context.Canceled):
		default:
			w.bad = append(w.bad, l)
			w.Log.Warn("picture not answered", "image", l.Name, "reason", l.Err)
			if w.Globals.JSON && w.out == "" {
				_ = writeLine(w.Out, badPicture{l.Name, l.Err.Error()}) // the next result reports a broken stdout
			}
		}
	}
	return batch
}

// load loads the model and answers the first batch and all others.
func (w *writing) load(ctx context.Context, batch []answer.Loaded) (err error) {
	if w.device, w.model, err = w.open(ctx); err != nil {
		return err
	}
	defer closeDevice(w.App, w.device)
	defer w.model.Close()
	if w.total > 1 {
		w.phase = w.progress.Start("picture", 0, w.total)
		defer w.phase.Done()
	}
	for ; len(batch) > 0; batch = w.next() {
		if err := w.answer(ctx, batch); err != nil {
			return err
		}
		w.done += len(batch)
		if w.phase != nil {
			w.phase.Advance(w.done + len(w.bad))
		}
	}
	w.Log.Debug("programs compiled", "number", w.model.Stats().Compilations)
	return nil
}

// answer answers the prompts of a batch of pictures.
func (w *writing) answer(ctx context.Context, batch []answer.Loaded) error {
	pixels := make([][]float32, len(batch))
	for i, l := range batch {
		pixels[i] = l.Pixels
	}
	pictures, err := w.model.Encode(ctx, pixels...)
	if err != nil {
		return err
	}
	for p, prompt := range w.asked {
		requests := make([]answer.Request, len(batch))
		for i, l := range batch {
			requests[i] = answer.Request{Picture: pictures[i], Prompt: prompt, Key: int64(l.Index*len(w.asked) + p)}
		}
		options, shown := w.options, (*shower)(nil)
		if w.streams() && w.total == 1 && len(w.asked) == 1 {
			shown = &shower{app: w.App, model: w.checkpoint}
			options.Watch = shown.watch
		}
		texts, err := w.model.Write(ctx, requests, options)
		if err != nil {
			return err
		}
		if shown != nil {
			return errors.Join(shown.end(texts[0][0].Text), w.drawAttention(ctx, batch[0]))
		}
		for i, l := range batch {
			r := record{Image: l.Name, Prompt: prompt, Text: texts[i][0].Text, Texts: texts[i]}
			if err := w.results.add(r); err != nil {
				return err
			}
		}
	}
	return w.drawAttention(ctx, batch[0])
}

// drawAttention writes the picture of --show-attention.
func (w *writing) drawAttention(ctx context.Context, l answer.Loaded) error {
	if w.attention == "" {
		return nil
	}
	layer, err := attentionLayer(w.layer)
	if err != nil {
		return err
	}
	seen, err := w.model.LookAt(ctx, w.device.Backend, w.device.DTypes.Compute, l.Pixels, layer)
	if err != nil {
		return err
	}
	var file bytes.Buffer
	if err := png.Encode(&file, seen.Draw(l.Image)); err != nil {
		return err
	}
	if err := runlog.WriteFile(w.attention, file.Bytes()); err != nil {
		return fmt.Errorf("--show-attention: %w", err)
	}
	w.Log.Info("attention drawn", "file", w.attention, "layers", fmt.Sprint(seen.Layers), "queries", len(seen.Maps))
	return nil
}

// isBad says whether a picture could not be read.
func (w *writing) isBad(name string) bool {
	for _, l := range w.bad {
		if l.Name == name {
			return true
		}
	}
	return false
}

// stopped explains an interrupt: what is in a file stays.
func (w *writing) stopped(ctx context.Context, err error) error {
	if ctx.Err() == nil || w.out == "" {
		return err
	}
	return fmt.Errorf("%w: %d of %d pictures are answered in %s; the same command goes on", ErrInterrupted, w.done,
		w.total, w.results.path())
}

// badError names the pictures that could not be read.
func (w *writing) badError() error {
	switch len(w.bad) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("picture not answered: %w", w.bad[0].Err)
	}
	var lines []string
	for _, l := range w.bad[:min(len(w.bad), maxNamed)] {
		lines = append(lines, "  "+l.Err.Error())
	}
	if more := len(w.bad) - maxNamed; more > 0 {
		lines = append(lines, fmt.Sprintf("  and %d more", more))
	}
	return fmt.Errorf("%d of %d pictures not answered:\n%s", len(w.bad), w.total, strings.Join(lines, "\n"))
}

// shower shows a text as it is written.
type shower struct {
	app    *App
	model  *answer.Checkpoint
	tokens []int32
	shown  int // bytes
	err    error
}

// watch shows what the newest token adds. A character of which bytes are missing is held back, and so are spaces, which
// may turn out to be at the end.
func (s *shower) watch(_ int, tokens []generate.Token) {
	for _, t := range tokens {
		if t.Row == 0 && t.Text == 0 {
			s.tokens = append(s.tokens, t.ID)
		}
	}
	text := strings.TrimRight(s.model.Decode(s.tokens), string(utf8.RuneError))
	s.show(text)
}

// show appends to what is on the screen.
func (s *shower) show(text string) {
	if len(text) <= s.shown || s.err != nil {
		return
	}
	_, s.err = fmt.Fprint(s.app.Out, text[s.shown:])
	s.shown = len(text)
}

// end shows the rest of the text and ends the line.
func (s *shower) end(text string) error {
	s.show(text)
	if s.err == nil {
		_, s.err = fmt.Fprintln(s.app.Out)
	}
	return s.err
}
