package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"blip2/pkg/answer"
	"blip2/pkg/device"
	"blip2/pkg/generate"
	"blip2/pkg/internal/measure"
	"blip2/pkg/runlog"
)

// generateOptions are the flags of generate.
type generateOptions struct {
	source    answer.Source
	hints     hintFlags
	dtype     string
	images    []string
	prompts   []string
	questions []string
	cut       int
	batch     int
	out       string
	format    string
	stream    bool
	chat      bool
	attention string
	layer     string
	search    searchFlags
	flags     *pflag.FlagSet // to see which were given
}

// searchFlags say how texts are searched for. What is not given is that of the preset.
type searchFlags struct {
	preset   string
	beams    int
	sample   bool
	temp     float64
	topK     int
	topP     float64
	repeat   float64
	length   float64
	minNew   int
	maxNew   int
	ngram    int
	returned int
	early    bool
	lenRule  string
}

// Formats of --out.
const (
	formatJSONL = "jsonl"
	formatCOCO  = "coco"
)

func newGenerateCmd(app *App) *cobra.Command {
	opts := &generateOptions{}
	cmd := &cobra.Command{
		Use:   "generate --model PATH --image PATH|URL|-",
		Short: "Caption pictures, answer questions about them, or chat",
		Long: `Writes texts about pictures with any BLIP-2: folders of Hugging Face, LAVIS's files (--vision and --llm name
what these lack), runs of this program; and with BLIP's captioner. A stage-1 model writes with its own LM head.

--image takes files, folders (their pictures by name), patterns, http(s) addresses and - for standard input, and may
be repeated. Every picture is encoded once, for all prompts. Without --prompt and --question, captions are
written. A picture that cannot be read is named; the others are answered, and the exit code is 1.

Defaults are those of LAVIS: 5 beams, 1 to 30 new tokens, length penalty 1 (stage 1: 3 beams, 9 to 29 tokens; BLIP: 3
beams, 6 to 26 tokens behind "a picture of"). --preset caption is that of models fine-tuned for captions (at least 8
tokens behind "a photo of"), --preset vqa that of zero-shot answers (at most 10 tokens, length penalty -1).

With --out, results go to a file, and the same command goes on where it stopped. With --chat, every line of standard
input is a question; earlier questions and answers stand in front of it. Lines that begin with / are commands: /image
PATH, /reset, /quit.`,
		Example: `  blip2 generate --model models/blip2-opt-2.7b --image cat.jpg
  blip2 generate --model models/blip2-flan-t5-xl --image cat.jpg --prompt "Question: what is on the mat? Short answer:"
  blip2 generate --model models/blip2-opt-2.7b --image photos/ --batch 8 --out captions.jsonl
  blip2 generate --model blip2_pretrained_opt2.7b.pth --vision eva_vit_g.pth --llm opt-2.7b --dtype bf16 --image a.jpg
  blip2 generate --model runs/stage1 --image a.jpg --sample --top-p 0.9 --num-return 5 --seed 1 --json
  blip2 generate --model models/blip2-flan-t5-xl --image a.jpg --chat --beams 1
  blip2 generate --model models/blip2-opt-2.7b --image a.jpg --show-attention attention.png`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.flags = cmd.Flags()
			return runGenerate(cmd.Context(), app, opts)
		},
	}
	opts.add(cmd)
	return cmd
}

