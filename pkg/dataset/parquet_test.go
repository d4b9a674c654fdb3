package dataset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/format"
)

func recordedParquet(name string) string { return filepath.Join("testdata", "parquet", name) }

// TestParquetPictures reads files that pyarrow wrote, pictures in an order of their own and from several goroutines.
func TestParquetPictures(t *testing.T) {
	picture := func(i int) string { return strings.Repeat(fmt.Sprintf("picture %d ", i), 40) }
	for name, c := range map[string]struct {
		rows int
		want func(i int) (key string, captions []string)
	}{
		"hf.parquet": {60, func(i int) (string, []string) {
			var all []string
			for k := range i % 4 {
				all = append(all, fmt.Sprintf("caption %d.%d", i, k))
			}
			return fmt.Sprintf("%04d.jpg", i), all
		}},
		"img2dataset.parquet": {50, func(i int) (string, []string) {
			if i%7 == 3 || i%11 == 0 {
				return "", nil
			}
			return fmt.Sprintf("%09d", i), []string{fmt.Sprintf("caption %d", i)}
		}},
	} {
		files := []string{name}
		if name == "hf.parquet" {
			files = append(files, "hf-v2-zstd-indexed.parquet")
		}
		for _, file := range files {
			src, err := OpenAnnotations(AnnotationFile{Annotations: recordedParquet(file)})
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			var wanted []int
			for i := range c.rows {
				if _, captions := c.want(i); len(captions) > 0 {
					wanted = append(wanted, i)
				}
			}
			if src.Len() != len(wanted) {
				t.Errorf("%s: %d pictures, want %d", file, src.Len(), len(wanted))
				continue
			}
			var all sync.WaitGroup
			for start := range 4 {
				all.Go(func() {
					for at := range wanted {
						at = (at*13 + start) % len(wanted)
						i := wanted[at]
						e, err := src.Example(at)
						key, captions := c.want(i)
						if err != nil || e.Key != key || fmt.Sprint(e.Captions) != fmt.Sprint(captions) || e.ImagePath != "" {
							t.Errorf("%s: picture %d is %+v, %v, want %s %q", file, at, e, err, key, captions)
						}
						r, err := src.Open(at)
						if err != nil {
							t.Errorf("%s: %s: %v", file, key, err)
							continue
						}
						if got, _ := io.ReadAll(r); string(got) != picture(i) {
							t.Errorf("%s: picture %d is %.30q…, want %d", file, at, got, i)
						}
					}
				})
			}
			all.Wait()
			src.Close()
		}
	}
}

// TestParquetWithoutRows: a table without rows is one among several, and alone it is said to be empty.
func TestParquetWithoutRows(t *testing.T) {
	if _, err := OpenAnnotations(AnnotationFile{Annotations: recordedParquet("empty.parquet")}); err == nil ||
		!strings.Contains(err.Error(), "the data set is empty") {
		t.Errorf("error %v", err)
	}
	src, err := OpenAnnotations(AnnotationFile{Annotations: recordedParquet("[eh]*[yf].parquet")})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if src.Len() != 45 {
		t.Errorf("%d pictures", src.Len())
	}
}

func TestParquetSplitAndNames(t *testing.T) {
	src, err := OpenAnnotations(AnnotationFile{Annotations: recordedParquet("hf.parquet"), Split: "val"})
	if err != nil {
		t.Fatal(err)
	}
	if e := example(t, src, 0); src.Len() != 9 || e.Key != "0005.jpg" || e.ImageID != 1005 {
		t.Errorf("%d pictures, first %+v", src.Len(), e)
	}
	src.Close()
	folder := writeFolder(t, "[]", map[string][]byte{"a.jpg": []byte("A")})
	src, err = OpenAnnotations(AnnotationFile{Annotations: recordedParquet("names.parquet"), Images: folder.Images})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, src); got != "a.jpg #0 \"one\" \"three\"\nb.jpg #1 \"two\"\n" {
		t.Errorf("%s", got)
	}
	src.Close()
	if _, err = OpenAnnotations(AnnotationFile{Annotations: recordedParquet("names.parquet")}); err == nil ||
		!strings.Contains(err.Error(), "no image folder is given") {
		t.Errorf("file names without a folder: %v", err)
	}
	pattern := recordedParquet("hf*.parquet")
	if src, err = OpenAnnotations(AnnotationFile{Annotations: pattern}); err != nil || src.Len() != 90 {
		t.Errorf("two files: %v", err)
	} else if e := example(t, src, 89); e.Key != "0059.jpg" {
		t.Errorf("last picture %+v", e)
	}
}

