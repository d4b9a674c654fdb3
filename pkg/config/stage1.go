package config

// Stage1 is the configuration of stage-1 training (`blip2 pretrain-stage1`): vision-language representation
// learning with ITC, ITM and ITG. Defaults are the paper's values for ViT-L/14.
type Stage1 struct {
	Preset     string     `yaml:"preset" oneof:"|lavis" hash:"-" doc:"lavis: the recipe of the released code"`
	Seed       int64      `yaml:"seed" in:"[0,)" doc:"seed of everything random"`
	Backend    string     `yaml:"backend" hash:"-" doc:"go, xla:cpu, xla:cuda, xla:/path/plugin.so or auto"`
	Devices    Devices    `yaml:"devices" hash:"-" doc:"devices that share a batch; auto: all GPUs, or 1"`
	Mesh       Mesh       `yaml:"mesh" hash:"-" doc:"what each of several devices holds"`
	Device     Device     `yaml:"device" doc:"accelerator memory and number format"`
	Vision     Vision     `yaml:"vision" doc:"image encoder (ViT)"`
	QFormer    QFormer    `yaml:"qformer" doc:"querying transformer"`
	Text       Text       `yaml:"text" doc:"captions and tokenizer"`
	Loss       Loss       `yaml:"loss" doc:"the three objectives"`
	Data       Data       `yaml:"data" doc:"image-text pairs"`
	Optim      Optim      `yaml:"optim" doc:"AdamW and the learning-rate schedule"`
	Train      Train      `yaml:"train" doc:"length of the training"`
	Checkpoint Checkpoint `yaml:"checkpoint" hash:"-" doc:"what is saved on the way"`
	Eval       Eval       `yaml:"eval" hash:"-" doc:"retrieval before and after the training"`
	Report     Report     `yaml:"report" hash:"-" doc:"report.html"`
	Run        Run        `yaml:"run" hash:"-" doc:"run folder"`
}

// Device is the choice of number format and memory on the backend.
type Device struct {
	DType          string `yaml:"dtype" oneof:"auto|f32|bf16|f16" doc:"compute type; auto: f32 on CPU, bf16 on CUDA"`
	MemoryFraction Share  `yaml:"memory_fraction" in:"(0,1]" hash:"-" doc:"share of the GPU memory to use"`
	Preallocate    bool   `yaml:"preallocate" hash:"-" doc:"take that memory at the start"`
}

// Mesh says how a model lies on several devices. Trained tensors and optimizer slots are on each of them.
type Mesh struct {
	ShardFrozen bool `yaml:"shard_frozen" doc:"spread frozen weights over the devices, in place of a copy on each"`
}

// Vision is the image encoder. Layers counts the blocks used, which is one less than a published checkpoint has:
// BLIP-2 reads the features of the penultimate block.
type Vision struct {
	Preset       string  `yaml:"preset" oneof:"|clip-vit-l14|eva-vit-g14" hash:"-" doc:"named sizes for this section"`
	Arch         string  `yaml:"arch" oneof:"clip|eva" doc:"kind of ViT block"`
	ImageSize    int     `yaml:"image_size" in:"[1,4096]" doc:"side of the square input, in pixels"`
	PatchSize    int     `yaml:"patch_size" in:"[1,512]" doc:"side of a patch, in pixels; divides image_size"`
	Width        int     `yaml:"width" in:"[1,65536]" doc:"feature width; a multiple of heads"`
	Layers       int     `yaml:"layers" in:"[1,1024]" doc:"blocks used (published ViT minus its last)"`
	Heads        int     `yaml:"heads" in:"[1,1024]" doc:"attention heads"`
	MLPRatio     float64 `yaml:"mlp_ratio" in:"(0,64]" doc:"hidden width of the MLP over width"`
	LayerNormEps float64 `yaml:"layer_norm_eps" in:"(0,1]" doc:"epsilon of the LayerNorms in the ViT"`
	LNVisionEps  float64 `yaml:"ln_vision_eps" in:"(0,1]" doc:"epsilon of ln_vision, after the ViT"`
	InitStd      float64 `yaml:"initializer_range" in:"(0,1]" doc:"spread of weights drawn from scratch"`
	Freeze       bool    `yaml:"freeze" doc:"do not train the ViT (ln_vision is always trained)"`
	Remat        bool    `yaml:"remat" hash:"-" doc:"compute a trained ViT's blocks twice to save memory"`
	Weights      string  `yaml:"weights" path:"file" doc:"ViT checkpoint; empty for random weights"`
}

