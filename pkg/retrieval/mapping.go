package retrieval

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"blip2/pkg/internal/jsonscan"
)

// Mapping says which texts belong to which image.
type Mapping struct {
	Img2Txt [][]int
	Texts   int
}

// Even is the mapping of images that have the same number of texts each, one image's after the other's.
func Even(images, texts int) (Mapping, error) {
	if images < 1 || texts < 1 || texts%images != 0 {
		return Mapping{}, fmt.Errorf("%d texts are not the same number for each of %d images", texts, images)
	}
	m := Mapping{Img2Txt: make([][]int, images), Texts: texts}
	for t := range texts {
		image := t / (texts / images)
		m.Img2Txt[image] = append(m.Img2Txt[image], t)
	}
	return m, nil
}

// maxMappingFile bounds what a file may hold, unpacked.
const maxMappingFile = 1 << 30

const expectedMapping = `{"img2txt": [[0, 1], [2], ...]}, {"txt2img": [0, 0, 1, ...]}, LAVIS's annotations ` +
	`([{"image": "a.jpg", "caption": ["...", "..."]}]) or COCO's ({"images": [...], "annotations": [...]})`

// ReadMapping reads which texts belong to which image: lists of numbers, or a file of captions, whose images and texts
// count in the order of the file. In COCO's layout an image without a caption counts too. The file may be compressed
// with gzip.
func ReadMapping(path string) (Mapping, error) {
	m, err := readMapping(path)
	if err != nil {
		return Mapping{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func readMapping(path string) (Mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return Mapping{}, fmt.Errorf("which texts belong to which image: %w", err)
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	head := make([]byte, 2)
	n, _ := io.ReadFull(f, head) // an error shows again below
	in := io.MultiReader(bytes.NewReader(head[:n]), f)
	if n == 2 && head[0] == 0x1f && head[1] == 0x8b {
		if in, err = gzip.NewReader(in); err != nil {
			return Mapping{}, fmt.Errorf("unpacking: %w", err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(in, maxMappingFile+1))
	if err != nil {
		return Mapping{}, fmt.Errorf("%w; is the file whole?", err)
	}
	if len(data) > maxMappingFile {
		return Mapping{}, fmt.Errorf("the file holds more than %d MiB; give the numbers as txt2img", maxMappingFile>>20)
	}
	return parseMapping(data)
}

func parseMapping(data []byte) (Mapping, error) {
	b := &mappingBuilder{images: map[string]int{}}
	s := jsonscan.New(data)
	var err error
	switch kind := s.Kind(); kind {
	case jsonscan.List:
		err = s.List(func(i int) error { return b.caption(s, fmt.Sprintf("item %d", i)) })
	case jsonscan.Object:
		err = s.Object(func(key []byte) error { return b.field(s, string(key)) })
	default:
		return Mapping{}, fmt.Errorf("the file is %s; expected %s", kind, expectedMapping)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return Mapping{}, err
	}
	return b.finish()
}

// mappingBuilder collects a mapping.
type mappingBuilder struct {
	given   [][]int  // img2txt as it stands in the file
	txt2img []int    // as it stands in the file
	owners  []string // images of the captions, in order
	images  map[string]int
}

// field reads a field of an object.
func (b *mappingBuilder) field(s *jsonscan.Scanner, key string) error {
	switch key {
	case "img2txt":
		b.given = nil
		return s.List(func(int) error {
			row, err := ints(s)
			b.given = append(b.given, row)
			return err
		})
	case "txt2img":
		row, err := ints(s)
		b.txt2img = row
		return err
	case "images":
		return s.List(func(i int) error { return b.image(s, fmt.Sprintf("images[%d]", i)) })
	case "annotations":
		return s.List(func(i int) error { return b.annotation(s, fmt.Sprintf("annotations[%d]", i)) })
	}
	return s.Skip()
}

// ints reads a list of whole numbers, or one number as a list of one.
func ints(s *jsonscan.Scanner) ([]int, error) {
	if s.Kind() == jsonscan.Number {
		n, err := s.Int()
		return []int{n}, err
	}
	row := []int{}
	err := s.List(func(int) error {
		n, err := s.Int()
		row = append(row, n)
		return err
	})
	return row, err
}

// image reads an image of COCO's layout.
func (b *mappingBuilder) image(s *jsonscan.Scanner, where string) error {
	id, err := field(s, where, "id")
	if err != nil {
		return err
	}
	if _, ok := b.images[id]; ok {
		return s.Errorf("%s: the id %s occurs twice", where, id)
	}
	b.images[id] = len(b.images)
	return nil
}

// annotation reads a caption of COCO's layout.
func (b *mappingBuilder) annotation(s *jsonscan.Scanner, where string) error {
	id, err := field(s, where, "image_id")
	b.owners = append(b.owners, id)
	return err
}

// field reads an object and returns a field that is a number or a string.
func field(s *jsonscan.Scanner, where, name string) (string, error) {
	if kind := s.Kind(); kind != jsonscan.Object {
		return "", s.Errorf("%s is %s; expected %s", where, kind, expectedMapping)
	}
	value := ""
	err := s.Object(func(key []byte) (err error) {
		if string(key) == name {
			value, err = scalar(s)
			return err
		}
		return s.Skip()
	})
	if err == nil && value == "" {
		err = s.Errorf("%s lacks %q; expected %s", where, name, expectedMapping)
	}
	return value, err
}

func scalar(s *jsonscan.Scanner) (string, error) {
	if s.Kind() == jsonscan.Number {
		n, err := s.Number()
		return string(n), err
	}
	text, err := s.Bytes()
	return string(text), err
}

// caption reads an item of LAVIS's annotations: an image with one caption or several.
func (b *mappingBuilder) caption(s *jsonscan.Scanner, where string) error {
	if kind := s.Kind(); kind != jsonscan.Object {
		return s.Errorf("%s is %s; expected %s", where, kind, expectedMapping)
	}
	image, texts := "", 0
	err := s.Object(func(key []byte) (err error) {
		switch string(key) {
		case "image":
			image, err = scalar(s)
			return err
		case "caption", "captions":
			if s.Kind() != jsonscan.List {
				texts++
				return s.Skip()
			}
			return s.List(func(int) error { texts++; return s.Skip() })
		}
		return s.Skip()
	})
	switch {
	case err != nil:
		return err
	case image == "":
		return s.Errorf(`%s lacks "image"; expected %s`, where, expectedMapping)
	}
	if _, ok := b.images[image]; !ok {
		b.images[image] = len(b.images)
	}
	for range texts {
		b.owners = append(b.owners, image)
	}
	return nil
}

// finish makes the mapping of what was found.
func (b *mappingBuilder) finish() (Mapping, error) {
	switch {
	case b.given != nil:
		return fromLists(b.given)
	case b.txt2img != nil:
		return fromImages(b.txt2img)
	case len(b.owners) == 0:
		return Mapping{}, errors.New("no texts are named; expected " + expectedMapping)
	}
	m := Mapping{Img2Txt: make([][]int, len(b.images)), Texts: len(b.owners)}
	for t, owner := range b.owners {
		image, ok := b.images[owner]
		if !ok {
			return Mapping{}, fmt.Errorf("annotations[%d]: there is no image %s in \"images\"", t, owner)
		}
		m.Img2Txt[image] = append(m.Img2Txt[image], t)
	}
	return m, nil
}

// fromLists takes the texts of every image.
func fromLists(img2txt [][]int) (Mapping, error) {
	m := Mapping{Img2Txt: img2txt}
	named := 0
	for image, own := range img2txt {
		named += len(own)
		for _, t := range own {
			if t < 0 {
				return Mapping{}, fmt.Errorf("img2txt[%d]: the text %d; texts are counted from 0", image, t)
			}
			m.Texts = max(m.Texts, t+1)
		}
	}
	if m.Texts == 0 || m.Texts > named {
		return Mapping{}, fmt.Errorf("img2txt names %d texts, but the highest is %d: texts are counted from 0 without gaps",
			named, m.Texts-1)
	}
	return m, nil
}

// fromImages takes the image of every text.
func fromImages(txt2img []int) (Mapping, error) {
	images := 0
	for t, image := range txt2img {
		if image < 0 || image >= len(txt2img) {
			return Mapping{}, fmt.Errorf("txt2img[%d]: the image %d; images are counted from 0 without gaps", t, image)
		}
		images = max(images, image+1)
	}
	if images == 0 {
		return Mapping{}, errors.New("txt2img is empty")
	}
	m := Mapping{Img2Txt: make([][]int, images), Texts: len(txt2img)}
	for t, image := range txt2img {
		m.Img2Txt[image] = append(m.Img2Txt[image], t)
	}
	return m, nil
}
