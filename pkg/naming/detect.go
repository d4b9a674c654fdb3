package naming

import (
	"fmt"
	"slices"
)

// Detection is what the names of a checkpoint's tensors say that it is.
type Detection struct {
	Model     string // such as BLIP2OPT
	Publisher string // whose names they are: LAVIS, HuggingFace or Original
	Table     Table
	Known     int // tensors with a rule
	Unknown   int // tensors with neither a rule nor a reason to ignore them
}

// Detect tells the network and the way of naming from the names of a checkpoint's tensors: what knows most of them,
// then what has the fewest that it does not know.
func Detect(names []string) (Detection, error) {
	var best Detection
	for _, m := range Models() {
		for _, publisher := range []string{LAVIS, HuggingFace, Original} {
			table, ok := m.Tables[publisher]
			if !ok {
				continue
			}
			known, unknown := table.Knows(names)
			if known > best.Known || known == best.Known && known > 0 && unknown < best.Unknown {
				best = Detection{m.Name, publisher, table, known, unknown}
			}
		}
	}
	if best.Known == 0 {
		return best, fmt.Errorf("its %d tensors are of no network that is known here: %s", len(names),
			some(slices.Sorted(slices.Values(names))))
	}
	return best, nil
}
