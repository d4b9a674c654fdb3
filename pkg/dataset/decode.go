package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
)

const (
	// maxPixels is where Pillow refuses a picture as a decompression bomb.
	maxPixels = 2 * 89478485
	// maxFileBytes bounds what is read of one picture.
	maxFileBytes = 256 << 20
)

// DecodeFile reads the JPEG or PNG picture at path (see Decode).
func DecodeFile(path string) (*RGB, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: opening a picture: %w", err)
	}
	defer f.Close()
	img, err := Decode(f)
	if err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", path, err)
	}
	return img, nil
}

// Decode reads a JPEG (baseline, progressive, grey, RGB, CMYK) or PNG (all depths and colour types) picture as
// Pillow's Image.open(r).convert("RGB") does: alpha is dropped without blending, 16-bit grey is clipped at 255, 16-bit
// RGB keeps its high byte, halved chroma is interpolated, EXIF orientation and colour profiles are ignored.
func Decode(r io.Reader) (*RGB, error) {
	img := new(RGB)
	var buf bytes.Buffer
	if err := decodeInto(img, &buf, r); err != nil {
		return nil, err
	}
	return img, nil
}

// decodeInto is Decode into dst with a buffer for the file's bytes, both reused.
func decodeInto(dst *RGB, buf *bytes.Buffer, r io.Reader) error {
	buf.Reset()
	n, err := buf.ReadFrom(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return fmt.Errorf("reading the picture: %w", err)
	}
	if n > maxFileBytes {
		return fmt.Errorf("the file is larger than %d MiB; that is no picture to train on", maxFileBytes>>20)
	}
	return decodeBytes(dst, buf.Bytes())
}

func decodeBytes(dst *RGB, data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
		return decodeJPEG(dst, data)
	case bytes.HasPrefix(data, []byte(pngSignature)):
		return decodePNG(dst, data)
	}
	return unknownFormat(data)
}

// unknownFormat says what the bytes look like instead of a JPEG or PNG picture.
func unknownFormat(data []byte) error {
	head := bytes.TrimSpace(data[:min(len(data), 512)])
	for _, known := range []struct{ prefix, name string }{
		{"GIF8", "a GIF picture"}, {"BM", "a BMP picture"}, {"RIFF", "a WebP picture"},
		{"II*\x00", "a TIFF picture"}, {"MM\x00*", "a TIFF picture"}, {"<", "an HTML or XML page"},
		{"version https://git-lfs", "a Git LFS pointer, not the picture itself"},
	} {
		if bytes.HasPrefix(head, []byte(known.prefix)) {
			return fmt.Errorf("not a JPEG or PNG picture but %s", known.name)
		}
	}
	if len(data) == 0 {
		return errors.New("the file is empty")
	}
	return fmt.Errorf("not a JPEG or PNG picture (starts with % x)", head[:min(len(head), 8)])
}

// checkSize refuses pictures that would not fit into memory before their samples are decoded.
func checkSize(c image.Config) error {
	if c.Width < 1 || c.Height < 1 {
		return fmt.Errorf("the picture has no pixels (%d×%d)", c.Width, c.Height)
	}
	if int64(c.Width)*int64(c.Height) > maxPixels {
		return fmt.Errorf("the picture claims %d×%d pixels; more than %d are refused", c.Width, c.Height, maxPixels)
	}
	return nil
}

const pngSignature = "\x89PNG\r\n\x1a\n"

func decodePNG(dst *RGB, data []byte) error {
	config, err := png.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("broken PNG picture: %w", err)
	}
	if err := checkSize(config); err != nil {
		return err
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("broken PNG picture: %w", err)
	}
	dst.reshape(config.Width, config.Height)
	// Colour type and depth lie at fixed places of the header chunk, which comes first. With a transparent grey level
	// the decoder gives 16-bit colour, so that the picture does not tell grey any more.
	const depthAt, typeAt, grey = 24, 25, 0
	if data[depthAt] == 16 && data[typeAt] == grey {
		return fillGrey16(dst, img)
	}
	switch img := img.(type) {
	case *image.Gray:
		fillGrey(dst, img)
	case *image.Paletted:
		return fillPalette(dst, img)
	case *image.RGBA:
		fillEvery(dst, img.Pix, img.Stride, 4, 1)
	case *image.NRGBA:
		fillEvery(dst, img.Pix, img.Stride, 4, 1)
	case *image.RGBA64:
		fillEvery(dst, img.Pix, img.Stride, 8, 2)
	case *image.NRGBA64:
		fillEvery(dst, img.Pix, img.Stride, 8, 2)
	default:
		return fmt.Errorf("PNG picture of an unexpected kind %T", img)
	}
	return nil
}

