package inplace

import (
	"strings"
	"testing"
)

const module = `module @train_step_0 attributes {stablehlo.num_partitions = 2} {
  func.func @main(%_0: tensor<3xui64>, %_layer_weight: tensor<2x3xf32>, %_opt_m_layer_weight: tensor<2x3xf32> { sdy.sharding = #sdy.sharding<@mesh, [{}, {}]> }, %frozen: tensor<f32>) -> (tensor<2x3xf32>, tensor<2x3xf32> { sdy.sharding = #sdy.sharding<@mesh, [{}, {}]> }, tensor<6xf32>) {
    %0 = "stablehlo.add"(%_layer_weight, %_opt_m_layer_weight) : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  }
}
`

func TestAnnouncedOutputsTakeTheirParametersPlaces(t *testing.T) {
	Announce("train step#0", []string{"/opt/m/layer/weight", "/layer/weight"})
	defer Withdraw("train step#0")
	got := string(Edit([]byte(module)))
	for _, want := range []string{
		"%_layer_weight: tensor<2x3xf32> {tf.aliasing_output = 1 : i32}, ",
		"%_opt_m_layer_weight: tensor<2x3xf32> {tf.aliasing_output = 0 : i32,  sdy.sharding = ",
		"%_0: tensor<3xui64>, ",
		"%frozen: tensor<f32>) -> (",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("edited module lacks %q:\n%s", want, got)
		}
	}
	plain := strings.NewReplacer(" {tf.aliasing_output = 1 : i32}", "", " {tf.aliasing_output = 0 : i32, ", " {").Replace(got)
	if plain != module {
		t.Errorf("more was changed than the attributes:\n%s", got)
	}
}

func TestOtherModulesStayAsTheyAre(t *testing.T) {
	for _, tt := range []struct {
		name, graph string
		params      []string
	}{
		{"another graph", "train step#1", []string{"/layer/weight"}},
		{"an unknown parameter", "train step#0", []string{"/layer/bias"}},
		{"another type", "train step#0", []string{"/layer/weight", "/opt/m/layer/weight", "frozen"}},
		{"more parameters than outputs", "train step#0", []string{"/layer/weight", "/opt/m/layer/weight", "x", "frozen"}},
		{"nothing", "train step#0", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			Announce(tt.graph, tt.params)
			defer Withdraw(tt.graph)
			if got := string(Edit([]byte(module))); got != module {
				t.Errorf("changed:\n%s", got)
			}
		})
	}
	Announce("train step#0", []string{"/layer/weight"})
	Withdraw("train step#0")
	for _, text := range []string{module, "", "module", "module @train_step_0", "module @train_step_0 {func.func @main(", "\x00ML\xefR"} {
		if got := string(Edit([]byte(text))); got != text {
			t.Errorf("Edit(%q) = %q", text, got)
		}
	}
}

func TestBrokenModulesStayAsTheyAre(t *testing.T) {
	Announce("train step#0", []string{"/layer/weight"})
	defer Withdraw("train step#0")
	for end := range module[:strings.Index(module, "{\n    %0")] {
		if got := string(Edit([]byte(module[:end]))); got != module[:end] && !strings.Contains(got, "aliasing_output = 0") {
			t.Fatalf("Edit(%q) = %q", module[:end], got)
		}
	}
}
