package trainer

import (
	"fmt"
	"slices"
	"sort"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// State is what a checkpoint holds beside tensors: everything a resumed run needs to go on exactly where it was.
// Random numbers need no state of their own, they are keyed by (seed, step) and (seed, epoch, row).
type State struct {
	Seed       int64  `json:"seed"`
	Epoch      int64  `json:"epoch"` // data position: the next batch starts here
	Index      int64  `json:"index"`
	ConfigHash string `json:"config_hash"` // of the settings that decide the arithmetic
	Command    string `json:"command"`     // such as "pretrain-stage1"

	Streams  string   `json:"streams,omitempty"`   // where the streams of the data stand
	DataRows string   `json:"data_rows,omitempty"` // of every data set, as "24 1850": the order depends on them
	Progress Progress `json:"progress,omitzero"`   // of Step; checkpoints of runs that skipped nothing may lack it
}

// TakeSnapshot copies the trained tensors and their optimizer slots from the device, under checkpoint names; the
// slots are "m.NAME" and "v.NAME".
func TakeSnapshot(store *mlx.Store, params []model.Param, step int, state State) (checkpoint.Snapshot, error) {
	s := checkpoint.Snapshot{Step: step, State: state}
	for _, p := range params {
		t, err := read(store, model.Path(p.Name), p.Name, p.Shape)
		if err != nil {
			return s, err
		}
		s.Model = append(s.Model, t)
		for prefix, folder := range slotFolders() {
			t, err := read(store, folder+model.Path(p.Name), prefix+p.Name, p.Shape)
			if err != nil {
				return s, err
			}
			s.Optimizer = append(s.Optimizer, t)
		}
	}
	sort.Slice(s.Optimizer, func(i, j int) bool { return s.Optimizer[i].Name < s.Optimizer[j].Name })
	return s, nil
}

// slotFolders maps the prefix of a slot's checkpoint name to its folder in the store.
func slotFolders() map[string]string { return map[string]string{"m.": firstMoment, "v.": secondMoment} }

func read(store *mlx.Store, path, name string, shape []int) (weights.Tensor, error) {
	v := store.GetVariable(path)
	if v == nil {
		return weights.Tensor{}, fmt.Errorf("saving: tensor %s is not in the model", name)
	}
	values, err := mesh.Read[float32](store, v)
	if err != nil {
		return weights.Tensor{}, fmt.Errorf("saving: reading tensor %s from the device: %w", name, err)
	}
	return weights.FromFloat32(name, shape, values), nil
}

// Restore puts a checkpoint's tensors and optimizer slots into the store. Every parameter must be there with its
// shape, and nothing else.
func Restore(store *mlx.Store, params []model.Param, c *checkpoint.Loaded) error {
	if c.Optimizer == nil {
		return fmt.Errorf("checkpoint %s has no optimizer state: a run cannot be resumed from it", c.Dir)
	}
	if err := checkNames(c, params); err != nil {
		return err
	}
	for _, p := range params {
		if err := restoreOne(store, c.Model, p.Name, p.Name, p.Shape); err != nil {
			return fmt.Errorf("checkpoint %s: %w", c.Dir, err)
		}
		for prefix, folder := range slotFolders() {
			target := model.Name(folder) + "." + p.Name
			if err := restoreOne(store, c.Optimizer, prefix+p.Name, target, p.Shape); err != nil {
				return fmt.Errorf("checkpoint %s: %w", c.Dir, err)
			}
			store.GetVariable(model.Path(target)).SetTrainable(false)
		}
	}
	if err := mesh.Settle(store); err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.Dir, err)
	}
	return nil
}

// checkNames refuses tensors and slots that the model does not have: the checkpoint would be of another model.
func checkNames(c *checkpoint.Loaded, params []model.Param) error {
	known := make(map[string]bool, 3*len(params))
	for _, p := range params {
		known[p.Name] = true
		for prefix := range slotFolders() {
			known[prefix+p.Name] = true
		}
	}
	for _, name := range slices.Concat(c.Model.Names(), c.Optimizer.Names()) {
		if !known[name] {
			return fmt.Errorf("checkpoint %s holds tensor %s, which this configuration's model does not train: "+
				"resume with the configuration of the run", c.Dir, name)
		}
	}
	return nil
}

func restoreOne(store *mlx.Store, from *weights.File, name, target string, shape []int) error {
	t, err := from.Tensor(name)
	if err != nil {
		return err
	}
	if fmt.Sprint(t.Shape) != fmt.Sprint(shape) {
		return fmt.Errorf("tensor %s has shape %v, the model needs %v", name, t.Shape, shape)
	}
	values, err := t.Float32s()
	if err != nil {
		return err
	}
	return model.Set(store, target, shape, values)
}
