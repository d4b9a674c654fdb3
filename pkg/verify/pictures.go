package verify

import (
	"fmt"
	"math"

	"blip2/pkg/dataset"
)

// decodeItem is a picture of kind image-decode.
type decodeItem struct {
	Input    string   `json:"input"`
	Expected string   `json:"expected"`
	MeanAbs  *float64 `json:"mean_abs"`
	MaxAbs   *float64 `json:"max_abs"`
	Goal     *float64 `json:"goal_mean_abs"` // of decoders that interpolate chroma, as ours does

	Error           string   `json:"error"` // decoding must fail
	ExpectedLenient string   `json:"expected_lenient"`
	MeanAbsLenient  *float64 `json:"mean_abs_lenient"`
}

// decodeGrid is what is recorded of a picture as found: the means over an 8×8 grid of cells.
type decodeGrid struct {
	Input  string           `json:"input"`
	SizeWH [2]int           `json:"size_wh"`
	Grid   [8][8][3]float64 `json:"grid"`
}

// imageDecode runs kind image-decode: pictures in all formats as Pillow's convert("RGB") gives them, whole ones and
// truncated ones.
func imageDecode(c *Case, k *checker) error {
	var config struct{ Items []decodeItem }
	if err := c.config(&config); err != nil {
		return err
	}
	var expected struct{ Items []decodeGrid }
	for i, item := range config.Items {
		if item.Expected != "" || item.Error != "" {
			if err := decodeRecorded(c, k, item); err != nil {
				return err
			}
			continue
		}
		if expected.Items == nil {
			if err := c.readJSON(expectedFile, &expected); err != nil {
				return err
			}
			if len(expected.Items) != len(config.Items) {
				return fmt.Errorf("%s has %d items for %d pictures", expectedFile, len(expected.Items),
					len(config.Items))
			}
		}
		if expected.Items[i].Input != item.Input {
			return fmt.Errorf("item %d of %s is %s, not %s", i, expectedFile, expected.Items[i].Input, item.Input)
		}
		if err := decodeFound(c, k, expected.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// decodeRecorded compares a picture with the recorded one, or checks that it is refused where it must be.
func decodeRecorded(c *Case, k *checker, item decodeItem) error {
	path, err := c.file(item.Input)
	if err != nil {
		return err
	}
	got, err := dataset.DecodeFile(path)
	if item.Error == "" {
		if err != nil {
			return err
		}
		return compareWithin(c, k, item.Input, got, item.Expected, item.MeanAbs, item.MaxAbs, item.Goal)
	}
	if k.compared++; err == nil {
		k.problem("%s: decodes, but the reference fails with %s", item.Input, item.Error)
	}
	if item.ExpectedLenient == "" {
		return nil
	}
	if got, err = dataset.DecodeFileAs(path, dataset.TruncatedAccept); err != nil {
		return err
	}
	return compareWithin(c, k, item.Input+" (lenient)", got, item.ExpectedLenient, item.MeanAbsLenient, nil, nil)
}

// compareWithin compares all samples with a recorded picture: the mean and, where limited, the greatest difference.
func compareWithin(c *Case, k *checker, name string, got *dataset.RGB, expected string,
	mean, most, goal *float64) error {
	if mean == nil {
		return fmt.Errorf("%s: no mean difference is allowed by the case", name)
	}
	want, err := c.picture(expected)
	if err != nil {
		return err
	}
	if got.W != want.W || got.H != want.H {
		k.problem("%s: %d×%d pixels, recorded %d×%d", name, got.W, got.H, want.W, want.H)
		return nil
	}
	sum, largest := 0.0, 0.0
	for i, v := range want.Pix {
		d := math.Abs(float64(v) - float64(got.Pix[i]))
		sum, largest = sum+d, max(largest, d)
	}
	average := sum / float64(len(want.Pix))
	k.tol = tolerance{atol: *mean}
	if goal != nil {
		k.tol = tolerance{atol: min(*goal, *mean)}
	}
	compareFloats(k, name+" mean difference", []int{1}, []float64{average}, []float64{0})
	if most != nil {
		k.tol = tolerance{atol: *most}
		compareFloats(k, name+" greatest difference", []int{1}, []float64{largest}, []float64{0})
	}
	return nil
}

// decodeFound compares the means over the cells of a picture, whose borders are at floor(i·n/8).
func decodeFound(c *Case, k *checker, want decodeGrid) error {
	got, err := c.picture(want.Input)
	if err != nil {
		return err
	}
	if got.W != want.SizeWH[0] || got.H != want.SizeWH[1] {
		k.problem("%s: %d×%d pixels, recorded %d×%d", want.Input, got.W, got.H, want.SizeWH[0], want.SizeWH[1])
		return nil
	}
	allowed, err := c.allowance("grid_abs")
	if err != nil {
		return err
	}
	k.tol = tolerance{atol: allowed}
	var have, recorded []float64
	for i, row := range want.Grid {
		for j, cell := range row {
			mean := cellMean(got, i, j)
			have, recorded = append(have, mean[:]...), append(recorded, cell[:]...)
		}
	}
	compareFloats(k, want.Input, []int{8, 8, 3}, have, recorded)
	return nil
}

func cellMean(img *dataset.RGB, i, j int) (mean [3]float64) {
	n := 0.0
	for y := i * img.H / 8; y < (i+1)*img.H/8; y++ {
		for x := j * img.W / 8; x < (j+1)*img.W/8; x++ {
			for c := range mean {
				mean[c] += float64(img.Pix[(y*img.W+x)*3+c])
			}
			n++
		}
	}
	for c := range mean {
		mean[c] /= n
	}
	return mean
}

// randAugment runs kind randaugment: every operation on a recorded picture, and the distribution of our own draws.
func randAugment(c *Case, k *checker) error {
	var config struct {
		Items []struct {
			Input    string              `json:"input"`
			Op       dataset.AugmentOp   `json:"op"`
			Mode     dataset.AugmentMode `json:"mode"`
			Level    float64             `json:"level"`
			Sign     float64             `json:"sign"`
			Value    float64             `json:"value"`
			Expected string              `json:"expected"`
			MaxAbs   *float64            `json:"max_abs"`
			MeanAbs  *float64            `json:"mean_abs"`
		}
	}
	if err := c.config(&config); err != nil {
		return err
	}
	known := map[dataset.AugmentOp]bool{}
	for _, op := range dataset.AugmentOps() {
		known[op] = true
	}
	for _, item := range config.Items {
		if !known[item.Op] {
			return fmt.Errorf("unknown operation %q", item.Op)
		}
		value := item.Op.Value(item.Level, item.Sign)
		const slack = 1e-12 // of one formula in another order
		k.tol = tolerance{atol: slack, rtol: slack}
		compareFloats(k, item.Expected+" value", []int{1}, []float64{value}, []float64{item.Value})
		img, err := c.picture(item.Input)
		if err != nil {
			return err
		}
		dataset.Augment(img, item.Op, value, item.Mode)
		if err := compareWithin(c, k, item.Expected, img, item.Expected, item.MeanAbs, item.MaxAbs, nil); err != nil {
			return err
		}
	}
	return augmentDistribution(c, k)
}

// augmentDistribution compares how often operations are drawn, alone and twice, and how often they are applied.
func augmentDistribution(c *Case, k *checker) error {
	var expected struct {
		Distribution struct {
			Draws       int                           `json:"draws"`
			Ops         int                           `json:"ops_per_image"`
			Level       float64                       `json:"level"`
			Probability float64                       `json:"probability_each"`
			Share       map[dataset.AugmentOp]float64 `json:"share_of_op"`
			Same        float64                       `json:"share_both_same"`
			Tolerance   float64                       `json:"tolerance"`
		}
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	want := expected.Distribution
	if want.Draws < 1 || want.Ops != 2 || want.Tolerance <= 0 {
		return fmt.Errorf("%s: distribution must give draws, ops_per_image = 2 and a tolerance", expectedFile)
	}
	count := map[dataset.AugmentOp]float64{}
	same, applied, positive := 0.0, 0.0, 0.0
	a := dataset.RandAugment{Ops: want.Ops, Magnitude: want.Level, Mode: dataset.AugmentLAVIS}
	for row := range want.Draws {
		draws := a.Draw(1, 0, int64(row))
		for _, d := range draws {
			count[d.Op]++
			if d.Apply {
				applied++
			}
			positive += (d.Sign + 1) / 2
		}
		if draws[0].Op == draws[1].Op {
			same++
		}
	}
	n := float64(want.Draws)
	k.tol = tolerance{atol: want.Tolerance}
	for _, op := range dataset.AugmentOps() {
		compareFloats(k, "share of "+string(op), []int{1}, []float64{count[op] / n / 2}, []float64{want.Share[op]})
	}
	got := []float64{same / n, applied / n / 2, positive / n / 2}
	shares := []float64{want.Same, want.Probability, 0.5}
	compareFloats(k, "shares of twins, applied and positive", []int{3}, got, shares)
	return nil
}
