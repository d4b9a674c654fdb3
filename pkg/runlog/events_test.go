package runlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// The frames were written by the Python package tensorboard 2.21 (RecordWriter, event_pb2) for the same events.
func TestEventBytes(t *testing.T) {
	scalars := appendMessage(appendMessage(nil, fieldSummaryValue, scalarValue("train/loss", 3.25)),
		fieldSummaryValue, scalarValue("train/lr", 1e-4))
	picture := appendMessage(nil, fieldSummaryValue, imageValue("gallery/a", 2, 1, []byte("\x89PNG")))
	tests := []struct {
		name  string
		event []byte
		want  string
	}{
		{"file version", encodeEvent(noon, 0, fileVersion()),
			"1800000000000000a37f4b220900006099f755da411a0d627261696e2e4576656e743a32bf90977c"},
		{"session start", encodeEvent(noon, 301, sessionStart()),
			"100000000000000095fbfe180900006099f755da4110ad023a020801c5f9cfd4"},
		{"scalars", encodeEvent(noon, 310, appendMessage(nil, fieldEventSummary, scalars)),
			"3200000000000000241956ec0900006099f755da4110b6022a240a110a0a747261696e2f6c6f73731500005040" +
				"0a0f0a08747261696e2f6c721517b7d1380a472f9f"},
		{"picture", encodeEvent(noon, 310, appendMessage(nil, fieldEventSummary, picture)),
			"290000000000000037ff5f000900006099f755da4110b6022a1b0a190a0967616c6c6572792f61220c0801100218032204" +
				"89504e470b6301ee"},
	}
	for _, tc := range tests {
		if got := hex.EncodeToString(frame(tc.event)); got != tc.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// scalar is what the reader below finds.
type scalar struct {
	step  int
	tag   string
	value float32
}

// readEvents is a small reader that shares nothing with the writer: frames, checksums, and a generic walk over the
// protocol buffer.
func readEvents(t *testing.T, path string) (scalars []scalar, restarts []int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; len(data) > 0; n++ {
		size := binary.LittleEndian.Uint64(data)
		body := data[12 : 12+size]
		check(t, data[:8], data[8:12])
		check(t, body, data[12+size:16+size])
		data = data[16+size:]
		event := fieldsOf(t, body)
		step := 0
		if s, ok := event["2"]; ok {
			step = int(s[0].(uint64))
		}
		if n == 0 && string(event["3"][0].([]byte)) != "brain.Event:2" {
			t.Errorf("first event has no file version: %v", event)
		}
		if seconds := math.Float64frombits(event["1"][0].(uint64)); seconds != float64(noon.UnixMilli())/1000 {
			t.Errorf("wall time %v", seconds)
		}
		if _, ok := event["7"]; ok {
			restarts = append(restarts, step)
		}
		for _, summary := range event["5"] {
			for _, value := range fieldsOf(t, summary.([]byte))["1"] {
				v := fieldsOf(t, value.([]byte))
				if v["2"] != nil {
					scalars = append(scalars, scalar{step, string(v["1"][0].([]byte)),
						math.Float32frombits(v["2"][0].(uint32))})
				}
			}
		}
	}
	return scalars, restarts
}

func check(t *testing.T, data, sum []byte) {
	t.Helper()
	masked := binary.LittleEndian.Uint32(sum) - 0xa282ead8
	if got := masked>>17 | masked<<15; got != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) {
		t.Errorf("checksum of % x is wrong", data)
	}
}

// fieldsOf parses a message into field number → values: uint64 (varint, fixed64), uint32 (fixed32) or []byte.
func fieldsOf(t *testing.T, data []byte) map[string][]any {
	t.Helper()
	out := map[string][]any{}
	for len(data) > 0 {
		key, n := binary.Uvarint(data)
		data = data[n:]
		var v any
		switch key & 7 {
		case 0:
			x, n := binary.Uvarint(data)
			v, data = x, data[n:]
		case 1:
			v, data = binary.LittleEndian.Uint64(data), data[8:]
		case 2:
			size, n := binary.Uvarint(data)
			v, data = data[n:n+int(size)], data[n+int(size):]
		case 5:
			v, data = binary.LittleEndian.Uint32(data), data[4:]
		default:
			t.Fatalf("wire type %d", key&7)
		}
		number := fmt.Sprint(key >> 3)
		out[number] = append(out[number], v)
	}
	return out
}

func TestLogWritesBoth(t *testing.T) {
	dir := t.TempDir()
	o := Options{Now: clock, Host: "lab 1:a/b"}
	log, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for step := 10; step <= 30; step += 10 {
		if err := log.Record(step, F("loss", float64(step)/4), F("eval/r1", math.NaN())); err != nil {
			t.Fatal(err)
		}
	}
	var pic bytes.Buffer
	if err := png.Encode(&pic, image.NewRGBA(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	if err := log.Image(30, "gallery/a", pic.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := log.Image(30, "gallery/b", []byte("no picture")); err == nil {
		t.Error("a text was logged as a picture")
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(dir, "events.out.tfevents.1767366245.lab-1-a-b")
	got, restarts := readEvents(t, path)
	if len(got) != 6 || got[0] != (scalar{10, "train/loss", 2.5}) || got[4] != (scalar{30, "train/loss", 7.5}) ||
		got[5].tag != "eval/r1" || !math.IsNaN(float64(got[5].value)) {
		t.Errorf("scalars %v", got)
	}
	if !equal(restarts, []int{0}) {
		t.Errorf("a new run starts at %v, want step 0", restarts)
	}
	if s := readSteps(t, filepath.Join(dir, MetricsFile)); !equal(s, []int{10, 20, 30}) {
		t.Errorf("metrics.jsonl has steps %v", s)
	}

	o.ResumeStep = 20
	log, err = Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Record(30, F("loss", 1)); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	got, restarts = readEvents(t, path+".1")
	if len(got) != 1 || !equal(restarts, []int{21}) {
		t.Errorf("resumed log: scalars %v, restarts %v", got, restarts)
	}
	if s := readSteps(t, filepath.Join(dir, MetricsFile)); !equal(s, []int{10, 20, 30}) {
		t.Errorf("resumed metrics.jsonl has steps %v", s)
	}
}

func TestOpenNoFolder(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "gone"), Options{Now: clock}); err == nil {
		t.Error("logs were opened in a folder that is not there")
	}
}
