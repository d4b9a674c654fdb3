package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Wire types of protocol buffers.
const (
	wireVarint = 0
	wireFixed8 = 1 // 8 bytes
	wireBytes  = 2
	wireFixed4 = 5 // 4 bytes
)

// protoField is a field of a message in protocol buffers' wire format.
type protoField struct {
	number uint64
	wire   int
	value  uint64 // of a number, whatever its size
	data   []byte // of wireBytes: a part of the message's bytes
}

// eachField calls field with the fields of a message in order, until it returns an error.
func eachField(message []byte, field func(protoField) error) error {
	for len(message) > 0 {
		f, n, err := nextField(message)
		if err != nil {
			return err
		}
		if err := field(f); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

var errTruncatedMessage = errors.New("the message ends inside a field")

// nextField reads the field at the start of a message and gives its length.
func nextField(message []byte) (f protoField, n int, err error) {
	key, n := binary.Uvarint(message)
	if n <= 0 {
		return f, 0, errTruncatedMessage
	}
	f.number, f.wire = key>>3, int(key&7)
	rest := message[n:]
	size := 0
	switch f.wire {
	case wireVarint:
		if f.value, size = binary.Uvarint(rest); size <= 0 {
			return f, 0, errTruncatedMessage
		}
	case wireFixed8:
		if size = 8; len(rest) < size {
			return f, 0, errTruncatedMessage
		}
		f.value = binary.LittleEndian.Uint64(rest)
	case wireFixed4:
		if size = 4; len(rest) < size {
			return f, 0, errTruncatedMessage
		}
		f.value = uint64(binary.LittleEndian.Uint32(rest))
	case wireBytes:
		length, prefix := binary.Uvarint(rest)
		if prefix <= 0 || length > uint64(len(rest)-prefix) {
			return f, 0, errTruncatedMessage
		}
		size = prefix + int(length)
		f.data = rest[prefix:size]
	default:
		return f, 0, fmt.Errorf("field %d has the unknown wire type %d", f.number, f.wire)
	}
	if f.number == 0 {
		return f, 0, errors.New("a field has the number 0")
	}
	return f, n + size, nil
}

// as checks the wire type of a field that is understood.
func (f protoField) as(wire int) error {
	if f.wire != wire {
		return fmt.Errorf("field %d has wire type %d, not %d", f.number, f.wire, wire)
	}
	return nil
}

func (f protoField) float() float32 { return math.Float32frombits(uint32(f.value)) }
