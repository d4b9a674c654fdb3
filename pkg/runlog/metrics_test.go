package runlog

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 15, 4, 5, 500e6, time.UTC)

func clock() time.Time { return noon }

func TestRowFormat(t *testing.T) {
	row := Row{Step: 20, Time: noon, Fields: []Field{
		F("loss", 4.125), F("lr", 1e-4), F("temp", math.NaN()), F("tiny", 3e-9), F("grad_norm", math.Inf(1))}}
	got, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"step":20,"time":"2026-01-02T15:04:05Z","loss":4.125,"lr":0.0001,"temp":null,"tiny":3e-09,` +
		`"grad_norm":null,"nonfinite":{"temp":"NaN","grad_norm":"+Inf"}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var back Row
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	if back.Step != 20 || !back.Time.Equal(noon.Truncate(time.Second)) || len(back.Fields) != 5 {
		t.Fatalf("read back %+v", back)
	}
	for i, f := range back.Fields {
		want := row.Fields[i]
		same := f.Value == want.Value || math.IsNaN(f.Value) && math.IsNaN(want.Value)
		if f.Key != want.Key || !same {
			t.Errorf("field %d is %v, want %v", i, f, want)
		}
	}
}

func TestRowKeepsEveryBit(t *testing.T) {
	values := []float64{0, math.Copysign(0, -1), 0.1, 1.0 / 3, 1e21, 1e-7, math.MaxFloat64, 5e-324, -123456789.125}
	for _, v := range values {
		data, err := json.Marshal(Row{Step: 1, Fields: []Field{F("v", v)}})
		if err != nil {
			t.Fatal(err)
		}
		var back Row
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		if got, _ := back.Value("v"); math.Float64bits(got) != math.Float64bits(v) {
			t.Errorf("%s: read %v, wrote %v", data, got, v)
		}
	}
}

func TestRowBadFieldNames(t *testing.T) {
	for _, fields := range [][]Field{{F("step", 1)}, {F("time", 1)}, {F("nonfinite", 1)}, {F("", 1)},
		{F("loss", 1), F("loss", 2)}} {
		if _, err := json.Marshal(Row{Step: 7, Fields: fields}); err == nil || !strings.Contains(err.Error(), "step 7") {
			t.Errorf("%v: error %v", fields, err)
		}
	}
}

func TestRowFromLaterVersion(t *testing.T) {
	var r Row
	text := `{"note":"x","step":3,"loss":1.5,"by_rank":[1,2],"gone":null,"time":"2026-01-02T15:04:05Z"}`
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if v, ok := r.Value("loss"); !ok || v != 1.5 || r.Step != 3 {
		t.Errorf("row %+v", r)
	}
	if v, ok := r.Value("gone"); !ok || !math.IsNaN(v) {
		t.Errorf("null without a flag is %v, %v; want NaN", v, ok)
	}
	if _, ok := r.Value("note"); ok {
		t.Error("a text became a measurement")
	}
}

// steps appends one row per step given.
func steps(t *testing.T, path string, resume int, which ...int) {
	t.Helper()
	m, err := OpenMetrics(path, resume)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range which {
		if err := m.Append(Row{Step: s, Time: noon, Fields: []Field{F("loss", float64(s))}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func readSteps(t *testing.T, path string) []int {
	t.Helper()
	rows, err := ReadMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	out := []int{}
	for _, r := range rows {
		out = append(out, r.Step)
	}
	return out
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestMetricsResume(t *testing.T) {
	tests := []struct {
		name         string
		before, tail string // tail is written raw after the rows of steps 10, 20, 30
		resume       int
		want         []int
	}{
		{"goes on", "", "", 30, []int{10, 20, 30, 99}},
		{"cuts what came after the checkpoint", "", "", 20, []int{10, 20, 99}},
		{"new series", "", "", 0, []int{99}},
		{"torn last line", "", `{"step":40,"time":"2026-0`, 30, []int{10, 20, 30, 99}},
		{"torn by lost pages", "", "\x00\x00\x00\x00", 30, []int{10, 20, 30, 99}},
		{"whole line without its end", "", `{"step":40,"loss":4}`, 40, []int{10, 20, 30, 40, 99}},
		{"whole line without its end, cut", "", `{"step":40,"loss":4}`, 30, []int{10, 20, 30, 99}},
		{"empty lines", "", "\n\n", 30, []int{10, 20, 30, 99}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), MetricsFile)
			steps(t, path, 0, 10, 20, 30)
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tc.tail); err != nil {
				t.Fatal(err)
			}
			f.Close()
			steps(t, path, tc.resume, 99)
			if got := readSteps(t, path); !equal(got, tc.want) {
				t.Errorf("steps %v, want %v", got, tc.want)
			}
		})
	}
}

func TestMetricsResumeKeepsBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	steps(t, path, 0, 10, 20, 30)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	steps(t, path, 10, 20, 30)
	again, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(whole) != string(again) {
		t.Errorf("a resumed series differs:\n%s\nwant\n%s", again, whole)
	}
}

func TestReadMetricsTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	os.WriteFile(path, []byte("{\"step\":1,\"loss\":2}\n{\"step\":2,\"lo"), 0o644)
	if got := readSteps(t, path); !equal(got, []int{1}) {
		t.Errorf("steps %v, want [1]", got)
	}
}

func TestMetricsDamagedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), MetricsFile)
	os.WriteFile(path, []byte("{\"step\":1}\nhello\n{\"step\":3}\n"), 0o644)
	rows, err := ReadMetrics(path)
	if err == nil || !strings.Contains(err.Error(), MetricsFile+" line 2") {
		t.Errorf("error %v does not name the line", err)
	}
	if len(rows) != 1 {
		t.Errorf("%d rows before the damage, want 1", len(rows))
	}
	if _, err := OpenMetrics(path, 3); err == nil {
		t.Error("a damaged log was opened to go on")
	}
	for _, line := range []string{`{"loss":1}`, `{"step":"3"}`, `{"step":-4}`, `[1]`, `{"step":1,"time":"noon"}`} {
		os.WriteFile(path, []byte(line+"\n"), 0o644)
		if _, err := ReadMetrics(path); err == nil {
			t.Errorf("%s was read as a row", line)
		}
	}
}

func TestOpenMetricsNoFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", MetricsFile)
	if _, err := OpenMetrics(path, 0); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("error %v does not name the folder", err)
	}
}
