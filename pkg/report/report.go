// Package report turns a run folder into report.html, one self-contained page: retrieval scores, curves of the losses,
// the learning rate and the speed, and a gallery of pictures with what the model makes of them. The page loads nothing
// from elsewhere and reads well on a phone, in the dark and on paper.
//
// report.go collects what the folder holds, page.go words it, chart.go and scale.go draw, page.html lays it out.
package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"blip2/pkg/runlog"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// pictureLimit bounds a picture of the gallery, which goes into the page as text: 4 MiB.
const pictureLimit = 4 << 20

// Build writes report.html of a run folder, atomically, and returns its path. It makes do with what is there: a run
// that was interrupted, or whose files are damaged, gets a page that says what is missing. A folder that holds no
// part of a run is an error.
func Build(runDir string) (path string, err error) {
	r, err := load(runDir)
	if err != nil {
		return "", err
	}
	html, err := render(newPage(r))
	if err != nil {
		return "", fmt.Errorf("rendering the report of %s: %w", runDir, err)
	}
	path = filepath.Join(runDir, runlog.ReportFile)
	return path, runlog.WriteFile(path, html)
}

// run is what a run folder holds.
type run struct {
	name     string // of the folder
	config   []byte
	rows     []runlog.Row
	summary  *runlog.Summary // nil if there is none
	gallery  runlog.Gallery
	pictures map[string]template.URL // data: URIs by GalleryItem.Image
	notices  []string                // what is missing or damaged
}

// load reads the files of a run folder. What cannot be read becomes a notice.
func load(runDir string) (*run, error) {
	full, err := filepath.Abs(runDir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(full)
	if err != nil {
		return nil, fmt.Errorf("opening the run folder: %w", err)
	}
	isPart := func(e os.DirEntry) bool {
		return slices.Contains([]string{runlog.ConfigFile, runlog.MetricsFile, runlog.SummaryFile}, e.Name())
	}
	if !slices.ContainsFunc(entries, isPart) {
		return nil, fmt.Errorf("%s is no run folder: it has neither %s nor %s nor %s "+
			"(name the folder that the training command printed)",
			runDir, runlog.ConfigFile, runlog.MetricsFile, runlog.SummaryFile)
	}

	r := &run{name: filepath.Base(full), pictures: map[string]template.URL{}}
	r.config, err = os.ReadFile(filepath.Join(full, runlog.ConfigFile))
	r.note(err, "The configuration is missing: the folder has no "+runlog.ConfigFile+".")
	r.rows, err = runlog.ReadMetrics(filepath.Join(full, runlog.MetricsFile))
	r.note(err, "No measurements: the folder has no "+runlog.MetricsFile+".")
	summary, err := runlog.ReadSummary(full)
	if err == nil {
		r.summary = &summary
	}
	r.note(err, "The run has not ended, or was killed: the folder has no "+runlog.SummaryFile+
		", so there are no retrieval scores.")
	r.gallery, err = runlog.ReadGallery(full)
	r.note(err, "There is no gallery: the folder has no "+runlog.GalleryFile+".")
	for _, item := range r.gallery.Items {
		uri, err := picture(full, item.Image)
		r.note(err, fmt.Sprintf("The picture %s of the gallery is missing.", item.Image))
		if err == nil {
			r.pictures[item.Image] = uri
		}
	}
	return r, nil
}

// note adds missing, or the error itself if it says more than that a file is not there.
func (r *run) note(err error, missing string) {
	if err == nil {
		return
	}
	text := err.Error()
	if errors.Is(err, fs.ErrNotExist) {
		text = missing
	}
	if !slices.Contains(r.notices, text) { // two items may share a picture
		r.notices = append(r.notices, text)
	}
}

// picture reads a picture of the run folder into a data: URI.
func picture(runDir, name string) (template.URL, error) {
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) {
		return "", fmt.Errorf("the gallery names %q, which is outside the run folder", name)
	}
	path := filepath.Join(runDir, local)
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > pictureLimit {
		return "", fmt.Errorf("%s is no picture file of at most %d MiB", name, pictureLimit>>20)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	kind := http.DetectContentType(data)
	if !slices.Contains([]string{"image/jpeg", "image/png", "image/gif", "image/webp"}, kind) {
		return "", fmt.Errorf("%s is no picture (JPEG, PNG, GIF or WebP) but %s", name, kind)
	}
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)), nil
}

// render fills the template; html/template escapes every text of the run.
func render(p page) ([]byte, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, p)
	return out.Bytes(), err
}
