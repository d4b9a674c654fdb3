package dataset

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// photoLike makes a JPEG picture with gradients and texture, 4:2:0, about as large per pixel as a COCO photo.
func photoLike(t testing.TB, w, h int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	noise := newStream(1, 0, 0, purposeOrder)
	for y := range h {
		for x := range w {
			wave := 60 * math.Sin(float64(x)/9) * math.Cos(float64(y)/7)
			grain := float64(noise.intN(24))
			img.SetRGBA(x, y, color.RGBA{
				clampFloat(float64(x*200/w) + wave + grain), clampFloat(float64(y*180/h) + grain - wave/2),
				clampFloat(120 + wave/3 + grain), 255})
		}
	}
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func clampFloat(v float64) uint8 { return uint8(min(max(v, 0), 255)) }

// open makes p hold the picture in data.
func open(b *testing.B, p *picture, data []byte) {
	b.Helper()
	if err := p.read(bytes.NewReader(data)); err != nil {
		b.Fatal(err)
	}
	if err := p.open(TruncatedAccept, false); err != nil {
		b.Fatal(err)
	}
}

// perSecond reports the rate of pictures.
func perSecond(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "img/s") }

func BenchmarkDecode640x480(b *testing.B) {
	var p picture
	data := photoLike(b, 640, 480)
	b.ReportAllocs()
	for b.Loop() {
		open(b, &p, data)
		if _, err := p.decode(nil); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b)
}

func BenchmarkGoDecoderAlone640x480(b *testing.B) {
	data := photoLike(b, 640, 480)
	for b.Loop() {
		if _, err := jpeg.Decode(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b)
}

func BenchmarkResize640x480To224(b *testing.B) {
	src, err := Decode(bytes.NewReader(photoLike(b, 640, 480)))
	if err != nil {
		b.Fatal(err)
	}
	var dst RGB
	var r Resizer
	b.ReportAllocs()
	for b.Loop() {
		r.Resize(&dst, src, nil, 224, 224, Bicubic)
	}
	perSecond(b)
}

func BenchmarkNormalize224(b *testing.B) {
	img := RGB{W: 224, H: 224, Pix: make([]uint8, 224*224*3)}
	dst := make([]float32, len(img.Pix))
	b.ReportAllocs()
	for b.Loop() {
		Normalize(dst, &img, true, CLIPMean(), CLIPStd())
	}
	perSecond(b)
}

// BenchmarkDecodeAndResize is the whole way of one training picture on one core.
func BenchmarkDecodeAndResize(b *testing.B) {
	data := photoLike(b, 640, 480)
	var s scratch
	dst := make([]float32, 3*224*224)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		open(b, &s.picture, data)
		box := DefaultCrop().RandomBox(s.w, s.h, 1, 0, i)
		if err := s.write(dst, transform{box: &box, size: 224, mean: CLIPMean(), std: CLIPStd()}); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b)
}

// BenchmarkOpenAnnotations reads through a list of web captions once; BenchmarkExample reads entries of it again.
func BenchmarkOpenAnnotations(b *testing.B) {
	const n = 200_000
	file := generated(b, n, webRow)
	info, err := os.Stat(file.Annotations)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		src, err := OpenAnnotations(file)
		if err != nil || src.Len() != n {
			b.Fatal(err)
		}
		src.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
}

func BenchmarkExample(b *testing.B) {
	const n = 200_000
	src, err := OpenAnnotations(generated(b, n, webRow))
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	for i := 0; b.Loop(); i++ {
		if _, err := src.Example(i * 7919 % n); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOrder finds what stands at a position of the paper's mixture.
func BenchmarkOrder(b *testing.B) {
	m, err := NewMixture(Mix{By: MixBLIP1}, Part{Source: numbered{"coco", 113_287, 9}},
		Part{Source: numbered{"web", 13_860_000, 1}}, Part{Source: numbered{"laion", 115_000_000, 1}, Share: 0.2})
	if err != nil {
		b.Fatal(err)
	}
	o := m.order(1, 2)
	for i := int64(0); b.Loop(); i++ {
		o.image(o.at(i * 7919 % m.Rows()))
	}
}

func webRow(i int) string {
	return fmt.Sprintf(`{"image":"%05d/%09d.jpg","caption":"a picture of thing number %d on a table, stock photo"}`,
		i/10000, i, i)
}

// BenchmarkParquetPicture opens pictures of 50 kB in an order of their own.
func BenchmarkParquetPicture(b *testing.B) {
	type row struct {
		Image   []byte `parquet:"image"`
		Caption string `parquet:"caption"`
	}
	const n, size = 1000, 50_000
	var buf bytes.Buffer
	w := parquet.NewGenericWriter[row](&buf, parquet.Compression(&parquet.Snappy), parquet.MaxRowsPerRowGroup(100))
	random := newStream(1, 2, 3, purposeCrop)
	for i := range n {
		data := make([]byte, size)
		for k := range data {
			data[k] = byte(random.next())
		}
		if _, err := w.Write([]row{{data, fmt.Sprint("caption ", i)}}); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "pictures.parquet")
	if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
		b.Fatal(err)
	}
	src, err := OpenAnnotations(AnnotationFile{Annotations: file})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	b.SetBytes(size)
	for i := 0; b.Loop(); i++ {
		r, err := src.Open(i * 379 % n)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
