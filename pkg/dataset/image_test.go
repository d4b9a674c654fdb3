package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/dataset/raster"
)

// plainResize is Pillow's resampling written down without any thought of speed: one axis, one sample at a time.
func plainResize(src *RGB, w, h int, f Filter) *RGB {
	sample := func(m *RGB, x, y, c int) float64 { return float64(m.Pix[(y*m.W+x)*3+c]) }
	pass := func(m *RGB, w, h int, in, out int, at func(m *RGB, moving, fixed, c int) float64, across bool) *RGB {
		if in == out {
			return m
		}
		dst := &RGB{W: w, H: h, Pix: make([]uint8, w*h*3)}
		scale := float64(in) / float64(out)
		support := f.support() * max(scale, 1)
		for y := range h {
			for x := range w {
				moving, fixed := x, y
				if !across {
					moving, fixed = y, x
				}
				center := (float64(moving) + 0.5) * scale
				lo, hi := max(int(center-support+0.5), 0), min(int(center+support+0.5), in)
				total := 0.0
				for i := lo; i < hi; i++ {
					total += f.at((float64(i) - center + 0.5) / max(scale, 1))
				}
				for c := range 3 {
					sum := 1 << 21
					for i := lo; i < hi; i++ {
						weight := f.at((float64(i)-center+0.5)/max(scale, 1)) / total
						sum += int(math.Round(weight*(1<<22))) * int(at(m, i, fixed, c))
					}
					dst.Pix[(y*w+x)*3+c] = uint8(min(max(sum>>22, 0), 255))
				}
			}
		}
		return dst
	}
	rows := pass(src, w, src.H, src.W, w, sample, true)
	return pass(rows, w, h, src.H, h, func(m *RGB, y, x, c int) float64 { return sample(m, x, y, c) }, false)
}

func noise(w, h int, seed uint64) *RGB {
	random := rand.New(rand.NewPCG(seed, 1))
	m := &RGB{W: w, H: h, Pix: make([]uint8, w*h*3)}
	for i := range m.Pix {
		m.Pix[i] = uint8(random.IntN(2) * 255) // extremes: the largest overshoot
		if seed%2 == 0 {
			m.Pix[i] = uint8(random.IntN(256))
		}
	}
	return m
}

func TestResizeEqualsPlainForm(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var r Resizer
	got := new(RGB)
	for i := range 150 {
		src := noise(1+random.IntN(40), 1+random.IntN(40), uint64(i))
		w, h := 1+random.IntN(50), 1+random.IntN(50)
		if i%5 == 0 {
			w = src.W
		}
		if i%7 == 0 {
			h = src.H
		}
		filter := Filter(i % 2)
		r.Resize(got, src, nil, w, h, filter)
		if want := plainResize(src, w, h, filter); !slices.Equal(got.Pix, want.Pix) || got.W != w || got.H != h {
			mean, most := difference(got, want)
			t.Fatalf("%d×%d to %d×%d with filter %d: mean difference %g, at most %d", src.W, src.H, w, h, filter, mean,
				most)
		}
	}
}

func TestResizeBox(t *testing.T) {
	src := noise(30, 20, 2)
	box := Box{Top: 3, Left: 5, Height: 11, Width: 17}
	cut := &RGB{W: 17, H: 11}
	for y := range 11 {
		at := ((y+3)*30 + 5) * 3
		cut.Pix = append(cut.Pix, src.Pix[at:at+17*3]...)
	}
	for _, size := range [][2]int{{7, 9}, {17, 4}, {4, 11}, {17, 11}} {
		got, want := Resize(src, &box, size[0], size[1], Bicubic), Resize(cut, nil, size[0], size[1], Bicubic)
		if !slices.Equal(got.Pix, want.Pix) {
			t.Errorf("a box resized to %v differs from the cut picture resized", size)
		}
	}
	for _, bad := range []Box{{0, 0, 21, 30}, {0, 0, 20, 31}, {-1, 0, 5, 5}, {0, -1, 5, 5}, {0, 0, 0, 5},
		{16, 26, 5, 4}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("box %+v is accepted", bad)
				}
			}()
			Resize(src, &bad, 4, 4, Bicubic)
		}()
	}
}

