package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/delta"
	"github.com/parquet-go/parquet-go/format"
)

// TestParquetEncodings: files in every way that values are written in are read, and nothing of them is refused.
func TestParquetEncodings(t *testing.T) {
	type row struct {
		Path    string   `parquet:"path,delta,snappy"`
		Caption string   `parquet:"caption,dict,zstd"`
		ImageID int64    `parquet:"image_id,delta,gzip"`
		Picture []byte   `parquet:"jpg,optional,dict,snappy"`
		More    []string `parquet:"captions,list"`
	}
	type lengths struct {
		Path    string `parquet:"path,optional"`
		Caption string `parquet:"caption,delta"`
		ImageID int32  `parquet:"image_id,delta"`
		Picture []byte `parquet:"image,optional"`
	}
	const n = 3000
	for _, version := range []int{1, 2} {
		var first, second bytes.Buffer
		a := parquet.NewGenericWriter[row](&first, parquet.DataPageVersion(version), parquet.PageBufferSize(2000))
		b := parquet.NewGenericWriter[lengths](&second, parquet.DataPageVersion(version), parquet.PageBufferSize(2000))
		for i := range n {
			r := row{fmt.Sprintf("some/folder/%06d.jpg", i), fmt.Sprint("caption ", i/100), int64(i) << 33,
				[]byte(fmt.Sprint("picture ", i%7)), []string{"one more", "and another"}[:i%3]}
			l := lengths{r.Path, r.Caption, int32(-i * i), r.Picture}
			if i%10 == 0 {
				r.Picture, l.Picture = nil, nil
			}
			if _, err := a.Write([]row{r}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Write([]lengths{l}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		for k, data := range [][]byte{first.Bytes(), second.Bytes()} {
			x, err := parsed(data, FormatParquet)
			if err != nil {
				t.Fatalf("version %d, file %d: %v", version, k, err)
			}
			if x.Len() != n {
				t.Errorf("version %d, file %d: %d pictures", version, k, x.Len())
			}
			for _, i := range []int{n - 1, 1, 77, 1503} {
				e, err := x.Example(i)
				if err != nil || e.Captions[0] != fmt.Sprint("caption ", i/100) {
					t.Errorf("version %d, file %d: %+v, %v", version, k, e, err)
				}
				r, err := x.Open(i)
				if err != nil {
					t.Errorf("version %d, file %d: picture %d: %v", version, k, i, err)
					continue
				}
				if picture, err := io.ReadAll(r); err != nil || string(picture) != fmt.Sprint("picture ", i%7) {
					t.Errorf("version %d, file %d: picture %d is %q, %v", version, k, i, picture, err)
				}
			}
			x.Close()
		}
	}
}

// TestDeltas: differences of values are read as they are written.
func TestDeltas(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 31, 128, 129, 1000} {
		for bits := range 33 {
			var narrow []int32
			var wide []int64
			for range n {
				v := r.Int64() >> (64 - max(bits, 1))
				narrow, wide = append(narrow, int32(v)), append(wide, v<<(bits/2))
			}
			short, err := (&delta.BinaryPackedEncoding{}).EncodeInt32(nil, narrow)
			if err != nil {
				t.Fatal(err)
			}
			long, err := (&delta.BinaryPackedEncoding{}).EncodeInt64(nil, wide)
			if err != nil {
				t.Fatal(err)
			}
			var got32 []int32
			var got64 []int64
			short, long = append(short, "rest"...), append(long, "rest"...)
			rest32, err32 := walkDeltas(short, int64(n), 32, func(v int64) { got32 = append(got32, int32(v)) })
			rest64, err64 := walkDeltas(long, int64(n), 64, func(v int64) { got64 = append(got64, v) })
			if err32 != nil || err64 != nil || !slices.Equal(got32, narrow) || !slices.Equal(got64, wide) ||
				string(rest32) != "rest" || string(rest64) != "rest" {
				t.Fatalf("%d values of %d bits: %v, %v, %q, %q", n, bits, err32, err64, rest32, rest64)
			}
		}
	}
}

// TestPagesOfManyValues: a page that claims more values than its header is refused before anything is made room for.
func TestPagesOfManyValues(t *testing.T) {
	run := func(count uint64, value ...byte) string {
		return string(append(binary.AppendUvarint(nil, count<<1), value...))
	}
	groups := func(count uint64) string { return string(binary.AppendUvarint(nil, count<<1|1)) }
	numbers := func(v ...uint64) string {
		var b []byte
		for _, v := range v {
			b = binary.AppendUvarint(b, v)
		}
		return string(b)
	}
	// 100 lengths of 64, without differences between them: block size, small blocks, number, first value (zigzag).
	equal := numbers(128, 4, 100, 128) + "\x00\x00\x00\x00\x00"
	huge := numbers(128, 4, 100, 2<<30) + "\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name     string
		encoding format.Encoding
		data     string
		want     string
	}{
		{"a run", format.RLEDictionary, "\x08" + run(4e9, 1), "runs of values"},
		{"runs", plainDictionary, "\x08" + strings.Repeat(run(90, 1), 100), "runs of values"},
		{"a run cut off", format.RLEDictionary, "\x20" + run(9, 1, 2, 3), "runs of values"},
		{"groups", format.RLEDictionary, "\x01" + groups(1<<31-1), "runs of values"},
		{"groups that overflow", format.RLEDictionary, "\x01" + groups(1<<62), "runs of values"},
		{"groups of nothing", format.RLEDictionary, "\x00" + groups(1<<24), "runs of values"},
		{"bits", format.RLEDictionary, "\x21" + run(1, 1), "runs of values"},
		{"plain runs", format.RLE, run(4e9, 1), "encoded as RLE"},
		{"differences", format.DeltaBinaryPacked, numbers(128, 4, 4e9, 0), "differences"},
		{"blocks", format.DeltaBinaryPacked, numbers(1<<40, 1, 5, 0), "differences"},
		{"no blocks", format.DeltaBinaryPacked, numbers(128, 0, 5, 0), "differences"},
		{"wide", format.DeltaBinaryPacked, numbers(128, 1, 50, 0, 0, 65) + strings.Repeat("x", 2000), "differences"},
		{"cut off", format.DeltaBinaryPacked, numbers(128, 1, 50, 0, 0, 8, 1, 2), "differences"},
		{"lengths", format.DeltaLengthByteArray, equal + strings.Repeat("x", 6399), "lengths of texts"},
		{"negative", format.DeltaLengthByteArray, numbers(128, 4, 1, 1), "lengths of texts"},
		{"long", format.DeltaLengthByteArray, huge, "lengths of texts"},
		{"prefixes", format.DeltaByteArray, equal + equal + strings.Repeat("x", 6400), "lengths of texts"},
		{"few", format.DeltaByteArray, numbers(128, 4, 0, 0) + equal + strings.Repeat("x", 6400), "lengths of texts"},
	} {
		k := parquetKind{kind: parquet.ByteArray}
		err := k.checkEncoded(c.encoding, []byte(c.data), 100)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not contain %q", c.name, err, c.want)
		}
	}
	good := []byte(equal + strings.Repeat("x", 6400))
	if err := (parquetKind{}).checkEncoded(format.DeltaLengthByteArray, good, 100); err != nil {
		t.Errorf("good lengths: %v", err)
	}
	// Texts that grow from one to the next: each is the one before and 50 bytes more.
	const n = 20_000
	var prefixes, suffixes []int32
	for i := range n {
		prefixes, suffixes = append(prefixes, int32(50*i)), append(suffixes, 50)
	}
	a, _ := (&delta.BinaryPackedEncoding{}).EncodeInt32(nil, prefixes)
	b, _ := (&delta.BinaryPackedEncoding{}).EncodeInt32(nil, suffixes)
	page := slices.Concat(a, b, bytes.Repeat([]byte("x"), 50*n))
	err := (parquetKind{}).checkEncoded(format.DeltaByteArray, page, n)
	if err == nil || !strings.Contains(err.Error(), "stand for") {
		t.Errorf("texts that grow: %v", err)
	}
	// Levels are runs, too, in front of plain values, packed or not.
	levels := run(4e9, 1)
	v1 := string(binary.LittleEndian.AppendUint32(nil, uint32(len(levels)))) + levels
	for name, h := range map[string]pageHeader{
		v1:                 {kind: dataPage, values: 5},
		levels:             {kind: dataPageV2, values: 5, defLevels: int64(len(levels))},
		"\xff\xff\xff\xff": {kind: dataPage, values: 5},
		"\x01":             {kind: dataPage, values: 5},
	} {
		h.compressed, h.unpacked = int64(len(name)), int64(len(name))
		if err := (parquetKind{definition: 1}).checkValues(format.Uncompressed, []byte(name), &h); err != errRuns {
			t.Errorf("levels %x: %v", name, err)
		}
	}
}

