package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"blip2/pkg/dataset/jpeg"
	"blip2/pkg/dataset/raster"
)

const (
	// maxPixels is where Pillow refuses a picture as a decompression bomb.
	maxPixels = 2 * 89478485
	// maxFileBytes bounds what is read of one picture.
	maxFileBytes = 256 << 20
)

// Truncated says what becomes of picture files that end too early.
type Truncated string

const (
	// TruncatedAccept takes what is there, as LAVIS does everywhere by Pillow's LOAD_TRUNCATED_IMAGES: what a JPEG file
	// lacks is grey, what a PNG, GIF, BMP or plain TIFF file lacks is black or the first colour.
	TruncatedAccept Truncated = "accept"
	// TruncatedReject makes them bad samples.
	TruncatedReject Truncated = "reject"
)

func (t Truncated) check() error {
	switch t {
	case "", TruncatedAccept, TruncatedReject:
		return nil
	}
	return fmt.Errorf("dataset: unknown treatment of truncated pictures %q; %q and %q are known", t, TruncatedAccept,
		TruncatedReject)
}

// accepts is true unless truncated files are to be rejected.
func (t Truncated) accepts() bool { return t != TruncatedReject }

// DecodeFile reads the picture at path (see Decode).
func DecodeFile(path string) (*RGB, error) { return DecodeFileAs(path, TruncatedReject) }

// DecodeFileAs is DecodeFile with a choice of what to do with truncated files.
func DecodeFileAs(path string, t Truncated) (*RGB, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: opening a picture: %w", err)
	}
	defer f.Close()
	img, err := DecodeAs(f, t)
	if err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", path, err)
	}
	return img, nil
}

// Decode reads a picture in JPEG, PNG, GIF (first frame), BMP, TIFF or WebP as Pillow's Image.open(r).convert("RGB")
// does: alpha is dropped without blending, 16-bit grey is clipped at 255, 16-bit RGB keeps its high byte, inks become
// RGB by Pillow's formula, halved chroma is interpolated as libjpeg and libwebp do it, and colour profiles are ignored.
// The orientation is applied for TIFF, where Pillow applies it, and for no other format. A file that ends too early is
// an error.
func Decode(r io.Reader) (*RGB, error) { return DecodeAs(r, TruncatedReject) }

// DecodeAs is Decode with a choice of what to do with truncated files; accepting them is what Pillow does when
// LOAD_TRUNCATED_IMAGES is set.
func DecodeAs(r io.Reader, t Truncated) (*RGB, error) {
	var p picture
	if err := p.read(r); err != nil {
		return nil, err
	}
	if err := p.open(t, false); err != nil {
		return nil, err
	}
	if _, err := p.decode(nil); err != nil {
		return nil, err
	}
	return &p.img, nil
}

// picture decodes one picture after the other and keeps its memory from one to the next.
type picture struct {
	file  bytes.Buffer
	jpeg  jpegDecoder
	img   RGB // the part that was decoded
	spare RGB

	w, h    int  // of the whole picture
	pending bool // a JPEG picture is open and not decoded yet
	lenient bool
	limit   int64 // pixels beyond which pictures are refused; 0 means maxPixels
}

// jpegDecoder is what a decoder of JPEG pictures has to do; jpeg.Decoder says how.
type jpegDecoder interface {
	Open(data []byte) (width, height int, err error)
	Decode(dst []byte, part jpeg.Part, lenient bool) error
}

// read takes in the file of the next picture.
func (p *picture) read(r io.Reader) error {
	p.file.Reset()
	n, err := p.file.ReadFrom(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return fmt.Errorf("reading the picture: %w", err)
	}
	if n > maxFileBytes {
		return errTooLarge
	}
	return nil
}

var errTooLarge = fmt.Errorf("the file is larger than %d MiB; that is no picture to train on", maxFileBytes>>20)

// open finds out the picture's size; turn has its EXIF orientation applied. JPEG pictures that need no turning are
// decoded later, when it is known which part of them is wanted; all others are decoded here.
func (p *picture) open(t Truncated, turn bool) error {
	data := p.file.Bytes()
	p.lenient, p.pending = t.accepts(), false
	way := 1
	switch format := formatOf(data); format {
	case "":
		return unknownFormat(data)
	case "JPEG":
		return p.openJPEG(data, turn)
	default:
		var err error
		if way, err = p.decodeRaster(format, data); err != nil {
			return fmt.Errorf("broken %s picture: %w", format, err)
		}
	}
	orient(&p.img, &p.spare, way)
	p.w, p.h = p.img.W, p.img.H
	return nil
}

