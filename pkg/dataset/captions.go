package dataset

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// CaptionFile names an annotation file and the folder of its pictures.
type CaptionFile struct {
	Annotations string // COCO's captions json, or the list that LAVIS uses
	Images      string // folder to which the file names in Annotations are relative
	Split       string // only pictures whose "split" has this value; "" means all
	Name        string // what to call the set; "" means the name of the annotation file
}

// Captions is a Source read from an annotation file.
type Captions struct {
	file     CaptionFile
	examples []Example
	counts   CaptionCounts
}

// CaptionCounts says what was read and what was left out.
type CaptionCounts struct {
	Images, Captions int // kept
	OtherSplit       int // pictures of another split
	WithoutCaption   int // pictures that no usable caption belongs to
	EmptyCaptions    int // captions with nothing left after the caption processor
	UnknownImage     int // captions whose image_id is not listed among the images
}

// OpenCaptions reads an annotation file: either COCO's object with "images" (id, file_name) and "annotations"
// (image_id, caption), or LAVIS's list of {"image", "caption", "image_id"} with one row per caption or a list of
// captions per row. Optional fields of a picture: split, license (an id of the object's "licenses"), flickr_url,
// coco_url. Captions that the caption processor leaves empty are dropped and counted.
func OpenCaptions(file CaptionFile) (*Captions, error) {
	c := &Captions{file: file}
	if c.file.Name == "" {
		c.file.Name = filepath.Base(file.Annotations)
	}
	if err := checkFolder(file); err != nil {
		return nil, err
	}
	raw, err := readAnnotations(file.Annotations)
	if err != nil {
		return nil, err
	}
	if err := c.collect(raw); err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", file.Annotations, err)
	}
	if err := c.checkImages(); err != nil {
		return nil, err
	}
	return c, nil
}

func checkFolder(file CaptionFile) error {
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

// collect turns what the annotation file lists into examples in the order of the file.
func (c *Captions) collect(raw *annotations) error {
	index := make(map[string]int, len(raw.images)) // example by image key; −1 for another split
	for i := range raw.images {
		img := &raw.images[i]
		if _, seen := index[img.key]; seen {
			return fmt.Errorf(raw.form+": the image id %s occurs twice", img.item, img.key)
		}
		if c.file.Split != "" && img.split != c.file.Split {
			index[img.key] = -1
			c.counts.OtherSplit++
			continue
		}
		if err := checkName(img.file); err != nil {
			return fmt.Errorf(raw.form+": %w", img.item, err)
		}
		index[img.key] = len(c.examples)
		c.examples = append(c.examples, Example{
			Key: img.file, ImagePath: filepath.Join(c.file.Images, filepath.FromSlash(img.file)), ImageID: img.id,
			License: img.license, URL: img.url,
		})
	}
	var processor CaptionProcessor
	for i := range raw.captions {
		caption := &raw.captions[i]
		at, known := index[caption.key]
		switch {
		case !known:
			c.counts.UnknownImage++
		case at < 0:
		case processor.Process(caption.text) == "":
			c.counts.EmptyCaptions++
		default:
			e := &c.examples[at]
			e.Captions = append(e.Captions, caption.text)
			c.counts.Captions++
		}
	}
	listed := len(c.examples)
	c.examples = slices.DeleteFunc(c.examples, func(e Example) bool { return len(e.Captions) == 0 })
	c.counts.Images, c.counts.WithoutCaption = len(c.examples), listed-len(c.examples)
	if len(c.examples) == 0 {
		return c.emptyError(len(raw.images), len(raw.captions), raw.splits())
	}
	return nil
}

func (c *Captions) emptyError(images, captions int, splits []string) error {
	switch {
	case images == 0:
		return errors.New("the data set is empty: no images are listed")
	case c.file.Split != "" && c.counts.OtherSplit == images:
		if len(splits) == 0 {
			return fmt.Errorf("no image has the split %q: the file has no split field; leave split empty", c.file.Split)
		}
		return fmt.Errorf("no image has the split %q; the file has %s", c.file.Split, strings.Join(splits, ", "))
	case captions == 0:
		return fmt.Errorf("the data set is empty: %d images are listed, but no captions", images)
	}
	return fmt.Errorf("the data set is empty: none of the %d captions can be used (%d empty, %d of images not listed)",
		captions, c.counts.EmptyCaptions, c.counts.UnknownImage)
}

// checkName refuses file names that leave the image folder. Symbolic links inside the folder are the owner's business
// and are followed.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the image has no file name")
	case strings.ContainsRune(name, 0):
		return fmt.Errorf("the file name %q contains a zero byte", name)
	case !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) == ".":
		return fmt.Errorf("the file name %q leaves the image folder; names must be relative to it, "+
			"without \"..\"", name)
	}
	return nil
}

// imagesProbed is how many pictures are looked for when a source is opened: enough to notice a wrong folder without
// touching every file of a large set.
const imagesProbed = 64

// checkImages fails if none of the first pictures is where it should be. Single missing pictures are bad samples, which
// the loader counts.
func (c *Captions) checkImages() error {
	probe := c.examples[:min(len(c.examples), imagesProbed)]
	for i := range probe {
		if _, err := os.Stat(probe[i].ImagePath); err == nil {
			return nil
		}
	}
	return fmt.Errorf("dataset: %s: none of its pictures (%d tried) is in the folder %s: %s is missing; is this the "+
		"right folder?", c.file.Annotations, len(probe), c.file.Images, probe[0].Key)
}

// Name is the name of the set.
func (c *Captions) Name() string { return c.file.Name }

// Len is the number of pictures with at least one caption.
func (c *Captions) Len() int { return len(c.examples) }

// Example is picture i in the order of the annotation file.
func (c *Captions) Example(i int) (Example, error) { return c.examples[i], nil }

// Texts is the number of captions of picture i.
func (c *Captions) Texts(i int) int { return len(c.examples[i].Captions) }

// Counts says what was read and left out.
func (c *Captions) Counts() CaptionCounts { return c.counts }

// Open opens the encoded picture i.
func (c *Captions) Open(i int) (io.ReadCloser, error) {
	f, err := os.Open(c.examples[i].ImagePath)
	if err != nil {
		return nil, fmt.Errorf("opening the picture: %w", err)
	}
	return f, nil
}

// annotations is the content of an annotation file, whatever its form.
type annotations struct {
	form     string // how messages name a position among the images
	images   []imageRow
	captions []captionRow
}

type imageRow struct {
	item    int    // position in the file, for messages
	key     string // what captions refer to
	id      int64
	file    string
	split   string
	license string
	url     string
}

type captionRow struct{ key, text string }

// splits are the values of the split field, sorted and quoted.
func (a *annotations) splits() []string {
	var all []string
	for i := range a.images {
		if s := a.images[i].split; s != "" && !slices.Contains(all, strconv.Quote(s)) {
			all = append(all, strconv.Quote(s))
		}
	}
	slices.SortFunc(all, cmp.Compare)
	return all
}
