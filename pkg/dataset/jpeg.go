//go:build !(turbojpeg && cgo && linux)

package dataset

import "blip2/pkg/dataset/jpeg"

// newJPEGDecoder gives the decoder of JPEG pictures.
func newJPEGDecoder() jpegDecoder { return new(jpeg.Decoder) }

// jpegDecoderName says which decoder newJPEGDecoder gives.
func jpegDecoderName() string { return "go" }
