package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"blip2/pkg/naming"
	"blip2/pkg/published"
)

// partsFlags are what convert and assemble have in common.
type partsFlags struct {
	published.Parts
	out       string
	dtype     string
	tokenizer string
	shard     float64 // GB
	to        string
	hints     hintFlags
	allow     allowFlags
}

func (f *partsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.out, "out", "", "`folder` to write; must not exist, or be empty")
	cmd.Flags().StringVar(&f.Vision, "vision", "",
		"`path` of the image encoder: its own file, openai/clip-vit-*, or a BLIP-2 with one")
	cmd.Flags().StringVar(&f.LLM, "llm", "",
		"`path` of the language model: facebook/opt-*, google/flan-t5-*, or a BLIP-2 folder with one")
	cmd.Flags().StringVar(&f.dtype, "dtype", "", dtypeUsage)
	cmd.Flags().IntVar(&f.VisionLayers, "vision-layers", 0, "blocks of --vision that are used (default: all but the last)")
	cmd.Flags().IntVar(&f.ImageSize, "image-size", 0, "pixels per side of the pictures; the position table is resized")
	cmd.Flags().StringVar(&f.tokenizer, "tokenizer", "",
		"`folder` whose tokenizer files go along (default: with --to hf those beside the weights)")
	cmd.Flags().Float64Var(&f.shard, "max-shard", 5, "largest file in `GB`")
	f.hints.add(cmd)
	f.allow.add(cmd)
	completeValues(cmd, "dtype", "f32", "bf16", "f16")
	completeValues(cmd, "allow", "missing", "unexpected")
}

// maxShard bounds --max-shard, in GB, far beyond any disk.
const maxShard = 1e6

// parse checks the flags and turns them into Parts.
func (f *partsFlags) parse() (err error) {
	if f.out == "" {
		return usagef("--out is missing: name the folder to write")
	}
	if f.DType, err = parseDType(f.dtype); err != nil {
		return err
	}
	if f.AllowMissing, f.AllowUnexpected, err = f.allow.parse(); err != nil {
		return err
	}
	if !(f.shard > 0 && f.shard <= maxShard) {
		return usagef("--max-shard %g: give the GB of a file, above 0", f.shard)
	}
	f.Hints = f.hints.Hints
	return errors.Join(f.hints.check(), atMost("--image-size", f.ImageSize, maxImageSize),
		atMost("--vision-layers", f.VisionLayers, maxLayers), atMost("--queries", f.Queries, maxQueries))
}

// Most pixels per side, blocks and query tokens: far more than any model has, and few enough for tables of them.
const (
	maxImageSize = 16384
	maxLayers    = 1024
	maxQueries   = 65536
)

// atMost refuses a number of a flag below 0 or above the most that makes sense; 0 stands for the default.
func atMost(flag string, n, most int) error {
	if n > most {
		return usagef("%s %d: give a number up to %d", flag, n, most)
	}
	return notNegative(flag, n)
}

// write assembles the parts and writes them.
func (f *partsFlags) write(ctx context.Context, app *App) error {
	if err := f.parse(); err != nil {
		return err
	}
	if err := f.fromRun(app); err != nil {
		return err
	}
	if f.VisionLayers != 0 && f.Vision == "" {
		return usagef("--vision-layers is for the image encoder of --vision, which is not given")
	}
	a, err := published.Assemble(f.Parts)
	if err != nil {
		return err
	}
	defer a.Close() // read only: nothing can be lost
	w, err := a.Write(ctx, published.Output{Dir: f.out, To: f.to, Tokenizer: f.tokenizer, MaxShard: int64(f.shard * 1e9)})
	if err != nil {
		return err
	}
	if f.to == naming.HuggingFace && !w.Tokenizer {
		app.Log.Warn("no tokenizer beside the weights: transformers will want one; give its folder with --tokenizer")
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, w)
	}
	return writeWritten(app.Out, w)
}

// fromRun takes what a run of this program knows of its checkpoint.
func (f *partsFlags) fromRun(app *App) error {
	for _, path := range []*string{&f.Main, &f.QFormer} {
		if *path == "" {
			continue
		}
		run, err := findRun(app, *path)
		if err != nil {
			return err
		}
		*path = run.path
		run.parts(&f.Parts)
	}
	return nil
}

