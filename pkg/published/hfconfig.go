package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// configFile is where a folder of transformers says what network it holds.
const configFile = "config.json"

// maxConfig bounds the size of configuration files; published ones have a few kilobytes.
const maxConfig = 16 << 20

// ReadConfig reads the config.json of a folder of transformers. Values that the file leaves out are those of the
// library's classes, as when the library reads it. Errors name the file and the key.
func ReadConfig(dir string) (Spec, error) {
	path := filepath.Join(dir, configFile)
	raw, err := readSmall(path)
	if err != nil {
		return Spec{}, err
	}
	s, err := ParseConfig(raw)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// readSmall reads a file of at most maxConfig bytes.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConfig || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", path, maxConfig)
	}
	return os.ReadFile(path)
}

// ParseConfig is ReadConfig for the contents of the file.
func ParseConfig(raw []byte) (Spec, error) {
	s, err := parseConfig(raw)
	if err != nil {
		return Spec{}, err
	}
	for _, size := range s.sizes() {
		if size.n <= 0 {
			return Spec{}, fmt.Errorf("the %s is %d", size.what, size.n)
		}
	}
	return s, s.Validate()
}

// parseConfig is ParseConfig without looking at the sizes.
func parseConfig(raw []byte) (Spec, error) {
	var head struct {
		ModelType     string   `json:"model_type"`
		Architectures []string `json:"architectures"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Spec{}, readable(err, "")
	}
	arch := ""
	if len(head.Architectures) > 0 {
		arch = head.Architectures[0]
	}
	switch head.ModelType {
	case "blip-2":
		return parseBLIP2(raw, arch)
	case "opt":
		cfg, eos, err := parseOPT(raw)
		return Spec{Model: naming.OPT, OPT: &cfg, EOS: eos}, err
	case "t5":
		cfg, err := parseT5(raw)
		return Spec{Model: naming.T5, T5: &cfg}, err
	case "clip":
		return parseCLIP(raw)
	case "blip":
		return parseBLIP(raw)
	case "bert":
		return parseBERT(raw)
	}
	return Spec{}, fmt.Errorf("model_type %q is not known; known are blip-2, opt, t5, clip, blip and bert", head.ModelType)
}

// into decodes raw over the defaults in v; absent and null keep them.
func into(raw []byte, key string, v any) error {
	if len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return readable(err, key)
	}
	return nil
}

// readable says of a value of the wrong kind which key it has, below the given one, and what it should be.
func readable(err error, key string) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		want := map[reflect.Kind]string{reflect.Int: "a whole number", reflect.Float64: "a number", reflect.String: "text",
			reflect.Bool: "true or false", reflect.Struct: "an object", reflect.Slice: "a list"}[kind.Type.Kind()]
		name := strings.Trim(key+"."+kind.Field, ".")
		if name == "" {
			name = "the file"
		}
		return fmt.Errorf("%s is of the kind %s, want %s", name, kind.Value, want)
	}
	if key != "" {
		return fmt.Errorf("%s: %w", key, err)
	}
	return err
}

// endID is the token that ends a text: a number or, as newer files have it, a list of one.
type endID int

// UnmarshalJSON reads either form; null keeps the value.
func (id *endID) UnmarshalJSON(raw []byte) error {
	list := []int{int(*id)}
	var into any = &list
	if raw[0] != '[' {
		into = &list[0]
	}
	if json.Unmarshal(raw, into) != nil { // whose error does not know the key
		return errors.New("eos_token_id: want a whole number, or a list of one")
	}
	if len(list) != 1 {
		return fmt.Errorf("eos_token_id is a list of %d tokens, but texts end with one here: leave the one in it that the "+
			"model was trained with", len(list))
	}
	*id = endID(list[0])
	return nil
}

// visionJSON are the keys of an image encoder's configuration.
type visionJSON struct {
	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	ImageSize    int     `json:"image_size"`
	PatchSize    int     `json:"patch_size"`
	Act          string  `json:"hidden_act"`
	Eps          float64 `json:"layer_norm_eps"`
	QKVBias      *bool   `json:"qkv_bias"`
}

// vit returns the encoder, of which the architecture demands the activation.
func (v visionJSON) vit(arch, act string) (*vit.Config, error) {
	switch {
	case v.Act != act:
		return nil, fmt.Errorf("vision_config.hidden_act is %q, that of the network is %q", v.Act, act)
	case v.QKVBias != nil && !*v.QKVBias:
		return nil, errors.New("vision_config.qkv_bias is false, but the network's queries and values have a bias")
	}
	cfg := &vit.Config{Arch: arch, ImageSize: v.ImageSize, PatchSize: v.PatchSize, Width: v.Hidden, Layers: v.Layers,
		Heads: v.Heads, MLPRatio: vit.RatioOf(v.Intermediate, v.Hidden), LayerNormEps: v.Eps}
	return cfg, nil
}

// bertJSON are the keys that BERT, the Q-Former and BLIP's decoder share.
type bertJSON struct {
	Vocab        int     `json:"vocab_size"`
	Hidden       int     `json:"hidden_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	Intermediate int     `json:"intermediate_size"`
	Positions    int     `json:"max_position_embeddings"`
	Act          string  `json:"hidden_act"`
	Eps          float64 `json:"layer_norm_eps"`
	Dropout      float64 `json:"hidden_dropout_prob"`
	CrossFreq    int     `json:"cross_attention_frequency"`
	TextInput    bool    `json:"use_qformer_text_input"`
	BOS          int     `json:"bos_token_id"`
	SEP          int     `json:"sep_token_id"`
	PositionType string  `json:"position_embedding_type"`
}

// check reports what a BERT of this program cannot be.
func (b bertJSON) check(key string) error {
	switch {
	case b.Act != "gelu":
		return fmt.Errorf("%shidden_act is %q, that of the network is \"gelu\"", key, b.Act)
	case b.PositionType != "" && b.PositionType != "absolute":
		return fmt.Errorf("%sposition_embedding_type is %q, that of the network is \"absolute\"", key, b.PositionType)
	}
	return nil
}

func parseBLIP2(raw []byte, arch string) (Spec, error) {
	top := struct {
		Queries    int             `json:"num_query_tokens"`
		EmbedDim   int             `json:"image_text_hidden_size"`
		ImageToken *int            `json:"image_token_index"`
		Vision     json.RawMessage `json:"vision_config"`
		QFormer    json.RawMessage `json:"qformer_config"`
		Text       json.RawMessage `json:"text_config"`
	}{Queries: 32, EmbedDim: 256}
	vision := visionJSON{Hidden: 1408, Intermediate: 6144, Layers: 39, Heads: 16, ImageSize: 224, PatchSize: 14,
		Act: "gelu", Eps: 1e-6}
	q := bertJSON{Vocab: 30522, Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Positions: 512, Act: "gelu",
		Eps: 1e-12, Dropout: 0.1, CrossFreq: 2}
	if err := into(raw, "", &top); err != nil {
		return Spec{}, err
	}
	err := errors.Join(into(top.Vision, "vision_config", &vision), into(top.QFormer, "qformer_config", &q))
	if err != nil {
		return Spec{}, err
	}
	if err := q.check("qformer_config."); err != nil {
		return Spec{}, err
	}
	encoder, err := vision.vit(vit.EVA, "gelu")
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Model: naming.BLIP2Stage1, Vision: encoder, LNVisionEps: vision.Eps, QFormerText: q.TextInput,
		EmbedDim: top.EmbedDim, ImageToken: top.ImageToken,
		QFormer: &qformer.Config{Hidden: q.Hidden, Layers: q.Layers, Heads: q.Heads, Intermediate: q.Intermediate,
			Queries: top.Queries, CrossAttentionFreq: q.CrossFreq, Vocab: q.Vocab, MaxPositions: q.Positions,
			LayerNormEps: q.Eps, Dropout: q.Dropout,
			EncoderWidth: vision.Hidden, // whatever encoder_hidden_size says: the library overwrites it
		}}
	if arch != "Blip2ForImageTextRetrieval" && !q.TextInput {
		s.EmbedDim, s.QFormer.Vocab, s.QFormer.MaxPositions = 0, 0, 0
		if err := s.addLLM(top.Text); err != nil {
			return Spec{}, fmt.Errorf("text_config: %w", err)
		}
	}
	return s.withLLMWidth(), nil
}