// TestParquetOfOurOwn reads what the Go writer writes, in many pages.
func TestParquetOfOurOwn(t *testing.T) {
	type row struct {
		Image   []byte `parquet:"jpg"`
		Caption string `parquet:"caption,dict"`
		Key     int64  `parquet:"key"`
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b, parquet.PageBufferSize(2000), parquet.MaxRowsPerRowGroup(100),
		parquet.Compression(&parquet.Snappy))
	for i := range 250 {
		if _, err := w.Write([]row{{bytes.Repeat([]byte{byte(i)}, 100), fmt.Sprint("caption ", i%3), int64(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "own.parquet")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	src, err := OpenAnnotations(AnnotationFile{Annotations: file})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, i := range []int{249, 0, 99, 100, 57, 200} {
		r, err := src.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(r)
		if e := example(t, src, i); e.Key != fmt.Sprint(i) || e.Captions[0] != fmt.Sprint("caption ", i%3) ||
			!bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, 100)) {
			t.Errorf("picture %d is %+v, %v", i, e, got[:3])
		}
	}
}

// TestParquetDamaged cuts and changes files: errors name the file, nothing panics and no room is made for what is not
// there.
func TestParquetDamaged(t *testing.T) {
	whole, err := os.ReadFile(recordedParquet("hf.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "damaged.parquet")
	open := func(data []byte) error {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		src, err := OpenAnnotations(AnnotationFile{Annotations: file})
		if err != nil {
			return err
		}
		defer src.Close()
		for i := range src.Len() {
			if r, err := src.Open(i); err == nil {
				r.Close()
			}
			if _, err := src.Example(i); err != nil {
				return err
			}
		}
		return nil
	}
	if err := open(whole); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{4, 11, 12, 100, len(whole) / 2, len(whole) - 1} {
		if err := open(whole[:n]); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("cut off at %d: error %v", n, err)
		}
	}
	footer := len(whole) - 8 - int(binary.LittleEndian.Uint32(whole[len(whole)-8:]))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	changed := bytes.Clone(whole)
	for at := footer; at < len(whole); at += 61 {
		for _, v := range []byte{0xff, 0xf9, 0} {
			changed[at] = v
			_ = open(changed)
			changed[at] = whole[at]
		}
	}
	runtime.ReadMemStats(&after)
	if total := after.TotalAlloc - before.TotalAlloc; total > 8<<30 {
		t.Errorf("%d MiB were allocated", total>>20)
	}
}

func TestFooterClaims(t *testing.T) {
	claim := func(thrift ...byte) []byte {
		data := append([]byte("PAR1"), thrift...)
		data = binary.LittleEndian.AppendUint32(data, uint32(len(thrift)))
		return append(data, "PAR1"...)
	}
	for name, data := range map[string][]byte{
		"list of 2³¹":    claim(0x29, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0),
		"nested":         claim(bytes.Repeat([]byte{0x1c}, 100)...),
		"long text":      claim(0x18, 0xff, 0xff, 0xff, 0x7f),
		"unknown kind":   claim(0x1f, 0),
		"long metadata":  append([]byte("PAR1\x15\x04\x15\x06"), 0xff, 0xff, 0xff, 0x0f, 'P', 'A', 'R', '1'),
		"encrypted":      append(make([]byte, 20), "PARE"...),
		"without an end": append(make([]byte, 20), "PAR2"...),
	} {
		if err := checkFooter(bytes.NewReader(data), int64(len(data))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParquetQuestions(t *testing.T) {
	src, err := OpenAnnotations(AnnotationFile{Annotations: recordedParquet("vqa.parquet")})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	want := "vqa.parquet row 0 #1 7:\"What?\" a=0.75 b=0.25\nvqa.parquet row 1 #2 8:\"Why?\" so=1\n"
	if got := listing(t, src); got != want {
		t.Errorf("%swant\n%s", got, want)
	}
}

// counted counts the bytes that are read of a file.
type counted struct {
	memory
	n *int64
}

func (c counted) ReadAt(p []byte, at int64) (int, error) {
	n, err := c.Reader.ReadAt(p, at)
	*c.n += int64(n)
	return n, err
}

// TestParquetReadsOnePage: a picture far inside a long row group costs a page, not all that is in front of it.
func TestParquetReadsOnePage(t *testing.T) {
	type row struct {
		Image   []byte `parquet:"image"`
		Caption string `parquet:"caption"`
	}
	for _, codec := range []compress.Codec{&parquet.Uncompressed, &parquet.Snappy, &parquet.Gzip, &parquet.Zstd} {
		var b bytes.Buffer
		w := parquet.NewGenericWriter[row](&b, parquet.Compression(codec))
		random := newStream(1, 2, 3, purposeCrop)
		want := map[int][]byte{}
		for i := range 5000 {
			data := make([]byte, 1000)
			for k := range data {
				data[k] = byte(random.next())
			}
			want[i] = data
			if _, err := w.Write([]row{{data, fmt.Sprint("caption ", i)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		read := int64(0)
		d, err := newDocument("fuzz", counted{memory{bytes.NewReader(b.Bytes())}, &read}, int64(b.Len()), FormatAuto, Columns{})
		if err != nil {
			t.Errorf("%s: %v", codec, err)
			continue
		}
		for _, i := range []int{4999, 3300, 0} {
			read = 0
			r, err := d.parquet.picture([]byte(fmt.Sprint(i)))
			if err != nil {
				t.Fatalf("%s: %v", codec, err)
			}
			if got, _ := io.ReadAll(r); !bytes.Equal(got, want[i]) {
				t.Errorf("%s: picture %d is another one", codec, i)
			}
			if read > 2_000_000 { // of 5 million: pages of 0.8, each looked at before it is unpacked
				t.Errorf("%s: %d bytes are read for picture %d", codec, read, i)
			}
		}
	}
}

// TestPackedPages: pages that would unpack to more than they say are refused before they are unpacked.
func TestPackedPages(t *testing.T) {
	bomb := []byte(packedText(strings.Repeat("0", 30<<20)))
	zstd := func(data ...byte) []byte { return append([]byte{0x28, 0xb5, 0x2f, 0xfd}, data...) }
	for _, c := range []struct {
		name  string
		codec format.CompressionCodec
		page  []byte
		h     pageHeader
		want  string
	}{
		{"gzip", format.Gzip, bomb, pageHeader{unpacked: 1000}, "unpacks to 1001 bytes"},
		{"claim", format.Gzip, bomb, pageHeader{unpacked: 200 << 20, compressed: 1000}, "are said to unpack to"},
		{"snappy", format.Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, pageHeader{unpacked: 10}, "no Snappy data"},
		{"snappy", format.Snappy, []byte{20, 0}, pageHeader{unpacked: 10}, "unpacks to 20 bytes"},
		{"zstd without size", format.Zstd, zstd(0, 0, 1, 0, 0), pageHeader{unpacked: 10}, "unpacks to 0 bytes"},
		{"zstd bomb", format.Zstd, zstd(0, 0x50, 3, 0, 0x10, 7), pageHeader{unpacked: 10}, "unpacks to 11 bytes"},
		{"zstd frames", format.Zstd, zstd(0x20, 1, 3, 0, 0, 7, 0x28), pageHeader{unpacked: 1}, "Zstandard"},
		{"zstd size", format.Zstd, zstd(0xa0, 0, 0, 0, 1, 3, 0, 0, 7), pageHeader{unpacked: 1}, "unpacks to 16777216"},
		{"zstd cut", format.Zstd, zstd(0x20, 1, 2, 0), pageHeader{unpacked: 1}, "Zstandard"},
		{"levels", format.Zstd, []byte{1}, pageHeader{kind: dataPageV2, unpacked: 9, defLevels: 2},
			"levels have 0 and 2 bytes"},
		{"lz4", format.Lz4Raw, []byte{1}, pageHeader{unpacked: 9}, "write the file with snappy"},
	} {
		if err := checkPacked(c.codec, c.page, &c.h); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not contain %q", c.name, err, c.want)
		}
	}
	if n, err := zstdSize(zstd(0x20, 1, 3|1<<1, 0, 0, 7), 1); n != 1 || err != nil {
		t.Errorf("one byte repeated: %d, %v", n, err)
	}
}
