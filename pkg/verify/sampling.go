package verify

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/generate"
)

// samplingRun is one recorded filter and how many tokens it leaves per row.
type samplingRun struct {
	RepetitionPenalty float64 `json:"repetition_penalty"`
	Temperature       float64 `json:"temperature"`
	TopP              float64 `json:"top_p"`
	TopK              int     `json:"top_k"`
	MinKept           int     `json:"min_tokens_to_keep"`
	Kept              []int   `json:"kept"`
}

// samplingFilter runs kind sampling-filter: the distribution that tokens are drawn from.
func samplingFilter(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var expected struct {
		Runs []samplingRun `json:"runs"`
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	logits, err := c.floatRows("logits")
	if err != nil {
		return err
	}
	previous, err := c.idRows("previous", len(logits[0]))
	if err != nil {
		return err
	}
	if len(previous) != len(logits) {
		return fmt.Errorf("%s: logits for %d texts, previous ids of %d", inputsFile, len(logits), len(previous))
	}
	for i, r := range expected.Runs {
		probs, kept := r.distribution(logits, previous)
		k.floats(fmt.Sprintf("probs/%d", i), []int{len(logits), len(logits[0])}, probs)
		equalLists(k, fmt.Sprintf("runs[%d].kept", i), kept, r.Kept)
	}
	return nil
}

// distribution returns the probabilities of all rows, and how many of them are above 0 in each.
func (r samplingRun) distribution(logits [][]float32, previous [][]int32) (probs []float32, kept []int) {
	filter := generate.Sampling{Temperature: r.Temperature, TopK: r.TopK, TopP: r.TopP}
	for b, row := range logits {
		scores := append([]float32{}, row...)
		generate.PenalizeRepetition(scores, previous[b], r.RepetitionPenalty)
		filter.Filter(scores, r.MinKept)
		p := generate.Softmax(scores)
		kept = append(kept, 0)
		for _, v := range p {
			if v > 0 {
				kept[b]++
			}
		}
		probs = append(probs, p...)
	}
	return probs, kept
}

// floatRows reads a float32 matrix of inputs.safetensors, row by row.
func (c *Case) floatRows(name string) ([][]float32, error) {
	t, err := c.floatInput(name)
	if err != nil {
		return nil, err
	}
	values, err := tensors.CopyFlatData[float32](t)
	if err != nil {
		return nil, err
	}
	return rowsOf(name, values, t.Shape().Dimensions)
}

// idRows reads a matrix of ids of a vocabulary from inputs.safetensors, row by row.
func (c *Case) idRows(name string, vocab int) ([][]int32, error) {
	t, err := c.idInput(name, vocab)
	if err != nil {
		return nil, err
	}
	values, err := tensors.CopyFlatData[int32](t)
	if err != nil {
		return nil, err
	}
	return rowsOf(name, values, t.Shape().Dimensions)
}

// rowsOf cuts the values of a matrix into its rows.
func rowsOf[T any](name string, values []T, shape []int) ([][]T, error) {
	if len(shape) != 2 || len(values) == 0 {
		return nil, fmt.Errorf("%s: tensor %s of shape %v is no matrix with rows", inputsFile, name, shape)
	}
	return slices.Collect(slices.Chunk(values, shape[1])), nil
}
