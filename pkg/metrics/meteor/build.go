package meteor

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/internal/atomicfile"
)

// Files of METEOR's data, relative to the folder that pycocoevalcap is unpacked into.
const (
	JarPath   = "pycocoevalcap/meteor/meteor-1.5.jar"
	TablePath = "pycocoevalcap/meteor/data/paraphrase-en.gz"
)

const (
	indexMagic  = "blip2 METEOR index\x00\x00"
	indexFormat = 2
	maxText     = 64 << 20 // a text file of the jar
	maxPhrases  = 1 << 25  // rows of the paraphrase table
	maxNodes    = 1 << 27
)

// sections of the index, in this order.
const (
	sectionFunction  = iota // function words, a line each
	sectionPrefixes         // nonbreaking prefixes, as in the jar
	sectionWords            // bytes of all words
	sectionWordAt           // uint32: where word i begins; one more at the end
	sectionWordSlots        // uint32: hash table of words, 0 is empty, else the number + 1
	sectionSynsets          // uint32: synsets of all words
	sectionSynsetAt         // uint32 per word and one more
	sectionBases            // uint32: words that a word is an irregular form of
	sectionBaseAt           // uint32 per word and one more
	sectionParents          // uint32 per node of the tree of phrases
	sectionLabels           // uint32 per node: its last word
	sectionNodeSlots        // uint32: hash table of nodes by parent and word, 0 is empty (node 0 is the root)
	sectionTargets          // uint32: nodes of the paraphrases of all phrases, rising per phrase
	sectionTargetAt         // uint32 per node and one more
	sections
)

// header is the JSON at the beginning of an index.
type header struct {
	Format   int
	Sources  [2]source // jar and table
	Offsets  [sections]int64
	Lengths  [sections]int64
	Checksum uint32 // CRC-32C of everything behind the header
}

// source identifies a file the index was made of.
type source struct {
	Size    int64
	ModTime int64 // seconds
}

// is says whether an index of s is one of the other file, too. Archives, such as the layers of a container, round times
// to seconds, up or down.
func (s source) is(other source) bool {
	apart := s.ModTime - other.ModTime
	return s.Size == other.Size && -1 <= apart && apart <= 1
}

// sourcesOf looks at the jar and the table in dir.
func sourcesOf(dir string) (sources [2]source, err error) {
	for i, name := range []string{JarPath, TablePath} {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			return sources, fmt.Errorf("METEOR's data: %w; remedy: blip2 plugin install meteor", err)
		}
		sources[i] = source{info.Size(), info.ModTime().Unix()}
	}
	return sources, nil
}

// builder collects what goes into an index.
type builder struct {
	function, prefixes []byte
	words              []string
	numbers            map[string]uint32
	synsets            map[uint32][]uint32
	bases              map[uint32][]uint32

	parents, labels []uint32
	slots           []uint32 // of nodes
	from, to        []uint32 // rows of the paraphrase table as nodes
}

// build reads METEOR's data under dir and writes its index to path.
func build(ctx context.Context, dir, path string) error {
	b := &builder{numbers: map[string]uint32{}, synsets: map[uint32][]uint32{}, bases: map[uint32][]uint32{},
		parents: []uint32{0}, labels: []uint32{0}, slots: make([]uint32, 1<<16)}
	sources, err := sourcesOf(dir)
	if err != nil {
		return err
	}
	if err := b.readJar(filepath.Join(dir, filepath.FromSlash(JarPath))); err != nil {
		return err
	}
	if err := b.readTable(ctx, filepath.Join(dir, filepath.FromSlash(TablePath))); err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error { return b.write(w, header{Sources: sources}) })
}

// readJar takes the text files out of METEOR's jar.
func (b *builder) readJar(path string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("%s: not METEOR's jar, or damaged: %w", path, err)
	}
	defer z.Close()
	text := map[string][]byte{}
	for _, name := range []string{"function/english.words", "nonbreaking/english.prefixes", "synonym/english.synsets",
		"synonym/english.exceptions"} {
		if text[name], err = readEntry(&z.Reader, name); err != nil {
			return fmt.Errorf("%s: %s: %w", path, name, err)
		}
	}
	b.function, b.prefixes = text["function/english.words"], text["nonbreaking/english.prefixes"]
	if err := b.readSynsets(text["synonym/english.synsets"]); err != nil {
		return fmt.Errorf("%s: synonym/english.synsets: %w", path, err)
	}
	if err := b.readExceptions(text["synonym/english.exceptions"]); err != nil {
		return fmt.Errorf("%s: synonym/english.exceptions: %w", path, err)
	}
	return nil
}

