package pretrained

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// prefixed puts the names of an encoder of its own under those of the model.
func prefixed(s state) state {
	return s.rename(func(name string) string { return naming.VisionPrefix + name })
}

// TestLoadVision loads the same encoder under every way of naming it.
func TestLoadVision(t *testing.T) {
	clip, eva := small(vit.CLIP).Vision, small(vit.EVA).Vision
	for name, c := range map[string]struct {
		cfg     vit.Config
		file    func() state
		ignored int
	}{
		"openai": {clip, func() state {
			s := encoder(clip)
			s.add("ln_post.weight", 12)
			s.add("ln_post.bias", 12)
			s.add("proj", 12, 5)
			return s
		}, 12 + 3},
		"clip of lavis": {clip, func() state {
			s := prefixed(encoder(clip))
			s.add("Qformer.bert.encoder.layer.0.output.dense.bias", 3)
			s.add("ln_vision.bias", 12)
			return s
		}, 12 + 2},
		"clip of hugging face": {clip, func() state { return clipHF(t, encoder(clip)) }, 16 + 7},
		"eva": {eva, func() state {
			s := encoder(eva)
			s.add("norm.bias", 12)
			s.add("fc_norm.bias", 12)
			s.add("head.weight", 5, 12)
			return s
		}, 13 + 3},
		"eva of lavis": {eva, func() state {
			s := prefixed(encoder(eva))
			s.add("opt_model.model.decoder.final_layer_norm.bias", 3)
			return s
		}, 13 + 1},
		"eva of hugging face": {eva, func() state {
			s := evaHF(t, encoder(eva), true)
			s.add("qformer.layernorm.bias", 3)
			s.add("language_model.model.decoder.final_layer_norm.bias", 3)
			return s
		}, 12 + 2 + 2},
		"eva of early hugging face": {eva, func() state { return evaHF(t, encoder(eva), false) }, 13 + 2},
	} {
		t.Run(name, func(t *testing.T) {
			store := mlx.NewStore()
			file := c.file()
			cov, err := LoadVision(store, c.cfg, file.file(t), Options{})
			if err != nil {
				t.Fatal(err)
			}
			params := model.Prefixed(naming.VisionPrefix, vit.Params(c.cfg))
			mustEqual(t, store, params, prefixed(encoder(c.cfg)))
			if got := size(store); got != len(params) {
				t.Errorf("%d variables in the store, want %d", got, len(params))
			}
			if len(cov.Ignored) != c.ignored || len(cov.Consumed)+len(cov.Ignored) != len(file) {
				t.Errorf("%d consumed and %d ignored of %d, want %d ignored: %v", len(cov.Consumed), len(cov.Ignored),
					len(file), c.ignored, names(cov.Ignored))
			}
			if len(cov.Filled) != len(params) || len(cov.Fresh)+len(cov.Missing)+len(cov.Unexpected) != 0 {
				t.Errorf("coverage %+v", cov)
			}
			for _, n := range cov.Ignored {
				if n.Reason == "" {
					t.Errorf("no reason for ignoring %s", n.Name)
				}
			}
		})
	}
}

// clipHF renames an encoder as transformers does, with a text tower beside it.
func clipHF(t *testing.T, bare state) state {
	out := state{}
	for name, tensor := range bare {
		name = strings.NewReplacer("transformer.resblocks", "encoder.layers", "ln_pre", "pre_layrnorm",
			"ln_1", "layer_norm1", "ln_2", "layer_norm2", "c_fc", "fc1", "c_proj", "fc2",
			"conv1", "embeddings.patch_embedding",
			"positional_embedding", "embeddings.position_embedding.weight", "class_embedding",
			"embeddings.class_embedding", ".attn", ".self_attn").Replace("vision_model." + name)
		before, after, cut := strings.Cut(name, "in_proj_")
		if !cut {
			out[name] = tensor
			continue
		}
		values := floats(t, tensor)
		shape := slices.Clone(tensor.Shape)
		shape[0] /= 3
		for i, x := range []string{"q", "k", "v"} {
			part := values[i*len(values)/3 : (i+1)*len(values)/3]
			name := fmt.Sprintf("%s%s_proj.%s", before, x, after)
			out[name] = weights.FromFloat32(name, shape, part)
		}
	}
	out["vision_model.embeddings.position_ids"] = weights.FromInt64("", []int{1, 2}, []int64{0, 1})
	out.add("vision_model.post_layernorm.weight", 12)
	out.add("vision_model.post_layernorm.bias", 12)
	out.add("visual_projection.weight", 5, 12)
	out.add("text_projection.weight", 5, 6)
	out.add("logit_scale")
	out.add("text_model.encoder.layers.0.self_attn.q_proj.weight", 6, 6)
	return out
}

