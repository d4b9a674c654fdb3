package device

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
)

// defaultIndex is PyPI's simple index.
const defaultIndex = "https://pypi.org/simple"

// IndexEnv names a mirror of PyPI's simple index; PIP_INDEX_URL is heeded after it.
const IndexEnv = "BLIP2_PYPI_INDEX"

// maxIndexPage bounds the answer of an index; PyPI's largest pages have a few megabytes.
const maxIndexPage = 64 << 20

// indexURL returns the simple index to use: flag, $BLIP2_PYPI_INDEX, $PIP_INDEX_URL, PyPI.
func indexURL(flag string) (*url.URL, error) {
	option, value := "index", flag
	for _, env := range []string{IndexEnv, "PIP_INDEX_URL"} {
		if value == "" {
			option, value = env, os.Getenv(env)
		}
	}
	if value == "" {
		option, value = "index", defaultIndex
	}
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, &OptionError{option, value, "must be the URL of a simple index, as in " + defaultIndex}
	}
	return u, nil
}

// indexFile is a file that an index offers.
type indexFile struct {
	url    *url.URL
	sha256 string // empty if the index does not say
}

// lookup asks the index where a wheel is.
func (in *installer) lookup(ctx context.Context, w wheel) (*url.URL, error) {
	if w.maven != "" {
		return mavenURL(w.maven)
	}
	page := in.index.JoinPath(normalProject(w.project), "/")
	var files map[string]indexFile
	err := in.retry(ctx, func() (bool, error) {
		var err error
		files, err = in.readIndex(ctx, page)
		return false, err
	})
	if err != nil {
		return nil, fmt.Errorf("package index: %w", err)
	}
	f, ok := files[w.file]
	if !ok {
		return nil, fmt.Errorf("package index: %s does not list %s; name another index with --index (or %s), or take "+
			"the wheel from a file with --from", page.Redacted(), w.file, IndexEnv)
	}
	if f.sha256 != "" && f.sha256 != w.sha256 {
		return nil, &checksumError{what: "package index: " + page.Redacted() + " lists " + w.file, got: f.sha256,
			want: w.sha256}
	}
	return f.url, nil
}

// readIndex fetches a project's page of a simple index, in JSON (PEP 691) or HTML (PEP 503).
func (in *installer) readIndex(ctx context.Context, page *url.URL) (map[string]indexFile, error) {
	header := http.Header{"Accept": {"application/vnd.pypi.simple.v1+json, text/html;q=0.1"}}
	resp, err := in.get(ctx, page, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIndexPage+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", page.Redacted(), err)
	}
	if len(body) > maxIndexPage {
		return nil, permanent(fmt.Errorf("%s: the page is larger than %d bytes", page.Redacted(), maxIndexPage))
	}
	base := page
	if resp.Request != nil && resp.Request.URL != nil {
		base = resp.Request.URL // after redirects
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); strings.HasSuffix(kind, "json") {
		return parseJSONIndex(base, body)
	}
	return parseHTMLIndex(base, body), nil
}

// parseJSONIndex reads a page in the JSON form.
func parseJSONIndex(base *url.URL, body []byte) (map[string]indexFile, error) {
	var page struct {
		Files []struct {
			Filename string            `json:"filename"`
			URL      string            `json:"url"`
			Hashes   map[string]string `json:"hashes"`
		} `json:"files"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, permanent(fmt.Errorf("%s is not a simple index page: %w", base.Redacted(), err))
	}
	files := make(map[string]indexFile, len(page.Files))
	for _, f := range page.Files {
		if u, err := base.Parse(f.URL); err == nil {
			files[f.Filename] = indexFile{u, f.Hashes["sha256"]}
		}
	}
	return files, nil
}

// anchor matches a link of an HTML index page.
var anchor = regexp.MustCompile(`(?is)<a\s[^>]*?href\s*=\s*["']([^"']*)["'][^>]*>([^<]*)</a>`)

// parseHTMLIndex reads a page in the HTML form: one link per file, its checksum behind #sha256=.
func parseHTMLIndex(base *url.URL, body []byte) map[string]indexFile {
	files := map[string]indexFile{}
	for _, m := range anchor.FindAllSubmatch(body, -1) {
		u, err := base.Parse(html.UnescapeString(string(m[1])))
		if err != nil {
			continue
		}
		sum, _ := strings.CutPrefix(u.Fragment, "sha256=")
		u.Fragment = ""
		files[strings.TrimSpace(html.UnescapeString(string(m[2])))] = indexFile{u, sum}
	}
	return files
}
