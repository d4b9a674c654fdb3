package verify

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/model/nn"
)

// compareProgram runs the program and compares everything that it computes.
func (c *Case) compareProgram(k *checker, p program) error {
	backend, err := c.backend()
	if err != nil {
		return err
	}
	results, err := p.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		k.tensor(r.name, r.value)
	}
	return nil
}

// idInput reads token ids, all of which a vocabulary of the given size must have.
func (c *Case) idInput(name string, vocab int) (*tensors.Tensor, error) {
	return c.intInputWhere(name, func(v int32) bool { return v >= 0 && int(v) < vocab },
		fmt.Sprintf("an id of a vocabulary of %d", vocab))
}

// labelInput reads labels: token ids, or nn.IgnoredLabel.
func (c *Case) labelInput(name string, vocab int) (*tensors.Tensor, error) {
	return c.intInputWhere(name, func(v int32) bool { return v == nn.IgnoredLabel || v >= 0 && int(v) < vocab },
		fmt.Sprintf("%d or an id of a vocabulary of %d", nn.IgnoredLabel, vocab))
}

// maskInput reads a mask of ones and zeros.
func (c *Case) maskInput(name string) (*tensors.Tensor, error) {
	return c.intInputWhere(name, func(v int32) bool { return v == 0 || v == 1 }, "0 or 1")
}

// intInputWhere reads an integer input; what says what a good value is.
func (c *Case) intInputWhere(name string, good func(v int32) bool, what string) (*tensors.Tensor, error) {
	t, values, err := c.intInput(name)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if !good(v) {
			return nil, fmt.Errorf("%s: %s is %d, not %s", inputsFile, element(name, t.Shape().Dimensions, i), v, what)
		}
	}
	return t, nil
}

// whereMask puts zeros where mask [batch, L] is 0, into x [batch, L, n]: what is recorded where values mean nothing.
func whereMask(x, mask *Node) *Node {
	seen := NotEqual(mask, ScalarZero(mask.Graph(), mask.DType()))
	return Where(BroadcastToDims(InsertAxes(seen, -1), x.Shape().Dimensions...), x, ZerosLike(x))
}
