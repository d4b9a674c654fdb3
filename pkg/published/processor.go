package published

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"blip2/pkg/dataset"
)

// ImageProcessor turns pictures into an image encoder's input.
type ImageProcessor struct {
	Size      int // S: pixels per side
	Mean, Std [3]float32
	Crop      bool // resize the shorter side to S and cut the middle out, as for CLIP; else both sides become S
}

// ReadProcessor reads preprocessor_config.json of a folder of transformers; without one, the processor is that of the
// network, BLIP-2's by default.
func ReadProcessor(dir string, s Spec) (ImageProcessor, error) {
	p := ImageProcessor{Mean: dataset.CLIPMean(), Std: dataset.CLIPStd(), Crop: s.CLIP != nil}
	if v := s.vision(); v != nil {
		p.Size = v.ImageSize
	}
	path := filepath.Join(dir, "preprocessor_config.json")
	raw, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = p.read(raw)
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// read takes the values of a preprocessor_config.json.
func (p *ImageProcessor) read(raw []byte) error {
	c := struct {
		ImageMean  []float32       `json:"image_mean"`
		ImageStd   []float32       `json:"image_std"`
		Size       json.RawMessage `json:"size"`
		Resample   int             `json:"resample"`
		Crop       bool            `json:"do_center_crop"`
		Resize     bool            `json:"do_resize"`
		Normalize  bool            `json:"do_normalize"`
		Rescale    bool            `json:"do_rescale"`
		RescaleBy  float64         `json:"rescale_factor"`
		ConvertRGB bool            `json:"do_convert_rgb"`
	}{Resample: bicubic, Resize: true, Normalize: true, Rescale: true, RescaleBy: 1.0 / 255}
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	if c.Resample != bicubic || !c.Resize || !c.Normalize || !c.Rescale || c.RescaleBy < 0.0039 || c.RescaleBy > 0.00393 {
		return errors.New("only pictures that are resized bicubically, divided by 255 and normalised are known")
	}
	for key, from := range map[string][]float32{"image_mean": c.ImageMean, "image_std": c.ImageStd} {
		if from == nil {
			continue
		}
		if len(from) != 3 {
			return fmt.Errorf("%s has %d numbers, expected 3", key, len(from))
		}
		to := &p.Mean
		if key == "image_std" {
			to = &p.Std
		}
		copy(to[:], from)
	}
	p.Crop = c.Crop
	return p.readSize(c.Size)
}

// bicubic is Pillow's number of the filter.
const bicubic = 3

// readSize reads a size given as a number or as an object.
func (p *ImageProcessor) readSize(raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	var side int
	if json.Unmarshal(raw, &side) == nil {
		p.Size = side
		return nil
	}
	var size struct {
		Height   int `json:"height"`
		Width    int `json:"width"`
		Shortest int `json:"shortest_edge"`
	}
	if err := json.Unmarshal(raw, &size); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	switch {
	case size.Shortest > 0:
		p.Size = size.Shortest
	case size.Height > 0 && size.Height == size.Width:
		p.Size = size.Height
	default:
		return fmt.Errorf("size is %d×%d, but pictures are squares", size.Width, size.Height)
	}
	return nil
}

// Pixels turns a picture into planes [3, S, S].
func (p ImageProcessor) Pixels(img *dataset.RGB) []float32 {
	out := make([]float32, 3*p.Size*p.Size)
	var square *dataset.RGB
	if p.Crop {
		square = p.cropped(img)
	} else {
		square = resize(img, p.Size, p.Size)
	}
	dataset.Normalize(out, square, false, p.Mean, p.Std)
	return out
}

// cropped resizes the shorter side to S, the longer one in proportion and rounded down, and cuts the middle out.
func (p ImageProcessor) cropped(img *dataset.RGB) *dataset.RGB {
	w, h := p.Size, p.Size
	if img.W < img.H {
		h = p.Size * img.H / img.W
	} else {
		w = p.Size * img.W / img.H
	}
	whole := resize(img, w, h)
	return dataset.Resize(whole, &dataset.Box{Top: (h - p.Size) / 2, Left: (w - p.Size) / 2, Height: p.Size, Width: p.Size},
		p.Size, p.Size, dataset.Bicubic)
}

// resize is Pillow 13's bicubic resize, which transformers of our day runs on: where the height shrinks by more than twice
// as much as the width, columns come before rows, and samples are rounded in between. Before Pillow 13, and in
// dataset.Resize, rows always come first; the results differ by a level or two.
func resize(img *dataset.RGB, w, h int) *dataset.RGB {
	if img.H > h && img.H-h > 2*(img.W-w) {
		img = dataset.Resize(img, nil, img.W, h, dataset.Bicubic)
	}
	return dataset.Resize(img, nil, w, h, dataset.Bicubic)
}
