package jpeg

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// pictures are the JPEG files of the dataset package's tests, which compare them with libjpeg-turbo's samples.
func pictures(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", "testdata", "pictures", "*.jpg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := new(Decoder).Open(data); err == nil { // some are cut within the header
			all[filepath.Base(name)] = data
		}
	}
	return all
}

// whole decodes a picture without a care for its end.
func whole(t testing.TB, d *Decoder, data []byte) (w, h int, pix []byte) {
	t.Helper()
	w, h, err := d.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	pix = make([]byte, 3*w*h)
	if err := d.Decode(pix, Part{Width: w, Height: h}, true); err != nil {
		t.Fatal(err)
	}
	return w, h, pix
}

// TestPartsEqualWhole: a part that is decoded alone has the samples of the whole picture, wherever it lies.
func TestPartsEqualWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var d Decoder
	for name, data := range pictures(t) {
		w, h, pix := whole(t, &d, data)
		for range 40 {
			p := Part{Width: 1 + random.IntN(w), Height: 1 + random.IntN(h)}
			p.Left, p.Top = random.IntN(w-p.Width+1), random.IntN(h-p.Height+1)
			got := make([]byte, 3*p.Width*p.Height)
			if _, _, err := d.Open(data); err != nil {
				t.Fatal(err)
			}
			if err := d.Decode(got, p, true); err != nil {
				t.Fatalf("%s: %+v: %v", name, p, err)
			}
			for y := range p.Height {
				want := pix[((p.Top+y)*w+p.Left)*3:][:3*p.Width]
				if !bytes.Equal(got[y*3*p.Width:(y+1)*3*p.Width], want) {
					t.Fatalf("%s: part %+v of %d×%d differs in row %d", name, p, w, h, y)
				}
			}
		}
	}
}

// TestReuse: nothing of one picture is left in the next.
func TestReuse(t *testing.T) {
	all := pictures(t)
	var used Decoder
	for range 3 {
		for name, data := range all { // in another order every time
			_, _, want := whole(t, new(Decoder), data)
			if _, _, got := whole(t, &used, data); !bytes.Equal(got, want) {
				t.Errorf("%s differs when other pictures came before", name)
			}
		}
	}
}

// TestNoAllocation: once its memory is there, a decoder takes no more.
func TestNoAllocation(t *testing.T) {
	var d Decoder
	for _, name := range []string{"jpeg-420-35x29.jpg", "jpeg-q30-progressive.jpg", "jpeg-inks2.jpg"} {
		data := pictures(t)[name]
		w, h, pix := whole(t, &d, data)
		if n := testing.AllocsPerRun(20, func() {
			if _, _, err := d.Open(data); err != nil {
				t.Fatal(err)
			}
			if err := d.Decode(pix, Part{Width: w, Height: h}, true); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %g allocations per picture", name, n)
		}
	}
}

// TestTruncated: a file cut anywhere in its samples is an error, and a picture whose beginning is right if lenient.
func TestTruncated(t *testing.T) {
	var d Decoder
	for _, name := range []string{"jpeg-420-35x29.jpg", "jpeg-planes.jpg", "jpeg-q90-optimize.jpg"} {
		data := pictures(t)[name]
		w, h, want := whole(t, &d, data)
		for n := bytes.LastIndex(data, []byte{0xff, 0xda}) + 14; n < len(data)-2; n += 7 {
			if _, _, err := d.Open(data[:n]); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			if err := d.Decode(got, Part{Width: w, Height: h}, false); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: %d of %d bytes: %v", name, n, len(data), err)
			}
			if _, _, got = whole(t, &d, data[:n]); name == "jpeg-q90-optimize.jpg" && n > len(data)/2 &&
				!bytes.Equal(got[:3*w*h/4], want[:3*w*h/4]) {
				t.Errorf("%s: %d of %d bytes lose the first quarter", name, n, len(data))
			}
		}
	}
}

// patch replaces the first occurrence of a pattern.
func patch(data []byte, old, new string) []byte {
	return bytes.Replace(data, []byte(old), []byte(new), 1)
}

