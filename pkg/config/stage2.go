package config

// Stage2 is the configuration of stage-2 training (`blip2 pretrain-stage2`): vision-to-language generative learning in
// front of a frozen language model. Defaults are the paper's values for ViT-g and OPT.
type Stage2 struct {
	Preset     string      `yaml:"preset" oneof:"|lavis" hash:"-" doc:"lavis: the recipe of the released code"`
	Seed       int64       `yaml:"seed" in:"[0,)" doc:"seed of everything random"`
	Backend    string      `yaml:"backend" hash:"-" doc:"go, xla:cpu, xla:cuda, xla:/path/plugin.so or auto"`
	Devices    Devices     `yaml:"devices" hash:"-" doc:"devices that share a batch; auto: all GPUs, or 1"`
	Mesh       Mesh        `yaml:"mesh" hash:"-" doc:"what each of several devices holds"`
	Stage1     string      `yaml:"stage1" path:"file" doc:"run or checkpoint to start from; empty: without stage 1"`
	Device     Device      `yaml:"device" doc:"accelerator memory and number format"`
	Vision     Vision      `yaml:"vision" doc:"image encoder (ViT)"`
	QFormer    Queries     `yaml:"qformer" doc:"querying transformer, its query side"`
	LLM        LLM         `yaml:"llm" doc:"frozen language model"`
	Text       LLMText     `yaml:"text" doc:"captions as the language model reads them"`
	Data       Data        `yaml:"data" doc:"image-text pairs"`
	Optim      Optim       `yaml:"optim" doc:"AdamW and the learning-rate schedule"`
	Train      Train       `yaml:"train" doc:"length of the training"`
	Checkpoint Checkpoint  `yaml:"checkpoint" hash:"-" doc:"what is saved on the way"`
	Eval       CaptionEval `yaml:"eval" hash:"-" doc:"captions before and after the training"`
	Report     Report      `yaml:"report" hash:"-" doc:"report.html"`
	Run        Run         `yaml:"run" hash:"-" doc:"run folder"`
}

// Queries is the query side of the Q-Former: what stage 2 has of it.
type Queries struct {
	Preset             string  `yaml:"preset" oneof:"|bert-base" hash:"-" doc:"named sizes for this section"`
	Hidden             int     `yaml:"hidden" in:"[1,65536]" doc:"width; a multiple of heads"`
	Layers             int     `yaml:"layers" in:"[1,1024]" doc:"transformer layers"`
	Heads              int     `yaml:"heads" in:"[1,1024]" doc:"attention heads"`
	Intermediate       int     `yaml:"intermediate" in:"[1,262144]" doc:"feed-forward width"`
	QueryTokens        int     `yaml:"query_tokens" in:"[1,4096]" doc:"learned queries per image"`
	CrossAttentionFreq int     `yaml:"cross_attention_freq" in:"[1,1024]" doc:"layers 0, n, 2n, ... have it"`
	LayerNormEps       float64 `yaml:"layer_norm_eps" in:"(0,1]" doc:"epsilon of all LayerNorms"`
	InitStd            float64 `yaml:"initializer_range" in:"(0,1]" doc:"spread of weights drawn from scratch"`
	Dropout            float64 `yaml:"dropout" in:"[0,1)" doc:"dropout in training"`
	Weights            string  `yaml:"weights" path:"file" doc:"BERT to start from where stage1 is empty"`
}

// LLM is the frozen language model.
type LLM struct {
	Path      string    `yaml:"path" path:"dir" required:"true" doc:"folder of OPT or Flan-T5 with its tokenizer"`
	DType     string    `yaml:"dtype" oneof:"auto|f32|bf16|f16" doc:"type of its stored weights; auto: device.dtype"`
	Dropout   bool      `yaml:"dropout" doc:"its own dropout is active in training, as in LAVIS"`
	Remat     bool      `yaml:"remat" hash:"-" doc:"compute its layers again in the backward pass, to save memory"`
	LossChunk AutoCount `yaml:"loss_chunk" hash:"-" doc:"tokens whose logits are held at once; 0 for all, or auto"`
}

// LLMText is the caption processor and how a caption becomes the language model's text.
type LLMText struct {
	MaxLen    int    `yaml:"max_len" in:"[2,65536]" doc:"tokens per text, </s> included"`
	MaxWords  int    `yaml:"max_words" in:"[1,65536]" doc:"words kept of a caption before tokenising"`
	Prompt    string `yaml:"prompt" doc:"in front of every caption; nothing is learned from it"`
	Prefix    string `yaml:"prefix" oneof:"random|empty" doc:"T5: its encoder reads the caption's start, or nothing"`
	SplitUnit string `yaml:"split_unit" oneof:"word|token" doc:"T5: what captions are cut into to find that start"`
	PadTo     int    `yaml:"pad_to" in:"[0,65536]" doc:"text lengths are multiples of it; 0: always max_len"`
}

