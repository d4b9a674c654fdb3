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

// ShowPicture completes an item of the gallery with picture i of a source: the file is copied into the run folder and
// shown in TensorBoard, together with what the model writes about it.
func (r *Run) ShowPicture(item *runlog.GalleryItem, src dataset.Source, i int) error {
	if err := r.showPicture(item, src, i); err != nil {
		return fmt.Errorf("gallery: %w", err)
	}
	return nil
}

func (r *Run) showPicture(item *runlog.GalleryItem, src dataset.Source, i int) error {
	example := src.Example(i)
	data, err := readPicture(src, i)
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

func readPicture(src dataset.Source, i int) ([]byte, error) {
	file, err := src.Open(i)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}
