package answer

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/internal/toymodel"
	"blip2/pkg/naming"
)

// TestFindInputs: files, folders in the order of names, patterns; each once.
func TestFindInputs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.png", "a.PNG", "c.jpeg", "d.txt"} {
		write(t, dir, name, "x")
	}
	if err := os.Mkdir(filepath.Join(dir, "e.png"), 0o777); err != nil {
		t.Fatal(err)
	}
	at := func(names ...string) []string {
		out := slices.Clone(names)
		for i, name := range out {
			out[i] = filepath.Join(dir, name)
		}
		return out
	}
	for _, tt := range []struct{ args, want []string }{
		{at("d.txt"), at("d.txt")},
		{[]string{dir}, at("a.PNG", "b.png", "c.jpeg")},
		{at("c.jpeg", "*.png", "c.*"), at("c.jpeg", "b.png", "e.png")},
		{[]string{"-", "https://x.org/a.png", "-"}, []string{"-", "https://x.org/a.png"}},
	} {
		got, err := FindInputs(tt.args, nil)
		if err != nil || !slices.Equal(got.Names, tt.want) {
			t.Errorf("%v: %v, error %v, want %v", tt.args, got.Names, err, tt.want)
		}
	}
	for arg, want := range map[string]string{
		filepath.Join(dir, "no.png"): "no such file", filepath.Join(dir, "*.gif"): "fits",
		filepath.Join(dir, "[.png"): "pattern", "http://": "no host", "http://[::1": "missing ']'",
		filepath.Join(dir, "e.png"): "no pictures"} {
		_, err := FindInputs([]string{arg}, nil)
		says(t, arg, err, want)
	}
}

// TestDecode reads pictures from the net and from standard input, and says what is wrong with others.
func TestDecode(t *testing.T) {
	picture, err := os.ReadFile(toymodel.Picture(t, t.TempDir(), "p.png", 1))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/p.png":
			_, _ = w.Write(picture)
		case "/page":
			fmt.Fprint(w, "<html>")
		case "/huge":
			for range fetchBytes>>20 + 2 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	in := Inputs{stdin: bytes.NewReader(picture)}
	for _, name := range []string{"-", server.URL + "/p.png"} {
		img, err := in.Decode(t.Context(), name)
		if err != nil || img.W != 50 || img.H != 40 {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := write(t, t.TempDir(), "bad.png", "no picture")
	for name, want := range map[string]string{
		server.URL + "/no": "404", server.URL + "/page": "HTML", server.URL + "/huge": "more than 64 MiB",
		"-": "empty", bad: "not a JPEG", "http://127.0.0.1:1/x": "refused"} {
		_, err := in.Decode(t.Context(), name)
		says(t, name, err, want, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Decode(ctx, "-"); err == nil {
		t.Error("an interrupt does not stop reading")
	}
}

// TestReader gives all pictures in order, bad ones among them, and stops when it is closed.
func TestReader(t *testing.T) {
	c := opened(t, naming.BLIP2OPT)
	dir := t.TempDir()
	var in Inputs
	for i := range 20 {
		name := fmt.Sprintf("%02d.png", i)
		if i%7 == 3 {
			in.Names = append(in.Names, write(t, dir, name, "bad"))
		} else {
			in.Names = append(in.Names, toymodel.Picture(t, dir, name, i))
		}
	}
	r := c.Read(t.Context(), in, nil, 3, false)
	for i := range 20 {
		l, ok := r.Next()
		if !ok || l.Index != i || l.Name != in.Names[i] || (l.Err != nil) != (i%7 == 3) || l.Image != nil {
			t.Errorf("picture %d: %+v, %v", i, l.Err, ok)
		}
		if l.Err != nil && !strings.Contains(l.Err.Error(), l.Name) {
			t.Errorf("error %v does not name %s", l.Err, l.Name)
		}
	}
	if _, ok := r.Next(); ok {
		t.Error("more pictures than there are")
	}
	r.Close()
	r = c.Read(t.Context(), in, []int{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24}, 2, true)
	if l, ok := r.Next(); !ok || l.Index != 5 || l.Image == nil {
		t.Errorf("%+v", l.Index)
	}
	r.Close()
}