// addLLM reads the language model of BLIP-2.
func (s *Spec) addLLM(raw json.RawMessage) error {
	head := struct {
		ModelType string `json:"model_type"`
	}{ModelType: "opt"}
	if err := into(raw, "", &head); err != nil {
		return err
	}
	switch head.ModelType {
	case "opt":
		cfg, eos, err := parseOPT(raw)
		s.Model, s.OPT, s.EOS = naming.BLIP2OPT, &cfg, eos
		return err
	case "t5":
		cfg, err := parseT5(raw)
		s.Model, s.T5, s.EOS = naming.BLIP2T5, &cfg, 1
		return err
	}
	return fmt.Errorf("model_type %q is not known; BLIP-2 has opt or t5", head.ModelType)
}

func parseOPT(raw []byte) (cfg opt.Config, eos int, err error) {
	c := optJSON{Vocab: 50272, Hidden: 768, Layers: 12, Heads: 12, FFN: 3072, Positions: 2048, Act: "relu",
		NormBefore: true, Bias: true, Affine: true, Dropout: 0.1, EOS: 2}
	if err := into(raw, "", &c); err != nil {
		return cfg, 0, err
	}
	switch {
	case c.Act != "relu":
		return cfg, 0, fmt.Errorf("activation_function is %q, that of OPT is \"relu\"", c.Act)
	case !c.Bias || !c.Affine || c.NoFinalNorm:
		return cfg, 0, errors.New("enable_bias, layer_norm_elementwise_affine or _remove_final_layer_norm is not OPT's")
	}
	cfg = opt.Config{Vocab: c.Vocab, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, FFN: c.FFN,
		Positions: c.Positions, PostNorm: !c.NormBefore, LayerNormEps: 1e-5, Dropout: c.Dropout,
		AttentionDropout: c.AttentionDropout}
	if c.EmbedDim != 0 && c.EmbedDim != c.Hidden {
		cfg.EmbedDim = c.EmbedDim
	}
	return cfg, int(c.EOS), nil
}