func (o *generateOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.source.Model, "model", "", "`path` of the model: a folder, a file, or a run of this program")
	f.StringVar(&o.source.Vision, "vision", "", "`path` of the image encoder, where the model lacks it")
	f.StringVar(&o.source.LLM, "llm", "", "`path` of the language model, where the model lacks it: opt-*, flan-t5-*")
	f.StringVar(&o.source.Tokenizer, "tokenizer", "", "`path` of the tokenizer (default: beside the model or --llm)")
	f.IntVar(&o.source.VisionLayers, "vision-layers", 0, "blocks of --vision that are used (default: all but the last)")
	f.IntVar(&o.source.ImageSize, "image-size", 0, "pixels per side of the pictures; the position table is resized")
	o.hints.add(cmd)
	f.StringVar(&o.dtype, "dtype", "", "`type` of weights and activations: f32, bf16 or f16 (default: weights as in the\n"+
		"files, activations of the backend: f32 on processors, bf16 on GPUs)")
	f.StringArrayVar(&o.images, "image", nil, "`picture`, folder, pattern, address or -; repeat for several")
	f.StringArrayVar(&o.prompts, "prompt", nil, "`text` that the model continues; repeat for several")
	f.StringArrayVar(&o.questions, "question", nil, "`question`, put into the model's template; repeat for several")
	f.IntVar(&o.cut, "max-prompt-tokens", 0, "cut prompts on the right to so many tokens (0: refuse too long ones)")
	f.IntVar(&o.batch, "batch", 1, "pictures that are computed at once")
	f.StringVar(&o.out, "out", "", "`file` for the results; what it holds already is not computed again")
	f.StringVar(&o.format, "format", formatJSONL, "of --out: jsonl, or coco for a list of image_id and caption")
	f.BoolVar(&o.stream, "stream", false, "show one picture's text as it is written (default: on a terminal, with one\n"+
		"beam)")
	f.BoolVar(&o.chat, "chat", false, "answer the questions of standard input, one per line, about one picture")
	f.StringVar(&o.attention, "show-attention", "", "PNG `file` to draw what the queries look at into, for one picture")
	f.StringVar(&o.layer, "attention-layer", "last",
		"layer of the Q-Former for --show-attention: last, mean or its number")
	o.search.add(f)
	for name, values := range map[string][]string{"dtype": {"f32", "bf16", "f16"}, "format": {formatJSONL, formatCOCO},
		"preset": answer.Presets(), "len-rule": {string(generate.LenRuleCurrent), string(generate.LenRulePaper)}} {
		if err := cmd.RegisterFlagCompletionFunc(name,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag was defined just above
		}
	}
}

// Defaults of sampling: those of LAVIS, and of transformers' generate.
const (
	defaultTopK = 50
	defaultTopP = 0.9
)

func (s *searchFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.preset, "preset", "", "`name` of a way of writing: "+strings.Join(answer.Presets(), " or "))
	f.IntVar(&s.beams, "beams", 0, "texts that run side by side; 1 is greedy search (default 5; 1 with --sample)")
	f.BoolVar(&s.sample, "sample", false, "draw tokens instead of taking the most likely ones")
	f.Float64Var(&s.temp, "temperature", 1, "with --sample: divides scores; below 1 is less random")
	f.IntVar(&s.topK, "top-k", defaultTopK, "with --sample: only so many of the most likely tokens (0: all)")
	f.Float64Var(&s.topP, "top-p", defaultTopP, "with --sample: only the most likely tokens up to this probability")
	f.Float64Var(&s.repeat, "repetition-penalty", 1, "makes tokens that were written less likely, above 1")
	f.Float64Var(&s.length, "length-penalty", 1, "with beams: above 0 favours long texts, below 0 short ones")
	f.IntVar(&s.minNew, "min-new-tokens", 0, "least number of new tokens (default 1, or the preset's)")
	f.IntVar(&s.maxNew, "max-new-tokens", 0, "greatest number of new tokens (default 30, or the preset's)")
	f.IntVar(&s.ngram, "no-repeat-ngram", 0, "no sequence of so many tokens occurs twice (0: off)")
	f.IntVar(&s.returned, "num-return", 1, "texts per picture and prompt, the best first")
	f.BoolVar(&s.early, "early-stopping", false, "with beams: stop as soon as as many texts as beams have ended")
	f.StringVar(&s.lenRule, "len-rule", string(generate.LenRuleCurrent),
		"what the length penalty counts: current, or paper as transformers did when BLIP-2 was published")
}

