package jpeg

import "errors"

// scan is the state of the scan that is being read.
type scan struct {
	comps          []*component
	store          [4]*component
	dcID, acID     [4]uint8
	ss, se, ah, al int

	cols, rows int // MCUs
	single     bool

	pred    [4]int32
	eobRun  int32
	togo    int  // MCUs before the next restart marker
	nextRST byte // 0 to 7
	starved bool // the segment is used up: blocks stay as they are
	eof     bool // the data, not the segment, is at its end
}

// readScan reads the header of a scan and checks it against the frame.
func (d *Decoder) readScan() (*scan, error) {
	b, err := d.body()
	if err != nil {
		return nil, err
	}
	if len(b) < 1 || b[0] < 1 || b[0] > 4 || len(b) != 4+2*int(b[0]) {
		return nil, errors.New("the header of a JPEG scan has a wrong length")
	}
	n := int(b[0])
	s := &d.scan
	*s = scan{}
	s.comps = s.store[:0]
	for i := range n {
		c := d.component(b[1+2*i])
		if c == nil {
			return nil, errors.New("a JPEG scan names a component that the frame does not have")
		}
		for _, other := range s.comps {
			if other == c {
				return nil, errors.New("a JPEG scan names a component twice")
			}
		}
		s.dcID[i], s.acID[i] = b[2+2*i]>>4, b[2+2*i]&15
		if s.dcID[i] > 3 || s.acID[i] > 3 {
			return nil, errors.New("a JPEG scan names a table that cannot be")
		}
		s.comps = append(s.comps, c)
	}
	tail := b[1+2*n:]
	s.ss, s.se, s.ah, s.al = int(tail[0]), int(tail[1]), int(tail[2]>>4), int(tail[2]&15)
	if err := s.layOut(d); err != nil {
		return nil, err
	}
	return s, s.check(d)
}

func (d *Decoder) component(id byte) *component {
	for i := range d.comps {
		if d.comps[i].id == id {
			return &d.comps[i]
		}
	}
	return nil
}

// layOut finds the number of MCUs and takes over the quantisation tables, which hold from a component's first scan on.
func (s *scan) layOut(d *Decoder) error {
	s.single = len(s.comps) == 1
	s.cols, s.rows = d.mcusWide, d.mcusHigh
	if s.single {
		s.cols, s.rows = s.comps[0].blocksWide, s.comps[0].blocksHigh
	}
	blocks := 0
	for _, c := range s.comps {
		blocks += int(c.h) * int(c.v)
		if c.latched {
			continue
		}
		if c.tq > 3 || !d.hasQuant[c.tq] {
			return errors.New("the JPEG file lacks a quantisation table")
		}
		c.quant, c.latched = d.quant[c.tq], true
	}
	if !s.single && blocks > 10 {
		return errors.New("an MCU of the JPEG file has more than 10 blocks")
	}
	return nil
}

// check refuses scans that their kind does not allow, and tables that are missing.
func (s *scan) check(d *Decoder) error {
	if d.progressive {
		dc := s.ss == 0
		if dc && s.se != 0 || !dc && (s.se < s.ss || s.se > 63 || !s.single) || s.al > 13 ||
			s.ah != 0 && s.al != s.ah-1 {
			return errors.New("a progressive JPEG scan has parameters that cannot be")
		}
		d.learn(s)
	}
	for i := range s.comps {
		if !d.progressive || s.ss == 0 && s.ah == 0 {
			if !d.dc[s.dcID[i]].defined {
				return errors.New("the JPEG file lacks a Huffman table")
			}
			if err := d.dc[s.dcID[i]].checkDC(); err != nil {
				return err
			}
		}
		if (!d.progressive || s.ss > 0) && !d.ac[s.acID[i]].defined {
			return errors.New("the JPEG file lacks a Huffman table")
		}
	}
	return nil
}

// learn notes what the scan will tell of the coefficients of its components, and what was known before.
func (d *Decoder) learn(s *scan) {
	d.scans++
	for _, c := range s.comps {
		for k := min(s.ss, 1); k <= max(s.se, len(estimates)); k++ {
			c.before[k] = 0
			if d.scans > 1 {
				c.before[k] = c.accuracy[k]
			}
		}
		for k := s.ss; k <= s.se; k++ {
			c.accuracy[k] = int8(s.al)
		}
	}
}

// begin prepares for the entropy-coded data, which starts at d.pos.
func (s *scan) begin(d *Decoder) {
	d.bits.start(d.pos)
	s.togo = d.restart
}

