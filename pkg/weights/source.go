package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Source is one model's tensors, whatever container they come in: a safetensors file (File), a PyTorch file (Torch), or
// the shards of a folder (Set). Its methods may be called from several goroutines, but not during or after Close.
type Source interface {
	// Path returns the file, the index or the folder that was opened.
	Path() string
	// Names returns the names of all tensors, sorted.
	Names() []string
	// Has reports whether there is a tensor of that name.
	Has(name string) bool
	// Info returns the tensor of that name without its Data.
	Info(name string) (Tensor, error)
	// Tensor returns the tensor of that name, row-major in its stored dtype. Its Data are read-only and valid until
	// Close: where they can, they alias the mapped file.
	Tensor(name string) (Tensor, error)
	// Drop gives back the memory that reading a tensor has taken, as far as it consists of whole pages of a mapped file:
	// a loader that copies tensor after tensor to a device then does not keep the whole file in memory. Data of the
	// tensor stay valid; using them reads the file again. Unknown names and files that are not mapped are left alone.
	Drop(name string)
	// Container says what the tensors come in: "safetensors", "PyTorch zip", "safetensors, 3 shards" ...
	Container() string
	// Files returns the files of weights and their sizes.
	Files() []FileSize
	// Close releases the files; Data of the tensors must not be used any more. A second Close does nothing.
	Close() error
}

// FileSize is a file and its size in bytes.
type FileSize struct {
	Path string
	Size int64
}

// OpenAny opens the weights at path: a safetensors or a PyTorch file, which its content tells and not its name, an
// index of shards (…index.json), or a folder as OpenDir takes it. Errors say what else the file is. The caller closes
// the source.
func OpenAny(path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err // names the path already
	}
	if info.IsDir() {
		return OpenDir(path)
	}
	kind, err := sniff(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case kind == kindJSON:
		return openIndex(path)
	}
	return openKind(path, kind)
}

// openOne opens a file that holds tensors itself.
func openOne(path string) (Source, error) {
	kind, err := sniff(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return openKind(path, kind)
}

// openKind opens a file of tensors whose kind is known.
func openKind(path string, kind fileKind) (Source, error) {
	switch kind {
	case kindZip, kindPickle:
		return OpenTorch(path)
	case kindJSON:
		return nil, fmt.Errorf("%s: a JSON file in place of weights", path)
	}
	return Open(path)
}

// fileKind is what the first bytes of a file say that it is.
type fileKind int

const (
	kindSafetensors fileKind = iota
	kindZip
	kindPickle
	kindJSON
)

// sniffed is how many bytes of a file are looked at: as far as the mark of a tar archive.
const sniffed = 264

// sniff tells what a file is. What cannot be weights is an error that says what it is instead.
func sniff(path string) (fileKind, error) {
	// Before opening it: opening a named pipe waits for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return 0, unwrapPath(err)
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, unwrapPath(err)
	}
	defer file.Close()
	head := make([]byte, sniffed)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, unwrapPath(err)
	}
	return kindOf(head[:n])
}

// kindOf is sniff for the first bytes of a file.
func kindOf(head []byte) (fileKind, error) {
	if len(head) == 0 {
		return 0, errors.New("the file is empty: download it again")
	}
	// A header length is below 2^32, so four of the first bytes are zero, which no text and no other container has.
	if len(head) > lengthField && binary.LittleEndian.Uint64(head) <= maxHeader && head[lengthField] == '{' {
		return kindSafetensors, nil
	}
	has := func(mark string) bool { return bytes.HasPrefix(head, []byte(mark)) }
	if has("PK\x03\x04") || has("PK\x05\x06") {
		return kindZip, nil
	}
	if len(head) > 1 && head[0] == opProto && head[1] >= minProtocol && head[1] <= maxProtocol {
		return kindPickle, nil
	}
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n"))
	switch {
	case has("version https://git-lfs.github.com/"):
		return 0, errors.New("a Git LFS pointer, not the weights it stands for: run `git lfs pull` in that folder")
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")):
		return 0, errors.New("an HTML page saved in place of the weights: " +
			"the download link led to a web page, get the file itself")
	case bytes.HasPrefix(text, []byte("<")):
		return 0, errors.New("XML or HTML text saved in place of the weights: download the file itself")
	case bytes.HasPrefix(text, []byte("{")):
		return kindJSON, nil
	}
	for _, other := range otherFormats {
		if len(head) >= other.at+len(other.mark) && string(head[other.at:other.at+len(other.mark)]) == other.mark {
			return 0, fmt.Errorf("%s; weights are read from safetensors and PyTorch files", other.what)
		}
	}
	return kindSafetensors, nil // whose reader says what is wrong
}

// otherFormats are what people have under names like those of weights.
var otherFormats = []struct {
	mark string
	at   int
	what string
}{
	{"\x1f\x8b", 0, "a gzip archive: unpack it"},
	{"BZh", 0, "a bzip2 archive: unpack it"},
	{"\xfd7zXZ\x00", 0, "an xz archive: unpack it"},
	{"\x28\xb5\x2f\xfd", 0, "a zstd archive: unpack it"},
	{"7z\xbc\xaf\x27\x1c", 0, "a 7-Zip archive: unpack it"},
	{"ustar", 257, "a tar archive: unpack it"},
	{"\x89HDF\r\n\x1a\n", 0, "an HDF5 file, as TensorFlow writes it"},
	{"GGUF", 0, "a GGUF file"},
	{"\x93NUMPY", 0, "a NumPy array"},
}
