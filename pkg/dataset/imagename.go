package dataset

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"blip2/pkg/internal/jsonscan"
)

// patternVerb is the place of the id in a file name.
var patternVerb = regexp.MustCompile(`%(0[1-9][0-9]?)?d|%s`)

func checkPattern(pattern string) error {
	if pattern == "" {
		return nil
	}
	if len(patternVerb.FindAllString(pattern, -1)) != 1 || strings.Count(pattern, "%") != 1 {
		return fmt.Errorf("dataset: the pattern %q of file names needs %%d, %%012d or the like, or %%s once, for the id",
			pattern)
	}
	return nil
}

// fillPattern puts an id into a pattern; a pattern with %d takes numbers alone.
func fillPattern(pattern, id string) (string, bool) {
	if strings.Contains(pattern, "%s") {
		return strings.Replace(pattern, "%s", id, 1), true
	}
	v, err := strconv.ParseInt(id, 10, 64)
	if err != nil || v < 0 {
		return "", false
	}
	return fmt.Sprintf(pattern, v), true
}

// usualPatterns are the names that the data sets of spec/data.md give their pictures, which their question files refer
// to by id. Pictures of one set may be in any of a group.
func usualPatterns() [][]string {
	return [][]string{
		{"%s.jpg"}, {"%s.png"}, {"%012d.jpg"}, {"images/%s.jpg"},
		{"COCO_train2014_%012d.jpg", "COCO_val2014_%012d.jpg", "COCO_test2015_%012d.jpg"},
		{"train2014/COCO_train2014_%012d.jpg", "val2014/COCO_val2014_%012d.jpg", "test2015/COCO_test2015_%012d.jpg"},
		{"train2017/%012d.jpg", "val2017/%012d.jpg", "test2017/%012d.jpg"},
		{"VG_100K/%s.jpg", "VG_100K_2/%s.jpg"},
		{"%s.jpeg"}, {"%s.webp"}, {"%s"},
	}
}

// imagesProbed is how many pictures are looked for when a source is opened: enough to notice a wrong folder without
// touching every file of a large set.
const imagesProbed = 64

// checkImages fails if none of the first pictures is where it should be. Single missing pictures are bad samples, which
// the loader counts. Where the file has ids alone, it finds out what the pictures are called.
func (a *Annotated) checkImages() error {
	var r reader
	var first string
	groups := usualPatterns()
	if a.file.ImageName != "" {
		groups = [][]string{{a.file.ImageName}}
	}
	hits := make([]int, len(groups))
	tried, byID, found := 0, false, false
	for i := range min(a.table.pictures, imagesProbed) {
		d, err := a.header(&r, i)
		if err != nil {
			return err
		}
		if d.parquet != nil && len(r.row) > 0 {
			return nil
		}
		tried++
		if name := r.name(); len(name) > 0 {
			local, err := relativeName(string(name), a.file.Images)
			if err != nil {
				return err
			}
			if i == 0 {
				first = local
			}
			found = found || a.exists(local)
			continue
		}
		byID = true
		if i == 0 {
			first = fmt.Sprintf("a picture with the id %s", r.pictureID())
		}
		for g, patterns := range groups {
			for _, pattern := range patterns {
				if name, ok := fillPattern(pattern, string(r.pictureID())); ok && a.exists(name) {
					hits[g]++
					break
				}
			}
		}
	}
	best := 0
	for g := range hits {
		if hits[g] > hits[best] {
			best = g
		}
	}
	if byID {
		a.patterns = groups[best]
	}
	if found || hits[best] > 0 {
		return nil
	}
	hint := ""
	if byID {
		hint = " or should their names be given (image_name)?"
	}
	return fmt.Errorf("dataset: %s: none of its pictures (%d tried) is in the folder %s: %s is missing; is this the "+
		"right folder?%s", a.file.Annotations, tried, a.file.Images, first, hint)
}

func (a *Annotated) exists(name string) bool {
	if _, err := relativeName(name, a.file.Images); err != nil {
		return false
	}
	_, err := os.Stat(filepath.Join(a.file.Images, filepath.FromSlash(name)))
	return err == nil
}

// parseLicense reads an element of an official file's "licenses".
func parseLicense(data []byte) (id, text string, err error) {
	var r record
	var name, url []byte
	s := jsonscan.New(data)
	err = s.Object(func(key []byte) (err error) {
		switch string(key) {
		case "id":
			var b []byte
			b, err = r.scalar(s, "id")
			id = string(b)
		case "name":
			name, err = r.text(s, "name")
		case "url":
			url, err = r.text(s, "url")
		default:
			err = s.Skip()
		}
		return err
	})
	if err != nil {
		err = scanReason(err)
	}
	return id, strings.TrimSpace(string(name) + " " + string(url)), err
}
