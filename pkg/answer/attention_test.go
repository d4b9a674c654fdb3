package answer

import (
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/dataset"
	"blip2/pkg/naming"
)

// TestLookAt: the maps are probabilities over all patches and CLS, differ between queries and layers, and the mean over
// the layers is that of the layers.
func TestLookAt(t *testing.T) {
	for _, network := range []string{naming.BLIP2OPT, naming.BLIP2T5, naming.BLIP2Stage1} {
		m, backend := loaded(t, opened(t, network))
		picture := pixels(t, m.Checkpoint, 2)
		look := func(layer int) *Attention {
			t.Helper()
			a, err := m.LookAt(t.Context(), backend, dtypes.Float32, picture, layer)
			if err != nil {
				t.Fatal(err)
			}
			if a.Grid != 3 || len(a.Maps) != 3 || len(a.CLS) != 3 {
				t.Fatalf("%s: %d maps of %d×%d", network, len(a.Maps), a.Grid, a.Grid)
			}
			for q, one := range a.Maps {
				sum := float64(a.CLS[q])
				for _, p := range one {
					if p < 0 {
						t.Errorf("%s: probability %g", network, p)
					}
					sum += float64(p)
				}
				if math.Abs(sum-1) > 1e-5 {
					t.Errorf("%s: the probabilities of query %d sum up to %g", network, q, sum)
				}
			}
			return a
		}
		first, second, mean, last := look(0), look(2), look(AllLayers), look(LastLayer)
		if !slices.Equal(mean.Layers, []int{0, 2}) || !slices.Equal(last.Layers, []int{2}) ||
			!slices.Equal(last.Maps[1], second.Maps[1]) {
			t.Errorf("%s: layers %v and %v", network, mean.Layers, last.Layers)
		}
		for i, p := range mean.Maps[1] {
			if want := (first.Maps[1][i] + second.Maps[1][i]) / 2; math.Abs(float64(p-want)) > 1e-6 {
				t.Errorf("%s: the mean is %g, want %g", network, p, want)
			}
		}
		if slices.Equal(first.Maps[0], first.Maps[1]) || slices.Equal(first.Maps[0], second.Maps[0]) {
			t.Errorf("%s: queries or layers look alike", network)
		}
		for layer, want := range map[int]string{1: "no cross-attention", 9: "[0 2]", -5: "layer -5"} {
			says(t, network, m.CheckAttention(layer), want)
		}
	}
	says(t, "BLIP", opened(t, naming.BLIPCaption).CheckAttention(LastLayer), "no queries")
}

// TestDraw: where the probability is, the picture becomes red.
func TestDraw(t *testing.T) {
	a := &Attention{Grid: 2, Maps: [][]float32{{0, 0, 0, 1}, {0.25, 0.25, 0.25, 0.25}}}
	img := &dataset.RGB{W: 4, H: 2, Pix: slices.Repeat([]uint8{100}, 24)}
	out := a.Draw(img)
	if b := out.Bounds(); b.Dy() != heatLarge+2*heatGap || b.Dx() != heatLarge+heatSmall+3*heatGap {
		t.Fatalf("%v", b)
	}
	hot, cold := out.RGBAAt(heatGap+heatLarge-5, heatGap+heatLarge-5), out.RGBAAt(heatGap+5, heatGap+5)
	if hot.R <= hot.B || cold.B <= cold.R {
		t.Errorf("hot %v, cold %v", hot, cold)
	}
	// The second query looks everywhere alike.
	x := heatLarge + 2*heatGap
	if c := out.RGBAAt(x+5, 2*heatGap+heatSmall+5); c != out.RGBAAt(x+90, 2*heatGap+heatSmall+90) {
		t.Errorf("an even map has colours %v", c)
	}
}