// readEntry reads a file of a zip.
func readEntry(z *zip.Reader, name string) ([]byte, error) {
	f, err := z.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err == nil && len(data) > maxText {
		err = fmt.Errorf("more than %d bytes", maxText)
	}
	return data, err
}

// word returns the number of a word.
func (b *builder) word(s string) uint32 {
	n, ok := b.numbers[s]
	if !ok {
		n = uint32(len(b.words))
		s = strings.Clone(s)
		b.words = append(b.words, s)
		b.numbers[s] = n
	}
	return n
}

// pairs calls f with lines 1 and 2, 3 and 4, ...
func pairs(data []byte, f func(a, b string) error) error {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n += 2 {
		first := lines.Text()
		if !lines.Scan() {
			if lines.Err() == nil {
				return fmt.Errorf("line %d has no line after it", n)
			}
			break
		}
		if err := f(first, lines.Text()); err != nil {
			return fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	return lines.Err()
}

// readSynsets reads a word a line, and its synsets in the next.
func (b *builder) readSynsets(data []byte) error {
	return pairs(data, func(word, ids string) error {
		n := b.word(word)
		var list []uint32
		for id := range strings.FieldsSeq(ids) {
			v, err := strconv.ParseUint(id, 10, 32)
			if err != nil {
				return fmt.Errorf("%q is no number of a synset", id)
			}
			list = append(list, uint32(v))
		}
		b.synsets[n] = list
		return nil
	})
}

// readExceptions reads a word a line, and its irregular forms in the next.
func (b *builder) readExceptions(data []byte) error {
	return pairs(data, func(word, forms string) error {
		base := b.word(word)
		for form := range strings.FieldsSeq(forms) {
			n := b.word(form)
			b.bases[n] = append(b.bases[n], base)
		}
		return nil
	})
}

// readTable reads the paraphrase table: a probability, a phrase and its paraphrase, a line each.
func (b *builder) readTable(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return fmt.Errorf("%s: not a gzip file, or damaged: %w", path, err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(make([]byte, 1<<16), 1<<20)
	node, last := uint32(0), ""
	for lines.Scan() {
		if len(b.from)&0xffff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !lines.Scan() {
			return fmt.Errorf("%s: row %d is not complete", path, len(b.from)+1)
		}
		if phrase := lines.Text(); phrase != last || len(b.from) == 0 {
			node, last = b.phrase(phrase), phrase
		}
		if !lines.Scan() {
			return fmt.Errorf("%s: row %d is not complete", path, len(b.from)+1)
		}
		b.from, b.to = append(b.from, node), append(b.to, b.phrase(lines.Text()))
		if len(b.from) > maxPhrases || len(b.parents) > maxNodes {
			return fmt.Errorf("%s: more than %d rows", path, maxPhrases)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: row %d: %w", path, len(b.from)+1, err)
	}
	return nil
}

// phrase returns the node of a phrase and makes it if need be.
func (b *builder) phrase(s string) uint32 {
	node := uint32(0)
	for w := range strings.FieldsSeq(s) {
		node = b.child(node, b.word(w))
	}
	return node
}

// child returns the node under parent with the label word.
func (b *builder) child(parent, word uint32) uint32 {
	mask := uint32(len(b.slots) - 1)
	i := hashNode(parent, word) & mask
	for ; b.slots[i] != 0; i = (i + 1) & mask {
		if n := b.slots[i]; b.parents[n] == parent && b.labels[n] == word {
			return n
		}
	}
	n := uint32(len(b.parents))
	b.parents, b.labels = append(b.parents, parent), append(b.labels, word)
	b.slots[i] = n
	if 3*len(b.parents) > 2*len(b.slots) {
		b.slots = make([]uint32, 2*len(b.slots))
		mask = uint32(len(b.slots) - 1)
		for n := uint32(1); n < uint32(len(b.parents)); n++ {
			i := hashNode(b.parents[n], b.labels[n]) & mask
			for b.slots[i] != 0 {
				i = (i + 1) & mask
			}
			b.slots[i] = n
		}
	}
	return n
}

// hashNode mixes the bits of a node's key.
func hashNode(parent, word uint32) uint32 {
	h := (uint64(parent)<<32 | uint64(word)) * 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

// hashWord is FNV-1a.
func hashWord(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// lists flattens lists by number: all values, and where those of each number begin.
func lists(n int, of func(i uint32) []uint32) (values, at []uint32) {
	at = make([]uint32, 1, n+1)
	for i := range uint32(n) {
		values = append(values, of(i)...)
		at = append(at, uint32(len(values)))
	}
	return values, at
}

// targets sorts the rows of the table by phrase; those of a phrase keep their order, which decides ties.
func (b *builder) targets() (values, at []uint32) {
	at = make([]uint32, len(b.parents)+1)
	for _, n := range b.from {
		at[n+1]++
	}
	for i := 1; i < len(at); i++ {
		at[i] += at[i-1]
	}
	values = make([]uint32, len(b.from))
	place := slices.Clone(at)
	for i, n := range b.from {
		values[place[n]] = b.to[i]
		place[n]++
	}
	return values, at
}

// wordTable returns the words one after another, where each begins, and their hash table.
func (b *builder) wordTable() (text []byte, at, slots []uint32) {
	size := 16
	for size < 2*len(b.words) {
		size *= 2
	}
	slots, at = make([]uint32, size), make([]uint32, 1, len(b.words)+1)
	for n, w := range b.words {
		text = append(text, w...)
		at = append(at, uint32(len(text)))
		i := hashWord(w) & uint32(size-1)
		for slots[i] != 0 {
			i = (i + 1) & uint32(size-1)
		}
		slots[i] = uint32(n) + 1
	}
	return text, at, slots
}

// write puts everything into a file: magic, length of the header, header, sections.
func (b *builder) write(w io.Writer, h header) error {
	var data [sections]any
	data[sectionFunction], data[sectionPrefixes] = b.function, b.prefixes
	data[sectionWords], data[sectionWordAt], data[sectionWordSlots] = spread3(b.wordTable())
	data[sectionSynsets], data[sectionSynsetAt] = spread(lists(len(b.words), func(i uint32) []uint32 {
		return slices.SortedFunc(slices.Values(b.synsets[i]), cmp.Compare[uint32])
	}))
	data[sectionBases], data[sectionBaseAt] = spread(lists(len(b.words), func(i uint32) []uint32 { return b.bases[i] }))
	data[sectionParents], data[sectionLabels], data[sectionNodeSlots] = b.parents, b.labels, b.slots
	data[sectionTargets], data[sectionTargetAt] = spread(b.targets())
	h.Format = indexFormat
	offset, sum := int64(0), crc32.New(castagnoli)
	for i, d := range data {
		h.Offsets[i], h.Lengths[i] = offset, int64(binary.Size(d))
		padding := -h.Lengths[i] & 7
		if err := binary.Write(sum, binary.LittleEndian, d); err != nil {
			return err
		}
		sum.Write(make([]byte, padding))
		offset += h.Lengths[i] + padding
	}
	h.Checksum = sum.Sum32()
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	text = append(text, bytes.Repeat([]byte(" "), -(len(indexMagic)+4+len(text))&7)...)
	out := bufio.NewWriterSize(w, 1<<20)
	out.WriteString(indexMagic)
	out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(text))))
	out.Write(text)
	for i, d := range data {
		if err := binary.Write(out, binary.LittleEndian, d); err != nil {
			return err
		}
		out.Write(make([]byte, -h.Lengths[i]&7))
	}
	return out.Flush()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spread and spread3 put results of several values where single ones go.
func spread(a, b []uint32) (x, y any) { return a, b }

func spread3(a []byte, b, c []uint32) (x, y, z any) { return a, b, c }
