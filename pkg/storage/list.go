package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gocloud.dev/blob"
)

// maxListed bounds the number of files that a pattern may mean.
const maxListed = 1 << 20

// HasWildcard says whether a path or URL is a pattern with *, ? or [...]. In a URL ? starts the options instead.
func HasWildcard(location string) bool {
	rest, _ := SplitQuery(location)
	if strings.Contains(location, "://") {
		return strings.ContainsAny(rest, "*[")
	}
	return strings.ContainsAny(rest, "*?[")
}

// List finds the files that match a pattern, sorted by name. * and ? stop at slashes. Web servers cannot list.
func (s *Store) List(ctx context.Context, pattern string) ([]string, error) {
	l, err := parse(pattern)
	if err != nil {
		return nil, err
	}
	var found []string
	switch l.scheme {
	case "":
		if found, err = filepath.Glob(l.key); err != nil {
			return nil, fmt.Errorf("storage: %s: the pattern is broken: %w", l.name, err)
		}
		slices.Sort(found)
	case "http", "https":
		return nil, fmt.Errorf("storage: %s: a web server does not tell its files; name them with braces, such as "+
			"{000..118}", l.name)
	default:
		if found, err = s.listBucket(ctx, l); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("storage: %s: no file matches", l.name)
	}
	return found, nil
}

func (s *Store) listBucket(ctx context.Context, l location) ([]string, error) {
	if _, err := path.Match(l.key, ""); err != nil {
		return nil, fmt.Errorf("storage: %s: the pattern is broken: %w", l.name, err)
	}
	b, err := s.bucket(ctx, l)
	if err != nil {
		return nil, &Error{Name: l.name, Offset: -1, Permanent: true, Err: err}
	}
	for failures := 1; ; failures++ {
		found, err := b.matching(ctx, l)
		if err == nil {
			return found, nil
		}
		if err := s.again(ctx, l.name, -1, failures, b.explain(err)); err != nil {
			return nil, err
		}
	}
}

// matching lists the keys that begin as the pattern does up to its first wildcard.
func (b *openBucket) matching(ctx context.Context, l location) ([]string, error) {
	base, query := SplitQuery(l.bucket)
	prefix := l.key
	if i := strings.IndexAny(prefix, `*?[\`); i >= 0 {
		prefix = prefix[:i]
	}
	var found []string
	for it := b.Bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
		object, err := it.Next(ctx)
		if err == io.EOF {
			slices.Sort(found)
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if ok, _ := path.Match(l.key, object.Key); ok && !object.IsDir {
			found = append(found, base+"/"+object.Key+query)
		}
		if len(found) > maxListed {
			return nil, lasting{errors.New("the pattern matches more than a million files")}
		}
	}
}
