package raster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Tags of TIFF 6.0.
const (
	tagWidth         = 256
	tagHeight        = 257
	tagBits          = 258
	tagCompression   = 259
	tagPhotometric   = 262
	tagFillOrder     = 266
	tagStripOffsets  = 273
	tagOrientation   = 274
	tagSamples       = 277
	tagRowsPerStrip  = 278
	tagStripCounts   = 279
	tagPlanar        = 284
	tagT4Options     = 292
	tagPredictor     = 317
	tagColorMap      = 320
	tagTileWidth     = 322
	tagTileHeight    = 323
	tagTileOffsets   = 324
	tagTileCounts    = 325
	tagExtraSamples  = 338
	tagSampleFormat  = 339
	tagJPEGTables    = 347
	tagYCbCrSampling = 530
)

// Photometric interpretations.
const (
	photoWhiteIsZero = 0
	photoBlackIsZero = 1
	photoRGB         = 2
	photoPalette     = 3
	photoCMYK        = 5
	photoYCbCr       = 6
)

// tiffFile is the first picture of a TIFF file.
type tiffFile struct {
	data    []byte
	order   binary.ByteOrder
	big     bool // BigTIFF: 64-bit offsets
	entries map[int]tiffEntry

	w, h        int
	compression int
	photo       int
	bits        int // per sample, equal for all
	samples     int // per pixel
	extra       []uint64
	format      int // 1 unsigned, 2 signed, 3 floating point
	planar      bool
	predictor   int
	reversed    bool // bits of a byte from the lowest on
	colors      palette
	tables      []byte // of JPEG
}

// tiffEntry is where the values of a tag lie.
type tiffEntry struct {
	kind  int
	count uint64
	at    uint64
}

// tiffSizes are the bytes per value of the tag's types.
var tiffSizes = map[int]uint64{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
	16: 8, 17: 8, 18: 8}

// DecodeTIFF reads the first picture of a TIFF file: grey, palette, RGB, CMYK and JPEG's YCbCr in strips or tiles,
// plain or compressed by LZW, deflate, PackBits, JPEG or fax codes. It gives the orientation (1 to 8) that the picture
// has still to be turned by, which Pillow does for TIFF alone. If lenient, what an uncompressed file lacks stays black.
func DecodeTIFF(data []byte, lenient bool, canvas Canvas) (orientation int, err error) {
	f := tiffFile{data: data}
	if err := f.directory(); err != nil {
		return 1, err
	}
	if err := f.describe(); err != nil {
		return 1, err
	}
	pix, err := blank(canvas, f.w, f.h)
	if err != nil {
		return 1, err
	}
	if err := f.read(pix); err != nil && !(lenient && f.compression == 1 && errors.Is(err, ErrTruncated)) {
		return 1, err
	}
	if orientation = f.number(tagOrientation, 1); orientation < 1 || orientation > 8 {
		orientation = 1
	}
	return orientation, nil
}

// directory reads the header and the first directory.
func (f *tiffFile) directory() error {
	d := f.data
	if len(d) < 16 {
		return ErrTruncated
	}
	switch string(d[:2]) {
	case "II":
		f.order = binary.LittleEndian
	case "MM":
		f.order = binary.BigEndian
	default:
		return errors.New("not a TIFF file")
	}
	var at, n, size uint64
	switch f.order.Uint16(d[2:]) {
	case 42:
		at, size = uint64(f.order.Uint32(d[4:])), 12
		if at+2 > uint64(len(d)) {
			return ErrTruncated
		}
		n, at = uint64(f.order.Uint16(d[at:])), at+2
	case 43:
		at, size, f.big = f.order.Uint64(d[8:]), 20, true
		if at > uint64(len(d)) || at+8 > uint64(len(d)) {
			return ErrTruncated
		}
		n, at = f.order.Uint64(d[at:]), at+8
	default:
		return errors.New("not a TIFF file")
	}
	if n > 1<<16 || at+n*size > uint64(len(d)) {
		return ErrTruncated
	}
	f.entries = make(map[int]tiffEntry, n)
	for ; n > 0; n-- {
		f.entry(at)
		at += size
	}
	return nil
}

// entry notes the directory entry at a place; values that the file does not hold make it be passed over.
func (f *tiffFile) entry(at uint64) {
	d := f.data[at:]
	e := tiffEntry{kind: int(f.order.Uint16(d[2:]))}
	inside := uint64(4)
	if f.big {
		e.count, e.at, inside = f.order.Uint64(d[4:]), at+12, 8
	} else {
		e.count, e.at = uint64(f.order.Uint32(d[4:])), at+8
	}
	size := tiffSizes[e.kind]
	if size == 0 || e.count > uint64(len(f.data)) {
		return
	}
	if e.count*size > inside {
		if f.big {
			e.at = f.order.Uint64(f.data[e.at:])
		} else {
			e.at = uint64(f.order.Uint32(f.data[e.at:]))
		}
	}
	if e.at > uint64(len(f.data)) || e.at+e.count*size > uint64(len(f.data)) {
		return
	}
	f.entries[int(f.order.Uint16(d))] = e
}