// parse refuses what is wrong whatever the model is.
func (o *generateOptions) parse(json bool) (err error) {
	if o.source.DType, err = parseDType(o.dtype); err != nil {
		return err
	}
	if err := errors.Join(o.hints.check(), notNegative("--image-size", o.source.ImageSize),
		notNegative("--vision-layers", o.source.VisionLayers), notNegative("--max-prompt-tokens", o.cut)); err != nil {
		return err
	}
	o.source.Hints = o.hints.Hints
	several := len(o.prompts)+len(o.questions) > 1
	switch {
	case o.source.Model == "":
		return usagef("--model is missing: name a folder or file of BLIP-2")
	case len(o.images) == 0:
		return usagef("--image is missing: name a picture, a folder, an address, or - for standard input")
	case o.given("vision-layers") && o.source.Vision == "":
		return usagef("--vision-layers says how much of --vision is used: name that, too")
	case o.batch < 1:
		return usagef("--batch %d: give at least 1", o.batch)
	case o.format != formatJSONL && o.format != formatCOCO:
		return usagef("--format %q is unknown%s", o.format, suggest(o.format, []string{formatJSONL, formatCOCO}))
	case o.given("format") && o.out == "":
		return usagef("--format says how --out is written: name a file with it")
	case o.format == formatCOCO && (several || o.search.returned > 1):
		return usagef("--format coco has one caption per picture: give one --prompt at most and no --num-return")
	case o.given("attention-layer") && o.attention == "":
		return usagef("--attention-layer is for --show-attention: name its file")
	case o.stream && (o.out != "" || json):
		return usagef("--stream shows text as it is written: leave out --out and --json")
	case o.stream && (several || o.search.returned > 1):
		return usagef("--stream shows one text: give one --prompt at most and no --num-return")
	}
	if err := o.checkChat(); err != nil {
		return err
	}
	return o.search.check(o.given)
}

// given says whether a flag was on the command line.
func (o *generateOptions) given(flag string) bool { return o.flags.Changed(flag) }

// checkChat refuses what makes no sense in a chat.
func (o *generateOptions) checkChat() error {
	if !o.chat {
		return nil
	}
	for _, flag := range []string{"prompt", "question", "batch", "out", "num-return", "show-attention"} {
		if o.given(flag) {
			return usagef("--chat answers the questions of standard input about one picture: leave out --%s", flag)
		}
	}
	if slices.Contains(o.images, answer.Stdin) {
		return usagef("--chat reads questions from standard input, so the picture cannot come from there")
	}
	return nil
}

// check refuses combinations that have no effect or no meaning.
func (s searchFlags) check(given func(flag string) bool) error {
	if !s.sample {
		for _, flag := range []string{"temperature", "top-k", "top-p"} {
			if given(flag) {
				return usagef("--%s says how tokens are drawn: add --sample", flag)
			}
		}
	}
	switch {
	case given("beams") && s.beams < 1:
		return usagef("--beams %d: give at least 1", s.beams)
	case s.returned < 1:
		return usagef("--num-return %d: give at least 1", s.returned)
	case given("max-new-tokens") && s.maxNew < 1:
		return usagef("--max-new-tokens %d: give at least 1", s.maxNew)
	case s.minNew < 0:
		return usagef("--min-new-tokens %d: give 0 or more", s.minNew)
	case s.ngram < 0:
		return usagef("--no-repeat-ngram %d: give 0 or more", s.ngram)
	case !(s.repeat >= generate.LeastRepetitionPenalty && s.repeat <= generate.MostRepetitionPenalty):
		return usagef("--repetition-penalty %g: give a number from %g to %g; 1 is none", s.repeat,
			generate.LeastRepetitionPenalty, generate.MostRepetitionPenalty)
	case math.IsNaN(s.length) || math.IsInf(s.length, 0):
		return usagef("--length-penalty %g: give a number", s.length)
	case !(s.temp >= generate.LeastTemperature) || math.IsInf(s.temp, 0):
		return usagef("--temperature %g: give %g or more, or leave out --sample for the most likely tokens", s.temp,
			generate.LeastTemperature)
	case s.topK < 0:
		return usagef("--top-k %d: give 0 or more", s.topK)
	case !(s.topP > 0 && s.topP <= 1):
		return usagef("--top-p %g: give a number above 0 and at most 1", s.topP)
	case s.preset != "" && !slices.Contains(answer.Presets(), s.preset):
		return usagef("--preset %q is unknown%s", s.preset, suggest(s.preset, answer.Presets()))
	case s.lenRule != string(generate.LenRuleCurrent) && s.lenRule != string(generate.LenRulePaper):
		return usagef("--len-rule %q is unknown%s", s.lenRule,
			suggest(s.lenRule, []string{string(generate.LenRuleCurrent), string(generate.LenRulePaper)}))
	}
	return nil
}

