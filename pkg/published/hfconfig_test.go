package published

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// TestParseConfig compares with what transformers 4.57.6 reads in configurations that it saved, and in the same without
// values that are its classes' defaults (testdata/configs.py).
func TestParseConfig(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "configs.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name          string
		Config, Terse json.RawMessage
		Spec          Spec
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 16 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		for form, config := range map[string]json.RawMessage{"saved": c.Config, "terse": c.Terse} {
			got, err := ParseConfig(config)
			if err != nil {
				t.Errorf("%s, %s: %v", c.Name, form, err)
				continue
			}
			sameSpec(t, c.Name+", "+form, got, c.Spec)
		}
	}
}

// TestParseConfigRefuses lists mistakes with what the error says.
func TestParseConfigRefuses(t *testing.T) {
	const flan = `"model_type":"t5","feed_forward_proj":"gated-gelu","tie_word_embeddings":false`
	for config, want := range map[string][]string{
		`{}`:                     {`model_type "" is not known`, "blip-2, opt, t5, clip, blip and bert"},
		`null`:                   {`model_type "" is not known`},
		`[]`:                     {"array"},
		`{"model_type":"opt"`:    {"unexpected end"},
		`{"model_type":7}`:       {"model_type"},
		`{"model_type":"llama"}`: {`model_type "llama" is not known`},
		`{"model_type":"blip-2","text_config":{"model_type":"llama"}}`: {"text_config",
			`"llama" is not known`, "opt or t5"},
		`{"model_type":"blip-2","text_config":7}`:    {"text_config"},
		`{"model_type":"blip-2","vision_config":[]}`: {"vision_config", "array"},
		`{"model_type":"blip-2","vision_config":{"hidden_size":"1408"}}`: {"vision_config",
			"hidden_size"},
		`{"model_type":"blip-2","vision_config":{"hidden_act":"quick_gelu"}}`: {"vision_config.hidden_act",
			"quick_gelu", "gelu"},
		`{"model_type":"blip-2","vision_config":{"num_attention_heads":7}}`: {"1408", "7 heads"},
		`{"model_type":"blip-2","vision_config":{"num_attention_heads":0}}`: {"0 heads"},
		`{"model_type":"blip-2","vision_config":{"patch_size":0}}`:          {"patch size is 0"},
		`{"model_type":"blip-2","vision_config":{"qkv_bias":false}}`:        {"vision_config.qkv_bias"},
		`{"model_type":"blip-2","qformer_config":{"hidden_act":"relu"}}`: {"qformer_config.hidden_act",
			"relu"},
		`{"model_type":"blip-2","qformer_config":{"cross_attention_frequency":0}}`:            {"cross_attention_freq"},
		`{"model_type":"blip-2","qformer_config":{"position_embedding_type":"relative_key"}}`: {"position_embedding_type"},
		`{"model_type":"blip-2","num_query_tokens":0}`:                                        {"number of queries is 0"},
		`{"model_type":"opt","activation_function":"gelu"}`: {"activation_function",
			"gelu", "relu"},
		`{"model_type":"opt","enable_bias":false}`:                           {"enable_bias"},
		`{"model_type":"opt","num_hidden_layers":-1}`:                        {"number of OPT's layers is -1"},
		`{"model_type":"opt","vocab_size":1e3}`:                              {"vocab_size"},
		`{"model_type":"opt","ffn_dim":null,"hidden_size":"8"}`:              {"hidden_size is of the kind string"},
		`{"model_type":"opt","eos_token_id":[50118,2]}`:                      {"eos_token_id is a list of 2 tokens"},
		`{"model_type":"opt","eos_token_id":[]}`:                             {"eos_token_id is a list of 0 tokens"},
		`{"model_type":"opt","eos_token_id":["2"]}`:                          {"eos_token_id: want a whole number"},
		`{"model_type":"opt","eos_token_id":"2"}`:                            {"eos_token_id: want a whole number"},
		`{"model_type":"t5"}`:                                                {"tie_word_embeddings", "Flan-T5"},
		`{"model_type":"t5","tie_word_embeddings":false}`:                    {"feed_forward_proj", "gated-gelu"},
		`{` + flan + `,"dense_act_fn":"silu"}`:                               {"silu"},
		`{` + flan + `,"num_heads":0}`:                                       {"number of T5's heads is 0"},
		`{"model_type":"clip","text_config":{"hidden_act":"gelu"}}`:          {"text_config.hidden_act", "quick_gelu"},
		`{"model_type":"clip","vision_config":{"hidden_act":"gelu"}}`:        {"vision_config.hidden_act", "quick_gelu"},
		`{"model_type":"clip","text_config_dict":{"num_attention_heads":7}}`: {"7 heads"},
		`{"model_type":"blip","text_config":{"hidden_act":"gelu_new"}}`:      {"text_config.hidden_act", "gelu_new"},
		`{"model_type":"blip","text_config":{"num_attention_heads":7}}`:      {"7 heads"},
		`{"model_type":"bert","hidden_act":"relu"}`:                          {"hidden_act", "relu"},
		`{"model_type":"bert","num_attention_heads":5}`:                      {"5 heads"},
	} {
		_, err := ParseConfig([]byte(config))
		says(t, config, err, want...)
	}
	for _, config := range []string{`{"model_type":"opt","ffn_dim":null}`, `{"model_type":"blip-2","text_config":null}`,
		`{"model_type":"clip","text_config":null,"vision_config_dict":null}`} {
		if _, err := ParseConfig([]byte(config)); err != nil {
			t.Errorf("%s: %v", config, err)
		}
	}
}

