package main

import (
	"go/version"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestContainer: Dockerfile.cuda names a toolchain that is new enough for go.mod, copies what there is, and has the
// library that the program is built for. scripts/test_container.sh tries the image itself.
func TestContainer(t *testing.T) {
	root := filepath.Join("..", "..")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	text := read("Dockerfile.cuda")
	image := regexp.MustCompile(`(?m)^ARG GO=\S*golang:([\d.]+)-`).FindStringSubmatch(text)
	needed := regexp.MustCompile(`(?m)^go ([\d.]+)$`).FindStringSubmatch(read("go.mod"))
	if image == nil || needed == nil || version.Compare("go"+image[1], "go"+needed[1]) < 0 {
		t.Errorf("the image has Go %q, go.mod needs %q", image, needed)
	}
	copied := 0
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(text, -1) {
		for _, name := range strings.Fields(m[1]) {
			copied++
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Errorf("%s: %v", m[0], err)
			}
		}
	}
	if copied < 5 {
		t.Errorf("only %d files and folders are copied", copied)
	}
	if !strings.Contains(text, "-tags=turbojpeg") || !strings.Contains(text, "libturbojpeg0") {
		t.Error("JPEG is not decoded by libjpeg-turbo")
	}
}