// CaptionEval is the evaluation of captions around the training.
type CaptionEval struct {
	Captions  bool    `yaml:"captions" doc:"write captions and score them (CIDEr, BLEU-4, ROUGE-L)"`
	Before    bool    `yaml:"before" doc:"evaluate before the training too, for comparison"`
	Every     Count   `yaml:"every" in:"[0,)" doc:"steps between evaluations during the training; 0 for none"`
	MaxImages int     `yaml:"max_images" in:"[0,)" doc:"images of each set that are captioned; 0 for all"`
	BatchSize int     `yaml:"batch_size" in:"[1,1048576]" doc:"images that are captioned together"`
	Prompt    string  `yaml:"prompt" doc:"what the captions go on from"`
	Beams     int     `yaml:"beams" in:"[1,1024]" doc:"beams of the search; 1 is greedy"`
	MinTokens int     `yaml:"min_tokens" in:"[0,65536]" doc:"new tokens at least"`
	MaxTokens int     `yaml:"max_tokens" in:"[1,65536]" doc:"new tokens at most"`
	LenPower  float64 `yaml:"length_penalty" in:"[-100,100]" doc:"power of the length that scores are divided by"`
}

// Common returns the sections that every training has.
func (s *Stage2) Common() Common {
	return Common{Seed: s.Seed, Mesh: s.Mesh, Data: s.Data, Optim: s.Optim, Train: s.Train, Checkpoint: s.Checkpoint,
		Eval: Eval{Before: s.Eval.Before, Every: s.Eval.Every}, Report: s.Report}
}

// Changed is Changed since the configuration that a file holds; nothing if it cannot be read.
func (s *Stage2) Changed(path string) []string {
	before, _, err := LoadStage2(LoadOptions{Path: path})
	if err != nil {
		return nil
	}
	return Changed(before, s)
}

// Hash is Hash of the configuration.
func (s *Stage2) Hash() string { return Hash(s) }

// YAML is YAML of the configuration.
func (s *Stage2) YAML() []byte { return YAML(s) }

// DefaultStage2 returns the paper's values: ViT-g/14, batch 1920 (OPT), 80k steps. Where the paper is silent it is the
// released LAVIS configuration.
func DefaultStage2() *Stage2 {
	one := DefaultStage1()
	s := &Stage2{
		Seed: one.Seed, Backend: one.Backend, Devices: one.Devices, Device: one.Device,
		Vision: Vision{Arch: "eva", ImageSize: 224, PatchSize: 14, Width: 1408, Layers: 39, Heads: 16, MLPRatio: 4.3637,
			LayerNormEps: 1e-6, LNVisionEps: 1e-5, InitStd: 0.02, Freeze: true},
		QFormer: Queries{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, QueryTokens: 32, CrossAttentionFreq: 2,
			LayerNormEps: 1e-12, InitStd: 0.02, Dropout: 0.1},
		LLM:  LLM{DType: "auto", Dropout: true, LossChunk: Auto},
		Text: LLMText{MaxLen: 32, MaxWords: 50, Prefix: "random", SplitUnit: "word", PadTo: 16},
		Data: one.Data, Optim: one.Optim, Train: one.Train, Checkpoint: one.Checkpoint, Report: one.Report, Run: one.Run,
		Eval: CaptionEval{Captions: true, MaxImages: 500, BatchSize: 16, Prompt: "a photo of", Beams: 5, MinTokens: 1,
			MaxTokens: 30, LenPower: 1},
	}
	s.Optim.MinLR = 5e-5
	s.Train.Steps, s.Train.BatchSize = 80_000, 1920
	return s
}

// LoadStage2 loads the configuration of `blip2 pretrain-stage2`; see Load.
func LoadStage2(opts LoadOptions) (*Stage2, *Sources, error) {
	presets := Presets{
		"": {"lavis": `{optim: {schedule: lavis, lr: 1e-4, min_lr: 1e-5, warmup_lr: 1e-6, warmup_steps: 2000, 
			betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.05, decay_rule: lavis, layer_decay: 1, grad_clip: 0, loss_scale: dynamic}}`},
		"vision": stage1Presets()["vision"],
		"qformer": {"bert-base": `{hidden: 768, layers: 12, heads: 12, intermediate: 3072, layer_norm_eps: 1e-12,
			dropout: 0.1}`},
	}
	return Load(Schema[Stage2]{Default: DefaultStage2, Presets: presets, Check: checkStage2}, opts)
}

// checkStage2 holds the rules between fields of Stage2.
func checkStage2(s *Stage2, c *Checker) {
	vision := s.Vision
	if s.Stage1 != "" {
		vision.Freeze = false // its weights may come with stage 1
	}
	checkVision(vision, c)
	if q := s.QFormer; q.Heads > 0 && q.Hidden%q.Heads != 0 {
		c.Failf([]string{"qformer.heads", "qformer.hidden"}, "hidden %d is not a multiple of heads %d", q.Hidden, q.Heads)
	}
	if s.Stage1 != "" && s.QFormer.Weights != "" {
		c.Failf([]string{"stage1", "qformer.weights"}, "the Q-Former starts from stage 1 or from "+
			"qformer.weights, not from both")
	}
	if s.Stage1 == "" && s.QFormer.Weights == "" {
		c.Warnf("stage1 and qformer.weights are empty: the Q-Former starts from random weights")
	}
	if s.Eval.MinTokens > s.Eval.MaxTokens {
		c.Failf([]string{"eval.min_tokens", "eval.max_tokens"}, "min_tokens %d is more than max_tokens %d", s.Eval.MinTokens,
			s.Eval.MaxTokens)
	}
	checkData(s.Data, c)
	checkShares(s.Train, s.Devices, 1, c)
	checkOptim(s.Optim, s.Train.Steps, s.Vision.Freeze, c)
	checkMicroBatches(s.Train, Loss{}, c)
	checkBest(s.Checkpoint.Best, s.Eval.Captions && s.Eval.Every > 0, s.Data, CaptionScores(), c)
	checkRun(s.Run, c)
}
