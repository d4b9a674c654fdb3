package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/weights"
)

func newWeightsCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "weights",
		Short: "Look into, convert, compare and assemble checkpoints",
		Long: `Reads what is published: folders of Hugging Face (safetensors or PyTorch, in one file or in shards),
checkpoints of LAVIS, encoder files, and runs and checkpoints of this program. PyTorch files are read without executing
anything in them.

Known networks are BLIP-2 (stage 1, with OPT, with T5), OPT, Flan-T5, CLIP, BLIP's captioner, BERT, and the image
encoders EVA ViT-g and CLIP ViT-L. A tensor is used, ignored for a stated reason, or an error.`,
		Example: `  blip2 weights inspect models/blip2_pretrained.pth
  blip2 weights assemble --stage 1 --vision eva_vit_g.pth --bert bert-base-uncased --out models/stage1
  blip2 weights convert --to hf --out models/hf runs/stage1
  blip2 weights check models/hf models/original`,
	}
	cmd.AddCommand(newWeightsInspectCmd(app), newWeightsConvertCmd(app), newWeightsCheckCmd(app),
		newWeightsAssembleCmd(app))
	return cmd
}

// hintFlags are the numbers of heads that no shape tells.
type hintFlags struct{ published.Hints }

func (f *hintFlags) add(cmd *cobra.Command) {
	const known = " (default: that of the published network of the same width)"
	cmd.Flags().IntVar(&f.VisionHeads, "vision-heads", 0, "attention heads of the image encoder"+known)
	cmd.Flags().IntVar(&f.QFormerHeads, "qformer-heads", 0, "attention heads of the Q-Former or text decoder"+known)
	cmd.Flags().IntVar(&f.LLMHeads, "llm-heads", 0, "attention heads of OPT"+known)
}

// check refuses numbers below 0.
func (f *hintFlags) check() error {
	return errors.Join(notNegative("--vision-heads", f.VisionHeads), notNegative("--qformer-heads", f.QFormerHeads),
		notNegative("--llm-heads", f.LLMHeads))
}

// notNegative refuses a number of a flag below 0; 0 stands for the default.
func notNegative(flag string, n int) error {
	if n < 0 {
		return usagef("%s %d: give a number above 0", flag, n)
	}
	return nil
}

// allowFlags let loading go on where tensors are missing or not known.
type allowFlags struct{ names []string }

func (f *allowFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.names, "allow", nil,
		"go on where tensors are `missing` or unexpected (or both, separated by a comma); they are still reported")
}

func (f *allowFlags) parse() (missing, unexpected bool, err error) {
	for _, name := range f.names {
		switch name {
		case "missing":
			missing = true
		case "unexpected":
			unexpected = true
		default:
			return false, false, usagef("--allow %q: want missing or unexpected", name)
		}
	}
	return missing, unexpected, nil
}

// parseDType reads --dtype; empty keeps the files' types.
func parseDType(name string) (weights.DType, error) {
	types := map[string]weights.DType{"": "", "f32": weights.F32, "bf16": weights.BF16, "f16": weights.F16}
	dtype, ok := types[name]
	if !ok {
		return "", usagef("--dtype %q is unknown; want one of f32, bf16, f16", name)
	}
	return dtype, nil
}

const dtypeUsage = "`type` of all numbers: f32, bf16 or f16 (default: those of the files)"

func newWeightsInspectCmd(app *App) *cobra.Command {
	var opts inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect FILE|DIR",
		Short: "Show what a checkpoint holds: network, sizes, tensors",
		Example: `  blip2 weights inspect models/eva_vit_g.pth
  blip2 weights inspect --tensors models/blip2-opt-2.7b
  blip2 weights inspect --json models/blip2-opt-2.7b | jq '.tensors[].name'`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := opts.hints.check(); err != nil {
				return err
			}
			opts.path = args[0]
			return runWeightsInspect(app, opts)
		},
	}
	opts.hints.add(cmd)
	cmd.Flags().BoolVar(&opts.tensors, "tensors", false, "list every tensor with its shape, type and bytes")
	return cmd
}

