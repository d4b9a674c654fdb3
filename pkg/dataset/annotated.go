package dataset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// AnnotationFile names annotations and where their pictures are.
type AnnotationFile struct {
	Annotations string // the file, or a pattern such as *.parquet for several that make one set
	Questions   string // official VQA files: the questions, where Annotations has the answers
	Images      string // folder to which file names are relative; may be "" where the pictures are in the file
	Split       string // only entries of this split, or of one of several ("train+restval"); "" means all
	Name        string // what to call the set; "" means the name of the annotation file
	Format      Format
	Columns     Columns // names of fields other than the usual
	// ImageName is the file name of a picture that the file gives the id of alone, with %d or %s for it, such as
	// COCO_train2014_%012d.jpg. "" looks for COCO's, Visual Genome's and GQA's names.
	ImageName string
	// Bare keeps pictures without any text, with an empty one: for sets such as NoCaps that are only captioned.
	Bare bool
}

// CaptionFile is an AnnotationFile of captions in its simplest form.
type CaptionFile struct {
	Annotations string // as in AnnotationFile
	Images      string
	Split       string
	Name        string
}

// Annotated is a Source read from annotation files, with its pictures in a folder or in the files. Of every entry only
// the place is kept in memory (5 to 12 bytes); entries are read again when they are asked for.
type Annotated struct {
	file     AnnotationFile
	docs     []*document
	table    table
	licenses map[string]string
	patterns []string // of pictures that the file gives the id of
	splits   []string // that are wanted; nil for all
	counts   Counts
	readers  sync.Pool // of *reader
}

// Counts says what was read and what was left out.
type Counts struct {
	Images, Captions, Questions int // kept
	OtherSplit                  int // entries of another split (pictures, where the file lists pictures)
	WithoutText                 int // listed pictures that no usable caption or question belongs to
	EmptyTexts                  int // texts with nothing left after the caption processor
	UnknownImage                int // texts whose image_id is not listed among the images
	Withheld                    int // questions without answers
}

// OpenCaptions opens a file of captions.
func OpenCaptions(file CaptionFile) (*Annotated, error) {
	return OpenAnnotations(AnnotationFile{Annotations: file.Annotations, Images: file.Images, Split: file.Split,
		Name: file.Name})
}

// OpenAnnotations reads annotation files through once and keeps the places of their entries. What it takes is told from
// the contents: LAVIS's lists and objects of rows, the official files of COCO, VQA, OK-VQA, GQA, A-OKVQA, NoCaps and
// Visual Genome, Karpathy's, easy-VQA's, an object per line, tables with a header, and Parquet; gzip-packed or not.
// Captions that the caption processor leaves empty are dropped and counted.
func OpenAnnotations(file AnnotationFile) (*Annotated, error) {
	a := &Annotated{file: file, licenses: map[string]string{}}
	if file.Split != "" {
		a.splits = strings.Split(file.Split, "+")
	}
	if a.file.Name == "" {
		a.file.Name = filepath.Base(file.Annotations)
	}
	a.readers.New = func() any { return &reader{} }
	if err := a.open(); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Annotated) open() error {
	if a.file.Images != "" {
		if err := checkFolder(a.file); err != nil {
			return err
		}
	}
	if err := checkPattern(a.file.ImageName); err != nil {
		return err
	}
	paths, err := annotationPaths(a.file.Annotations)
	if err != nil {
		return err
	}
	base := int64(0)
	add := func(path string) error {
		d, err := openDocument(path, a.file.Format, a.file.Columns)
		if err != nil {
			return err
		}
		d.base = base
		base += d.size
		a.docs = append(a.docs, d)
		if base > maxOffset {
			return fmt.Errorf("dataset: %s: the files are longer than %d TiB together", path, maxOffset>>40)
		}
		if d.parquet == nil && a.file.Images == "" {
			return checkFolder(a.file)
		}
		return nil
	}
	for _, path := range paths {
		if err := add(path); err != nil {
			return err
		}
	}
	if a.file.Questions != "" {
		if err := add(a.file.Questions); err != nil {
			return err
		}
	}
	if err := a.collect(); err != nil {
		return err
	}
	return a.checkImages()
}

// Close closes the annotation files. The source must not be used afterwards.
func (a *Annotated) Close() error {
	var all []error
	for _, d := range a.docs {
		if c, ok := d.r.(io.Closer); ok {
			all = append(all, c.Close())
		}
		if d.parquet != nil {
			all = append(all, d.parquet.Close())
		}
	}
	a.docs = nil
	return errors.Join(all...)
}

