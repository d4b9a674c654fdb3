package footprint

import (
	"fmt"
	"os"
	"reflect"
	"sort"
	"strconv"
	"testing"
	"unsafe"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/go-xla/pjrt"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/stage1"
)

func stats(g *Graph) pjrt.ExecutableMemoryUsageStats {
	e := reflect.ValueOf(g.Executable()).Elem().FieldByName("exec")
	le := *(**pjrt.LoadedExecutable)(unsafe.Pointer(e.UnsafeAddr()))
	return le.OnDeviceMemoryUsageStats
}

func TestProto(t *testing.T) {
	dev, err := device.Open(t.Context(), device.Options{Backend: "xla:cpu"})
	if err != nil {
		t.Fatal(err)
	}
	sets := []string{"vision.preset=" + os.Getenv("VIT"), "qformer.preset=bert-base"}
	cfgc := config.DefaultStage1()
	path := os.Getenv("CFG")
	if path == "" {
		_ = sets
		cfgc.Vision = config.Vision{Arch: "clip", ImageSize: 224, PatchSize: 14, Width: 1024, Layers: 23, Heads: 16, MLPRatio: 4, LayerNormEps: 1e-5, LNVisionEps: 1e-5, InitStd: 0.02, Freeze: os.Getenv("TRAIN") == ""}
	} else {
		cfgc, _, err = config.LoadStage1(config.LoadOptions{Path: path})
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := stage1.NewConfig(cfgc, stage1.BERTVocabulary())
	if v := os.Getenv("LAYERS"); v != "" {
		cfg.Vision.Layers, _ = strconv.Atoi(v)
	}
	if v := os.Getenv("QLAYERS"); v != "" {
		cfg.QFormer.Layers, _ = strconv.Atoi(v)
	}
	if v := os.Getenv("DROP"); v != "" {
		cfg.QFormer.Dropout, _ = strconv.ParseFloat(v, 64)
	}
	batch, _ := strconv.Atoi(os.Getenv("B"))
	store := mlx.NewStore()
	for _, p := range stage1.Params(cfg) {
		dims := p.Shape
		store.VariableWithShape(model.Path(p.Name), shapes.Make(dtypes.Float32, dims...), nil)
	}
	task := stage1.NewTask(cfg)
	var outs []*Node
	exec, err := mlx.NewExec(dev.Backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		loss, _ := task.Loss(scope, in[1:], nn.NewRNG(in[0]))
		var vals []*Node
		for _, p := range task.Params {
			vals = append(vals, store.GetVariable(model.Path(p.Name)).NodeValue(loss.Graph()))
		}
		grads := Gradient(loss, vals...)
		outs = append([]*Node{loss}, grads...)
		return outs
	})
	if err != nil {
		t.Fatal(err)
	}
	s, l := cfg.Vision.ImageSize, cfg.MaxTextLen
	g, err := exec.Compile(shapes.Make(dtypes.Uint64, 3), shapes.Make(dtypes.Float32, batch, 3, s, s), shapes.Make(dtypes.Int32, batch, l), shapes.Make(dtypes.Int32, batch, l))
	if err != nil {
		t.Fatal(err)
	}
	m := stats(g)
	fmt.Printf("XLA: in %.1f out %.1f alias %.1f temp %.1f MB\n", float64(m.Inputs)/1e6, float64(m.Outputs)/1e6, float64(m.Aliases)/1e6, float64(m.Temporary)/1e6)
	p := Of(outs)
	fmt.Printf("predicted temp %.1f MB at node %d of %d (ratio %.3f)\n", float64(p.Temporary)/1e6, p.At, len(g.Nodes()), float64(p.Temporary)/float64(m.Temporary))
	kinds := map[string]int64{}
	for _, n := range p.Live {
		kinds[n.Type().String()+" "+n.Shape().String()] += int64(n.Shape().Size()) * int64(n.Shape().DType.Size())
	}
	var keys []string
	for k := range kinds {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return kinds[keys[i]] > kinds[keys[j]] })
	for _, k := range keys[:min(len(keys), 25)] {
		fmt.Printf("   %8.1f MB %s\n", float64(kinds[k])/1e6, k)
	}
}
