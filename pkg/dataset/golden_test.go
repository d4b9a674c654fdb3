package dataset

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sharedDir is a folder shared between projects: the environment variable, or ../shared/name beside the repository.
func sharedDir(t testing.TB, variable, name string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		dir = filepath.Join(repository(t), "..", "shared", name)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no shared %s (set %s): %v", name, variable, err)
	}
	return dir
}

func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("go.mod not found above the test")
	return ""
}

func readJSON(t testing.TB, v any, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// goldenCase is the part of a recorded case that the kinds of this package use.
type goldenCase struct {
	dir    string
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Config struct {
		Mean  [3]float32 `json:"mean"`
		Std   [3]float32 `json:"std"`
		Scale [2]float64 `json:"scale"`
		Ratio [2]float64 `json:"ratio"`
		Quant []float64  `json:"quantiles"`
		Draws int        `json:"own_draws"`
		Items []caseItem `json:"items"`
		Texts []textSpec `json:"settings"`
	} `json:"config"`
	Tolerance struct {
		Atol    float64 `json:"atol"`
		GridAbs float64 `json:"grid_abs"`
		CDF     float64 `json:"cdf"`
	} `json:"tolerance"`
}

type textSpec struct {
	Processor string `json:"processor"`
	Prompt    string `json:"prompt"`
	MaxWords  int    `json:"max_words"`
}

type caseItem struct {
	Name     string   `json:"name"`
	Input    string   `json:"input"`
	Filter   string   `json:"filter"`
	Box      *[4]int  `json:"box_ijhw"`
	SizeHW   [2]int   `json:"size_hw"`
	Size     int      `json:"size"`
	Flip     bool     `json:"flip"`
	Expected string   `json:"expected"`
	MeanAbs  float64  `json:"mean_abs"`
	MaxAbs   int      `json:"max_abs"`
	Goal     *float64 `json:"goal_mean_abs"`
	Error    string   `json:"error"`
}

func (i *caseItem) box() *Box {
	if i.Box == nil {
		return nil
	}
	return &Box{i.Box[0], i.Box[1], i.Box[2], i.Box[3]}
}

// goldenCases runs f on every recorded case of a kind and fails if there is none.
func goldenCases(t *testing.T, kind string, f func(t *testing.T, c *goldenCase)) {
	t.Helper()
	root := sharedDir(t, "BLIP2_GOLDEN", "golden")
	files, err := filepath.Glob(filepath.Join(root, "*", "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		var head struct{ Kind string }
		readJSON(t, &head, file)
		if head.Kind != kind {
			continue
		}
		found++
		c := &goldenCase{dir: filepath.Dir(file)}
		readJSON(t, c, file)
		t.Run(c.Name, func(t *testing.T) { f(t, c) })
	}
	if found == 0 {
		t.Skipf("no case of kind %s under %s", kind, root)
	}
}

func decodeCase(t *testing.T, c *goldenCase, name string) *RGB {
	t.Helper()
	img, err := DecodeFile(filepath.Join(c.dir, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestGoldenResize(t *testing.T) {
	goldenCases(t, "image-resize", func(t *testing.T, c *goldenCase) {
		var r Resizer // shared: nothing of one picture may leak into the next
		for _, item := range c.Config.Items {
			filter, err := ParseFilter(item.Filter)
			if err != nil {
				t.Fatal(err)
			}
			src, want, got := decodeCase(t, c, item.Input), decodeCase(t, c, item.Expected), new(RGB)
			r.Resize(got, src, item.box(), item.SizeHW[1], item.SizeHW[0], filter)
			if got.W != want.W || got.H != want.H || !slices.Equal(got.Pix, want.Pix) {
				mean, largest := difference(got, want)
				t.Errorf("%s: differs by %.4f in the mean, at most %d", item.Expected, mean, largest)
			}
		}
	})
}

func TestGoldenNormalize(t *testing.T) {
	goldenCases(t, "image-normalize", func(t *testing.T, c *goldenCase) {
		want := readFloats(t, filepath.Join(c.dir, "outputs.safetensors"))
		for _, item := range c.Config.Items {
			s := scratch{picture: picture{img: *decodeCase(t, c, item.Input)}}
			got := make([]float32, 3*item.Size*item.Size)
			if err := s.write(got, transform{box: item.box(), size: item.Size, flip: item.Flip, mean: c.Config.Mean,
				std: c.Config.Std}); err != nil {
				t.Fatal(err)
			}
			w := want[item.Name]
			if len(w) != len(got) {
				t.Fatalf("%s: %d values recorded, want %d", item.Name, len(w), len(got))
			}
			for i := range got {
				if d := math.Abs(float64(got[i] - w[i])); d > c.Tolerance.Atol {
					t.Fatalf("%s: value %d is %g, want %g", item.Name, i, got[i], w[i])
				}
			}
		}
	})
}

// readFloats reads the float32 tensors of a safetensors file.
func readFloats(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + int(binary.LittleEndian.Uint64(data))
	var header map[string]struct {
		Dtype   string `json:"dtype"`
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(data[8:n], &header); err != nil {
		t.Fatal(err)
	}
	all := map[string][]float32{}
	for name, h := range header {
		if h.Dtype != "F32" {
			continue
		}
		for at := n + h.Offsets[0]; at < n+h.Offsets[1]; at += 4 {
			all[name] = append(all[name], math.Float32frombits(binary.LittleEndian.Uint32(data[at:])))
		}
	}
	return all
}

func TestGoldenText(t *testing.T) {
	goldenCases(t, "text-process", func(t *testing.T, c *goldenCase) {
		var in struct{ Texts []string }
		var want struct{ Outputs [][]string }
		readJSON(t, &in, filepath.Join(c.dir, "inputs.json"))
		readJSON(t, &want, filepath.Join(c.dir, "expected.json"))
		for s, spec := range c.Config.Texts {
			process := CaptionProcessor{spec.MaxWords, spec.Prompt}.Process
			if spec.Processor == "question" {
				process = QuestionProcessor{spec.MaxWords}.Process
			}
			for i, text := range in.Texts {
				if got := process(text); got != want.Outputs[s][i] {
					t.Errorf("%+v of %q: %q, want %q", spec, text, got, want.Outputs[s][i])
				}
			}
		}
	})
}

func TestGoldenDecode(t *testing.T) {
	goldenCases(t, "image-decode", func(t *testing.T, c *goldenCase) {
		var grids struct{ Items []gridItem }
		if _, err := os.Stat(filepath.Join(c.dir, "expected.json")); err == nil {
			readJSON(t, &grids, filepath.Join(c.dir, "expected.json"))
		}
		for i, item := range c.Config.Items {
			path := filepath.Join(c.dir, item.Input)
			if rest, ok := strings.CutPrefix(item.Input, "data:"); ok {
				path = filepath.Join(sharedDir(t, "BLIP2_DATA", "data"), rest)
			}
			img, err := DecodeFile(path)
			switch {
			case item.Error != "":
				if err == nil {
					t.Errorf("%s: decodes, want an error", item.Input)
				}
			case err != nil:
				t.Error(err)
			case item.Expected != "":
				checkDecoded(t, &item, img, decodeCase(t, c, item.Expected))
			default:
				checkGrid(t, &grids.Items[i], img, c.Tolerance.GridAbs)
			}
		}
	})
}

func checkDecoded(t *testing.T, item *caseItem, got, want *RGB) {
	t.Helper()
	mean, largest := difference(got, want)
	limit := item.MeanAbs
	if item.Goal != nil {
		limit = *item.Goal
	}
	if mean > limit || largest > item.MaxAbs {
		t.Errorf("%s: mean difference %.4f, largest %d; allowed %g and %d", item.Input, mean, largest, limit,
			item.MaxAbs)
	}
}

// difference is the mean and the greatest difference of samples; infinite for different sizes.
func difference(a, b *RGB) (mean float64, largest int) {
	if a.W != b.W || a.H != b.H {
		return math.Inf(1), 255
	}
	sum := 0
	for i, v := range a.Pix {
		d := int(v) - int(b.Pix[i])
		d = max(d, -d)
		sum += d
		largest = max(largest, d)
	}
	return float64(sum) / float64(len(a.Pix)), largest
}

type gridItem struct {
	Input  string           `json:"input"`
	SizeWH [2]int           `json:"size_wh"`
	Grid   [8][8][3]float64 `json:"grid"`
}

func checkGrid(t *testing.T, want *gridItem, img *RGB, tolerance float64) {
	t.Helper()
	if img.W != want.SizeWH[0] || img.H != want.SizeWH[1] {
		t.Errorf("%s: %d×%d, want %v", want.Input, img.W, img.H, want.SizeWH)
		return
	}
	for gy := range 8 {
		for gx := range 8 {
			for c := range 3 {
				sum, n := 0, 0
				for y := gy * img.H / 8; y < (gy+1)*img.H/8; y++ {
					for x := gx * img.W / 8; x < (gx+1)*img.W/8; x++ {
						sum += int(img.Pix[(y*img.W+x)*3+c])
						n++
					}
				}
				if got := float64(sum) / float64(n); math.Abs(got-want.Grid[gy][gx][c]) > tolerance {
					t.Errorf("%s: cell %d,%d channel %d is %.3f, want %.3f", want.Input, gy, gx, c, got,
						want.Grid[gy][gx][c])
					return
				}
			}
		}
	}
}

func TestGoldenCrop(t *testing.T) {
	goldenCases(t, "random-resized-crop", func(t *testing.T, c *goldenCase) {
		crop := Crop{c.Config.Scale, c.Config.Ratio}
		var replay []struct {
			SizeWH [2]int `json:"size_wh"`
			Rows   []struct {
				Tries    [][2]float64 `json:"tries"`
				Fallback bool         `json:"fallback"`
				Box      [4]int       `json:"box_ijhw"`
			} `json:"rows"`
		}
		readJSON(t, &replay, filepath.Join(c.dir, "replay.json"))
		for _, size := range replay {
			for _, row := range size.Rows {
				next := 0
				got, fallback := crop.Box(size.SizeWH[0], size.SizeWH[1], func() (float64, float64) {
					next++
					return row.Tries[next-1][0], row.Tries[next-1][1]
				}, func(int) int { return 0 })
				want := Box{row.Box[0], row.Box[1], row.Box[2], row.Box[3]}
				if !row.Fallback {
					want.Top, want.Left = 0, 0
				}
				if got != want || fallback != row.Fallback || next != len(row.Tries) {
					t.Errorf("%v: box %+v (fallback %v, %d tries), want %+v (%v, %d)", size.SizeWH, got, fallback, next,
						want, row.Fallback, len(row.Tries))
				}
			}
		}
		checkCropStatistics(t, c, crop)
	})
}

func checkCropStatistics(t *testing.T, c *goldenCase, crop Crop) {
	var expected struct {
		Statistics []struct {
			SizeWH             [2]int `json:"size_wh"`
			Area, Top, Left    []float64
			LogAspectQuantiles []float64 `json:"log_aspect"`
		}
	}
	readJSON(t, &expected, filepath.Join(c.dir, "expected.json"))
	for _, s := range expected.Statistics {
		w, h := s.SizeWH[0], s.SizeWH[1]
		values := make([][]float64, 4)
		for row := range c.Config.Draws {
			b := crop.RandomBox(w, h, 7, 3, int64(row))
			values[0] = append(values[0], float64(b.Width*b.Height)/float64(w*h))
			values[1] = append(values[1], math.Log(float64(b.Width)/float64(b.Height)))
			values[2] = append(values[2], float64(b.Top)/float64(max(h-b.Height, 1)))
			values[3] = append(values[3], float64(b.Left)/float64(max(w-b.Width, 1)))
		}
		for k, quantiles := range [][]float64{s.Area, s.LogAspectQuantiles, s.Top, s.Left} {
			if len(quantiles) != len(c.Config.Quant) {
				t.Fatalf("%d recorded quantiles of quantity %d", len(quantiles), k)
			}
			for i, v := range quantiles {
				below, upTo := share(values[k], v)
				if q := c.Config.Quant[i]; below-c.Tolerance.CDF > q || q > upTo+c.Tolerance.CDF {
					t.Errorf("%v: quantile %g of quantity %d: %g lies between %g and %g", s.SizeWH, q, k, v, below,
						upTo)
				}
			}
		}
	}
}

func share(values []float64, v float64) (below, upTo float64) {
	for _, x := range values {
		if x < v-1e-9 {
			below++
		}
		if x <= v+1e-9 {
			upTo++
		}
	}
	return below / float64(len(values)), upTo / float64(len(values))
}
