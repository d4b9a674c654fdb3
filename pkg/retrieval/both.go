package retrieval

import (
	"errors"
	"fmt"
)

// Both are the recalls of both directions, in percent.
type Both struct {
	ImageToText Scores // LAVIS: txt_r1, txt_r5, txt_r10
	TextToImage Scores // LAVIS: img_r1, img_r5, img_r10
}

// Mean is the mean of R@1, R@5 and R@10.
func (s Scores) Mean() float64 { return (s.R1 + s.R5 + s.R10) / 3 }

// Evaluate ranks both directions. i2t is [images][texts], t2i [texts][images], img2txt lists the texts of every image;
// a text may belong to several images.
func Evaluate(i2t, t2i [][]float32, img2txt [][]int) (Both, error) {
	if err := checkShapes(i2t, t2i, len(img2txt)); err != nil {
		return Both{}, err
	}
	txt2img, err := Invert(img2txt, len(t2i))
	if err != nil {
		return Both{}, err
	}
	return Both{Recall(i2t, img2txt), Recall(t2i, txt2img)}, nil
}

func checkShapes(i2t, t2i [][]float32, images int) error {
	if len(i2t) == 0 || len(t2i) == 0 || images == 0 {
		return errors.New("there are no images or no texts to rank")
	}
	if len(i2t) != images || len(i2t[0]) != len(t2i) || len(t2i[0]) != len(i2t) {
		return fmt.Errorf("scores [%d images, %d texts] and [%d texts, %d images], but texts of %d images", len(i2t),
			len(i2t[0]), len(t2i), len(t2i[0]), images)
	}
	return nil
}

// Invert lists the images of every text from the texts of every image.
func Invert(img2txt [][]int, texts int) ([][]int, error) {
	txt2img := make([][]int, texts)
	for image, own := range img2txt {
		for _, text := range own {
			if text < 0 || text >= texts {
				return nil, fmt.Errorf("text %d of image %d: there are %d texts", text, image, texts)
			}
			txt2img[text] = append(txt2img[text], image)
		}
	}
	return txt2img, nil
}

// Metrics are the figures under LAVIS's names, its means among them.
func (b Both) Metrics() map[string]float64 {
	txt, img := b.ImageToText, b.TextToImage
	return map[string]float64{
		"txt_r1": txt.R1, "txt_r5": txt.R5, "txt_r10": txt.R10, "txt_r_mean": txt.Mean(),
		"img_r1": img.R1, "img_r5": img.R5, "img_r10": img.R10, "img_r_mean": img.Mean(),
		"r_mean": (txt.Mean() + img.Mean()) / 2, "agg_metrics": txt.Mean(),
	}
}
