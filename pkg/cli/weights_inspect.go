package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/weights"
)

func newWeightsInspectCmd(app *App) *cobra.Command {
	var opts inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect FILE|DIR",
		Short: "Show what a checkpoint holds: network, sizes, tensors",
		Example: `  blip2 weights inspect models/eva_vit_g.pth
  blip2 weights inspect --tensors models/blip2-opt-2.7b
  blip2 weights inspect --json models/blip2-opt-2.7b | jq '.tensors[].name'`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := opts.hints.check(); err != nil {
				return err
			}
			opts.path = args[0]
			return runWeightsInspect(app, opts)
		},
	}
	opts.hints.add(cmd)
	cmd.Flags().BoolVar(&opts.tensors, "tensors", false, "list every tensor with its shape, type and bytes")
	return cmd
}

type inspectOptions struct {
	path    string
	tensors bool
	hints   hintFlags
}

// inspectReport is what weights inspect prints.
type inspectReport struct {
	Path       string                `json:"path"`
	Container  string                `json:"container"`
	Files      []weights.FileSize    `json:"files"`
	Format     string                `json:"format"` // empty if it is of no network that is known
	Model      string                `json:"model"`
	Publisher  string                `json:"publisher"`
	Spec       *published.Spec       `json:"spec,omitempty"`
	SizesFrom  string                `json:"sizes_from,omitempty"`
	Problem    string                `json:"problem,omitempty"` // why it is not a complete checkpoint of that network
	Parameters int64                 `json:"parameters"`        // elements of all tensors
	Types      []published.TypeCount `json:"types"`
	Coverage   *naming.Coverage      `json:"coverage,omitempty"`
	Extras     map[string]string     `json:"extras,omitempty"` // what stands beside the tensors
	Tensors    []tensorInfo          `json:"tensors"`
}

type tensorInfo struct {
	Name  string        `json:"name"`
	DType weights.DType `json:"dtype"`
	Shape []int         `json:"shape"`
	Bytes int           `json:"bytes"`
}

func runWeightsInspect(app *App, opts inspectOptions) error {
	run, err := findRun(app, opts.path)
	if err != nil {
		return err
	}
	run.hints(&opts.hints.Hints)
	src, err := weights.OpenAny(run.path)
	if err != nil {
		return err
	}
	defer src.Close() // read only: nothing can be lost
	report, err := inspect(src, opts.hints.Hints)
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	var text strings.Builder
	if err := report.writeText(&text, opts.tensors); err != nil {
		return err
	}
	_, err = io.WriteString(app.Out, visible(text.String()))
	return err
}

// inspect describes a checkpoint; one of an unknown network is described too.
func inspect(src weights.Source, h published.Hints) (*inspectReport, error) {
	r := &inspectReport{Path: src.Path(), Container: src.Container(), Files: src.Files(), Extras: extras(src)}
	for _, name := range src.Names() {
		t, err := src.Info(name)
		if err != nil {
			return nil, err
		}
		r.Tensors = append(r.Tensors, tensorInfo{name, t.DType, t.Shape,
			model.Param{Shape: t.Shape}.Size() * t.DType.Size()})
	}
	var err error
	if r.Types, err = published.CountTypes(src); err != nil {
		return nil, err
	}
	for _, t := range r.Types {
		r.Parameters += t.Elements
	}
	c, err := published.Identify(src, h)
	if err != nil {
		r.Problem = err.Error()
		return r, nil
	}
	r.Format, r.Model, r.Publisher, r.Spec, r.SizesFrom = c.Table.Name, c.Model, c.Publisher, &c.Spec, c.SpecFrom
	plan, err := c.Plan(false, false)
	r.Coverage = plan.Coverage()
	if err != nil {
		r.Problem = err.Error()
	}
	return r, nil
}

// extras describes what a PyTorch file holds beside the tensors.
func extras(src weights.Source) map[string]string {
	t, ok := src.(*weights.Torch)
	if !ok {
		return nil
	}
	root, ok := t.Value().(*weights.Dict)
	if !ok || t.StateKey() == "" {
		return nil
	}
	out := map[string]string{}
	for key, value := range root.All() {
		name := fmt.Sprint(key)
		switch v := value.(type) {
		case *weights.Dict:
			out[name] = fmt.Sprintf("%d entries", v.Len())
		case []any:
			out[name] = fmt.Sprintf("a list of %d", len(v))
		default:
			out[name] = clipText(fmt.Sprint(v))
		}
		if name == t.StateKey() {
			out[name] += ", the tensors"
		}
	}
	return out
}

// clipText cuts a text that is too long for a line.
func clipText(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (r *inspectReport) writeText(w io.Writer, tensors bool) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tab, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("path", "%s", r.Path)
	size := int64(0)
	for _, f := range r.Files {
		size += f.Size
	}
	row("container", "%s, %s", r.Container, byteSize(size))
	row("in the file", "%s, %s numbers", countOf(len(r.Tensors), "tensor"), thousands(r.Parameters))
	for _, t := range r.Types {
		row("  "+string(t.DType), "%s, %s", countOf(t.Tensors, "tensor"), byteSize(t.Bytes))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Extras)) {
		row("  "+key, "%s", r.Extras[key])
	}
	if r.Format == "" {
		row("network", "not known: %s", r.Problem)
	} else {
		row("network", "%s (%s)", r.Format, r.Model)
		for _, line := range r.Spec.Describe() {
			name, value, _ := strings.Cut(line, ": ")
			row("  "+name, "%s", value)
		}
		row("  sizes from", "%s", r.SizesFrom)
		row("  filled", "%s, %s parameters", countOf(len(r.Coverage.Filled), "tensor"),
			thousands(parametersOf(r.Spec, r.Coverage.Filled)))
		if missing := r.Spec.Missing(); len(missing) > 0 {
			row("  not in it", "%s", strings.Join(missing, ", "))
		}
		if r.Problem != "" {
			row("problem", "%s", r.Problem)
		}
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if r.Coverage != nil {
		for _, line := range r.Coverage.Lines()[1:] {
			fmt.Fprintln(w, line)
		}
	}
	if !tensors {
		return nil
	}
	fmt.Fprintln(tab, "\nTENSOR\tTYPE\tSHAPE\tBYTES")
	for _, t := range r.Tensors {
		fmt.Fprintf(tab, "%s\t%s\t%v\t%d\n", printable(t.Name), t.DType, t.Shape, t.Bytes)
	}
	return tab.Flush()
}

// countOf writes a number of things.
func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for at := len(s) - 3; at > 0; at -= 3 {
		s = s[:at] + "," + s[at:]
	}
	return s
}

// byteSize writes a size in bytes, kB, MB or GB (powers of 1000).
func byteSize(n int64) string {
	size, unit := float64(n), "bytes"
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, u
	}
	if unit == "bytes" {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.3g %s", size, unit)
}

// parametersOf counts the elements of the named tensors of a network.
func parametersOf(s *published.Spec, names []string) int64 {
	n := int64(0)
	for _, p := range s.Params() {
		if _, ok := slices.BinarySearch(names, p.Name); ok {
			n += int64(p.Size())
		}
	}
	return n
}