// FuzzPageValues: whatever a page holds, what is said of it is said quickly and in little memory.
func FuzzPageValues(f *testing.F) {
	f.Add([]byte("\x08\x04\x01"), uint8(format.RLEDictionary), uint16(2))
	f.Add([]byte("\x80\x01\x04\x64\x80\x01\x00\x00\x00\x00\x00"), uint8(format.DeltaByteArray), uint16(100))
	f.Fuzz(func(t *testing.T, data []byte, encoding uint8, n uint16) {
		k := parquetKind{kind: parquet.ByteArray}
		if k.checkEncoded(format.Encoding(encoding%16), data, int64(n)) != nil {
			return
		}
		_ = checkRuns(data, int(encoding), int64(n))
		switch format.Encoding(encoding % 16) {
		case format.DeltaLengthByteArray:
			values, _, err := (&delta.LengthByteArrayEncoding{}).DecodeByteArray(nil, data, nil)
			if err == nil && len(values) > len(data) {
				t.Fatalf("%d bytes become %d", len(data), len(values))
			}
		case format.DeltaByteArray:
			values, _, err := (&delta.ByteArrayEncoding{}).DecodeByteArray(nil, data, nil)
			if err == nil && len(values) > freePage && len(values) > maxGrowth*len(data) {
				t.Fatalf("%d bytes become %d", len(data), len(values))
			}
		}
	})
}

