package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"unicode/utf8"
)

// literal runs the instructions that hold a value.
func (m *machine) literal(op byte) error {
	switch op {
	case opNone:
		m.push(nil)
		return nil
	case opNewTrue, opNewFalse:
		m.push(op == opNewTrue)
		return nil
	case opBinFloat:
		raw, err := m.in.take(8)
		if err != nil {
			return err
		}
		m.push(math.Float64frombits(binary.BigEndian.Uint64(raw)))
		return nil
	case opBinInt:
		n, err := m.in.uint(4)
		m.push(int64(int32(n)))
		return err
	case opBinInt1:
		n, err := m.in.uint(1)
		m.push(int64(n))
		return err
	case opBinInt2:
		n, err := m.in.uint(2)
		m.push(int64(n))
		return err
	}
	width, ok := lengthWidths[op]
	if !ok {
		return fmt.Errorf("has the instruction %#02x, which state dicts of pickle protocol %d to %d do not use",
			op, minProtocol, maxProtocol)
	}
	raw, err := m.in.prefixed(width)
	if err != nil {
		return err
	}
	return m.pushResult(literalValue(op, raw))
}

// lengthWidths are the bytes that the length takes in instructions that hold their value after its length.
var lengthWidths = map[byte]int{
	opShortUnicode: 1, opBinUnicode: 4, opBinUnicode8: 8,
	opShortBinString: 1, opBinString: 4,
	opShortBinBytes: 1, opBinBytes: 4, opBinBytes8: 8, opByteArray8: 8,
	opLong1: 1, opLong4: 4,
}

// literalValue is the value that an instruction with a length holds.
func literalValue(op byte, raw []byte) (any, error) {
	switch op {
	case opShortBinBytes, opBinBytes, opBinBytes8, opByteArray8:
		return raw, nil
	case opLong1, opLong4:
		return integer(raw)
	}
	// Python 2 wrote strings as bytes; torch.load takes them as UTF-8.
	if !utf8.Valid(raw) {
		return nil, errors.New("has a string that is not valid UTF-8")
	}
	return string(raw), nil
}

// integer decodes a little-endian two's complement number.
func integer(raw []byte) (any, error) {
	if len(raw) > maxInteger {
		return nil, fmt.Errorf("has an integer of %d bytes, allowed are %d", len(raw), maxInteger)
	}
	bigEndian := slices.Clone(raw)
	slices.Reverse(bigEndian)
	n := new(big.Int).SetBytes(bigEndian)
	if len(raw) > 0 && raw[len(raw)-1] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(raw))))
	}
	if n.IsInt64() {
		return n.Int64(), nil
	}
	return n, nil
}
