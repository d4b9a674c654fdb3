package dataset

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// collector goes through the annotation files and fills the table.
type collector struct {
	a   *Annotated
	doc *document
	r   record

	names *keyTable // pictures by file name, or by id where entries have no name
	ids   *keyTable // pictures that the file lists, by id
	asked *keyTable // answers by question id
	found packed    // their offsets

	heads, refs, pics, seconds, counts packed
	first                              packed // per picture a place where its name is found: 1 + offset
	pictures                           int
	listed, other                      int    // pictures listed, and those of them of another split
	sorted, single                     bool   // refs stand in the order of pictures; all have one text
	lastPic                            uint64 // of the refs
	hasSeconds, hasHeads               bool

	sections map[string]bool // lists at the top level of the present document
	seen     []string        // values of split
	entries  int             // entries with texts, wanted or not
	buf      reader
	split    []byte
}

// errNotWanted marks listed pictures of another split in ids.
const notWanted = maxPictures

// collect reads all documents. The places of entries are kept, the entries are not.
func (a *Annotated) collect() error {
	c := &collector{a: a, sorted: true, single: true,
		heads: packed{width: 5}, refs: packed{width: 5}, pics: packed{width: 4}, seconds: packed{width: 5},
		counts: packed{width: 2}, first: packed{width: 5}, found: packed{width: 5}}
	c.names = newKeyTable(c.sameName)
	c.asked = newKeyTable(c.sameQuestion)
	c.ids = newKeyTable(c.sameID)
	if a.file.Questions != "" {
		for _, d := range a.docs[:len(a.docs)-1] {
			if err := c.answers(d); err != nil {
				return err
			}
		}
		a.docs[len(a.docs)-1].format = orJSON(a.docs[len(a.docs)-1].format)
	}
	for i, d := range a.docs {
		if a.file.Questions != "" && i < len(a.docs)-1 {
			continue
		}
		if err := c.document(d); err != nil {
			return err
		}
	}
	if err := c.finish(); err != nil {
		return fmt.Errorf("dataset: %s: %w", a.file.Annotations, err)
	}
	return nil
}

func orJSON(f Format) Format {
	if f == FormatAuto {
		return FormatJSON
	}
	return f
}

// document reads one document: pictures that it lists first, then its texts.
func (c *collector) document(d *document) error {
	c.doc, c.sections = d, map[string]bool{}
	if d.format == FormatJSON {
		if err := d.scan(c.guard(c.listing)); err != nil {
			return d.readError(err)
		}
		if err := c.checkSections(); err != nil {
			return fmt.Errorf("dataset: %s: %w", d.path, err)
		}
	}
	if err := d.scan(c.guard(c.entry)); err != nil {
		return d.readError(err)
	}
	return nil
}

// guard adds the place to a visitor's errors.
func (c *collector) guard(visit func(*item) error) func(*item) error {
	return func(it *item) error {
		if err := visit(it); err != nil {
			return c.doc.fail(it, err)
		}
		return nil
	}
}

// official are the lists of official files; any other object is one of entries by their ids.
func official(section string) bool {
	switch section {
	case "images", "annotations", "questions", "licenses":
		return true
	}
	return false
}

// listing reads images and licences at the top level of an official file.
func (c *collector) listing(it *item) error {
	if it.single {
		if it.data == nil {
			c.sections[it.section] = true
		}
		return nil
	}
	switch it.section {
	case "licenses":
		return c.license(it)
	case "images":
	default:
		return nil
	}
	if err := c.doc.parse(&c.r, it.data); err != nil {
		return err
	}
	if c.r.hasCaptions || c.r.hasQuestion {
		return nil // Karpathy's images have their sentences with them: they are entries
	}
	c.listed++
	id := c.r.pictureID()
	if _, ok := wholeNumber(id); !ok {
		return fmt.Errorf("the id %q is not a whole number", id)
	}
	if _, known, _ := c.ids.find(id); known { // a whole number is found without reading
		return fmt.Errorf("the image id %s occurs twice", id)
	}
	if !c.wanted(c.r.split) {
		c.other++
		c.a.counts.OtherSplit++
		c.ids.add(id, notWanted)
		return nil
	}
	if len(c.r.name()) > 0 {
		if _, err := relativeName(string(c.r.name()), c.a.file.Images); err != nil {
			return err
		}
	}
	c.hasHeads = true
	c.ids.add(id, c.pictures)
	return c.picture(1 + uint64(c.doc.base+it.offset))
}