// QFormer is the Q-Former: a BERT skeleton with query tokens and cross-attention in every
// CrossAttentionFreq-th layer.
type QFormer struct {
	Preset             string  `yaml:"preset" oneof:"|bert-base" hash:"-" doc:"named sizes for this section"`
	Hidden             int     `yaml:"hidden" in:"[1,65536]" doc:"width; a multiple of heads"`
	Layers             int     `yaml:"layers" in:"[1,1024]" doc:"transformer layers"`
	Heads              int     `yaml:"heads" in:"[1,1024]" doc:"attention heads"`
	Intermediate       int     `yaml:"intermediate" in:"[1,262144]" doc:"feed-forward width"`
	QueryTokens        int     `yaml:"query_tokens" in:"[1,4096]" doc:"learned queries per image"`
	CrossAttentionFreq int     `yaml:"cross_attention_freq" in:"[1,1024]" doc:"layers 0, n, 2n, ... have it"`
	MaxPositions       int     `yaml:"max_positions" in:"[1,65536]" doc:"rows of the text position table"`
	LayerNormEps       float64 `yaml:"layer_norm_eps" in:"(0,1]" doc:"epsilon of all LayerNorms"`
	InitStd            float64 `yaml:"initializer_range" in:"(0,1]" doc:"spread of weights drawn from scratch"`
	Dropout            float64 `yaml:"dropout" in:"[0,1)" doc:"dropout in training"`
	EmbedDim           int     `yaml:"embed_dim" in:"[1,65536]" doc:"width of the ITC features"`
	Weights            string  `yaml:"weights" path:"file" doc:"BERT checkpoint; empty for random"`
}

// Text is the caption processor and the tokenizer of the Q-Former.
type Text struct {
	Vocab    string `yaml:"vocab" path:"file" required:"true" doc:"WordPiece vocabulary (vocab.txt)"`
	MaxLen   int    `yaml:"max_len" in:"[3,65536]" doc:"tokens per caption, [CLS] and [SEP] included"`
	MaxWords int    `yaml:"max_words" in:"[1,65536]" doc:"words kept of a caption before tokenising"`
	Prompt   string `yaml:"prompt" doc:"text put in front of every caption"`
}

// Loss is the sum of the three objectives. A weight of 0 switches an objective off.
type Loss struct {
	ITC            float64 `yaml:"itc" in:"[0,)" doc:"weight of image-text contrast"`
	ITM            float64 `yaml:"itm" in:"[0,)" doc:"weight of image-text matching"`
	ITG            float64 `yaml:"itg" in:"[0,)" doc:"weight of image-grounded text generation"`
	LabelSmoothing float64 `yaml:"label_smoothing" in:"[0,1)" doc:"label smoothing of ITC and ITG"`
	ITCGatherGrad  bool    `yaml:"itc_gather_grad" doc:"ITC gradient through the gathered side too"`
	HardNegatives  string  `yaml:"hard_negatives" oneof:"masked_softmax|softmax_eps" doc:"weights of the ITM draw"`
	ImageIDs       bool    `yaml:"image_ids" doc:"captions of one image are positives of each other"`
	Temperature    float64 `yaml:"temperature" in:"(0,100]" doc:"ITC temperature at the start"`
	Replicas       int     `yaml:"replicas" in:"[1,)" doc:"equal parts of a batch, each with its own ITG token mean"`
}