// evaHF renames an encoder as transformers does; fused: with the biases of queries, keys and values in one.
func evaHF(t *testing.T, bare state, fused bool) state {
	out := state{}
	for name, tensor := range bare {
		hf := strings.NewReplacer("blocks", "encoder.layers", "norm1", "layer_norm1", "norm2", "layer_norm2",
			"attn.proj", "self_attn.projection", "attn.q", "self_attn.q", "attn.v", "self_attn.v",
			"patch_embed.proj", "embeddings.patch_embedding", "cls_token", "embeddings.class_embedding",
			"pos_embed", "embeddings.position_embedding").Replace("vision_model." + name)
		switch {
		case fused && strings.HasSuffix(name, "q_bias"):
			v := bare[strings.TrimSuffix(name, "q_bias")+"v_bias"]
			q := floats(t, tensor)
			all := slices.Concat(q, make([]float32, len(q)), floats(t, v))
			hf = strings.TrimSuffix(hf, "q_bias") + "qkv.bias"
			out[hf] = weights.FromFloat32(hf, []int{len(all)}, all)
		case fused && strings.HasSuffix(name, "v_bias"):
		default:
			out[hf] = tensor
		}
	}
	out.add("vision_model.post_layernorm.weight", 12)
	out.add("vision_model.post_layernorm.bias", 12)
	return out
}

