package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// The reader of Parquet makes room for as many values as a page's data claim, whatever its header says: a run of a few
// bytes can stand for billions. What follows finds out how many they are first.

// parquetKind is what of a column decides how its pages are written.
type parquetKind struct {
	repetition, definition int // greatest levels
	kind                   parquet.Kind
}

// spareValues is how many values beyond those of its header a page may have: the last ones are padded.
const spareValues = 1024

// plainDictionary is how older programs call the encoding of dictionaries and of the indexes into them.
const plainDictionary = 2

var (
	errRuns    = errors.New("its runs of values do not fit it")
	errDeltas  = errors.New("its differences of values do not fit it")
	errLengths = errors.New("its lengths of texts do not fit it")
)

// mustLook says whether the data of a page must be looked at: plain values without levels cannot claim more than
// there is.
func (k parquetKind) mustLook(h *pageHeader) bool {
	levels := h.kind != dictionaryPage && (k.repetition > 0 || k.definition > 0)
	return levels || h.encoding != int64(format.Plain) && h.encoding != plainDictionary ||
		h.kind != dictionaryPage && h.encoding == plainDictionary
}

// checkValues checks the data of a page, as they lie in the file, after checkPacked. It unpacks them if it must.
func (k parquetKind) checkValues(codec format.CompressionCodec, page []byte, h *pageHeader) error {
	if !k.mustLook(h) {
		return nil
	}
	var levels []byte
	if h.kind == dataPageV2 {
		levels, page = page[:h.repLevels+h.defLevels], page[h.repLevels+h.defLevels:]
	}
	if codec != format.Uncompressed && !h.plain && len(page) > 0 {
		var err error
		if page, err = parquet.LookupCompressionCodec(codec).Decode(make([]byte, 0, h.unpacked), page); err != nil {
			return err
		}
	}
	switch h.kind {
	case dataPageV2:
		if err := checkRuns(levels[:h.repLevels], k.repetition, h.values); err != nil {
			return err
		}
		if err := checkRuns(levels[h.repLevels:], k.definition, h.values); err != nil {
			return err
		}
	case dataPage:
		for _, level := range []int{k.repetition, k.definition} {
			if level == 0 {
				continue
			}
			if len(page) < 4 || int64(binary.LittleEndian.Uint32(page)) > int64(len(page)-4) {
				return errRuns
			}
			n := 4 + int(binary.LittleEndian.Uint32(page))
			if err := checkRuns(page[4:n], level, h.values); err != nil {
				return err
			}
			page = page[n:]
		}
	}
	return k.checkEncoded(format.Encoding(h.encoding), page, h.values)
}

// checkEncoded checks the values of a page without its levels; there are n of them with the nulls.
func (k parquetKind) checkEncoded(encoding format.Encoding, data []byte, n int64) error {
	switch encoding {
	case format.Plain, format.ByteStreamSplit:
		return nil
	case plainDictionary, format.RLEDictionary:
		if len(data) == 0 {
			return nil
		}
		if data[0] > 32 {
			return errRuns
		}
		return checkRunsOf(data[1:], int64(data[0]), n)
	case format.DeltaBinaryPacked:
		width := 64
		if k.kind == parquet.Int32 {
			width = 32
		}
		_, err := walkDeltas(data, n, width, func(int64) {})
		return err
	case format.DeltaLengthByteArray:
		_, err := lengthsFit(data, n, nil)
		return err
	case format.DeltaByteArray:
		prefixes := []int64{}
		rest, err := walkDeltas(data, n, 32, func(v int64) { prefixes = append(prefixes, v) })
		if err != nil {
			return err
		}
		_, err = lengthsFit(rest, n, prefixes)
		return err
	}
	return fmt.Errorf("its values are encoded as %s, which is not known here", encoding)
}

// checkRuns checks the levels of n values up to a greatest one.
func checkRuns(data []byte, most int, n int64) error {
	width := int64(0)
	for ; most > 0; most >>= 1 {
		width++
	}
	return checkRunsOf(data, width, n)
}

