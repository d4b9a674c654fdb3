//go:build turbojpeg && cgo && linux

package dataset

import "blip2/pkg/dataset/turbojpeg"

// newJPEGDecoder gives the decoder of JPEG pictures.
func newJPEGDecoder() jpegDecoder { return turbojpeg.NewDecoder() }

// jpegDecoderName says which decoder newJPEGDecoder gives.
func jpegDecoderName() string {
	if turbojpeg.Available() {
		return "libjpeg-turbo"
	}
	return "go"
}