// TestRecordedVision holds the loader against the recorded encoders: which tensors the reference leaves aside, and
// what it makes of the position table.
func TestRecordedVision(t *testing.T) {
	for _, name := range []string{"vit-clip-a", "vit-eva-a"} {
		t.Run(name, func(t *testing.T) {
			dir := golden(t, name)
			var c struct {
				Config struct {
					Vit       string  `json:"vit"`
					ImageSize int     `json:"image_size"`
					PatchSize int     `json:"patch_size"`
					Width     int     `json:"vit_width"`
					Layers    int     `json:"vit_layers"`
					Heads     int     `json:"vit_heads"`
					MLPRatio  float64 `json:"vit_mlp_ratio"`
					Resized   []int   `json:"resized_image_sizes"`
				}
				Tolerance struct{ Atol, Rtol float64 }
			}
			var expected struct{ Unused []string }
			readJSON(t, filepath.Join(dir, "case.json"), &c)
			readJSON(t, filepath.Join(dir, "expected.json"), &expected)
			cfg := vit.Config{Arch: c.Config.Vit, ImageSize: c.Config.ImageSize, PatchSize: c.Config.PatchSize,
				Width: c.Config.Width, Layers: c.Config.Layers, Heads: c.Config.Heads, MLPRatio: c.Config.MLPRatio}
			path := filepath.Join(dir, "weights.safetensors")
			store := mlx.NewStore()
			cov, err := LoadVision(store, cfg, path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			mustEqual(t, store, model.Prefixed(naming.VisionPrefix, vit.Params(cfg)), prefixed(read(t, path)))
			unused := append(expected.Unused, "ln_vision.bias", "ln_vision.weight")
			slices.Sort(unused)
			if got := names(cov.Ignored); !slices.Equal(got, unused) {
				t.Errorf("ignored %v, want %v", got, unused)
			}
			outputs := read(t, filepath.Join(dir, "outputs.safetensors"))
			for i, size := range c.Config.Resized {
				cfg.ImageSize = size
				store := mlx.NewStore()
				cov, err := LoadVision(store, cfg, path, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if len(cov.Changes) != 1 || !strings.Contains(cov.String(), "resized") {
					t.Errorf("the log line does not tell of the resized table: %s", cov)
				}
				want := floats(t, outputs[fmt.Sprintf("pos_embed_r%d", i)])
				got := stored(t, store, naming.VisionPrefix+cfg.PositionName())
				if len(got) != len(want) {
					t.Fatalf("%d positions, want %d", len(got), len(want))
				}
				for k := range want {
					diff := math.Abs(float64(got[k] - want[k]))
					if diff > c.Tolerance.Atol+c.Tolerance.Rtol*math.Abs(float64(want[k])) {
						t.Fatalf("size %d: position value %d is %v, want %v", size, k, got[k], want[k])
					}
				}
			}
		})
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecordedConversion loads recorded BLIP-2 models under the names of LAVIS and of transformers: the same encoder.
func TestRecordedConversion(t *testing.T) {
	for _, name := range []string{"hf-convert-itm", "hf-convert-opt", "hf-convert-t5"} {
		t.Run(name, func(t *testing.T) {
			dir := golden(t, name)
			var c struct {
				Config struct {
					ImageSize int     `json:"image_size"`
					PatchSize int     `json:"patch_size"`
					Width     int     `json:"vit_width"`
					Layers    int     `json:"vit_layers"`
					Heads     int     `json:"vit_heads"`
					MLPRatio  float64 `json:"vit_mlp_ratio"`
				}
			}
			readJSON(t, filepath.Join(dir, "case.json"), &c)
			cfg := vit.Config{Arch: vit.EVA, ImageSize: c.Config.ImageSize, PatchSize: c.Config.PatchSize,
				Width: c.Config.Width, Layers: c.Config.Layers, Heads: c.Config.Heads, MLPRatio: c.Config.MLPRatio}
			lavis := filepath.Join(dir, "weights.safetensors")
			for _, path := range []string{lavis, filepath.Join(dir, "hf")} {
				store := mlx.NewStore()
				cov, err := LoadVision(store, cfg, path, Options{})
				if err != nil {
					t.Fatal(err)
				}
				t.Log(cov)
				mustEqual(t, store, model.Prefixed(naming.VisionPrefix, vit.Params(cfg)), read(t, lavis))
			}
		})
	}
}

// TestContainers loads halves and the shards of a folder.
func TestContainers(t *testing.T) {
	cfg := small(vit.EVA).Vision
	full := encoder(cfg)
	half := full.clone()
	for name, x := range half {
		half[name] = bfloat16(t, x)
	}
	store := mlx.NewStore()
	if _, err := LoadVision(store, cfg, half.file(t), Options{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, store, model.Prefixed(naming.VisionPrefix, vit.Params(cfg)), prefixed(half))

	dir := t.TempDir()
	shards, index := [2]state{{}, {}}, map[string]string{}
	for name, x := range full {
		i := len(name) % 2
		shards[i][name] = x
		index[name] = fmt.Sprintf("model-%d.safetensors", i)
	}
	for i, s := range shards {
		s.write(t, filepath.Join(dir, fmt.Sprintf("model-%d.safetensors", i)))
	}
	data, err := json.Marshal(map[string]any{"weight_map": index})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, weights.IndexFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	// Over what an earlier start left in the store.
	if _, err := LoadVision(store, cfg, dir, Options{}); err != nil {
		t.Fatal(err)
	}
	mustEqual(t, store, model.Prefixed(naming.VisionPrefix, vit.Params(cfg)), prefixed(full))
}

// bfloat16 cuts numbers to their upper halves.
func bfloat16(t *testing.T, x weights.Tensor) weights.Tensor {
	out := weights.Tensor{DType: weights.BF16, Shape: x.Shape}
	for _, v := range floats(t, x) {
		bits := math.Float32bits(v)
		out.Data = append(out.Data, byte(bits>>16), byte(bits>>24))
	}
	return out
}

// TestVisionErrors spoils files: the error names the tensor, and the store stays empty.
func TestVisionErrors(t *testing.T) {
	eva, clip := small(vit.EVA).Vision, small(vit.CLIP).Vision
	without := func(s state, name string) state { delete(s, name); return s }
	with := func(s state, name string, shape ...int) state { s.add(name, shape...); return s }
	keyBias := func() state {
		s := evaHF(t, encoder(eva), true)
		name := "vision_model.encoder.layers.1.self_attn.qkv.bias"
		values := floats(t, s[name])
		values[12+5] = 1e-9
		s[name] = weights.FromFloat32(name, []int{36}, values)
		return s
	}
	const kProj = "vision_model.encoder.layers.0.self_attn.k_proj.weight"
	integers := encoder(eva)
	integers["cls_token"] = weights.FromInt64("", []int{1, 1, 12}, make([]int64, 12))
	for name, c := range map[string]struct {
		cfg  vit.Config
		file state
		says []string
	}{
		"missing": {eva, without(encoder(eva), "blocks.1.attn.v_bias"),
			[]string{"1 tensors are missing: visual_encoder.blocks.1.attn.v_bias"}},
		"unexpected": {eva, with(encoder(eva), "blocks.0.ls1.gamma", 12),
			[]string{"1 tensors are not known: blocks.0.ls1.gamma"}},
		"part missing": {clip, without(clipHF(t, encoder(clip)), kProj),
			[]string{"resblocks.0.attn.in_proj_weight (of " + kProj + ")"}},
		"fewer blocks": {func() vit.Config { c := eva; c.Layers = 4; return c }(), encoder(eva),
			[]string{"13 tensors are missing", "blocks.3.", "sizes under vision"}},
		"shape": {eva, with(encoder(eva), "blocks.0.norm1.bias", 13),
			[]string{"visual_encoder.blocks.0.norm1.bias has shape [13], the model needs [12]"}},
		"ragged rows": {clip, with(clipHF(t, encoder(clip)), kProj, 12, 11),
			[]string{"k_proj.weight is F32 [12 11]"}},
		"no square": {eva, with(encoder(eva), "pos_embed", 1, 11, 12),
			[]string{"pos_embed has shape [1 11 12]", "square"}},
		"position width": {eva, with(encoder(eva), "pos_embed", 1, 10, 13),
			[]string{"pos_embed has shape [1 10 13]"}},
		"key bias": {eva, keyBias(), []string{"layers.1.self_attn.qkv.bias", "key 5 is 1e-09"}},
		"twice": {eva, with(evaHF(t, encoder(eva), true), "vision_model.encoder.layers.0.self_attn.q_bias", 12),
			[]string{"self_attn.q_bias and", "both stand for visual_encoder.blocks.0.attn.q_bias"}},
		"arch":     {clip, encoder(eva), []string{"EVA-CLIP", "vision.arch is clip", "set vision.arch to eva"}},
		"hf arch":  {eva, clipHF(t, encoder(clip)), []string{"CLIP under Hugging Face", "set vision.arch to clip"}},
		"integers": {eva, integers, []string{"cls_token", "I64"}},
		"other": {eva, state{"encoder.block.0.layer.0.SelfAttention.q.weight": array("", 2)},
			[]string{"no image encoder is in it", "SelfAttention.q.weight"}},
		"frozen encoder": {eva, state{"ln_vision.bias": array("", 12), "Qformer.cls.predictions.bias": array("", 2)},
			[]string{"no image encoder is in it", "frozen"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := mlx.NewStore()
			path := c.file.file(t)
			_, err := LoadVision(store, c.cfg, path, Options{})
			says(t, err, append(c.says, path)...)
			if n := size(store); n != 0 && name != "key bias" && name != "integers" {
				t.Errorf("%d tensors in the store after an error", n)
			}
		})
	}
	pickle := filepath.Join(t.TempDir(), "eva_vit_g.pth")
	if err := os.WriteFile(pickle, []byte("PK\x03\x04 and so on and on"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadVision(mlx.NewStore(), vit.Config{Arch: "resnet"}, pickle, Options{})
	says(t, err, "resnet")
	_, err = LoadVision(mlx.NewStore(), eva, "no-such-file", Options{})
	says(t, err, "no-such-file")
	_, err = LoadVision(mlx.NewStore(), eva, pickle, Options{})
	says(t, err, "eva_vit_g.pth", "zip archive that is cut off")
}