// annotationPaths expands a pattern.
func annotationPaths(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return []string{pattern}, nil
	}
	if _, err := os.Stat(pattern); err == nil {
		return []string{pattern}, nil
	}
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("dataset: the pattern %s is malformed: %w", pattern, err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("dataset: no annotation file matches %s", pattern)
	}
	slices.Sort(paths)
	return paths, nil
}

func checkFolder(file AnnotationFile) error {
	info, err := os.Stat(file.Images)
	switch {
	case file.Images == "":
		return fmt.Errorf("dataset: no image folder is given for the annotations %s", file.Annotations)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("dataset: the image folder %s does not exist", file.Images)
	case err != nil:
		return fmt.Errorf("dataset: the image folder cannot be used: %w", err)
	case !info.IsDir():
		return fmt.Errorf("dataset: %s should be the folder of the pictures, but is a file", file.Images)
	}
	return nil
}

// relativeName makes a file name one within the image folder, and refuses names that leave it. Symbolic links inside
// the folder are the owner's business and are followed.
func relativeName(name, images string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the image has no file name")
	case len(name) > 4096:
		return "", fmt.Errorf("the file name %.40q… is %d bytes long", name, len(name))
	case strings.ContainsRune(name, 0):
		return "", fmt.Errorf("the file name %q contains a zero byte", name)
	}
	if filepath.IsAbs(name) && images != "" {
		if rel, err := filepath.Rel(images, name); err == nil {
			name = filepath.ToSlash(rel)
		}
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) == "." {
		return "", fmt.Errorf("the file name %q leaves the image folder; names must be relative to it, without \"..\"",
			name)
	}
	return name, nil
}

// Name is the name of the set.
func (a *Annotated) Name() string { return a.file.Name }

// Len is the number of pictures with at least one text.
func (a *Annotated) Len() int { return a.table.pictures }

// Texts is the number of captions or questions of picture i.
func (a *Annotated) Texts(i int) int { return max(a.table.texts(i), 1) }

// Counts says what was read and left out.
func (a *Annotated) Counts() Counts { return a.counts }

// Example is picture i in the order of the annotation file, read from there.
func (a *Annotated) Example(i int) (Example, error) {
	r := a.readers.Get().(*reader)
	defer a.readers.Put(r)
	return a.example(r, i)
}

// Open opens the encoded picture i.
func (a *Annotated) Open(i int) (io.ReadCloser, error) {
	r := a.readers.Get().(*reader)
	defer a.readers.Put(r)
	d, err := a.header(r, i)
	if err != nil {
		return nil, err
	}
	if d.parquet != nil && len(r.row) > 0 {
		return d.parquet.picture(r.row)
	}
	name, err := a.imageName(&r.record)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(a.file.Images, filepath.FromSlash(name)))
	if err != nil {
		return nil, fmt.Errorf("opening the picture: %w", err)
	}
	return f, nil
}

// reader is the memory for reading entries again.
type reader struct {
	record
	buf []byte
}

// readAt reads the entry at an offset of the whole set.
func (a *Annotated) readAt(r *reader, offset uint64) (*document, error) {
	at := sort.Search(len(a.docs), func(k int) bool { return a.docs[k].base > int64(offset) }) - 1
	d := a.docs[at]
	return d, d.read(&r.record, int64(offset)-d.base, &r.buf)
}

// header reads the entry that says what the file of picture i is.
func (a *Annotated) header(r *reader, i int) (*document, error) {
	if head := a.table.head(i); head > 0 {
		return a.readAt(r, head-1)
	}
	from, _ := a.table.refsOf(i)
	return a.readAt(r, a.table.refs.at(from))
}

func (a *Annotated) example(r *reader, i int) (Example, error) {
	d, err := a.header(r, i)
	if err != nil {
		return Example{}, err
	}
	var e Example
	if e.Key, err = a.key(d, &r.record); err != nil {
		return Example{}, err
	}
	if d.parquet == nil || len(r.row) == 0 {
		e.ImagePath = filepath.Join(a.file.Images, filepath.FromSlash(e.Key))
	}
	e.ImageID = numericID(&r.record, e.Key, i)
	e.URL, e.License = string(r.url), string(r.license)
	if full, known := a.licenses[e.License]; known {
		e.License = full
	} else if a.table.head(i) > 0 {
		e.License = ""
	}
	from, to := a.table.refsOf(i)
	for ref := from; ref < to; ref++ {
		if ref > from || a.table.head(i) > 0 { // otherwise the entry is in r already
			if _, err := a.readAt(r, a.table.refs.at(ref)); err != nil {
				return Example{}, err
			}
		}
		r.usable()
		for _, c := range r.captions {
			e.Captions = append(e.Captions, string(c))
		}
		first := len(e.Questions)
		for q := range r.questions {
			e.Questions = append(e.Questions, r.questions[q].question())
		}
		if second := a.table.second(ref); second > 0 && len(e.Questions) == first+1 {
			if _, err := a.readAt(r, second-1); err != nil {
				return Example{}, err
			}
			answered := r.question().question()
			e.Questions[first].Answers = answered.Answers
		}
	}
	if len(e.Captions)+len(e.Questions) == 0 {
		e.Captions = []string{""}
	}
	return e, nil
}

