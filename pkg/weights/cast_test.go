package weights

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// nearestBits rounds a finite value by searching all finite values of a 16-bit type: the definition, not a way to go.
func nearestBits(v float64, table []float64) uint16 {
	magnitude := math.Abs(v)
	i, _ := slices.BinarySearch(table, magnitude) // the first that is not below
	best := i
	if i > 0 {
		low, high := magnitude-table[i-1], math.Inf(1)
		if i < len(table) {
			high = table[i] - magnitude
		}
		if low < high || low == high && (i-1)%2 == 0 {
			best = i - 1
		}
	}
	if math.Signbit(v) {
		return uint16(best) | 0x8000
	}
	return uint16(best)
}

// finite lists the finite values of a 16-bit type that are not negative, and as the next what its step would lead to.
func finite(dtype DType, infinity int) []float64 {
	data := make([]byte, 2*infinity)
	for i := range infinity {
		binary.LittleEndian.PutUint16(data[2*i:], uint16(i))
	}
	values := make([]float32, infinity)
	widen(values, data, dtype)
	table := make([]float64, infinity+1)
	for i, v := range values {
		table[i] = float64(v)
	}
	table[infinity] = 2*table[infinity-1] - table[infinity-2]
	return table
}

// TestRoundingIsNearestEven compares both 16-bit types with their definition: at every value, at every midpoint and
// beside it, and at random.
func TestRoundingIsNearestEven(t *testing.T) {
	for _, c := range []struct {
		dtype    DType
		infinity int
		round    func(float32) uint16
	}{{F16, 0x7c00, halfFromFloat32}, {BF16, 0x7f80, bfloat16FromFloat32}} {
		table := finite(c.dtype, c.infinity)
		check := func(v float32) {
			if got, want := c.round(v), nearestBits(float64(v), table); got != want {
				t.Fatalf("%s: %g (%#08x) becomes %#04x, want %#04x", c.dtype, v, math.Float32bits(v), got, want)
			}
		}
		for i := range table[:c.infinity] {
			middle := (table[i] + table[i+1]) / 2
			for _, v := range []float32{float32(table[i]), float32(middle)} {
				for _, x := range []float32{v, math.Nextafter32(v, 0), math.Nextafter32(v, inf(1))} {
					if !isInf(x) {
						check(x)
						check(-x)
					}
				}
			}
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for range 20_000 {
			if v := math.Float32frombits(rng.Uint32()); v == v && !isInf(v) {
				check(v)
			}
		}
	}
}

func TestCastFloat(t *testing.T) {
	values := []float32{0, negativeZero(), 1, -2.5, 65504, 0x1p-24, inf(1), inf(-1), float32(math.NaN()), 0.1}
	many := slices.Repeat(values, 1000) // more than a block, not a multiple of one
	start := FromFloat32("w", []int{len(values), 1000}, many)
	for _, to := range []DType{F64, F16, BF16, F32} {
		narrowed, err := start.CastFloat(to)
		if err != nil {
			t.Fatal(err)
		}
		if narrowed.Name != "w" || narrowed.DType != to || !slices.Equal(narrowed.Shape, start.Shape) {
			t.Errorf("%s: %s %s %v", to, narrowed.Name, narrowed.DType, narrowed.Shape)
		}
		got, err := narrowed.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range got {
			want := many[i]
			switch bits := math.Float32bits(want); {
			case want != want:
				if v == v {
					t.Fatalf("%s: NaN became %g", to, v)
				}
				continue
			case to == F16:
				want = float32FromHalf(halfFromFloat32(want))
			case to == BF16:
				want = math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff)
			}
			if math.Float32bits(v) != math.Float32bits(want) {
				t.Fatalf("%s: %g became %g, want %g", to, many[i], v, want)
			}
		}
		back, err := narrowed.CastFloat(F32)
		if again, _ := back.Float32s(); err != nil || back.DType != F32 || again[2] != 1 {
			t.Errorf("%s and back: %v, %v", to, again[:3], err)
		}
	}
	half, err := start.CastFloat(F16)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := half.CastFloat(F16); err != nil || &same.Data[0] != &half.Data[0] {
		t.Errorf("a cast to the same type copies: %v", err)
	}
	ids := FromInt64("position_ids", []int{2}, []int64{0, 1})
	if same, err := ids.CastFloat(BF16); err != nil || same.DType != I64 || &same.Data[0] != &ids.Data[0] {
		t.Errorf("integers: %s, %v", same.DType, err)
	}
}

func TestNaNStaysNaN(t *testing.T) {
	for _, bits := range []uint32{0x7fc00000, 0x7f800001, 0xff800001, 0xffffffff, 0x7f80ffff} {
		v := math.Float32frombits(bits)
		if h := halfFromFloat32(v); h&0x7c00 != 0x7c00 || h&0x3ff == 0 || h>>15 != uint16(bits>>31) {
			t.Errorf("%#08x became the half %#04x", bits, h)
		}
		if b := bfloat16FromFloat32(v); b&0x7f80 != 0x7f80 || b&0x7f == 0 || b>>15 != uint16(bits>>31) {
			t.Errorf("%#08x became the bfloat16 %#04x", bits, b)
		}
	}
}

func TestCastFloatRefuses(t *testing.T) {
	large := make([]float32, castBlock+10)
	large[castBlock+7] = 65520
	huge := Tensor{Name: "d", DType: F64, Shape: []int{1},
		Data: binary.LittleEndian.AppendUint64(nil, math.Float64bits(-1e300))}
	for want, cast := range map[string]func() (Tensor, error){
		`tensor "w": element 4103 is 65520, beyond the range of float16`: func() (Tensor, error) {
			return FromFloat32("w", []int{len(large)}, large).CastFloat(F16)
		},
		`tensor "m": element 0 is -3.4028234663852886e+38, beyond the range of bfloat16`: func() (Tensor, error) {
			return FromFloat32("m", nil, []float32{-math.MaxFloat32}).CastFloat(BF16)
		},
		`tensor "d": element 0 is -1e+300, beyond the range of float32`: func() (Tensor, error) {
			return huge.CastFloat(F16)
		},
		`tensor "w": "I64" is no floating-point type`: func() (Tensor, error) {
			return FromFloat32("w", nil, []float32{1}).CastFloat(I64)
		},
		`needs 8 bytes, the data have 4`: func() (Tensor, error) {
			return Tensor{DType: F32, Shape: []int{2}, Data: make([]byte, 4)}.CastFloat(F16)
		},
	} {
		if got, err := cast(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v\nwant %s", got, err, want)
		}
	}
}
