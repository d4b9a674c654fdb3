package verify

import (
	"fmt"
	"maps"
	"slices"

	"blip2/pkg/retrieval"
	"blip2/pkg/weights"
)

// retrievalMetrics runs kind retrieval-metrics: recall in both directions from score matrices, and LAVIS's means of
// them. Order among equal scores is not the reference's: the cases have none that matter.
func retrievalMetrics(c *Case, k *checker) error {
	var config struct {
		Items []struct {
			Name    string
			Img2Txt [][]int
		}
	}
	var expected map[string]map[string]float64
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	if len(config.Items) != len(expected) {
		return fmt.Errorf("%d items, but %d expected", len(config.Items), len(expected))
	}
	for _, item := range config.Items {
		want, ok := expected[item.Name]
		if !ok {
			return fmt.Errorf("item %s: nothing expected under this name", item.Name)
		}
		got, err := itemMetrics(c, item.Name, item.Img2Txt)
		if err != nil {
			return fmt.Errorf("item %s: %w", item.Name, err)
		}
		names := slices.Sorted(maps.Keys(got))
		if recorded := slices.Sorted(maps.Keys(want)); !slices.Equal(names, recorded) {
			return fmt.Errorf("item %s: the metrics are %v, recorded are %v", item.Name, names, recorded)
		}
		for _, name := range names {
			compareFloats(k, item.Name+"/"+name, nil, []float64{got[name]}, []float64{want[name]})
		}
	}
	return nil
}

// itemMetrics computes the metrics of one item under the names of the reference: "txt" is image→text, "img" text→image.
func itemMetrics(c *Case, item string, img2txt [][]int) (map[string]float64, error) {
	inputs, err := c.inputs()
	if err != nil {
		return nil, err
	}
	i2t, err := scoreMatrix(inputs, item+"/i2t")
	if err != nil {
		return nil, err
	}
	t2i, err := scoreMatrix(inputs, item+"/t2i")
	if err != nil {
		return nil, err
	}
	txt2img := make([][]int, len(t2i))
	for image, texts := range img2txt {
		for _, text := range texts {
			if text < 0 || text >= len(t2i) {
				return nil, fmt.Errorf("text %d of image %d: there are %d texts", text, image, len(t2i))
			}
			txt2img[text] = append(txt2img[text], image)
		}
	}
	if len(i2t) != len(img2txt) || len(i2t) == 0 || len(i2t[0]) != len(t2i) || len(t2i) == 0 || len(t2i[0]) != len(i2t) {
		return nil, fmt.Errorf("scores of %d images and %d texts, but texts of %d images", len(i2t), len(t2i), len(img2txt))
	}
	return lavisMetrics(retrieval.Recall(i2t, img2txt), retrieval.Recall(t2i, txt2img)), nil
}

// lavisMetrics are LAVIS's figures of the recalls of both directions, under its names.
func lavisMetrics(txt, img retrieval.Scores) map[string]float64 {
	txtMean, imgMean := (txt.R1+txt.R5+txt.R10)/3, (img.R1+img.R5+img.R10)/3
	return map[string]float64{
		"txt_r1": txt.R1, "txt_r5": txt.R5, "txt_r10": txt.R10, "txt_r_mean": txtMean,
		"img_r1": img.R1, "img_r5": img.R5, "img_r10": img.R10, "img_r_mean": imgMean,
		"r_mean": (txtMean + imgMean) / 2, "agg_metrics": txtMean,
	}
}

// scoreMatrix reads a tensor [queries, candidates] as rows.
func scoreMatrix(inputs *weights.File, name string) ([][]float32, error) {
	t, err := inputs.Tensor(name)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 {
		return nil, fmt.Errorf("%s: shape %v is not that of a matrix", name, t.Shape)
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, err
	}
	rows := make([][]float32, t.Shape[0])
	for i := range rows {
		rows[i] = values[i*t.Shape[1]:][:t.Shape[1]]
	}
	return rows, nil
}