type inspectOptions struct {
	path    string
	tensors bool
	hints   hintFlags
}

// inspectReport is what weights inspect prints.
type inspectReport struct {
	Path       string                `json:"path"`
	Container  string                `json:"container"`
	Files      []weights.FileSize    `json:"files"`
	Format     string                `json:"format"` // empty if it is of no network that is known
	Model      string                `json:"model"`
	Publisher  string                `json:"publisher"`
	Spec       *published.Spec       `json:"spec,omitempty"`
	SizesFrom  string                `json:"sizes_from,omitempty"`
	Problem    string                `json:"problem,omitempty"` // why it is not a complete checkpoint of that network
	Parameters int64                 `json:"parameters"`        // elements of all tensors
	Types      []published.TypeCount `json:"types"`
	Coverage   *naming.Coverage      `json:"coverage,omitempty"`
	Extras     map[string]string     `json:"extras,omitempty"` // what stands beside the tensors
	Tensors    []tensorInfo          `json:"tensors"`
}

type tensorInfo struct {
	Name  string        `json:"name"`
	DType weights.DType `json:"dtype"`
	Shape []int         `json:"shape"`
	Bytes int           `json:"bytes"`
}

func runWeightsInspect(app *App, opts inspectOptions) error {
	run, err := findRun(app, opts.path)
	if err != nil {
		return err
	}
	run.hints(&opts.hints.Hints)
	src, err := weights.OpenAny(run.path)
	if err != nil {
		return err
	}
	defer src.Close() // read only: nothing can be lost
	report, err := inspect(src, opts.hints.Hints)
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	return report.writeText(app.Out, opts.tensors)
}

// inspect describes a checkpoint; one of an unknown network is described too.
func inspect(src weights.Source, h published.Hints) (*inspectReport, error) {
	r := &inspectReport{Path: src.Path(), Container: src.Container(), Files: src.Files(), Extras: extras(src)}
	for _, name := range src.Names() {
		t, err := src.Info(name)
		if err != nil {
			return nil, err
		}
		r.Tensors = append(r.Tensors, tensorInfo{name, t.DType, t.Shape,
			model.Param{Shape: t.Shape}.Size() * t.DType.Size()})
	}
	var err error
	if r.Types, err = published.CountTypes(src); err != nil {
		return nil, err
	}
	for _, t := range r.Types {
		r.Parameters += t.Elements
	}
	c, err := published.Identify(src, h)
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.Format, r.Model, r.Publisher, r.Spec, r.SizesFrom = c.Table.Name, c.Model, c.Publisher, &c.Spec, c.SpecFrom
	plan, err := c.Plan(false, false)
	r.Coverage = plan.Coverage()
	if err != nil {
		r.Problem = err.Error()
	}
	return r, nil
}

// extras describes what a PyTorch file holds beside the tensors.
func extras(src weights.Source) map[string]string {
	t, ok := src.(*weights.Torch)
	if !ok {
		return nil
	}
	root, ok := t.Value().(*weights.Dict)
	if !ok || t.StateKey() == "" {
		return nil
	}
	out := map[string]string{}
	for key, value := range root.All() {
		name := fmt.Sprint(key)
		switch v := value.(type) {
		case *weights.Dict:
			out[name] = fmt.Sprintf("%d entries", v.Len())
		case []any:
			out[name] = fmt.Sprintf("a list of %d", len(v))
		default:
			out[name] = clipText(fmt.Sprint(v))
		}
		if name == t.StateKey() {
			out[name] += ", the tensors"
		}
	}
	return out
}

