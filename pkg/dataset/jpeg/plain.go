//go:build !(goexperiment.simd && amd64)

package jpeg

func inverseRow(out []byte, pitch int, coefs []int16, quant *[64]uint16) {
	inverseRowPlain(out, pitch, coefs, quant)
}

func mixRows(out, near, far []byte, bias uint16) { mixRowsPlain(out, near, far, bias) }

func weigh(sums []uint16, near, far []byte) { weighPlain(sums, near, far) }

func widenRow(out []byte, sums []uint16, even, odd uint16) { widenRowPlain(out, sums, even, odd) }

func colorRow(out, luma, cb, cr []byte) { colorRowPlain(out, luma, cb, cr) }
