package dataset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

// expected is what messages say an annotation file should be.
const expected = `expected COCO captions ({"images": [...], "annotations": [...]}) or a list of ` +
	`{"image": ..., "caption": ...}`

// readAnnotations reads and checks an annotation file. Errors name the file and the place in it.
func readAnnotations(file string) (*annotations, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("dataset: reading the annotation file: %w", err)
	}
	raw, err := parseAnnotations(data)
	if err != nil {
		return nil, fmt.Errorf("dataset: %s: %w", file, err)
	}
	return raw, nil
}

func parseAnnotations(data []byte) (*annotations, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	head := bytes.TrimLeft(data, " \t\r\n")
	switch {
	case len(head) == 0:
		return nil, errors.New("the file is empty; " + expected)
	case head[0] == '{':
		return parseCOCO(data)
	case head[0] == '[':
		return parseList(data)
	}
	for _, known := range []struct{ prefix, name string }{
		{"<", "an HTML or XML page (an error page saved by a download?)"},
		{"\x1f\x8b", "gzip-compressed (unpack it with gunzip)"},
		{"PK\x03\x04", "a zip archive (unpack it)"},
		{"version https://git-lfs", "a Git LFS pointer (fetch the file with git lfs pull)"},
	} {
		if bytes.HasPrefix(head, []byte(known.prefix)) {
			return nil, fmt.Errorf("the file is %s; %s", known.name, expected)
		}
	}
	return nil, fmt.Errorf("the file is not JSON (starts with %q); %s", head[:min(len(head), 16)], expected)
}

// scalar is a JSON string or number as written; ids occur as either.
type scalar string

// UnmarshalJSON takes strings and numbers.
func (s *scalar) UnmarshalJSON(data []byte) error {
	switch {
	case string(data) == "null":
		*s = ""
	case data[0] == '"':
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		*s = scalar(text)
	case data[0] == '-' || '0' <= data[0] && data[0] <= '9':
		*s = scalar(data)
	default:
		return fmt.Errorf("an id is %.20s; it must be a number or a string", data)
	}
	return nil
}

// texts is a caption or a list of captions.
type texts []string

// UnmarshalJSON takes a string or a list of strings.
func (t *texts) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*t = make(texts, 1)
		return json.Unmarshal(data, &(*t)[0])
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("a caption is %.20s…; it must be a string or a list of strings", data)
	}
	*t = list
	return nil
}

type cocoFile struct {
	Images []struct {
		ID        scalar `json:"id"`
		FileName  string `json:"file_name"`
		Split     string `json:"split"`
		License   scalar `json:"license"`
		FlickrURL string `json:"flickr_url"`
		COCOURL   string `json:"coco_url"`
	} `json:"images"`
	Annotations []struct {
		ImageID scalar  `json:"image_id"`
		Caption *string `json:"caption"`
	} `json:"annotations"`
	Licenses []struct {
		ID   scalar `json:"id"`
		Name string `json:"name"`
		URL  string `json:"url"`
	} `json:"licenses"`
}

func parseCOCO(data []byte) (*annotations, error) {
	var f cocoFile
	if err := unmarshal(data, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Images == nil:
		return nil, errors.New(`the object lacks "images"; ` + expected)
	case f.Annotations == nil:
		return nil, errors.New(`the object lacks "annotations"; ` + expected)
	}
	licenses := map[scalar]string{}
	for _, l := range f.Licenses {
		licenses[l.ID] = strings.TrimSpace(l.Name + " " + l.URL)
	}
	raw := &annotations{form: "images[%d]", images: make([]imageRow, len(f.Images)),
		captions: make([]captionRow, len(f.Annotations))}
	for i, img := range f.Images {
		id, err := strconv.ParseInt(string(img.ID), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("images[%d]: the id %q is not a whole number", i, img.ID)
		}
		url := img.FlickrURL
		if url == "" {
			url = img.COCOURL
		}
		raw.images[i] = imageRow{item: i, key: strconv.FormatInt(id, 10), id: id, file: img.FileName,
			split: img.Split, license: licenses[img.License], url: url}
	}
	for i, a := range f.Annotations {
		switch {
		case a.ImageID == "":
			return nil, fmt.Errorf(`annotations[%d] lacks "image_id"; %s`, i, expected)
		case a.Caption == nil:
			return nil, fmt.Errorf(`annotations[%d] lacks "caption": is this an annotation file for captions?`, i)
		}
		raw.captions[i] = captionRow{key: string(a.ImageID), text: *a.Caption}
	}
	return raw, nil
}

type listRow struct {
	Image    string `json:"image"`
	Caption  texts  `json:"caption"`
	Captions texts  `json:"captions"`
	ImageID  scalar `json:"image_id"`
	Split    string `json:"split"`
	License  scalar `json:"license"`
	URL      string `json:"url"`
}

func parseList(data []byte) (*annotations, error) {
	var rows []listRow
	if err := unmarshal(data, &rows); err != nil {
		return nil, err
	}
	raw := &annotations{form: "item %d of the list"}
	seen := map[string]bool{}
	for i := range rows {
		row := &rows[i]
		switch {
		case row.Image == "":
			return nil, fmt.Errorf(`item %d of the list lacks "image"; %s`, i, expected)
		case row.Caption == nil && row.Captions == nil:
			return nil, fmt.Errorf(`item %d of the list lacks "caption"; %s`, i, expected)
		}
		if !seen[row.Image] {
			seen[row.Image] = true
			raw.images = append(raw.images, imageRow{item: i, key: row.Image,
				id: listID(row, len(raw.images)), file: row.Image, split: row.Split, license: string(row.License),
				url: row.URL})
		}
		for _, text := range append(row.Caption, row.Captions...) {
			raw.captions = append(raw.captions, captionRow{key: row.Image, text: text})
		}
	}
	return raw, nil
}

// listID is the integer at the end of image_id ("coco_123456"), or else of the file's stem, or else the position.
func listID(row *listRow, position int) int64 {
	stem := strings.TrimSuffix(path.Base(row.Image), path.Ext(row.Image))
	for _, s := range []string{string(row.ImageID), stem} {
		if id, err := strconv.ParseInt(s[strings.LastIndexByte(s, '_')+1:], 10, 64); err == nil {
			return id
		}
	}
	return int64(position)
}

// unmarshal decodes JSON and says where and why it fails.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax) && syntax.Error() == "unexpected end of JSON input":
		return fmt.Errorf("the JSON ends too early, at byte %d (%s): the file is cut off", len(data),
			line(data, int64(len(data))))
	case errors.As(err, &syntax):
		return fmt.Errorf("broken JSON at byte %d (%s): %w", syntax.Offset, line(data, syntax.Offset), syntax)
	case errors.As(err, &kind):
		place := kind.Field
		if place == "" {
			place = "an item"
		}
		return fmt.Errorf("at byte %d (%s): %q is a %s, but should be %s; %s", kind.Offset, line(data, kind.Offset),
			place, kind.Value, jsonKind(kind.Type.Kind().String()), expected)
	}
	return fmt.Errorf("%w; %s", err, expected)
}

// jsonKind names a Go kind as JSON does.
func jsonKind(kind string) string {
	switch kind {
	case "struct", "map":
		return "an object"
	case "slice", "array":
		return "a list"
	}
	return "a " + kind
}

func line(data []byte, offset int64) string {
	before := data[:min(offset, int64(len(data)))]
	return fmt.Sprintf("line %d", bytes.Count(before, []byte("\n"))+1)
}
