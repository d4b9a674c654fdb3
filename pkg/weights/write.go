package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"blip2/pkg/internal/atomicfile"
)

// chunk is how much is handed to a writer at once: small enough to stay in cache when the writer also hashes, and for
// a cancelled writer to be noticed soon.
const chunk = 1 << 20

// Lazy is a tensor to be written whose data are made when their turn comes, so that writing a model takes the memory of
// one tensor.
type Lazy struct {
	Name  string
	DType DType
	Shape []int
	// Data returns the elements, row-major and little-endian, exactly as many as DType and Shape say. It is called once.
	Data func() ([]byte, error)
	// Done, if set, is called after the data have been written or have failed to be.
	Done func()
}

// Write writes a safetensors file atomically: into a temporary file beside path, synced, then renamed over path. On
// any error, a full disk included, nothing is left and an existing file at path stays as it was.
// Tensors keep the order given; equal input gives equal bytes. The data are streamed, not gathered in memory.
// Duplicate names and data that do not fit dtype and shape are errors. metadata may be nil; other libraries expect
// {"format": "pt"} in weights of PyTorch models.
func Write(path string, tensors []Tensor, metadata map[string]string) error {
	list, head, _, err := prepare(tensors, metadata)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return atomicfile.Write(path, func(w io.Writer) error { return encode(w, head, list) })
}

// Encode writes a safetensors file to w, in pieces of at most 1 MiB. What Write says of order and errors holds here.
func Encode(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	list, head, _, err := prepare(tensors, metadata)
	if err != nil {
		return err
	}
	return encode(w, head, list)
}

// EncodedSize returns the bytes that Encode would write, and the same errors about its arguments.
func EncodedSize(tensors []Tensor, metadata map[string]string) (int64, error) {
	_, _, size, err := prepare(tensors, metadata)
	return size, err
}

// prepare checks tensors whose data are there and returns what encode needs.
func prepare(tensors []Tensor, metadata map[string]string) (list []Lazy, head []byte, size int64, err error) {
	for _, t := range tensors {
		if _, err := t.check(); err != nil {
			return nil, nil, 0, err
		}
		data := func() ([]byte, error) { return t.Data, nil }
		list = append(list, Lazy{Name: t.Name, DType: t.DType, Shape: t.Shape, Data: data})
	}
	head, size, err = encodeHeader(list, metadata)
	return list, head, size, err
}

func encode(w io.Writer, head []byte, tensors []Lazy) error {
	if err := writeChunks(w, head); err != nil {
		return err
	}
	for _, t := range tensors {
		if err := t.write(w); err != nil {
			return fmt.Errorf("tensor %s: %w", clip(t.Name), err)
		}
	}
	return nil
}

// write makes the data and writes them.
func (t Lazy) write(w io.Writer) error {
	if t.Done != nil {
		defer t.Done()
	}
	data, err := t.Data()
	if err != nil {
		return err
	}
	if size, err := byteSize(t.DType, t.Shape); err != nil || size != len(data) {
		return errors.Join(err, fmt.Errorf("shape %v of %s needs %d bytes, the data have %d",
			t.Shape, t.DType, size, len(data)))
	}
	return writeChunks(w, data)
}

func writeChunks(w io.Writer, data []byte) error {
	for piece := range slices.Chunk(data, chunk) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return nil
}

// encodeHeader returns everything before the tensor data, padded with spaces so that the data begin on a multiple of
// eight bytes, and the size of the whole file.
func encodeHeader(tensors []Lazy, metadata map[string]string) (head []byte, size int64, err error) {
	buf := bytes.NewBuffer(make([]byte, lengthField)) // room for the length
	buf.WriteByte('{')
	if metadata != nil {
		if err := writeMetadata(buf, metadata); err != nil {
			return nil, 0, err
		}
	}
	offset := int64(0)
	seen := make(map[string]struct{}, len(tensors))
	for i, t := range tensors {
		if _, twice := seen[t.Name]; twice {
			return nil, 0, fmt.Errorf("tensor %s: the name occurs twice", clip(t.Name))
		}
		seen[t.Name] = struct{}{}
		if t.Name == metadataKey || t.Name == "" || !utf8.ValidString(t.Name) {
			return nil, 0, fmt.Errorf("tensor %s: the name cannot be used in a safetensors file", clip(t.Name))
		}
		n, err := byteSize(t.DType, t.Shape)
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", clip(t.Name), err)
		}
		if i > 0 || metadata != nil {
			buf.WriteByte(',')
		}
		end := offset + int64(n)
		if end < offset || end > math.MaxInt64-2*maxHeader {
			return nil, 0, fmt.Errorf("tensor %s: more data than a file can hold", clip(t.Name))
		}
		writeEntry(buf, t, offset, end)
		offset = end
	}
	buf.WriteByte('}')
	for buf.Len()%8 != 0 {
		buf.WriteByte(' ')
	}
	head = buf.Bytes()
	if n := len(head) - lengthField; n > maxHeader {
		return nil, 0, fmt.Errorf("%d tensors need a header of %d bytes, allowed are %d", len(tensors), n, maxHeader)
	}
	binary.LittleEndian.PutUint64(head, uint64(len(head)-lengthField))
	return head, int64(len(head)) + offset, nil
}

func writeEntry(buf *bytes.Buffer, t Lazy, begin, end int64) {
	writeString(buf, t.Name)
	buf.WriteString(`:{"dtype":"` + string(t.DType) + `","shape":[`)
	for i, d := range t.Shape {
		if i > 0 {
			buf.WriteByte(',')
		}
		buf.WriteString(strconv.Itoa(d))
	}
	fmt.Fprintf(buf, `],"data_offsets":[%d,%d]}`, begin, end)
}

func writeMetadata(buf *bytes.Buffer, metadata map[string]string) error {
	writeString(buf, metadataKey)
	buf.WriteString(":{")
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
			return fmt.Errorf("metadata %s: not valid UTF-8", clip(key))
		}
		if i > 0 {
			buf.WriteByte(',')
		}
		writeString(buf, key)
		buf.WriteByte(':')
		writeString(buf, metadata[key])
	}
	buf.WriteByte('}')
	return nil
}

// writeString writes a JSON string without the escapes for HTML that Marshal adds.
func writeString(buf *bytes.Buffer, s string) {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s)           // a string and a buffer cannot fail
	buf.Truncate(buf.Len() - 1) // the newline that Encode adds
}