// picture makes a new picture whose entry is at head−1, or which has none of its own.
func (c *collector) picture(head uint64) error {
	if c.pictures >= maxPictures-1 {
		return fmt.Errorf("more than %d pictures", maxPictures-1)
	}
	c.heads.append(head)
	c.first.append(head)
	c.pictures++
	return nil
}

// maxLicenses bounds what is kept of an official file's licences.
const maxLicenses = 1000

func (c *collector) license(it *item) error {
	id, text, err := parseLicense(it.data)
	if err == nil && len(c.a.licenses) < maxLicenses && len(text) < 4096 {
		c.a.licenses[id] = text
	}
	return err
}

// wanted says whether entries of a split are asked for, and remembers the splits there are.
func (c *collector) wanted(split []byte) bool {
	if c.a.splits == nil {
		return true
	}
	want := false
	for _, s := range c.a.splits {
		want = want || s == string(split)
	}
	if len(split) > 0 && len(c.seen) < 20 {
		quoted := strconv.Quote(string(split))
		for _, s := range c.seen {
			if s == quoted {
				return want
			}
		}
		c.seen = append(c.seen, quoted)
	}
	return want
}

// checkSections refuses objects that are official files in part.
func (c *collector) checkSections() error {
	s := c.sections
	switch {
	case s["annotations"] && !s["images"] && !s["questions"]:
		return errors.New(`the object lacks "images"; ` + expected +
			" (of official VQA files name both: annotations and questions)")
	case s["images"] && !s["annotations"] && !s["questions"] && c.listed > 0 && !c.a.file.Bare:
		return errors.New(`the object lacks "annotations"; ` + expected)
	}
	return nil
}

// entry reads one entry with texts.
func (c *collector) entry(it *item) error {
	if it.single && (it.data == nil || official(it.section)) {
		return nil
	}
	isOfficial := c.sections["images"] || c.sections["annotations"] || c.sections["questions"]
	switch {
	case it.single && (isOfficial || !isNested(it.data)):
		return nil // info, data_type and the like
	case it.section == "licenses", it.section == "images" && c.listed > 0:
		return nil
	case it.section != "" && !it.single && !official(it.section) && isOfficial:
		return nil
	}
	if err := c.doc.parse(&c.r, it.data); err != nil {
		return err
	}
	if len(c.r.split) == 0 && it.section != "data" && !it.single && !isOfficial {
		c.split = append(c.split[:0], it.section...) // an object of lists, one per split
		c.r.split = c.split
	}
	c.entries++
	if err := c.checkEntry(it); err != nil {
		return err
	}
	pic, keep, err := c.pictureOf(it)
	if err != nil || !keep {
		return err
	}
	return c.keep(it, pic)
}

// isNested says whether what follows a name is an object or a list.
func isNested(data []byte) bool {
	_, value, err := splitName(data)
	if err != nil {
		return false
	}
	value = []byte(strings.TrimLeft(string(value[:min(len(value), 16)]), " \t\r\n"))
	return len(value) > 0 && (value[0] == '{' || value[0] == '[')
}

// checkEntry refuses entries that are not what the file seems to be.
func (c *collector) checkEntry(it *item) error {
	r := &c.r
	switch {
	case it.section == "annotations" && c.sections["images"] && len(r.imageID) == 0:
		return fmt.Errorf(`it lacks "image_id"; %s`, expected)
	case it.section == "annotations" && len(r.questions) > 0 && !r.hasQuestion:
		return errors.New("it is an answer without a question: name the file of the questions too (questions)")
	case it.section == "annotations" && !r.hasCaptions && !r.hasQuestion:
		return errors.New(`it lacks "caption": is this an annotation file for captions?`)
	case it.section == "questions" && !r.hasQuestion:
		return errors.New(`it lacks "question"`)
	case it.section != "annotations" && len(r.row) == 0 && len(r.name()) == 0 && len(r.pictureID()) == 0:
		return fmt.Errorf(`it lacks "image"; %s`, expected)
	case !r.hasCaptions && !r.hasQuestion && !c.a.file.Bare:
		return fmt.Errorf(`it lacks "caption"; %s`, expected)
	case r.texts() > maxTexts:
		return fmt.Errorf("it has %d texts; %d is the limit", r.texts(), maxTexts)
	}
	return nil
}

