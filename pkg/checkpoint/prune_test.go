package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func steps(t *testing.T, run string) []int {
	t.Helper()
	found, err := list(run)
	if err != nil {
		t.Fatal(err)
	}
	out := []int{}
	for _, c := range found {
		out = append(out, c.step)
	}
	slices.Sort(out)
	return out
}

func TestPrune(t *testing.T) {
	cut := func(t *testing.T, run string, step int) {
		if err := os.Truncate(filepath.Join(run, Folder, DirName(step), ModelFile), 10); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(t *testing.T, run string, step int) { // same size, so only reading it shows
		path := filepath.Join(run, Folder, DirName(step), ModelFile)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)-1] ^= 0x80
		if err := os.WriteFile(path, raw, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	none := func(*testing.T, string) {}
	for _, c := range []struct {
		name   string
		policy Policy
		damage func(*testing.T, string)
		want   []int
	}{
		{"last two", Policy{KeepLast: 2}, none, []int{50, 60}},
		{"last one", Policy{KeepLast: 1}, none, []int{60}},
		{"nothing", Policy{}, none, []int{10, 20, 30, 40, 50, 60}},
		{"more than there are", Policy{KeepLast: 9}, none, []int{10, 20, 30, 40, 50, 60}},
		{"every thirty", Policy{KeepLast: 1, KeepEvery: 30}, none, []int{30, 60}},
		{"best", Policy{KeepLast: 1, Protect: []int{20, 45}}, none, []int{20, 60}},
		{"all together", Policy{KeepLast: 2, KeepEvery: 40, Protect: []int{10}}, none, []int{10, 40, 50, 60}},
		{"newest cut", Policy{KeepLast: 1}, func(t *testing.T, run string) { cut(t, run, 60) }, []int{50, 60}},
		{"newest flipped", Policy{KeepLast: 1}, func(t *testing.T, run string) { flip(t, run, 60) }, []int{50, 60}},
		{"two newest flipped", Policy{KeepLast: 2}, func(t *testing.T, run string) { flip(t, run, 60); flip(t, run, 50) },
			[]int{40, 50, 60}},
		{"old one cut", Policy{KeepLast: 2}, func(t *testing.T, run string) { cut(t, run, 30) }, []int{50, 60}},
		{"second cut does not count", Policy{KeepLast: 2}, func(t *testing.T, run string) { cut(t, run, 50) }, []int{40, 60}},
		{"none good", Policy{KeepLast: 1}, func(t *testing.T, run string) {
			for step := 10; step <= 60; step += 10 {
				flip(t, run, step)
			}
		}, []int{10, 20, 30, 40, 50, 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := t.TempDir()
			for step := 10; step <= 60; step += 10 {
				mustSave(t, run, snapshot(step, 0, 2))
			}
			c.damage(t, run)
			removed, err := Prune(run, c.policy)
			if err != nil {
				t.Fatal(err)
			}
			if got := steps(t, run); !slices.Equal(got, c.want) || len(removed) != 6-len(c.want) {
				t.Errorf("left are %v, want %v; removed %v", got, c.want, removed)
			}
			if n := countTemporary(t, run); n != 0 {
				t.Errorf("%d temporary directories are left", n)
			}
		})
	}
}

// TestPruneAfterGoingBack keeps what was saved last although directories of later steps exist.
func TestPruneAfterGoingBack(t *testing.T) {
	run := t.TempDir()
	for _, step := range []int{10, 20, 30, 15} {
		mustSave(t, run, snapshot(step, 0, 2))
	}
	if _, err := Prune(run, Policy{KeepLast: 1}); err != nil {
		t.Fatal(err)
	}
	if got := steps(t, run); !slices.Equal(got, []int{15, 30}) {
		t.Errorf("left are %v", got)
	}
}

func TestPruneNothing(t *testing.T) {
	if removed, err := Prune(filepath.Join(t.TempDir(), "nosuch"), Policy{KeepLast: 1}); err != nil || len(removed) != 0 {
		t.Errorf("%v, %v", removed, err)
	}
}
