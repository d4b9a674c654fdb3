package recompute

import (
	"fmt"
	"testing"
)

// TestModel: a text's successors follow its ids, and what two texts have in common is changed by neither.
func TestModel(t *testing.T) {
	var got string
	m := &Model{Prompts: [][]int32{{5, 6}, {7}}, Logits: func(rows []int32, texts [][]int32) ([]float32, error) {
		got = fmt.Sprint(rows, texts)
		return nil, nil
	}}
	check := func(want string, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s, want %s (error %v)", got, want, err)
		}
	}
	_, err := m.Start(t.Context())
	check("[0 1] [[5 6] [7]]", err)
	_, err = m.Step(t.Context(), []int{0, 0, 1, 1}, []int32{1, 2, 3, 4})
	check("[0 0 1 1] [[5 6 1] [5 6 2] [7 3] [7 4]]", err)
	_, err = m.Step(t.Context(), []int{3, 2}, []int32{8, 9})
	check("[1 1] [[7 4 8] [7 3 9]]", err)
	_, err = m.Start(t.Context())
	check("[0 1] [[5 6] [7]]", err)
}
