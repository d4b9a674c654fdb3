package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"blip2/pkg/answer"
)

// chat is a conversation about a picture.
type chat struct {
	*generation
	model   *answer.Model
	name    string // of the picture
	picture answer.Picture
	said    answer.Conversation
	asked   int64
}

// chatAnswer is a line of a chat with --json.
type chatAnswer struct {
	Image    string        `json:"image"`
	Question string        `json:"question"`
	Prompt   string        `json:"prompt"`
	Text     string        `json:"text"`
	Texts    []answer.Text `json:"texts"`
}

// talk answers the lines of stdin.
func (g *generation) talk(ctx context.Context) error {
	name := g.inputs.Names[0]
	pixels, err := g.pixels(ctx, name)
	if err != nil {
		return err
	}
	dev, model, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer closeDevice(g.App, dev)
	defer model.Close()
	c := &chat{generation: g, model: model}
	if err := c.show(ctx, name, pixels); err != nil {
		return err
	}
	in := bufio.NewReader(g.In)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if isTerminal(g.Err) && !g.Globals.Quiet {
			fmt.Fprint(g.Err, "> ")
		}
		line, err := readLine(in, nil)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a question: %w", err)
		}
		question := strings.TrimSpace(string(line))
		switch {
		case question == "":
		case question == "/quit":
			return nil
		case strings.HasPrefix(question, "/"):
			err = c.command(ctx, question)
		default:
			err = c.answer(ctx, question)
		}
		if err != nil {
			return err
		}
	}
}

// pixels reads a picture.
func (g *generation) pixels(ctx context.Context, name string) ([]float32, error) {
	img, err := g.inputs.Decode(ctx, name)
	if err != nil {
		return nil, err
	}
	return g.checkpoint.Pixels(img)
}

// show makes a picture the one that is talked about.
func (c *chat) show(ctx context.Context, name string, pixels []float32) error {
	pictures, err := c.model.Encode(ctx, pixels)
	if err != nil {
		return err
	}
	c.name, c.picture = name, pictures[0]
	c.said.Reset()
	return nil
}

// command obeys a line that begins with /. A picture that cannot be read leaves the one before.
func (c *chat) command(ctx context.Context, line string) error {
	verb, argument, _ := strings.Cut(line, " ")
	switch argument = strings.TrimSpace(argument); {
	case verb == "/reset" && argument == "":
		c.said.Reset()
		return nil
	case verb == "/image" && argument != "" && argument != answer.Stdin:
		pixels, err := c.pixels(ctx, argument)
		if err != nil {
			c.Log.Warn("the picture stays the one before", "reason", err)
			return ctx.Err()
		}
		return c.show(ctx, argument, pixels)
	}
	c.Log.Warn("unknown command; want /image PATH, /reset or /quit", "line", line)
	return nil
}

// answer answers a question with all that was said in front of it. Where that is more than the model reads, or than
// --max-prompt-tokens, the oldest questions are forgotten.
func (c *chat) answer(ctx context.Context, question string) error {
	var prompt string
	for {
		prompt = c.said.Prompt(c.preset, question)
		err := c.model.Check(c.options.Options, c.cut, prompt)
		if err == nil && (c.said.Turns() == 0 || c.model.Whole(prompt, c.cut)) {
			break
		}
		if c.said.Turns() == 0 {
			c.Log.Warn("question not answered", "reason", err)
			return nil
		}
		c.said.DropFirst()
		c.Log.Warn("the conversation is longer than what is read: the oldest question is forgotten")
	}
	options, shown := c.options, (*shower)(nil)
	if c.streams() {
		shown = &shower{app: c.App, model: c.model.Checkpoint}
		options.Watch = shown.watch
	}
	texts, err := c.model.Write(ctx, []answer.Request{{Picture: c.picture, Prompt: prompt, Key: c.asked}}, options)
	if err != nil {
		return err
	}
	c.asked++
	text := texts[0][0].Text
	c.said.Add(question, text)
	switch {
	case shown != nil:
		return shown.end(text)
	case c.Globals.JSON:
		return writeLine(c.Out, chatAnswer{c.name, question, prompt, text, texts[0]})
	}
	_, err = fmt.Fprintln(c.Out, text)
	return errors.Join(err, ctx.Err())
}
