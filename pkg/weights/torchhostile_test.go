package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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

func TestStoragesRefuse(t *testing.T) {
	tensor := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), v))) }
	refuse(t, []refusal{
		{"not a storage", "refers to something other than a storage", tensor(tup(str("module"), "N", "N", "N", "N") + "Q")},
		{"short id", "refers to something other than a storage", tensor(tup(str("storage")) + "Q")},
		{"id is a string", `refers to the string "0" outside the pickle`, tensor(str("0") + "Q")},
		{"no class", `refers to a storage of the string "f"`,
			tensor(tup(str("storage"), str("f"), str("0"), str("cpu"), num(4)) + "Q")},
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
	})
}

func TestTensorsRefuse(t *testing.T) {
	tensor := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), v))) }
	refuse(t, []refusal{
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
		{"shape overflows", "more elements than can be counted",
			tensor(view(floats("0", 4), 0, nums(1<<40, 1<<40), nums(0, 0)))},
		{"beyond the end", `storage "0": goes beyond the 4 elements`, tensor(view(floats("0", 4), 1, nums(4), nums(1)))},
		{"offset beyond", "goes beyond the 4 elements", tensor(view(floats("0", 4), 4, nums(1), nums(1)))},
		{"far offset", "goes beyond the 4 elements", tensor(view(floats("0", 4), math.MaxInt64, nums(4), nums(1)))},
		{"stride beyond", "goes beyond the 4 elements", tensor(view(floats("0", 4), 0, nums(2, 2), nums(3, 1)))},
		{"stride overflows", "goes beyond the 4 elements",
			tensor(view(floats("0", 4), 0, nums(2, 2), nums(math.MaxInt64, 1)))},
		{"strides overflow", "goes beyond the 4 elements", tensor(view(floats("0", 4), 0, nums(2, 2),
			nums(math.MaxInt64, math.MaxInt64)))},
		{"numel bomb", "has 1099511627776 elements, the storage 4",
			tensor(view(floats("0", 4), 0, nums(1<<20, 1<<20), nums(0, 0)))},
		{"conjugated", `the tensor is stored with "conj" = the value true`, tensor(call("torch._utils", "_rebuild_tensor_v2",
			floats("0", 4), num(0), nums(4), nums(1), "\x89", dict(), dict(str("conj"), "\x88")))},
		{"untyped", "has no element type", tensor(call("torch._utils", "_rebuild_tensor_v2", tup(str("storage"),
			class("torch.storage", "UntypedStorage"), str("0"), str("cpu"), num(16))+"Q", num(0), nums(4), nums(1)))},
		{"odd argument", "argument the value 1 was not expected", tensor(call("torch._utils", "_rebuild_tensor_v3",
			floats("0", 4), num(0), nums(4), nums(1), "\x89", dict(), num(1)))},
		{"parameter of a number", "makes a parameter of the value 1", tensor(call("torch._utils", "_rebuild_parameter",
			num(1), "\x88", dict()))},
		{"parameter of nothing", "0 arguments, expected 3", tensor(call("torch._utils", "_rebuild_parameter"))},
	})
}

func TestStateDictsRefuse(t *testing.T) {
	refuse(t, []refusal{
		{"tensor alone", "holds a tensor, expected a state dict", torchZip(pickleOf(vector("0", 4)))},
		{"list of tensors", "holds a list, expected a state dict", torchZip(pickleOf(list(vector("0", 4))))},
		{"no tensors", `only the keys "epoch", 7`, torchZip(pickleOf(dict(str("epoch"), num(1), num(7), "N")))},
		{"tensors further down", `only the keys "net"`, torchZip(pickleOf(dict(str("net"), dict(str("w"), vector("0", 4)))))},
		{"tensor under a number", "has a tensor under 5, expected a name", torchZip(pickleOf(dict(num(5), vector("0", 4))))},
	})
}

func TestZipRefuses(t *testing.T) {
	ok := pickleOf(dict(str("w"), vector("0", 4)))
	refuse(t, []refusal{
		{"cut off", "cut off or damaged", torchZip(ok)[:100]},
		{"empty archive", "an empty zip archive", zipFile()},
		{"document", `not of PyTorch: it has no data.pkl, but "word/document.xml"`,
			zipFile(stored{name: "word/document.xml"})},
		{"no folder", "it has no data.pkl", zipFile(stored{name: "data.pkl", data: ok})},
		{"two pickles", `has data.pkl in "x" and in "y"`, torchZip(ok, stored{name: "y/data.pkl"})},
		{"entry twice", `has the entry "x/data/0" twice`, torchZip(ok, stored{name: "x/data/0"})},
		{"compressed", `zip entry "x/data.pkl": is compressed`, zipFile(stored{"x/data.pkl", ok, zip.Deflate})},
		{"compressed storage", `zip entry "x/data/1": is compressed`,
			torchZip(ok, stored{"x/data/1", "\x03\x00", zip.Deflate})},
		{"TorchScript", "a TorchScript program", torchZip(ok, stored{name: "x/constants.pkl", data: ok})},
		{"big-endian", `its byte order is "big", expected "little"`, torchZip(ok, stored{name: "x/byteorder", data: "big"})},
		{"other order", `its byte order is "little-"`, torchZip(ok, stored{name: "x/byteorder", data: "little-endian"})},
	})
}

func TestLegacyRefuses(t *testing.T) {
	key := func(k string) string { return pickleOf(list(str(k))) }
	legacy := func(keys, data string) []byte {
		return torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), keys, data)
	}
	refuse(t, []refusal{
		{"other pickle", "a pickle, but not of PyTorch", []byte(pickleOf(dict(str("w"), "N")))},
		{"other magic", "a pickle, but not of PyTorch", []byte(pickleOf("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x18"))},
		{"pickle of numpy", "a pickle, but not of PyTorch", []byte(pickleOf(class("numpy", "ndarray")))},
		{"version", "has the value 1002 as its version", []byte(legacyHeadText(1002, "\x88"))},
		{"ends after the version", "truncated", []byte(legacyHeadText(1001, "\x88"))[:30]},
		{"other machine", "does not come from a little-endian machine", []byte(legacyHeadText(1001, "\x89"))},
		{"no object", "truncated: needs 2 bytes", torchLegacy("", "", "")},
		{"no keys", "truncated", legacy("", "")},
		{"keys are a number", "has the value 1 as the keys", legacy(pickleOf(num(1)), "")},
		{"key is no string", "has the value 1 as the key", legacy(pickleOf(list(num(1))), "")},
		{"no data", `storage "k": has no data`, legacy(pickleOf(list()), "")},
		{"data twice", `storage "k": has data twice`,
			legacy(pickleOf(list(str("k"), str("k"))), elementsOf(1, "....")+elementsOf(1, "...."))},
		{"data of nothing", `storage "u": has data, but no tensor`, legacy(key("u"), "")},
		{"other size", `storage "k": has 2 elements, its tensors say 1`, legacy(key("k"),
			elementsOf(2, "........"))},
		{"no size", `storage "k": truncated: begins at byte`, legacy(key("k"), "...")},
		{"short data", `storage "k": truncated: needs 4 bytes`, legacy(key("k"),
			elementsOf(1, "..."))},
		{"claims much", `storage "k": truncated: it has 4000000000 bytes`,
			torchLegacy(pickleOf(dict(str("w"), vector("k", 1e9))), key("k"),
				elementsOf(1e9, "..."))},
	})
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