// Newer files may have a list where there was a number.
func TestEndInAList(t *testing.T) {
	for config, want := range map[string]int{
		`{"model_type":"opt","eos_token_id":[50118]}`:                                       50118,
		`{"model_type":"opt","eos_token_id":50118}`:                                         50118,
		`{"model_type":"opt","eos_token_id":null}`:                                          2,
		`{"model_type":"blip-2","text_config":{"model_type":"opt","eos_token_id":[50118]}}`: 50118,
	} {
		if s, err := ParseConfig([]byte(config)); err != nil || s.EOS != want {
			t.Errorf("%s: %d, %v; want %d", config, s.EOS, err, want)
		}
	}
}

// TestReadConfig names the file.
func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadConfig(dir); !os.IsNotExist(err) {
		t.Errorf("no file: error %v", err)
	}
	path := filepath.Join(dir, configFile)
	if err := os.WriteFile(path, []byte(`{"model_type":"x"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := ReadConfig(dir)
	says(t, "unknown", err, path, `"x" is not known`)
	if err := os.Truncate(path, maxConfig+1); err != nil {
		t.Fatal(err)
	}
	_, err = ReadConfig(dir)
	says(t, "too long", err, path, "at most")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = ReadConfig(dir)
	says(t, "a folder", err, path, "not a file")
}

// TestHFFiles: what is written for transformers is read here as the same.
func TestHFFiles(t *testing.T) {
	for name, spec := range tiny() {
		files, err := HFFiles(spec, weights.BF16)
		switch {
		case strings.HasSuffix(name, "-clip"):
			says(t, name, err, "EVA's image encoder only", "clip", "keep LAVIS's form")
			continue
		case spec.Model == naming.BERT || spec.Model == naming.EVAViT || spec.Model == naming.CLIPViT:
			says(t, name, err, "no folder of its own", spec.Model)
			continue
		case err != nil:
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := ParseConfig(files[configFile])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		sameSpec(t, name, got, spec)
		if !strings.Contains(string(files[configFile]), `"torch_dtype": "bfloat16"`) {
			t.Errorf("%s: no type in %s", name, files[configFile])
		}
		if spec.vision() == nil {
			continue
		}
		dir := t.TempDir()
		if err := writeFiles(dir, files); err != nil {
			t.Fatal(err)
		}
		p, err := ReadProcessor(dir, spec)
		if err != nil || p.Size != spec.vision().ImageSize || p.Crop != (name == "clip") {
			t.Errorf("%s: processor %+v, error %v", name, p, err)
		}
	}
	incomplete := tiny()["blip2-opt"]
	incomplete.Vision, incomplete.OPT = nil, nil
	_, err := HFFiles(incomplete, weights.F32)
	says(t, "incomplete", err, "image encoder is not in it", "language model is not in it")
	_, err = HFFiles(Spec{Model: "x"}, weights.F32)
	says(t, "unknown", err, `"x" is no network`)
}

// FuzzParseConfig: no bytes make it panic, and what it accepts has sound sizes and can be written again.
func FuzzParseConfig(f *testing.F) {
	for _, spec := range tiny() {
		if files, err := HFFiles(spec, weights.F32); err == nil {
			f.Add(files[configFile])
		}
	}
	f.Add([]byte(`{"model_type":"blip-2","vision_config":{"hidden_size":1e9}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseConfig(raw)
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Errorf("accepted, but %v", err)
		}
		if s.Model == naming.BERT {
			return
		}
		files, err := HFFiles(s, weights.F32)
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		if _, err := ParseConfig(files[configFile]); err != nil {
			t.Errorf("written, but not read: %v in %s", err, files[configFile])
		}
	})
}
