package trainer

import (
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/mesh"
)

// checkShares refuses a batch whose micro-batches do not give every device of the mesh the same number of rows.
func (s *Step) checkShares(batch []*tensors.Tensor) error {
	devices := mesh.Of(s.store).Devices()
	if devices == 1 {
		return nil
	}
	for _, t := range batch {
		if t.Rank() == 0 {
			continue
		}
		if rows, step := t.Shape().Dimensions[0], devices*s.task.parts(); rows%step != 0 {
			return fmt.Errorf("%d rows in %d micro-batches cannot be shared evenly by %d devices: choose a multiple of %d, "+
				"or another number of devices", rows, s.task.parts(), devices, step)
		}
	}
	return nil
}
