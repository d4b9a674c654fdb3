package weights

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// rawFile makes a file of a header text and data, whether or not the two agree.
func rawFile(header string, data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), data...)
}

func writeTemp(t testing.TB, contents []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, contents, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// bothWays runs a test with the file mapped and with the file read piecewise.
func bothWays(t *testing.T, test func(t *testing.T, open func(string) (*File, error))) {
	t.Run("mapped", func(t *testing.T) { test(t, Open) })
	t.Run("read", func(t *testing.T) {
		test(t, func(path string) (*File, error) {
			return open(path, func(*os.File, int) ([]byte, error) { return nil, errNoMap })
		})
	})
}

func TestReferenceFile(t *testing.T) {
	bothWays(t, func(t *testing.T, open func(string) (*File, error)) {
		f, err := open("testdata/reference.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if len(f.Names()) != 15 || !slices.IsSorted(f.Names()) || f.Metadata()["format"] != "pt" {
			t.Fatalf("names %v, metadata %v", f.Names(), f.Metadata())
		}
		floats := map[string][]float32{
			"f64":                 {1.5, -2.25, 0, inf(1)},
			"f32":                 {0, negativeZero(), 0x1p-149, 1.5, 0x1.fffffep127, inf(1)},
			"f16":                 {0, negativeZero(), 0x1p-24, 0x3ffp-24, 0x1p-14, 1, -2, 65504, inf(1), inf(-1)},
			"bf16":                {0, negativeZero(), 0x1p-133, 1, -5, 0x1.fep127, inf(1), inf(-1)},
			"Qformer.bert.scalar": {0.07},
			"empty":               {},
		}
		for name, want := range floats {
			compareFloats(t, f, name, want)
		}
		ints := map[string][]int64{
			"i64": {math.MinInt64, -1, 0, math.MaxInt64}, "i32": {math.MinInt32, math.MaxInt32},
			"i16": {-1 << 15, 1<<15 - 1}, "i8": {-128, 127}, "u64": {math.MaxInt64}, "u32": {1<<32 - 1},
			"u16": {1<<16 - 1}, "u8": {0, 255}, "bool": {1, 0, 1},
		}
		for name, want := range ints {
			tensor, err := f.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := tensor.Int64s(); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v, %v; want %v", name, got, err, want)
			}
		}
	})
}

// compareFloats compares bits, since zeros have signs; a NaN may follow the wanted values.
func compareFloats(t *testing.T, f *File, name string, want []float32) {
	t.Helper()
	tensor, err := f.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tensor.Float32s()
	if err != nil || len(got) < len(want) {
		t.Fatalf("%s: %v, %v", name, got, err)
	}
	for i, v := range got {
		if i == len(want) {
			if v == v {
				t.Errorf("%s[%d] is %g, want NaN", name, i, v)
			}
		} else if math.Float32bits(v) != math.Float32bits(want[i]) {
			t.Errorf("%s[%d] is %g, want %g", name, i, v, want[i])
		}
	}
}

func inf(sign int) float32  { return float32(math.Inf(sign)) }
func negativeZero() float32 { return float32(math.Copysign(0, -1)) }

func TestShapes(t *testing.T) {
	f, err := Open("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string][]int{"f64": {2, 2}, "Qformer.bert.scalar": {}, "empty": {0, 3}} {
		tensor, err := f.Tensor(name)
		if err != nil || tensor.Shape == nil || !slices.Equal(tensor.Shape, want) || tensor.Name != name {
			t.Errorf("%s: %+v, %v", name, tensor, err)
		}
	}
	if _, err := f.Tensor("nosuch"); err == nil || !strings.Contains(err.Error(), `no tensor "nosuch" among its 15`) {
		t.Errorf("missing tensor: %v", err)
	}
	if f.Has("nosuch") || !f.Has("f64") {
		t.Error("Has is wrong")
	}
}

