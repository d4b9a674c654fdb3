package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"blip2/pkg/tokenizer"
)

type tokenizeOptions struct {
	model     string
	jsonl     bool
	decode    bool
	noSpecial bool
	literal   bool
	maxLength int
	cutSide   string
	padTo     int
	padSide   string
}

// Sides of a text, as flags name them.
const (
	sideLeft  = "left"
	sideRight = "right"
)

func newTokenizeCmd(app *App) *cobra.Command {
	var opts tokenizeOptions
	cmd := &cobra.Command{
		Use:   "tokenize --model DIR TEXT...",
		Short: "Show the token ids of texts, or the text of ids",
		Long: `Shows the pieces and ids that a model's tokenizer makes of every text, the same as Hugging Face's fast
tokenizers. DIR is a model's folder, or one of its tokenizer files: tokenizer.json, BERT's vocab.txt, vocab.json with
merges.txt beside it (OPT, GPT-2, CLIP), T5's spiece.model or OpenAI's bpe_simple_vocab_16e6.txt.gz (CLIP). Of a run of
this program, the tokenizer that its configuration names is taken.

With --jsonl, texts come from stdin, one {"text": "..."} per line, and a line {"ids": [...], "tokens": [...]} answers
each. With --decode it is the other way round: the arguments are one row of ids, the lines are {"ids": [...]}.`,
		Example: `  blip2 tokenize --model models/blip2-opt-2.7b "a photo of a cat"
  blip2 tokenize --model bert-base-uncased/vocab.txt --max-length 32 --pad-to 32 "two dogs" --json
  blip2 tokenize --model models/blip2-flan-t5-xl --jsonl < captions.jsonl > ids.jsonl
  blip2 tokenize --model models/blip2-opt-2.7b --decode --no-special 2 102 1345 9`,
		RunE: func(cmd *cobra.Command, args []string) error { return runTokenize(cmd.Context(), app, opts, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.model, "model", "", "`folder` of the model, or a tokenizer file")
	flags.BoolVar(&opts.jsonl, "jsonl", false, "read lines of JSON from stdin and answer with lines of JSON")
	flags.BoolVar(&opts.decode, "decode", false, "turn ids into text")
	flags.BoolVar(&opts.noSpecial, "no-special", false,
		"without the tokens that the model puts around a text; with --decode, without special tokens")
	flags.BoolVar(&opts.literal, "literal", false, "names of special tokens in the text, such as </s>, are plain text")
	flags.IntVar(&opts.maxLength, "max-length", 0, "cut texts to this many ids, special tokens included (0: do not)")
	flags.StringVar(&opts.cutSide, "truncation-side", sideRight, "where to cut: left or right")
	flags.IntVar(&opts.padTo, "pad-to", 0, "pad to this many ids, and show the mask (0: do not)")
	flags.StringVar(&opts.padSide, "padding-side", sideRight, "where to pad: left or right")
	for _, name := range []string{"truncation-side", "padding-side"} {
		sides := cobra.FixedCompletions([]string{sideLeft, sideRight}, cobra.ShellCompDirectiveNoFileComp)
		if err := cmd.RegisterFlagCompletionFunc(name, sides); err != nil {
			panic(err) // the flag was defined just above
		}
	}
	return cmd
}

// tokenized is the answer to a text.
type tokenized struct {
	Text   *string  `json:"text,omitempty"` // left out where the question had it
	IDs    []int32  `json:"ids"`
	Tokens []string `json:"tokens"`
	Mask   []int32  `json:"mask,omitempty"` // with --pad-to
}

// decoded is the answer to ids.
type decoded struct {
	Text string `json:"text"`
}

// runTokenize answers the texts of the arguments, or the lines of stdin.
func runTokenize(ctx context.Context, app *App, opts tokenizeOptions, args []string) error {
	if err := opts.validate(args); err != nil {
		return err
	}
	row, err := opts.row(args)
	if err != nil {
		return err
	}
	run, err := findRun(app, opts.model)
	if err != nil {
		return err
	}
	if run.cfg != nil && run.cfg.tokenizer != "" {
		opts.model = run.cfg.tokenizer
	}
	tok, err := tokenizer.Load(opts.model)
	if err != nil {
		return err
	}
	if opts.padTo > 0 && tok.Special().Pad < 0 {
		return fmt.Errorf("the tokenizer %s has no padding token; leave --pad-to out", opts.model)
	}
	switch {
	case opts.jsonl:
		return opts.lines(ctx, app, tok)
	case opts.decode:
		text := tok.Decode(row, opts.noSpecial)
		if app.Globals.JSON {
			return plainJSON(app.Out).Encode(decoded{text})
		}
		_, err := fmt.Fprintln(app.Out, text)
		return err
	}
	var answers []tokenized
	for i := range args {
		answer, err := opts.encode(tok, args[i])
		if err != nil {
			return err
		}
		answer.Text = &args[i]
		answers = append(answers, answer)
	}
	if app.Globals.JSON {
		return plainJSON(app.Out).Encode(map[string][]tokenized{"texts": answers})
	}
	return writeTokens(app.Out, answers)
}

// plainJSON writes </s> as it is, not as \u003c/s\u003e.
func plainJSON(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// validate refuses what can be seen to be wrong before anything is read.
func (o tokenizeOptions) validate(args []string) error {
	for _, side := range []struct{ flag, value string }{
		{"--truncation-side", o.cutSide}, {"--padding-side", o.padSide},
	} {
		if side.value != sideLeft && side.value != sideRight {
			return usagef("%s %q is neither left nor right", side.flag, side.value)
		}
	}
	switch {
	case o.model == "":
		return usagef("tokenize needs a model: blip2 tokenize --model DIR TEXT...")
	case o.maxLength < 0 || o.padTo < 0:
		return usagef("--max-length and --pad-to are numbers from 0")
	case o.padTo > maxPadding:
		return usagef("--pad-to %d is more than %d", o.padTo, maxPadding)
	case o.padTo > 0 && (o.maxLength == 0 || o.maxLength > o.padTo):
		return usagef("--pad-to %d needs a --max-length that is not larger: all rows shall have that length", o.padTo)
	case o.decode && (o.literal || o.maxLength > 0 || o.padTo > 0):
		return usagef("--literal, --max-length and --pad-to are for texts, not for ids that --decode turns into text")
	case o.jsonl && len(args) > 0:
		return usagef("with --jsonl, texts come from stdin, not from %d arguments", len(args))
	case !o.jsonl && len(args) == 0:
		return usagef("tokenize needs texts: blip2 tokenize --model DIR TEXT..., or --jsonl to read them from stdin")
	}
	return nil
}

// maxPadding bounds --pad-to: no model reads longer rows.
const maxPadding = 1 << 20

// row reads the ids that are to be decoded, with spaces or commas between them.
func (o tokenizeOptions) row(args []string) ([]int32, error) {
	if !o.decode || o.jsonl {
		return nil, nil
	}
	var ids []int32
	for _, arg := range args {
		for _, text := range strings.FieldsFunc(arg, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
			id, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return nil, usagef("%q is not a token id", text)
			}
			ids = append(ids, int32(id))
		}
	}
	return ids, nil
}

// encode answers one text.
func (o tokenizeOptions) encode(tok tokenizer.Tokenizer, text string) (tokenized, error) {
	ids := tok.Encode(text, tokenizer.EncodeOptions{NoSpecial: o.noSpecial, Literal: o.literal, MaxLength: o.maxLength,
		CutLeft: o.cutSide == sideLeft})
	answer := tokenized{IDs: ids, Tokens: []string{}}
	if o.padTo > 0 {
		side := tokenizer.Right
		if o.padSide == sideLeft {
			side = tokenizer.Left
		}
		answer.IDs, answer.Mask, _ = tokenizer.Pad([][]int32{ids}, o.padTo, tok.Special().Pad, side)
	}
	for _, id := range answer.IDs {
		piece, ok := tok.Piece(id)
		if !ok {
			return tokenized{}, fmt.Errorf("the tokenizer %s gives the id %d, for which it has no piece", o.model, id)
		}
		answer.Tokens = append(answer.Tokens, piece)
	}
	return answer, nil
}

// writeTokens prints one table per text.
func writeTokens(w io.Writer, answers []tokenized) error {
	var b strings.Builder
	for i, answer := range answers {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", strconv.Quote(*answer.Text))
		for j, id := range answer.IDs {
			fmt.Fprintf(&b, "%8d  %s", id, printable(answer.Tokens[j]))
			if answer.Mask != nil && answer.Mask[j] == 0 {
				b.WriteString("  (padding)")
			}
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable is a piece as it is, or quoted if a terminal would not show it.
func printable(piece string) string {
	for _, r := range piece {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return strconv.Quote(piece)
		}
	}
	return piece
}

// maxTextLine bounds the length in bytes of a line of --jsonl.
const maxTextLine = 64 << 20

// lines answers every line of stdin with one line, as soon as no further line is waiting.
func (o tokenizeOptions) lines(ctx context.Context, app *App, tok tokenizer.Tokenizer) error {
	in, out := bufio.NewReaderSize(app.In, 1<<16), bufio.NewWriterSize(app.Out, 1<<16)
	err := o.answerLines(ctx, in, out, tok)
	return errors.Join(err, out.Flush())
}

func (o tokenizeOptions) answerLines(ctx context.Context, in *bufio.Reader, out *bufio.Writer,
	tok tokenizer.Tokenizer) error {
	encoder := plainJSON(out)
	var line []byte
	for number := 1; ; number++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		var err error
		if line, err = readLine(in, line[:0]); err == io.EOF {
			return nil
		}
		if number == 1 { // some programs write a byte order mark in front
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		var answer any
		if err == nil {
			answer, err = o.answerLine(tok, line)
		}
		if err != nil {
			return fmt.Errorf("line %d of stdin: %w", number, err)
		}
		if err := encoder.Encode(answer); err != nil {
			return err
		}
	}
}

// readLine appends the next line, without its end, to room; io.EOF says that there is none.
func readLine(in *bufio.Reader, room []byte) ([]byte, error) {
	for {
		part, err := in.ReadSlice('\n')
		room = append(room, part...)
		switch {
		case len(room) > maxTextLine:
			return room, fmt.Errorf("it is longer than %d bytes", maxTextLine)
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(room) > 0:
			return room, nil
		}
		return room, err
	}
}

// answerLine gives the decoded or tokenized of a line.
func (o tokenizeOptions) answerLine(tok tokenizer.Tokenizer, line []byte) (any, error) {
	var question struct {
		Text *string `json:"text"`
		IDs  []int32 `json:"ids"`
	}
	if !utf8.Valid(line) {
		return nil, errors.New("it is not UTF-8: its text would get other tokens")
	}
	if err := json.Unmarshal(line, &question); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) { // whose message speaks of Go
			return nil, fmt.Errorf("want an object such as %s, found a value of the kind %s", o.form(), kind.Value)
		}
		return nil, fmt.Errorf("not an object of JSON such as %s: %w", o.form(), err)
	}
	switch {
	case o.decode && question.IDs != nil:
		return decoded{tok.Decode(question.IDs, o.noSpecial)}, nil
	case !o.decode && question.Text != nil:
		return o.encode(tok, *question.Text)
	}
	return nil, fmt.Errorf("want an object such as %s", o.form())
}

// form is an example of a line.
func (o tokenizeOptions) form() string {
	if o.decode {
		return `{"ids": [2, 102]}`
	}
	return `{"text": "a cat"}`
}
