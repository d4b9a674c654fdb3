package weights

import (
	"encoding/binary"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestNothingIsCalled: classes and functions beyond the few of a state dict, and wrong use of those.
func TestNothingIsCalled(t *testing.T) {
	state := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), vector("0", 4), str("x"), v))) }
	refuse(t, []refusal{
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
		{"namespace with arguments", "argparse.Namespace: expected no arguments",
			state(call("argparse", "Namespace", num(1)))},
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
	})
}

func TestPickleRefuses(t *testing.T) {
	refuse(t, []refusal{
		{"empty pickle", "truncated: needs 2 bytes, 0 are left", torchZip("")},
		{"protocol 0", "not a pickle of protocol 2 to 5", torchZip("(dp0\n.")},
		{"protocol 6", "not a pickle of protocol 2 to 5", torchZip("\x80\x06N.")},
		{"no end", "at byte 2: truncated: needs 1 bytes, 0 are left", torchZip("\x80\x02")},
		{"more after the end", "1 bytes follow the end of the pickle", torchZip(pickleOf("N") + "N")},
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
		{"huger string", "truncated: needs 18446744073709551615 bytes",
			torchZip(pickleOf("\x8d" + strings.Repeat("\xff", 8)))},
		{"huge bytes", "truncated: needs 9223372036854775807 bytes",
			torchZip(pickleOf("\x8e" + strings.Repeat("\xff", 7) + "\x7f"))},
		{"huge integer", "has an integer of 1000 bytes",
			torchZip(pickleOf("\x8b\xe8\x03\x00\x00" + strings.Repeat("\x01", 1000)))},
		{"bad UTF-8", "not valid UTF-8", torchZip(pickleOf(str("\xff")))},
		{"key twice", `the dict has the key "w" twice`, torchZip(pickleOf(dict(str("w"), "N", str("w"), "N")))},
		{"equal keys", "the dict has the key true twice", torchZip(pickleOf(dict(num(1), "N", "\x88", "N")))},
		{"key is a list", "a dict has a list as a key", torchZip(pickleOf(dict("]", "N")))},
		{"key is a tuple", "a dict has a tuple as a key", torchZip(pickleOf(dict(")", "N")))},
		{"key is NaN", "the key NaN", torchZip(pickleOf(dict("G\x7f\xf8\x00\x00\x00\x00\x00\x00", "N")))},
		{"long key", "a key of 5000 bytes", torchZip(pickleOf(dict(str(strings.Repeat("k", 5000)), "N")))},
	})
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

// TestUnendingValues: cycles, depth, and sharing that unfolds without measure.
func TestUnendingValues(t *testing.T) {
	state := func(v string) []byte { return torchZip(pickleOf(dict(str("w"), vector("0", 4), str("x"), v))) }
	refuse(t, []refusal{
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
	})
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
