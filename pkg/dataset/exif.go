package dataset

import (
	"bytes"
	"encoding/binary"
)

// orientation is the EXIF orientation (1 to 8) of a JPEG file, 1 if it has none or its EXIF block is broken.
func orientation(data []byte) int {
	if !bytes.HasPrefix(data, []byte("\xff\xd8")) {
		return 1
	}
	for data = data[2:]; len(data) >= 4 && data[0] == 0xff; {
		marker, size := data[1], int(binary.BigEndian.Uint16(data[2:]))
		const startOfScan, app1 = 0xda, 0xe1
		if marker == startOfScan || size < 2 || len(data) < 2+size {
			return 1
		}
		if block, ok := bytes.CutPrefix(data[4:2+size], []byte("Exif\x00\x00")); ok && marker == app1 {
			return tiffOrientation(block)
		}
		data = data[2+size:]
	}
	return 1
}

// tiffOrientation looks for the tag in the first directory of a TIFF block.
func tiffOrientation(block []byte) int {
	if len(block) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	if block[0] == 'M' {
		order = binary.BigEndian
	}
	at := uint64(order.Uint32(block[4:]))
	if at+2 > uint64(len(block)) {
		return 1
	}
	entries := block[at+2:]
	for range order.Uint16(block[at:]) {
		const entrySize, orientationTag = 12, 0x0112
		if len(entries) < entrySize {
			return 1
		}
		if order.Uint16(entries) == orientationTag {
			if v := int(order.Uint16(entries[8:])); 1 <= v && v <= 8 {
				return v
			}
			return 1
		}
		entries = entries[entrySize:]
	}
	return 1
}

// mirrored is the orientation of a picture whose left and right are swapped.
const mirrored = 2

// orient turns img upright; spare is memory for the turned picture.
func orient(img, spare *RGB, orientation int) {
	if orientation == 1 {
		return
	}
	w, h := img.W, img.H
	if orientation >= 5 { // these swap rows and columns
		w, h = h, w
	}
	spare.reshape(w, h)
	out := spare.Pix
	for y := range h {
		for x := range w {
			sx, sy := x, y
			if orientation >= 5 {
				sx, sy = y, x
			}
			switch orientation {
			case 2, 7, 3, 8:
				sx = img.W - 1 - sx
			}
			switch orientation {
			case 3, 4, 6, 7:
				sy = img.H - 1 - sy
			}
			copy(out[:3], img.Pix[(sy*img.W+sx)*3:])
			out = out[3:]
		}
	}
	*img, *spare = *spare, *img
}
