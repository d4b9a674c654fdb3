package generate

import (
	"context"

	"blip2/pkg/mesh"
)

// maxPrograms is how many sizes of batches, texts and caches a program is compiled for at most; another is an error.
const maxPrograms = 256

// call runs a program unless ctx has ended.
func call(ctx context.Context, exec *mesh.Exec, args []*mesh.Value) ([]*mesh.Value, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return exec.Call(args...)
}

// free gives memory back; what it computed is right even if that fails.
func free(values []*mesh.Value) { _ = mesh.Free(values...) }
