package verify

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
	"blip2/pkg/weights"
)

// convertConfig are the config keys of kind hf-convert that no shape tells.
type convertConfig struct {
	stage1Config
	Model    string `json:"model"`
	LLMHeads int    `json:"llm_heads"`
}

// hfConvert runs kind hf-convert: a model under LAVIS names and the same under Hugging Face names give each other bit
// for bit, and both give the recorded outputs.
func hfConvert(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config convertConfig
	var expected struct {
		Map []struct {
			Op   string   `json:"op"`
			From []string `json:"from"`
			To   string   `json:"to"`
		} `json:"map"`
		Dropped []string `json:"dropped"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	lavis, err := published.Assemble(published.Parts{Main: filepath.Join(c.Dir, weightsFile), Hints: config.hints()})
	if err != nil {
		return err
	}
	defer lavis.Close()
	hf, err := published.Assemble(published.Parts{Main: filepath.Join(c.Dir, "hf")})
	if err != nil {
		return err
	}
	defer hf.Close()
	dropped, err := k.exports(lavis, naming.HuggingFace, filepath.Join(c.Dir, "hf"))
	if err != nil {
		return err
	}
	equalLists(k, "dropped", dropped, slices.Sorted(slices.Values(expected.Dropped)))
	if _, err := k.exports(hf, naming.LAVIS, filepath.Join(c.Dir, weightsFile), expected.Dropped...); err != nil {
		return err
	}
	for _, a := range []*published.Assembly{lavis, hf} {
		if err := c.convertOutputs(k, a); err != nil {
			return fmt.Errorf("%s: %w", a.Spec.Model, err)
		}
	}
	return nil
}

// exports compares the tensors that a model has in another form with those of a file of that form, but for the named
// ones, which cannot be had. It returns the names of the model that the form has no place for.
func (k *checker) exports(a *published.Assembly, to, path string, without ...string) (dropped []string, err error) {
	want, err := weights.OpenAny(path)
	if err != nil {
		return nil, err
	}
	defer want.Close()
	m, _ := naming.Find(a.Spec.Model)
	outputs, notes, err := m.Tables[to].Export(a.Names(), a.Info, a.Tensor)
	if err != nil {
		return nil, err
	}
	for _, n := range notes {
		dropped = append(dropped, n.Name)
	}
	slices.Sort(dropped)
	var names []string
	for _, o := range outputs {
		names = append(names, o.Name)
		recorded, err := want.Tensor(o.Name)
		if err != nil {
			k.problem("%s: %v", to, err)
			continue
		}
		data, err := o.Data()
		if err != nil {
			return nil, err
		}
		k.compared++
		if o.DType != recorded.DType || !slices.Equal(o.Shape, recorded.Shape) || !bytes.Equal(data, recorded.Data) {
			k.problem("%s: %s is not the recorded tensor, bit for bit", to, o.Name)
		}
	}
	slices.Sort(names)
	equalLists(k, to+" names", names, slices.DeleteFunc(want.Names(), func(name string) bool {
		return slices.Contains(without, name)
	}))
	return dropped, nil
}

// convertOutputs computes the recorded outputs with the model.
func (c *Case) convertOutputs(k *checker, a *published.Assembly) error {
	backend, err := c.backend()
	if err != nil {
		return err
	}
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return err
	}
	texts, err := c.texts()
	if err != nil {
		return err
	}
	// Both forms of the model are compared with the same outputs.
	if k.due, err = dueAgain(k); err != nil {
		return err
	}
	if a.Spec.Model == naming.BLIP2Stage1 {
		return c.convertITM(k, a, backend, pixels, texts)
	}
	cfg, err := stage2.NewConfig(a.Spec)
	if err != nil {
		return err
	}
	store := mlx.NewStore()
	if err := a.Fill(store, nil); err != nil {
		return err
	}
	inputs := []*tensors.Tensor{pixels, texts.idTensor(), texts.maskTensor()}
	mask := texts.mask
	if cfg.T5 != nil {
		answers, err := c.textsNamed("output_ids", "output_mask")
		if err != nil {
			return err
		}
		inputs, mask = append(inputs, answers.idTensor()), answers.mask
	}
	results, err := program{store: store, inputs: inputs, forward: func(scope *mlx.Scope, in []*Node) []output {
		queries := stage2.QueryEmbeds(scope, cfg, in[0])
		embeds, all := stage2.Prefix(scope, cfg, queries, in[1], in[2])
		if cfg.OPT != nil {
			return []output{{"query_embeds", queries}, {"logits", stage2.OPTLogits(scope, cfg, embeds, all)}}
		}
		encoded := stage2.T5Encode(scope, cfg, embeds, all)
		return []output{{"query_embeds", queries},
			{"logits", stage2.T5Logits(scope, cfg, encoded, all, shiftRight(in[3]))}}
	}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.name != "logits" {
			k.tensor(r.name, r.value)
			continue
		}
		if cfg.OPT != nil {
			mask = behindQueries(mask, texts.rows, cfg.QFormer.Queries)
		}
		k.maskedTensor(r.name, r.value, mask)
	}
	return nil
}

// dueAgain makes every recorded output due.
func dueAgain(k *checker) (map[string]bool, error) {
	if k.outputs == nil {
		return nil, errors.New("the case has no outputs")
	}
	due := map[string]bool{}
	for _, name := range k.outputs.Names() {
		due[name] = true
	}
	return due, nil
}

// shiftRight puts T5's start id in front of ids [B, L] and leaves out the last.
func shiftRight(ids *Node) *Node {
	start := ZerosLike(SliceAxis(ids, 1, AxisRangeFromStart(1)))
	return Concatenate([]*Node{start, SliceAxis(ids, 1, AxisRangeFromStart(ids.Shape().Dimensions[1]-1))}, 1)
}

// behindQueries is the mask [rows, L] of texts with ones for the queries in front.
func behindQueries(mask []int32, rows, queries int) []int32 {
	length := len(mask) / rows
	var out []int32
	for row := range rows {
		out = append(out, slices.Repeat([]int32{1}, queries)...)
		out = append(out, mask[row*length:][:length]...)
	}
	return out
}

// convertITM compares how every picture matches every text.
func (c *Case) convertITM(k *checker, a *published.Assembly, backend compute.Backend, pixels *tensors.Tensor,
	texts textBatch) error {
	results, err := matchAll(a, backend, pixels, texts)
	if err != nil {
		return err
	}
	k.tensor("itm_logits", results.logits)
	k.tensor("itc", results.cosine)
	return nil
}

// matches are the answers of a stage-1 model about all pairs of pictures and texts.
type matches struct {
	logits *tensors.Tensor // [I, T, 2]
	cosine *tensors.Tensor // [I, T]
	images *tensors.Tensor // [I, Q, E]
	texts  *tensors.Tensor // [T, E]
}

// matchAll scores every picture with every text.
func matchAll(a *published.Assembly, backend compute.Backend, pixels *tensors.Tensor, texts textBatch) (
	*matches, error) {
	cfg, err := stage1.FromPublished(a.Spec)
	if err != nil {
		return nil, err
	}
	store := mlx.NewStore()
	if err := a.Fill(store, nil); err != nil {
		return nil, err
	}
	for _, p := range a.Params {
		if onlyForTraining(p.Name) {
			if err := store.DeleteVariable(model.Path(p.Name)); err != nil {
				return nil, err
			}
		}
	}
	results, err := program{store: store, inputs: []*tensors.Tensor{pixels, texts.idTensor(), texts.maskTensor()},
		forward: func(scope *mlx.Scope, in []*Node) []output {
			embeds, images := stage1.ImageFeatures(scope, cfg, in[0])
			text := stage1.TextFeatures(scope, cfg, in[1], in[2])
			pictures := in[0].Shape().Dimensions[0]
			var image, row []int32 // of every pair, picture after picture
			for i := range pictures {
				for t := range texts.rows {
					image, row = append(image, int32(i)), append(row, int32(t))
				}
			}
			pick := func(x *Node, of []int32) *Node { return Gather(x, InsertAxes(Const(x.Graph(), of), -1)) }
			logits := stage1.MatchLogits(scope, cfg, pick(embeds, image), pick(in[1], row), pick(in[2], row))
			return []output{{"itm_logits", Reshape(logits, pictures, texts.rows, 2)},
				{"itc", stage1.Similarity(images, text)}, {"image_embeds", images}, {"text_embeds", text}}
		}}.run(backend)
	if err != nil {
		return nil, err
	}
	return &matches{results[0].value, results[1].value, results[2].value, results[3].value}, nil
}
