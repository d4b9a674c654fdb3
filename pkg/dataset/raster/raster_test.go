package raster

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// errLarge is what the tests' canvas refuses pictures with.
var errLarge = errors.New("too large for a test")

// canvas gives memory for up to 2²⁰ pixels and keeps the size.
type canvas struct {
	w, h int
	pix  []byte
}

func (c *canvas) give(w, h int) ([]byte, error) {
	if int64(w)*int64(h) > 1<<20 {
		return nil, errLarge
	}
	c.w, c.h, c.pix = w, h, bytes.Repeat([]byte{77}, 3*w*h)
	return c.pix, nil
}

// files are the pictures of the dataset package's tests with the given ending.
func files(t testing.TB, ext string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "testdata", "pictures", "*."+ext))
	if err != nil || len(names) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = data
	}
	return all
}

// decoders are the formats with the ending of their files.
func decoders() map[string]func(data []byte, lenient bool, c Canvas) error {
	return map[string]func([]byte, bool, Canvas) error{
		"png": DecodePNG, "gif": DecodeGIF, "bmp": DecodeBMP,
		"tif": func(data []byte, lenient bool, c Canvas) error {
			_, err := DecodeTIFF(data, lenient, c)
			return err
		},
		"webp": func(data []byte, _ bool, c Canvas) error { return DecodeWebP(data, c) },
	}
}

// TestCutAnywhere: no beginning of a file makes a decoder panic or decode less than it says.
func TestCutAnywhere(t *testing.T) {
	for ext, decode := range decoders() {
		for name, data := range files(t, ext) {
			for n := 0; n < len(data); n += 1 + len(data)/60 {
				for _, lenient := range []bool{false, true} {
					var c canvas
					if err := decode(data[:n], lenient, c.give); err == nil && len(c.pix) == 0 {
						t.Errorf("%s: %d bytes are no error and no picture", name, n)
					}
				}
			}
		}
	}
}

// TestSizeIsAskedFirst: a decoder asks for the canvas before it decompresses anything, and stops where it is refused.
func TestSizeIsAskedFirst(t *testing.T) {
	refuse := func(int, int) ([]byte, error) { return nil, errLarge }
	for ext, decode := range decoders() {
		asked := 0
		for name, data := range files(t, ext) {
			if err := decode(data, true, refuse); errors.Is(err, errLarge) {
				asked++
			} else if err == nil {
				t.Errorf("%s: decoded without a canvas", name)
			}
		}
		if asked == 0 {
			t.Errorf("%s: no file got as far as its size", ext)
		}
	}
}

