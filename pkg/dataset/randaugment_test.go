package dataset

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestRandAugmentDraws: what is drawn for a row is a function of (seed, epoch, row) alone, and all of them matter.
func TestRandAugmentDraws(t *testing.T) {
	a := RandAugment{Ops: 8, Magnitude: 5, Mode: AugmentPIL}
	first := a.Draw(1, 2, 3)
	if !reflect.DeepEqual(first, a.Draw(1, 2, 3)) {
		t.Error("the same row is drawn in two ways")
	}
	for _, other := range [][]AugmentDraw{a.Draw(2, 2, 3), a.Draw(1, 3, 3), a.Draw(1, 2, 4)} {
		if reflect.DeepEqual(first, other) {
			t.Error("another row is drawn the same")
		}
	}
}

// TestAutoContrastModes: Pillow stretches a channel from 10 to 61 over the range; LAVIS makes it white (spec §7).
func TestAutoContrastModes(t *testing.T) {
	for mode, want := range map[AugmentMode][]uint8{
		AugmentPIL: {0, 0, 7, 255, 255, 7}, AugmentLAVIS: {255, 0, 7, 255, 255, 7},
	} {
		img := &RGB{W: 2, H: 1, Pix: []uint8{10, 0, 7, 61, 51, 7}}
		Augment(img, OpAutoContrast, 0, mode)
		if !slices.Equal(img.Pix, want) {
			t.Errorf("%s: %v, want %v", mode, img.Pix, want)
		}
	}
}

// TestAugmentGeometry: the directions of the operations, with 128 for what comes in.
func TestAugmentGeometry(t *testing.T) {
	const n = 128
	for _, c := range []struct {
		op    AugmentOp
		value float64
		want  []uint8 // of the red samples of a picture with 1 2 3 / 4 5 6 / 7 8 9
	}{
		{OpTranslateX, 1, []uint8{2, 3, n, 5, 6, n, 8, 9, n}},
		{OpTranslateX, -1, []uint8{n, 1, 2, n, 4, 5, n, 7, 8}},
		{OpTranslateY, 1, []uint8{4, 5, 6, 7, 8, 9, n, n, n}},
		{OpShearX, 1, []uint8{1, 2, 3, n, 4, 5, n, n, 7}},
		{OpShearY, 1, []uint8{1, n, n, 4, 2, n, 7, 5, 3}},
		{OpRotate, 0, []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{OpRotate, 90, []uint8{n, n, n, 3, 6, 9, 2, 5, 8}}, // about the corner between four pixels at (1.5, 1.5)
		{OpIdentity, 0, []uint8{1, 2, 3, 4, 5, 6, 7, 8, 9}},
	} {
		img := &RGB{W: 3, H: 3}
		for i := range 9 {
			img.Pix = append(img.Pix, uint8(i+1), 0, 0)
		}
		Augment(img, c.op, c.value, AugmentLAVIS)
		var got []uint8
		for i := range 9 {
			got = append(got, img.Pix[3*i])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %g: %v, want %v", c.op, c.value, got, c.want)
		}
	}
}

// TestAugmentLevels: at level 5, the only one LAVIS uses, Brightness and Sharpness have factor 1 and change nothing.
func TestAugmentLevels(t *testing.T) {
	for op, want := range map[AugmentOp]float64{
		OpRotate: -15, OpShearX: -0.15, OpTranslateY: -5, OpBrightness: 1, OpSharpness: 1,
	} {
		if got := op.Value(5, -1); math.Abs(got-want) > 1e-15 {
			t.Errorf("%s: %g, want %g", op, got, want)
		}
	}
	src := noise(9, 7, 2)
	for _, op := range []AugmentOp{OpBrightness, OpSharpness} {
		img := &RGB{W: src.W, H: src.H, Pix: slices.Clone(src.Pix)}
		if Augment(img, op, op.Value(5, 1), AugmentLAVIS); !slices.Equal(img.Pix, src.Pix) {
			t.Errorf("%s changes the picture at level 5", op)
		}
	}
}

// TestAugmentOddSizes: no operation minds a picture one pixel wide.
func TestAugmentOddSizes(t *testing.T) {
	for _, op := range AugmentOps() {
		for _, size := range [][2]int{{1, 1}, {1, 5}, {5, 1}, {2, 2}} {
			Augment(noise(size[0], size[1], 3), op, op.Value(9, -1), AugmentPIL)
		}
	}
}

func TestRandAugmentCheck(t *testing.T) {
	for _, c := range []struct {
		a    RandAugment
		want string
	}{
		{RandAugment{Ops: -1}, "-1 operations"}, {RandAugment{Ops: 99}, "99 operations"},
		{RandAugment{Ops: 2, Magnitude: 11, Mode: AugmentPIL}, "magnitude 11"},
		{RandAugment{Ops: 2, Magnitude: 5, Mode: "opencv"}, `"opencv"`},
	} {
		if err := c.a.check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.a, err, c.want)
		}
	}
	if err := (RandAugment{}).check(); err != nil {
		t.Error(err)
	}
}
