package caption

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Set is the pictures to score.
type Set struct {
	// Items are the pictures that have a result and a reference, in the order of the annotations.
	Items []Item
	// Labels has, per item, what the annotations say of the picture in short strings, such as its domain.
	Labels []map[string]string
	// Pictures is the number of pictures in the annotations, References that of their references.
	Pictures, References int
	// Warnings are what may make the scores other than expected.
	Warnings []string
}

// Read reads results and annotations. Results are in the format of COCO or a list of LAVIS (image_id, caption), an
// object {"id": "caption"}, or a plain list (JSON, or a text file of one caption a line), whose order must be that of
// the annotations. Annotations are in the format of COCO or NoCaps, a list of LAVIS (image, caption), an object
// {"id": ["caption", ...]}, or a plain list of references (JSON, or a text file with a line per picture and tabs
// between references). An error names the file and the place in it.
//
// Pictures without a result are left out and superfluous results are ignored, both with a warning; of two results of a
// picture the first counts, as in LAVIS.
func Read(resultsPath, annotationsPath string) (*Set, error) {
	resultsFile, err := open(resultsPath)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	annotationsFile, err := open(annotationsPath)
	if err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	return newSet(resultsFile, annotationsFile)
}

// newSet makes the set of two files.
func newSet(resultsFile, annotationsFile *document) (*Set, error) {
	results, err := resultsFile.results()
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	a, err := annotationsFile.annotations()
	if err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	switch {
	case len(a.pictures) == 0:
		return nil, annotationsFile.errorf("there are no pictures in it")
	case len(results) == 0:
		return nil, resultsFile.errorf("there are no captions in it")
	}
	set := &Set{Pictures: len(a.pictures), Warnings: a.notes}
	for _, p := range a.pictures {
		set.References += len(p.texts)
	}
	if err := set.match(resultsFile, results, annotationsFile, a.pictures); err != nil {
		return nil, err
	}
	if len(set.Items) == 0 {
		return nil, fmt.Errorf("no picture of %s has a result in %s: do the files belong together?",
			annotationsFile.path, resultsFile.path)
	}
	set.expect(filepath.Base(annotationsFile.path))
	return set, nil
}

// match joins results and pictures.
func (s *Set) match(resultsFile *document, results []entry, annotationsFile *document, pictures []entry) error {
	plain := results[0].id == ""
	switch {
	case plain && len(results) != len(pictures):
		return resultsFile.errorf("%d captions without ids, but %s has %d pictures", len(results), annotationsFile.path,
			len(pictures))
	case !plain && pictures[0].id == "":
		return annotationsFile.errorf("the pictures have no ids, but the results of %s have", resultsFile.path)
	}
	candidates, repeated, known := map[string]string{}, []string{}, map[string]bool{}
	for i, r := range results {
		if len(r.texts) != 1 {
			return resultsFile.errorf("picture %s has %d captions, want 1", r.id, len(r.texts))
		}
		if plain {
			r.id = fmt.Sprint(i)
		}
		if _, ok := candidates[r.id]; ok {
			repeated = append(repeated, r.id)
			continue
		}
		candidates[r.id] = r.texts[0]
	}
	var missing, bare, superfluous []string
	for i, p := range pictures {
		id := p.id
		if plain {
			id = fmt.Sprint(i)
		}
		known[id] = true
		text, ok := candidates[id]
		switch {
		case !ok:
			missing = append(missing, id)
			continue
		case len(p.texts) == 0:
			bare = append(bare, id)
			continue
		}
		if p.id != "" {
			id = p.id
		}
		s.Items = append(s.Items, Item{ID: id, Candidate: text, References: p.texts})
		s.Labels = append(s.Labels, p.labels)
	}
	for _, r := range results {
		if !plain && !known[r.id] {
			superfluous = append(superfluous, r.id)
		}
	}
	s.warn(missing, "%d of %d pictures have no result and are left out", len(missing), len(pictures))
	s.warn(bare, "%d pictures have no reference and are left out", len(bare))
	s.warn(superfluous, "%d results are of pictures that the annotations do not have; they do not count", len(superfluous))
	s.warn(repeated, "%d results are of a picture that had one before; the first counts", len(repeated))
	return nil
}

// warn adds a warning about pictures, if there are any.
func (s *Set) warn(ids []string, format string, args ...any) {
	if len(ids) > 0 {
		s.Warnings = append(s.Warnings, fmt.Sprintf(format, args...)+examples(ids))
	}
}

// CheckTokens adds a warning for candidates of which tokenisation leaves nothing, and for pictures all of whose
// references are so.
func (s *Set) CheckTokens(images []Image) {
	var empty, bare []string
	for i, im := range images {
		if im.Candidate == "" {
			empty = append(empty, s.Items[i].ID)
		}
		if strings.Join(im.References, "") == "" {
			bare = append(bare, s.Items[i].ID)
		}
	}
	s.warn(empty, "%d captions have no word", len(empty))
	s.warn(bare, "%d pictures have references without a word only", len(bare))
}

// Expected is the size of a split that results are reported on.
type Expected struct {
	Name                 string
	Pictures, References int
}

// ExpectedSplits are the splits that papers report on.
func ExpectedSplits() []Expected {
	return []Expected{
		{"karpathy-test", 5_000, 25_010},
		{"karpathy-val", 5_000, 25_010},
		{"coco-val2014", 40_504, 202_654},
		{"coco-val2017", 5_000, 25_014},
		{"nocaps-val", 4_500, 45_000},
		{"flickr30k-test", 1_000, 5_000},
	}
}

// expect warns if the file's name is that of a known split and its size is not.
func (s *Set) expect(file string) {
	name := strings.ToLower(strings.ReplaceAll(file, "_", "-"))
	name = strings.Replace(name, "captions-val", "coco-val", 1)
	for _, e := range ExpectedSplits() {
		if strings.Contains(name, e.Name) {
			s.Expect(e)
		}
	}
}

// Expect warns if the annotations are not of the size of a split. A split without references (0) may have any number.
func (s *Set) Expect(e Expected) {
	var warning string
	switch {
	case s.Pictures != e.Pictures:
		warning = fmt.Sprintf("the annotations have %d pictures; %s has %d", s.Pictures, e.Name, e.Pictures)
	case e.References > 0 && s.References != e.References:
		warning = fmt.Sprintf("the annotations have %d references; %s has %d", s.References, e.Name, e.References)
	}
	for _, w := range s.Warnings {
		if w == warning {
			return
		}
	}
	if warning != "" {
		s.Warnings = append(s.Warnings, warning)
	}
}

// ReadReferences reads a file of annotations as Read does, without results: the candidates are empty.
func ReadReferences(path string) ([]Item, error) {
	d, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	a, err := d.annotations()
	if err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	if len(a.pictures) == 0 {
		return nil, d.errorf("there are no pictures in it")
	}
	items := make([]Item, len(a.pictures))
	for i, p := range a.pictures {
		items[i] = Item{ID: p.id, References: p.texts}
	}
	return items, nil
}