func chunk(name string, body []byte) []byte {
	out := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), name...)
	out = append(out, body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

func pngHeader(w, h uint32, depth, kind byte) []byte {
	body := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	return append([]byte(PNGSignature), chunk("IHDR", append(body, depth, kind, 0, 0, 0))...)
}

// TestEndlessSamples: a small PNG whose stream would inflate to gigabytes is read no further than its rows.
func TestEndlessSamples(t *testing.T) {
	var packed bytes.Buffer
	w, err := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 64 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	data := append(pngHeader(10, 10, 8, 2), chunk("IDAT", packed.Bytes())...)
	var c canvas
	if n := testing.AllocsPerRun(1, func() { err = DecodePNG(data, false, c.give) }); err != nil || n > 200 {
		t.Errorf("%v, %g allocations", err, n)
	}
}

func TestRefused(t *testing.T) {
	tiff := func(entries ...[4]uint32) []byte { // tag, type, count, value
		out := []byte("II*\x00\x08\x00\x00\x00")
		out = binary.LittleEndian.AppendUint16(out, uint16(len(entries)))
		for _, e := range entries {
			out = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(out, uint16(e[0])), uint16(e[1]))
			out = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(out, e[2]), e[3])
		}
		return append(out, 8, 0, 0, 0) // the next directory is this one again
	}
	size := [][4]uint32{{tagWidth, 4, 1, 5}, {tagHeight, 4, 1, 5}, {tagBits, 3, 1, 8}, {tagPhotometric, 3, 1, 1}}
	with := func(more ...[4]uint32) []byte { return tiff(append(append([][4]uint32{}, size...), more...)...) }
	bmp := func(at int, value uint32) []byte {
		data := bytes.Clone(files(t, "bmp")["bmp-8.bmp"])
		binary.LittleEndian.PutUint32(data[at:], value)
		return data
	}
	gif := files(t, "gif")["gif-plain.gif"]
	comments := bytes.Repeat([]byte("!\xfe\x00"), 1<<16)
	large := bytes.Clone(files(t, "webp")["webp-lossless.webp"])
	copy(large[21:], "\xff\xff\xff\x0f")
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"png bomb":             {append(pngHeader(1<<30, 1<<30, 8, 2), chunk("IDAT", nil)...), errLarge.Error()},
		"png of 3 bits":        {pngHeader(4, 4, 3, 0), "does not exist"},
		"png palette of 16":    {pngHeader(4, 4, 16, 3), "does not exist"},
		"png without samples":  {append(pngHeader(4, 4, 8, 2), chunk("IEND", nil)...), "no samples"},
		"png without header":   {append([]byte(PNGSignature), chunk("IDAT", nil)...), "no header"},
		"bmp bomb":             {bmp(18, 1<<30), errLarge.Error()},
		"bmp of 5 bits":        {bmp(28, 5), "5 bits"},
		"bmp palette bomb":     {bmp(46, 1<<31), "colours"},
		"bmp compression":      {bmp(30, 4), "compression 4"},
		"bmp header":           {bmp(14, 41), "41 bytes"},
		"gif bomb":             {append([]byte("GIF89a\xff\xff\xff\xff"), gif[10:]...), errLarge.Error()},
		"gif of extensions":    {append(bytes.Clone(gif[:13+48]), comments...), ErrTruncated.Error()},
		"gif without picture":  {append(bytes.Clone(gif[:13+48]), ';'), "no picture"},
		"tiff past its end":    {with([4]uint32{tagStripOffsets, 4, 1, 60}), ErrTruncated.Error()},
		"tiff without samples": {with(), "where its samples are"},
		"tiff bomb": {tiff([4]uint32{tagWidth, 4, 1, 1 << 30}, [4]uint32{tagHeight, 4, 1, 1 << 30}, size[2],
			size[3]), errLarge.Error()},
		"tiff of 7 bits": {tiff(size[0], size[1], [4]uint32{tagBits, 3, 1, 7}, size[3]), "7 bits"},
		"tiff compression": {with([4]uint32{tagStripOffsets, 4, 1, 8}, [4]uint32{tagCompression, 3, 1, 9999}),
			"9999"},
		"tiff tiles": {with([4]uint32{tagTileOffsets, 4, 1, 8}, [4]uint32{tagTileWidth, 4, 1, 60000},
			[4]uint32{tagTileHeight, 4, 1, 60000}), "60000"},
		"tiff count":    {with([4]uint32{tagStripOffsets, 4, 1 << 30, 8}), "where its samples are"},
		"webp bomb":     {large, errLarge.Error()},
		"webp no riff":  {[]byte("RIFF\x00\x00\x00\x00WEBX"), "not a WebP"},
		"webp no room":  {[]byte("RIFF\x01\x00\x00\x00WEBP"), errWebP.Error()},
		"webp no chunk": {[]byte("RIFF\x04\x00\x00\x00WEBP"), "no picture"},
	} {
		decode := decoders()[strings.Replace(strings.Fields(name)[0], "tiff", "tif", 1)]
		var c2 canvas
		if err := decode(c.data, false, c2.give); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// fuzz feeds a decoder with anything, beginning with the pictures of its format.
func fuzz(f *testing.F, ext string) {
	for _, data := range files(f, ext) {
		f.Add(data)
	}
	decode := decoders()[ext]
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, lenient := range []bool{false, true} {
			var c canvas
			if err := decode(data, lenient, c.give); err == nil && len(c.pix) == 0 {
				t.Fatal("no error and no picture")
			}
		}
	})
}

func FuzzPNG(f *testing.F)  { fuzz(f, "png") }
func FuzzGIF(f *testing.F)  { fuzz(f, "gif") }
func FuzzBMP(f *testing.F)  { fuzz(f, "bmp") }
func FuzzTIFF(f *testing.F) { fuzz(f, "tif") }
func FuzzWebP(f *testing.F) { fuzz(f, "webp") }
