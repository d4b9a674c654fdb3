// Package verify runs recorded reference cases: inputs, weights and the numbers that the reference implementation
// answered, kept as folders of JSON and safetensors files. Each case has a kind; each family of kinds has one file
// here, whose handlers compute the same with this program and hand every result to a checker.
//
// A case passes only if every recorded number was computed and lies within the case's tolerance: an output that a
// handler forgets, a weight that the model does not use and a kind that nobody knows are failures.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"blip2/pkg/metrics/caption"

	"github.com/gomlx/compute"
)

// Options say which cases run and on what.
type Options struct {
	// Dir is the folder whose cases run: itself, if it is a case, else all cases below it. Empty: the cases inside
	// the program.
	Dir string
	// DataDir is the folder of the pictures that some cases name as "data:PATH". Empty: the environment variable
	// BLIP2_DATA, else the folder "data" beside Dir.
	DataDir string
	// Kinds limits the run to these kinds; empty is all.
	Kinds []string
	// OpenBackend opens the backend of the model kinds. It is called once, when the first case needs it, so that
	// kinds without a model run anywhere. The caller closes the backend.
	OpenBackend func(ctx context.Context) (compute.Backend, error)
	// Scorers compute METEOR and SPICE; what they do not compute is not checked.
	Scorers []caption.Scorer
	// OnResult, if set, hears each result as soon as it is there.
	OnResult func(Result)
}

// Status is the outcome of a case.
type Status string

// The outcomes of a case.
const (
	Passed  Status = "pass"
	Failed  Status = "FAIL"
	Pending Status = "pending" // the kind stands in PendingKinds
)

// Result is what came out of one case.
type Result struct {
	Name     string // the case's folder, relative to the root
	Kind     string
	Status   Status
	Compared int // tensors, pictures, lists and strings compared
	// WorstAbs is the greatest |got − want|, +Inf if a result was not a number.
	WorstAbs float64
	// WorstRel is the greatest |got − want| / max(|want|, atol): relative to the number itself, but not below the
	// magnitude at which the case stops telling numbers from zero.
	WorstRel float64
	// Share is the greatest part of the tolerance used by an element: above 1 the case fails.
	Share float64
	// Worst names the element that Share belongs to, such as "grad/temp" or "sim_i2t[0 3]".
	Worst   string
	Seconds float64
	Err     error // why Status is not Passed
	// NotChecked are parts of the case that this machine cannot compute, with the reason. What was compared decides on
	// Status; these parts have neither passed nor failed.
	NotChecked map[string]string
}

// Report holds the results of a run, in the order of the case names.
type Report struct{ Results []Result }

// Count returns the number of results with the given status.
func (r Report) Count(status Status) int {
	n := 0
	for _, result := range r.Results {
		if result.Status == status {
			n++
		}
	}
	return n
}

// Run runs the cases that o selects, one after another. Whatever is wrong with a case — a missing file, an unknown
// kind, wrong numbers, a panic — is in its Result, and the other cases go on. The error is about the run as a whole:
// no such folder, no case in it, or ctx cancelled (then the report holds the cases finished until then).
func Run(ctx context.Context, o Options) (Report, error) {
	var report Report
	dir, cleanup, err := o.root()
	if err != nil {
		return report, err
	}
	defer cleanup()
	cases, err := findCases(dir)
	if err != nil {
		return report, err
	}
	env := &environment{ctx: ctx, open: o.OpenBackend, scorers: o.Scorers, dataDir: o.dataDir(dir)}
	for _, name := range cases {
		if err := ctx.Err(); err != nil {
			return report, fmt.Errorf("stopped before case %s: %w", name, err)
		}
		c, err := loadCase(dir, name)
		// A case whose kind cannot be read may be of the kinds asked for: it is not passed over.
		if len(o.Kinds) > 0 && c.Kind != "" && !slices.Contains(o.Kinds, c.Kind) {
			continue
		}
		result := runCase(env, c, err)
		report.Results = append(report.Results, result)
		if o.OnResult != nil {
			o.OnResult(result)
		}
	}
	if len(report.Results) == 0 {
		where := dir
		if o.Dir == "" {
			where = "the program; name a folder of cases"
		}
		return report, fmt.Errorf("no case of kind %s among the %d of %s", strings.Join(o.Kinds, " or "), len(cases), where)
	}
	return report, nil
}

