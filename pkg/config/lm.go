package config

import "path/filepath"

// LM is the configuration of `blip2 pretrain-lm`: a small OPT or T5 from scratch on captions, for trying stage 2 where
// no published language model is at hand.
type LM struct {
	Seed    int64   `yaml:"seed" in:"[0,)" doc:"seed of everything random"`
	Backend string  `yaml:"backend" hash:"-" doc:"go, xla:cpu, xla:cuda, xla:/path/plugin.so or auto"`
	Out     string  `yaml:"out" path:"dir" required:"true" hash:"-" doc:"folder to make, as llm.path of stage 2 takes it"`
	Device  Device  `yaml:"device" doc:"accelerator memory and number format"`
	Model   LMModel `yaml:"model" doc:"sizes of the model"`
	Data    LMData  `yaml:"data" doc:"captions"`
	Optim   Optim   `yaml:"optim" doc:"AdamW and the learning-rate schedule"`
	Train   LMTrain `yaml:"train" doc:"length of the training"`
}

// The values of LMModel.Arch.
const (
	LMOPT = "opt"
	LMT5  = "t5"
)

// LMModel are the sizes of a small language model.
type LMModel struct {
	Arch      string  `yaml:"arch" oneof:"opt|t5" doc:"opt, which goes on from the queries, or t5, which reads them"`
	Vocab     int     `yaml:"vocab" in:"[260,1000000]" doc:"tokens at most: BPE of the captions, or t5's words of them"`
	Hidden    int     `yaml:"hidden" in:"[1,65536]" doc:"width; a multiple of heads"`
	Layers    int     `yaml:"layers" in:"[1,1024]" doc:"transformer layers; t5: of encoder and decoder each"`
	Heads     int     `yaml:"heads" in:"[1,1024]" doc:"attention heads"`
	FFN       int     `yaml:"ffn" in:"[1,262144]" doc:"feed-forward width"`
	Positions int     `yaml:"positions" in:"[2,65536]" doc:"tokens of a text; opt: with stage 2's queries"`
	InitStd   float64 `yaml:"initializer_range" in:"(0,1]" doc:"spread of weights drawn from scratch"`
	Dropout   float64 `yaml:"dropout" in:"[0,1)" doc:"dropout in training"`
}

// LMData names the captions; their pictures are not looked at.
type LMData struct {
	Train    []DataSource `yaml:"train" required:"true" doc:"data sets to train on"`
	MaxWords int          `yaml:"max_words" in:"[1,65536]" doc:"words kept of a caption before tokenising"`
}

// LMTrain is the length and rhythm of the training.
type LMTrain struct {
	Steps     Count `yaml:"steps" in:"[1,)" doc:"optimizer steps"`
	BatchSize int   `yaml:"batch_size" in:"[1,1048576]" doc:"texts per step, each of model.positions tokens"`
	LogEvery  int   `yaml:"log_every" in:"[1,)" hash:"-" doc:"steps between log lines"`
}

// DefaultLM returns sizes that a laptop trains in minutes.
func DefaultLM() *LM {
	one := DefaultStage1()
	l := &LM{Seed: one.Seed, Backend: one.Backend, Device: one.Device, Optim: one.Optim,
		Model: LMModel{Arch: LMOPT, Vocab: 1000, Hidden: 128, Layers: 3, Heads: 4, FFN: 512, Positions: 64, InitStd: 0.02,
			Dropout: 0.1},
		Data:  LMData{MaxWords: 50},
		Train: LMTrain{Steps: 1000, BatchSize: 32, LogEvery: 50}}
	l.Optim.LR, l.Optim.WarmupSteps = 1e-3, 100
	return l
}

// LoadLM loads the configuration of `blip2 pretrain-lm`; see Load.
func LoadLM(opts LoadOptions) (*LM, *Sources, error) {
	return Load(Schema[LM]{Default: DefaultLM, Check: checkLM}, opts)
}

// checkLM holds the rules between fields of LM.
func checkLM(l *LM, c *Checker) {
	if m := l.Model; m.Heads > 0 && m.Hidden%m.Heads != 0 {
		c.Failf([]string{"model.heads", "model.hidden"}, "hidden %d is not a multiple of heads %d", m.Hidden, m.Heads)
	}
	checkOptim(l.Optim, l.Train.Steps, false, c)
	checkSources("data.train", l.Data.Train, "images", c)
	if l.Out != "" && filepath.Base(l.Out) == "." {
		c.Failf([]string{"out"}, "%q must be a folder of its own", l.Out)
	}
}
