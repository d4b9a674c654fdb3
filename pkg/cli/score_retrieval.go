package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/device"
	"blip2/pkg/retrieval"
	"blip2/pkg/retrieval/similarity"
	"blip2/pkg/weights"
)

type scoreRetrievalOptions struct {
	scores, features    string
	i2t, t2i            string
	imageName, textName string
	texts               string
}

func newScoreRetrievalCmd(app *App) *cobra.Command {
	var opts scoreRetrievalOptions
	cmd := &cobra.Command{
		Use:   "retrieval",
		Short: "Recall at 1, 5 and 10 of image and text retrieval",
		Long: `Ranks texts for every picture and pictures for every text, and prints how often a right one is among the
first 1, 5 and 10, from a file of scores or of features (safetensors or PyTorch).

--scores has one matrix for each direction, i2t [pictures, texts] and t2i [texts, pictures], or one of them for both.
--features has image_feats [pictures, queries, width] or [pictures, width] and text_feat [texts, width]; the score of a
pair is the greatest product over the queries, computed on the backend.

--texts says which texts belong to which picture: {"img2txt": [[0, 1], [2]]}, {"txt2img": [0, 0, 1]}, or the file of
captions that the scores were made from, in its order. Without it every picture has the same number of texts, one
picture's after the other's.`,
		Example: `  blip2 score retrieval --scores scores.safetensors --texts coco_karpathy_test.json
  blip2 score retrieval --features features.safetensors --texts captions.json --backend xla:cpu --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runScoreRetrieval(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.scores, "scores", "", "`file` of score matrices")
	flags.StringVar(&opts.features, "features", "", "`file` of features of pictures and texts")
	flags.StringVar(&opts.texts, "texts", "", "`file` that says which texts belong to which picture")
	flags.StringVar(&opts.i2t, "i2t", "", "name of the matrix [pictures, texts] (default: i2t, score_i2t or sims)")
	flags.StringVar(&opts.t2i, "t2i", "", "name of the matrix [texts, pictures] (default: t2i or score_t2i)")
	flags.StringVar(&opts.imageName, "image-feats", "image_feats", "name of the pictures' features")
	flags.StringVar(&opts.textName, "text-feats", "text_feat", "name of the texts' features")
	completeFiles(cmd, "texts")
	for _, flag := range []string{"scores", "features"} {
		if err := cmd.MarkFlagFilename(flag, "safetensors", "pth", "pt"); err != nil {
			panic(err) // the flag was defined just above
		}
	}
	return cmd
}

// retrievalReport is what the command prints.
type retrievalReport struct {
	Split   string             `json:"split,omitempty"`
	Images  int                `json:"images"`
	Texts   int                `json:"texts"`
	Metrics map[string]float64 `json:"metrics"` // LAVIS's names, percent
	Chance  map[string]float64 `json:"chance"`  // of a random ranking
	both    retrieval.Both
	chance  retrieval.Both
}

func runScoreRetrieval(ctx context.Context, app *App, opts scoreRetrievalOptions) error {
	if (opts.scores == "") == (opts.features == "") {
		return usagef("give one of --scores and --features")
	}
	i2t, t2i, err := opts.load(ctx, app)
	if err != nil {
		return err
	}
	mapping, err := opts.mapping(app, len(i2t), len(t2i))
	if err != nil {
		return err
	}
	warnScores(app, i2t, mapping)
	warnNaN(app, "texts", t2i)
	r := retrievalReport{Images: len(i2t), Texts: len(t2i), Split: retrievalSplit(len(i2t), len(t2i))}
	if r.Split == "" {
		app.Log.Warn("not the size of a published test split (COCO 5,000 pictures with 25,010 texts, Flickr30K 1,000 with "+
			"5,000): the recalls are not comparable with published ones", "pictures", r.Images, "texts", r.Texts)
	}
	if r.both, err = retrieval.Evaluate(i2t, t2i, mapping.Img2Txt); err != nil {
		return fmt.Errorf("%s: %w", opts.scores+opts.features, err)
	}
	own, err := retrieval.Invert(mapping.Img2Txt, len(t2i))
	if err != nil {
		return err
	}
	r.chance = retrieval.Both{ImageToText: retrieval.Chance(len(t2i), mapping.Img2Txt),
		TextToImage: retrieval.Chance(len(i2t), own)}
	r.Metrics, r.Chance = r.both.Metrics(), r.chance.Metrics()
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// retrievalSplit is the published test split of that size, "" if it is none.
func retrievalSplit(images, texts int) string {
	switch {
	case images == 5000 && texts == 25010:
		return "COCO test 5K"
	case images == 5000 && texts == 25000:
		return "COCO test 5K, five captions each"
	case images == 1000 && texts == 5000:
		return "Flickr30K test 1K"
	}
	return ""
}

// mapping reads which texts belong to which picture and compares it with the scores.
func (o scoreRetrievalOptions) mapping(app *App, images, texts int) (retrieval.Mapping, error) {
	if o.texts == "" {
		m, err := retrieval.Even(images, texts)
		if err != nil {
			return m, usagef("%v: say with --texts which texts belong to which picture", err)
		}
		app.Log.Warn("without --texts the texts are taken to be in the order of their pictures, the same number each",
			"texts per picture", texts/images)
		return m, nil
	}
	m, err := retrieval.ReadMapping(o.texts)
	if err != nil {
		return m, err
	}
	if len(m.Img2Txt) != images || m.Texts != texts {
		return m, fmt.Errorf("%s names %d pictures and %d texts, but the scores are of %d and %d: are the files of the "+
			"same split?", o.texts, len(m.Img2Txt), m.Texts, images, texts)
	}
	return m, nil
}

// load returns the scores of both directions.
func (o scoreRetrievalOptions) load(ctx context.Context, app *App) (i2t, t2i [][]float32, err error) {
	if o.features != "" {
		i2t, err = o.similarities(ctx, app)
		return i2t, retrieval.Transpose(i2t), err
	}
	f, err := weights.OpenAny(o.scores)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	i2t, err = scoreMatrix(f, o.i2t, "i2t", "score_i2t", "sims")
	if err == nil {
		t2i, err = scoreMatrix(f, o.t2i, "t2i", "score_t2i")
	}
	switch {
	case err != nil:
		return nil, nil, err
	case i2t == nil && t2i == nil:
		return nil, nil, fmt.Errorf("%s: there is no matrix i2t or t2i among its tensors (%s); name it with --i2t", o.scores,
			firstFew(f.Names()))
	case i2t == nil:
		i2t = retrieval.Transpose(t2i)
	case t2i == nil:
		t2i = retrieval.Transpose(i2t)
	}
	return i2t, t2i, nil
}

func firstFew(names []string) string {
	const few = 6
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:few], ", ") + ", ..."
}

// scoreMatrix reads the matrix of the given name, or of the first usual one that is there; nil if none is.
func scoreMatrix(f weights.Source, given string, usual ...string) ([][]float32, error) {
	name := given
	if name == "" {
		i := slices.IndexFunc(usual, f.Has)
		if i < 0 {
			return nil, nil
		}
		name = usual[i]
	}
	values, shape, err := floatTensor(f, name)
	if err != nil {
		return nil, err
	}
	if len(shape) != 2 || shape[0] < 1 || shape[1] < 1 {
		return nil, fmt.Errorf("%s: %s has the shape %v; a matrix of pictures and texts is needed", f.Path(), name, shape)
	}
	rows := make([][]float32, shape[0])
	for i := range rows {
		rows[i] = values[i*shape[1]:][:shape[1]]
	}
	return rows, nil
}

func floatTensor(f weights.Source, name string) ([]float32, []int, error) {
	t, err := f.Tensor(name)
	if err != nil {
		return nil, nil, err
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Path(), err)
	}
	return values, t.Shape, nil
}

// similarities computes the scores of the features on the backend.
func (o scoreRetrievalOptions) similarities(ctx context.Context, app *App) ([][]float32, error) {
	features, err := o.readFeatures()
	if err != nil {
		return nil, err
	}
	if worst := furthestLength(features); worst > 0.01 {
		app.Log.Warn("the features do not have length 1: the scores are not cosines", "worst difference", worst)
	}
	exact := false // TensorFloat-32 keeps 10 bits, which changes ranks
	d, err := device.Open(ctx, device.Options{Backend: app.Globals.Backend, DType: "f32", TF32: &exact, Logger: app.Log})
	if err != nil {
		return nil, err
	}
	scores, err := similarity.Compute(ctx, d.Backend, features)
	return scores, errors.Join(err, d.Close())
}

func (o scoreRetrievalOptions) readFeatures() (similarity.Features, error) {
	f, err := weights.OpenAny(o.features)
	if err != nil {
		return similarity.Features{}, err
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	images, imageShape, err := floatTensor(f, o.imageName)
	if err != nil {
		return similarity.Features{}, fmt.Errorf("%w; name the pictures' features with --image-feats", err)
	}
	texts, textShape, err := floatTensor(f, o.textName)
	if err != nil {
		return similarity.Features{}, fmt.Errorf("%w; name the texts' features with --text-feats", err)
	}
	features := similarity.Features{Images: images, Texts: texts, Query: 1}
	if len(imageShape) == 3 {
		features.Query = imageShape[1]
	}
	if len(textShape) == 2 {
		features.Width = textShape[1]
	}
	if len(imageShape) < 2 || len(imageShape) > 3 || len(textShape) != 2 ||
		imageShape[len(imageShape)-1] != features.Width || len(images) == 0 || len(texts) == 0 {
		return similarity.Features{}, fmt.Errorf("%s: %s has the shape %v and %s %v; needed are [pictures, queries, width] "+
			"or [pictures, width], and [texts, width]", o.features, o.imageName, imageShape, o.textName, textShape)
	}
	return features, nil
}

// furthestLength is how far the length of a feature is from 1 at most.
func furthestLength(f similarity.Features) float64 {
	worst := 0.0
	for _, values := range [][]float32{f.Images, f.Texts} {
		for ; len(values) >= f.Width; values = values[f.Width:] {
			sum := 0.0
			for _, v := range values[:f.Width] {
				sum += float64(v) * float64(v)
			}
			worst = max(worst, math.Abs(math.Sqrt(sum)-1))
		}
	}
	return worst
}

// warnScores says what may make the recalls wrong: scores that are not numbers, pictures without a text.
func warnScores(app *App, i2t [][]float32, m retrieval.Mapping) {
	warnNaN(app, "pictures", i2t)
	without := 0
	for _, own := range m.Img2Txt {
		if len(own) == 0 {
			without++
		}
	}
	if without > 0 {
		app.Log.Warn("pictures without a text count as missed", "pictures", without)
	}
}

func warnNaN(app *App, of string, scores [][]float32) {
	bad := 0
	for _, row := range scores {
		for _, v := range row {
			if v != v {
				bad++
			}
		}
	}
	if bad > 0 {
		app.Log.Warn("scores of "+of+" that are not numbers rank last", "scores", bad)
	}
}

// writeText prints the report as a table.
func (r retrievalReport) writeText(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "DIRECTION\tR@1\tR@5\tR@10\tMEAN\tQUERIES\tCANDIDATES\n")
	row := func(name string, s retrieval.Scores, queries, candidates int) {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%d\n", name, s.R1, s.R5, s.R10, s.Mean(), queries, candidates)
	}
	row("picture to text", r.both.ImageToText, r.Images, r.Texts)
	row("text to picture", r.both.TextToImage, r.Texts, r.Images)
	row("picture to text, by chance", r.chance.ImageToText, r.Images, r.Texts)
	row("text to picture, by chance", r.chance.TextToImage, r.Texts, r.Images)
	return w.Flush()
}
