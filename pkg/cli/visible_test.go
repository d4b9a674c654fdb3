package cli

import (
	"strings"
	"testing"

	"blip2/pkg/weights"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a\tb\nü ✓": "a\tb\nü ✓", "a\x1b[2Jb": `a\x1b[2Jb`, "\x00\r": `\x00\r`, "\u202e": `\u202e`,
	} {
		if got := visible(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// What a stranger's file calls its tensors does not reach a terminal as it is.
func TestHostileNames(t *testing.T) {
	path := writeTensors(t, "hostile", []weights.Tensor{weights.FromFloat32("a\x1b[2J\n\x00", []int{1}, []float32{1})})
	for _, args := range []string{"inspect --tensors " + path, "convert --to hf --out x " + path} {
		got := runApp(t, nil, weightsArgs(args)...)
		if text := got.out + got.err; strings.ContainsAny(text, "\x1b\x00") || !strings.Contains(text, `a\x1b[2J`) {
			t.Errorf("%s: %q", args, text)
		}
	}
	got := runApp(t, nil, weightsArgs("inspect --json "+path)...)
	if !strings.Contains(got.out, `"a\u001b[2J\n\u0000"`) {
		t.Errorf("JSON changes the name: %s", got.out)
	}
}
