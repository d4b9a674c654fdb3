//go:build !linux

package checkpoint

import "errors"

// exchange is not available on this system; the caller renames twice.
func exchange(_, _ string) error { return errors.ErrUnsupported }
