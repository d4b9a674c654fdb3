package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"time"
)

// Pickles of the tests are texts of instructions: these are the pieces they are put together from.

func pickleOf(parts ...string) string { return "\x80\x02" + strings.Join(parts, "") + "." }

// str is a string.
func str(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

// num is a whole number.
func num(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

// tup is a tuple of what the parts push.
func tup(parts ...string) string { return "(" + strings.Join(parts, "") + "t" }

// list is a list.
func list(parts ...string) string { return "](" + strings.Join(parts, "") + "e" }

// dict is a dict; keys and values alternate.
func dict(parts ...string) string { return "}(" + strings.Join(parts, "") + "u" }

// class names a class or function.
func class(module, name string) string { return "c" + module + "\n" + name + "\n" }

// call calls a function.
func call(module, name string, args ...string) string {
	return class(module, name) + tup(args...) + "R"
}

// nums is a tuple of numbers.
func nums(n ...int64) string {
	parts := make([]string, len(n))
	for i, x := range n {
		parts[i] = num(x)
	}
	return tup(parts...)
}

// floats is a reference to a storage of float32.
func floats(key string, elements int64) string {
	return tup(str("storage"), class("torch", "FloatStorage"), str(key), str("cpu"), num(elements)) + "Q"
}

// view is a tensor in a storage.
func view(storage string, offset int64, shape, stride string) string {
	return call("torch._utils", "_rebuild_tensor_v2", storage, num(offset), shape, stride, "\x89",
		call("collections", "OrderedDict"))
}

// vector is a tensor of all elements of storage key.
func vector(key string, n int64) string { return view(floats(key, n), 0, nums(n), nums(1)) }

// stored is an entry of a zip archive.
type stored struct {
	name, data string
	method     uint16
}

// zipFile makes a zip archive without data descriptors, as PyTorch's is but for the alignment.
func zipFile(entries ...stored) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, e := range entries {
		to, err := w.CreateRaw(&zip.FileHeader{
			Name: e.name, Method: e.method, CRC32: crc32.ChecksumIEEE([]byte(e.data)),
			CompressedSize64: uint64(len(e.data)), UncompressedSize64: uint64(len(e.data)),
		})
		if err != nil {
			panic(err)
		}
		if _, err := to.Write([]byte(e.data)); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// torchZip is a container with a pickle and a storage "0" of 16 bytes; more entries may follow.
func torchZip(pickle string, more ...stored) []byte {
	return zipFile(append([]stored{{name: "x/data.pkl", data: pickle},
		{name: "x/data/0", data: "\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x40\x40\x00\x00\x80\x40"}}, more...)...)
}

// legacyHeadText is the part in front of the object.
func legacyHeadText(version int64, little string) string {
	return pickleOf("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19") + pickleOf(num(version)) +
		pickleOf(dict(str("little_endian"), little))
}

// torchLegacy is a legacy container.
func torchLegacy(object, keys, data string) []byte {
	return []byte(legacyHeadText(1001, "\x88") + object + keys + data)
}

// elementsOf is the data of a storage in a legacy container.
func elementsOf(n uint64, data string) string {
	return string(binary.LittleEndian.AppendUint64(nil, n)) + data
}

// refusal is a file that must not be accepted, and what the error must say.
type refusal struct {
	name, want string
	file       []byte
}

// refuse opens the files: the errors must begin with the path, be short, and come soon.
func refuse(t *testing.T, cases []refusal) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, c.file)
			begin := time.Now()
			f, err := OpenTorch(path)
			if err == nil {
				f.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("got %v\nwant the path and %s", err, c.want)
			}
			if len(err.Error()) > 2000 || time.Since(begin) > 10*time.Second {
				t.Errorf("an error of %d bytes after %v", len(err.Error()), time.Since(begin))
			}
		})
	}
}
