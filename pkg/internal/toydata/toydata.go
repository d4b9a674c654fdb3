// Package toydata makes a data set and a configuration so small that tests train the whole of stage 1 within seconds.
package toydata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"strings"
)

// Sizes of the set.
const (
	TrainImages   = 12 // with two captions each
	HeldoutImages = 4  // likewise
)

// Names of the files in the folder.
const (
	ConfigFile  = "toy.yaml"
	VocabFile   = "vocab.txt"
	CaptionFile = "captions.json"
	ImagesDir   = "images"
)

// Write puts pictures, captions, vocabulary and configuration into a folder. Each picture is a shape of one colour on
// a plain ground; half of them are JPEG, half PNG.
func Write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, ImagesDir), 0o755); err != nil {
		return err
	}
	files := map[string][]byte{ConfigFile: []byte(configText), VocabFile: []byte(vocabText())}
	captions, err := writePictures(files)
	if err != nil {
		return err
	}
	if files[CaptionFile], err = json.Marshal(captions); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// configText is a complete configuration; paths are relative to its folder. With log_every 1 metrics.jsonl holds the
// loss of every single step.
const configText = `seed: 3
backend: go
vision:
  {image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2, mlp_ratio: 2, initializer_range: 0.2, freeze: false}
qformer: {hidden: 24, layers: 2, heads: 2, intermediate: 32, query_tokens: 3, max_positions: 16, dropout: 0.1,
  initializer_range: 0.2, embed_dim: 12}
text: {vocab: vocab.txt, max_len: 8}
data:
  train: [{annotations: captions.json, images: images, split: train, name: toys}]
  heldout: [{annotations: captions.json, images: images, split: heldout, name: new toys}]
  augment: {crop_scale: [0.7, 1]}
optim: {lr: 3e-3, min_lr: 1e-4, warmup_lr: 1e-4, warmup_steps: 2}
train: {steps: 10, batch_size: 6, log_every: 1}
checkpoint: {every: 4, keep_last: 3}
eval: {k_test: 4, batch_size: 5, max_len: 10}
report: {gallery: 4}
run: {dir: runs, name: toy}
`

var (
	colours = []string{"red", "green", "blue", "white"}
	shapes  = []string{"box", "bar", "post", "ring"}
)

func vocabText() string {
	pieces := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "is", "##s", "one", "picture", "of"}
	pieces = append(append(pieces, colours...), shapes...)
	return strings.Join(pieces, "\n") + "\n"
}

// annotations is the caption file in COCO's form.
type annotations struct {
	Images   []imageRow   `json:"images"`
	Captions []captionRow `json:"annotations"`
}

type imageRow struct {
	ID    int    `json:"id"`
	File  string `json:"file_name"`
	Split string `json:"split"`
}

type captionRow struct {
	ImageID int    `json:"image_id"`
	Caption string `json:"caption"`
}

// writePictures adds the encoded pictures to files. The held-out ones are those with equal number of colour and shape.
func writePictures(files map[string][]byte) (*annotations, error) {
	var all annotations
	for i := range TrainImages + HeldoutImages {
		c, s := i/len(shapes), i%len(shapes)
		data, ext, err := encode(picture(c, s), i)
		if err != nil {
			return nil, err
		}
		split := "train"
		if c == s {
			split = "heldout"
		}
		name := fmt.Sprintf("%02d%s", i, ext)
		files[ImagesDir+"/"+name] = data
		all.Images = append(all.Images, imageRow{i, name, split})
		all.Captions = append(all.Captions, captionRow{i, fmt.Sprintf("A %s %s.", colours[c], shapes[s])},
			captionRow{i, fmt.Sprintf("the picture of one %s is %s", shapes[s], colours[c])})
	}
	return &all, nil
}

// picture draws shape s in colour c on 24×20 pixels.
func picture(c, s int) image.Image {
	ink := []color.RGBA{{220, 30, 20, 255}, {20, 200, 40, 255}, {30, 50, 230, 255}, {250, 250, 250, 255}}[c]
	img := image.NewRGBA(image.Rect(0, 0, 24, 20))
	for y := range 20 {
		for x := range 24 {
			dx, dy := max(x-12, 11-x), max(y-10, 9-y) // distance from the middle
			inside := []bool{dx < 7 && dy < 6, dx < 11 && dy < 3, dx < 3 && dy < 9, max(dx, dy) < 9 && max(dx, dy) > 5}[s]
			img.SetRGBA(x, y, color.RGBA{60, 60, 60, 255})
			if inside {
				img.SetRGBA(x, y, ink)
			}
		}
	}
	return img
}

func encode(img image.Image, i int) (data []byte, ext string, err error) {
	var out bytes.Buffer
	if i%2 == 0 {
		err = jpeg.Encode(&out, img, &jpeg.Options{Quality: 95})
		return out.Bytes(), ".jpg", err
	}
	err = png.Encode(&out, img)
	return out.Bytes(), ".png", err
}
