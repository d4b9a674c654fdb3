//go:build ignore

// Quickstart-data makes data/quickstart: the pictures of a COCO subset that are free to share, their captions split
// into train and heldout, an attribution table, and a WordPiece vocabulary reduced to the words of COCO captions.
// The same sources give the same files.
//
//	go run scripts/quickstart-data.go -coco ../shared/data/coco-mini \
//	    -vocab ../shared/data/tokenizers/bert-base-uncased/vocab.txt \
//	    -count ../shared/data/coco-eval/coco_karpathy_val.json -out data/quickstart
package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"blip2/pkg/dataset"
	"blip2/pkg/tokenizer"
)

// heldout is the number of pictures that are not trained on.
const heldout = 18

// minCount is how often a piece must occur in the counted captions to stay in the vocabulary.
const minCount = 3

type options struct{ coco, vocab, count, out string }

func main() {
	var o options
	flag.StringVar(&o.coco, "coco", "", "folder with captions.json (COCO format, licences included) and images/")
	flag.StringVar(&o.vocab, "vocab", "", "vocab.txt of bert-base-uncased")
	flag.StringVar(&o.count, "count", "", "captions whose word pieces are counted: a list of {image, caption: [...]}")
	flag.StringVar(&o.out, "out", "data/quickstart", "folder to write")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart-data:", err)
		os.Exit(1)
	}
}

func run(o options, out io.Writer) error {
	if err := os.MkdirAll(filepath.Join(o.out, "images"), 0o755); err != nil {
		return err
	}
	c, err := readCOCO(filepath.Join(o.coco, "captions.json"))
	if err != nil {
		return err
	}
	c.keepOpen()
	c.split()
	total := 0
	for _, img := range c.Images {
		data, err := os.ReadFile(filepath.Join(o.coco, "images", img.FileName))
		if err != nil {
			return err
		}
		total += len(data)
		if err := os.WriteFile(filepath.Join(o.out, "images", img.FileName), data, 0o644); err != nil {
			return err
		}
	}
	if err := writeJSON(filepath.Join(o.out, "captions.json"), c); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "ATTRIBUTION.md"), c.attribution(), 0o644); err != nil {
		return err
	}
	pieces, err := reduce(o.vocab, o.count)
	if err != nil {
		return err
	}
	vocab := strings.Join(pieces, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(o.out, "vocab.txt"), []byte(vocab), 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d pictures (%d bytes), %d captions, %d pieces in the vocabulary\n", len(c.Images),
		total, len(c.Annotations), len(pieces))
	return err
}

type coco struct {
	Info        map[string]string `json:"info"`
	Licenses    []license         `json:"licenses"`
	Images      []picture         `json:"images"`
	Annotations []annotation      `json:"annotations"`
}

type license struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	URL  string `json:"url"`
}

type picture struct {
	ID        int64  `json:"id"`
	FileName  string `json:"file_name"`
	Width     int    `json:"width"`
	Height    int    `json:"height"`
	Split     string `json:"split"`
	License   int    `json:"license"`
	FlickrURL string `json:"flickr_url"`
	COCOURL   string `json:"coco_url"`
}

type annotation struct {
	ImageID int64  `json:"image_id"`
	ID      int64  `json:"id"`
	Caption string `json:"caption"`
}

func readCOCO(path string) (*coco, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		coco
		Info any `json:"info"` // free text, not taken over
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	file.coco.Info = map[string]string{
		"description": "Photographs of COCO 2017 under open licences, with their captions, for the quickstart of blip2",
		"captions":    "COCO Consortium, CC BY 4.0, https://cocodataset.org/#termsofuse",
		"split":       "our own: by SHA-256 of the file name, the first 18 heldout, the others train",
		"changes":     "pictures scaled to at most 320 pixels on the longest side, metadata removed",
	}
	return &file.coco, nil
}

// keepOpen drops the pictures whose licence does not allow sharing scaled copies with anyone: what stays is
// Attribution, Attribution-ShareAlike, and no known copyright restrictions.
func (c *coco) keepOpen() {
	open := []int{4, 5, 7}
	c.Licenses = slices.DeleteFunc(c.Licenses, func(l license) bool { return !slices.Contains(open, l.ID) })
	c.Images = slices.DeleteFunc(c.Images, func(p picture) bool { return !slices.Contains(open, p.License) })
	kept := map[int64]bool{}
	for _, p := range c.Images {
		kept[p.ID] = true
	}
	c.Annotations = slices.DeleteFunc(c.Annotations, func(a annotation) bool { return !kept[a.ImageID] })
}

