package generate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// search drives the rows of one batch through the model.
type search struct {
	model   Model
	options Options
	// normalized says that the model gives log-probabilities instead of logits.
	normalized bool
	prompts    [][]int32
	rows       []row
}

// row is the search in one row: greedy or beams.
type row interface {
	// running returns the texts that go on, of those the row was advanced to last; none when the row is done.
	running() []hypothesis
	// advance chooses the next tokens: scores hold, for each running text, a number per token. The running texts have
	// n tokens with the one that is chosen now.
	advance(scores [][]float32, n int)
	// texts returns the result, best first.
	texts() []Text
}

// hypothesis is a text that goes on.
type hypothesis struct {
	tokens []int32 // generated so far
	sum    float32 // of the log-probabilities; beams only
	text   int     // number of the text that it continues among the model's
}

// extend returns the hypothesis followed by a token.
func (h hypothesis) extend(token int32, sum float32) hypothesis {
	tokens := make([]int32, len(h.tokens)+1)
	tokens[copy(tokens, h.tokens)] = token
	return hypothesis{tokens: tokens, sum: sum, text: h.text}
}

// run generates until every row is done or all texts have their full length.
func (s *search) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range s.prompts {
		s.rows = append(s.rows, newRow(s.options, i, len(s.prompts[i])))
	}
	logits, err := s.model.Start(ctx)
	if err != nil {
		return err
	}
	vocab := len(logits) / len(s.rows)
	if err := s.checkVocab(len(logits), vocab); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := s.advance(logits, vocab, n); err != nil {
			return err
		}
		s.tell(n)
		parents, tokens := s.next()
		if len(parents) == 0 || n == s.options.MaxNewTokens {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if logits, err = s.model.Step(ctx, parents, tokens); err != nil {
			return err
		}
		if len(logits) != len(parents)*vocab {
			return fmt.Errorf("the model gave %d logits for %d texts and %d tokens", len(logits), len(parents), vocab)
		}
	}
}

// tell lets the options' watcher see what the step of length n has brought.
func (s *search) tell(n int) {
	if s.options.Watch == nil {
		return
	}
	var tokens []Token
	for i, r := range s.rows {
		if one, ok := r.(*single); ok {
			tokens = one.written(tokens, i, n)
		}
	}
	s.options.Watch(n, tokens)
}

// checkVocab compares the first logits' size with what was asked for.
func (s *search) checkVocab(size, vocab int) error {
	eos := int(s.options.EOS)
	if vocab < 2 || vocab*len(s.rows) != size {
		return fmt.Errorf("the model gave %d logits for %d rows; it must give the same number, at least 2, for each",
			size, len(s.rows))
	}
	if eos < 0 || eos >= vocab {
		return fmt.Errorf("the token %d that ends a text is none of the model's %d", eos, vocab)
	}
	for _, prompt := range s.prompts {
		for _, id := range prompt {
			if id < 0 || int(id) >= vocab {
				return fmt.Errorf("token %d of a prompt is none of the model's %d", id, vocab)
			}
		}
	}
	return nil
}

// advance lets every row that is not done choose its nth tokens. Rows have nothing to do with each other and share the
// processors; with a large vocabulary this is as much work as a step of a small model.
func (s *search) advance(logits []float32, vocab, n int) error {
	errs := make([]error, len(s.rows))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(len(s.rows), runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(s.rows); i = int(next.Add(1)) - 1 {
				if err := s.advanceRow(i, logits, vocab, n); err != nil {
					errs[i] = fmt.Errorf("row %d, token %d: %w", i, n, err)
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// advanceRow lets row i choose its nth tokens, unless it is done.
func (s *search) advanceRow(i int, logits []float32, vocab, n int) error {
	running := s.rows[i].running()
	if len(running) == 0 {
		return nil
	}
	scores := make([][]float32, len(running))
	for k, h := range running {
		if k > 0 && h.text == running[k-1].text {
			scores[k] = scores[k-1] // texts that have nothing but the prompt yet
			continue
		}
		scores[k] = logits[h.text*vocab:][:vocab]
		if err := s.options.process(scores[k], s.prompts[i], h.tokens, s.normalized); err != nil {
			return err
		}
	}
	s.rows[i].advance(scores, n)
	return nil
}

// next numbers the texts that go on and says what they are made of.
func (s *search) next() (parents []int, tokens []int32) {
	for _, r := range s.rows {
		running := r.running()
		for k := range running {
			h := &running[k]
			parents, tokens = append(parents, h.text), append(tokens, h.tokens[len(h.tokens)-1])
			h.text = len(parents) - 1
		}
	}
	return parents, tokens
}

// newRow starts the search in row i, whose prompt has so many tokens.
func newRow(o Options, i, prompt int) row {
	start := make([]hypothesis, o.Width())
	for k := range start {
		start[k].text = i
	}
	if o.Beams <= 1 {
		return newSingle(o, i, start)
	}
	return newBeams(o, i, prompt, start)
}