func TestNormalizeFlip(t *testing.T) {
	img := &RGB{W: 2, H: 1, Pix: []uint8{0, 51, 102, 255, 204, 153}}
	mean, std := [3]float32{0.5, 0, 0}, [3]float32{0.5, 1, 2}
	for flip, want := range map[bool][]float32{
		false: {-1, 1, 0.2, 0.8, 0.2, 0.3}, true: {1, -1, 0.8, 0.2, 0.3, 0.2},
	} {
		got := make([]float32, 6)
		Normalize(got, img, flip, mean, std)
		for i := range got {
			if math.Abs(float64(got[i]-want[i])) > 1e-6 {
				t.Errorf("flip %v: %v, want %v", flip, got, want)
				break
			}
		}
	}
}

// plainChroma is the interpolation of one chroma sample for pixel x, y, from the definition: ¾ of the nearest sample
func encodePNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestDecodePNGKinds(t *testing.T) {
	rect := image.Rect(0, 0, 2, 1)
	grey16 := image.NewGray16(rect)
	grey16.SetGray16(0, 0, color.Gray16{Y: 200})
	grey16.SetGray16(1, 0, color.Gray16{Y: 0x1234})
	rgb16 := image.NewNRGBA64(rect)
	rgb16.SetNRGBA64(0, 0, color.NRGBA64{R: 0x12ff, G: 0x3400, B: 0x5678, A: 0x8000})
	rgb16.SetNRGBA64(1, 0, color.NRGBA64{R: 0xffff, A: 0xffff})
	clear8 := image.NewNRGBA(rect)
	clear8.SetNRGBA(0, 0, color.NRGBA{R: 10, G: 20, B: 30, A: 0})
	clear8.SetNRGBA(1, 0, color.NRGBA{R: 40, G: 50, B: 60, A: 128})
	palette := image.NewPaletted(rect, color.Palette{color.NRGBA{1, 2, 3, 0}, color.NRGBA{4, 5, 6, 255}})
	palette.Pix[1] = 1
	for name, c := range map[string]struct {
		img  image.Image
		want []uint8
	}{
		"16-bit grey is clipped":             {grey16, []uint8{200, 200, 200, 255, 255, 255}},
		"16-bit colour keeps the high byte":  {rgb16, []uint8{0x12, 0x34, 0x56, 0xff, 0, 0}},
		"alpha is dropped":                   {clear8, []uint8{10, 20, 30, 40, 50, 60}},
		"transparent palette keeps a colour": {palette, []uint8{1, 2, 3, 4, 5, 6}},
	} {
		got, err := Decode(bytes.NewReader(encodePNG(t, c.img)))
		if err != nil || !slices.Equal(got.Pix, c.want) {
			t.Errorf("%s: %v %v, want %v", name, got, err, c.want)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	photo := photoLike(t, 64, 48)
	flipped := encodePNG(t, image.NewGray(image.Rect(0, 0, 20, 20)))
	flipped[20] ^= 1 // the picture's width
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":      {nil, "empty"},
		"html":       {[]byte("<html></html>"), "HTML"},
		"lfs":        {[]byte("version https://git-lfs.github.com/spec/v1"), "Git LFS"},
		"pdf":        {[]byte("%PDF-1.7"), "PDF"},
		"avif":       {[]byte("\x00\x00\x00\x20ftypavif"), "AVIF"},
		"text":       {[]byte("hello world"), "starts with 68 65"},
		"truncated":  {photo[:len(photo)*6/10], "broken JPEG"},
		"header":     {photo[:20], "broken JPEG"},
		"bit":        {flipped, "broken PNG"},
		"bomb png":   {bombPNG(1<<20, 1<<20), "refused"},
		"bomb jpeg":  {bombJPEG(photo, "\xff\xff\xff\xff"), "65500"},
		"big jpeg":   {bombJPEG(photo, "\xf0\x00\xf0\x00"), "refused"},
		"tall claim": {bombJPEG(photo, "\x20\x00\x20\x00"), "8192×8192 pixels in"},
	} {
		if _, err := Decode(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	if _, err := DecodeFile("no such.jpg"); err == nil || !strings.Contains(err.Error(), "no such.jpg") {
		t.Errorf("missing file: %v", err)
	}
}

// bombPNG is the header of a PNG picture that claims a size.
func bombPNG(w, h uint32) []byte {
	chunk := binary.BigEndian.AppendUint32([]byte("IHDR"), w)
	chunk = append(binary.BigEndian.AppendUint32(chunk, h), 8, 2, 0, 0, 0)
	data := append([]byte(raster.PNGSignature), 0, 0, 0, 13)
	data = binary.BigEndian.AppendUint32(append(data, chunk...), crc32.ChecksumIEEE(chunk))
	return append(data, "\x00\x00\x00\x00IDAT"...)
}

// bombJPEG makes a JPEG picture claim another height and width.
func bombJPEG(photo []byte, size string) []byte {
	photo = slices.Clone(photo)
	frame := bytes.Index(photo, []byte{0xff, 0xc0})
	copy(photo[frame+5:], size)
	return photo
}

// withOrientation puts an EXIF block in front of a JPEG picture's own segments.
func withOrientation(photo []byte, order binary.AppendByteOrder, mark string, value uint16) []byte {
	block := []byte("Exif\x00\x00" + mark)
	block = order.AppendUint32(order.AppendUint16(block, 42), 8)
	block = order.AppendUint16(block, 2)
	for _, entry := range [][2]uint16{{0x010f, 7}, {0x0112, value}} {
		block = order.AppendUint16(order.AppendUint16(block, entry[0]), 3)
		block = order.AppendUint16(order.AppendUint16(order.AppendUint32(block, 1), entry[1]), 0)
	}
	segment := binary.BigEndian.AppendUint16([]byte{0xff, 0xd8, 0xff, 0xe1}, uint16(len(block)+2))
	return append(append(segment, block...), photo[2:]...)
}

func TestOrientation(t *testing.T) {
	photo := photoLike(t, 8, 8)
	if got := orientation(photo); got != 1 {
		t.Errorf("no EXIF: %d", got)
	}
	for v := uint16(1); v <= 8; v++ {
		little := withOrientation(photo, binary.LittleEndian, "II", v)
		big := withOrientation(photo, binary.BigEndian, "MM", v)
		if orientation(little) != int(v) || orientation(big) != int(v) {
			t.Errorf("orientation %d is read as %d and %d", v, orientation(little), orientation(big))
		}
	}
	broken := withOrientation(photo, binary.BigEndian, "MM", 9)
	for n := range len(broken) {
		if got := orientation(broken[:n]); got != 1 {
			t.Errorf("%d bytes of a broken block give %d", n, got)
		}
	}
}

// TestOrient: a picture of 2×3 named a to f, as it is stored, and how it has to be shown (EXIF 2.3, table of tag 274).
func TestOrient(t *testing.T) {
	for o, want := range map[int]string{
		1: "ab/cd/ef", 2: "ba/dc/fe", 3: "fe/dc/ba", 4: "ef/cd/ab",
		5: "ace/bdf", 6: "eca/fdb", 7: "fdb/eca", 8: "bdf/ace",
	} {
		img, spare := &RGB{W: 2, H: 3}, new(RGB)
		for _, c := range "abcdef" {
			img.Pix = append(img.Pix, uint8(c), uint8(c), uint8(c))
		}
		orient(img, spare, o)
		var rows []string
		for y := range img.H {
			row := ""
			for x := range img.W {
				row += fmt.Sprintf("%c", img.Pix[(y*img.W+x)*3])
			}
			rows = append(rows, row)
		}
		if got := strings.Join(rows, "/"); got != want {
			t.Errorf("orientation %d shows %s, want %s", o, got, want)
		}
	}
}

// FuzzDecode checks that broken pictures are errors and that whole ones have all their samples.
func FuzzDecode(f *testing.F) {
	photo := photoLike(f, 24, 16)
	f.Add(photo)
	f.Add(photo[:len(photo)/2])
	f.Add(withOrientation(photo, binary.LittleEndian, "II", 6))
	f.Add(encodePNG(f, image.NewNRGBA64(image.Rect(0, 0, 3, 2))))
	f.Add(encodePNG(f, image.NewPaletted(image.Rect(0, 0, 3, 2), color.Palette{color.Black, color.White})))
	f.Add(bombPNG(1<<15, 1<<15))
	var grey bytes.Buffer
	if err := jpeg.Encode(&grey, image.NewGray(image.Rect(0, 0, 9, 9)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(grey.Bytes())
	for name := range pictureFiles(f) {
		data, err := os.ReadFile(filepath.Join("testdata", "pictures", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const large = 1 << 20 // larger ones only slow the search
		for _, how := range []Truncated{TruncatedReject, TruncatedAccept} {
			p := picture{limit: large}
			if err := p.read(bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			if p.open(how, true) != nil {
				continue
			}
			if _, err := p.decode(nil); err != nil {
				continue
			}
			if img := p.img; img.W < 1 || img.H < 1 || len(img.Pix) != img.W*img.H*3 || img.W != p.w || img.H != p.h {
				t.Fatalf("%d×%d with %d samples, announced as %d×%d", img.W, img.H, len(img.Pix), p.w, p.h)
			}
		}
	})
}