// TestParquetRunBomb: a run in a file that claims more values than its page has is refused, in texts when the file is
// opened and in pictures when one is read.
func TestParquetRunBomb(t *testing.T) {
	type row struct {
		Path    string `parquet:"path"`
		Caption string `parquet:"caption,dict"`
		Picture []byte `parquet:"jpg,dict"`
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b)
	const n = 100
	for i := range n {
		if _, err := w.Write([]row{{fmt.Sprint(i), "the same", []byte("picture")}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	run := []byte{0, 2*n&0x7f | 0x80, 2 * n >> 7} // of 100 values of no bits
	first := bytes.Index(b.Bytes(), run)
	second := bytes.LastIndex(b.Bytes(), run)
	if first < 0 || first == second {
		t.Fatalf("runs at %d and %d", first, second)
	}
	bomb := func(at int) []byte {
		data := bytes.Clone(b.Bytes())
		data[at+1], data[at+2] = 0xfe, 0x7f // 8,191 values, as many as two bytes can say
		return data
	}
	if _, err := parsed(bomb(first), FormatParquet); err == nil || !strings.Contains(err.Error(), errRuns.Error()) {
		t.Errorf("captions: %v", err)
	}
	a, err := parsed(bomb(second), FormatParquet)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := a.Open(7); err == nil || !strings.Contains(err.Error(), errRuns.Error()) {
		t.Errorf("pictures: %v", err)
	}
}
