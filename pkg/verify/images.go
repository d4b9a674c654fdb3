package verify

import (
	"fmt"
	"math"

	"blip2/pkg/dataset"
)

// boxIJHW is a part of a picture as top, left, height, width.
type boxIJHW [4]int

// box returns what dataset cuts out; nil is the whole picture.
func (b *boxIJHW) box() *dataset.Box {
	if b == nil {
		return nil
	}
	return &dataset.Box{Top: b[0], Left: b[1], Height: b[2], Width: b[3]}
}

// within reports a box that is not inside the picture.
func (b *boxIJHW) within(img *dataset.RGB) error {
	if b == nil {
		return nil
	}
	if b[0] < 0 || b[1] < 0 || b[2] < 1 || b[3] < 1 || b[0]+b[2] > img.H || b[1]+b[3] > img.W {
		return fmt.Errorf("box_ijhw %v is not inside the picture of %d×%d", *b, img.W, img.H)
	}
	return nil
}

// picture decodes a picture of the case.
func (c *Case) picture(name string) (*dataset.RGB, error) {
	path, err := c.file(name)
	if err != nil {
		return nil, err
	}
	return dataset.DecodeFile(path)
}

// comparePicture compares every sample of a picture with a recorded one.
func comparePicture(k *checker, name string, got, want *dataset.RGB) {
	if got.W != want.W || got.H != want.H {
		k.problem("%s: %d×%d pixels, recorded %d×%d", name, got.W, got.H, want.W, want.H)
		return
	}
	compareFloats(k, name, []int{want.H, want.W, 3}, samples(got), samples(want))
}

func samples(img *dataset.RGB) []float32 {
	out := make([]float32, len(img.Pix))
	for i, v := range img.Pix {
		out[i] = float32(v)
	}
	return out
}

// imageResize runs kind image-resize: every sample of every resized picture must be equal.
func imageResize(c *Case, k *checker) error {
	var config struct {
		Items []struct {
			Input    string   `json:"input"`
			Filter   string   `json:"filter"`
			Box      *boxIJHW `json:"box_ijhw"`
			SizeHW   [2]int   `json:"size_hw"`
			Expected string   `json:"expected"`
		}
	}
	if err := c.config(&config); err != nil {
		return err
	}
	k.tol = tolerance{}
	for _, item := range config.Items {
		src, err := c.picture(item.Input)
		if err != nil {
			return err
		}
		want, err := c.picture(item.Expected)
		if err != nil {
			return err
		}
		filter, err := dataset.ParseFilter(item.Filter)
		if err != nil {
			return err
		}
		if err := item.Box.within(src); err != nil {
			return fmt.Errorf("%s: %w", item.Expected, err)
		}
		got := dataset.Resize(src, item.Box.box(), item.SizeHW[1], item.SizeHW[0], filter)
		comparePicture(k, item.Expected, got, want)
	}
	return nil
}

// imageNormalize runs kind image-normalize: cut, resize, mirror and normalise to float32 [3, S, S].
func imageNormalize(c *Case, k *checker) error {
	var config struct {
		Mean, Std *[3]float32
		Items     []struct {
			Name  string   `json:"name"`
			Input string   `json:"input"`
			Box   *boxIJHW `json:"box_ijhw"`
			Flip  bool     `json:"flip"`
			Size  int      `json:"size"`
		}
	}
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if config.Mean == nil || config.Std == nil {
		return fmt.Errorf("config: mean and std must be given")
	}
	for _, item := range config.Items {
		src, err := c.picture(item.Input)
		if err != nil {
			return err
		}
		if err := item.Box.within(src); err != nil {
			return fmt.Errorf("%s: %w", item.Name, err)
		}
		small := dataset.Resize(src, item.Box.box(), item.Size, item.Size, dataset.Bicubic)
		got := make([]float32, 3*item.Size*item.Size)
		dataset.Normalize(got, small, item.Flip, *config.Mean, *config.Std)
		k.floats(item.Name, []int{3, item.Size, item.Size}, got)
	}
	return nil
}

// cropConfig is the config of kind random-resized-crop.
type cropConfig struct {
	Scale     [2]float64 `json:"scale"`
	Ratio     [2]float64 `json:"ratio"`
	OwnDraws  int        `json:"own_draws"`
	Quantiles []float64  `json:"quantiles"`
}

// randomResizedCrop runs kind random-resized-crop: the box for recorded draws must be equal, and the boxes of our own
// draws must be distributed like torchvision's.
func randomResizedCrop(c *Case, k *checker) error {
	var config cropConfig
	if err := c.config(&config); err != nil {
		return err
	}
	if config.OwnDraws < 1 || len(config.Quantiles) == 0 {
		return fmt.Errorf("config: own_draws and quantiles must be given")
	}
	crop := dataset.Crop{Scale: config.Scale, Ratio: config.Ratio}
	if err := replayCrops(c, k, crop); err != nil {
		return err
	}
	return cropStatistics(c, k, crop, config)
}