// pictureOf finds the picture of the entry in c.r, or makes it. keep is false where the entry is not wanted.
func (c *collector) pictureOf(it *item) (pic int, keep bool, err error) {
	r := &c.r
	if len(c.ids.numbers.keys) > 0 && len(r.name()) == 0 {
		id, known, err := c.ids.find(r.pictureID())
		switch {
		case err != nil:
			return 0, false, err
		case !known:
			c.a.counts.UnknownImage++
			return 0, false, nil
		}
		return id, id != notWanted && (len(r.split) == 0 || c.wanted(r.split)), nil
	}
	if !c.wanted(r.split) {
		c.a.counts.OtherSplit++
		return 0, false, nil
	}
	c.a.counts.EmptyTexts += r.usable()
	if r.texts() == 0 && !c.a.file.Bare {
		c.a.counts.WithoutText++
		return 0, false, nil
	}
	here := 1 + uint64(c.doc.base+it.offset)
	if len(r.row) > 0 {
		pic = c.pictures // every row of a Parquet file has its own picture
		return pic, true, c.picture(0)
	}
	key := r.name()
	if len(key) == 0 {
		key = r.pictureID()
	} else if _, err := relativeName(string(key), c.a.file.Images); err != nil {
		return 0, false, err
	}
	pic, known, err := c.names.find(key)
	if err != nil || known {
		return pic, known, err
	}
	c.names.add(key, c.pictures)
	pic = c.pictures
	if err := c.picture(0); err != nil {
		return 0, false, err
	}
	c.first.set(pic, here)
	return pic, true, nil
}

// keep notes the place of the entry in c.r.
func (c *collector) keep(it *item, pic int) error {
	r := &c.r
	c.a.counts.EmptyTexts += r.usable()
	n := r.texts()
	if n == 0 && !c.a.file.Bare {
		return nil
	}
	second, err := c.answerOf(r)
	if err != nil {
		return err
	}
	c.a.counts.Captions += len(r.captions)
	c.a.counts.Questions += len(r.questions)
	for i := range r.questions {
		q := &r.questions[i]
		if second == 0 && len(q.answers) == 0 && q.correct < 0 {
			c.a.counts.Withheld++
		}
	}
	c.sorted = c.sorted && uint64(pic) >= c.lastPic
	c.single = c.single && n == 1
	c.hasSeconds = c.hasSeconds || second > 0
	c.lastPic = uint64(pic)
	c.pics.append(uint64(pic))
	c.refs.append(uint64(c.doc.base + it.offset))
	if c.a.file.Questions != "" {
		c.seconds.append(second)
	}
	c.counts.append(uint64(n))
	return nil
}

// answers notes where the answers of a document are, by question.
func (c *collector) answers(d *document) error {
	c.doc, c.sections = d, map[string]bool{}
	err := d.scan(c.guard(func(it *item) error {
		if it.single || it.section != "annotations" && it.section != "" {
			return nil
		}
		if err := d.parse(&c.r, it.data); err != nil {
			return err
		}
		if len(c.r.questions) != 1 || len(c.r.questions[0].id) == 0 || !c.r.questions[0].hasAnswer {
			return errors.New(`it lacks "question_id" or "answers": are these the annotations of the questions?`)
		}
		id := c.r.questions[0].id
		if _, known, err := c.asked.find(id); err != nil {
			return err
		} else if known {
			return fmt.Errorf("the question id %s occurs twice", id)
		}
		c.asked.add(id, c.found.n)
		c.found.append(uint64(d.base + it.offset))
		return nil
	}))
	if err != nil {
		return d.readError(err)
	}
	return nil
}

