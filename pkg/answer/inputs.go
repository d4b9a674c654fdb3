package answer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"blip2/pkg/dataset"
)

// Stdin names the picture that comes from standard input.
const Stdin = "-"

// Bounds of pictures from the net.
const (
	fetchTime  = 60 * time.Second
	fetchBytes = 64 << 20
)

// Inputs are pictures by name: paths, addresses, or Stdin.
type Inputs struct {
	Names []string
	stdin io.Reader
}

// FindInputs lists the pictures that arguments mean: files, folders (the pictures directly in them, by name),
// patterns of file names such as photos/*.jpg, http and https addresses, and Stdin. Names that occur twice are taken
// once. Pictures are not opened; what does not exist is an error.
func FindInputs(args []string, stdin io.Reader) (Inputs, error) {
	in := Inputs{stdin: stdin}
	known := map[string]bool{}
	for _, arg := range args {
		names, err := expand(arg)
		if err != nil {
			return in, err
		}
		for _, name := range names {
			if !known[name] {
				known[name] = true
				in.Names = append(in.Names, name)
			}
		}
	}
	return in, nil
}

// expand lists the pictures of one argument.
func expand(arg string) ([]string, error) {
	if arg == Stdin {
		return []string{arg}, nil
	}
	if isAddress(arg) {
		u, err := url.Parse(arg)
		if err == nil && u.Host == "" {
			err = errors.New("it names no host")
		}
		if err != nil {
			return nil, fmt.Errorf("picture %s: %w", arg, err)
		}
		return []string{arg}, nil
	}
	info, err := os.Stat(arg)
	switch {
	case err != nil && strings.Contains(arg, "://"):
		return nil, fmt.Errorf("picture %s: addresses begin with http:// or https://", arg)
	case err == nil && info.IsDir():
		return picturesIn(arg)
	case err == nil:
		return []string{arg}, nil
	case !errors.Is(err, fs.ErrNotExist) || !strings.ContainsAny(arg, "*?["):
		return nil, fmt.Errorf("picture: %w", err)
	}
	names, err := filepath.Glob(arg)
	if err == nil && len(names) == 0 {
		err = errors.New("no file fits this pattern")
	}
	if err != nil {
		return nil, fmt.Errorf("pictures %s: %w", arg, err)
	}
	return names, nil // sorted
}

// isAddress says whether a name is one of the net.
func isAddress(name string) bool {
	scheme, _, ok := strings.Cut(name, "://")
	return ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https"))
}

// picturesIn lists the pictures of a folder by name.
func picturesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("pictures: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && dataset.IsPictureName(e.Name()) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("folder %s has no pictures", dir)
	}
	return names, nil
}

// Without returns the inputs but those that drop names.
func (in Inputs) Without(drop func(name string) bool) Inputs {
	in.Names = slices.DeleteFunc(slices.Clone(in.Names), drop)
	return in
}

// Decode reads a picture.
func (in Inputs) Decode(ctx context.Context, name string) (*dataset.RGB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if name != Stdin && !isAddress(name) {
		return dataset.DecodeFile(name)
	}
	read := func() ([]byte, error) { return limited(in.stdin) }
	if name != Stdin {
		read = func() ([]byte, error) { return fetch(ctx, name) }
	}
	data, err := read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	img, err := dataset.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return img, nil
}

// fetch downloads a picture.
func fetch(ctx context.Context, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "blip2")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		var wrong *url.Error
		if errors.As(err, &wrong) { // which repeats the address
			err = wrong.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %s", response.Status)
	}
	return limited(response.Body)
}

// limited reads at most fetchBytes.
func limited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, fetchBytes+1))
	if err == nil && len(data) > fetchBytes {
		err = fmt.Errorf("it has more than %d MiB", fetchBytes>>20)
	}
	return data, err
}