// optJSON are the keys of OPT's configuration.
type optJSON struct {
	Vocab            int     `json:"vocab_size"`
	Hidden           int     `json:"hidden_size"`
	Layers           int     `json:"num_hidden_layers"`
	Heads            int     `json:"num_attention_heads"`
	FFN              int     `json:"ffn_dim"`
	Positions        int     `json:"max_position_embeddings"`
	EmbedDim         int     `json:"word_embed_proj_dim"`
	Act              string  `json:"activation_function"`
	NormBefore       bool    `json:"do_layer_norm_before"`
	NoFinalNorm      bool    `json:"_remove_final_layer_norm"`
	Bias             bool    `json:"enable_bias"`
	Affine           bool    `json:"layer_norm_elementwise_affine"`
	Dropout          float64 `json:"dropout"`
	AttentionDropout float64 `json:"attention_dropout"`
	EOS              endID   `json:"eos_token_id"`
}

func parseT5(raw []byte) (cfg t5.Config, err error) {
	c := struct {
		Vocab         int     `json:"vocab_size"`
		Hidden        int     `json:"d_model"`
		HeadDim       int     `json:"d_kv"`
		FFN           int     `json:"d_ff"`
		Layers        int     `json:"num_layers"`
		DecoderLayers int     `json:"num_decoder_layers"`
		Heads         int     `json:"num_heads"`
		Buckets       int     `json:"relative_attention_num_buckets"`
		MaxDistance   int     `json:"relative_attention_max_distance"`
		Dropout       float64 `json:"dropout_rate"`
		Eps           float64 `json:"layer_norm_epsilon"`
		FeedForward   string  `json:"feed_forward_proj"`
		Act           string  `json:"dense_act_fn"`
		Tied          bool    `json:"tie_word_embeddings"`
	}{Vocab: 32128, Hidden: 512, HeadDim: 64, FFN: 2048, Layers: 6, Heads: 8, Buckets: 32, MaxDistance: 128,
		Dropout: 0.1, Eps: 1e-6, FeedForward: "relu", Tied: true}
	if err := into(raw, "", &c); err != nil {
		return cfg, err
	}
	if c.Tied {
		return cfg, errors.New("tie_word_embeddings is true: this is the first T5, whose output layer is the embedding " +
			"table; BLIP-2 has Flan-T5, with a layer of its own")
	}
	if c.FeedForward != "gated-gelu" {
		return cfg, fmt.Errorf("feed_forward_proj is %q, that of Flan-T5 is \"gated-gelu\"", c.FeedForward)
	}
	if c.Act == "" {
		c.Act = string(nn.GELUNew)
	}
	if c.DecoderLayers == 0 {
		c.DecoderLayers = c.Layers
	}
	cfg = t5.Config{Vocab: c.Vocab, Hidden: c.Hidden, HeadDim: c.HeadDim, Heads: c.Heads, FFN: c.FFN,
		EncoderLayers: c.Layers, DecoderLayers: c.DecoderLayers, Activation: nn.Activation(c.Act), Buckets: c.Buckets,
		MaxDistance: c.MaxDistance, RMSNormEps: c.Eps, Dropout: c.Dropout}
	return cfg, nil
}