// options are those of the preset with what was given on the command line.
func (s searchFlags) options(base generate.Options, given func(flag string) bool, seed *int64) (
	generate.Options, error) {
	o := base
	if s.sample {
		o.Beams = 1
		o.Sampling = &generate.Sampling{Temperature: s.temp, TopK: s.topK, TopP: s.topP}
		if seed != nil {
			o.Sampling.Seed = *seed
		}
	}
	if given("beams") {
		o.Beams = s.beams
	}
	if given("max-new-tokens") {
		o.MaxNewTokens = s.maxNew
		o.MinNewTokens = min(o.MinNewTokens, o.MaxNewTokens)
	}
	if given("min-new-tokens") {
		o.MinNewTokens = s.minNew
	}
	if given("repetition-penalty") {
		o.RepetitionPenalty = s.repeat
	}
	if given("length-penalty") {
		o.LengthPenalty = s.length
	}
	o.NoRepeatNGram, o.Return, o.EarlyStopping, o.LenRule = s.ngram, s.returned, s.early, generate.LenRule(s.lenRule)
	if o.MinNewTokens > o.MaxNewTokens {
		return o, usagef("--min-new-tokens %d is more than the %d that a text has at most", o.MinNewTokens, o.MaxNewTokens)
	}
	if o.Beams == 1 {
		for _, flag := range []string{"length-penalty", "early-stopping", "len-rule"} {
			if given(flag) {
				return o, usagef("--%s ranks the texts of several beams, and there is one: leave it out, or give --beams", flag)
			}
		}
	}
	if most := generate.MostLengthPenalty(o.MaxNewTokens); o.Beams > 1 && math.Abs(o.LengthPenalty) > most {
		return o, usagef("--length-penalty %g: scores of %d tokens would be beyond single precision; give a number from "+
			"%.3g to %.3g", o.LengthPenalty, o.MaxNewTokens, -most, most)
	}
	if err := o.Validate(); err != nil {
		return o, usagef("%w: change --num-return, --beams, --sample or --len-rule", err)
	}
	return o, nil
}

// generation is what one command works on.
type generation struct {
	*App
	*generateOptions
	inputs     answer.Inputs
	checkpoint *answer.Checkpoint
	preset     answer.Preset
	options    answer.Options
	asked      []string // prompts of every picture
	progress   *runlog.Progress
}

// runGenerate checks everything that can be checked before weights are read, and then works.
func runGenerate(ctx context.Context, app *App, o *generateOptions) error {
	if err := o.parse(app.Globals.JSON); err != nil {
		return err
	}
	inputs, err := answer.FindInputs(o.images, app.In)
	if err != nil {
		return err
	}
	if err := o.checkNumber(len(inputs.Names)); err != nil {
		return err
	}
	if err := errors.Join(checkTarget("--out", o.out), checkTarget("--show-attention", o.attention)); err != nil {
		return err
	}
	if err := o.fromRun(app); err != nil {
		return err
	}
	model, err := answer.Open(o.source)
	if err != nil {
		return err
	}
	defer model.Close() // read only: nothing can be lost
	g := &generation{App: app, generateOptions: o, inputs: inputs, checkpoint: model}
	if err := g.prepare(); err != nil {
		return err
	}
	if o.chat {
		return g.talk(ctx)
	}
	return g.write(ctx)
}

// checkNumber refuses several pictures where one is shown.
func (o *generateOptions) checkNumber(pictures int) error {
	switch {
	case pictures > 1 && o.chat:
		return usagef("--chat is about one picture, and there are %d; /image PATH takes another", pictures)
	case pictures > 1 && o.attention != "":
		return usagef("--show-attention is for one picture, and there are %d", pictures)
	case pictures > 1 && o.stream:
		return usagef("--stream is for one picture, and there are %d", pictures)
	}
	return nil
}

// checkTarget refuses a file that cannot be written because there is no such folder, or something else of its name.
func checkTarget(flag, path string) error {
	if path == "" {
		return nil
	}
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return usagef("%s %s: is a folder; name a file", flag, path)
	case err == nil && !info.Mode().IsRegular():
		return usagef("%s %s: is a device or a pipe; name a file", flag, path)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%s %s: %w; make its folder first", flag, path, err)
	}
	return nil
}