// value is value i of an entry of whole numbers.
func (f *tiffFile) value(e tiffEntry, i uint64) uint64 {
	d := f.data[e.at+i*tiffSizes[e.kind]:]
	switch tiffSizes[e.kind] {
	case 1:
		return uint64(d[0])
	case 2:
		return uint64(f.order.Uint16(d))
	case 4:
		return uint64(f.order.Uint32(d))
	}
	return f.order.Uint64(d)
}

// number is the first value of a tag.
func (f *tiffFile) number(tag, otherwise int) int {
	e, ok := f.entries[tag]
	if !ok || e.count == 0 {
		return otherwise
	}
	return int(min(f.value(e, 0), math.MaxInt32))
}

// values are the first few values of a tag.
func (f *tiffFile) values(tag int, most uint64) []uint64 {
	e := f.entries[tag]
	out := make([]uint64, min(e.count, most))
	for i := range out {
		out[i] = f.value(e, uint64(i))
	}
	return out
}

// describe works out how the samples are laid out, and refuses what Pillow cannot read.
func (f *tiffFile) describe() error {
	f.w, f.h = f.number(tagWidth, 0), f.number(tagHeight, 0)
	f.compression, f.photo = f.number(tagCompression, 1), f.number(tagPhotometric, 0)
	f.samples, f.format = f.number(tagSamples, 1), f.number(tagSampleFormat, 1)
	f.planar, f.predictor = f.number(tagPlanar, 1) == 2, f.number(tagPredictor, 1)
	f.reversed = f.number(tagFillOrder, 1) == 2
	if f.samples < 1 || f.samples > 6 {
		return fmt.Errorf("TIFF of %d samples per pixel is not supported", f.samples)
	}
	f.extra = f.values(tagExtraSamples, 6)
	bits := f.values(tagBits, 6)
	f.bits = 1
	for i, b := range bits[:min(len(bits), f.samples)] {
		if i > 0 && int(b) != f.bits {
			return errors.New("TIFF of samples of different depths is not supported")
		}
		f.bits = int(min(b, 1<<16))
	}
	if e := f.entries[tagJPEGTables]; e.count > 0 && tiffSizes[e.kind] == 1 {
		f.tables = f.data[e.at : e.at+e.count]
	}
	if !f.known() {
		return fmt.Errorf("TIFF of photometric interpretation %d with %d samples of %d bits (format %d) is not "+
			"supported", f.photo, f.samples, f.bits, f.format)
	}
	if f.predictor != 1 && (f.predictor != 2 || f.bits != 8 && f.bits != 16 && f.bits != 32) {
		return fmt.Errorf("TIFF with predictor %d for %d bits is not supported", f.predictor, f.bits)
	}
	return f.colorMap()
}

// known says whether the combination is one that Pillow reads.
func (f *tiffFile) known() bool {
	eight, sixteen := f.bits == 8 && f.format == 1, f.bits == 16 && f.format == 1
	small := f.bits == 1 || f.bits == 2 || f.bits == 4
	switch f.photo {
	case photoWhiteIsZero, photoBlackIsZero:
		if f.samples == 2 {
			return eight && f.photo == photoBlackIsZero
		}
		return f.samples == 1 && (f.format == 1 && (small || f.bits == 8 || f.bits == 16 || f.bits == 32) ||
			f.format == 2 && (f.bits == 8 || f.bits == 16 || f.bits == 32) || f.format == 3 && f.bits == 32)
	case photoRGB:
		return f.samples >= 3 && eight || (f.samples == 3 || f.samples == 4) && sixteen
	case photoPalette:
		return f.samples == 1 && f.format == 1 && (small || f.bits == 8) || f.samples == 2 && eight
	case photoCMYK:
		return f.samples >= 4 && eight || f.samples == 4 && sixteen
	case photoYCbCr:
		return f.samples == 1 && eight || f.samples == 3 && eight && f.compression == tiffJPEG
	}
	return false
}

func (f *tiffFile) colorMap() error {
	if f.photo != photoPalette {
		return nil
	}
	n := uint64(1) << uint(f.bits)
	e := f.entries[tagColorMap]
	if e.count < 3*n || tiffSizes[e.kind] != 2 {
		return errors.New("the TIFF file lacks its colours")
	}
	for i := range n {
		for c := range uint64(3) {
			f.colors[i][c] = byte(f.value(e, c*n+i) >> 8)
		}
	}
	return nil
}
