package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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

func TestTorchAccepts(t *testing.T) {
	four := func(s string) string { return strings.Repeat("\x00\x00\x80\x3f", 4)[:len(s)] }
	for name, c := range map[string]struct {
		file []byte
		want string // names
	}{
		"zip":   {torchZip(pickleOf(dict(str("w"), vector("0", 4)))), "w"},
		"model": {torchZip(pickleOf(dict(str("epoch"), num(1), str("model"), dict(str("w"), vector("0", 4))))), "w"},
		"module": {torchZip(pickleOf(dict(str("module"), dict(str("w"), vector("0", 4)),
			str("model"), dict(str("name"), str("x"))))), "w"},
		"model is a tensor": {torchZip(pickleOf(dict(str("model"), vector("0", 4), str("state_dict"), num(1)))), "model"},
		"other values":      {torchZip(pickleOf(dict(str("w"), vector("0", 4), str("_extra_state"), "N"))), "w"},
		"metadata": {torchZip(pickleOf(call("collections", "OrderedDict"), "(", str("w"), vector("0", 4), "u",
			dict(str("_metadata"), dict()), "b")), "w"},
		"Python 2": {torchZip("\x80\x02" + call("collections", "OrderedDict",
			list(list("U\x01w", vector("0", 4)))) + "."), "w"},
		"old tensors": {torchZip(pickleOf(dict(str("w"), call("torch._utils", "_rebuild_tensor", floats("0", 4),
			num(1), nums(3), nums(1))))), "w"},
		"conj off": {torchZip(pickleOf(dict(str("w"), call("torch._utils", "_rebuild_tensor_v2", floats("0", 4), num(0),
			nums(4), nums(1), "\x89", dict(), dict(str("conj"), "\x89"))))), "w"},
		"64 dimensions": {torchZip(pickleOf(dict(str("w"), view(floats("0", 4), 0,
			tup(strings.Repeat(num(1), 64)), tup(strings.Repeat(num(0), 64)))))), "w"},
		"expanded": {torchZip(pickleOf(dict(str("w"), view(floats("0", 4), 3, nums(maxRepeated), nums(0))))), "w"},
		"empty tensor far away": {torchZip(pickleOf(dict(str("w"),
			view(floats("0", 4), math.MaxInt64, nums(0, 9), nums(9, 1))))), "w"},
		"huge stride of one row": {torchZip(pickleOf(dict(str("w"),
			view(floats("0", 4), 0, nums(1, 4), nums(math.MaxInt64, 1))))), "w"},
		"little-endian": {torchZip(pickleOf(dict(str("w"), vector("0", 4))), stored{name: "x/byteorder", data: "little"}),
			"w"},
		"other entries": {torchZip(pickleOf(dict(str("w"), vector("0", 4))), stored{name: "notes.txt", data: "x", method: 8}),
			"w"},
		"legacy": {torchLegacy(pickleOf(dict(str("w"), vector("k", 4))), pickleOf(list(str("k"))),
			elementsOf(4, four("................"))), "w"},
		"legacy with a part": {torchLegacy(pickleOf(dict(str("w"), view(tup(str("storage"), class("torch", "FloatStorage"),
			str("k"), str("cpu"), num(4), tup(str("v"), num(1), num(2)))+"Q", 0, nums(2), nums(1)))),
			pickleOf(list(str("k"))), elementsOf(4, four("................"))), "w"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := OpenTorch(writeTemp(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got := strings.Join(f.Names(), " "); got != c.want {
				t.Errorf("names %s, want %s", got, c.want)
			}
			readAll(t, f)
		})
	}
}

// readAll reads every tensor of a source: what was accepted must be readable.
func readAll(t *testing.T, f Source) {
	t.Helper()
	for _, name := range f.Names() {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tensor.check(); err != nil {
			t.Fatal(err)
		}
		f.Drop(name)
	}
}

// nested is a list in a list in a list ...
func nested(depth int) string { return strings.Repeat("]", depth) + strings.Repeat("a", depth-1) }

// laughs is a list of two references to a list of two references to ... that unfolds to 2^n.
func laughs(n int) string {
	text := str("ha") + "q\x00"
	for range n {
		text += "0"[1:] + tup("h\x00", "h\x00") + "q\x00"
	}
	// What is below on the stack goes into one list with the last.
	return "(" + text + "l"
}

func TestTorchRefuses(t *testing.T) {
	state := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), vector("0", 4), str("x"), v))) }
	tensor := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), v))) }
	ok := pickleOf(dict(str("w"), vector("0", 4)))
	key := func(k string) string { return pickleOf(list(str(k))) }
	for _, c := range []struct {
		name, want string
		file       []byte
	}{
		// What a file may not call.
		{"os.system", `uses the Python object "posix.system"`, state(call("posix", "system", str("true")))},
		{"eval", `uses the Python object "builtins.eval"`, state(call("builtins", "eval", str("1")))},
		{"getattr", `uses the Python object "builtins.getattr"`, state(call("__builtin__", "getattr"))},
		{"numpy", `uses the Python object "numpy.core.multiarray.scalar", which is not part of a state dict`,
			state(call("numpy.core.multiarray", "scalar"))},
		{"own class", `"my.module.Model"`, state(class("my.module", "Model") + ")\x81")},
		{"from the stack", `"os.system"`, state(str("os") + str("system") + "\x93")},
		{"from the stack by number", "names a class by something other than strings", state(num(1) + str("x") + "\x93")},
		{"dotted name", `"torch._utils._rebuild_tensor_v2.x"`, state(class("torch._utils", "_rebuild_tensor_v2.x"))},
		{"other storage", `"torch.QInt8Storage"`, state(class("torch", "QInt8Storage"))},
		{"long name", "names a class by more than 256 bytes", state(class(strings.Repeat("m", 300), "x"))},
		{"calls a value", `calls the string "f"`, state(str("f") + ")R")},
		{"calls a storage class", "calls torch.FloatStorage", state(call("torch", "FloatStorage"))},
		{"calls with a list", "calls with a list, expected a tuple", state(class("collections", "OrderedDict") + "]R")},
		{"class as a value", "holds collections.OrderedDict as a value", state(class("collections", "OrderedDict"))},
		{"storage as a value", "holds a storage as a value", state(floats("0", 4))},
		{"attributes of a number", "sets attributes of the value 1", state(num(1) + dict() + "b")},
		{"attributes to a number", "sets attributes to the value 1", state("}" + num(1) + "b")},
		{"namespace with arguments", "argparse.Namespace: expected no arguments", state(call("argparse", "Namespace", num(1)))},
		{"namespace twice", `has the key "a" twice`, state(class("argparse", "Namespace") + ")\x81" +
			dict(str("a"), num(1)) + "b" + dict(str("a"), num(1)) + "b")},
		{"size of nothing", "torch.Size: expected a tuple", state(call("torch", "Size"))},
		{"device by number", "torch.device: expected a kind", state(call("torch", "device", num(1)))},
		{"set of a number", "set: expected a list", state(call("builtins", "set", num(1)))},
		{"bytes in another code", `expected a string and "latin1"`, state(call("_codecs", "encode", str("x"), str("rot13")))},
		{"bytes of no string", "expected a string", state(call("_codecs", "encode", num(1), str("latin1")))},
		{"bytes beyond 255", "is no byte", state(call("_codecs", "encode", str("€"), str("latin1")))},
		{"ordered dict of a number", "expected a list of keys", state(call("collections", "OrderedDict", num(1)))},
		{"ordered dict of numbers", "expected pairs", state(call("collections", "OrderedDict", list(num(1))))},
		// The language.
		{"empty pickle", "truncated: needs 2 bytes, 0 are left", torchZip("")},
		{"protocol 0", "not a pickle of protocol 2 to 5", torchZip("(dp0\n.")},
		{"protocol 6", "not a pickle of protocol 2 to 5", torchZip("\x80\x06N.")},
		{"no end", "at byte 2: truncated: needs 1 bytes, 0 are left", torchZip("\x80\x02")},
		{"more after the end", "1 bytes follow the end of the pickle", torchZip(ok + "N")},
		{"nothing built", "ends with 0 values on the stack", torchZip(pickleOf())},
		{"two values", "ends with 2 values on the stack", torchZip(pickleOf("NN"))},
		{"open mark", "1 open marks", torchZip(pickleOf("N("))},
		{"instruction of protocol 0", "has the instruction 0x49", torchZip(pickleOf("I1\n"))},
		{"next buffer", "has the instruction 0x97", torchZip(pickleOf("\x97"))},
		{"extension", "has the instruction 0x82", torchZip(pickleOf("\x82\x01"))},
		{"protocol again", "has the instruction 0x80", torchZip(pickleOf("\x80\x02N"))},
		{"empty stack", "takes more values than there are", torchZip(pickleOf("\x85"))},
		{"below the mark", "takes more values than there are", torchZip(pickleOf("N(\x85"))},
		{"no mark", "a mark is missing", torchZip(pickleOf("t"))},
		{"append to a tuple", "appends to a tuple, expected a list", torchZip(pickleOf(")Na"))},
		{"items of a list", "sets items of a list, expected a dict", torchZip(pickleOf("]NNs"))},
		{"odd items", "sets a key without a value", torchZip(pickleOf("}(Nu"))},
		{"no such note", "refers to value 7, which was not noted", torchZip(pickleOf("h\x07"))},
		{"note of nothing", "takes more values than there are", torchZip(pickleOf("q\x00N"))},
		{"huge string", "truncated: needs 4294967295 bytes", torchZip(pickleOf("X\xff\xff\xff\xff"))},
		{"huger string", "truncated: needs 18446744073709551615 bytes", torchZip(pickleOf("\x8d" + strings.Repeat("\xff", 8)))},
		{"huge bytes", "truncated: needs 9223372036854775807 bytes", torchZip(pickleOf("\x8e" + strings.Repeat("\xff", 7) + "\x7f"))},
		{"huge integer", "has an integer of 1000 bytes", torchZip(pickleOf("\x8b\xe8\x03\x00\x00" + strings.Repeat("\x01", 1000)))},
		{"bad UTF-8", "not valid UTF-8", torchZip(pickleOf(str("\xff")))},
		{"key twice", `the dict has the key "w" twice`, torchZip(pickleOf(dict(str("w"), "N", str("w"), "N")))},
		{"equal keys", "the dict has the key true twice", torchZip(pickleOf(dict(num(1), "N", "\x88", "N")))},
		{"key is a list", "a dict has a list as a key", torchZip(pickleOf(dict("]", "N")))},
		{"key is a tuple", "a dict has a tuple as a key", torchZip(pickleOf(dict(")", "N")))},
		{"key is NaN", "the key NaN", torchZip(pickleOf(dict("G\x7f\xf8\x00\x00\x00\x00\x00\x00", "N")))},
		{"long key", "a key of 5000 bytes", torchZip(pickleOf(dict(str(strings.Repeat("k", 5000)), "N")))},
		// Values that never end.
		{"list in itself", "has a list or dict that contains itself", state("]q\x00h\x00a")},
		{"dict in itself", "has a list or dict that contains itself", state("}q\x00" + str("a") + "h\x00s")},
		{"around two corners", "contains itself", state("]q\x00]q\x01h\x00aa")},
		{"deep", "nests more than 500", state(nested(501))},
		{"very deep", "nests more than 500", state(nested(1_000_000))},
		{"deep by reference", "nests more than 500", state(list(nested(300)+"q\x00"+
			strings.Repeat("\x85", 150), strings.Repeat("]", 250)+"h\x00"+strings.Repeat("a", 250)))},
		{"a billion laughs", "repeats shared values", state(laughs(64))},
		{"shared strings", "repeats shared values", state("(" + str(strings.Repeat("x", 1<<20)) + "q\x00" +
			strings.Repeat("h\x00", 1000) + "l")},
		{"many instructions", "has more than 4000000 instructions", torchZip(pickleOf(strings.Repeat("N", maxSteps+1)))},
		{"copies of a dict", "from the same long arguments over and over", state("(" + dict(manyItems(1000)) + "q\x00" +
			strings.Repeat(class("argparse", "Namespace")+")\x81h\x00b", 1000) + "l")},
		// Storages.
		{"not a storage", "refers to something other than a storage", tensor(tup(str("module"), "N", "N", "N", "N") + "Q")},
		{"short id", "refers to something other than a storage", tensor(tup(str("storage")) + "Q")},
		{"id is a string", `refers to the string "0" outside the pickle`, tensor(str("0") + "Q")},
		{"no class", `refers to a storage of the string "f"`, tensor(tup(str("storage"), str("f"), str("0"), str("cpu"), num(4)) + "Q")},
		{"class of no storage", "refers to a storage of collections.OrderedDict",
			tensor(tup(str("storage"), class("collections", "OrderedDict"), str("0"), str("cpu"), num(4)) + "Q")},
		{"key is a number", "refers to a storage by the value 0",
			tensor(tup(str("storage"), class("torch", "FloatStorage"), num(0), str("cpu"), num(4)) + "Q")},
		{"negative elements", `storage "0": has the value -4 elements`, tensor(vector("0", -4))},
		{"too many elements", `storage "0": needs 20 bytes, its entry has 16`, tensor(vector("0", 5))},
		{"too few elements", `storage "0": needs 12 bytes, its entry has 16`, tensor(vector("0", 3))},
		{"elements overflow", `storage "0": truncated: it has too many bytes`, tensor(vector("0", math.MaxInt64))},
		{"no entry", `storage "7": the archive has no entry "x/data/7"`, tensor(vector("7", 4))},
		{"entry elsewhere", `no entry "x/data/../../etc/passwd"`, tensor(vector("../../etc/passwd", 4))},
		{"two types", `storage "0": has 16 bytes of "I32", and elsewhere 16 of "F32"`, tensor(vector("0", 4) + "q\x00" +
			strings.Replace(vector("0", 4), "FloatStorage", "IntStorage", 1) + "\x86")},
		{"two sizes", `storage "0": has 8 bytes of "F32", and elsewhere 16`, tensor(tup(vector("0", 4), vector("0", 2)))},
		{"part by number", "refers to a part of a storage by something", tensor(tup(str("storage"),
			class("torch", "FloatStorage"), str("0"), str("cpu"), num(4), num(1)) + "Q")},
		{"part beyond", "a part of 2 elements at 3 goes beyond its 4", tensor(tup(str("storage"),
			class("torch", "FloatStorage"), str("0"), str("cpu"), num(4), tup(str("v"), num(3), num(2))) + "Q")},
		// Tensors.
		{"three arguments", "_rebuild_tensor_v2: 3 arguments, expected 4 to 8",
			tensor(call("torch._utils", "_rebuild_tensor_v2", floats("0", 4), num(0), nums(4)))},
		{"tensor of a number", "builds a tensor from the value 1", tensor(view(num(1), 0, nums(4), nums(1)))},
		{"negative offset", "the offset is the value -1", tensor(view(floats("0", 4), -1, nums(1), nums(1)))},
		{"offset is a string", "the offset is the string", tensor(call("torch._utils", "_rebuild_tensor_v2", floats("0", 4),
			str("x"), nums(4), nums(1)))},
		{"negative dimension", "the shape holds the value -1", tensor(view(floats("0", 4), 0, nums(-1), nums(1)))},
		{"negative stride", "the stride holds the value -1", tensor(view(floats("0", 4), 3, nums(4), nums(-1)))},
		{"shape is a number", "the shape is the value 4", tensor(view(floats("0", 4), 0, num(4), nums(1)))},
		{"65 dimensions", "the shape has 65 dimensions", tensor(view(floats("0", 4), 0, tup(strings.Repeat(num(1), 65)),
			tup(strings.Repeat(num(1), 65))))},
		{"stride missing", "1 strides for 2 dimensions", tensor(view(floats("0", 4), 0, nums(2, 2), nums(2)))},
		{"shape overflows", "more elements than can be counted", tensor(view(floats("0", 4), 0, nums(1<<40, 1<<40), nums(0, 0)))},
		{"beyond the end", `storage "0": goes beyond the 4 elements`, tensor(view(floats("0", 4), 1, nums(4), nums(1)))},
		{"offset beyond", "goes beyond the 4 elements", tensor(view(floats("0", 4), 4, nums(1), nums(1)))},
		{"far offset", "goes beyond the 4 elements", tensor(view(floats("0", 4), math.MaxInt64, nums(4), nums(1)))},
		{"stride beyond", "goes beyond the 4 elements", tensor(view(floats("0", 4), 0, nums(2, 2), nums(3, 1)))},
		{"stride overflows", "goes beyond the 4 elements", tensor(view(floats("0", 4), 0, nums(2, 2), nums(math.MaxInt64, 1)))},
		{"strides overflow", "goes beyond the 4 elements", tensor(view(floats("0", 4), 0, nums(2, 2),
			nums(math.MaxInt64, math.MaxInt64)))},
		{"numel bomb", "has 1099511627776 elements, the storage 4", tensor(view(floats("0", 4), 0, nums(1<<20, 1<<20), nums(0, 0)))},
		{"conjugated", `the tensor is stored with "conj" = the value true`, tensor(call("torch._utils", "_rebuild_tensor_v2",
			floats("0", 4), num(0), nums(4), nums(1), "\x89", dict(), dict(str("conj"), "\x88")))},
		{"untyped", "has no element type", tensor(call("torch._utils", "_rebuild_tensor_v2", tup(str("storage"),
			class("torch.storage", "UntypedStorage"), str("0"), str("cpu"), num(16))+"Q", num(0), nums(4), nums(1)))},
		{"odd argument", "argument the value 1 was not expected", tensor(call("torch._utils", "_rebuild_tensor_v3",
			floats("0", 4), num(0), nums(4), nums(1), "\x89", dict(), num(1)))},
		{"parameter of a number", "makes a parameter of the value 1", tensor(call("torch._utils", "_rebuild_parameter",
			num(1), "\x88", dict()))},
		{"parameter of nothing", "0 arguments, expected 3", tensor(call("torch._utils", "_rebuild_parameter"))},
		// State dicts.
		{"tensor alone", "holds a tensor, expected a state dict", torchZip(pickleOf(vector("0", 4)))},
		{"list of tensors", "holds a list, expected a state dict", torchZip(pickleOf(list(vector("0", 4))))},
		{"no tensors", `only the keys "epoch", 7`, torchZip(pickleOf(dict(str("epoch"), num(1), num(7), "N")))},
		{"tensors further down", `only the keys "net"`, torchZip(pickleOf(dict(str("net"), dict(str("w"), vector("0", 4)))))},
		{"tensor under a number", "has a tensor under 5, expected a name", torchZip(pickleOf(dict(num(5), vector("0", 4))))},
		// Zip archives.
		{"cut off", "cut off or damaged", torchZip(ok)[:100]},
		{"empty archive", "an empty zip archive", zipFile()},
		{"document", `not of PyTorch: it has no data.pkl, but "word/document.xml"`, zipFile(stored{name: "word/document.xml"})},
		{"no folder", "it has no data.pkl", zipFile(stored{name: "data.pkl", data: ok})},
		{"two pickles", `has data.pkl in "x" and in "y"`, torchZip(ok, stored{name: "y/data.pkl"})},
		{"entry twice", `has the entry "x/data/0" twice`, torchZip(ok, stored{name: "x/data/0"})},
		{"compressed", `zip entry "x/data.pkl": is compressed`, zipFile(stored{"x/data.pkl", ok, zip.Deflate})},
		{"compressed storage", `zip entry "x/data/1": is compressed`, torchZip(ok, stored{"x/data/1", "\x03\x00", zip.Deflate})},
		{"TorchScript", "a TorchScript program", torchZip(ok, stored{name: "x/constants.pkl", data: ok})},
		{"big-endian", `its byte order is "big", expected "little"`, torchZip(ok, stored{name: "x/byteorder", data: "big"})},
		{"other order", `its byte order is "little-"`, torchZip(ok, stored{name: "x/byteorder", data: "little-endian"})},
		// Legacy files.
		{"other pickle", "a pickle, but not of PyTorch", []byte(pickleOf(dict(str("w"), "N")))},
		{"other magic", "a pickle, but not of PyTorch", []byte(pickleOf("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x18"))},
		{"pickle of numpy", "a pickle, but not of PyTorch", []byte(pickleOf(class("numpy", "ndarray")))},
		{"version", "has the value 1002 as its version", []byte(legacyHeadText(1002, "\x88"))},
		{"ends after the version", "truncated", []byte(legacyHeadText(1001, "\x88"))[:30]},
		{"other machine", "does not come from a little-endian machine", []byte(legacyHeadText(1001, "\x89"))},
		{"no object", "truncated: needs 2 bytes", torchLegacy("", "", "")},
		{"no keys", "truncated", torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), "", "")},
		{"keys are a number", "has the value 1 as the keys", torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), pickleOf(num(1)), "")},
		{"key is no string", "has the value 1 as the key", torchLegacy(pickleOf(dict(str("w"), vector("k", 1))),
			pickleOf(list(num(1))), "")},
		{"no data", `storage "k": has no data`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), pickleOf(list()), "")},
		{"data twice", `storage "k": has data twice`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))),
			pickleOf(list(str("k"), str("k"))), elementsOf(1, "....")+elementsOf(1, "...."))},
		{"data of nothing", `storage "u": has data, but no tensor`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), key("u"), "")},
		{"other size", `storage "k": has 2 elements, its tensors say 1`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), key("k"),
			elementsOf(2, "........"))},
		{"no size", `storage "k": truncated: begins at byte`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), key("k"), "...")},
		{"short data", `storage "k": truncated: needs 4 bytes`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), key("k"),
			elementsOf(1, "..."))},
		{"claims much", `storage "k": truncated: it has 4000000000 bytes`, torchLegacy(pickleOf(dict(str("w"), vector("k", 1e9))),
			key("k"), elementsOf(1e9, "..."))},
	} {
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
			if len(err.Error()) > 2000 || time.Since(begin) > 5*time.Second {
				t.Errorf("an error of %d bytes after %v", len(err.Error()), time.Since(begin))
			}
		})
	}
}

