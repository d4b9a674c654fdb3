package dataset

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"testing"
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

// perSecond reports the rate of pictures.
func perSecond(b *testing.B) { b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "img/s") }

func BenchmarkDecode640x480(b *testing.B) {
	data := photoLike(b, 640, 480)
	var img RGB
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeBytes(&img, data); err != nil {
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
	var src, dst RGB
	if err := decodeBytes(&src, photoLike(b, 640, 480)); err != nil {
		b.Fatal(err)
	}
	var r Resizer
	b.ReportAllocs()
	for b.Loop() {
		r.Resize(&dst, &src, nil, 224, 224, Bicubic)
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
		if err := decodeInto(&s.img, &s.file, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		box := DefaultCrop().RandomBox(s.img.W, s.img.H, 1, 0, i)
		s.write(dst, &box, 224, false, CLIPMean(), CLIPStd())
	}
	perSecond(b)
}
