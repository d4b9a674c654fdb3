package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute"

	"blip2/pkg/weights"
)

// Files of a case.
const (
	caseFile     = "case.json"
	expectedFile = "expected.json"
	inputsFile   = "inputs.safetensors"
	outputsFile  = "outputs.safetensors"
	weightsFile  = "weights.safetensors"
)

// Case is one folder of recorded inputs and answers.
type Case struct {
	// Name is the folder, relative to the root of the run.
	Name string
	// Kind selects the handler.
	Kind string
	// Dir is the folder on disk.
	Dir string

	configJSON    json.RawMessage
	toleranceJSON json.RawMessage
	env           *environment
	open          map[string]*weights.File // by name
}

// loadCase reads case.json of the case at the slash-separated path name below root. The case is never nil; with an
// error it holds what is known about it.
func loadCase(root, name string) (*Case, error) {
	c := &Case{Name: name, Dir: filepath.Join(root, filepath.FromSlash(name))}
	if name == "." {
		c.Name = filepath.Base(c.Dir)
	}
	var head struct {
		Kind      string          `json:"kind"`
		Config    json.RawMessage `json:"config"`
		Tolerance json.RawMessage `json:"tolerance"`
	}
	if err := c.readJSON(caseFile, &head); err != nil {
		return c, err
	}
	c.Kind, c.configJSON, c.toleranceJSON = head.Kind, head.Config, head.Tolerance
	if c.Kind == "" {
		return c, fmt.Errorf("%s names no kind", caseFile)
	}
	return c, nil
}

// config decodes the case's config into v. Keys that v does not have are ignored: they are other functions' business.
func (c *Case) config(v any) error {
	if c.configJSON == nil {
		return fmt.Errorf("%s has no config", caseFile)
	}
	if err := json.Unmarshal(c.configJSON, v); err != nil {
		return fmt.Errorf("config in %s: %w", caseFile, err)
	}
	return nil
}

// tolerance is the allowance |got − want| ≤ atol + rtol·|want|.
type tolerance struct{ atol, rtol float64 }

// tolerance returns the case's atol and rtol. Kinds with allowances of their own do not call it.
func (c *Case) tolerance() (tolerance, error) {
	var v struct{ Atol, Rtol *float64 }
	if c.toleranceJSON == nil {
		return tolerance{}, fmt.Errorf("%s has no tolerance", caseFile)
	}
	if err := json.Unmarshal(c.toleranceJSON, &v); err != nil {
		return tolerance{}, fmt.Errorf("tolerance in %s: %w", caseFile, err)
	}
	for key, x := range map[string]*float64{"atol": v.Atol, "rtol": v.Rtol} {
		if x == nil || *x < 0 || math.IsInf(*x, 0) {
			return tolerance{}, fmt.Errorf("tolerance in %s: %s must be a number that is not negative", caseFile, key)
		}
	}
	return tolerance{*v.Atol, *v.Rtol}, nil
}

// allowance returns one number of the case's tolerance, for kinds that do not use atol and rtol.
func (c *Case) allowance(key string) (float64, error) {
	var v map[string]any
	if err := json.Unmarshal(c.toleranceJSON, &v); err != nil {
		return 0, fmt.Errorf("tolerance in %s: %w", caseFile, err)
	}
	x, ok := v[key].(float64)
	if !ok || x < 0 {
		return 0, fmt.Errorf("tolerance in %s: %s must be a number that is not negative", caseFile, key)
	}
	return x, nil
}

// file returns the path on disk of a file of the case, given slash-separated and inside the folder, or of a file of
// the data folder, given as "data:PATH".
func (c *Case) file(name string) (string, error) {
	base := c.Dir
	rest, isData := strings.CutPrefix(name, "data:")
	if isData {
		base = c.env.dataDir
	}
	if !fs.ValidPath(path.Clean(rest)) {
		return "", fmt.Errorf("file %q leads out of the folder", name)
	}
	return filepath.Join(base, filepath.FromSlash(rest)), nil
}

// readJSON decodes a JSON file of the case into v.
func (c *Case) readJSON(name string, v any) error {
	p, err := c.file(name)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(p)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// tensors opens a safetensors file of the case, once; it is closed with the case.
func (c *Case) tensors(name string) (*weights.File, error) {
	if f, ok := c.open[name]; ok {
		return f, nil
	}
	p, err := c.file(name)
	if err != nil {
		return nil, err
	}
	f, err := weights.Open(p)
	if err != nil {
		return nil, err
	}
	if c.open == nil {
		c.open = map[string]*weights.File{}
	}
	c.open[name] = f
	return f, nil
}

func (c *Case) inputs() (*weights.File, error) { return c.tensors(inputsFile) }

// openOutputs gives the checker the recorded outputs and, where the case has them, atol and rtol.
func (c *Case) openOutputs(k *checker) error {
	tol, tolErr := c.tolerance()
	k.tol = tol
	p := filepath.Join(c.Dir, outputsFile)
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		return nil // a kind whose answers are in expected.json or in pictures
	}
	if tolErr != nil {
		return tolErr
	}
	f, err := c.tensors(outputsFile)
	if err != nil {
		return err
	}
	k.expect(f)
	return nil
}

// requireOutputs is for kinds whose answers are tensors: without the file the case has nothing to say.
func (c *Case) requireOutputs(k *checker) error {
	if k.outputs == nil {
		return fmt.Errorf("%s is missing", outputsFile)
	}
	return nil
}

// backend returns the backend of the run.
func (c *Case) backend() (compute.Backend, error) { return c.env.Backend() }

func (c *Case) close() {
	for _, f := range c.open {
		_ = f.Close() // read only: nothing can be lost
	}
	c.open = nil
}
