package vqa

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"

	"blip2/pkg/internal/jsonscan"
)

// maxFile bounds what a file may hold, unpacked: more than any published file of answers, less than a crafted archive
// unpacks to.
const maxFile = 4 << 30

// readFile returns the contents of a file, unpacked if they are compressed with gzip.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading answers: %w", err)
	}
	defer func() { _ = f.Close() }() // read only: nothing can be lost
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading answers: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder; name the JSON file in it", path)
	}
	in := bufio.NewReader(f)
	if head, err := in.Peek(2); err != nil || head[0] != 0x1f || head[1] != 0x8b {
		return readAll(path, in, info.Size())
	}
	unzip, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("%s: unpacking: %w; fetch the file again", path, err)
	}
	return readAll(path, unzip, info.Size()*4)
}

// readAll reads to the end. The size is an estimate.
func readAll(path string, in io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(max(size, 0), maxFile/4)) + bytes.MinRead)
	n, err := b.ReadFrom(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is the file whole?", path, err)
	}
	if n > maxFile {
		return nil, fmt.Errorf("%s holds more than %d GiB; split it", path, maxFile>>30)
	}
	return b.Bytes(), nil
}

// parse reads a file with f, which reads one value; in front of errors comes the file's name.
func parse(path, expected string, f func(s *jsonscan.Scanner) error) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if err := parseText(data, expected, f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseText(data []byte, expected string, f func(s *jsonscan.Scanner) error) error {
	head := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	switch {
	case len(head) == 0:
		return errors.New("the file is empty; expected " + expected)
	case head[0] != '{' && head[0] != '[':
		for _, known := range []struct{ prefix, name string }{
			{"<", "an HTML or XML page (an error page saved by a download?)"},
			{"PK\x03\x04", "a zip archive (unpack it)"},
			{"version https://git-lfs", "a Git LFS pointer (fetch the file with git lfs pull)"},
		} {
			if bytes.HasPrefix(head, []byte(known.prefix)) {
				return fmt.Errorf("the file is %s; expected %s", known.name, expected)
			}
		}
		return fmt.Errorf("the file is not JSON (starts with %q); expected %s", head[:min(len(head), 16)], expected)
	}
	s := jsonscan.New(data)
	if err := f(s); err != nil {
		return err
	}
	return s.Close()
}

// interned keeps one copy of strings that occur often. It is bounded: what is new when it is full is not kept.
type interned map[string]string

func (k interned) text(b []byte) string {
	if s, ok := k[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) <= maxRememberedText && len(k) < maxRemembered {
		k[s] = s
	}
	return s
}

// id reads the identifier of a question: a number or a string, which files of one data set mix.
func id(s *jsonscan.Scanner, where string) (string, error) {
	switch kind := s.Kind(); kind {
	case jsonscan.Number:
		text, err := s.Number()
		return string(text), err
	case jsonscan.String:
		text, err := s.Bytes()
		return string(text), err
	default:
		return "", s.Errorf("%s is %s; it must be a number or a string", where, kind)
	}
}

// text reads a string and says which, if it is none.
func text(s *jsonscan.Scanner, k interned, where string) (string, error) {
	if kind := s.Kind(); kind != jsonscan.String {
		return "", s.Errorf("%s is %s; it must be a string%s", where, kind, quoteHint(kind))
	}
	b, err := s.Bytes()
	if err != nil {
		return "", fmt.Errorf("%s: %w", where, err)
	}
	return k.text(b), nil
}

func quoteHint(kind jsonscan.Kind) string {
	if kind == jsonscan.Number || kind == jsonscan.Bool {
		return ": write it in quotes"
	}
	return ""
}
