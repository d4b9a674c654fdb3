package training

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"blip2/pkg/dataset"
	"blip2/pkg/runlog"
)

// Pictures are what a gallery shows: a dataset.Source or a dataset.EvalSet.
type Pictures interface {
	Example(i int) (dataset.Example, error)
	Open(i int) (io.ReadCloser, error)
}

// ShowPicture completes an item of the gallery with picture i: the file is copied into the run folder and shown in
// TensorBoard, together with what the model writes about it.
func (r *Run) ShowPicture(item *runlog.GalleryItem, from Pictures, i int) error {
	if err := r.showPicture(item, from, i); err != nil {
		return fmt.Errorf("gallery: %w", err)
	}
	return nil
}

func (r *Run) showPicture(item *runlog.GalleryItem, from Pictures, i int) error {
	example, err := from.Example(i)
	if err != nil {
		return err
	}
	data, err := readPicture(from, i)
	if err != nil {
		return fmt.Errorf("%s: %w", example.Key, err)
	}
	// With its number in front, as pictures of several sources or folders may have the same name.
	name := fmt.Sprintf("%s-%d-%s", item.Split, i, path.Base(filepath.ToSlash(example.Key)))
	if err := os.MkdirAll(filepath.Join(r.RunDir, runlog.GalleryDir), 0o777); err != nil {
		return err
	}
	if err := runlog.WriteFile(filepath.Join(r.RunDir, runlog.GalleryDir, name), data); err != nil {
		return err
	}
	item.Image, item.Key, item.Captions = path.Join(runlog.GalleryDir, name), example.Key, example.Captions
	item.Credit = strings.Trim(example.URL+" · "+example.License, " ·")
	if err := r.Metrics.Image(r.At.Step, "gallery/"+name, data); err != nil {
		return err
	}
	return r.Metrics.Text(r.At.Step, "captions/"+name, item.Generated)
}

func readPicture(from Pictures, i int) ([]byte, error) {
	file, err := from.Open(i)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}
