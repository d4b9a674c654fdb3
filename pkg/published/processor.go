package published

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"blip2/pkg/dataset"
)

// ImageProcessor turns pictures into an image encoder's input.
type ImageProcessor struct {
	Size      int // S: pixels per side
	Mean, Std [3]float32
	Crop      bool // resize the shorter side to S and cut the middle out, as for CLIP; else both sides become S
}

// maxResized bounds the samples of a picture between resize and crop: one that is a thousand times as long as wide
// passes.
const maxResized = 1 << 28

// ReadProcessor reads preprocessor_config.json of a folder of transformers; without one, the processor is that of the
// network, BLIP-2's by default. It must give pictures of the size that the image encoder takes.
func ReadProcessor(dir string, s Spec) (ImageProcessor, error) {
	p, v := NewProcessor(s), s.vision()
	path := filepath.Join(dir, "preprocessor_config.json")
	raw, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = p.read(raw)
	}
	if err == nil && v != nil && p.Size != v.ImageSize {
		err = fmt.Errorf("its pictures have %d px, but the image encoder takes %d", p.Size, v.ImageSize)
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// NewProcessor returns the processor of the network where no file says another.
func NewProcessor(s Spec) ImageProcessor {
	p := ImageProcessor{Mean: dataset.CLIPMean(), Std: dataset.CLIPStd(), Crop: s.CLIP != nil}
	if v := s.vision(); v != nil {
		p.Size = v.ImageSize
	}
	return p
}

// read takes the values of a preprocessor_config.json.
func (p *ImageProcessor) read(raw []byte) error {
	c := struct {
		ImageMean []float32       `json:"image_mean"`
		ImageStd  []float32       `json:"image_std"`
		Size      json.RawMessage `json:"size"`
		CropSize  json.RawMessage `json:"crop_size"`
		Resample  int             `json:"resample"`
		Crop      bool            `json:"do_center_crop"`
		Resize    bool            `json:"do_resize"`
		Normalize bool            `json:"do_normalize"`
		Rescale   bool            `json:"do_rescale"`
		RescaleBy float64         `json:"rescale_factor"`
	}{Resample: bicubic, Resize: true, Normalize: true, Rescale: true, RescaleBy: 1.0 / 255, Crop: p.Crop}
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	if c.Resample != bicubic || !c.Resize || !c.Normalize || !c.Rescale || math.Abs(c.RescaleBy*255-1) > 1e-3 {
		return errors.New("only pictures that are resized bicubically, divided by 255 and normalised are known")
	}
	if err := setChannels(&p.Mean, "image_mean", c.ImageMean); err != nil {
		return err
	}
	if err := setChannels(&p.Std, "image_std", c.ImageStd); err != nil {
		return err
	}
	if slices.Contains(p.Std[:], 0) {
		return fmt.Errorf("image_std is %v, but pictures are divided by it", p.Std)
	}
	p.Crop = c.Crop
	var err error
	if p.Size, err = readSize("size", c.Size, p.Size); err != nil || !p.Crop {
		return err
	}
	cut, err := readSize("crop_size", c.CropSize, p.Size)
	if err == nil && cut != p.Size {
		err = fmt.Errorf("crop_size is %d and size %d, but only pictures whose shorter side is kept are known", cut, p.Size)
	}
	return err
}

// setChannels takes three numbers, if there are any.
func setChannels(to *[3]float32, key string, from []float32) error {
	if from != nil && len(from) != 3 {
		return fmt.Errorf("%s has %d numbers, expected 3", key, len(from))
	}
	copy(to[:], from)
	return nil
}

// bicubic is Pillow's number of the filter.
const bicubic = 3

// readSize reads a size given as a number or as an object; left out, it is as before.
func readSize(key string, raw json.RawMessage, before int) (int, error) {
	if len(raw) == 0 {
		return before, nil
	}
	var side int
	var size struct {
		Height   int `json:"height"`
		Width    int `json:"width"`
		Shortest int `json:"shortest_edge"`
	}
	switch {
	case json.Unmarshal(raw, &side) == nil:
	case json.Unmarshal(raw, &size) != nil:
		return 0, fmt.Errorf("%s is %.60s, expected a number or height and width", key, raw)
	case size.Shortest != 0:
		side = size.Shortest
	case size.Height == size.Width:
		side = size.Height
	default:
		return 0, fmt.Errorf("%s is %d×%d, but pictures are squares", key, size.Width, size.Height)
	}
	if side < 1 || side > maxSide {
		return 0, fmt.Errorf("%s is %d, expected 1 to %d pixels", key, side, maxSide)
	}
	return side, nil
}

// maxSide is the largest size of pictures.
const maxSide = 4096

// Pixels turns a picture into planes [3, S, S].
func (p ImageProcessor) Pixels(img *dataset.RGB) ([]float32, error) {
	if img.W < 1 || img.H < 1 {
		return nil, fmt.Errorf("a picture of %d×%d pixels is empty", img.W, img.H)
	}
	out := make([]float32, 3*p.Size*p.Size)
	var square *dataset.RGB
	if p.Crop {
		w, h := p.whole(img)
		if w > maxResized/h/3 {
			return nil, fmt.Errorf("a picture of %d×%d pixels is too long and narrow", img.W, img.H)
		}
		square = p.cropped(resize(img, w, h))
	} else {
		square = resize(img, p.Size, p.Size)
	}
	dataset.Normalize(out, square, false, p.Mean, p.Std)
	return out, nil
}

// whole returns the size at which the shorter side is S, and the longer one in proportion and rounded down.
func (p ImageProcessor) whole(img *dataset.RGB) (w, h int) {
	if img.W < img.H {
		return p.Size, p.Size * img.H / img.W
	}
	return p.Size * img.W / img.H, p.Size
}

// cropped cuts the middle out.
func (p ImageProcessor) cropped(img *dataset.RGB) *dataset.RGB {
	middle := dataset.Box{Top: (img.H - p.Size) / 2, Left: (img.W - p.Size) / 2, Height: p.Size, Width: p.Size}
	return dataset.Resize(img, &middle, p.Size, p.Size, dataset.Bicubic)
}

// resize is Pillow 13's bicubic resize, which transformers of our day runs on: where the height shrinks by more than
// twice as much as the width, columns come before rows, and samples are rounded in between. Before Pillow 13, and in
// dataset.Resize, rows always come first; the results differ by a level or two.
func resize(img *dataset.RGB, w, h int) *dataset.RGB {
	if img.H > h && img.H-h > 2*(img.W-w) {
		img = dataset.Resize(img, nil, img.W, h, dataset.Bicubic)
	}
	return dataset.Resize(img, nil, w, h, dataset.Bicubic)
}