// row reads one row of MCUs into the components' coefficients; rolling says that these hold the present row of MCUs
// alone.
func (s *scan) row(d *Decoder, y int, rolling bool) error {
	mcu := y
	if s.single {
		mcu /= int(s.comps[0].v)
	}
	for x := range s.cols {
		if !s.starved {
			d.lastGood = mcu
		}
		if d.restart > 0 {
			if s.togo == 0 {
				s.nextSegment(d)
			}
			s.togo--
		}
		if err := s.mcu(d, x, y, rolling); err != nil {
			return err
		}
	}
	return nil
}

// mcu reads the blocks of one MCU.
func (s *scan) mcu(d *Decoder, x, y int, rolling bool) error {
	if s.starved && !(d.progressive && s.ss == 0 && s.ah > 0) {
		return nil
	}
	for i, c := range s.comps {
		h, v := int(c.h), int(c.v)
		if s.single {
			h, v = 1, 1
		}
		for by := range v {
			row := by
			if !rolling {
				row += y * v
			}
			at := (row*c.stride + x*h) * 64
			for range h {
				if err := s.block(d, i, (*[64]int16)(c.coefs[at:])); err != nil {
					return err
				}
				at += 64
			}
		}
	}
	if !s.starved && d.bits.dry() {
		s.starved = true
		s.eof = d.bits.pos >= len(d.data)
	}
	return nil
}

func (s *scan) block(d *Decoder, i int, b *[64]int16) error {
	switch {
	case !d.progressive:
		return d.bits.sequentialBlock(b, &d.dc[s.dcID[i]], &d.ac[s.acID[i]], &s.pred[i])
	case s.ss == 0 && s.ah == 0:
		return d.bits.firstDC(b, &d.dc[s.dcID[i]], &s.pred[i], s.al)
	case s.ss == 0:
		if d.bits.take(1) != 0 {
			b[0] |= 1 << uint(s.al)
		}
	case s.ah == 0:
		d.bits.firstAC(b, &d.ac[s.acID[0]], s)
	default:
		d.bits.refineAC(b, &d.ac[s.acID[0]], s)
	}
	return nil
}

// errCoefficient is libjpeg's refusal of DC differences that add up beyond every measure.
var errCoefficient = errors.New("the JPEG file has DC coefficients out of range")

// nextSegment goes on behind the restart marker that is due.
func (s *scan) nextSegment(d *Decoder) {
	m := s.marker(d)
	if m == 0 {
		m = s.skipToMarker(d)
	}
	if m == markRST0+s.nextRST {
		m = 0
	} else if m != 0 {
		m = s.resync(d, m)
	}
	s.nextRST = (s.nextRST + 1) & 7
	s.pred, s.eobRun, s.togo = [4]int32{}, 0, d.restart
	if m == 0 {
		s.starved = false
		d.bits.start(d.bits.pos)
		return
	}
	d.bits.acc, d.bits.n, d.bits.pad, d.bits.mark = 0, 0, 0, m
}

// marker is the marker that ended the present segment, if it is met.
func (s *scan) marker(d *Decoder) byte {
	d.pos = d.bits.pos // bytes read ahead hold no marker
	return d.bits.mark
}

// skipToMarker looks for the next marker behind the bytes used; at the end of the data there is an end of the picture.
func (s *scan) skipToMarker(d *Decoder) byte {
	m, err := d.nextMarker()
	if err != nil {
		m = markEOI
	}
	d.bits.pos = d.pos
	return m
}

// resync decides what to do with a marker that is not the restart marker due, as libjpeg does: a marker from before is
// skipped, a marker from later is kept and the segment taken as empty (the result), and one that is far off is taken
// for the one due.
func (s *scan) resync(d *Decoder, m byte) byte {
	for {
		switch back := (s.nextRST - (m - markRST0)) & 7; {
		case m < markSOF0: // no marker there is
		case m < markRST0 || m > markRST7:
			return m
		case back == 7 || back == 6: // one of the next two
			return m
		case back == 1 || back == 2: // one of the last two
		default:
			return 0
		}
		m = s.skipToMarker(d)
	}
}

// cutOff says that the data ended before the scan did.
func (s *scan) cutOff(d *Decoder) bool {
	if s.starved {
		return s.eof && !endsWithEOI(d.data)
	}
	const needed = 8 // libjpeg looks at so many bits before every code
	return d.bits.mark == markEOI && d.bits.pos >= len(d.data) && !endsWithEOI(d.data) && d.bits.n-d.bits.pad < needed
}

func endsWithEOI(data []byte) bool {
	n := len(data)
	return n >= 2 && data[n-2] == 0xff && data[n-1] == markEOI
}

// endError says that the end of the picture was made up because the data ended.
func (s *scan) endError(d *Decoder) error {
	if d.pos >= len(d.data) && !endsWithEOI(d.data) {
		return ErrTruncated
	}
	return nil
}
