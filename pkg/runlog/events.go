package runlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	_ "image/jpeg" // pictures of the gallery
	_ "image/png"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"blip2/pkg/internal/atomicfile"
)

// Events writes a TensorBoard event file: TFRecord frames that hold Event protocol buffers.
// https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto (event.proto, summary.proto)
type Events struct {
	path string
	file *os.File
}

// CreateEvents creates events.out.tfevents.<unix seconds>.<host> in dir. The file says that it goes on after
// resumeStep (0: starts anew), and TensorBoard then forgets what earlier files of the folder hold for later steps.
func CreateEvents(dir, host string, now time.Time, resumeStep int) (*Events, error) {
	file, err := createEventFile(dir, host, now)
	if err != nil {
		return nil, fmt.Errorf("creating the TensorBoard log: %w", err)
	}
	e := &Events{path: file.Name(), file: file}
	first := 0
	if resumeStep > 0 {
		first = resumeStep + 1
	}
	err = e.write(encodeEvent(now, 0, fileVersion()))
	if err == nil {
		err = e.write(encodeEvent(now, first, sessionStart()))
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return e, nil
}

// createEventFile never opens a file that exists: a run that resumes within the same second gets the next free name.
func createEventFile(dir, host string, now time.Time) (*os.File, error) {
	if host == "" {
		name, err := os.Hostname()
		if err != nil {
			name = "localhost" // only part of a file name
		}
		host = name
	}
	host = strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == ':' || r <= ' ' {
			return '-'
		}
		return r
	}, host)
	base := filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%010d.%s", now.Unix(), host))
	for i := 0; ; i++ {
		path := base
		if i > 0 {
			path = fmt.Sprintf("%s.%d", base, i)
		}
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if !errors.Is(err, fs.ErrExist) {
			return file, err
		}
	}
}

// Scalars writes the fields of a row as scalars of one step.
func (e *Events) Scalars(r Row) error {
	var values []byte
	for _, f := range r.Fields {
		values = appendMessage(values, fieldSummaryValue, scalarValue(tagOf(f.Key), f.Value))
	}
	return e.write(encodeEvent(r.Time, r.Step, appendMessage(nil, fieldEventSummary, values)))
}

// Image writes an encoded PNG or JPEG picture under a tag.
func (e *Events) Image(step int, now time.Time, tag string, encoded []byte) error {
	size, _, err := image.DecodeConfig(bytes.NewReader(encoded))
	if err != nil {
		return fmt.Errorf("picture %q for TensorBoard: %w (PNG and JPEG are supported)", tag, err)
	}
	value := appendMessage(nil, fieldSummaryValue, imageValue(tag, size.Width, size.Height, encoded))
	return e.write(encodeEvent(now, step, appendMessage(nil, fieldEventSummary, value)))
}

// Text writes a text under a tag, for TensorBoard's text page.
func (e *Events) Text(step int, now time.Time, tag, text string) error {
	value := appendMessage(nil, fieldSummaryValue, textValue(tag, text))
	return e.write(encodeEvent(now, step, appendMessage(nil, fieldEventSummary, value)))
}

// Close syncs the file to disk and closes it.
func (e *Events) Close() error {
	if err := errors.Join(e.file.Sync(), e.file.Close()); err != nil {
		return fmt.Errorf("closing the TensorBoard log: %w", err)
	}
	return nil
}

// write frames an event and writes it in one go, so that a reader never waits in the middle of one.
func (e *Events) write(event []byte) error {
	if _, err := e.file.Write(frame(event)); err != nil {
		return fmt.Errorf("writing the TensorBoard log %s: %w", e.path, atomicfile.Explain(err))
	}
	return nil
}

