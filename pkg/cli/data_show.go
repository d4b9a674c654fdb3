package cli

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/jpeg"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
)

type dataShowOptions struct {
	data    dataFlags
	out     string
	batches int
	batch   int
	epoch   int64
	index   int64
}

func newDataShowCmd(app *App) *cobra.Command {
	var opts dataShowOptions
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Write a page with augmented batches as the model sees them",
		Long: `Takes batches as the training would, cropped, mirrored, resized and mixed, at any position of the data, and
writes them as one HTML page: every picture with its processed text, and with the tokens if the configuration names a
vocabulary. Shards that can only be read in order are shown from their beginning.`,
		Example: `  blip2 data show --config configs/quickstart.yaml --out batches.html
  blip2 data show --config configs/pretrain_stage1_vitl.yaml --batch 64 --epoch 1 --index 128000
  blip2 data show --annotations captions.csv --images pictures`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDataShow(cmd.Context(), app, opts) },
	}
	opts.data.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&opts.out, "out", "batches.html", "`file` to write")
	flags.IntVar(&opts.batches, "batches", 1, "batches to show")
	flags.IntVar(&opts.batch, "batch", 0, "samples per batch (default: train.batch_size, at most 64)")
	flags.Int64Var(&opts.epoch, "epoch", 0, "epoch to begin in")
	flags.Int64Var(&opts.index, "index", 0, "row of the epoch to begin with")
	return cmd
}

//go:embed data_show.html
var sheetHTML string

// sheet is what the page shows.
type sheet struct {
	Title   string
	Size    int
	Batches []sheetBatch
}

type sheetBatch struct {
	Epoch, Index int64 // behind it
	Samples      []sheetSample
}

type sheetSample struct {
	Picture template.URL
	Key     string
	Text    string
	Answer  string
	Tokens  string
}

// mostShown bounds the samples of a batch on the page when nobody says how many.
const mostShown = 64

func runDataShow(ctx context.Context, app *App, opts dataShowOptions) error {
	cfg, err := opts.data.load(app)
	if err != nil {
		return err
	}
	if opts.batches < 1 || opts.batch < 0 {
		return usagef("--batches must be at least 1, and --batch must not be negative")
	}
	training, err := opts.open(ctx, app, cfg)
	if err != nil {
		return err
	}
	size := opts.batch
	if size == 0 {
		size = min(cfg.Train.BatchSize, mostShown, int(training.Mixture.Rows()))
	}
	var tok dataset.Tokenizer
	if cfg.vocab != "" {
		words, err := tokenizer.LoadWordPiece(cfg.vocab)
		if err != nil {
			return fmt.Errorf("text.vocab: %w", err)
		}
		tok = words
	}
	loader, err := dataset.NewMixtureLoader(training.Mixture, tok, showOptions(cfg, size,
		dataset.Position{Epoch: opts.epoch, Index: opts.index}))
	if err != nil {
		return err
	}
	defer loader.Close()
	page := sheet{Title: training.Mixture.Name(), Size: cfg.imageSize}
	for range opts.batches {
		b, err := loader.Next(ctx)
		if err != nil {
			return err
		}
		shown, err := newSheetBatch(b, cfg.imageSize)
		if err != nil {
			return err
		}
		page.Batches = append(page.Batches, shown)
		b.Release()
	}
	for _, bad := range loader.BadSamples() {
		app.Log.Warn("bad sample replaced", "key", bad.Key, "reason", bad.Reason)
	}
	return app.writeSheet(opts.out, page)
}

// open mixes the data sets of data.train.
func (o dataShowOptions) open(ctx context.Context, app *App, cfg dataConfig) (*configured.Training, error) {
	sets, err := openList(ctx, app, "data.train", cfg.Data.Train)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		switch {
		case s.Stream == nil:
		case o.epoch > 0 || o.index > 0:
			return nil, usagef("%s can only be read in order, from the beginning: leave out --epoch and --index", s.key)
		case s.Stream.Pictures == 0 && len(sets) == 1:
			s.Stream.Pictures = 1 << 20 // any number will do: of a single stream it is only the length of an epoch
		}
	}
	return configured.Mix(cfg.Data, partsOf(sets))
}

// showOptions are those of the training, but for the size of the batch.
func showOptions(cfg dataConfig, size int, start dataset.Position) dataset.LoaderOptions {
	o := configured.LoaderOptions(cfg.Data)
	o.BatchSize, o.ImageSize, o.MaxTextLen, o.Seed, o.Start = size, cfg.imageSize, cfg.maxLen, cfg.Seed, start
	o.Caption = cfg.caption
	return o
}

func newSheetBatch(b *dataset.Batch, size int) (sheetBatch, error) {
	out := sheetBatch{Epoch: b.Epoch, Index: b.Index}
	plane := size * size
	for i, key := range b.Keys {
		picture, err := pictureOf(b.Pixels[i*3*plane:][:3*plane], size)
		if err != nil {
			return out, err
		}
		s := sheetSample{Picture: picture, Key: key, Text: b.Captions[i] + b.Questions[i], Answer: b.Answers[i]}
		if n := len(b.TextIDs) / len(b.Keys); n > 0 {
			s.Tokens = fmt.Sprint(b.TextIDs[i*n:][:n])
		}
		out.Samples = append(out.Samples, s)
	}
	return out, nil
}

// pictureOf turns normalised planes [3, S, S] back into a picture, as a data: URI.
func pictureOf(planes []float32, size int) (template.URL, error) {
	mean, std := dataset.CLIPMean(), dataset.CLIPStd()
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	for p := range size * size {
		for c := range 3 {
			v := (planes[c*size*size+p]*std[c] + mean[c]) * 255
			img.Pix[4*p+c] = uint8(min(max(v+0.5, 0), 255))
		}
		img.Pix[4*p+3] = 255
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 90}); err != nil {
		return "", err
	}
	return template.URL("data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(out.Bytes())), nil
}

func (app *App) writeSheet(path string, page sheet) error {
	t, err := template.New("sheet").Parse(sheetHTML)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, page); err != nil {
		return err
	}
	if err := runlog.WriteFile(path, out.Bytes()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(app.Out, path)
	return err
}