// parseCLIP reads CLIPConfig; older files repeat the parts under *_config_dict, which then count.
func parseCLIP(raw []byte) (Spec, error) {
	top := struct {
		Embed      int             `json:"projection_dim"`
		Text       json.RawMessage `json:"text_config"`
		TextDict   json.RawMessage `json:"text_config_dict"`
		Vision     json.RawMessage `json:"vision_config"`
		VisionDict json.RawMessage `json:"vision_config_dict"`
	}{Embed: 512}
	if err := into(raw, "", &top); err != nil {
		return Spec{}, err
	}
	vision := visionJSON{Hidden: 768, Intermediate: 3072, Layers: 12, Heads: 12, ImageSize: 224, PatchSize: 32,
		Act: "quick_gelu", Eps: 1e-5}
	text := bertJSON{Vocab: 49408, Hidden: 512, Layers: 12, Heads: 8, Intermediate: 2048, Positions: 77,
		Act: "quick_gelu", Eps: 1e-5}
	err := errors.Join(into(top.Vision, "vision_config", &vision), into(top.VisionDict, "vision_config_dict", &vision),
		into(top.Text, "text_config", &text), into(top.TextDict, "text_config_dict", &text))
	if err != nil {
		return Spec{}, err
	}
	if text.Act != "quick_gelu" {
		return Spec{}, fmt.Errorf("text_config.hidden_act is %q, that of OpenAI's CLIP is \"quick_gelu\"", text.Act)
	}
	image, err := vision.vit(vit.CLIP, "quick_gelu")
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Model: naming.CLIP, CLIP: &clip.Config{Image: *image, Embed: top.Embed,
		Text: clip.Text{Vocab: text.Vocab, Context: text.Positions, Width: text.Hidden, Layers: text.Layers,
			Heads: text.Heads, MLP: text.Intermediate, LayerNormEps: text.Eps}}}
	return s, nil
}

func parseBLIP(raw []byte) (Spec, error) {
	var top struct {
		Text   json.RawMessage `json:"text_config"`
		Vision json.RawMessage `json:"vision_config"`
	}
	vision := visionJSON{Hidden: 768, Intermediate: 3072, Layers: 12, Heads: 12, ImageSize: 384, PatchSize: 16,
		Act: "gelu", Eps: 1e-5}
	text := bertJSON{Vocab: 30524, Hidden: 768, Layers: 12, Heads: 8, Intermediate: 3072, Positions: 512, Act: "gelu",
		Eps: 1e-12, BOS: 30522, SEP: 102}
	err := into(raw, "", &top)
	if err == nil {
		err = errors.Join(into(top.Vision, "vision_config", &vision), into(top.Text, "text_config", &text))
	}
	if err != nil {
		return Spec{}, err
	}
	if err := text.check("text_config."); err != nil {
		return Spec{}, err
	}
	encoder, err := vision.vit(vit.BLIP, "gelu")
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Model: naming.BLIPCaption, BOS: text.BOS, EOS: text.SEP, BLIP: &blip.Config{Vision: *encoder,
		Hidden: text.Hidden,
		Layers: text.Layers, Heads: text.Heads, Intermediate: text.Intermediate, Vocab: text.Vocab,
		MaxPositions: text.Positions, LayerNormEps: text.Eps}}
	return s, nil
}

func parseBERT(raw []byte) (Spec, error) {
	b := bertJSON{Vocab: 30522, Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Positions: 512, Act: "gelu",
		Eps: 1e-12, Dropout: 0.1}
	if err := into(raw, "", &b); err != nil {
		return Spec{}, err
	}
	s := Spec{Model: naming.BERT, BERT: &qformer.Config{Hidden: b.Hidden, Layers: b.Layers, Heads: b.Heads,
		Intermediate: b.Intermediate, Vocab: b.Vocab, MaxPositions: b.Positions, LayerNormEps: b.Eps, Dropout: b.Dropout}}
	return s, b.check("")
}
