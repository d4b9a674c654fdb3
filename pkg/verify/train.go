package verify

import (
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/stage1"
	"blip2/pkg/trainer"
)

// trainConfig are the config keys of kind stage1-train beside the model's.
type trainConfig struct {
	stage1Config
	Steps         int     `json:"steps"`
	StepsPerEpoch int     `json:"iters_per_epoch"`
	Epochs        int     `json:"max_epoch"`
	WarmupSteps   int     `json:"warmup_steps"`
	WarmupLR      float64 `json:"warmup_lr"`
	InitLR        float64 `json:"init_lr"`
	MinLR         float64 `json:"min_lr"`
	WeightDecay   float64 `json:"weight_decay"`
	Beta1         float64 `json:"beta1"`
	Beta2         float64 `json:"beta2"`
	Eps           float64 `json:"adam_eps"`
	DecayRule     string  `json:"decay_rule"`
}

// optimizer returns the AdamW of the case.
func (c trainConfig) optimizer() (trainer.AdamW, error) {
	rules := map[string]string{"lavis": trainer.DecayLAVIS, "ndim": trainer.DecayDefault}
	rule, ok := rules[c.DecayRule]
	if !ok {
		return trainer.AdamW{}, fmt.Errorf("config: decay_rule %q is unknown", c.DecayRule)
	}
	return trainer.AdamW{Betas: [2]float64{c.Beta1, c.Beta2}, Eps: c.Eps, WeightDecay: c.WeightDecay, DecayRule: rule}, nil
}

// schedule returns LAVIS's schedule of the case.
func (c trainConfig) schedule() trainer.Schedule {
	return trainer.Schedule{Kind: trainer.ScheduleLAVIS, Peak: c.InitLR, Min: c.MinLR, WarmupStart: c.WarmupLR,
		WarmupSteps: c.WarmupSteps, StepsPerEpoch: c.StepsPerEpoch, Epochs: c.Epochs}
}

// trainExpected is expected.json of kind stage1-train.
type trainExpected struct {
	Decay            []string  `json:"decay"`
	NoDecay          []string  `json:"no_decay"`
	LR               []float64 `json:"lr"`
	WithoutReference []string  `json:"without_reference"`
}

// trainTerms are the losses that a step reports.
var trainTerms = []string{"loss_itc", "loss_itm", "loss_lm"}

// stage1Train runs kind stage1-train: training steps with the recorded negatives, and the weights they lead to.
func stage1Train(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config trainConfig
	var expected trainExpected
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	optimizer, err := config.optimizer()
	if err != nil {
		return err
	}
	schedule := config.schedule()
	if err := schedule.Validate(); err != nil {
		return err
	}
	set, err := c.weights(nil)
	if err != nil {
		return err
	}
	store, err := set.store(stage1.Params(cfg))
	if err != nil {
		return err
	}
	defer store.Finalize()
	trained := stage1.TrainableParams(cfg)
	if err := model.SetTrainable(store, stage1.VisionParams(cfg), !cfg.FreezeVision); err != nil {
		return err
	}
	k.decays(optimizer, trained, expected)
	if err := c.trainSteps(k, config, cfg, optimizer, schedule, store, expected); err != nil {
		return err
	}
	return k.finalWeights(store, trained, expected.WithoutReference)
}

// decays compares which parameters decay.
func (k *checker) decays(a trainer.AdamW, params []model.Param, expected trainExpected) {
	var decay, spared []string
	for _, p := range params {
		if a.Decays(p) {
			decay = append(decay, p.Name)
		} else {
			spared = append(spared, p.Name)
		}
	}
	slices.Sort(decay)
	slices.Sort(spared)
	equalLists(k, "decay", decay, slices.Sorted(slices.Values(expected.Decay)))
	equalLists(k, "no_decay", spared, slices.Sorted(slices.Values(expected.NoDecay)))
}

// trainSteps runs the steps and compares losses and learning rates.
func (c *Case) trainSteps(k *checker, config trainConfig, cfg stage1.Config, optimizer trainer.AdamW,
	schedule trainer.Schedule, store *mlx.Store, expected trainExpected) error {
	backend, err := c.backend()
	if err != nil {
		return err
	}
	task := trainer.Task{Params: stage1.TrainableParams(cfg), Terms: trainTerms,
		Loss: func(scope *mlx.Scope, in []*Node, _ *nn.RNG) (*Node, []*Node) {
			o := stage1.Forward(scope, cfg, stage1.Batch{Pixels: in[0], TextIDs: in[1], TextMask: in[2], NegImage: in[3],
				NegText: in[4]}, nil)
			return o.Loss, []*Node{o.LossITC, o.LossITM, o.LossLM}
		}}
	step, err := trainer.NewStep(backend, store, task, optimizer, 1)
	if err != nil {
		return err
	}
	defer step.Close()
	batches, err := c.trainBatches(config.Steps)
	if err != nil {
		return err
	}
	losses := map[string][]float32{}
	var rates []float64
	var rates32 []float32
	for i, batch := range batches {
		lr := schedule.LR(i)
		rates, rates32 = append(rates, lr), append(rates32, float32(lr))
		r, err := step.Run(i, lr, batch)
		if err != nil {
			return err
		}
		if !r.Applied {
			return fmt.Errorf("step %d: loss or gradient is not finite", i)
		}
		losses["loss"] = append(losses["loss"], float32(r.Loss))
		for t, name := range trainTerms {
			losses[name] = append(losses[name], float32(r.Terms[t]))
		}
	}
	for _, name := range append([]string{"loss"}, trainTerms...) {
		k.floats(name, []int{config.Steps}, losses[name])
	}
	k.floats("lr", []int{config.Steps}, rates32)
	compareFloats(k, "lr in "+expectedFile, []int{len(rates)}, rates, expected.LR)
	return nil
}

// trainBatches cuts the inputs into the batches of the steps: pixels and texts are taken in turn, negatives are each
// step's own.
func (c *Case) trainBatches(steps int) ([][]*tensors.Tensor, error) {
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return nil, err
	}
	dims := pixels.Shape().Dimensions
	values := tensors.MustCopyFlatData[float32](pixels)
	size := len(values) / dims[0]
	var ints [4][]int32
	var shapes [4][]int
	for i, name := range []string{"text_ids", "text_mask", "neg_image", "neg_text"} {
		t, v, err := c.intInput(name)
		if err != nil {
			return nil, err
		}
		ints[i], shapes[i] = v, t.Shape().Dimensions
	}
	out := make([][]*tensors.Tensor, steps)
	for s := range out {
		turn := s % dims[0]
		out[s] = []*tensors.Tensor{tensors.FromFlatDataAndDimensions(values[turn*size:][:size], dims[1:]...)}
		for i, v := range ints {
			row := s
			if i < 2 {
				row = turn
			}
			n := len(v) / shapes[i][0]
			if (row+1)*n > len(v) {
				return nil, fmt.Errorf("%s: fewer rows of negatives than %d steps", inputsFile, steps)
			}
			out[s] = append(out[s], tensors.FromFlatDataAndDimensions(v[row*n:][:n], shapes[i][1:]...))
		}
	}
	return out, nil
}

// finalWeights compares the trained tensors after the last step, but for those whose gradient is rounding noise.
func (k *checker) finalWeights(store *mlx.Store, params []model.Param, without []string) error {
	for _, p := range params {
		name := "final/" + p.Name
		if slices.Contains(without, p.Name) {
			delete(k.due, name)
			continue
		}
		value, err := store.GetVariable(model.Path(p.Name)).Value()
		if err != nil {
			return err
		}
		k.tensor(name, value)
	}
	return nil
}