// checkRunsOf checks that runs of values of some bits are those of about n values: each is a count and one value, or a
// count of groups of eight and their bits.
func checkRunsOf(data []byte, bits, n int64) error {
	for total := int64(0); len(data) > 0; {
		head, used := binary.Uvarint(data)
		if used <= 0 {
			return errRuns
		}
		data = data[used:]
		count, size := int64(head>>1), (bits+7)/8
		if count == 0 {
			continue
		}
		if head&1 == 1 {
			if count > maxPageValues {
				return errRuns
			}
			count, size = 8*count, count*bits
		}
		if total += count; count < 0 || total > n+spareValues || size > int64(len(data)) {
			return errRuns
		}
		data = data[size:]
	}
	return nil
}

// lengthsFit checks lengths of texts and that the texts are there. With prefixes, which are parts of the text before,
// all texts together may be much larger than the page; then their size is bounded.
func lengthsFit(data []byte, n int64, prefixes []int64) (rest []byte, err error) {
	i, stored, total, before := 0, int64(0), int64(0), int64(0)
	ok := true
	rest, err = walkDeltas(data, n, 32, func(v int64) {
		prefix := int64(0)
		if prefixes != nil && i < len(prefixes) {
			prefix = prefixes[i]
		}
		ok = ok && v >= 0 && prefix >= 0 && prefix <= before
		before = prefix + v
		stored, total, i = stored+v, total+before, i+1
	})
	switch {
	case err != nil:
		return nil, err
	case !ok, stored > int64(len(rest)), prefixes != nil && i != len(prefixes):
		return nil, errLengths
	case total > freePage && total > maxGrowth*int64(len(data)), total > maxPage:
		return nil, fmt.Errorf("%d bytes stand for texts of %d", len(data), total)
	}
	return rest, nil
}

// walkDeltas reads the values of DELTA_BINARY_PACKED, at most n and some more: a first one and blocks of differences to
// the least of their block, in small blocks of their own numbers of bits. bits is the size of the values.
func walkDeltas(data []byte, n int64, bits int, visit func(v int64)) (rest []byte, err error) {
	r := deltaReader{data: data}
	block, minis, total, value := r.number(), r.number(), r.number(), r.signed()
	if r.broken || minis == 0 || block == 0 || block%128 != 0 || block > maxPageValues || block%minis != 0 ||
		block/minis%32 != 0 || total > uint64(n+spareValues) {
		return nil, errDeltas
	}
	give := func() {
		if total--; bits == 32 {
			value = int64(int32(value))
		}
		visit(value)
	}
	if total > 0 {
		give()
	}
	for total > 0 {
		least := r.signed()
		widths := r.take(minis)
		for _, width := range widths {
			if total == 0 {
				break
			}
			if int(width) > bits {
				return nil, errDeltas
			}
			packed := r.take(block / minis * uint64(width) / 8)
			if r.broken {
				return nil, errDeltas
			}
			for at := uint64(0); at < block/minis && total > 0; at++ {
				value += least + bitsAt(packed, at*uint64(width), uint64(width))
				give()
			}
		}
		if r.broken {
			return nil, errDeltas
		}
	}
	return r.data, nil
}

// bitsAt is a number of some bits, the lowest first, at a place in bits.
func bitsAt(data []byte, at, width uint64) int64 {
	v := uint64(0)
	for i := uint64(0); i < width; {
		b := at + i
		have := min(8-b%8, width-i)
		v |= (uint64(data[b/8]) >> (b % 8) & (1<<have - 1)) << i
		i += have
	}
	return int64(v)
}

// deltaReader reads variable-length numbers.
type deltaReader struct {
	data   []byte
	broken bool
}

func (r *deltaReader) number() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 || v > math.MaxInt64 {
		r.broken = true
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *deltaReader) signed() int64 {
	v, n := binary.Varint(r.data)
	if n <= 0 {
		r.broken = true
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *deltaReader) take(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.broken = true
		return nil
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}
