package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// references is testdata/references.json.gz; see make_references.py there.
type references struct {
	Texts      []string `json:"texts"`
	Broken     [][]byte `json:"broken"` // texts that are not UTF-8
	Tokenizers []reference
}

// reference is what one tokenizer makes of the texts.
type reference struct {
	Name    string            `json:"name"`
	Files   map[string][]byte `json:"files"`   // of its folder
	Shared  string            `json:"shared"`  // or its path in the shared folder
	Literal bool              `json:"literal"` // names of special tokens are ordinary text to it
	Special *SpecialIDs       `json:"special"`
	Size    int               `json:"size"`
	IDs     [][]int32         `json:"ids"`
	Plain   [][]int32         `json:"plain"` // without the model's own tokens, for the first texts
	OfBytes [][]int32         `json:"broken"`
	Decoded []string          `json:"decoded"` // of ids
	Skipped []string          `json:"skipped"` // and without special tokens
	Chance  []decoding        `json:"chance"`
	Cut     []cutting         `json:"cut"`
}

// decoding is a row of any ids and its text, with and without special tokens.
type decoding struct {
	ids           []int32
	text, skipped string
}

func (d *decoding) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&d.ids, &d.text, &d.skipped})
}

// cutting is a text cut to a length on a side.
type cutting struct {
	text   string
	length int
	side   string
	ids    []int32
}

func (c *cutting) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&c.text, &c.length, &c.side, &c.ids})
}

// loadReferences reads the recorded answers; the environment may name a larger file.
var loadReferences = sync.OnceValues(func() (*references, error) {
	path := os.Getenv("BLIP2_TOKENIZER_REFERENCES")
	if path == "" {
		path = filepath.Join("testdata", "references.json.gz")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var r references
	return &r, json.NewDecoder(unpacked).Decode(&r)
})

func readReferences(t testing.TB) *references {
	t.Helper()
	r, err := loadReferences()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Texts) < 200 || len(r.Tokenizers) == 0 {
		t.Fatalf("only %d texts for %d tokenizers", len(r.Texts), len(r.Tokenizers))
	}
	return r
}

// load makes the tokenizer, from files in a temporary folder or from the shared folder.
func (r reference) load(t testing.TB) Tokenizer {
	t.Helper()
	path := t.TempDir()
	for name, content := range r.Files {
		if err := os.WriteFile(filepath.Join(path, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r.Shared != "" {
		path = filepath.Join(filepath.Dir(dataDir(t)), r.Shared)
	}
	tok, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestReferences(t *testing.T) {
	all := readReferences(t)
	for _, r := range all.Tokenizers {
		t.Run(r.Name, func(t *testing.T) {
			tok := r.load(t)
			wrong := mistakes{t: t}
			options := EncodeOptions{Literal: r.Literal}
			for i, text := range all.Texts {
				wrong.ids(tok, text, tok.Encode(text, options), r.IDs[i])
			}
			for i, text := range all.Broken {
				wrong.ids(tok, string(text), tok.Encode(string(text), options), r.OfBytes[i])
			}
			for i, want := range r.Plain {
				wrong.ids(tok, all.Texts[i], tok.Encode(all.Texts[i], EncodeOptions{NoSpecial: true}), want)
			}
			for _, c := range r.Cut {
				got := tok.Encode(c.text, EncodeOptions{MaxLength: c.length, CutLeft: c.side == "left"})
				wrong.ids(tok, fmt.Sprintf("%s cut to %d %s", c.text, c.length, c.side), got, c.ids)
			}
			for i, want := range r.Decoded {
				wrong.text(r.IDs[i], tok.Decode(r.IDs[i], false), want)
			}
			last := r.IDs[len(r.IDs)-len(r.Skipped):]
			for i, want := range r.Skipped {
				wrong.text(last[i], tok.Decode(last[i], true), want)
			}
			for _, c := range r.Chance {
				wrong.text(c.ids, tok.Decode(c.ids, false), c.text)
				wrong.text(c.ids, tok.Decode(c.ids, true), c.skipped)
			}
			if r.Special != nil && tok.Special() != *r.Special {
				t.Errorf("special ids %+v, want %+v", tok.Special(), *r.Special)
			}
			if r.Size > 0 && tok.VocabSize() != r.Size {
				t.Errorf("%d ids, want %d", tok.VocabSize(), r.Size)
			}
			wrong.report()
		})
	}
}

// mistakes counts them and shows the first few.
type mistakes struct {
	t     *testing.T
	count int
}

func (m *mistakes) ids(tok Tokenizer, text string, got, want []int32) {
	m.t.Helper()
	if slices.Equal(got, want) {
		return
	}
	if m.count++; m.count <= 8 {
		m.t.Errorf("Encode(%.120q)\n got %v %q\nwant %v %q", text, got, pieceList(tok, got), want, pieceList(tok, want))
	}
}

func (m *mistakes) text(ids []int32, got, want string) {
	m.t.Helper()
	if got == want {
		return
	}
	if m.count++; m.count <= 8 {
		m.t.Errorf("Decode(%v)\n got %q\nwant %q", ids, got, want)
	}
}

func (m *mistakes) report() {
	if m.count > 0 {
		m.t.Errorf("%d differences", m.count)
	}
}

func pieceList(tok Tokenizer, ids []int32) string {
	var out []string
	for _, id := range ids {
		piece, _ := tok.Piece(id)
		out = append(out, piece)
	}
	return strings.Join(out, " ")
}