func TestRefused(t *testing.T) {
	all := pictures(t)
	photo, progressive := all["jpeg-420-35x29.jpg"], all["jpeg-q30-progressive.jpg"]
	frame := bytes.Index(photo, []byte{0xff, 0xc0})
	with := func(at int, value string) []byte {
		data := slices.Clone(photo)
		copy(data[frame+at:], value)
		return data
	}
	sos := bytes.Index(progressive, []byte{0xff, 0xda})
	firstScan := string(progressive[sos : sos+14]) // three components, DC alone
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":           {nil, "not a JPEG"},
		"start alone":       {photo[:2], "not a JPEG"},
		"header cut":        {photo[:frame+6], "cut off"},
		"end at once":       {[]byte("\xff\xd8\xff\xd9"), "no picture"},
		"no height":         {with(5, "\x00\x00"), "no pixels"},
		"too wide":          {with(7, "\xff\xff"), "65500"},
		"12 bits":           {with(4, "\x0c"), "12 bits"},
		"lossless":          {patch(photo, "\xff\xc0", "\xff\xc3"), "SOF3"},
		"arithmetic":        {patch(photo, "\xff\xc0", "\xff\xc9"), "SOF9"},
		"two components":    {with(9, "\x02"), "length"},
		"sampling 0":        {with(11, "\x00"), "sampling"},
		"sampling 3 of 2":   {with(14, "\x31"), "sampling"},
		"no table":          {with(12, "\x03"), "quantisation"},
		"no Huffman table":  {patch(photo, "\xff\xc4", "\xff\xfe"), "Huffman"},
		"segment too short": {[]byte("\xff\xd8\xff\xfe\x00\x01"), "length field"},
		"scan parameters":   {patch(progressive, firstScan, firstScan[:len(firstScan)-2]+"\x05\x01"), "parameters"},
		"scans without end": {endless(progressive, 501), "scans; refused"},
	} {
		var d Decoder
		w, h, err := d.Open(c.data)
		if err == nil {
			err = d.Decode(make([]byte, 3*w*h), Part{Width: w, Height: h}, true)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// endless repeats the last scan of a progressive picture, in a way that needs a few bytes each time.
func endless(data []byte, times int) []byte {
	sos := bytes.LastIndex(data, []byte{0xff, 0xda})
	head := int(data[sos+2])<<8 | int(data[sos+3])
	scan := data[sos : sos+2+head]
	return append(slices.Clone(data[:sos]), append(bytes.Repeat(scan, times), 0xff, markEOI)...)
}

// TestManyScansOfABigPicture: 500 scans over 100 megapixels would take minutes; they are refused in time.
func TestManyScansOfABigPicture(t *testing.T) {
	data := endless(pictures(t)["jpeg-L-True.jpg"], 490)
	frame := bytes.Index(data, []byte{0xff, 0xc2})
	copy(data[frame+5:], "\x10\x00\x10\x00")
	var d Decoder
	w, h, err := d.Open(data)
	if err != nil || w != 4096 || h != 4096 {
		t.Fatal(w, h, err)
	}
	start := time.Now()
	// Whatever comes of it, it must come soon: the limit of the test is far above what it takes.
	err = d.Decode(make([]byte, 3*w*h), Part{Width: w, Height: h}, true)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("%v for a file of %d bytes (%v)", took, len(data), err)
	}
}

// TestVectorsEqualPlain: the vector code gives what the plain code gives, for any input.
func TestVectorsEqualPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.IntN(256))
		}
		return b
	}
	equal := func(name string, n int, vector, plain func(out []byte)) {
		t.Helper()
		a, b := make([]byte, n), make([]byte, n)
		vector(a)
		plain(b)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s of %d differs", name, n)
		}
	}
	for n := range 100 {
		y, cb, cr := noise(n), noise(n), noise(n)
		equal("colour", 3*n, func(o []byte) { colorRow(o, y, cb, cr) }, func(o []byte) { colorRowPlain(o, y, cb, cr) })
		bias := uint16(1 + n%2)
		equal("mix", n, func(o []byte) { mixRows(o, y, cb, bias) }, func(o []byte) { mixRowsPlain(o, y, cb, bias) })
		a, b := make([]uint16, n+2), make([]uint16, n+2)
		weigh(a[1:], y, cb)
		weighPlain(b[1:], y, cb)
		if !slices.Equal(a, b) {
			t.Fatalf("weights of %d differ", n)
		}
		equal("widen", 2*n, func(o []byte) { widenRow(o, a, 8, 7) }, func(o []byte) { widenRowPlain(o, a, 8, 7) })
	}
	for i := range 400 {
		blocks := 1 + random.IntN(5)
		coefs, quant := make([]int16, 64*blocks), [64]uint16{}
		for k := range quant {
			quant[k] = uint16(1 + random.IntN(60))
		}
		for k := range coefs {
			switch {
			case i%4 == 0: // anything at all
				coefs[k] = int16(random.IntN(1 << 16))
			case random.IntN(4) == 0:
				coefs[k] = int16(random.IntN(200) - 100)
			}
		}
		equal("transform", 64*blocks, func(o []byte) { inverseRow(o, 8*blocks, coefs, &quant) },
			func(o []byte) { inverseRowPlain(o, 8*blocks, coefs, &quant) })
	}
}

// FuzzDecode: no bytes make the decoder panic, and what it decodes in part it decodes the same as a whole.
func FuzzDecode(f *testing.F) {
	for _, data := range pictures(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Decoder
		w, h, err := d.Open(data)
		if err != nil || w*h > 1<<20 {
			return
		}
		pix := make([]byte, 3*w*h)
		if d.Decode(pix, Part{Width: w, Height: h}, true) != nil {
			return
		}
		p := Part{Left: w / 3, Top: h / 3, Width: max(w/3, 1), Height: max(h/3, 1)}
		part := make([]byte, 3*p.Width*p.Height)
		if _, _, err := d.Open(data); err != nil {
			t.Fatal(err)
		}
		if err := d.Decode(part, p, true); err != nil {
			t.Fatal(err)
		}
		for y := range p.Height {
			if !bytes.Equal(part[y*3*p.Width:(y+1)*3*p.Width], pix[((p.Top+y)*w+p.Left)*3:][:3*p.Width]) {
				t.Fatalf("part %+v of %d×%d differs in row %d", p, w, h, y)
			}
		}
	})
}

func BenchmarkInverse(b *testing.B) {
	coefs, quant := make([]int16, 64*80), [64]uint16{}
	for i := range coefs {
		coefs[i] = int16(i%9 - 4)
	}
	for i := range quant {
		quant[i] = uint16(i + 3)
	}
	out := make([]byte, 64*80)
	b.SetBytes(int64(len(out)))
	for b.Loop() {
		inverseRow(out, 640, coefs, &quant)
	}
}

func BenchmarkColor(b *testing.B) {
	y, out := make([]byte, 640), make([]byte, 3*640)
	b.SetBytes(640)
	for b.Loop() {
		colorRow(out, y, y, y)
	}
}
