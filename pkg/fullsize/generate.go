package fullsize

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// GenerateOptions say what Generate measures.
type GenerateOptions struct {
	Network Network       // one that writes
	DType   weights.DType // in which its weights are kept
	// Sizes are the pictures and the tokens that stand in front of each text; a language model's queries are among them.
	Sizes     Sizes
	Beams     int // texts side by side; 1 is greedy search
	Draw      int // texts that are drawn for each picture in place of a search; 0: none
	NewTokens int // of every text
	Warmup    int // runs before those that count
	Runs      int // runs that count, at least 1
	Seed      int64
	Path      string // checkpoint; empty: random numbers that are made in memory
	OnEvent   func(what string, took time.Duration)
}

// GenerateResult is what one measurement of generation found. Sizes are in bytes, 0 where they could not be measured.
type GenerateResult struct {
	Batch          int            `json:"batch"`
	Tokens         int            `json:"prompt_tokens"`
	Beams          int            `json:"beams"`
	Drawn          int            `json:"drawn"` // texts of each picture; 0: the search's one
	NewTokens      int            `json:"new_tokens"`
	Compute        string         `json:"compute"` // type of activations
	Warmup         int            `json:"warmup"`
	Runs           int            `json:"runs"`
	Parameters     int            `json:"parameters"`
	WeightBytes    int64          `json:"weight_bytes"` // of the tensors as they are kept
	LoadSeconds    float64        `json:"load_seconds"`
	CompileSeconds float64        `json:"compile_seconds"`     // what the first run took longer than the median
	Compilations   int            `json:"compilations"`        // of programs, in all runs
	Seconds        measure.Spread `json:"seconds"`             // of a run: all texts of the batch
	CPUSeconds     float64        `json:"cpu_seconds"`         // mean processor time of a run, all cores
	FirstToken     measure.Spread `json:"first_token_seconds"` // from the start of a run
	NextToken      measure.Spread `json:"next_token_seconds"`  // of every further one
	Early          float64        `json:"early_token_seconds"` // median of the first quarter of the further ones
	Late           float64        `json:"late_token_seconds"`  // of the last quarter
	TokensPerS     float64        `json:"tokens_per_s"`        // of the texts that are returned, in the median run
	CacheBytes     int64          `json:"cache_bytes"`         // keys, values and masks, as they are on the device
	CacheComputed  int64          `json:"cache_bytes_computed"`
	CacheTiled     int64          `json:"cache_bytes_tiled"` // if every text had its own copy of the prompt
	ReadBytes      int64          `json:"read_bytes"`        // of weights, per step
	WeightGBPerS   float64        `json:"weight_gb_per_s"`   // of those, in the median step
	PeakMemory     uint64         `json:"peak_memory"`       // most host memory while the measurement ran
	Text           []int32        `json:"text"`              // of the first picture, to compare runs by
}

// UsualPrompt is how many tokens usually stand in front of what the network writes; 0: it writes nothing.
func (n Network) UsualPrompt() int { return n.prompt }