// tagOf puts a key that names no group of its own into the group "train".
func tagOf(key string) string {
	if strings.Contains(key, "/") {
		return key
	}
	return "train/" + key
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frame is a TFRecord: length, its checksum, the data, its checksum; all little-endian.
func frame(data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(make([]byte, 0, len(data)+16), uint64(len(data)))
	out = binary.LittleEndian.AppendUint32(out, maskedCRC(out))
	out = append(out, data...)
	return binary.LittleEndian.AppendUint32(out, maskedCRC(data))
}

// maskedCRC is the CRC32C as TFRecord stores it: rotated and shifted, so that data which holds checksums of itself
// does not check by accident.
func maskedCRC(data []byte) uint32 {
	c := crc32.Checksum(data, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// Field numbers of event.proto and summary.proto.
const (
	fieldEventWallTime    = 1 // double
	fieldEventStep        = 2 // int64
	fieldEventFileVersion = 3 // string
	fieldEventSummary     = 5 // Summary
	fieldEventSessionLog  = 7 // SessionLog

	fieldSessionStatus = 1 // enum; 1 = START

	fieldSummaryValue = 1 // repeated Value
	fieldValueTag     = 1 // string
	fieldValueScalar  = 2 // float simple_value
	fieldValueImage   = 4 // Image
	fieldValueTensor  = 8 // TensorProto
	fieldValueMeta    = 9 // SummaryMetadata

	fieldTensorType   = 1 // enum; 7 = DT_STRING
	fieldTensorShape  = 2 // TensorShapeProto
	fieldTensorString = 8 // repeated bytes
	fieldShapeDim     = 2 // repeated Dim
	fieldDimSize      = 1 // int64

	fieldMetaPlugin = 1 // PluginData
	fieldPluginName = 1 // string

	fieldImageHeight     = 1 // int32
	fieldImageWidth      = 2 // int32
	fieldImageColorspace = 3 // int32; 3 = RGB
	fieldImageEncoded    = 4 // bytes
)

// encodeEvent is an Event with the body given, an encoded field of it.
func encodeEvent(now time.Time, step int, body []byte) []byte {
	out := binary.AppendUvarint(nil, fieldEventWallTime<<3|1)
	seconds := float64(now.UnixNano()) / 1e9
	out = binary.LittleEndian.AppendUint64(out, math.Float64bits(seconds))
	if step != 0 { // a zero is the default and is left out
		out = appendInt(out, fieldEventStep, step)
	}
	return append(out, body...)
}

func fileVersion() []byte { return appendMessage(nil, fieldEventFileVersion, []byte("brain.Event:2")) }

func sessionStart() []byte {
	return appendMessage(nil, fieldEventSessionLog, appendInt(nil, fieldSessionStatus, 1))
}

func scalarValue(tag string, v float64) []byte {
	out := appendMessage(nil, fieldValueTag, []byte(tag))
	out = binary.AppendUvarint(out, fieldValueScalar<<3|5)
	return binary.LittleEndian.AppendUint32(out, math.Float32bits(float32(v)))
}

func imageValue(tag string, width, height int, encoded []byte) []byte {
	img := appendInt(nil, fieldImageHeight, height)
	img = appendInt(img, fieldImageWidth, width)
	img = appendInt(img, fieldImageColorspace, 3)
	img = appendMessage(img, fieldImageEncoded, encoded)
	return appendMessage(appendMessage(nil, fieldValueTag, []byte(tag)), fieldValueImage, img)
}

// textValue is a vector of one string, marked for the text page.
func textValue(tag, text string) []byte {
	shape := appendMessage(nil, fieldShapeDim, appendInt(nil, fieldDimSize, 1))
	tensor := appendMessage(appendInt(nil, fieldTensorType, 7), fieldTensorShape, shape)
	tensor = appendMessage(tensor, fieldTensorString, []byte(text))
	plugin := appendMessage(nil, fieldMetaPlugin, appendMessage(nil, fieldPluginName, []byte("text")))
	out := appendMessage(nil, fieldValueTag, []byte(tag))
	return appendMessage(appendMessage(out, fieldValueTensor, tensor), fieldValueMeta, plugin)
}

// appendInt appends a varint field.
func appendInt(out []byte, field, v int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(out, uint64(field)<<3), uint64(v))
}

// appendMessage appends a length-delimited field: a message, a string or bytes.
func appendMessage(out []byte, field int, data []byte) []byte {
	out = binary.AppendUvarint(out, uint64(field)<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(data))), data...)
}
