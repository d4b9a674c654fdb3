package jpeg

import (
	"errors"
	"fmt"
)

// Decoder decodes one picture after the other and keeps its memory from one to the next. The zero value is ready; it
// must not be used by several goroutines at once.
type Decoder struct {
	data []byte
	pos  int

	width, height int
	comps         []component // of the frame, in its order
	store         [4]component
	hMax, vMax    int
	mcusWide      int
	mcusHigh      int
	progressive   bool
	frame         bool // a frame header was read

	quant    [4][64]uint16 // in natural order
	hasQuant [4]bool
	dc, ac   [4]huffman
	restart  int

	jfif, adobe bool
	transform   byte // of the Adobe marker

	scan  scan
	scans int // read so far
	// lastGood is the last row of MCUs for which the present scan had data.
	lastGood int
	smoothed []int16
	bits     bits
	win      rectangle // in MCUs
	up       upsampler
}

// component is one plane of the picture.
type component struct {
	id, h, v, tq byte
	latched      bool
	quant        [64]uint16

	width, height          int // samples
	blocksWide, blocksHigh int // blocks that hold samples of the picture
	stride                 int // blocks per row in coefs, a whole number of MCUs
	rows                   int // rows of blocks in coefs

	coefs    []int16   // [rows][stride][64]; of one row of MCUs only while a sequential picture is decoded
	plane    []byte    // samples of the window's blocks
	pitch    int       // bytes per row of plane
	blocks   rectangle // what of the component the window needs, in blocks
	accuracy [64]int8  // per coefficient the lowest bit known so far, −1 for nothing: T.81's Al
	before   [64]int8  // what it was before the present scan
}

// Markers (T.81, table B.1).
const (
	markSOF0, markSOF1, markSOF2 = 0xc0, 0xc1, 0xc2
	markDHT, markDAC             = 0xc4, 0xcc
	markRST0, markRST7           = 0xd0, 0xd7
	markSOI, markEOI, markSOS    = 0xd8, 0xd9, 0xda
	markDQT, markDRI             = 0xdb, 0xdd
	markAPP0, markAPP14          = 0xe0, 0xee
	markTEM                      = 0x01
)

// ErrTruncated says that the file ends before the picture does.
var ErrTruncated = errors.New("the JPEG file is cut off")

// errCutSegment is ErrTruncated inside a segment.
var errCutSegment = fmt.Errorf("%w inside a segment", ErrTruncated)

// maxSide is the largest width and height that libjpeg reads.
const maxSide = 65500

// A small file can ask for much work by many scans. Encoders write a dozen.
const (
	maxScans  = 500
	maxVisits = 1 << 28 // of blocks, by all scans together
)

// zigzag is the natural position of the k-th coefficient of the scan order; the last 16 entries catch runs that leave
// the block.
var zigzag = [64 + 16]uint8{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
}

// Open reads the header up to the first scan and gives the picture's size. data must stay as it is until Decode
// returns.
func (d *Decoder) Open(data []byte) (width, height int, err error) {
	d.reset(data)
	if len(data) < 3 || data[0] != 0xff || data[1] != markSOI || data[2] != 0xff {
		return 0, 0, errors.New("not a JPEG file")
	}
	d.pos = 2
	for {
		m, err := d.nextMarker()
		if err != nil {
			return 0, 0, err
		}
		if m == markSOS {
			break
		}
		if m == markEOI {
			return 0, 0, errors.New("the JPEG file holds no picture")
		}
		if err := d.segment(m); err != nil {
			return 0, 0, err
		}
	}
	if !d.frame {
		return 0, 0, errors.New("the JPEG file has a scan before its frame header")
	}
	return d.width, d.height, nil
}

func (d *Decoder) reset(data []byte) {
	d.data, d.bits.data = data, data
	d.pos, d.restart, d.scans, d.lastGood = 0, 0, 0, 0
	d.frame, d.jfif, d.adobe, d.transform = false, false, false, 0
	d.hasQuant = [4]bool{}
	for i := range d.dc {
		d.dc[i].defined, d.ac[i].defined = false, false
	}
}

// Components is the number of components of the opened picture: 1, 3 or 4.
func (d *Decoder) Components() int { return len(d.comps) }

// SetColor says whether the three components of the opened picture are luma and chroma, whatever its markers say: the
// container knows better.
func (d *Decoder) SetColor(ycc bool) { d.jfif, d.adobe, d.transform = false, true, btoi(ycc) }