// answerOf is 1 + the offset of the answers to the question in r, or 0.
func (c *collector) answerOf(r *record) (uint64, error) {
	if c.found.n == 0 || len(r.questions) != 1 || len(r.questions[0].id) == 0 {
		return 0, nil
	}
	number, known, err := c.asked.find(r.questions[0].id)
	if err != nil || !known {
		return 0, err
	}
	return 1 + c.found.at(number), nil
}

// sameName says whether a picture has the file name or id, by reading the entry where it was met first.
func (c *collector) sameName(pic int, key []byte) (bool, error) {
	if c.first.at(pic) == 0 {
		return false, nil
	}
	if _, err := c.a.readAt(&c.buf, c.first.at(pic)-1); err != nil {
		return false, err
	}
	name := c.buf.name()
	if len(name) == 0 {
		name = c.buf.pictureID()
	}
	return string(name) == string(key), nil
}

func (c *collector) sameQuestion(number int, key []byte) (bool, error) {
	if _, err := c.a.readAt(&c.buf, c.found.at(number)); err != nil {
		return false, err
	}
	return len(c.buf.questions) > 0 && string(c.buf.questions[0].id) == string(key), nil
}

// sameID is never asked: listed pictures have whole numbers.
func (c *collector) sameID(int, []byte) (bool, error) { return false, nil }

// finish sorts the entries by picture, leaves out listed pictures that have none, and drops what all have alike.
func (c *collector) finish() error {
	perPicture := zeros(4, c.pictures+1)
	for i := range c.pics.n {
		pic := int(c.pics.at(i))
		perPicture.set(pic, perPicture.at(pic)+1)
	}
	t := &c.a.table
	kept, several := 0, false
	starts, heads := packed{width: 4}, packed{width: 5}
	total := uint64(0)
	for pic := range c.pictures {
		n := perPicture.at(pic)
		perPicture.set(pic, total) // from here on: where the picture's refs start
		if n == 0 && !c.a.file.Bare {
			c.a.counts.WithoutText++
			continue
		}
		several = several || n != 1
		starts.append(total)
		if c.hasHeads {
			heads.append(c.heads.at(pic))
		}
		total += n
		kept++
	}
	starts.append(total)
	t.pictures, t.heads = kept, heads
	c.a.counts.Images = kept
	if several {
		t.starts = starts
	}
	c.order(perPicture)
	if kept == 0 {
		return c.emptyError()
	}
	return nil
}

// order puts refs, answers and counts in the order of pictures.
func (c *collector) order(next packed) {
	t := &c.a.table
	t.refs = c.refs
	if c.hasSeconds {
		t.seconds = c.seconds
	}
	if !c.single {
		t.counts = c.counts
	}
	if c.sorted {
		return
	}
	for _, list := range []*packed{&t.refs, &t.seconds, &t.counts} {
		if list.n == 0 {
			continue
		}
		at, sorted := zeros(4, next.n), zeros(list.width, list.n)
		for i := range c.pics.n {
			pic := int(c.pics.at(i))
			sorted.set(int(next.at(pic)+at.at(pic)), list.at(i))
			at.set(pic, at.at(pic)+1)
		}
		*list = sorted
	}
}

func (c *collector) emptyError() error {
	counts := &c.a.counts
	switch {
	case c.a.splits != nil && counts.OtherSplit > 0 && counts.OtherSplit == max(c.listed, 1) ||
		c.a.splits != nil && c.listed == 0 && counts.OtherSplit > 0:
		if len(c.seen) == 0 {
			return fmt.Errorf("no image has the split %q: the file has no split field; leave split empty", c.a.file.Split)
		}
		return fmt.Errorf("no image has the split %q; the file has %s", c.a.file.Split, strings.Join(c.seen, ", "))
	case c.listed == 0 && c.entries == 0:
		return errors.New("the data set is empty: no images are listed")
	case c.entries == 0:
		return fmt.Errorf("the data set is empty: %d images are listed, but no captions", c.listed)
	}
	return fmt.Errorf("the data set is empty: none of the %d entries can be used (%d empty texts, %d of images not "+
		"listed)", c.entries, counts.EmptyTexts, counts.UnknownImage)
}
