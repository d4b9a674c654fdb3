package generate

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/mesh"
	"blip2/pkg/model/nn"
)

// Prefill computes, from the inputs of a batch, the float32 logits [rows, vocab] of the first new tokens; what all
// steps read of the rows, whatever it is; and the cache of all texts, with the given room.
type Prefill func(scope *mlx.Scope, inputs []*graph.Node, room nn.Room) (logits *graph.Node, fixed, cache []*graph.Node)

// Advance computes a step: text t of row r goes on from the row's text parents[r, t] of the cache and has tokens[r, t]
// behind it; both are int32 [rows, texts]. It returns the logits [rows, texts, vocab] of the texts' next tokens and the
// next cache, of the same shapes.
type Advance func(scope *mlx.Scope, fixed, cache []*graph.Node, parents, tokens *graph.Node) (
	logits *graph.Node, next []*graph.Node)

// CachedProgram runs a network as a Model, one batch after the other, that keeps on the device what it has computed for
// the tokens so far: a step reads one token per text.
type CachedProgram struct {
	logits, logProbs programs
	fixed            int // outputs of prefill that are neither logits nor cache
	stats            Stats
}

// Stats say what a program has done.
type Stats struct {
	Compilations int   // of programs, one for each size of batch, prompts and room
	NewTokens    int   // tokens that the last batch had room for
	CacheBytes   int64 // of the last batch's cache, all texts together
}

// Stats returns the numbers so far.
func (p *CachedProgram) Stats() Stats { return p.stats }

// programs are the two of a network, with logits as results or, for beams, log-probabilities.
type programs struct{ prefill, advance *mesh.Exec }

// NewCachedProgram prepares the programs of a network whose weights are in the store.
func NewCachedProgram(backend compute.Backend, store *mlx.Store, prefill Prefill, advance Advance) (
	*CachedProgram, error) {
	p := &CachedProgram{}
	asTheyAre := func(logits *graph.Node) *graph.Node { return logits }
	p.logits = p.prepare(backend, store, prefill, advance, asTheyAre)
	p.logProbs = p.prepare(backend, store, prefill, advance, logProbsOf)
	return p, nil
}

// prepare prepares programs whose results are what last makes of the logits.
func (p *CachedProgram) prepare(backend compute.Backend, store *mlx.Store, prefill Prefill, advance Advance,
	last func(logits *graph.Node) *graph.Node) (out programs) {
	out.prefill = mesh.NewExec(backend, store, "prefill", func(scope *mlx.Scope, in []*graph.Node) []*graph.Node {
		p.stats.Compilations++
		// Room and width are the sizes of an input, because others are other programs.
		inputs, room := in[:len(in)-1], in[len(in)-1].Shape().Dimensions
		logits, fixed, cache := prefill(scope, inputs, nn.Room{Tokens: room[0], Texts: room[1]})
		p.fixed = len(fixed)
		return append(append([]*graph.Node{last(logits)}, fixed...), cache...)
	}).WithMaxPrograms(maxPrograms)
	out.advance = mesh.NewExec(backend, store, "step", func(scope *mlx.Scope, in []*graph.Node) []*graph.Node {
		p.stats.Compilations++
		parents, tokens, in := in[0], in[1], in[2:]
		logits, cache := advance(scope, in[:p.fixed], in[p.fixed:], parents, tokens)
		return append(cache[:len(cache):len(cache)], last(logits))
	}).WithMaxPrograms(maxPrograms)
	return out
}

// logProbsOf turns logits [..., vocab] into log-probabilities [texts, vocab]. A logit that is not a finite number makes
// all of its text not a number.
func logProbsOf(logits *graph.Node) *graph.Node {
	logits = graph.Reshape(logits, -1, logits.Shape().Dimensions[logits.Rank()-1])
	dims := logits.Shape().Dimensions
	wide := func(x *graph.Node) *graph.Node { return graph.BroadcastToDims(x, dims...) }
	shifted := graph.Sub(logits, wide(graph.ReduceAndKeep(logits, graph.ReduceMax, -1)))
	// Stretch by stretch, because one float32 sum over a large vocabulary would lose the small numbers.
	const stretch = 256
	exps := graph.Pad(graph.Exp(shifted), graph.ScalarZero(logits.Graph(), logits.DType()),
		compute.PadAxis{}, compute.PadAxis{End: (stretch - dims[1]%stretch) % stretch})
	sums := graph.ReduceSum(graph.Reshape(exps, dims[0], -1, stretch), -1)
	return graph.Sub(shifted, wide(graph.Log(graph.ReduceAndKeep(sums, graph.ReduceSum, -1))))
}