// Data names the image-text pairs and how they are read.
type Data struct {
	Train       []DataSource `yaml:"train" required:"true" doc:"data sets to train on"`
	Mix         Mix          `yaml:"mix" hash:"new" doc:"how much of an epoch every data set gets"`
	Answers     string       `yaml:"answers" hash:"new=weighted" oneof:"weighted|uniform_distinct|all" doc:"trained on"`
	Heldout     []DataSource `yaml:"heldout" hash:"-" doc:"data sets for evaluation only"`
	Unit        string       `yaml:"unit" oneof:"caption|image" doc:"an epoch has one row per caption or per image"`
	Augment     Augment      `yaml:"augment" doc:"random resized crop and flip of training images"`
	Workers     int          `yaml:"workers" in:"[1,1024]" hash:"-" doc:"goroutines that decode images"`
	Prefetch    int          `yaml:"prefetch" in:"[1,1024]" hash:"-" doc:"batches prepared ahead of the training"`
	MaxBadShare Share        `yaml:"max_bad_share" in:"[0,1]" hash:"-" doc:"stop above this share of bad samples"`
	EXIF        bool         `yaml:"exif" doc:"apply the EXIF orientation (LAVIS does not)"`
	Truncated   string       `yaml:"truncated" oneof:"accept|reject" doc:"image files cut short: take what is there?"`
}

// Augment is the training-time transform of images.
type Augment struct {
	CropScale [2]float64 `yaml:"crop_scale" in:"(0,1]" doc:"share of the area that a crop keeps"`
	CropRatio [2]float64 `yaml:"crop_ratio" in:"(0,100]" doc:"width / height of a crop"`
	Flip      Share      `yaml:"flip" in:"[0,1]" doc:"probability of a horizontal flip"`

	RandAugment RandAugment `yaml:"randaugment" doc:"operations of LAVIS's blip_image_train; none by default"`
}

// RandAugment draws operations for every training image, after crop and flip.
type RandAugment struct {
	Ops       int     `yaml:"ops" in:"[0,16]" doc:"operations drawn per image, each applied with probability 1/2"`
	Magnitude float64 `yaml:"magnitude" in:"[0,10]" doc:"level of the operations"`
	Mode      string  `yaml:"mode" oneof:"pil|lavis" doc:"lavis keeps its AutoContrast, which whitens channels"`
}

// Optim is AdamW with decoupled weight decay and a learning-rate schedule.
type Optim struct {
	LR          float64    `yaml:"lr" in:"(0,10]" doc:"peak learning rate"`
	MinLR       float64    `yaml:"min_lr" in:"[0,10]" doc:"learning rate at the end of the schedule"`
	WarmupLR    float64    `yaml:"warmup_lr" in:"[0,10]" doc:"learning rate of the first step"`
	WarmupSteps Count      `yaml:"warmup_steps" in:"[0,)" doc:"linear warm-up from warmup_lr to lr"`
	Schedule    string     `yaml:"schedule" oneof:"cosine|lavis|constant" doc:"learning rate after the warm-up"`
	Betas       [2]float64 `yaml:"betas" in:"[0,1)" doc:"decay of the first and second moment"`
	Eps         float64    `yaml:"eps" in:"(0,1]" doc:"added to the root of the second moment"`
	WeightDecay float64    `yaml:"weight_decay" in:"[0,1]" doc:"decoupled weight decay"`
	DecayRule   string     `yaml:"decay_rule" oneof:"default|lavis" doc:"lavis decays the temperature too"`
	LayerDecay  float64    `yaml:"layer_decay" in:"(0,1]" doc:"learning-rate factor per block of a trained ViT"`
	GradClip    float64    `yaml:"grad_clip" in:"[0,)" doc:"largest gradient norm; 0 for no clipping"`
	LossScale   LossScale  `yaml:"loss_scale" doc:"of f16: dynamic, none or a number"`
}

