package answer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/generate"
	"blip2/pkg/internal/toymodel"
	"blip2/pkg/naming"
	"blip2/pkg/tokenizer"
)

// prompts are of different length.
var prompts = []string{"", "Question: what is this? Answer:", "a photo of"}

// TestKinds opens a folder of every network that writes, and writes.
func TestKinds(t *testing.T) {
	for network, kind := range networks {
		c := opened(t, network)
		if c.Kind != kind || c.Describe()[0] != string(kind) {
			t.Errorf("%s is %s, want %s", network, c.Kind, kind)
		}
		m, _ := loaded(t, c)
		pictures := encoded(t, m, 3)
		o := Options{Options: c.Default().Options}
		if err := c.Check(o.Options, 0, prompts...); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		texts, err := m.Write(t.Context(), []Request{{Picture: pictures[0]}}, o)
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		if n := len(texts[0][0].Tokens); n < o.MinNewTokens || n > o.MaxNewTokens ||
			strings.Contains(texts[0][0].Text, "[SEP]") {
			t.Errorf("%s: %+v", network, texts[0][0])
		}
	}
}

// TestBatch: a picture's texts do not depend on what else is in the batch, on other prompts' length, on how often it is
// asked, or on the batches before, also where tokens are drawn.
func TestBatch(t *testing.T) {
	for network := range networks {
		m, _ := loaded(t, opened(t, network))
		pictures := encoded(t, m, 3)
		for name, o := range map[string]Options{
			"beams":  {Options: generate.Options{Beams: 3, Return: 2, MaxNewTokens: 6, LengthPenalty: 1}},
			"greedy": {Options: generate.Options{MaxNewTokens: 6, NoRepeatNGram: 2}},
			"drawn": {Options: generate.Options{Return: 2, MaxNewTokens: 6,
				Sampling: &generate.Sampling{TopK: 9, Temperature: 2, Seed: 4}}},
		} {
			var want [][]Text
			for i, p := range pictures {
				alone, err := m.Write(t.Context(), []Request{{p, prompts[i], int64(10 + i)}}, o)
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, alone...)
			}
			for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 1}, {0}} {
				var requests []Request
				for _, i := range order {
					requests = append(requests, Request{pictures[i], prompts[i], int64(10 + i)})
				}
				got, err := m.Write(t.Context(), requests, o)
				if err != nil {
					t.Fatal(err)
				}
				for k, i := range order {
					if !sameTexts(got[k], want[i]) {
						t.Errorf("%s, %s, request %d of %v: %v, want %v", network, name, i, order, got[k], want[i])
					}
				}
			}
			if sameTexts(want[0], want[1]) && sameTexts(want[1], want[2]) {
				t.Errorf("%s, %s: all texts are %v: the test tells nothing", network, name, want[0])
			}
		}
	}
}

func sameTexts(a, b []Text) bool {
	return slices.EqualFunc(a, b, func(a, b Text) bool { return a.Text == b.Text && slices.Equal(a.Tokens, b.Tokens) })
}

