//go:build !(goexperiment.simd && amd64)

package dataset

// vectors are the tables of the vector code, which this build does not have.
type vectors struct{}

func (r *Resizer) fast(*RGB, Box, int, int, func(y int, row []byte)) bool { return false }
