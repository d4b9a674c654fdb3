package trainer

import (
	"fmt"
	"strings"
	"time"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/inplace"
	"blip2/pkg/mesh"
)

// program is one of the compiled graphs of a step. It is compiled once for each list of input shapes.
type program struct {
	name     string
	exec     *mesh.Exec
	compiled map[string]bool // by input shapes
	took     time.Duration   // building and compiling
	graph    string          // name of the graph that was built last
}

// newProgram makes a program and keeps it.
func (s *Step) newProgram(name string, build func(*mlx.Scope, []*Node) []*Node) *program {
	p := &program{name: name, compiled: map[string]bool{}}
	p.exec = mesh.NewExec(s.backend, s.store, name, p.inPlace(s.store, build))
	s.programs = append(s.programs, p)
	return p
}

// inPlace builds a graph whose variables take their new values in place. The graph's first outputs will be those of the
// variables that it changes, in the store's order.
func (p *program) inPlace(store *mlx.Store, build func(*mlx.Scope, []*Node) []*Node) func(*mlx.Scope, []*Node) []*Node {
	return func(scope *mlx.Scope, inputs []*Node) []*Node {
		outputs := build(scope, inputs)
		g := inputs[0].Graph()
		var changed []string
		for v := range store.IterVariables() {
			if v.ChangedInGraph(g) {
				changed = append(changed, v.Path())
			}
		}
		p.graph = g.Name()
		inplace.Announce(p.graph, changed)
		return outputs
	}
}

// call runs the program; the inputs stay the caller's. Compilation is timed apart.
func (p *program) call(inputs []*tensors.Tensor) ([]*tensors.Tensor, error) {
	var key strings.Builder
	for _, t := range inputs {
		key.WriteString(t.Shape().String())
	}
	if !p.compiled[key.String()] {
		start := time.Now()
		err := p.exec.Compile(mesh.HostAll(inputs)...)
		inplace.Withdraw(p.graph)
		if err != nil {
			return nil, fmt.Errorf("compiling the training step: %s: %w", p.name, err)
		}
		p.compiled[key.String()] = true
		p.took += time.Since(start)
	}
	out, err := p.exec.Run(inputs...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return out, nil
}

// CompileTime returns how long building and compiling took so far; 0 before the first Run.
func (s *Step) CompileTime() time.Duration {
	var sum time.Duration
	for _, p := range s.programs {
		sum += p.took
	}
	return sum
}

// Compilations counts the programs compiled so far. It stays the same once all batches have the same shapes.
func (s *Step) Compilations() int {
	n := 0
	for _, p := range s.programs {
		n += len(p.compiled)
	}
	return n
}

// Close frees the compiled programs.
func (s *Step) Close() {
	for _, p := range s.programs {
		p.exec.Close()
	}
}