// split sets every picture's split by the SHA-256 of its file name, which nobody chose.
func (c *coco) split() {
	order := make([]*picture, len(c.Images))
	for i := range c.Images {
		order[i] = &c.Images[i]
	}
	slices.SortFunc(order, func(a, b *picture) int {
		x, y := sha256.Sum256([]byte(a.FileName)), sha256.Sum256([]byte(b.FileName))
		return bytes.Compare(x[:], y[:])
	})
	for i, p := range order {
		p.Split = "train"
		if i < heldout {
			p.Split = "heldout"
		}
	}
	slices.SortFunc(c.Images, func(a, b picture) int { return cmp.Compare(a.FileName, b.FileName) })
	slices.SortFunc(c.Annotations, func(a, b annotation) int {
		return cmp.Or(cmp.Compare(a.ImageID, b.ImageID), cmp.Compare(a.ID, b.ID))
	})
}

const attributionHead = `# Attribution

The photographs in ` + "`images/`" + ` are from [COCO 2017](https://cocodataset.org) and belong to their Flickr authors,
who published them under the licences named below. **Changes:** scaled to at most 320 pixels on the longest side, saved
as JPEG (quality 85), metadata removed. Pictures under CC BY-SA, as scaled here, are under the same licence.

The captions in ` + "`captions.json`" + ` are by the COCO Consortium, licensed
[CC BY 4.0](https://creativecommons.org/licenses/by/4.0/); see the
[terms of use](https://cocodataset.org/#termsofuse). The field ` + "`split`" + ` is ours.

` + "`vocab.txt`" + ` is taken from the vocabulary of Google's
[bert-base-uncased](https://github.com/google-research/bert), Apache License 2.0. **Changes:** reduced to the special
tokens, the single ASCII characters, and the pieces that occur at least three times in the captions of 5,000 COCO
pictures; so numbered anew.

Everything here is made by ` + "`scripts/quickstart-data.go`" + `.

| file | licence | photograph | in COCO |
| --- | --- | --- | --- |
`

// attribution is the table that names each picture's licence and source.
func (c *coco) attribution() []byte {
	names := map[int]string{}
	for _, l := range c.Licenses {
		names[l.ID] = fmt.Sprintf("[%s](%s)", shortName(l), l.URL)
	}
	var b bytes.Buffer
	b.WriteString(attributionHead)
	for _, p := range c.Images {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", p.FileName, names[p.License], p.FlickrURL, p.COCOURL)
	}
	return b.Bytes()
}

func shortName(l license) string {
	switch l.ID {
	case 4:
		return "CC BY 2.0"
	case 5:
		return "CC BY-SA 2.0"
	}
	return l.Name
}

// reduce gives the pieces of a vocabulary that English captions need: special tokens, single ASCII characters at the
// start of a word and inside, and what occurs at least minCount times, each group in the order of the vocabulary.
func reduce(vocabPath, countPath string) ([]string, error) {
	full, err := tokenizer.LoadWordPiece(vocabPath)
	if err != nil {
		return nil, err
	}
	counts, err := count(full, countPath)
	if err != nil {
		return nil, err
	}
	pieces := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	groups := []func(id int32, piece string) bool{
		func(_ int32, piece string) bool { return isCharacter(piece) },
		func(_ int32, piece string) bool {
			rest, inside := strings.CutPrefix(piece, "##")
			return inside && isCharacter(rest)
		},
		func(id int32, _ string) bool { return counts[id] >= minCount },
	}
	taken := map[string]bool{}
	for _, p := range pieces {
		taken[p] = true
	}
	for _, wanted := range groups {
		for id := range int32(full.VocabSize()) {
			if piece := full.Piece(id); wanted(id, piece) && !taken[piece] {
				taken[piece] = true
				pieces = append(pieces, piece)
			}
		}
	}
	return pieces, nil
}

func isCharacter(s string) bool { return len(s) == 1 && '!' <= s[0] && s[0] <= '~' }

// count counts the pieces of captions after the caption processor.
func count(full *tokenizer.WordPiece, path string) (map[int32]int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rows []struct{ Caption []string }
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) == 0 {
		return nil, errors.New(path + " has no captions")
	}
	counts := map[int32]int{}
	for _, row := range rows {
		for _, c := range row.Caption {
			for _, id := range full.Encode(dataset.CaptionProcessor{}.Process(c)) {
				counts[id]++
			}
		}
	}
	return counts, nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