// fillEvery takes R, G and B of pixels size bytes long whose samples are step bytes apart (the first byte of a 16-bit
// sample is its high one).
func fillEvery(dst *RGB, pix []byte, stride, size, step int) {
	out := dst.Pix
	for y := range dst.H {
		in := pix[y*stride:]
		for range dst.W {
			out[0], out[1], out[2] = in[0], in[step], in[2*step]
			out, in = out[3:], in[size:]
		}
	}
}

func fillGrey(dst *RGB, img *image.Gray) {
	out := dst.Pix
	for y := range dst.H {
		for _, v := range img.Pix[y*img.Stride : y*img.Stride+dst.W] {
			out[0], out[1], out[2] = v, v, v
			out = out[3:]
		}
	}
}

// fillGrey16 clips at 255 as Pillow does, instead of scaling.
func fillGrey16(dst *RGB, img image.Image) error {
	var pix []byte
	var stride, size int
	switch img := img.(type) {
	case *image.Gray16:
		pix, stride, size = img.Pix, img.Stride, 2
	case *image.NRGBA64:
		pix, stride, size = img.Pix, img.Stride, 8
	default:
		return fmt.Errorf("16-bit grey PNG picture of an unexpected kind %T", img)
	}
	out := dst.Pix
	for y := range dst.H {
		in := pix[y*stride:]
		for range dst.W {
			v := in[1]
			if in[0] > 0 {
				v = 255
			}
			out[0], out[1], out[2] = v, v, v
			out, in = out[3:], in[size:]
		}
	}
	return nil
}

// fillPalette keeps the colour of transparent entries.
func fillPalette(dst *RGB, img *image.Paletted) error {
	var table [256][3]uint8
	for i, c := range img.Palette {
		switch c := c.(type) {
		case color.RGBA:
			table[i] = [3]uint8{c.R, c.G, c.B}
		case color.NRGBA:
			table[i] = [3]uint8{c.R, c.G, c.B}
		default:
			return fmt.Errorf("PNG palette of an unexpected kind %T", c)
		}
	}
	out := dst.Pix
	for y := range dst.H {
		for _, v := range img.Pix[y*img.Stride : y*img.Stride+dst.W] {
			copy(out[:3], table[v][:])
			out = out[3:]
		}
	}
	return nil
}

func decodeJPEG(dst *RGB, data []byte) error {
	config, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("broken JPEG picture: %w", err)
	}
	if err := checkSize(config); err != nil {
		return err
	}
	img, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("broken JPEG picture: %w", err)
	}
	dst.reshape(config.Width, config.Height)
	switch img := img.(type) {
	case *image.YCbCr:
		fillYCbCr(dst, img)
	case *image.Gray:
		fillGrey(dst, img)
	case *image.RGBA:
		fillEvery(dst, img.Pix, img.Stride, 4, 1)
	case *image.CMYK:
		fillCMYK(dst, img)
	default:
		return fmt.Errorf("JPEG picture of an unexpected kind %T", img)
	}
	return nil
}

// fillCMYK converts as Pillow does: each ink is multiplied with what black leaves, rounded, and taken from it.
func fillCMYK(dst *RGB, img *image.CMYK) {
	out := dst.Pix
	for y := range dst.H {
		in := img.Pix[y*img.Stride:]
		for range dst.W {
			rest := 255 - int(in[3])
			for c := range 3 {
				ink := int(in[c])*rest + 128
				out[c] = uint8(max(0, rest-(ink+ink>>8)>>8))
			}
			out, in = out[3:], in[4:]
		}
	}
}
