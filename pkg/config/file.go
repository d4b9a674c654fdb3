package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxFileSize   = 1 << 20 // a configuration is a page or two; anything larger is another kind of file
	maxExtends    = 16      // files in a chain
	extendsKey    = "extends"
	extendsSyntax = "want the path of a configuration file, relative to this one"
)

// configFile is one parsed file of an extends chain.
type configFile struct {
	path string // as named by the user, or the extending file's folder joined with the value of extends
	node *yaml.Node
}

// readChain reads the file and, before it, those that it extends. Mistakes are reported; files that cannot be read
// are left out.
func (d *decoder) readChain(path, dir string) []configFile {
	var chain []configFile
	var infos []os.FileInfo
	from := Origin{Kind: FromFlag, Name: "--config " + path}
	for path != "" {
		if len(chain) == maxExtends {
			d.incomplete = true
			d.failf(from, extendsKey, "more than %d files extend one another", maxExtends)
			break
		}
		node, info, err := readFile(absolute(dir, path))
		if err != nil {
			d.fileProblem(from, path, err)
			break
		}
		if i := sameFile(infos, info); i >= 0 {
			d.incomplete = true
			d.failf(from, extendsKey, "the files extend one another in a circle: %s", circle(chain[i:]))
			break
		}
		infos = append(infos, info)
		chain = append(chain, configFile{path: path, node: node})
		path, from = d.extends(path, node)
	}
	for i, j := 0, len(chain)-1; i < j; i, j = i+1, j-1 {
		chain[i], chain[j] = chain[j], chain[i]
	}
	return chain
}

// extends returns the path of the file that a file builds on, or "", and where that is written.
func (d *decoder) extends(path string, node *yaml.Node) (string, Origin) {
	value := child(node, extendsKey)
	if value == nil {
		return "", Origin{}
	}
	origin := Origin{Kind: FromFile, Name: path, Line: value.Line}
	value = resolve(value)
	if value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" || value.Value == "" {
		d.failf(origin, extendsKey, "%s, got %s", extendsSyntax, describe(value))
		return "", origin
	}
	if filepath.IsAbs(value.Value) {
		return filepath.Clean(value.Value), origin
	}
	return filepath.Join(filepath.Dir(path), value.Value), origin
}

// fileProblem reports a file that could not be read or parsed at the best place there is: its own line for a
// syntax error, otherwise where the file was named.
func (d *decoder) fileProblem(from Origin, path string, err error) {
	d.incomplete = true
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		d.failf(Origin{Kind: FromFile, Name: path, Line: syntax.line}, "", "%s", syntax.message)
		return
	}
	key := ""
	if from.Kind == FromFile {
		key = extendsKey
	}
	d.failf(from, key, "%v", err)
}

func circle(chain []configFile) string {
	var b strings.Builder
	for _, f := range chain {
		b.WriteString(f.path + " -> ")
	}
	return b.String() + chain[0].path
}

func sameFile(infos []os.FileInfo, info os.FileInfo) int {
	for i, other := range infos {
		if os.SameFile(other, info) {
			return i
		}
	}
	return -1
}

// readFile reads and parses one file of bounded size.
func readFile(path string) (*yaml.Node, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		return nil, nil, fmt.Errorf("%s is a folder; want a YAML file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(text) > maxFileSize {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes; want a YAML file", path, maxFileSize)
	}
	node, err := parseDocument(text)
	return node, info, err
}

// syntaxError is text that is not YAML.
type syntaxError struct {
	line    int // from 1; 0 when unknown
	message string
}

func (e *syntaxError) Error() string { return e.message }

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// parseDocument parses exactly one YAML document; an empty text gives a null node.
func parseDocument(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: 1}, nil
	case err != nil:
		return nil, newSyntaxError(err)
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, &syntaxError{line: more.Line, message: "a second YAML document begins here; want one"}
	case !errors.Is(err, io.EOF):
		return nil, newSyntaxError(err)
	}
	return doc.Content[0], nil
}

func newSyntaxError(err error) error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	return &syntaxError{line: line, message: "not YAML: " + message}
}

// child returns the value of a key of a mapping, or nil.
func child(node *yaml.Node, name string) *yaml.Node {
	node = resolve(node)
	if node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1]
		}
	}
	return nil
}
