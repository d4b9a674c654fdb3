package storage

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// location is a path or URL taken apart.
type location struct {
	scheme string // "" for a path
	bucket string // URL of the bucket with its options
	key    string // path, key in the bucket, or the whole URL
	name   string // for messages
}

// IsRemote says whether a path or URL is not a local file.
func IsRemote(location string) bool {
	l, err := parse(location)
	return err == nil && l.scheme != ""
}

// Check says what is wrong with a path or URL as it is written, without looking for the file.
func Check(location string) error {
	_, err := parse(location)
	return err
}

// Redact is a path or URL without passwords, signatures and other options: fit for messages and reports.
func Redact(location string) string {
	if l, err := parse(location); err == nil {
		return l.name
	}
	scheme, _, _ := strings.Cut(location, "://")
	return scheme + "://…"
}

// SplitQuery takes the options off a URL's end; a path is left whole.
func SplitQuery(location string) (rest, query string) {
	if !strings.Contains(location, "://") {
		return location, ""
	}
	rest, query, found := strings.Cut(location, "?")
	if found {
		query = "?" + query
	}
	return rest, query
}

func parse(s string) (location, error) {
	scheme, rest, found := strings.Cut(s, "://")
	if !found {
		if s == "" {
			return location{}, errors.New("storage: the path is empty")
		}
		return location{key: s, name: s}, nil
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "file":
		path := filepath.FromSlash(strings.TrimPrefix(rest, "localhost"))
		if !filepath.IsAbs(path) {
			return location{}, fmt.Errorf("storage: %s: write file:///path with three slashes", s)
		}
		return location{key: path, name: path}, nil
	case "http", "https":
		return parseWeb(s)
	case "s3", "gs":
		return parseBucket(scheme, rest)
	}
	return location{}, fmt.Errorf("storage: the address starts with %.20q; known are a path, file://, http://, https://, "+
		"s3:// and gs://", scheme+"://")
}

func parseWeb(s string) (location, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return location{}, errors.New("storage: a web address is not one: write https://host/path, with % and spaces " +
			"escaped")
	}
	bare := *u
	bare.User, bare.RawQuery, bare.ForceQuery, bare.Fragment = nil, "", false, ""
	return location{scheme: u.Scheme, key: s, name: braces.Replace(bare.String())}, nil
}

// braces brings back those of a pattern, which addresses do not have.
var braces = strings.NewReplacer("%7B", "{", "%7D", "}")

// parseBucket takes keys as they are written: neither s3:// nor gs:// addresses are escaped.
func parseBucket(scheme, rest string) (location, error) {
	rest, query := SplitQuery(scheme + "://" + rest)
	bucket, key, _ := strings.Cut(strings.TrimPrefix(rest, scheme+"://"), "/")
	switch {
	case bucket == "":
		return location{}, fmt.Errorf("storage: %s:///%s lacks the bucket: write %s://bucket/key", scheme, key, scheme)
	case key == "":
		return location{}, fmt.Errorf("storage: %s://%s names a bucket without a file", scheme, bucket)
	}
	return location{scheme: scheme, bucket: scheme + "://" + bucket + query, key: key, name: rest}, nil
}
