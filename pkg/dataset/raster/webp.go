package raster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"

	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"
)

// errWebP is a file whose container does not hold.
var errWebP = errors.New("the WebP file is broken")

// DecodeWebP reads a WebP picture, lossy or lossless, or the first frame of an animation. Of a truncated file nothing
// is given, as libwebp gives nothing.
func DecodeWebP(data []byte, canvas Canvas) error {
	if len(data) < 12 || string(data[:4]) != "RIFF" || string(data[8:12]) != "WEBP" {
		return errors.New("not a WebP file")
	}
	size := uint64(binary.LittleEndian.Uint32(data[4:]))
	switch {
	case size < 4: // shorter than what was just read
		return errWebP
	case size+8 > uint64(len(data)):
		return ErrTruncated
	}
	rest := data[12 : size+8]
	var screen image.Point
	for len(rest) > 0 {
		kind, body, after, err := riffChunk(rest)
		if err != nil {
			return err
		}
		rest = after
		switch kind {
		case "VP8X":
			if len(body) < 10 {
				return errWebP
			}
			screen = image.Pt(uint24(body[4:])+1, uint24(body[7:])+1)
		case "ANMF":
			return webpFrame(body, screen, canvas)
		case "VP8 ", "VP8L":
			return webpPicture(kind, body, screen, image.Point{}, canvas)
		}
	}
	return fmt.Errorf("%w: it holds no picture", errWebP)
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// riffChunk cuts off the first chunk.
func riffChunk(b []byte) (kind string, body, rest []byte, err error) {
	if len(b) < 8 {
		return "", nil, nil, ErrTruncated
	}
	n := uint64(binary.LittleEndian.Uint32(b[4:]))
	if n+8 > uint64(len(b)) {
		return "", nil, nil, ErrTruncated
	}
	next := min(8+n+n&1, uint64(len(b)))
	return string(b[:4]), b[8 : 8+n], b[next:], nil
}

// webpFrame reads the first frame of an animation.
func webpFrame(body []byte, screen image.Point, canvas Canvas) error {
	if len(body) < 16 {
		return errWebP
	}
	at := image.Pt(2*uint24(body), 2*uint24(body[3:]))
	for rest := body[16:]; len(rest) > 0; {
		kind, picture, after, err := riffChunk(rest)
		if err != nil {
			return err
		}
		if kind == "VP8 " || kind == "VP8L" {
			return webpPicture(kind, picture, screen, at, canvas)
		}
		rest = after
	}
	return errWebP
}

// webpPicture decodes one picture and puts it on the screen, which is as large as the picture if it is not given.
func webpPicture(kind string, body []byte, screen, at image.Point, canvas Canvas) error {
	lossy := vp8.NewDecoder()
	var size image.Point
	if kind == "VP8 " {
		lossy.Init(bytes.NewReader(body), len(body))
		head, err := lossy.DecodeFrameHeader()
		if err != nil {
			return fmt.Errorf("%w: %v", errWebP, err)
		}
		size = image.Pt(head.Width, head.Height)
	} else {
		c, err := vp8l.DecodeConfig(bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("%w: %v", errWebP, err)
		}
		size = image.Pt(c.Width, c.Height)
	}
	if screen == (image.Point{}) {
		screen = size
	}
	if at.X+size.X > screen.X || at.Y+size.Y > screen.Y {
		return fmt.Errorf("%w: its frame leaves the screen", errWebP)
	}
	pix, err := blank(canvas, screen.X, screen.Y)
	if err != nil {
		return err
	}
	from := pix[(at.Y*screen.X+at.X)*3:]
	if kind == "VP8 " {
		img, err := lossy.DecodeFrame()
		if err != nil {
			return fmt.Errorf("%w: %v", errWebP, err)
		}
		writeYUV(from, screen.X*3, img)
		return nil
	}
	img, err := vp8l.Decode(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %v", errWebP, err)
	}
	rgba, ok := img.(*image.NRGBA)
	if !ok {
		return errWebP
	}
	for y := range size.Y {
		in := rgba.Pix[y*rgba.Stride:]
		for x := range size.X {
			copy(from[(y*screen.X+x)*3:][:3], in[4*x:])
		}
	}
	return nil
}

// writeYUV converts lossy samples as libwebp does: chroma is interpolated in both directions, 9:3:3:1 in two rounded
// steps, then converted from the limited range of BT.601.
func writeYUV(pix []byte, stride int, img *image.YCbCr) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	cw, ch := (w+1)/2, (h+1)/2
	us, vs := make([]byte, w), make([]byte, w)
	for y := range h {
		// The row of chroma that lies nearer, and the one on the other side.
		near := y / 2
		far := min(max(near+y%2*2-1, 0), ch-1)
		fancyRow(us, img.Cb[near*img.CStride:][:cw], img.Cb[far*img.CStride:][:cw])
		fancyRow(vs, img.Cr[near*img.CStride:][:cw], img.Cr[far*img.CStride:][:cw])
		luma, out := img.Y[y*img.YStride:][:w], pix[y*stride:]
		for x, l := range luma {
			yuvPixel(out[3*x:3*x+3], int32(l), int32(us[x]), int32(vs[x]))
		}
	}
}

// fancyRow interpolates a row of chroma to full width.
func fancyRow(out, near, far []byte) {
	w := len(out)
	edge := func(i int) byte { return byte((3*int(near[i]) + int(far[i]) + 2) >> 2) }
	out[0] = edge(0)
	for i := 1; 2*i-1 < w; i++ {
		if i == len(near) {
			out[w-1] = edge(i - 1)
			break
		}
		a, b, c, d := int(near[i-1]), int(near[i]), int(far[i-1]), int(far[i])
		sum := a + b + c + d + 8
		across, along := (sum+2*(b+c))>>3, (sum+2*(a+d))>>3
		out[2*i-1] = byte((across + a) >> 1)
		if 2*i < w {
			out[2*i] = byte((along + b) >> 1)
		}
	}
}

// yuvPixel is libwebp's conversion in 14-bit fixed point.
func yuvPixel(out []byte, y, u, v int32) {
	luma := y * 19077 >> 8
	out[0] = clip6(luma + v*26149>>8 - 14234)
	out[1] = clip6(luma - u*6419>>8 - v*13320>>8 + 8708)
	out[2] = clip6(luma + u*33050>>8 - 17685)
}

// clip6 rounds 6 fractional bits away.
func clip6(v int32) byte { return byte(min(max(v>>6, 0), 255)) }