func btoi(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// nextMarker skips to the next marker and gives it; pos is behind it.
func (d *Decoder) nextMarker() (byte, error) {
	for d.pos < len(d.data) {
		if d.data[d.pos] != 0xff {
			d.pos++ // junk between segments
			continue
		}
		for d.pos < len(d.data) && d.data[d.pos] == 0xff {
			d.pos++
		}
		if d.pos >= len(d.data) {
			break
		}
		d.pos++
		if m := d.data[d.pos-1]; m != 0 {
			return m, nil
		}
	}
	return 0, ErrTruncated
}

// body gives the contents of the segment at pos and moves behind it.
func (d *Decoder) body() ([]byte, error) {
	if d.pos+2 > len(d.data) {
		return nil, errCutSegment
	}
	n := int(d.data[d.pos])<<8 | int(d.data[d.pos+1])
	if n < 2 {
		return nil, errors.New("a segment of the JPEG file is shorter than its length field")
	}
	if d.pos+n > len(d.data) {
		return nil, errCutSegment
	}
	s := d.data[d.pos+2 : d.pos+n]
	d.pos += n
	return s, nil
}

// segment reads a marker segment that is not a scan.
func (d *Decoder) segment(m byte) error {
	if m == markTEM || markRST0 <= m && m <= markRST7 {
		return nil // these have no body
	}
	if m == markSOI {
		return errors.New("the JPEG file starts a second picture inside the first")
	}
	s, err := d.body()
	if err != nil {
		return err
	}
	switch {
	case m == markDQT:
		return d.readQuant(s)
	case m == markDHT:
		return d.readHuffman(s)
	case m == markDRI:
		if len(s) != 2 {
			return errors.New("a restart segment has a wrong length")
		}
		d.restart = int(s[0])<<8 | int(s[1])
	case m == markSOF0, m == markSOF1, m == markSOF2:
		return d.readFrame(m, s)
	case markSOF0 < m && m <= 0xcf && m != 0xc8 && m != markDAC:
		return fmt.Errorf("JPEG of kind SOF%d (lossless, hierarchical or arithmetic coding) is not supported",
			m-markSOF0)
	case m == markAPP0 && len(s) >= 14 && string(s[:5]) == "JFIF\x00":
		d.jfif = true
	case m == markAPP14 && len(s) >= 12 && string(s[:5]) == "Adobe":
		d.adobe, d.transform = true, s[11]
	}
	return nil
}

func (d *Decoder) readQuant(s []byte) error {
	for len(s) > 0 {
		wide, id := s[0]>>4 != 0, s[0]&15
		size := 64
		if wide {
			size = 128
		}
		if id > 3 || len(s) < 1+size {
			return errors.New("a quantisation table of the JPEG file is broken")
		}
		table := &d.quant[id]
		for k := range 64 {
			if wide {
				table[zigzag[k]] = uint16(s[1+2*k])<<8 | uint16(s[2+2*k])
			} else {
				table[zigzag[k]] = uint16(s[1+k])
			}
		}
		d.hasQuant[id] = true
		s = s[1+size:]
	}
	return nil
}

func (d *Decoder) readHuffman(s []byte) error {
	for len(s) > 0 {
		if len(s) < 17 {
			return errors.New("a Huffman table of the JPEG file is cut off")
		}
		class, id := s[0]>>4, s[0]&15
		var counts [17]uint8
		n := 0
		for i := range 16 {
			counts[i+1] = s[1+i]
			n += int(s[1+i])
		}
		if class > 1 || id > 3 || n > 256 || len(s) < 17+n {
			return errors.New("a Huffman table of the JPEG file is broken")
		}
		table := &d.dc[id]
		if class == 1 {
			table = &d.ac[id]
		}
		if err := table.set(&counts, s[17:17+n]); err != nil {
			return err
		}
		s = s[17+n:]
	}
	return nil
}

// readFrame reads the frame header: the size and the components.
func (d *Decoder) readFrame(m byte, s []byte) error {
	if d.frame {
		return errors.New("the JPEG file has two frame headers")
	}
	if len(s) < 6 || len(s) != 6+3*int(s[5]) {
		return errors.New("the frame header of the JPEG file has a wrong length")
	}
	if s[0] != 8 {
		return fmt.Errorf("JPEG of %d bits per sample is not supported", s[0])
	}
	d.height, d.width = int(s[1])<<8|int(s[2]), int(s[3])<<8|int(s[4])
	n := int(s[5])
	switch {
	case d.width == 0 || d.height == 0:
		return fmt.Errorf("the JPEG picture has no pixels (%d×%d)", d.width, d.height)
	case d.width > maxSide || d.height > maxSide:
		return fmt.Errorf("the JPEG picture is %d×%d pixels; a side may have %d", d.width, d.height, maxSide)
	case n != 1 && n != 3 && n != 4:
		return fmt.Errorf("JPEG of %d components is not supported", n)
	}
	d.progressive = m == markSOF2
	d.frame = true
	return d.readComponents(s[6:], n)
}

func (d *Decoder) readComponents(s []byte, n int) error {
	d.comps = d.store[:n]
	d.hMax, d.vMax = 1, 1
	for i := range d.comps {
		c := &d.comps[i]
		c.id, c.h, c.v, c.tq, c.latched = s[3*i], s[3*i+1]>>4, s[3*i+1]&15, s[3*i+2], false
		if n == 1 {
			c.h, c.v = 1, 1 // a component alone is not interleaved, whatever its factors say
		}
		if c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4 {
			return fmt.Errorf("sampling factors %d×%d of the JPEG file are not allowed", c.h, c.v)
		}
		d.hMax, d.vMax = max(d.hMax, int(c.h)), max(d.vMax, int(c.v))
		for k := range c.accuracy {
			c.accuracy[k], c.before[k] = -1, -1
		}
	}
	d.mcusWide, d.mcusHigh = up(d.width, 8*d.hMax), up(d.height, 8*d.vMax)
	for i := range d.comps {
		c := &d.comps[i]
		h, v := int(c.h), int(c.v)
		if d.hMax%h != 0 || d.vMax%v != 0 {
			return fmt.Errorf("sampling factors %d×%d of %d×%d in the JPEG file are not supported", h, v, d.hMax,
				d.vMax)
		}
		c.width, c.height = up(d.width*h, d.hMax), up(d.height*v, d.vMax)
		c.blocksWide, c.blocksHigh = up(c.width, 8), up(c.height, 8)
		c.stride, c.rows = d.mcusWide*h, d.mcusHigh*v
	}
	return nil
}

// up is a/b rounded up.
func up(a, b int) int { return (a + b - 1) / b }
