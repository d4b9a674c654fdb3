package verify

import (
	"path/filepath"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/published"
	"blip2/pkg/stage2"
)

// stage2Loss runs kinds stage2-opt and stage2-t5: the loss of one batch, what leads to it, and the gradients of all
// that stage 2 trains.
func stage2Loss(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config struct {
		convertConfig
		PromptLength int `json:"prompt_length"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	a, err := published.Assemble(published.Parts{Main: filepath.Join(c.Dir, weightsFile), Hints: config.hints()})
	if err != nil {
		return err
	}
	defer a.Close()
	cfg, err := stage2.NewConfig(a.Spec)
	if err != nil {
		return err
	}
	cfg.FreezeVision, cfg.PromptLength = config.FreezeVit, config.PromptLength
	if cfg.OPT != nil {
		cfg.OPT.Dropout = 0
	} else {
		cfg.T5.Dropout = 0
	}
	inputs, masks, err := c.stage2Inputs(cfg)
	if err != nil {
		return err
	}
	store := mlx.NewStore()
	if err := a.Fill(store, nil); err != nil {
		return err
	}
	backend, err := c.backend()
	if err != nil {
		return err
	}
	results, err := program{store: store, inputs: inputs, loss: "loss", trainable: stage2.TrainableParams(cfg),
		forward: func(scope *mlx.Scope, in []*Node) []output {
			b := stage2.Batch{Pixels: in[0], IDs: in[1], Mask: in[2]}
			if cfg.T5 != nil {
				b.OutputIDs, b.OutputMask = in[3], in[4]
			}
			o := stage2.Forward(scope, cfg, b, nil)
			if cfg.OPT != nil {
				return []output{{"inputs_opt", o.Queries}, {"labels", o.Labels}, {"logits", o.Logits(scope, cfg)},
					{"loss", o.Loss}}
			}
			return []output{{"inputs_t5", o.Queries}, {"encoder_last_hidden_state", o.Encoded},
				{"logits", o.Logits(scope, cfg)},
				{"loss", o.Loss}}
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		mask, masked := masks[r.name]
		switch {
		case masked:
			k.maskedTensor(r.name, r.value, mask)
		case r.name == "labels":
			wide := make([]int64, 0, r.value.Shape().Size())
			for _, v := range tensors.MustCopyFlatData[int32](r.value) {
				wide = append(wide, int64(v))
			}
			k.ints(r.name, r.value.Shape().Dimensions, wide)
		case r.name == "loss":
			k.floats(r.name, []int{1}, tensors.MustCopyFlatData[float32](r.value))
		default:
			k.tensor(r.name, r.value)
		}
	}
	return nil
}

// stage2Inputs reads the batch, in the order of stage2Loss's inputs, and where outputs are compared, by name.
func (c *Case) stage2Inputs(cfg stage2.Config) (inputs []*tensors.Tensor, masks map[string][]int32, err error) {
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return nil, nil, err
	}
	names := []string{"text"}
	if cfg.T5 != nil {
		names = []string{"input", "output"}
	}
	inputs = []*tensors.Tensor{pixels}
	masks = map[string][]int32{}
	for _, name := range names {
		t, err := c.textsNamed(name+"_ids", name+"_mask")
		if err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, t.idTensor(), t.maskTensor())
		switch all := behindQueries(t.mask, t.rows, cfg.QFormer.Queries); name {
		case "text":
			masks["logits"] = all
		case "input":
			masks["encoder_last_hidden_state"] = all
		default:
			masks["logits"] = t.mask
		}
	}
	return inputs, masks, nil
}