// cropRow is a crop as the reference drew it.
type cropRow struct {
	Tries    [][2]float64 `json:"tries"` // share of the area, logarithm of the aspect
	Fallback bool         `json:"fallback"`
	Box      boxIJHW      `json:"box_ijhw"`
}

func replayCrops(c *Case, k *checker, crop dataset.Crop) error {
	var sizes []struct {
		SizeWH [2]int    `json:"size_wh"`
		Rows   []cropRow `json:"rows"`
	}
	if err := c.readJSON("replay.json", &sizes); err != nil {
		return err
	}
	for _, size := range sizes {
		w, h := size.SizeWH[0], size.SizeWH[1]
		for i, row := range size.Rows {
			box, fallback, tries := row.replay(crop, w, h)
			name := fmt.Sprintf("replay %d×%d/%d", w, h, i)
			got := []int{box.Top, box.Left, box.Height, box.Width, tries}
			want := []int{row.Box[0], row.Box[1], row.Box[2], row.Box[3], len(row.Tries)}
			equalLists(k, name, got, want)
			equalLists(k, name+" fallback", []bool{fallback}, []bool{row.Fallback})
		}
	}
	return nil
}

// replay feeds the recorded draws to the crop and returns its box and the number of tries it took. Where the reference
// drew the place, the recorded place is fed as well.
func (r cropRow) replay(crop dataset.Crop, w, h int) (box dataset.Box, fallback bool, tries int) {
	places := 0
	box, fallback = crop.Box(w, h, func() (area, logRatio float64) {
		tries++
		if tries > len(r.Tries) {
			return 0, 0 // one try too many: the count tells
		}
		try := r.Tries[tries-1]
		return try[0], try[1]
	}, func(n int) int {
		place := r.Box[places%2]
		places++
		return min(place, n-1)
	})
	return box, fallback, tries
}

// cropStatistics compares the distribution of area, aspect and place at the recorded quantiles.
func cropStatistics(c *Case, k *checker, crop dataset.Crop, config cropConfig) error {
	var expected struct {
		Statistics []struct {
			SizeWH    [2]int    `json:"size_wh"`
			Area      []float64 `json:"area"`
			LogAspect []float64 `json:"log_aspect"`
			Top       []float64 `json:"top"`
			Left      []float64 `json:"left"`
		}
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	allowed, err := c.allowance("cdf")
	if err != nil {
		return err
	}
	k.tol = tolerance{atol: allowed}
	for _, s := range expected.Statistics {
		w, h := s.SizeWH[0], s.SizeWH[1]
		drawn := make([][]float64, 4)
		for i := range config.OwnDraws {
			b := crop.RandomBox(w, h, 1, 0, int64(i))
			for q, v := range []float64{
				float64(b.Height*b.Width) / float64(w*h), math.Log(float64(b.Width) / float64(b.Height)),
				float64(b.Top) / float64(max(h-b.Height, 1)), float64(b.Left) / float64(max(w-b.Width, 1)),
			} {
				drawn[q] = append(drawn[q], v)
			}
		}
		for q, values := range [][]float64{s.Area, s.LogAspect, s.Top, s.Left} {
			name := fmt.Sprintf("statistics %d×%d/%s", w, h, []string{"area", "log_aspect", "top", "left"}[q])
			compareQuantiles(k, name, drawn[q], config.Quantiles, values)
		}
	}
	return nil
}

// compareQuantiles compares by how much the recorded quantile lies outside the steps of our distribution: for quantile
// q with value v, share(x < v) ≤ q ≤ share(x ≤ v) up to the tolerance.
func compareQuantiles(k *checker, name string, drawn, quantiles, values []float64) {
	if len(values) != len(quantiles) {
		k.problem("%s: %d recorded values for %d quantiles", name, len(values), len(quantiles))
		return
	}
	const slack = 1e-9 // of values that are the same number computed in another order
	excess := make([]float64, len(quantiles))
	for i, q := range quantiles {
		below, upTo := 0, 0
		for _, x := range drawn {
			if x < values[i]-slack {
				below++
			}
			if x <= values[i]+slack {
				upTo++
			}
		}
		n := float64(len(drawn))
		excess[i] = max(0, float64(below)/n-q, q-float64(upTo)/n)
	}
	compareFloats(k, name, []int{len(quantiles)}, excess, make([]float64, len(quantiles)))
}