// key is what names the picture: its file name, or what a Parquet file calls it.
func (a *Annotated) key(d *document, r *record) (string, error) {
	if d.parquet != nil && len(r.row) > 0 {
		if name := r.name(); len(name) > 0 {
			return string(name), nil
		}
		if len(r.id) > 0 {
			return string(r.id), nil
		}
		return fmt.Sprintf("%s row %s", filepath.Base(d.path), r.row), nil
	}
	return a.imageName(r)
}

// imageName is the file name of an entry's picture, relative to the folder.
func (a *Annotated) imageName(r *record) (string, error) {
	if name := r.name(); len(name) > 0 {
		return relativeName(string(name), a.file.Images)
	}
	id := r.pictureID()
	if len(id) == 0 {
		return "", errors.New("the image has no file name")
	}
	var name string
	for _, pattern := range a.patterns {
		candidate, ok := fillPattern(pattern, string(id))
		if !ok {
			continue
		}
		if name == "" {
			name = candidate
		}
		if len(a.patterns) == 1 {
			break
		}
		if _, err := os.Stat(filepath.Join(a.file.Images, filepath.FromSlash(candidate))); err == nil {
			name = candidate
			break
		}
	}
	if name == "" {
		return "", fmt.Errorf("no file name can be made of the image id %.40q", id)
	}
	return relativeName(name, a.file.Images)
}

// pictureID is the id of an entry's picture; a listed picture, and Visual Genome's entries, call it id.
func (r *record) pictureID() []byte {
	if len(r.imageID) > 0 {
		return r.imageID
	}
	return r.id
}

// numericID is the integer at the end of the picture's id ("coco_123456"), or else of the file's stem, or else the
// position.
func numericID(r *record, name string, position int) int64 {
	stem := strings.TrimSuffix(path.Base(name), path.Ext(name))
	for _, s := range []string{string(r.pictureID()), stem} {
		if id, err := strconv.ParseInt(s[strings.LastIndexByte(s, '_')+1:], 10, 64); err == nil {
			return id
		}
	}
	return int64(position)
}

// question copies a row.
func (q *questionRow) question() Question {
	given := make([]string, len(q.answers))
	for i, a := range q.answers {
		given[i] = string(a)
	}
	all := Question{ID: string(q.id), Text: string(q.text), Answers: weighAnswers(given), Correct: -1}
	for _, c := range q.choices {
		all.Choices = append(all.Choices, string(c))
	}
	if 0 <= q.correct && q.correct < len(q.choices) {
		all.Correct = q.correct
		if len(all.Answers) == 0 {
			all.Answers = []Answer{{Text: all.Choices[q.correct], Weight: 1}}
		}
	}
	return all
}

// table says where the entries of every picture are, in offsets of the whole set.
type table struct {
	pictures int
	heads    packed // per picture 1 + offset of the entry that lists it, or 0; empty without such entries
	starts   packed // per picture its first ref, and one more; empty where every picture has one
	refs     packed // offsets of the entries with texts, picture after picture
	seconds  packed // per ref 1 + offset of the answers, or 0; empty without a file of answers
	counts   packed // texts per ref; empty where all have one
}

const (
	maxOffset   = 1 << 40 // 5 bytes
	maxTexts    = 1<<16 - 1
	maxPictures = 1<<32 - 2
)

// refsOf are the refs from ≤ r < to of picture i.
func (t *table) refsOf(i int) (from, to int) {
	if t.starts.n == 0 {
		return i, i + 1
	}
	return int(t.starts.at(i)), int(t.starts.at(i + 1))
}

// texts is the number of texts of picture i.
func (t *table) texts(i int) int {
	from, to := t.refsOf(i)
	if t.counts.n == 0 {
		return to - from
	}
	n := 0
	for r := from; r < to; r++ {
		n += int(t.counts.at(r))
	}
	return n
}

func (t *table) head(i int) uint64 {
	if t.heads.n == 0 {
		return 0
	}
	return t.heads.at(i)
}

func (t *table) second(ref int) uint64 {
	if t.seconds.n == 0 {
		return 0
	}
	return t.seconds.at(ref)
}