// clipText cuts a text that is too long for a line.
func clipText(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (r *inspectReport) writeText(w io.Writer, tensors bool) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("path", "%s", r.Path)
	size := int64(0)
	for _, f := range r.Files {
		size += f.Size
	}
	row("container", "%s, %s", r.Container, byteSize(size))
	row("in the file", "%s, %s numbers", countOf(len(r.Tensors), "tensor"), thousands(r.Parameters))
	for _, t := range r.Types {
		row("  "+string(t.DType), "%s, %s", countOf(t.Tensors, "tensor"), byteSize(t.Bytes))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Extras)) {
		row("  "+key, "%s", r.Extras[key])
	}
	if r.Format == "" {
		row("network", "not known: %s", r.Problem)
	} else {
		row("network", "%s (%s)", r.Format, r.Model)
		for _, line := range r.Spec.Describe() {
			name, value, _ := strings.Cut(line, ": ")
			row("  "+name, "%s", value)
		}
		row("  sizes from", "%s", r.SizesFrom)
		row("  filled", "%s, %s parameters", countOf(len(r.Coverage.Filled), "tensor"),
			thousands(parametersOf(r.Spec, r.Coverage.Filled)))
		if missing := r.Spec.Missing(); len(missing) > 0 {
			row("  not in it", "%s", strings.Join(missing, ", "))
		}
		if r.Problem != "" {
			row("problem", "%s", r.Problem)
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if r.Coverage != nil {
		for _, line := range r.Coverage.Lines()[1:] {
			fmt.Fprintln(w, line)
		}
	}
	if !tensors {
		return nil
	}
	fmt.Fprintln(tab, "\nTENSOR\tTYPE\tSHAPE\tBYTES")
	for _, t := range r.Tensors {
		fmt.Fprintf(tab, "%s\t%s\t%v\t%d\n", t.Name, t.DType, t.Shape, t.Bytes)
	}
	return tab.Flush()
}

// countOf writes a number of things.
func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// byteSize writes a size in bytes, kB, MB or GB (powers of 1000).
func byteSize(n int64) string {
	size, unit := float64(n), "bytes"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, u
	}
	if unit == "bytes" {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.3g %s", size, unit)
}

// parametersOf counts the elements of the named tensors of a network.
func parametersOf(s *published.Spec, names []string) int64 {
	n := int64(0)
	for _, p := range s.Params() {
		if _, ok := slices.BinarySearch(names, p.Name); ok {
			n += int64(p.Size())
		}
	}
	return n
}

func newWeightsCheckCmd(app *App) *cobra.Command {
	var opts weightsCheckOptions
	cmd := &cobra.Command{
		Use:   "check A B",
		Short: "Compare two checkpoints, whatever their names, containers and types",
		Long: `Says whether two checkpoints are the same network with the same numbers, and the largest difference of each
tensor. The exit code is 1 if they are not the same model, or if a difference is above --tolerance.`,
		Example: `  blip2 weights check models/blip2-opt-2.7b models/converted
  blip2 weights check --tolerance 1e-2 models/f32 models/bf16`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(opts.tolerance >= 0) {
				return usagef("--tolerance %g: give a number of 0 or more", opts.tolerance)
			}
			opts.a, opts.b = args[0], args[1]
			return runWeightsCheck(cmd.Context(), app, opts)
		},
	}
	cmd.Flags().Float64Var(&opts.tolerance, "tolerance", 0, "largest difference that counts as the same")
	cmd.Flags().BoolVar(&opts.all, "all", false, "list every tensor, not only those that differ")
	return cmd
}

type weightsCheckOptions struct {
	a, b      string
	tolerance float64
	all       bool
}

