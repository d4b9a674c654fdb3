package shard

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

type found struct {
	name string
	data string
}

// ours lists the regular members of a tar by our reader, through both kinds of input.
func ours(t testing.TB, data []byte) ([]found, error) {
	t.Helper()
	list := func(in input) ([]found, error) {
		r := tarReader{in: in}
		var all []found
		for {
			var m member
			err := r.next(&m)
			if err == io.EOF {
				return all, nil
			}
			if err != nil {
				return all, err
			}
			if m.kind != regular {
				continue
			}
			f := found{name: string(m.name)}
			if m.data < 0 || m.size < 0 || m.start > m.data-block || m.start%block != 0 {
				t.Fatalf("member %+v", m)
			}
			if m.data+m.size <= int64(len(data)) {
				f.data = string(data[m.data : m.data+m.size])
			}
			all = append(all, f)
		}
	}
	a, err1 := list(newFileInput(bytes.NewReader(data), int64(len(data)), windowSize))
	b, err2 := list(&streamInput{r: bytes.NewReader(data), length: int64(len(data))})
	if !slices.Equal(a, b) || (err1 == nil) != (err2 == nil) {
		t.Errorf("a file gives %d members and %v, a stream %d and %v", len(a), err1, len(b), err2)
	}
	return a, err1
}

// theirs lists them by the standard library.
func theirs(data []byte) ([]found, error) {
	r := tar.NewReader(bytes.NewReader(data))
	var all []found
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		content, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return all, err
		}
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont {
			all = append(all, found{h.Name, string(content)})
		}
	}
}

func TestTarFormats(t *testing.T) {
	long := strings.Repeat("a-long-folder/", 30) + "x.jpg"
	for name, data := range map[string][]byte{
		"ustar": tarOf(t, tar.FormatUSTAR, file{name: "a.jpg", data: "one"}, file{name: strings.Repeat("p", 120) + "/b.txt"},
			file{name: "dir/", flag: tar.TypeDir}, file{name: "c.json", data: strings.Repeat("x", 513)}),
		"pax": tarOf(t, tar.FormatPAX, file{name: long, data: "one"}, file{name: "日本/é.jpg", data: "two"},
			file{name: "link", flag: tar.TypeSymlink}, file{name: "c.json", data: strings.Repeat("x", 512)}),
		"gnu": tarOf(t, tar.FormatGNU, file{name: long, data: "one"}, file{name: "hard", flag: tar.TypeLink},
			file{name: long + "2", data: "two"}),
		"empty": tarOf(t, tar.FormatUSTAR),
	} {
		got, err := ours(t, data)
		want, err2 := theirs(data)
		if err != nil || err2 != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %d members and %v, want %d and %v", name, len(got), err, len(want), err2)
		}
		// Without the empty blocks at the end the members are the same, but the shard may have had more.
		bare := data[:padded(int64(len(bytes.TrimRight(data, "\x00"))))]
		var d *Damage
		if got, err := ours(t, bare); !errors.As(err, &d) || d.Offset != int64(len(bare)) || !slices.Equal(got, want) {
			t.Errorf("%s without its end: %d members, %v", name, len(got), err)
		}
	}
}

