package verify

import (
	"embed"
	"io/fs"
)

//go:embed cases
var embedded embed.FS

// Embedded returns the cases inside the program: a few small ones that show whether a backend computes the image
// encoder and stage 1 as the reference does.
func Embedded() fs.FS {
	sub, err := fs.Sub(embedded, "cases")
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}