func runWeightsCheck(ctx context.Context, app *App, opts weightsCheckOptions) error {
	var sides [2]*published.Checkpoint
	for i, path := range []string{opts.a, opts.b} {
		run, err := findRun(app, path)
		if err != nil {
			return err
		}
		if sides[i], err = published.Open(run.path, published.Hints{}); err != nil {
			return err
		}
		defer sides[i].Close() // read only: nothing can be lost
	}
	a, b := sides[0], sides[1]
	c, err := published.Compare(ctx, a, b)
	if err != nil {
		return err
	}
	same := c.Same(opts.tolerance)
	if app.Globals.JSON {
		err = writeJSON(app.Out, struct {
			Same bool `json:"same"`
			*published.Comparison
		}{same, c})
	} else {
		err = writeComparison(app.Out, c, same, opts.all)
	}
	if err == nil && !same {
		err = fmt.Errorf("%s and %s are not the same", opts.a, opts.b)
	}
	return err
}

// shownDifferences is how many tensors are listed without --all.
const shownDifferences = 20

func writeComparison(w io.Writer, c *published.Comparison, same, all bool) error {
	fmt.Fprintf(w, "A: %s (%s)\nB: %s (%s)\n", c.FormatA, c.ModelA, c.FormatB, c.ModelB)
	for _, line := range append(naming.NoteLines("only in A:", c.OnlyA), naming.NoteLines("only in B:", c.OnlyB)...) {
		fmt.Fprintln(w, line)
	}
	equal, bits, shown, more := 0, 0, 0, 0
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range c.Tensors {
		same := d.MaxAbs == 0 && d.Reason == ""
		if same {
			equal++
		}
		if d.Bits {
			bits++
		}
		if !all && (same || shown == shownDifferences) {
			if !same {
				more++
			}
			continue
		}
		if shown++; shown == 1 {
			fmt.Fprintln(tab, "LARGEST DIFFERENCE\tTYPES\tSHAPE\tTENSOR")
		}
		what := fmt.Sprintf("%.3g", d.MaxAbs)
		if d.Reason != "" {
			what = d.Reason
		}
		fmt.Fprintf(tab, "%s\t%s %s\t%v\t%s\n", what, d.A, d.B, d.Shape, d.Name)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(w, "and %d more that differ (all with --all or --json)\n", more)
	}
	verdict := "the same model"
	if !same {
		verdict = "NOT the same model"
	}
	_, err := fmt.Fprintf(w,
		"%s: of %d tensors in both %d have equal numbers, %d of them bit for bit; %d only in A, %d only in B; "+
			"largest difference %.3g\n", verdict, len(c.Tensors), equal, bits, len(c.OnlyA), len(c.OnlyB), c.MaxAbs)
	return err
}

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
		"`folder` whose tokenizer files go along (default: those beside the weights)")
	cmd.Flags().Float64Var(&f.shard, "max-shard", 5, "largest file in `GB`")
	f.hints.add(cmd)
	f.allow.add(cmd)
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
	return errors.Join(f.hints.check(), notNegative("--image-size", f.ImageSize),
		notNegative("--vision-layers", f.VisionLayers), notNegative("--queries", f.Queries))
}

// write assembles the parts and writes them.
func (f *partsFlags) write(ctx context.Context, app *App) error {
	if err := f.parse(); err != nil {
		return err
	}
	if err := f.fromRun(app); err != nil {
		return err
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
			fmt.Fprintln(w, line)
		}
	}
	for _, line := range naming.NoteLines("dropped", r.Dropped) {
		fmt.Fprintln(w, line)
	}
	_, err := fmt.Fprintf(w, "wrote %s: %s, %s, %s: %s\n", r.Dir, r.Format, countOf(r.Tensors, "tensor"),
		byteSize(r.Bytes),
		strings.Join(r.Files, ", "))
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

The folder appears when all of it is written.`,
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
	cmd.Flags().StringVar(&bert, "bert", "", "`path` of bert-base-uncased")
	cmd.Flags().StringVar(&qformer, "qformer", "", "`path` of a checkpoint of BLIP-2 whose Q-Former is taken")
	cmd.Flags().IntVar(&opts.Queries, "queries", 0, "query tokens of a new Q-Former (default 32)")
	return cmd
}
