package caption

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

// entry is one picture or one caption of a file.
type entry struct {
	id     string // "" in plain lists, which have none
	texts  []string
	labels map[string]string // what else is said of the picture, such as its domain
}

// results reads candidates: the format of COCO, LAVIS's lists, {"id": "caption"}, or a plain list.
func (d *document) results() ([]entry, error) {
	if d.plainText() {
		var out []entry
		for _, line := range d.lines() {
			out = append(out, entry{texts: []string{line}})
		}
		return out, nil
	}
	elements, err := d.resultLines()
	if err != nil {
		return nil, err
	}
	if elements == nil && kindOf(d.data) == "an object" {
		return d.byID()
	}
	if elements == nil {
		if elements, err = d.list(d.data, ""); err != nil {
			return nil, err
		}
	}
	out := make([]entry, len(elements))
	for i, raw := range elements {
		place := fmt.Sprintf("entry %d", i)
		if kindOf(raw) == "a string" {
			s, err := d.text(raw, place)
			if err != nil {
				return nil, err
			}
			out[i] = entry{texts: []string{s}}
			continue
		}
		fields, err := d.object(raw, place)
		if err != nil {
			return nil, err
		}
		if out[i], err = d.result(fields, place); err != nil {
			return nil, err
		}
	}
	return out, mixed(d, out)
}

// result reads a caption with its picture's id, or a line of blip2 generate, whose file names end with the id.
func (d *document) result(fields map[string]json.RawMessage, place string) (e entry, err error) {
	caption := "caption"
	if fields["image_id"] == nil && kindOf(fields["image"]) == "a string" && fields["text"] != nil {
		caption = "text"
		var file string
		if file, err = d.text(fields["image"], place+": image"); err != nil {
			return e, err
		}
		e.id = idOfFile(file)
	} else if e.id, err = d.id(fields["image_id"], place+": image_id"); err != nil {
		return e, err
	}
	s, err := d.text(fields[caption], place+": "+caption)
	e.texts = []string{s}
	return e, err
}

// resultLines returns the objects of a file that has one for every caption without a list around them, line by line as
// a rule; nil for a file of any other form.
func (d *document) resultLines() ([]json.RawMessage, error) {
	if kindOf(d.data) != "an object" {
		return nil, nil
	}
	var lines []json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(d.data))
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && len(lines) == 0 {
			return nil, nil // whose reader says what is wrong
		}
		if err != nil {
			return nil, d.errorf("value %d: %w", len(lines), jsonError(d.data, err))
		}
		lines = append(lines, raw)
	}
	fields, err := d.object(lines[0], "")
	if err != nil {
		return nil, err
	}
	switch {
	case len(lines) == 1 && kindOf(firstOfList(fields["annotations"])) == "an object":
		return nil, d.errorf("these are annotations, not results: are the two files exchanged?")
	case len(lines) == 1 && kindOf(fields["image_id"]) == "nothing" && kindOf(fields["texts"]) != "a list":
		return nil, nil
	}
	return lines, nil
}

// firstOfList is the first element of a list, empty for anything else.
func firstOfList(raw []byte) []byte {
	if kindOf(raw) != "a list" {
		return nil
	}
	return firstOf(raw)
}

// mixed is an error if some entries have a picture's id and some have none.
func mixed(d *document, entries []entry) error {
	for i := range entries {
		if (entries[i].id == "") != (entries[0].id == "") {
			return d.errorf("entry %d: some entries are plain texts, some have a picture's id", i)
		}
	}
	return nil
}

// byID reads {"id": "text" or ["text", ...]} in the order of the file.
func (d *document) byID() ([]entry, error) {
	if _, err := d.object(d.data, ""); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(d.data))
	if _, err := dec.Token(); err != nil { // the object's brace
		return nil, d.errorf("%w", err)
	}
	var out []entry
	seen := map[string]bool{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, d.errorf("%w", err)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
			return nil, d.errorf("%w", err)
		}
		id, _ := name.(string)
		texts, err := d.texts(raw, fmt.Sprintf("%q", id))
		if err != nil {
			return nil, err
		}
		switch {
		case id == "":
			return nil, d.errorf("entry %d: a picture has the empty name", len(out))
		case seen[id]:
			return nil, d.errorf("entry %d: picture %q was there before", len(out), id)
		}
		seen[id] = true
		out = append(out, entry{id: id, texts: texts})
	}
	return out, nil
}

// annotated are the pictures of a file of annotations.
type annotated struct {
	pictures []entry
	notes    []string // what is odd about the file
}

// annotations reads references: the format of COCO and NoCaps, LAVIS's lists, {"id": ["caption", ...]}, or a plain
// list.
func (d *document) annotations() (*annotated, error) {
	if d.plainText() {
		a := &annotated{}
		for _, line := range d.lines() {
			a.pictures = append(a.pictures, entry{texts: strings.Split(line, "\t")})
		}
		return a, nil
	}
	if kindOf(d.data) == "an object" {
		fields, err := d.object(d.data, "")
		if err != nil {
			return nil, err
		}
		if raw, ok := fields["annotations"]; ok && kindOf(raw) == "a list" && kindOf(firstOf(raw)) != "a string" {
			return d.coco(fields)
		}
		if _, ok := fields["annotations"]; !ok && kindOf(firstOfList(fields["images"])) == "an object" {
			return nil, d.errorf("has images but no annotations with their captions: of Karpathy's and other formats take " +
				"the file that LAVIS or COCO made of it")
		}
		pictures, err := d.byID()
		return (&annotated{pictures: pictures}).merged(), err
	}
	elements, err := d.list(d.data, "")
	if err != nil {
		return nil, err
	}
	a := &annotated{pictures: make([]entry, len(elements))}
	for i, raw := range elements {
		if a.pictures[i], err = d.picture(raw, fmt.Sprintf("entry %d", i)); err != nil {
			return nil, err
		}
	}
	return a.merged(), mixed(d, a.pictures)
}

