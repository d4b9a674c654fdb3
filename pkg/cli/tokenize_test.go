package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// tokenizeVocab is a vocabulary of WordPiece: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4.
const tokenizeVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\n##s\n.\n"

// tokenizeCmd runs "tokenize" with a line of arguments on the small vocabulary.
func tokenizeCmd(t *testing.T, stdin string, asJSON bool, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newTokenizeCmd(&App{In: strings.NewReader(stdin), Out: &out, Err: io.Discard, Globals: Globals{JSON: asJSON}})
	cmd.SetArgs(append([]string{"--model", writeFile(t, "vocab.txt", tokenizeVocab)}, args...))
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestTokenizeTable(t *testing.T) {
	got, err := tokenizeCmd(t, "", false, "Cats.", "[SEP]", "--max-length", "4", "--pad-to", "4")
	want := `"Cats."
       2  [CLS]
       6  cat
       7  ##s
       3  [SEP]

"[SEP]"
       2  [CLS]
       3  [SEP]
       3  [SEP]
       0  [PAD]  (padding)
`
	if err != nil || got != want {
		t.Errorf("printed\n%s, %v; want\n%s", got, err, want)
	}
}

func TestTokenizeJSON(t *testing.T) {
	for _, tt := range []struct {
		args, want string
	}{
		{"cats", `{"texts":[{"text":"cats","ids":[2,6,7,3],"tokens":["[CLS]","cat","##s","[SEP]"]}]}`},
		{"a|cat|--no-special", `{"texts":[{"text":"a","ids":[5],"tokens":["a"]},` +
			`{"text":"cat","ids":[6],"tokens":["cat"]}]}`},
		{"|--no-special", `{"texts":[{"text":"","ids":[],"tokens":[]}]}`},
		{"a[MASK]|--no-special", `{"texts":[{"text":"a[MASK]","ids":[5,4],"tokens":["a","[MASK]"]}]}`},
		{"a[PAD]|--no-special|--literal|--max-length|2",
			`{"texts":[{"text":"a[PAD]","ids":[5,1],"tokens":["a","[UNK]"]}]}`},
		{"a cats|--max-length|3|--truncation-side|left",
			`{"texts":[{"text":"a cats","ids":[2,7,3],"tokens":["[CLS]","##s","[SEP]"]}]}`},
		{"a|--no-special|--max-length|2|--pad-to|2|--padding-side|left",
			`{"texts":[{"text":"a","ids":[0,5],"tokens":["[PAD]","a"],"mask":[0,1]}]}`},
		{"--decode|2|6,7 8 3", `{"text":"[CLS] cats. [SEP]"}`},
		{"--decode|--no-special|2 6 7 8 3", `{"text":"cats."}`},
	} {
		got, err := tokenizeCmd(t, "", true, strings.Split(tt.args, "|")...)
		if err != nil || got != tt.want+"\n" {
			t.Errorf("%q: printed %s, %v; want %s", tt.args, got, err, tt.want)
		}
	}
}

func TestTokenizeLines(t *testing.T) {
	for _, tt := range []struct {
		args, in, want string
		fails          string // part of the error
	}{
		{in: "", want: ""},
		{in: `{"text":"cats","image":"x.jpg"}` + "\n" + `{"text":""}`,
			want: `{"ids":[2,6,7,3],"tokens":["[CLS]","cat","##s","[SEP]"]}` + "\n" +
				`{"ids":[2,3],"tokens":["[CLS]","[SEP]"]}` + "\n"},
		{args: "--decode --no-special", in: `{"ids":[2,6,7,3]}` + "\n" + `{"ids":[]}` + "\n",
			want: `{"text":"cats"}` + "\n" + `{"text":""}` + "\n"},
		{in: `{"text":"a"}` + "\n\n", want: `{"ids":[2,5,3],"tokens":["[CLS]","a","[SEP]"]}` + "\n", fails: "line 2"},
		{in: `{"text":"a"}` + "\n[1]\n", want: `{"ids":[2,5,3],"tokens":["[CLS]","a","[SEP]"]}` + "\n", fails: "line 2"},
		{in: `{"ids":[2]}`, fails: `line 1 of stdin: want an object such as {"text"`},
		{in: `{"text":null}`, fails: "line 1"},
		{args: "--decode", in: `{"text":"a"}`, fails: `line 1 of stdin: want an object such as {"ids"`},
		{in: `{"text":7}`, fails: "line 1"},
		{in: "\ufeff" + `{"text":"a"}`, want: `{"ids":[2,5,3],"tokens":["[CLS]","a","[SEP]"]}` + "\n"},
		{in: `{"text":"a` + "\xff" + `"}`, fails: "line 1 of stdin: it is not UTF-8"},
		{in: `"cats"`, fails: `line 1 of stdin: want an object such as {"text": "a cat"}, found a value of the kind string`},
	} {
		got, err := tokenizeCmd(t, tt.in, false, append(strings.Fields(tt.args), "--jsonl")...)
		if got != tt.want || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%q: printed %q, %v; want %q and %q", tt.in, got, err, tt.want, tt.fails)
		}
		var usage *UsageError
		if errors.As(err, &usage) {
			t.Errorf("%q: a bad line is no wrong usage", tt.in)
		}
	}
}