func TestClose(t *testing.T) {
	bothWays(t, func(t *testing.T, open func(string) (*File, error)) {
		f, err := open("testdata/reference.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.Tensor("f32"); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("tensor after close: %v", err)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	one := func(fields string) string { return `{"x":{` + fields + `}}` }
	ok := one(`"dtype":"F32","shape":[2],"data_offsets":[0,8]`)
	huge := binary.LittleEndian.AppendUint64(nil, math.MaxUint64)
	for _, c := range []struct {
		name, want string
		file       []byte
	}{
		{"empty file", "it has 0 bytes", nil},
		{"seven bytes", "it has 7 bytes", make([]byte, 7)},
		{"no header", "not a JSON object", make([]byte, 8)},
		{"huge header", "claims a header of 18446744073709551615 bytes", append(huge, '{')},
		{"header over the limit", "claims a header of 100000001", binary.LittleEndian.AppendUint64(nil, maxHeader+1)},
		{"truncated header", "the header needs 108 bytes, the file has 9", append([]byte{100, 0, 0, 0, 0, 0, 0, 0}, '{')},
		{"not JSON", "not a JSON object", rawFile(`{"x":}`, nil)},
		{"list", "not a JSON object", rawFile(`[]`, nil)},
		{"space before", "not a JSON object", rawFile(` {}`, nil)},
		{"two objects", "not a JSON object", rawFile(`{}{}`, nil)},
		{"NUL padding", "not a JSON object", rawFile("{}\x00", nil)},
		{"bad UTF-8", "not a JSON object", rawFile("{\"\xff\":1}", nil)},
		{"tensor is a number", `tensor "x": found the number "1", expected "{"`, rawFile(`{"x":1}`, nil)},
		{"tensor is null", `found null`, rawFile(`{"x":null}`, nil)},
		{"name twice", `the name "x" occurs twice`, rawFile(ok[:len(ok)-1]+","+ok[1:], make([]byte, 8))},
		{"same name escaped", `the name "x" occurs twice`,
			rawFile(strings.Replace(ok[:len(ok)-1]+","+ok[1:], `"x"`, `"\u0078"`, 1), make([]byte, 8))},
		{"field twice", `the name "dtype" occurs twice`,
			rawFile(one(`"dtype":"F32","dtype":"F16","shape":[],"data_offsets":[0,4]`), make([]byte, 4))},
		{"no dtype", "needs dtype, shape and data_offsets", rawFile(one(`"shape":[],"data_offsets":[0,4]`), make([]byte, 4))},
		{"no shape", "needs dtype, shape", rawFile(one(`"dtype":"F32","data_offsets":[0,4]`), make([]byte, 4))},
		{"no offsets", "needs dtype, shape", rawFile(one(`"dtype":"F32","shape":[]`), nil)},
		{"unknown dtype", `unknown dtype "F8_E5M2"; known are F64`,
			rawFile(one(`"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]`), make([]byte, 1))},
		{"dtype not a string", "dtype: found the number", rawFile(one(`"dtype":7,"shape":[1],"data_offsets":[0,1]`), nil)},
		{"negative dimension", `shape: "-2" is not a whole number`,
			rawFile(one(`"dtype":"F32","shape":[-2],"data_offsets":[0,8]`), make([]byte, 8))},
		{"fraction", `"2.0" is not a whole number`,
			rawFile(one(`"dtype":"F32","shape":[2.0],"data_offsets":[0,8]`), make([]byte, 8))},
		{"exponent", `"1e30" is not a whole number`,
			rawFile(one(`"dtype":"F32","shape":[1e30],"data_offsets":[0,8]`), make([]byte, 8))},
		{"shape as text", "shape: found the string", rawFile(one(`"dtype":"F32","shape":["2"],"data_offsets":[0,8]`), nil)},
		{"shape overflows", "more elements than can be counted",
			rawFile(one(`"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]`), make([]byte, 8))},
		{"bytes overflow", "need too many bytes",
			rawFile(one(`"dtype":"F64","shape":[9223372036854775807],"data_offsets":[0,8]`), make([]byte, 8))},
		{"size mismatch", "3 elements of F32 need 12 bytes, data_offsets give 8",
			rawFile(one(`"dtype":"F32","shape":[3],"data_offsets":[0,8]`), make([]byte, 8))},
		{"not whole elements", "1 elements of F32 need 4 bytes, data_offsets give 5",
			rawFile(one(`"dtype":"F32","shape":[1],"data_offsets":[0,5]`), make([]byte, 5))},
		{"backward offsets", "end at 0 before they begin at 8",
			rawFile(one(`"dtype":"F32","shape":[2],"data_offsets":[8,0]`), make([]byte, 8))},
		{"one offset", "data_offsets has 1 numbers", rawFile(one(`"dtype":"F32","shape":[],"data_offsets":[4]`), nil)},
		{"truncated data", `tensor "x": truncated: ends at byte 8 of the data, the file has 7`, rawFile(ok, make([]byte, 7))},
		{"data beyond the file", "truncated: ends at byte 4000000000000000000",
			rawFile(one(`"dtype":"U8","shape":[4000000000000000000],"data_offsets":[0,4000000000000000000]`), nil)},
		{"rest", "the rest belongs to no tensor", rawFile(ok, make([]byte, 9))},
		{"hole at the start", `begins at byte 8 of the data, expected 0`,
			rawFile(one(`"dtype":"F32","shape":[2],"data_offsets":[8,16]`), make([]byte, 16))},
		{"hole between", `tensor "b": begins at byte 8 of the data, expected 4`,
			rawFile(two("F32", 0, 4, "F32", 8, 12), make([]byte, 12))},
		{"overlap", `tensor "b": begins at byte 4 of the data, inside tensor "a" which ends at 8`,
			rawFile(two("F64", 0, 8, "F64", 4, 12), make([]byte, 12))},
		{"same place", `inside tensor "a"`, rawFile(two("F32", 0, 4, "F32", 0, 4), make([]byte, 4))},
		{"metadata not strings", "__metadata__", rawFile(`{"__metadata__":{"a":1}}`, nil)},
		{"metadata not an object", "__metadata__", rawFile(`{"__metadata__":[]}`, nil)},
		{"metadata twice", "occurs twice", rawFile(`{"__metadata__":{},"__metadata__":{}}`, nil)},
		{"deep nesting", "not a JSON object",
			rawFile(`{"x":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`}`, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, c.file)
			f, err := Open(path)
			if err == nil {
				f.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("got %v\nwant the path and %s", err, c.want)
			}
		})
	}
}

// two is a header of two scalar tensors a and b.
func two(typeA string, beginA, endA int, typeB string, beginB, endB int) string {
	const scalar = `{"dtype":%q,"shape":[],"data_offsets":[%d,%d]}`
	return fmt.Sprintf(`{"a":`+scalar+`,"b":`+scalar+`}`, typeA, beginA, endA, typeB, beginB, endB)
}

func TestOpenAccepts(t *testing.T) {
	for name, file := range map[string][]byte{
		"no tensors":     rawFile(`{}`, nil),
		"spaces behind":  rawFile("{} \t\n  ", nil),
		"unknown fields": rawFile(`{"x":{"dtype":"U8","more":{"a":[1,{}]},"shape":[1],"data_offsets":[0,1]}}`, []byte{1}),
		"empty in front": rawFile(`{"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},`+
			`"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},`+
			`"y":{"dtype":"F32","shape":[5,0],"data_offsets":[1,1]}}`, []byte{1}),
		"unaligned": rawFile(two("U8", 0, 1, "F32", 1, 5), make([]byte, 5)),
	} {
		f, err := Open(writeTemp(t, file))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, n := range f.Names() {
			if _, err := f.Tensor(n); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenWrongKindOfFile(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "nosuch")); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("missing file: %v", err)
	}
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
}

func TestErrorsClipHostileNames(t *testing.T) {
	file := rawFile(`{"`+strings.Repeat("A", 1<<20)+`":1}`, nil)
	if _, err := Open(writeTemp(t, file)); err == nil || len(err.Error()) > 1000 {
		t.Errorf("the error for a name of 1 MiB is %d bytes long", len(err.Error()))
	}
}

// TestClaimsAllocateNothing opens files that claim much and have little.
func TestClaimsAllocateNothing(t *testing.T) {
	limit := binary.LittleEndian.AppendUint64(nil, maxHeader)
	claim := rawFile(`{"x":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}`, nil)
	for _, file := range [][]byte{limit, claim} {
		path := writeTemp(t, file)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := Open(path); err == nil {
			t.Fatal("accepted")
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("refusing a file of %d bytes allocated %d", len(file), used)
		}
	}
}

// TestGoldenFilesOpen reads every tensor of the recorded reference cases.
func TestGoldenFilesOpen(t *testing.T) {
	root := os.Getenv("BLIP2_GOLDEN")
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "golden")
	}
	if _, err := os.Stat(root); err != nil {
		t.Skipf("no recorded cases: %v (set BLIP2_GOLDEN)", err)
	}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".safetensors" {
			return err
		}
		files++
		f, err := Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, name := range f.Names() {
			tensor, err := f.Tensor(name)
			if err != nil {
				return err
			}
			if _, err := tensor.check(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}
