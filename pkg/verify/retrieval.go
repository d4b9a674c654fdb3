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
	both, err := retrieval.Evaluate(i2t, t2i, img2txt)
	if err != nil {
		return nil, err
	}
	return both.Metrics(), nil
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