// Close frees the compiled programs.
func (p *CachedProgram) Close() {
	for _, pair := range []programs{p.logits, p.logProbs} {
		pair.prefill.Close()
		pair.advance.Close()
	}
}

// Generate continues a batch as the function Generate does: inputs are those of Prefill and remain the caller's,
// prompts the ids that penalties and LenRulePaper see.
func (p *CachedProgram) Generate(ctx context.Context, inputs []*tensors.Tensor, prompts [][]int32, o Options) (
	[][]Text, error) {
	m := &cached{program: p, inputs: mesh.HostAll(inputs), rows: len(prompts), width: o.Width(),
		newTokens: roomFor(o.MaxNewTokens), programs: p.logits}
	if o.Beams > 1 {
		m.programs, m.logProbs = p.logProbs, true
	}
	defer m.close()
	return Generate(ctx, m, prompts, o)
}

// cached is the Model of one batch. The cache has a fixed place for every text; places without one are computed along.
type cached struct {
	program   *CachedProgram
	programs  programs
	logProbs  bool // are what the programs give
	inputs    []*mesh.Value
	rows      int
	width     int // texts per row
	newTokens int

	fixed, cache []*mesh.Value
	texts        []cachedText
}

// cachedText says where a text is: in a row, and at which of its places.
type cachedText struct{ row, place int }

func (c *cached) normalized() bool { return c.logProbs }

func (c *cached) Start(ctx context.Context) ([]float32, error) {
	room := mesh.Host(tensors.FromFlatDataAndDimensions(make([]int32, c.newTokens*c.width), c.newTokens, c.width))
	defer free([]*mesh.Value{room})
	out, err := call(ctx, c.programs.prefill, append(c.inputs[:len(c.inputs):len(c.inputs)], room))
	if err != nil {
		return nil, fmt.Errorf("reading the prompts: %w", err)
	}
	c.fixed, c.cache = out[1:1+c.program.fixed], out[1+c.program.fixed:]
	c.texts = make([]cachedText, c.rows)
	for i := range c.texts {
		c.texts[i] = cachedText{row: i}
	}
	c.measure()
	defer free(out[:1])
	return mesh.Copy[float32](out[0])
}

func (c *cached) Step(ctx context.Context, parents []int, tokens []int32) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	places := c.rows * c.width
	from, ids, used := make([]int32, places), make([]int32, places), make([]int, c.rows)
	texts := make([]cachedText, len(parents))
	for i, parent := range parents {
		old := c.texts[parent]
		if used[old.row] == c.width {
			return nil, fmt.Errorf("more than %d texts of row %d", c.width, old.row)
		}
		texts[i] = cachedText{old.row, used[old.row]}
		used[old.row]++
		at := texts[i].number(c.width)
		from[at], ids[at] = int32(old.place), tokens[i]
	}
	own := mesh.HostAll([]*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(from, c.rows, c.width), tensors.FromFlatDataAndDimensions(ids, c.rows, c.width),
	})
	defer free(own)
	cache := c.cache
	c.cache = nil
	next, out, err := c.programs.advance.Advance(cache, append(own[:2:2], c.fixed...)...)
	if err != nil {
		return nil, fmt.Errorf("computing the next tokens: %w", err)
	}
	defer free(out)
	c.cache, c.texts = next, texts
	return c.logits(out[0])
}

// number counts all places, row after row.
func (t cachedText) number(width int) int { return t.row*width + t.place }

// measure notes how large the cache is, what all texts of a row share included.
func (c *cached) measure() {
	stats := &c.program.stats
	stats.CacheBytes, stats.NewTokens = 0, c.newTokens
	for _, t := range slices.Concat(c.fixed, c.cache) {
		stats.CacheBytes += int64(t.Shape().ByteSize())
	}
}

// logits brings the logits of all places to the host and returns those of the texts.
func (c *cached) logits(v *mesh.Value) ([]float32, error) {
	all, err := mesh.Copy[float32](v)
	if err != nil {
		return nil, err
	}
	places := c.rows * c.width
	if len(all)%places != 0 {
		return nil, fmt.Errorf("the model gave %d logits for %d texts", len(all), places)
	}
	if len(c.texts) == places {
		return all, nil // texts fill their places in order
	}
	vocab := len(all) / places
	for i, text := range c.texts {
		copy(all[i*vocab:][:vocab], all[text.number(c.width)*vocab:][:vocab]) // no text stands behind its place
	}
	return all[:len(c.texts)*vocab], nil
}

func (c *cached) close() {
	free(c.fixed)
	free(c.cache)
}

// roomStep is what the room for new tokens is a multiple of, so that programs are compiled for few sizes.
const roomStep = 8

// roomFor is the room for at most so many new tokens.
func roomFor(tokens int) int { return (tokens + roomStep - 1) / roomStep * roomStep }
