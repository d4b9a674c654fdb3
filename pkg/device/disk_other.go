//go:build !linux && !darwin

package device

import "math"

// freeSpace does not know, and lets everything pass.
func freeSpace(string) (int64, error) { return math.MaxInt64, nil }