// root returns the folder of cases. The embedded ones are copied to a temporary folder, because weights are
// memory-mapped and some kinds read whole folders through the same code as a user's files.
func (o Options) root() (dir string, cleanup func(), err error) {
	if o.Dir != "" {
		info, err := os.Stat(o.Dir)
		if err != nil {
			return "", nil, fmt.Errorf("folder of cases: %w; name the folder that holds the cases", err)
		}
		if !info.IsDir() {
			return "", nil, fmt.Errorf("folder of cases: %s is a file; name the folder that holds the cases", o.Dir)
		}
		return o.Dir, func() {}, nil
	}
	dir, err = os.MkdirTemp("", "blip2-verify-*")
	if err != nil {
		return "", nil, fmt.Errorf("unpacking the built-in cases: %w", err)
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	if err := os.CopyFS(dir, Embedded()); err != nil {
		cleanup()
		return "", nil, fmt.Errorf("unpacking the built-in cases: %w", err)
	}
	return dir, cleanup, nil
}

func (o Options) dataDir(root string) string {
	if o.DataDir != "" {
		return o.DataDir
	}
	if dir := os.Getenv("BLIP2_DATA"); dir != "" {
		return dir
	}
	return filepath.Join(filepath.Dir(root), "data")
}

// maxDepth bounds the search for cases, so that links that lead upwards end.
const maxDepth = 4

// findCases returns the slash-separated paths of the case folders below dir in order, "." if dir is one itself. Links
// to folders are followed. A folder is a case if it has a file that only cases have: one without case.json is reported
// as broken rather than overlooked.
func findCases(dir string) ([]string, error) {
	var cases []string
	var walk func(name string, depth int) error
	walk = func(name string, depth int) error {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("folder of cases: %w", err)
		}
		if slices.ContainsFunc(entries, isCaseFile) {
			cases = append(cases, filepath.ToSlash(name))
			return nil
		}
		for _, e := range entries {
			child := filepath.Join(name, e.Name())
			if info, err := os.Stat(filepath.Join(dir, child)); err != nil || !info.IsDir() || depth == maxDepth {
				continue
			}
			if err := walk(child, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(".", 0); err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("no case in %s: a case is a folder with a file case.json", dir)
	}
	return cases, nil
}

func isCaseFile(e fs.DirEntry) bool {
	switch e.Name() {
	case caseFile, expectedFile, inputsFile, outputsFile:
		return true
	}
	return false
}

// environment is what the cases of one run share.
type environment struct {
	ctx     context.Context
	open    func(context.Context) (compute.Backend, error)
	dataDir string
	scorers []caption.Scorer

	backend    compute.Backend
	backendErr error
}

// Backend opens the backend at the first call. A failure is remembered: every model case reports it.
func (e *environment) Backend() (compute.Backend, error) {
	if e.backend == nil && e.backendErr == nil {
		if e.open == nil {
			e.backendErr = errors.New("this kind needs a backend and none was given")
		} else if e.backend, e.backendErr = e.open(e.ctx); e.backendErr != nil {
			e.backendErr = fmt.Errorf("opening the backend: %w", e.backendErr)
		}
	}
	return e.backend, e.backendErr
}

// runCase runs one case to its result; loadErr is what loadCase said about it.
func runCase(env *environment, c *Case, loadErr error) Result {
	start := time.Now()
	k := &checker{}
	err := loadErr
	status := Failed
	if err == nil {
		if handle, ok := handlers()[c.Kind]; ok {
			c.env = env
			err = check(c, k, handle)
		} else if slices.Contains(PendingKinds(), c.Kind) {
			status, err = Pending, fmt.Errorf("kind %s is not built yet", c.Kind)
		} else {
			err = fmt.Errorf("kind %q is unknown", c.Kind)
		}
	}
	if err == nil {
		status = Passed
	}
	return Result{Name: c.Name, Kind: c.Kind, Status: status, Compared: k.compared, WorstAbs: k.worstAbs,
		WorstRel: k.worstRel, Share: k.share, Worst: k.worst, Seconds: time.Since(start).Seconds(), Err: err,
		NotChecked: k.unchecked}
}

// check runs a handler. Graph building reports mistakes by panics; here they become the case's error.
func check(c *Case, k *checker, handle handler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	defer c.close()
	if err := c.openOutputs(k); err != nil {
		return err
	}
	if err := handle(c, k); err != nil {
		return errors.Join(err, k.failure())
	}
	return k.finish()
}
