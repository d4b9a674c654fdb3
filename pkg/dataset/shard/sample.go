package shard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// fault is why a sample cannot be used.
type fault byte

const (
	good fault = iota
	noPicture
	noCaption
	brokenText
	twice
	badName
	holes
	tooLarge
	damaged
	cutOff
	gone
	faults
)

// reasons explain the faults.
var reasons = [faults]string{
	noPicture:  "the sample has no picture (jpg, jpeg, png, webp, gif, bmp or tiff)",
	noCaption:  "the sample has no caption (json or txt) and no question",
	brokenText: "the captions are neither a JSON list of strings nor a JSON object with a caption",
	twice:      "the sample has two members of the same kind",
	badName:    "a member's name leads out of the folder",
	holes:      "a member is a sparse file",
	tooLarge:   "a member is larger than any picture or caption",
	damaged:    "the tar is damaged",
	cutOff:     "the tar is cut off",
	gone:       "the shard cannot be read",
}

// String is the reason.
func (f fault) String() string {
	if f < faults && f != good {
		return reasons[f]
	}
	return fmt.Sprintf("fault %d", byte(f))
}

// Bounds on members that are read, in bytes.
const (
	maxPicture = 256 << 20
	maxText    = 1 << 20
	maxKey     = 4 << 10
)

// pictureKinds are the endings of pictures. A sample with several is the first of them.
const pictureKinds = " jpg jpeg png webp gif bmp tif tiff "

// rank is the place of an ending among those of pictures, -1 for other endings.
func rank(ext []byte) int {
	if len(ext) < 3 || len(ext) > 4 {
		return -1
	}
	i := strings.Index(pictureKinds, string(ext))
	if i < 1 || pictureKinds[i-1] != ' ' || pictureKinds[i+len(ext)] != ' ' {
		return -1
	}
	return i
}

// splitName is a member's key and ending: up to the first dot of the file name, and behind it in lower case. Names
// without a key or ending belong to no sample.
func splitName(name, buf []byte) (key, ext []byte, ok bool) {
	base := bytes.LastIndexByte(name, '/') + 1
	dot := bytes.IndexByte(name[base:], '.')
	if dot <= 0 || base+dot+1 == len(name) {
		return nil, nil, false
	}
	ext = append(buf[:0], name[base+dot+1:]...)
	for i, c := range ext {
		if 'A' <= c && c <= 'Z' {
			ext[i] = c + 'a' - 'A'
		}
	}
	return name[:base+dot], ext, true
}

