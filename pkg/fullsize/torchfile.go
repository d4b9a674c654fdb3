package fullsize

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// writeTorch writes a state dict in PyTorch's zip container, as torch.save writes it: a pickle that names a storage per
// tensor, and the storages as entries of their own, uncompressed.
func writeTorch(path string, params []model.Param, dtype weights.DType, data func(p model.Param) ([]byte, error)) error {
	return atomicfile.Write(path, func(file io.Writer) error {
		a := newArchive(file)
		if err := a.add("archive/data.pkl", statePickle(params, dtype)); err != nil {
			return err
		}
		for i, p := range params {
			raw, err := data(p)
			if err == nil {
				err = a.add(fmt.Sprint("archive/data/", i), raw)
			}
			if err != nil {
				return fmt.Errorf("tensor %s: %w", p.Name, err)
			}
		}
		if err := a.add("archive/version", []byte("3\n")); err != nil {
			return err
		}
		return a.zip.Close()
	})
}

// archive is a zip archive that is being written; it knows where the next entry begins.
type archive struct {
	zip     *zip.Writer
	written countingWriter
}

func newArchive(file io.Writer) *archive {
	a := &archive{written: countingWriter{file: file}}
	a.zip = zip.NewWriter(&a.written)
	return a
}

type countingWriter struct {
	file io.Writer
	n    int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.n += n
	return n, err
}

// Sizes of a zip entry's header without name and extra field, and of the head of an extra field.
const (
	entryHeader = 30
	extraHeader = 4
)

// alignment is what PyTorch begins storages at a multiple of. The room before them is an extra field that it calls FB.
const alignment = 64

// add writes an entry.
func (a *archive) add(name string, data []byte) error {
	if err := a.zip.Flush(); err != nil {
		return err
	}
	begin := a.written.n + entryHeader + len(name) + extraHeader
	padding := (alignment - begin%alignment) % alignment
	extra := append([]byte("FB"), byte(padding), 0)
	to, err := a.zip.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data),
		CompressedSize64: uint64(len(data)), UncompressedSize64: uint64(len(data)),
		Extra: append(extra, make([]byte, padding)...)})
	if err != nil {
		return err
	}
	_, err = to.Write(data)
	return err
}

// statePickle is the pickle (protocol 2) of a state dict whose tensors have a storage each, numbered as they come.
func statePickle(params []model.Param, dtype weights.DType) []byte {
	p := &pickle{}
	p.raw("\x80\x02}(") // protocol 2, an empty dict, mark
	for i, param := range params {
		p.text(param.Name)
		p.raw("ctorch._utils\n_rebuild_tensor_v2\n((")
		p.text("storage")
		p.raw("ctorch\n" + storageTypes[dtype] + "\n")
		p.text(fmt.Sprint(i))
		p.text("cpu")
		p.number(param.Size())
		p.raw("tQ") // the tuple becomes the storage that it identifies
		p.number(0) // offset of the first element
		p.numbers(param.Shape)
		p.numbers(stridesOf(param.Shape))
		p.raw("\x89ccollections\nOrderedDict\n)RtR") // no gradient, no hooks; call _rebuild_tensor_v2
	}
	p.raw("u.") // put all into the dict, stop
	return p.Bytes()
}

// storageTypes are PyTorch's names of storages.
var storageTypes = map[weights.DType]string{weights.F32: "FloatStorage", weights.BF16: "BFloat16Storage",
	weights.F16: "HalfStorage"}

// pickle puts a pickle together.
type pickle struct{ bytes.Buffer }

func (p *pickle) raw(code string) { p.WriteString(code) }

func (p *pickle) text(s string) {
	p.WriteByte('X')
	_ = binary.Write(p, binary.LittleEndian, uint32(len(s))) // a buffer cannot fail
	p.WriteString(s)
}

func (p *pickle) number(n int) {
	if n > math.MaxInt32 {
		p.raw("\x8a\x08") // an integer of 8 bytes
		_ = binary.Write(p, binary.LittleEndian, int64(n))
		return
	}
	p.WriteByte('J')
	_ = binary.Write(p, binary.LittleEndian, int32(n))
}

func (p *pickle) numbers(list []int) {
	p.WriteByte('(')
	for _, n := range list {
		p.number(n)
	}
	p.WriteByte('t')
}

// stridesOf are the distances between neighbours along each axis of a row-major tensor.
func stridesOf(shape []int) []int {
	strides := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= shape[i]
	}
	return strides
}
