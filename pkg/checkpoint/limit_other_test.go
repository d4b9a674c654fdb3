//go:build !unix

package checkpoint

import "errors"

func saveLimited(string) error { return errors.New("file sizes cannot be limited on this system") }