// Train is the length and rhythm of the training. A batch that does not fit the device is cut into micro-batches, of
// which it holds one at a time; batch_size is what an update sees. Each micro-batch is then a contrastive batch of its
// own, unless contrastive_accumulation is set: losses and gradients are then those of the whole batch.
type Train struct {
	Steps                   Count    `yaml:"steps" in:"[1,)" doc:"optimizer steps"`
	BatchSize               int      `yaml:"batch_size" in:"[2,1048576]" doc:"image-text pairs per step"`
	Accumulate              int      `yaml:"accumulate" in:"[1,)" doc:"micro-batches of a batch"`
	MicroBatchSize          int      `yaml:"micro_batch_size" in:"[0,)" doc:"their pairs, in place of accumulate"`
	ContrastiveAccumulation bool     `yaml:"contrastive_accumulation" doc:"ITC and negatives across them"`
	MaxSkipped              int      `yaml:"max_skipped" in:"[0,)" hash:"-" doc:"skipped steps in a row until the stop"`
	LogEvery                int      `yaml:"log_every" in:"[1,)" hash:"-" doc:"steps between log lines"`
	MaxTime                 Duration `yaml:"max_time" in:"[0,)" hash:"-" doc:"stop and save after this time; 0s for no limit"`
}

// Checkpoint says when the training is saved.
type Checkpoint struct {
	Every     Count  `yaml:"every" in:"[0,)" doc:"steps between checkpoints; 0: only at the end"`
	KeepLast  int    `yaml:"keep_last" in:"[1,)" doc:"newest checkpoints that are kept"`
	KeepEvery Count  `yaml:"keep_every" in:"[0,)" doc:"keep those of multiples of this step too; 0 for none"`
	Best      string `yaml:"best" doc:"keep the best by this score of eval.every, such as heldout/i2t_r1"`
}

// Eval is the retrieval evaluation around the training.
type Eval struct {
	Retrieval bool  `yaml:"retrieval" doc:"measure image-to-text and text-to-image recall"`
	KTest     int   `yaml:"k_test" in:"[0,)" doc:"candidates per query ranked again by ITM; 0 ranks by ITC alone"`
	BatchSize int   `yaml:"batch_size" in:"[1,1048576]" doc:"images or texts per evaluation step"`
	Before    bool  `yaml:"before" doc:"evaluate before the training too, for comparison"`
	Every     Count `yaml:"every" in:"[0,)" doc:"steps between evaluations during the training; 0 for none"`
	MaxImages int   `yaml:"max_images" in:"[0,)" doc:"images of each set that are evaluated; 0 for all"`
	MaxLen    int   `yaml:"max_len" in:"[3,65536]" doc:"tokens per caption in the evaluation"`
}

// Report is the HTML report of a run.
type Report struct {
	Gallery int `yaml:"gallery" in:"[0,1000]" doc:"pictures shown with their captions; 0 for none"`
}

// Run is the folder that a run leaves behind.
type Run struct {
	Dir  string `yaml:"dir" path:"dir" doc:"parent of the run folders"`
	Name string `yaml:"name" doc:"run folder; empty for config name, date and time"`
}