// Writers lists the networks that Generate takes.
func Writers() []string {
	var names []string
	for name, build := range networks() {
		if n, err := build(); err == nil && n.writes != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Validate reports options that cannot be measured.
func (o GenerateOptions) Validate() error {
	if err := o.Network.Validate(o.Sizes); err != nil {
		return err
	}
	switch {
	case o.Network.writes == nil:
		return fmt.Errorf("%s writes no texts", o.Network.Name)
	case o.NewTokens < 2:
		return fmt.Errorf("%d new tokens: a first and a further one are needed", o.NewTokens)
	case o.Beams < 1:
		return fmt.Errorf("%d beams: at least 1 is needed", o.Beams)
	case o.Draw < 0:
		return fmt.Errorf("%d texts cannot be drawn", o.Draw)
	case max(o.Beams, o.Draw) > maxBatch/o.Sizes.Batch:
		return fmt.Errorf("%d texts for each of %d pictures: at most %d texts are measured", max(o.Beams, o.Draw),
			o.Sizes.Batch, maxBatch)
	case o.Draw > 0 && o.Beams > 1:
		return fmt.Errorf("texts are drawn one by one, not with %d beams", o.Beams)
	case o.Runs < 1 || o.Warmup < 0:
		return fmt.Errorf("%d runs after %d: at least 1 must be measured, after 0 or more", o.Runs, o.Warmup)
	case o.Sizes.Tokens+o.NewTokens > o.Network.MaxTokens+1:
		return fmt.Errorf("%d tokens and %d new ones are more than the %d of %s", o.Sizes.Tokens, o.NewTokens,
			o.Network.MaxTokens+1, o.Network.Name)
	}
	return nil
}

// Generate loads a network and measures how fast it writes texts: a language model behind embeddings, as those of a
// picture's queries and a prompt are; a captioner about what it reads of a picture, behind a prompt. The image encoder
// is no part of it. The searches are those of package generate; every text gets all of its tokens.
func Generate(ctx context.Context, backend compute.Backend, o GenerateOptions) (*GenerateResult, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.OnEvent == nil {
		o.OnEvent = func(string, time.Duration) {}
	}
	watch := measure.StartWatch()
	r, err := o.generate(ctx, backend)
	peak := watch.Stop().Total
	if err != nil {
		return nil, err
	}
	r.PeakMemory = peak
	return r, nil
}

func (o GenerateOptions) generate(ctx context.Context, backend compute.Backend) (*GenerateResult, error) {
	r := &GenerateResult{Batch: o.Sizes.Batch, Tokens: o.Sizes.Tokens, Beams: o.Beams, Drawn: o.Draw,
		NewTokens: o.NewTokens, Compute: o.Sizes.Compute.String(), Warmup: o.Warmup, Runs: o.Runs,
		Parameters: model.Count(o.Network.Params())}
	store := mlx.NewStore()
	defer store.Finalize()
	start := time.Now()
	if err := o.fill(ctx, backend, store); err != nil {
		return nil, err
	}
	r.LoadSeconds = time.Since(start).Seconds()
	o.OnEvent("loaded", time.Since(start))
	for v := range store.IterVariables() {
		r.WeightBytes += int64(v.Shape().ByteSize())
	}
	w := o.Network.writes(o.Sizes)
	var read int64
	program, err := generate.NewCachedProgram(backend, store, w.prefill,
		func(scope *mlx.Scope, fixed, cache []*Node, parents, tokens *Node) (*Node, []*Node) {
			logits, next := w.advance(scope, fixed, cache, parents, tokens)
			read = readBytes(store, logits.Graph(), o.lookups())
			return logits, next
		})
	if err != nil {
		return nil, err
	}
	defer program.Close()
	if err := o.measure(ctx, program, w, r); err != nil {
		return nil, err
	}
	stats := program.Stats()
	r.Compilations, r.CacheBytes, r.ReadBytes = stats.Compilations, stats.CacheBytes, read
	r.CacheComputed, r.CacheTiled = w.kept.bytes(o.Sizes, o.search().Width(), stats.NewTokens)
	r.WeightGBPerS = float64(read) / r.NextToken.Median / 1e9
	return r, nil
}

// fill puts the weights on the device.
func (o GenerateOptions) fill(ctx context.Context, backend compute.Backend, store *mlx.Store) error {
	if o.Path != "" {
		run := Options{Network: o.Network, Path: o.Path, Precision: pretrained.Uniform(o.DType)}
		_, err := run.fill(backend, store)
		return err
	}
	random, mu := newFiller(o.DType), sync.Mutex{}
	return pretrained.Fill(store, backend, o.Network.Params(), func(p model.Param) (weights.Tensor, bool, error) {
		mu.Lock() // until the numbers are copied
		if err := ctx.Err(); err != nil {
			mu.Unlock()
			return weights.Tensor{}, false, err
		}
		data, err := random.data(p)
		if err != nil {
			mu.Unlock()
		}
		return weights.Tensor{Name: p.Name, DType: o.DType, Shape: p.Shape, Data: data}, err == nil, err
	}, func(model.Param) { mu.Unlock() })
}

// lookups are the tables of which a step reads but a few rows.
func (o GenerateOptions) lookups() []string {
	passes := o.Network.passes(o.Sizes)
	return passes[len(passes)-1].lookups
}

// search is how texts are written; what is drawn is drawn as CapFilt does.
func (o GenerateOptions) search() generate.Options {
	s := generate.Options{Beams: o.Beams, MaxNewTokens: o.NewTokens, MinNewTokens: o.NewTokens, EOS: 2, LengthPenalty: 1}
	if o.Draw > 0 {
		s.Return, s.RepetitionPenalty = o.Draw, 1.1
		s.Sampling = &generate.Sampling{TopK: 50, TopP: 0.9, Seed: o.Seed}
	}
	return s
}

// measure runs the search.
func (o GenerateOptions) measure(ctx context.Context, program *generate.CachedProgram, w writer,
	r *GenerateResult) error {
	inputs, search := w.inputs(newRandom(o.Seed)), o.search()
	defer free(inputs)
	var first, all, firsts, early, late, next, cpu []float64
	for i := range o.Warmup + o.Runs {
		var times []float64
		start, startCPU := time.Now(), measure.CPUSeconds()
		search.Watch = func(int, []generate.Token) { times = append(times, time.Since(start).Seconds()) }
		texts, err := program.Generate(ctx, inputs, make([][]int32, o.Sizes.Batch), search)
		took := time.Since(start)
		if err != nil {
			return err
		}
		if len(times) != o.NewTokens {
			return errors.New("a search ended before its time")
		}
		o.OnEvent(fmt.Sprintf("run %d of %d", i+1, o.Warmup+o.Runs), took)
		r.Text = texts[0][0].Tokens
		if first = append(first, took.Seconds()); i < o.Warmup {
			continue
		}
		steps, quarter := differences(times), (len(times)+2)/4
		all, firsts, cpu = append(all, took.Seconds()), append(firsts, times[0]), append(cpu, measure.CPUSeconds()-startCPU)
		next = append(next, steps...)
		early, late = append(early, steps[:quarter]...), append(late, steps[len(steps)-quarter:]...)
	}
	r.Seconds, r.FirstToken, r.NextToken = measure.SpreadOf(all), measure.SpreadOf(firsts), measure.SpreadOf(next)
	r.Early, r.Late, r.CPUSeconds = measure.SpreadOf(early).Median, measure.SpreadOf(late).Median, measure.Mean(cpu)
	r.TokensPerS = float64(o.Sizes.Batch*max(o.Draw, 1)*o.NewTokens) / r.Seconds.Median
	if o.Warmup > 0 {
		r.CompileSeconds = max(first[0]-r.Seconds.Median, 0)
	}
	return nil
}

// differences are those of neighbours.
func differences(times []float64) []float64 {
	out := make([]float64, len(times)-1)
	for i := range out {
		out[i] = times[i+1] - times[i]
	}
	return out
}