func (p *picture) openJPEG(data []byte, turn bool) error {
	if p.jpeg == nil {
		p.jpeg = newJPEGDecoder()
	}
	w, h, err := p.jpeg.Open(data)
	if err == nil {
		err = errors.Join(p.checkSize(w, h), checkClaim(w, h, len(data)))
	}
	if err != nil {
		return fmt.Errorf("broken JPEG picture: %w", err)
	}
	p.w, p.h, p.pending = w, h, true
	way := 1
	if turn {
		way = orientation(data)
	}
	if way == 1 {
		return nil
	}
	if _, err := p.decode(nil); err != nil {
		return err
	}
	orient(&p.img, &p.spare, way)
	p.w, p.h = p.img.W, p.img.H
	return nil
}

// checkClaim refuses JPEG files that claim a large picture and are far too small for it: even one colour all over takes
// a byte for some 300 pixels, and a file cut short so early is worth nothing.
func checkClaim(w, h, size int) error {
	const large, perByte = 1 << 24, 2000
	if pixels := int64(w) * int64(h); pixels > large && pixels > perByte*int64(size) {
		return fmt.Errorf("the picture claims %d×%d pixels in %d bytes; refused", w, h, size)
	}
	return nil
}

// decode decodes at least the given part (nil: all) of the open picture and says where in img that part lies (nil: it
// is all of img). A pending JPEG picture is decoded no further than needed.
func (p *picture) decode(part *Box) (at *Box, err error) {
	if !p.pending {
		return part, nil
	}
	p.pending = false
	box := Box{Height: p.h, Width: p.w}
	if part != nil {
		box = *part
	}
	p.img.reshape(box.Width, box.Height)
	err = p.jpeg.Decode(p.img.Pix, jpeg.Part{Left: box.Left, Top: box.Top, Width: box.Width, Height: box.Height},
		p.lenient)
	if err != nil {
		return nil, fmt.Errorf("broken JPEG picture: %w", err)
	}
	return nil, nil
}

// decodeRaster decodes a whole picture that is not JPEG, and gives the orientation it is to be turned by.
func (p *picture) decodeRaster(format string, data []byte) (orientation int, err error) {
	canvas := func(w, h int) ([]byte, error) {
		if err := p.checkSize(w, h); err != nil {
			return nil, err
		}
		p.img.reshape(w, h)
		return p.img.Pix, nil
	}
	switch format {
	case "PNG":
		return 1, raster.DecodePNG(data, p.lenient, canvas)
	case "GIF":
		return 1, raster.DecodeGIF(data, p.lenient, canvas)
	case "BMP":
		return 1, raster.DecodeBMP(data, p.lenient, canvas)
	case "WebP":
		return 1, raster.DecodeWebP(data, canvas)
	}
	return raster.DecodeTIFF(data, p.lenient, canvas)
}

// formatOf tells the format of a picture from its first bytes, "" if it is none that can be read.
func formatOf(data []byte) string {
	for _, known := range []struct{ prefix, name string }{
		{"\xff\xd8\xff", "JPEG"}, {raster.PNGSignature, "PNG"}, {"GIF87a", "GIF"}, {"GIF89a", "GIF"}, {"BM", "BMP"},
		{"II*\x00", "TIFF"}, {"MM\x00*", "TIFF"}, {"II+\x00", "TIFF"}, {"MM\x00+", "TIFF"},
	} {
		if bytes.HasPrefix(data, []byte(known.prefix)) {
			return known.name
		}
	}
	if len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP" {
		return "WebP"
	}
	return ""
}

// unknownFormat says what the bytes look like instead of a picture.
func unknownFormat(data []byte) error {
	const formats = "not a JPEG, PNG, GIF, BMP, TIFF or WebP picture"
	head := bytes.TrimSpace(data[:min(len(data), 512)])
	for _, known := range []struct{ prefix, name string }{
		{"<", "an HTML or XML page"}, {"version https://git-lfs", "a Git LFS pointer, not the picture itself"},
		{"%PDF", "a PDF document"}, {"\x1f\x8b", "compressed by gzip"}, {"PK\x03\x04", "a zip archive"},
	} {
		if bytes.HasPrefix(head, []byte(known.prefix)) {
			return fmt.Errorf("%s but %s", formats, known.name)
		}
	}
	if len(data) >= 12 && string(data[4:8]) == "ftyp" {
		return errors.New(formats + " but AVIF, HEIC or a film; convert it first")
	}
	if len(data) == 0 {
		return errors.New("the file is empty")
	}
	return fmt.Errorf("%s (starts with % x)", formats, head[:min(len(head), 8)])
}

// checkSize refuses pictures that would not fit into memory before their samples are decoded.
func (p *picture) checkSize(w, h int) error {
	limit := p.limit
	if limit == 0 {
		limit = maxPixels
	}
	if w < 1 || h < 1 {
		return fmt.Errorf("the picture has no pixels (%d×%d)", w, h)
	}
	if int64(w)*int64(h) > limit {
		return fmt.Errorf("the picture claims %d×%d pixels; more than %d are refused", w, h, limit)
	}
	return nil
}
