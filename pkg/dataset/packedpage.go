package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/format"
)

// freePage is up to how many bytes a page may unpack to whatever its own size; beyond, it may grow maxGrowth-fold.
const (
	freePage  = 16 << 20
	maxGrowth = 1000
)

// checkPacked refuses a page that would unpack to more than its header says: the readers of compressed data make room
// for all that they find.
func checkPacked(codec format.CompressionCodec, page []byte, h *pageHeader) error {
	if h.unpacked > freePage && h.unpacked > maxGrowth*h.compressed {
		return fmt.Errorf("%d bytes are said to unpack to %d", h.compressed, h.unpacked)
	}
	want := h.unpacked
	if h.kind == dataPageV2 {
		levels := h.repLevels + h.defLevels
		if h.repLevels < 0 || h.defLevels < 0 || levels < 0 || levels > int64(len(page)) || levels > want {
			return fmt.Errorf("its levels have %d and %d bytes of %d", h.repLevels, h.defLevels, len(page))
		}
		page, want = page[levels:], want-levels
		if h.plain {
			return nil
		}
	}
	if len(page) == 0 {
		return nil
	}
	var n int64
	var err error
	switch codec {
	case format.Uncompressed:
		return nil
	case format.Snappy:
		v, used := binary.Uvarint(page)
		if n = int64(v); used <= 0 || v > maxPage {
			return errors.New("it is no Snappy data")
		}
	case format.Gzip:
		n, err = gzipSize(page, want)
	case format.Zstd:
		n, err = zstdSize(page, want)
	default:
		return fmt.Errorf("it is compressed with %s; write the file with snappy, gzip or zstd", codec)
	}
	if err == nil && n != want {
		err = fmt.Errorf("it unpacks to %d bytes, its header says %d", n, want)
	}
	return err
}

// gzipSize is the size of the data in a gzip stream; it stops behind limit.
func gzipSize(page []byte, limit int64) (int64, error) {
	z, err := gzip.NewReader(bytes.NewReader(page))
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, io.LimitReader(z, limit+1))
}

var errZstd = errors.New("it is no Zstandard data, or of more than one frame")

// zstdDecoder unpacks no more than there is room for.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true))
})

// zstdSize is the size that a single Zstandard frame (RFC 8878) has according to its header, or where that does not say
// when it is unpacked; then it stops behind limit. Readers stop behind the frame.
func zstdSize(page []byte, limit int64) (int64, error) {
	if len(page) < 6 || binary.LittleEndian.Uint32(page) != 0xfd2fb528 {
		return 0, errZstd
	}
	descriptor, at := page[4], 5
	single := descriptor>>5&1 == 1
	if !single {
		at++ // window
	}
	at += []int{0, 1, 2, 4}[descriptor&3] // dictionary
	size := []int{0, 2, 4, 8}[descriptor>>6]
	if size == 0 && single {
		size = 1
	}
	if at+size > len(page) {
		return 0, errZstd
	}
	given := size > 0
	var field [8]byte
	copy(field[:], page[at:at+size])
	n := binary.LittleEndian.Uint64(field[:])
	if size == 2 {
		n += 256
	}
	for at += size; ; {
		if at+3 > len(page) {
			return 0, errZstd
		}
		block := int(page[at]) | int(page[at+1])<<8 | int(page[at+2])<<16
		at += 3
		if length := block >> 3; block>>1&3 == 1 {
			at++ // one byte, repeated
		} else {
			at += length
		}
		if block&1 == 1 {
			break
		}
	}
	if descriptor>>2&1 == 1 {
		at += 4 // checksum
	}
	switch {
	case at != len(page) || n > maxPage:
		return 0, errZstd
	case given:
		return int64(n), nil
	}
	return unpackedZstd(page, limit)
}

// unpackedZstd is the size of a frame that does not give it, as programs that write without knowing it leave it out.
func unpackedZstd(page []byte, limit int64) (int64, error) {
	d, err := zstdDecoder()
	if err != nil {
		return 0, err
	}
	data, err := d.DecodeAll(page, make([]byte, 0, limit+1))
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return limit + 1, nil
	}
	return int64(len(data)), err
}
