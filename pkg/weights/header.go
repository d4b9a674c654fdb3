package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sort"
	"strconv"
	"unicode/utf8"
)

const (
	lengthField = 8           // bytes of the header length at the start of a file
	maxHeader   = 100_000_000 // longest header accepted, the limit of the reference implementation
	metadataKey = "__metadata__"
)

// entry is what the header says of one tensor; begin and end count from the start of the data.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end int
}

// header is a validated file header.
type header struct {
	entries  map[string]entry
	metadata map[string]string
	data     int // offset in the file where tensor data start
}

// headerLength reads the length field and checks it against the file's size before anything is allocated.
func headerLength(prefix []byte, fileSize int) (int, error) {
	if len(prefix) < lengthField {
		return 0, fmt.Errorf("not a safetensors file: it has %d bytes, a header length alone takes %d", fileSize, lengthField)
	}
	n := binary.LittleEndian.Uint64(prefix)
	if n > maxHeader {
		return 0, fmt.Errorf("not a safetensors file: it claims a header of %d bytes, allowed are %d", n, maxHeader)
	}
	if int(n) > fileSize-lengthField {
		return 0, fmt.Errorf("truncated: the header needs %d bytes, the file has %d", lengthField+n, fileSize)
	}
	return int(n), nil
}

// parseHeader decodes and validates the JSON of a header. raw excludes the length field; fileSize is that of the whole
// file. What it allocates is bounded by a small multiple of len(raw).
func parseHeader(raw []byte, fileSize int) (*header, error) {
	// The decoder would replace invalid UTF-8 silently, and two names could become one.
	if len(raw) == 0 || raw[0] != '{' || !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errors.New("not a safetensors file: its header is not a JSON object")
	}
	h := &header{entries: map[string]entry{}, data: lengthField + len(raw)}
	p := newJSONReader(raw)
	err := p.object(func(key string) error {
		if key == metadataKey {
			var err error
			h.metadata, err = p.stringMap()
			if err != nil {
				return fmt.Errorf("%s: %w", metadataKey, err)
			}
			return nil
		}
		e, err := p.entry(key)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", clip(key), err)
		}
		h.entries[key] = e
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := checkLayout(h.entries, fileSize-h.data); err != nil {
		return nil, err
	}
	return h, nil
}

// entry reads one tensor's object and checks everything about it that does not depend on the other tensors.
func (p *jsonReader) entry(name string) (entry, error) {
	e := entry{name: name}
	var offsets []int
	seen := 0
	err := p.object(func(key string) (err error) {
		switch key {
		case "dtype":
			var s string
			s, err = p.str()
			e.dtype = DType(s)
		case "shape":
			e.shape, err = p.ints()
		case "data_offsets":
			offsets, err = p.ints()
		default:
			return p.skip() // as the reference does
		}
		seen++
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return e, err
	case seen != 3:
		return e, errors.New("needs dtype, shape and data_offsets")
	case e.dtype.Size() == 0:
		return e, fmt.Errorf("unknown dtype %s; known are %s", clip(string(e.dtype)), knownDTypes)
	case len(offsets) != 2:
		return e, fmt.Errorf("data_offsets has %d numbers, expected 2", len(offsets))
	case offsets[1] < offsets[0]:
		return e, fmt.Errorf("data_offsets end at %d before they begin at %d", offsets[1], offsets[0])
	}
	e.begin, e.end = offsets[0], offsets[1]
	n, err := elements(e.shape)
	if err != nil {
		return e, err
	}
	if size := e.dtype.Size(); n > math.MaxInt/size || n*size != e.end-e.begin {
		return e, fmt.Errorf("%d elements of %s need %s bytes, data_offsets give %d",
			n, e.dtype, byteCount(n, size), e.end-e.begin)
	}
	return e, nil
}

// checkLayout makes sure that the tensors cover the dataLen bytes after the header exactly once.
func checkLayout(entries map[string]entry, dataLen int) error {
	order := make([]entry, 0, len(entries))
	for _, e := range entries {
		order = append(order, e)
	}
	sort.Slice(order, func(i, j int) bool {
		a, b := order[i], order[j]
		if a.begin != b.begin {
			return a.begin < b.begin
		}
		if a.end != b.end {
			return a.end < b.end
		}
		return a.name < b.name
	})
	at, last := 0, ""
	for _, e := range order {
		switch {
		case e.begin < at:
			return fmt.Errorf("tensor %s: begins at byte %d of the data, inside tensor %s which ends at %d",
				clip(e.name), e.begin, clip(last), at)
		case e.begin > at:
			return fmt.Errorf("tensor %s: begins at byte %d of the data, expected %d: the bytes between belong to no tensor",
				clip(e.name), e.begin, at)
		case e.end > dataLen:
			return fmt.Errorf("tensor %s: truncated: ends at byte %d of the data, the file has %d",
				clip(e.name), e.end, dataLen)
		}
		at, last = e.end, e.name
	}
	if at != dataLen {
		return fmt.Errorf("the tensors end at byte %d of the data, the file has %d: the rest belongs to no tensor",
			at, dataLen)
	}
	return nil
}

// jsonReader walks JSON that is known to be well-formed, token by token: unlike Unmarshal it notices keys that occur
// twice, and it allocates for what it is asked to read only.
type jsonReader struct{ dec *json.Decoder }

func newJSONReader(raw []byte) *jsonReader {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return &jsonReader{dec: dec}
}

// object reads an object and calls member after each key; member must consume the value.
func (p *jsonReader) object(member func(key string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]struct{}{}
	for p.dec.More() {
		key, err := p.str()
		if err != nil {
			return err
		}
		if _, twice := seen[key]; twice {
			return fmt.Errorf("the name %s occurs twice", clip(key))
		}
		seen[key] = struct{}{}
		if err := member(key); err != nil {
			return err
		}
	}
	return p.delim('}')
}

func (p *jsonReader) stringMap() (map[string]string, error) {
	m := map[string]string{}
	err := p.object(func(key string) error {
		s, err := p.str()
		if err != nil {
			return fmt.Errorf("%s: %w", clip(key), err)
		}
		m[key] = s
		return nil
	})
	return m, err
}

func (p *jsonReader) delim(want json.Delim) error {
	tok, err := p.dec.Token()
	if err != nil {
		return err
	}
	if tok != want {
		return fmt.Errorf("found %s, expected %q", describe(tok), want.String())
	}
	return nil
}

func (p *jsonReader) str() (string, error) {
	tok, err := p.dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("found %s, expected a string", describe(tok))
	}
	return s, nil
}

// ints reads a list of non-negative integers.
func (p *jsonReader) ints() ([]int, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	list := []int{}
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return nil, err
		}
		number, ok := tok.(json.Number)
		if !ok {
			return nil, fmt.Errorf("found %s, expected a number", describe(tok))
		}
		v, err := strconv.ParseUint(number.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("%s is not a whole number from 0 to %d", clip(number.String()), math.MaxInt)
		}
		list = append(list, int(v))
	}
	return list, p.delim(']')
}

// skip passes over one value of any kind.
func (p *jsonReader) skip() error {
	depth := 0
	for {
		tok, err := p.dec.Token()
		if err != nil {
			return err
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// describe names a token for an error message.
func describe(tok json.Token) string {
	switch t := tok.(type) {
	case string:
		return "the string " + clip(t)
	case json.Delim:
		return strconv.Quote(t.String())
	case json.Number:
		return "the number " + clip(t.String())
	case nil:
		return "null"
	}
	return fmt.Sprint(tok)
}