// firstOf is the first element of a list.
func firstOf(raw []byte) []byte {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return bytes.TrimLeft(raw[1:], " \t\r\n]")
}

// picture reads an element of a list: texts, or an object of LAVIS with image or image_id and caption.
func (d *document) picture(raw []byte, place string) (e entry, err error) {
	if kindOf(raw) != "an object" {
		e.texts, err = d.texts(raw, place)
		return e, err
	}
	fields, err := d.object(raw, place)
	if err != nil {
		return e, err
	}
	for _, name := range []string{"image_id", "img_id"} {
		if value, ok := fields[name]; ok {
			if e.id, err = d.id(value, place+": "+name); err != nil {
				return e, err
			}
			break
		}
	}
	if e.id == "" {
		file, err := d.text(fields["image"], place+": image_id, img_id or image")
		if err != nil {
			return e, err
		}
		e.id = idOfFile(file)
	}
	value, ok := fields["caption"]
	if !ok {
		return e, d.errorf("%s: caption is missing", place)
	}
	e.texts, err = d.texts(value, place+": caption")
	e.labels = labels(fields)
	return e, err
}

// idOfFile is the number that ends a file's name, as COCO's do; else the name.
func idOfFile(file string) string {
	name := strings.TrimSuffix(path.Base(file), path.Ext(file))
	digits := name[strings.LastIndexByte(name, '_')+1:]
	if n, err := strconv.ParseUint(digits, 10, 63); err == nil {
		return strconv.FormatUint(n, 10)
	}
	return file
}

// labels are the short strings said of a picture.
func labels(fields map[string]json.RawMessage) map[string]string {
	var out map[string]string
	for name, raw := range fields {
		var s string
		if len(raw) > 64 || kindOf(raw) != "a string" || json.Unmarshal(raw, &s) != nil {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = s
	}
	return out
}

// coco reads the format of COCO: pictures in images, their captions in annotations.
func (d *document) coco(fields map[string]json.RawMessage) (*annotated, error) {
	a, place := &annotated{}, map[string]int{}
	var repeated, unknown []string
	images := fields["images"]
	if images != nil {
		elements, err := d.list(images, "images")
		if err != nil {
			return nil, err
		}
		for i, raw := range elements {
			at := fmt.Sprintf("images[%d]", i)
			fields, err := d.object(raw, at)
			if err != nil {
				return nil, err
			}
			id, err := d.id(fields["id"], at+": id")
			if err != nil {
				return nil, err
			}
			if _, ok := place[id]; ok {
				repeated = append(repeated, id)
				continue
			}
			place[id] = len(a.pictures)
			a.pictures = append(a.pictures, entry{id: id, labels: labels(fields)})
		}
	}
	elements, err := d.list(fields["annotations"], "annotations")
	if err != nil {
		return nil, err
	}
	ids, twice := map[string]bool{}, []string{}
	for i, raw := range elements {
		at := fmt.Sprintf("annotations[%d]", i)
		fields, err := d.object(raw, at)
		if err != nil {
			return nil, err
		}
		id, err := d.id(fields["image_id"], at+": image_id")
		if err != nil {
			return nil, err
		}
		text, err := d.text(fields["caption"], at+": caption")
		if err != nil {
			return nil, err
		}
		if own := string(fields["id"]); own != "" && ids[own] {
			twice = append(twice, own)
		} else {
			ids[own] = true
		}
		k, ok := place[id]
		if !ok && images != nil {
			unknown = append(unknown, id)
			continue
		}
		if !ok {
			k = len(a.pictures)
			place[id] = k
			a.pictures = append(a.pictures, entry{id: id})
		}
		a.pictures[k].texts = append(a.pictures[k].texts, text)
	}
	a.note("%d pictures are in images twice; each counts once", repeated)
	a.note("%d annotations have an id that came before; all count", twice)
	a.note("%d annotations are of pictures that are not in images; they do not count", unknown)
	return a, nil
}

// note adds what is odd, if there is any, with examples.
func (a *annotated) note(format string, ids []string) {
	if len(ids) > 0 {
		a.notes = append(a.notes, fmt.Sprintf(format, len(ids))+examples(ids))
	}
}

// examples names a few of the ids.
func examples(ids []string) string {
	const most = 3
	if len(ids) <= most {
		return ": " + strings.Join(ids, ", ")
	}
	return ": " + strings.Join(ids[:most], ", ") + ", ..."
}

// merged joins entries of the same picture: LAVIS's lists may have one for every caption.
func (a *annotated) merged() *annotated {
	place, kept := map[string]int{}, a.pictures[:0]
	for _, e := range a.pictures {
		k, ok := place[e.id]
		if !ok || e.id == "" {
			place[e.id] = len(kept)
			kept = append(kept, e)
			continue
		}
		kept[k].texts = append(kept[k].texts, e.texts...)
	}
	a.pictures = kept
	return a
}