func writeWritten(w io.Writer, r *published.Written) error {
	for _, cov := range r.Coverages {
		for _, line := range append([]string{cov.String()}, cov.Gaps()...) {
			fmt.Fprintln(w, visible(line))
		}
	}
	for _, line := range naming.NoteLines("dropped", r.Dropped) {
		fmt.Fprintln(w, line)
	}
	_, err := fmt.Fprintf(w, "wrote %s: %s, %s, %s: %s\n", r.Dir, r.Format, countOf(r.Tensors, "tensor"),
		byteSize(r.Bytes), strings.Join(r.Files, ", "))
	return err
}

func newWeightsConvertCmd(app *App) *cobra.Command {
	var opts partsFlags
	cmd := &cobra.Command{
		Use:   "convert --to hf|lavis --out DIR SOURCE",
		Short: "Write a checkpoint in the form of Hugging Face or LAVIS",
		Long: `Writes a checkpoint as a folder for transformers — safetensors, config.json and what else its classes
read — or under LAVIS's names as safetensors. Parts that the source lacks, because LAVIS does not store what was frozen,
are given with --vision and --llm; LAVIS's form may do without them. Of a run of this program, given by its folder or a
checkpoint in it, the configuration says the number of heads and where the image encoder is.

The folder appears when all of it is written; an empty one that is there, a mounted disk for example, is filled then.`,
		Example: `  blip2 weights convert --to lavis --out models/lavis models/blip2-opt-2.7b
  blip2 weights convert --to hf --out models/hf --vision eva_vit_g.pth --llm opt-2.7b blip2_pretrained_opt2.7b.pth
  blip2 weights convert --to hf --dtype bf16 --out models/bf16 models/blip2-opt-2.7b`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.to != naming.HuggingFace && opts.to != naming.LAVIS {
				return usagef("--to %q: want hf or lavis", opts.to)
			}
			opts.Main, opts.Partial = args[0], opts.to == naming.LAVIS
			return opts.write(cmd.Context(), app)
		},
	}
	opts.add(cmd)
	cmd.Flags().StringVar(&opts.to, "to", "", "`form` to write: hf or lavis")
	completeValues(cmd, "to", naming.HuggingFace, naming.LAVIS)
	return cmd
}

func newWeightsAssembleCmd(app *App) *cobra.Command {
	var opts partsFlags
	var stage int
	var bert, qformer string
	cmd := &cobra.Command{
		Use:   "assemble --stage 1|2 --out DIR",
		Short: "Put separate downloads together into one start point for stage 1 or 2",
		Long: `Stage 1: an image encoder and BERT, which becomes the Q-Former; query tokens, cross-attention and heads are
drawn from the seed. Stage 2: an image encoder, the Q-Former of a stage-1 or stage-2 checkpoint, and a language model;
the projection between them is drawn where the checkpoint has none. The result is written under LAVIS's names.`,
		Example: `  blip2 weights assemble --stage 1 --vision eva_vit_g.pth --bert bert-base-uncased --out models/stage1
  blip2 weights assemble --stage 2 --vision eva_vit_g.pth --qformer runs/stage1 --llm opt-2.7b --out models/stage2`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case stage == 1 && (opts.Vision == "" || bert == "" || qformer != "" || opts.LLM != ""):
				return usagef("--stage 1 takes --vision and --bert, and neither --qformer nor --llm")
			case stage == 2 && (opts.Vision == "" || qformer == "" || bert != "" || opts.LLM == ""):
				return usagef("--stage 2 takes --vision, --qformer and --llm, and not --bert")
			case stage == 2 && opts.Queries != 0:
				return usagef("--queries is for stage 1: the Q-Former of stage 2 has its own")
			case stage != 1 && stage != 2:
				return usagef("--stage %d: want 1 or 2", stage)
			}
			opts.QFormer, opts.to = bert+qformer, naming.LAVIS
			if app.Globals.Seed != nil {
				opts.Seed = *app.Globals.Seed
			}
			return opts.write(cmd.Context(), app)
		},
	}
	opts.add(cmd)
	cmd.Flags().IntVar(&stage, "stage", 0, "stage of training to start: 1 or 2")
	completeValues(cmd, "stage", "1", "2")
	cmd.Flags().StringVar(&bert, "bert", "", "`path` of bert-base-uncased")
	cmd.Flags().StringVar(&qformer, "qformer", "", "`path` of a checkpoint of BLIP-2 whose Q-Former is taken")
	cmd.Flags().IntVar(&opts.Queries, "queries", 0, "query tokens of a new Q-Former (default 32)")
	return cmd
}
