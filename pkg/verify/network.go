package verify

import (
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
)

// array is a float32 tensor in host memory.
type array struct {
	shape  []int
	values []float32
}

// tensorSet holds a case's weights by name.
type tensorSet map[string]array

// weights reads weights.safetensors without the tensors in unused, which the reference leaves aside too.
func (c *Case) weights(unused []string) (tensorSet, error) {
	f, err := c.tensors(weightsFile)
	if err != nil {
		return nil, err
	}
	set := tensorSet{}
	for _, name := range f.Names() {
		if slices.Contains(unused, name) {
			continue
		}
		t, err := f.Tensor(name)
		if err != nil {
			return nil, err
		}
		values, err := t.Float32s()
		if err != nil {
			return nil, err
		}
		set[name] = array{t.Shape, values}
	}
	return set, nil
}

// store creates the model's variables from the set: exactly the declared tensors, in the declared shapes.
func (s tensorSet) store(params []model.Param) (*mlx.Store, error) {
	store := mlx.NewStore()
	declared := map[string]bool{}
	for _, p := range params {
		declared[p.Name] = true
		t, ok := s[p.Name]
		if !ok {
			return nil, fmt.Errorf("%s has no tensor %s, which the model needs", weightsFile, p.Name)
		}
		if !slices.Equal(t.shape, p.Shape) {
			return nil, fmt.Errorf("%s: tensor %s has shape %v, the model needs %v", weightsFile, p.Name, t.shape, p.Shape)
		}
		if err := model.Set(store, p.Name, p.Shape, t.values); err != nil {
			return nil, err
		}
	}
	for name := range s {
		if !declared[name] {
			return nil, fmt.Errorf("%s: the model has no tensor %s, and %s does not list it as unused",
				weightsFile, name, expectedFile)
		}
	}
	return store, nil
}

// storeOf creates the model's variables from a file of the case whose tensors a publisher has named: exactly those that
// params list, in these shapes.
func (c *Case) storeOf(file, network, publisher string, params []model.Param) (*mlx.Store, error) {
	f, err := c.tensors(file)
	if err != nil {
		return nil, err
	}
	m, ok := naming.Find(network)
	if !ok {
		return nil, fmt.Errorf("network %q is unknown", network)
	}
	store := mlx.NewStore()
	part := pretrained.Part{Part: naming.Part{What: network, Params: params,
		Tables: []naming.Table{m.Tables[publisher]}}}
	if _, err := pretrained.Load(store, part, f, pretrained.Options{}); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return store, nil
}

// floatInput reads a float32 tensor of inputs.safetensors.
func (c *Case) floatInput(name string) (*tensors.Tensor, error) {
	f, err := c.inputs()
	if err != nil {
		return nil, err
	}
	t, err := f.Tensor(name)
	if err != nil {
		return nil, err
	}
	values, err := t.Float32s()
	if err != nil {
		return nil, err
	}
	return tensors.FromFlatDataAndDimensions(values, t.Shape...), nil
}

// intInput reads an integer tensor of inputs.safetensors as int32, the type of ids, masks and indices on the device.
func (c *Case) intInput(name string) (*tensors.Tensor, []int32, error) {
	f, err := c.inputs()
	if err != nil {
		return nil, nil, err
	}
	t, err := f.Tensor(name)
	if err != nil {
		return nil, nil, err
	}
	wide, err := t.Int64s()
	if err != nil {
		return nil, nil, err
	}
	values := make([]int32, len(wide))
	for i, v := range wide {
		if v < math.MinInt32 || v > math.MaxInt32 {
			return nil, nil, fmt.Errorf("%s: tensor %s: %d does not fit 32 bits", inputsFile, name, v)
		}
		values[i] = int32(v)
	}
	return tensors.FromFlatDataAndDimensions(values, t.Shape...), values, nil
}

// output is a node whose value is wanted.
type output struct {
	name string
	node *Node
}

// program is one graph to be run once.
type program struct {
	store  *mlx.Store
	inputs []*tensors.Tensor
	// forward builds the graph; in are the nodes of inputs, scope is the model's root.
	forward func(scope *mlx.Scope, in []*Node) []output
	// loss names the output whose gradient with respect to trainable is wanted; empty: none. Gradients become outputs
	// named "grad/" + parameter.
	loss      string
	trainable []model.Param
	// partial says that the graph is a part of the network: weights may be left unused.
	partial bool
}

// result is the value of an output.
type result struct {
	name  string
	value *tensors.Tensor
}

// run builds, compiles and executes the program. Every variable of the store must take part in the forward pass.
func (p program) run(backend compute.Backend) ([]result, error) {
	defer p.store.Finalize()
	var names []string
	exec, err := mlx.NewExec(backend, p.store, func(scope *mlx.Scope, in []*Node) []*Node {
		outputs := p.forward(scope, in)
		if !p.partial {
			p.mustUseAll(in[0].Graph())
		}
		outputs = append(outputs, p.gradients(outputs)...)
		names = names[:0]
		nodes := make([]*Node, len(outputs))
		for i, o := range outputs {
			names, nodes[i] = append(names, o.name), o.node
		}
		return nodes
	})
	if err != nil {
		return nil, err
	}
	defer exec.Finalize()
	args := make([]any, len(p.inputs))
	for i, t := range p.inputs {
		args[i] = t
	}
	values, err := exec.Call(args...)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(values))
	for i, v := range values {
		results[i] = result{names[i], v}
	}
	return results, nil
}

// mustUseAll panics if a variable takes no part in the graph: a weight that changes nothing is a mistake of the model.
func (p program) mustUseAll(g *Graph) {
	for v := range p.store.IterVariables() {
		if !v.InUseByGraph(g) {
			panic(fmt.Errorf("the model does not use tensor %s", model.Name(v.Path())))
		}
	}
}

func (p program) gradients(outputs []output) []output {
	if p.loss == "" {
		return nil
	}
	at := slices.IndexFunc(outputs, func(o output) bool { return o.name == p.loss })
	loss := outputs[at].node
	variables := make([]*Node, len(p.trainable))
	for i, param := range p.trainable {
		variables[i] = p.store.GetVariable(model.Path(param.Name)).NodeValue(loss.Graph())
	}
	var grads []output
	for i, grad := range Gradient(loss, variables...) {
		grads = append(grads, output{"grad/" + p.trainable[i].Name, grad})
	}
	return grads
}
