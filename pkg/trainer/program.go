package trainer

import (
	"fmt"
	"strings"
	"time"

	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// program is one of the compiled graphs of a step. It is compiled once for each list of input shapes.
type program struct {
	name     string
	exec     *mlx.Exec
	err      error           // of making it
	compiled map[string]bool // by input shapes
	took     time.Duration   // building and compiling
}

// newProgram makes a program and keeps it. Its error is failedProgram's.
func (s *Step) newProgram(name string, build func(*mlx.Scope, []*Node) []*Node) *program {
	p := &program{name: name, compiled: map[string]bool{}}
	if p.exec, p.err = mlx.NewExec(s.backend, s.store, build); p.err == nil {
		p.exec = p.exec.WithName(name)
	}
	s.programs = append(s.programs, p)
	return p
}

func (s *Step) failedProgram() error {
	for _, p := range s.programs {
		if p.err != nil {
			return fmt.Errorf("preparing the training step: %s: %w", p.name, p.err)
		}
	}
	return nil
}

// call runs the program; the inputs stay the caller's. Compilation is timed apart.
func (p *program) call(inputs []*tensors.Tensor) ([]*tensors.Tensor, error) {
	args, inputShapes := make([]any, len(inputs)), make([]shapes.Shape, len(inputs))
	var key strings.Builder
	for i, t := range inputs {
		args[i], inputShapes[i] = t, t.Shape()
		key.WriteString(t.Shape().String())
	}
	if !p.compiled[key.String()] {
		start := time.Now()
		if _, err := p.exec.Compile(inputShapes...); err != nil {
			return nil, fmt.Errorf("compiling the training step: %s: %w", p.name, err)
		}
		p.compiled[key.String()] = true
		p.took += time.Since(start)
	}
	out, err := p.exec.Call(args...)
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
		if p.exec != nil {
			p.exec.Finalize()
		}
	}
}