// TestTokenizeLongLine sends a line that is longer than any buffer, and one that is too long.
func TestTokenizeLongLine(t *testing.T) {
	const words = 1 << 20
	out, err := tokenizeCmd(t, `{"text":"`+strings.Repeat("a ", words)+`"}`, false, "--jsonl", "--no-special")
	var answer tokenized
	if err != nil || json.Unmarshal([]byte(out), &answer) != nil || len(answer.IDs) != words {
		t.Errorf("%d ids, %v; want %d", len(answer.IDs), err, words)
	}
	endless := io.MultiReader(strings.NewReader(`{"text":"`), endlessReader{})
	app := &App{In: endless, Out: io.Discard, Err: io.Discard}
	opts := tokenizeOptions{model: writeFile(t, "vocab.txt", tokenizeVocab), jsonl: true, cutSide: sideRight,
		padSide: sideRight}
	if err := runTokenize(t.Context(), app, opts, nil); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("an endless line: %v", err)
	}
}

type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// TestTokenizeAnswersAtOnce checks that a line is answered before the next one is there.
func TestTokenizeAnswersAtOnce(t *testing.T) {
	inRead, inWrite := io.Pipe()
	outRead, outWrite := io.Pipe()
	app := &App{In: inRead, Out: outWrite, Err: io.Discard}
	opts := tokenizeOptions{model: writeFile(t, "vocab.txt", tokenizeVocab), jsonl: true, cutSide: sideRight,
		padSide: sideRight}
	done := make(chan error, 1)
	go func() { done <- runTokenize(t.Context(), app, opts, nil) }()
	decoder := json.NewDecoder(outRead)
	for _, want := range [][]int32{{2, 5, 3}, {2, 6, 3}} {
		text := map[int32]string{5: "a", 6: "cat"}[want[1]]
		if _, err := fmt.Fprintf(inWrite, "{\"text\":%q}\n", text); err != nil {
			t.Fatal(err)
		}
		var answer tokenized
		if err := decoder.Decode(&answer); err != nil || !reflect.DeepEqual(answer.IDs, want) {
			t.Fatalf("%q: %v, %v; want %v", text, answer.IDs, err, want)
		}
	}
	inWrite.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTokenizeErrors(t *testing.T) {
	for _, tt := range []struct {
		args  string
		usage bool
		want  string
	}{
		{"", true, "needs texts"},
		{"a --jsonl", true, "from stdin"},
		{"a --truncation-side up", true, `"up" is neither`},
		{"a --padding-side up", true, `"up" is neither`},
		{"a --max-length -1", true, "numbers from 0"},
		{"a --pad-to 8", true, "--max-length"},
		{"a --pad-to 4 --max-length 8", true, "--max-length"},
		{"a --pad-to 99999999 --max-length 8", true, "more than"},
		{"--decode 1 x", true, `"x" is not a token id`},
		{"--decode 99999999999", true, "is not a token id"},
		{"--decode 1 --literal", true, "not for ids"},
		{"--decode 1 --max-length 3", true, "not for ids"},
	} {
		out, err := tokenizeCmd(t, "", false, strings.Fields(tt.args)...)
		var usage *UsageError
		if err == nil || errors.As(err, &usage) != tt.usage || !strings.Contains(err.Error(), tt.want) || out != "" {
			t.Errorf("%q: error %v, printed %q; want %q", tt.args, err, out, tt.want)
		}
	}
	missing := filepath.Join(t.TempDir(), "none")
	got := runApp(t, nil, "tokenize", "--model", missing, "a")
	if got.code != ExitFailure || !strings.Contains(got.err, missing) {
		t.Errorf("a missing model: exit code %d, stderr %q", got.code, got.err)
	}
	if got := runApp(t, nil, "tokenize", "a"); got.code != ExitUsage || !strings.Contains(got.err, "--model") {
		t.Errorf("no model: exit code %d, stderr %q", got.code, got.err)
	}
}