// fromRun takes what a run of this program knows of its checkpoint: the weights that it had frozen, sizes, and the
// vocabulary.
func (o *generateOptions) fromRun(app *App) error {
	run, err := findRun(app, o.source.Model)
	if err != nil {
		return err
	}
	o.source.Model = run.path
	run.source(&o.source)
	return nil
}

// prepare sets options and prompts and has the model check them.
func (g *generation) prepare() (err error) {
	if g.preset, err = g.checkpoint.Preset(g.search.preset); err != nil {
		return &UsageError{Err: err}
	}
	if (len(g.questions) > 0 || g.chat) && !g.checkpoint.Kind.Answers() {
		return usagef("%s: %s writes captions and answers no questions: give BLIP-2 with a language model", g.source.Model,
			g.checkpoint.Kind)
	}
	if g.options.Options, err = g.search.options(g.preset.Options, g.given, g.Globals.Seed); err != nil {
		return err
	}
	g.options.Cut = g.cut
	g.asked = slices.Clone(g.prompts)
	for _, q := range g.questions {
		g.asked = append(g.asked, g.preset.Ask(q))
	}
	if len(g.asked) == 0 {
		g.asked = []string{g.preset.Prompt}
	}
	if g.stream && g.options.Beams > 1 {
		return usagef("--stream with %d beams: texts are not certain before the end; add --beams 1 or --sample",
			g.options.Beams)
	}
	if g.attention != "" {
		layer, err := attentionLayer(g.layer)
		if err == nil {
			err = g.checkpoint.CheckAttention(layer)
		}
		if err != nil {
			return usagef("--show-attention: %w", err)
		}
	}
	if g.chat {
		return g.checkpoint.Check(g.options.Options, g.cut, g.preset.Ask("")) // what every question has in front of it
	}
	return g.checkpoint.Check(g.options.Options, g.cut, g.asked...)
}

// attentionLayer reads --attention-layer.
func attentionLayer(text string) (int, error) {
	switch text {
	case "last":
		return answer.LastLayer, nil
	case "mean":
		return answer.AllLayers, nil
	}
	var layer int
	if _, err := fmt.Sscanf(text, "%d", &layer); err != nil || fmt.Sprint(layer) != text || layer < 0 {
		return 0, fmt.Errorf("layer %q: want last, mean or the number of a layer", text)
	}
	return layer, nil
}

// open opens the backend and loads the model.
func (g *generation) open(ctx context.Context) (*device.Device, *answer.Model, error) {
	dev, err := openDevice(ctx, device.Options{Backend: g.Globals.Backend, DType: g.dtype, Logger: g.Log})
	if err != nil {
		return nil, nil, err
	}
	var model *answer.Model
	if err = g.checkMemory(dev); err == nil {
		model, err = g.checkpoint.Load(ctx, dev.Backend, dev.DTypes.Compute)
	}
	if err != nil {
		closeDevice(g.App, dev)
		return nil, nil, err
	}
	g.Log.Info("model loaded", "path", g.source.Model, "kind", string(g.checkpoint.Kind), "backend", dev.Name,
		"activations", dev.DTypes.Compute.String())
	return dev, model, nil
}

// checkMemory refuses so many and so long texts that the machine has no memory for them.
func (g *generation) checkMemory(dev *device.Device) error {
	pictures := min(g.batch, len(g.inputs.Names))
	need, left := g.checkpoint.LeastMemory(g.options.Options, pictures), float64(measure.AvailableMemory())
	if !onHost(dev) || left == 0 || need <= left {
		return nil
	}
	return fmt.Errorf("%s at once, %s each of up to %d tokens, need %s of memory beside the model, and the machine has "+
		"%s left: give smaller --batch, --beams, --num-return, --max-new-tokens or --image-size",
		countOf(pictures, "picture"), countOf(g.options.Width(), "text"), g.options.MaxNewTokens, gigabytes(uint64(need)),
		gigabytes(uint64(left)))
}

// streams says whether text is shown as it is written.
func (g *generation) streams() bool {
	if g.given("stream") {
		return g.stream
	}
	return g.options.Beams == 1 && g.options.Return == 1 && g.out == "" && !g.Globals.JSON && isTerminal(g.Out)
}

// exists says whether there is a file or folder.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