// TestOverlappingEntries lets the directory place a storage inside the pickle.
func TestOverlappingEntries(t *testing.T) {
	file := torchZip(pickleOf(dict(str("w"), vector("0", 4))))
	directory := bytes.LastIndex(file, []byte("PK\x01\x02"))
	pickle := bytes.Index(file, []byte("PK\x03\x04"))
	binary.LittleEndian.PutUint32(file[directory+42:], uint32(pickle))
	path := writeTemp(t, file)
	if _, err := OpenTorch(path); err == nil || !strings.Contains(err.Error(), `"x/data.pkl" and "x/data/0" overlap`) {
		t.Errorf("got %v", err)
	}
	// And beyond the end of the file.
	file = torchZip(pickleOf(dict(str("w"), vector("0", 4))))
	binary.LittleEndian.PutUint32(file[directory+20:], 1<<20)
	binary.LittleEndian.PutUint32(file[directory+24:], 1<<20)
	if _, err := OpenTorch(writeTemp(t, file)); err == nil || !strings.Contains(err.Error(),
		`zip entry "x/data/0": truncated: needs 1048576 bytes`) {
		t.Errorf("got %v", err)
	}
}

// TestPicklesAllocateLittle: memory is bounded by a multiple of the file.
func TestPicklesAllocateLittle(t *testing.T) {
	const n = 200_000
	numbered := func(i int) string { return "r" + string(binary.LittleEndian.AppendUint32(nil, uint32(i*7919))) }
	var notes strings.Builder
	for i := range n {
		notes.WriteString("}" + numbered(i))
	}
	for name, pickle := range map[string]string{
		"dicts":   pickleOf(strings.Repeat("}", n)),
		"lists":   pickleOf(strings.Repeat("]", n)),
		"notes":   pickleOf(notes.String()),
		"laughs":  pickleOf(laughs(n / 8)),
		"strings": pickleOf("(" + str(strings.Repeat("x", n)) + "q\x00" + strings.Repeat("h\x00", n) + "l"),
		"bytes": pickleOf(str(strings.Repeat("x", n)) + "q\x00" + str("latin1") + "q\x01" +
			class("_codecs", "encode") + "q\x02" + strings.Repeat("h\x02h\x00h\x01\x86R", n)),
		"namespaces": pickleOf("}(" + manyItems(n/4) + "uq\x00" + class("argparse", "Namespace") + "q\x01" +
			strings.Repeat("h\x01)\x81h\x00b", n)),
		"ordered dicts": pickleOf(list(tup(str("a"), "N")+strings.Repeat("N", n)) + "q\x00" +
			class("collections", "OrderedDict") + "q\x01" + strings.Repeat("h\x01h\x00\x85R", n)),
		"open":   "\x80\x02" + strings.Repeat("(", n),
		"tuples": pickleOf("(" + strings.Repeat("N", n) + "tq\x00" + strings.Repeat("h\x00\x85", n)),
	} {
		t.Run(name, func(t *testing.T) {
			path := writeTemp(t, torchZip(pickle))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			if f, err := OpenTorch(path); err == nil {
				f.Close()
				t.Fatal("accepted")
			}
			runtime.ReadMemStats(&after)
			// Among it the stack and the notes while they grow.
			used, most := after.TotalAlloc-before.TotalAlloc, uint64(500*len(pickle))
			if used > most || time.Since(begin) > 10*time.Second {
				t.Errorf("refusing %d bytes allocated %d and took %v", len(pickle), used, time.Since(begin))
			}
		})
	}
}

// manyItems are n keys and values of a dict.
func manyItems(n int) string {
	var items strings.Builder
	for i := range n {
		items.WriteString(str(strconv.Itoa(i)) + "N")
	}
	return items.String()
}

// TestTorchBitFlips flips bits and cuts files that PyTorch wrote: whatever is accepted can be read.
func TestTorchBitFlips(t *testing.T) {
	for _, name := range []string{"torch-zip.pth", "torch-legacy.pth"} {
		reference, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for bit := 0; bit < 8*len(reference); bit += 29 {
			flipped := bytes.Clone(reference)
			flipped[bit/8] ^= 1 << (bit % 8)
			if f, err := newTorch(inMemory(flipped)); err == nil {
				readAll(t, f)
			}
		}
		for n := 0; n < len(reference); n += 31 {
			if f, err := newTorch(inMemory(reference[:n])); err == nil {
				readAll(t, f)
				t.Errorf("%s: the first %d of %d bytes were accepted", name, n, len(reference))
			}
		}
	}
}