// leaves says whether a name leads out of the folder that it is in.
func leaves(name []byte) bool {
	if len(name) > 0 && name[0] != '/' && name[0] != '\\' && !bytes.Contains(name, []byte("..")) {
		return false
	}
	clean := path.Clean(strings.ReplaceAll(string(name), `\`, "/"))
	return path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../")
}

// part is where a member's data lies; a size of -1 is a member that the sample lacks.
type part struct{ data, size int64 }

// sample is consecutive members with one key.
type sample struct {
	key       []byte
	start     int64 // first header
	end       int64 // first header behind it
	resync    bool  // at end, a header must be looked for
	picture   part
	rank      int
	json, txt part
	record    record
	pixels    []byte // the picture's file; nil if the reader leaves pictures alone
	bad       fault
	reason    string // of damage, beyond what bad says
}

// err is why a sample of a shard cannot be used, with the place.
func (s *sample) err(shard string) error {
	if s.bad == good {
		return nil
	}
	reason := s.reason
	if reason == "" {
		reason = s.bad.String()
	}
	return fmt.Errorf("%s, byte %d: %s", shard, s.start, reason)
}

// sampleReader puts members together to samples.
type sampleReader struct {
	tar          tarReader
	keepPictures bool // read pictures into memory

	held     member // belongs to the next sample; its name is in heldName
	holding  bool
	heldName []byte
	damage   *Damage // comes after the sample that was given last
	texts    [2][]byte
	ext      []byte
}

func newSampleReader(in input, keepPictures bool) *sampleReader {
	return &sampleReader{tar: tarReader{in: in}, keepPictures: keepPictures,
		texts: [2][]byte{make([]byte, 0, 1024), make([]byte, 0, 1024)}}
}

// next gives the next sample. A sample that cannot be used has bad set; damage to the tar is such a sample of its own.
// At the end it is io.EOF. Other errors are of the medium. s.key and s.record are overwritten; s.pixels is fresh.
func (r *sampleReader) next(s *sample) error {
	*s = sample{key: s.key[:0], picture: part{size: -1}, json: part{size: -1}, txt: part{size: -1}}
	r.texts = [2][]byte{r.texts[0][:0], r.texts[1][:0]}
	if r.damage != nil {
		return r.giveDamage(s)
	}
	open := false
	for {
		m, err := r.member()
		var d *Damage
		switch {
		case err == io.EOF:
			if !open {
				return io.EOF
			}
			s.end = r.held.start
			return r.close(s)
		case errors.As(err, &d):
			r.damage = d
			if !open {
				return r.giveDamage(s)
			}
			s.end = r.held.start // from there the damage is found again
			return r.close(s)
		case err != nil:
			return err
		}
		key, ext, ok := splitName(m.name, r.ext)
		if !ok || m.kind == ignored {
			continue
		}
		r.ext = ext
		if open && !bytes.Equal(key, s.key) {
			r.hold(m)
			s.end = m.start
			return r.close(s)
		}
		if !open {
			open = true
			s.key, s.start = append(s.key[:0], key[:min(len(key), maxKey)]...), m.start
		}
		err = r.take(s, m, ext)
		if errors.As(err, &d) {
			s.end, s.bad, s.reason = r.tar.in.at(), cutOff, d.Reason
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// member is the member held back, or the next one.
func (r *sampleReader) member() (*member, error) {
	if r.holding {
		r.holding = false
		return &r.held, nil
	}
	return &r.held, r.tar.next(&r.held)
}

// hold keeps a member for the next sample.
func (r *sampleReader) hold(m *member) {
	r.heldName = append(r.heldName[:0], m.name...)
	r.held.name, r.holding = r.heldName, true
}

// giveDamage makes a sample of damage.
func (r *sampleReader) giveDamage(s *sample) error {
	s.start, s.bad, s.reason = r.damage.Offset, damaged, r.damage.Reason
	s.end = max(s.start, r.tar.in.at())
	if s.resync = r.tar.resync; r.tar.ended {
		s.bad = cutOff
	}
	r.damage = nil
	return nil
}

// fail notes the first fault of a sample.
func (s *sample) fail(f fault) {
	if s.bad == good {
		s.bad = f
	}
}

// take adds a member to a sample and reads what is needed of it.
func (r *sampleReader) take(s *sample, m *member, ext []byte) error {
	at := rank(ext)
	isJSON, isText := string(ext) == "json", string(ext) == "txt"
	switch {
	case leaves(m.name):
		s.fail(badName)
		return nil
	case at < 0 && !isJSON && !isText:
		return nil
	case m.kind == sparse:
		s.fail(holes)
		return nil
	case at >= 0 && m.size > maxPicture, at < 0 && m.size > maxText:
		s.fail(tooLarge)
		return nil
	case at >= 0:
		return r.takePicture(s, m, at)
	case isJSON:
		return r.takeText(s, &s.json, m, 0)
	}
	return r.takeText(s, &s.txt, m, 1)
}

func (r *sampleReader) takePicture(s *sample, m *member, at int) error {
	if s.picture.size >= 0 && at >= s.rank {
		if at == s.rank {
			s.fail(twice)
		}
		return nil
	}
	s.picture, s.rank = part{m.data, m.size}, at
	if !r.keepPictures {
		return nil
	}
	var err error
	s.pixels, err = r.data(nil, m)
	return err
}

func (r *sampleReader) takeText(s *sample, p *part, m *member, i int) error {
	if p.size >= 0 {
		s.fail(twice)
		return nil
	}
	*p = part{m.data, m.size}
	var err error
	r.texts[i], err = r.data(r.texts[i], m)
	return err
}

// data reads a member's data. It grows with what really comes, so that a header alone costs no memory.
func (r *sampleReader) data(buf []byte, m *member) ([]byte, error) {
	const step = 4 << 20
	buf = buf[:0]
	for left := m.size; left > 0; {
		n := min(left, step)
		from := len(buf)
		if free := int64(cap(buf) - from); free < n {
			grown := make([]byte, from, max(int64(from)+n, min(2*int64(cap(buf)), m.size)))
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:int64(from)+n]
		if err := r.tar.in.read(buf[from:]); err != nil {
			return buf[:from], r.tar.cut(err)
		}
		r.tar.took(n)
		left -= n
	}
	return buf, nil
}

// close checks a complete sample.
func (r *sampleReader) close(s *sample) error {
	if s.picture.size < 0 {
		s.fail(noPicture)
	}
	if s.bad == good {
		var json, txt []byte
		if s.json.size >= 0 {
			json = r.texts[0]
		}
		if s.txt.size >= 0 {
			txt = r.texts[1]
		}
		s.fail(s.record.parse(json, txt))
	}
	return nil
}