// DefaultStage1 returns the paper's values: ViT-L/14 and BERT-base, batch 2320, 250k steps. Where the paper is
// silent (warmup_lr, min_lr) it is the released LAVIS configuration.
func DefaultStage1() *Stage1 {
	return &Stage1{
		Seed:    42,
		Backend: "auto",
		Device:  Device{DType: "auto", MemoryFraction: 0.9},
		Vision: Vision{Arch: "clip", ImageSize: 224, PatchSize: 14, Width: 1024, Layers: 23, Heads: 16, MLPRatio: 4,
			LayerNormEps: 1e-5, LNVisionEps: 1e-5, InitStd: 0.02, Freeze: true},
		QFormer: QFormer{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, QueryTokens: 32,
			CrossAttentionFreq: 2, MaxPositions: 512, LayerNormEps: 1e-12, InitStd: 0.02, Dropout: 0.1, EmbedDim: 256},
		Text: Text{MaxLen: 32, MaxWords: 50},
		Loss: Loss{ITC: 1, ITM: 1, ITG: 1, LabelSmoothing: 0.1, HardNegatives: "masked_softmax", Temperature: 0.07,
			Replicas: 1},
		Data: Data{
			Augment: Augment{CropScale: [2]float64{0.5, 1}, CropRatio: [2]float64{3. / 4., 4. / 3.}, Flip: 0.5,
				RandAugment: RandAugment{Magnitude: 5, Mode: "pil"}},
			Mix:         Mix{By: "images"},
			Answers:     "weighted",
			Unit:        "caption",
			Workers:     2,
			Prefetch:    4,
			MaxBadShare: 0.01,
			Truncated:   "accept",
		},
		Optim: Optim{LR: 1e-4, MinLR: 1e-5, WarmupLR: 1e-6, WarmupSteps: 2000, Schedule: "cosine",
			Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.05, DecayRule: "default", LayerDecay: 1},
		Train:      Train{Steps: 250_000, BatchSize: 2320, Accumulate: 1, MaxSkipped: 20, LogEvery: 10},
		Checkpoint: Checkpoint{Every: 1000, KeepLast: 2},
		Eval:       Eval{Retrieval: true, KTest: 16, BatchSize: 32, Before: true, MaxImages: 1000, MaxLen: 35},
		Report:     Report{Gallery: 12},
		Run:        Run{Dir: "runs"},
	}
}

// LoadStage1 loads the configuration of `blip2 pretrain-stage1`; see Load.
func LoadStage1(opts LoadOptions) (*Stage1, *Sources, error) {
	return Load(stage1Schema(), opts)
}

// stage1Schema ties the struct to its defaults, presets and cross-field rules.
func stage1Schema() Schema[Stage1] {
	return Schema[Stage1]{Default: DefaultStage1, Presets: stage1Presets(), Check: checkStage1}
}

// MicroBatches returns in how many parts a batch is cut.
func (t Train) MicroBatches() int {
	if t.MicroBatchSize > 0 {
		return max(t.BatchSize/t.MicroBatchSize, 1)
	}
	return t.Accumulate
}

// stage1Presets holds the recipe of the released code (specification of training, sections 1 and 6) and the named sizes
// (specification of the model, sections 2, 3 and 5).
func stage1Presets() Presets {
	return Presets{
		"": {
			"lavis": `{loss: {label_smoothing: 0.1, itc_gather_grad: false, hard_negatives: masked_softmax, temperature: 0.07},
				optim: {schedule: lavis, lr: 1e-4, min_lr: 1e-5, warmup_lr: 1e-6, warmup_steps: 5000, betas: [0.9, 0.999],
				eps: 1e-8, weight_decay: 0.05, decay_rule: lavis, layer_decay: 1, grad_clip: 0, loss_scale: dynamic}}`,
		},
		"vision": {
			"clip-vit-l14": `{arch: clip, image_size: 224, patch_size: 14, width: 1024, layers: 23, heads: 16,
				mlp_ratio: 4, layer_norm_eps: 1e-5}`,
			"eva-vit-g14": `{arch: eva, image_size: 224, patch_size: 14, width: 1408, layers: 39, heads: 16,
				mlp_ratio: 4.3637, layer_norm_eps: 1e-6}`,
		},
		"qformer": {
			"bert-base": `{hidden: 768, layers: 12, heads: 12, intermediate: 3072, max_positions: 512,
				layer_norm_eps: 1e-12, dropout: 0.1}`,
		},
	}
}