// TestFewPrograms: prompts of many lengths, as in a conversation, and a last, smaller batch need few programs.
func TestFewPrograms(t *testing.T) {
	for network, tt := range map[string]struct {
		word            string
		prompts, atMost int // of programs
	}{
		// 8, 16, 24, 32, 48 and 64 tokens; T5's steps are the same for all but the encoder's length.
		naming.BLIP2OPT: {"a", 60, 12}, naming.BLIP2T5: {"a", 60, 12},
		// 8, 16 and 32 tokens.
		naming.BLIP2Stage1: {"cat ", 30, 6}, naming.BLIPCaption: {"cat ", 30, 6},
	} {
		m, _ := loaded(t, opened(t, network))
		pictures := encoded(t, m, 2)
		o := Options{Options: generate.Options{MaxNewTokens: 4}}
		lengths := map[int]bool{}
		for n := range tt.prompts {
			prompt := strings.Repeat(tt.word, n)
			lengths[len(m.Tokenizer.Encode(prompt, tokenizer.EncodeOptions{}))] = true
			requests := []Request{{pictures[0], prompt, 0}, {pictures[1], "b", 1}}
			if n%7 == 3 {
				requests = requests[:1]
			}
			if _, err := m.Write(t.Context(), requests, o); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Stats().Compilations; got > tt.atMost || len(lengths) < tt.prompts*5/6 {
			t.Errorf("%s: %d programs for prompts of %d lengths", network, got, len(lengths))
		}
	}
}

// TestSameSeed: the same seed draws the same, another one something else.
func TestSameSeed(t *testing.T) {
	m, _ := loaded(t, opened(t, naming.BLIP2OPT))
	requests := []Request{{encoded(t, m, 1)[0], "a", 3}}
	draw := func(seed int64) string {
		texts, err := m.Write(t.Context(), requests, Options{Options: generate.Options{MaxNewTokens: 8,
			Sampling: &generate.Sampling{Seed: seed}}})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(texts[0][0].Tokens)
	}
	first := draw(1)
	if again := draw(1); again != first {
		t.Errorf("the same seed draws %s and %s", first, again)
	}
	if first == draw(2) && first == draw(3) {
		t.Error("all seeds draw the same text")
	}
}

// TestWatch: every token is told when it is written, and none of the rows that only fill up the batch.
func TestWatch(t *testing.T) {
	m, _ := loaded(t, opened(t, naming.BLIP2T5))
	pictures := encoded(t, m, 2)
	o := Options{Options: generate.Options{MaxNewTokens: 5}}
	if _, err := m.Write(t.Context(), []Request{{Picture: pictures[0]}, {Picture: pictures[1]}}, o); err != nil {
		t.Fatal(err)
	}
	var seen []int32
	o.Watch = func(n int, tokens []generate.Token) {
		for _, token := range tokens {
			if seen = append(seen, token.ID); token.Row != 0 || len(seen) != n {
				t.Errorf("step %d tells of %+v", n, token)
			}
		}
	}
	texts, err := m.Write(t.Context(), []Request{{Picture: pictures[1]}}, o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(seen, texts[0][0].Tokens) {
		t.Errorf("told %v, wrote %v", seen, texts[0][0].Tokens)
	}
}

// TestRefused: what cannot be is an error before anything is loaded.
func TestRefused(t *testing.T) {
	optDir, t5Dir := toymodel.Folder(t, naming.BLIP2OPT), toymodel.Folder(t, naming.BLIP2T5)
	bertDir := toymodel.Folder(t, naming.BLIP2Stage1)
	without := func(dir, name string) string {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for what, tt := range map[string]struct {
		source Source
		says   []string
	}{
		"nothing there": {Source{Model: filepath.Join(t.TempDir(), "no")}, []string{"no"}},
		"no tokenizer": {Source{Model: without(toymodel.Folder(t, naming.BLIP2OPT), "vocab.json")},
			[]string{"--tokenizer"}},
		"foreign tokenizer": {Source{Model: optDir, Tokenizer: t5Dir}, []string{"159 ids, the model knows 72"}},
		"BERT's for OPT":    {Source{Model: optDir, Tokenizer: bertDir}, []string{"no newline", "own tokenizer"}},
		"BERT's for T5":     {Source{Model: t5Dir, Tokenizer: bertDir}, []string{"no </s>", "own tokenizer"}},
	} {
		_, err := Open(tt.source)
		says(t, what, err, tt.says...)
	}
}

// TestPromptTooLong: prompts are measured against what the model reads, or cut if that is asked for.
func TestPromptTooLong(t *testing.T) {
	long := strings.Repeat("a", 600)
	for network, want := range map[string]string{
		naming.BLIP2OPT:    "has 601 tokens, and there is room for 147: OPT has 160 positions",
		naming.BLIP2T5:     "Flan-T5 reads 512 tokens",
		naming.BLIP2Stage1: "texts have at most 40 tokens, of which 1 is [DEC] and 10 are new"} {
		c := opened(t, network)
		prompt := long
		if network == naming.BLIP2Stage1 {
			prompt = strings.Repeat("cat ", 60)
		}
		o := generate.Options{MaxNewTokens: 10}
		says(t, network, c.Check(o, 0, "a", prompt), want)
		if err := c.Check(o, 20, prompt); err != nil {
			t.Errorf("%s, cut to 20 tokens: %v", network, err)
		}
	}
}

// TestInterrupt: a cancelled context ends encoding and writing.
func TestInterrupt(t *testing.T) {
	m, _ := loaded(t, opened(t, naming.BLIP2OPT))
	pictures := encoded(t, m, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Encode(ctx, pixels(t, m.Checkpoint, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("encoding: %v", err)
	}
	_, err := m.Write(ctx, []Request{{Picture: pictures[0]}}, Options{Options: generate.Options{MaxNewTokens: 2}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("writing: %v", err)
	}
}

// TestPresets are those of the evaluation protocols.
func TestPresets(t *testing.T) {
	for _, tt := range []struct {
		network, name    string
		beams, min, max  int
		penalty          float64
		prompt, question string
	}{
		{naming.BLIP2OPT, "", 5, 1, 30, 1, "", "Question: q Answer:"},
		{naming.BLIP2T5, "", 5, 0, 30, 1, "", "Question: q Answer:"},
		{naming.BLIP2Stage1, "", 3, 9, 29, 1, "", "Question: q Answer:"},
		{naming.BLIPCaption, "", 3, 6, 26, 1, "a picture of", "Question: q Answer:"},
		{naming.BLIP2OPT, "caption", 5, 8, 30, 1, "a photo of", "Question: q Answer:"},
		{naming.BLIP2T5, "caption", 5, 7, 30, 1, "a photo of", "Question: q Answer:"},
		{naming.BLIP2OPT, "vqa", 5, 1, 10, -1, "", "Question: q Answer:"},
		{naming.BLIP2T5, "vqa", 5, 0, 10, -1, "", "Question: q Short answer:"},
	} {
		p, err := opened(t, tt.network).Preset(tt.name)
		o := p.Options
		if err != nil || o.Beams != tt.beams || o.MinNewTokens != tt.min || o.MaxNewTokens != tt.max ||
			o.LengthPenalty != tt.penalty || p.Prompt != tt.prompt || p.Ask("q") != tt.question {
			t.Errorf("%s %q: %+v, error %v", tt.network, tt.name, p, err)
		}
	}
	c := opened(t, naming.BLIP2Stage1)
	_, err := c.Preset("vqa")
	says(t, "vqa of stage 1", err, "answers no questions")
	_, err = c.Preset("vqq")
	says(t, "unknown preset", err, `"vqq"`, "caption, vqa")
}

// TestConversation: earlier questions and answers stand in front, as in LAVIS's example.
func TestConversation(t *testing.T) {
	var c Conversation
	p := Preset{Question: "Question: {} Answer:"}
	if got, want := c.Prompt(p, "which city is this?"), "Question: which city is this? Answer:"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	c.Add("which city is this?", "singapore")
	c.Add("why?", "it has a {} of a merlion.")
	want := "Question: which city is this? Answer: singapore. Question: why? Answer: it has a {} of a merlion. " +
		"Question: where? Answer:"
	if got := c.Prompt(p, "where?"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if c.DropFirst(); c.Turns() != 1 {
		t.Errorf("%d turns", c.Turns())
	}
}

// TestLeastMemory: logits of every text, and the keys, values and attention of its new tokens; or the attention of many
// patches.
func TestLeastMemory(t *testing.T) {
	o := generate.Options{Beams: 3, MaxNewTokens: 10}
	for network, want := range map[string]float64{
		// 2 layers of keys and values of 16, or 2 heads of 6, in 2 bytes; 72 and 180 logits in 4.
		// Each of 3 texts gives attention to 3 · 10 tokens in 2 heads.
		naming.BLIP2OPT: 2*3*(10*2*2*16*2) + 2*3*72*4 + 2*3*(2*3*10*4),
		naming.BLIP2T5:  2*3*(10*2*2*12*2) + 2*3*180*4 + 2*3*(2*3*10*4),
		// [PAD] to [MASK], 10 words and [DEC].
		naming.BLIP2Stage1: 2*3*16*4 + 2*3*(2*3*10*4),
	} {
		if got := opened(t, network).LeastMemory(o, 2); got != want {
			t.Errorf("%s: %g bytes, want %g", network, got, want)
		}
	}
	c := opened(t, naming.BLIP2OPT)
	c.Spec.Vision.ImageSize = 100 * c.Spec.Vision.PatchSize
	if got, want := c.LeastMemory(o, 2), 2*4*2*10001.*10001; got != want {
		t.Errorf("100 patches per side: %g bytes, want %g", got, want)
	}
}