func TestTarDamage(t *testing.T) {
	data := tarOf(t, tar.FormatUSTAR, numbered(0, 3)...)
	var starts []int64
	r := tarReader{in: newFileInput(bytes.NewReader(data), int64(len(data)), windowSize)}
	for {
		var m member
		if err := r.next(&m); err != nil {
			break
		}
		starts = append(starts, m.start)
	}
	// A flipped bit in any header: the damage is reported there, and reading goes on with the next header.
	for i, start := range starts {
		for _, bit := range []int64{0, 130, 150, 156, 300} {
			broken := bytes.Clone(data)
			broken[start+bit] ^= 1
			r := tarReader{in: newFileInput(bytes.NewReader(broken), int64(len(data)), windowSize)}
			n, damage := 0, 0
			for {
				var m member
				err := r.next(&m)
				if err == io.EOF {
					break
				}
				var d *Damage
				if errors.As(err, &d) {
					damage++
					if d.Offset != start {
						t.Errorf("member %d, byte %d: damage at %d, want %d", i, bit, d.Offset, start)
					}
					continue
				}
				if n++; err != nil {
					t.Fatal(err)
				}
			}
			if damage != 1 || n != len(starts)-1 {
				t.Errorf("member %d, byte %d: %d members and %d places of damage", i, bit, n, damage)
			}
		}
	}
	for cut := range int64(len(data) - 2*block + 1) {
		_, err := ours(t, data[:cut])
		var d *Damage
		if !errors.As(err, &d) || d.Offset > cut || !strings.Contains(d.Reason, "cut off") {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestTarRefuses(t *testing.T) {
	size := func(field string) []byte {
		data := tarOf(t, tar.FormatUSTAR, file{name: "a.jpg", data: "one"})
		copy(data[124:136], field)
		copy(data[148:156], "        ")
		sum := 0
		for _, c := range data[:block] {
			sum += int(c)
		}
		copy(data[148:156], []byte{'0' + byte(sum>>15&7), '0' + byte(sum>>12&7), '0' + byte(sum>>9&7), '0' + byte(sum>>6&7),
			'0' + byte(sum>>3&7), '0' + byte(sum&7), 0, ' '})
		return data
	}
	for name, data := range map[string][]byte{
		"too large":   size("77777777777\x00"),
		"negative":    size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"enormous":    size("\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"),
		"no number":   size("banana      "),
		"beyond 2^63": size("\x80\x00\x00\x01\x7f\xff\xff\xff\xff\xff\xff\xff"),
	} {
		got, err := ours(t, data)
		var d *Damage
		if len(got) != 0 || !errors.As(err, &d) {
			t.Errorf("%s: %d members, %v", name, len(got), err)
		}
	}
}

// checkAnyTar holds for any bytes: our members are those of the standard library where both accept the bytes, and
// samples are the same from a file and from a stream.
func checkAnyTar(t *testing.T, data []byte) {
	got, err := ours(t, data)
	want, err2 := theirs(data)
	if err == nil && err2 == nil && !bytes.Contains(data, []byte("GNU.sparse")) && !slices.Equal(got, want) {
		t.Errorf("we list %q, the standard library %q", got, want)
	}
	names := func(in input) []string {
		r := newSampleReader(in, true)
		var all []string
		for {
			var s sample
			if err := r.next(&s); err != nil {
				return all
			}
			if s.start < 0 || s.end < s.start || s.bad == good && s.record.texts() == 0 {
				t.Fatalf("sample %+v", s)
			}
			all = append(all, string(s.key)+s.bad.String())
		}
	}
	a := names(newFileInput(bytes.NewReader(data), int64(len(data)), windowSize))
	b := names(&streamInput{r: bytes.NewReader(data), length: int64(len(data))})
	if !slices.Equal(a, b) {
		t.Errorf("samples are %q from a file and %q from a stream", a, b)
	}
}

func tarSeeds(t testing.TB) [][]byte {
	return [][]byte{
		tarOf(t, tar.FormatUSTAR, numbered(0, 1)...),
		tarOf(t, tar.FormatUSTAR, numbered(0, 3)...),
		tarOf(t, tar.FormatPAX, file{name: strings.Repeat("日", 80) + ".jpg", data: "x"}, file{name: "b", data: "y"}),
		tarOf(t, tar.FormatGNU, file{name: strings.Repeat("n", 180), data: "x"}),
	}
}

// TestChangedTars changes bytes of headers at random, with the checksum made right again more often than not.
func TestChangedTars(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for _, seed := range tarSeeds(t) {
		for range 1500 {
			data := bytes.Clone(seed)
			for range 1 + r.IntN(3) {
				head := data[r.IntN(len(data)/block)*block:][:block]
				at := []int{r.IntN(block), 124 + r.IntN(12), 156, 257 + r.IntN(8), r.IntN(40)}[r.IntN(5)]
				head[at] = []byte{byte(r.Uint32()), "01234567LKxgS\x00\xff"[r.IntN(15)]}[r.IntN(2)]
				if r.IntN(4) > 0 && !isEmpty(head) {
					fixChecksum(head)
				}
			}
			if r.IntN(10) == 0 {
				data = data[:r.IntN(len(data))]
			}
			checkAnyTar(t, data)
			if t.Failed() {
				t.Fatalf("the tar was %q", data)
			}
		}
	}
}

func FuzzTar(f *testing.F) {
	for _, seed := range tarSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= 64<<10 {
			checkAnyTar(t, data)
		}
	})
}
