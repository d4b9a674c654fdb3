package published

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/dataset"
)

// TestPixels compares with the processors of transformers on Pillow 13, level by level (testdata/pixels.py).
func TestPixels(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "pixels.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Width, Height, Size int
		Crop                bool
		RGB, Levels         []byte // row after row, and plane after plane
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 16 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		p := ImageProcessor{Size: c.Size, Mean: dataset.CLIPMean(), Std: dataset.CLIPStd(), Crop: c.Crop}
		got, err := p.Pixels(&dataset.RGB{W: c.Width, H: c.Height, Pix: c.RGB})
		if err != nil || len(got) != len(c.Levels) {
			t.Errorf("%d×%d: %d numbers, want %d; error %v", c.Width, c.Height, len(got), len(c.Levels), err)
			continue
		}
		wrong := 0
		for i, v := range got {
			channel := i / (c.Size * c.Size)
			level := (float64(v)*float64(p.Std[channel]) + float64(p.Mean[channel])) * 255
			if math.Abs(level-float64(c.Levels[i])) > 0.01 {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%d×%d to %d, crop %v: %d of %d levels differ", c.Width, c.Height, c.Size, c.Crop, wrong, len(got))
		}
	}
	p := ImageProcessor{Size: 224, Crop: true}
	for _, img := range []*dataset.RGB{{}, {W: 0, H: 5}, {W: 1 << 20, H: 1, Pix: make([]byte, 3<<20)},
		{W: 1, H: math.MaxInt32, Pix: nil}} {
		if _, err := p.Pixels(img); err == nil {
			t.Errorf("a picture of %d×%d has pixels", img.W, img.H)
		}
	}
}

// TestReadProcessor reads configurations in all forms that are published.
func TestReadProcessor(t *testing.T) {
	network := func(name string, size int) Spec {
		s := clone(t, tiny()[name])
		s.vision().ImageSize = size
		return s
	}
	mean, std := dataset.CLIPMean(), dataset.CLIPStd()
	for _, c := range []struct {
		network, config string
		size            int
		want            ImageProcessor
		says            string
	}{
		{network: "blip2-opt", size: 224, want: ImageProcessor{224, mean, std, false}},
		{network: "clip", size: 224, want: ImageProcessor{224, mean, std, true}},
		{network: "blip2-opt", size: 364,
			config: `{"size":{"height":364,"width":364},"image_mean":[0.5,0.25,0],"image_std":[1,2,3]}`,
			want:   ImageProcessor{364, [3]float32{0.5, 0.25, 0}, [3]float32{1, 2, 3}, false}},
		{network: "blip", size: 384, config: `{"size":384,"resample":3,"do_center_crop":false}`, want: ImageProcessor{384,
			mean, std, false}},
		{network: "clip", size: 224, config: `{"size":224,"crop_size":224,"do_center_crop":true}`, want: ImageProcessor{224,
			mean, std, true}},
		{network: "clip", size: 224, config: `{"size":{"shortest_edge":224},"crop_size":{"height":224,"width":224},
			"do_center_crop":true,"rescale_factor":0.00392156862745098}`, want: ImageProcessor{224, mean, std, true}},
		{network: "clip", size: 224, config: `{"size":{"shortest_edge":256},"crop_size":224,"do_center_crop":true}`,
			says: "crop_size is 224 and size 256"},
		{network: "blip2-opt", size: 224, config: `{"size":364}`, says: "364 px, but the image encoder takes 224"},
		{network: "blip2-opt", size: 224, config: `{"size":{"height":224,"width":300}}`, says: "300×224"},
		{network: "blip2-opt", size: 224, config: `{"size":{}}`, says: "size is 0"},
		{network: "blip2-opt", size: 224, config: `{"size":-1}`, says: "size is -1"},
		{network: "blip2-opt", size: 224, config: `{"size":1e9}`, says: "size is 1e9"},
		{network: "blip2-opt", size: 224, config: `{"size":1000000000}`, says: "1 to 4096"},
		{network: "blip2-opt", size: 224, config: `{"size":"224"}`, says: `size is "224"`},
		{network: "blip2-opt", size: 224, config: `{"resample":2}`, says: "bicubically"},
		{network: "blip2-opt", size: 224, config: `{"do_normalize":false}`, says: "normalised"},
		{network: "blip2-opt", size: 224, config: `{"rescale_factor":1}`, says: "divided by 255"},
		{network: "blip2-opt", size: 224, config: `{"image_mean":[1,2]}`, says: "image_mean has 2 numbers"},
		{network: "blip2-opt", size: 224, config: `{"image_std":[1,0,2]}`, says: "image_std"},
		{network: "blip2-opt", size: 224, config: `[]`, says: "array"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "preprocessor_config.json")
		if c.config != "" {
			if err := os.WriteFile(path, []byte(c.config), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		got, err := ReadProcessor(dir, network(c.network, c.size))
		if c.says != "" {
			says(t, c.config, err, path, c.says)
		} else if err != nil || got != c.want {
			t.Errorf("%s: %+v, error %v; want %+v", c.config, got, err, c.want)
		}
	}
}

// FuzzProcessor: no bytes make it panic or ask for much memory.
func FuzzProcessor(f *testing.F) {
	f.Add([]byte(`{"size":{"shortest_edge":24},"crop_size":24,"do_center_crop":true,"image_std":[1,2,3]}`))
	f.Add([]byte(`{"size":null,"image_mean":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := ImageProcessor{Size: 8, Std: [3]float32{1, 1, 1}}
		if err := p.read(raw); err != nil {
			return
		}
		p.Size = min(p.Size, 64) // to be fast
		if _, err := p.Pixels(&dataset.RGB{W: 3, H: 2, Pix: make([]byte, 18)}); err != nil {
			t.Error(err)
		}
	})
}
