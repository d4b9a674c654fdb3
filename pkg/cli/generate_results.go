package cli

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/answer"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/runlog"
)

// results is where answers go.
type results interface {
	// open returns the pictures that are not answered yet, with their numbers among all.
	open(all answer.Inputs, prompts []string) (answer.Inputs, []int)
	add(r record) error
	// finish is called with the pictures that are answered when no other can be; complete says that these are all.
	finish(answered answer.Inputs, complete bool) error
	close() // after finish or instead of it
	path() string
}

// openResults opens the file of --out, or stdout.
func (g *generation) openResults() (results, error) {
	if g.out == "" {
		return &screen{out: g.Out, json: g.Globals.JSON, labels: len(g.inputs.Names) > 1, prompts: len(g.asked) > 1}, nil
	}
	settings, err := g.settings()
	if err != nil {
		return nil, err
	}
	f := &resultFile{app: g.App, name: g.out, settings: settings, answered: map[string]map[string]record{}}
	if g.format == formatCOCO {
		f.coco = true
		if err := checkImageIDs(g.inputs.Names); err != nil {
			return nil, usagef("--format coco: %w", err)
		}
		f.name += partial
		if exists(g.out) && !exists(f.name) {
			return nil, usagef("--out %s: is there already; choose another name, or remove it", g.out)
		}
	}
	if err := f.read(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// partial ends the name of the lines from which a list in COCO's format is made.
const partial = ".partial"

// settings is a short hash of all that answers depend on but pictures and prompts.
func (g *generation) settings() (string, error) {
	text, err := json.Marshal(struct {
		Source  answer.Source
		Options answer.Options
	}{g.source, g.options})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6]), nil
}

// screen is stdout: a line per text, with the picture's name where there are several.
type screen struct {
	out                   io.Writer
	json, labels, prompts bool
}

func (s *screen) open(all answer.Inputs, _ []string) (answer.Inputs, []int) { return all, nil }
func (s *screen) finish(answer.Inputs, bool) error                          { return nil }
func (s *screen) close()                                                    {}
func (s *screen) path() string                                              { return "stdout" }

func (s *screen) add(r record) error {
	if s.json {
		return writeLine(s.out, r)
	}
	for _, t := range r.Texts {
		var columns []string
		if s.labels {
			columns = append(columns, r.Image)
		}
		if s.prompts {
			columns = append(columns, r.Prompt)
		}
		columns = append(columns, strings.ReplaceAll(t.Text, "\n", " "))
		if _, err := fmt.Fprintln(s.out, strings.Join(columns, "\t")); err != nil {
			return err
		}
	}
	return nil
}

// writeLine writes one line of JSON in a single write.
func writeLine(w io.Writer, v any) error {
	var line bytes.Buffer
	if err := plainJSON(&line).Encode(v); err != nil {
		return err
	}
	_, err := w.Write(line.Bytes())
	return err
}

// resultFile is a file of lines that grows; a command that goes on reads it first.
type resultFile struct {
	app      *App
	name     string
	settings string
	coco     bool                         // the lines become a list in COCO's format at the end
	answered map[string]map[string]record // by picture and prompt
	file     *os.File
	size     int64        // of what was read
	release  func() error // ends the claim to the file, from when there is one
}

func (f *resultFile) path() string { return f.name }

// maxResultLine bounds a line in bytes.
const maxResultLine = 16 << 20

// resultStart is what a line begins with.
const resultStart = `{"image":`

// errForeign is the error for a file that this program has not written.
var errForeign = errors.New("it is no result of this command: choose another file, or remove this one")

// read reads the answers that are there. A last line without its end, of a write that was cut off, is taken away; of
// another file nothing is.
func (f *resultFile) read() error {
	data, err := os.Open(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	defer data.Close()
	if err := f.claim(); err != nil {
		return err
	}
	in, end := bufio.NewReader(data), int64(0)
	for number := 1; ; number++ {
		line, err := readResultLine(in)
		cutOff := err == io.EOF && len(line) > 0
		switch begin := min(len(line), len(resultStart)); {
		case err == io.EOF && len(line) == 0:
			f.size = end
			return nil
		case (err == nil || cutOff) && (begin == 0 || string(line[:begin]) != resultStart[:begin]):
			err = errForeign
		case cutOff:
			f.app.Log.Warn("the last line of the results is not complete: its picture is answered again", "file", f.name)
			f.size = end
			return f.cut(end)
		}
		var r record
		if err == nil {
			if err = json.Unmarshal(line, &r); err != nil {
				err = fmt.Errorf("%w (%w)", errForeign, err)
			}
		}
		if err == nil && r.Settings != f.settings {
			err = errors.New("it was made by another model or with other options: choose another file, or remove this one")
		}
		if err != nil {
			return fmt.Errorf("--out %s, line %d: %w", f.name, number, err)
		}
		end += int64(len(line)) + 1
		f.keep(r)
	}
}

// claim keeps other commands out of the file.
func (f *resultFile) claim() error {
	if f.release != nil {
		return nil
	}
	var free bool
	if f.release, free = atomicfile.Claim(f.name); !free {
		return fmt.Errorf("--out %s: another command is writing it: wait for that one, or choose another file", f.name)
	}
	return nil
}

// readResultLine returns a line without its end; io.EOF comes with what stands behind the last end.
func readResultLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxResultLine:
			return line, fmt.Errorf("it is longer than %d bytes", maxResultLine)
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return line, err
		}
		return line[:len(line)-1], nil
	}
}

// cut takes away what stands behind the given place.
func (f *resultFile) cut(end int64) error {
	if err := os.Truncate(f.name, end); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

func (f *resultFile) keep(r record) {
	if f.answered[r.Image] == nil {
		f.answered[r.Image] = map[string]record{}
	}
	f.answered[r.Image][r.Prompt] = r
}

func (f *resultFile) open(all answer.Inputs, prompts []string) (answer.Inputs, []int) {
	var numbers []int
	left := all
	left.Names = nil
	delete(f.answered, answer.Stdin) // it is another picture every time
	for i, name := range all.Names {
		if slices.ContainsFunc(prompts, func(p string) bool { _, ok := f.answered[name][p]; return !ok }) {
			left.Names, numbers = append(left.Names, name), append(numbers, i)
		}
	}
	return left, numbers
}

// add appends a line, in one write.
func (f *resultFile) add(r record) error {
	if _, ok := f.answered[r.Image][r.Prompt]; ok {
		return nil // another prompt of the picture was missing
	}
	if err := f.openFile(); err != nil {
		return err
	}
	r.Settings = f.settings
	if err := writeLine(f.file, r); err != nil {
		return fmt.Errorf("--out: %w", atomicfile.Explain(err))
	}
	f.keep(r)
	return nil
}

// openFile opens the file to append to, or makes it. A file that another command has made or changed since it was read
// is not this one's.
func (f *resultFile) openFile() (err error) {
	if f.file != nil {
		return nil
	}
	if f.file, err = os.OpenFile(f.name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if err := f.claim(); err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if info.Size() != f.size {
		return fmt.Errorf("--out %s: another command has written it meanwhile: choose another file, or go on with that one",
			f.name)
	}
	return nil
}

// finish makes the file durable, turns it into COCO's list if that is wanted, and says what is there. The lines of a
// list that is not complete stay, to go on with.
func (f *resultFile) finish(answered answer.Inputs, complete bool) error {
	name := f.name
	if err := f.shut(); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	if f.coco {
		name = strings.TrimSuffix(f.name, partial)
		if err := f.writeCOCO(name, answered); err != nil {
			return err
		}
		if complete {
			if err := os.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("--out: %w", err)
			}
		}
	}
	if f.app.Globals.JSON {
		return writeLine(f.app.Out, map[string]any{"file": name, "pictures": len(answered.Names)})
	}
	_, err := fmt.Fprintf(f.app.Out, "wrote %s: %s\n", name, countOf(len(answered.Names), "picture"))
	return err
}

// close keeps what was answered before an error or an interrupt.
func (f *resultFile) close() {
	if err := f.shut(); err != nil {
		f.app.Log.Warn("closing the results", "file", f.name, "error", err)
	}
	if f.release != nil {
		_ = f.release() // it goes with the process at the latest
	}
}

// shut closes the file once its contents are safe.
func (f *resultFile) shut() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return errors.Join(file.Sync(), file.Close())
}

// cocoCaption is an entry of COCO's result format.
type cocoCaption struct {
	ImageID int64  `json:"image_id"`
	Caption string `json:"caption"`
}

// writeCOCO writes the list, whole or not at all.
func (f *resultFile) writeCOCO(name string, all answer.Inputs) error {
	list := []cocoCaption{}
	for _, image := range all.Names {
		id, err := imageID(image)
		if err != nil {
			return err
		}
		for _, r := range f.answered[image] {
			list = append(list, cocoCaption{id, r.Text})
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := runlog.WriteFile(name, append(data, '\n')); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

// checkImageIDs refuses pictures without a number, and two of the same.
func checkImageIDs(names []string) error {
	known := map[int64]string{}
	for _, name := range names {
		id, err := imageID(name)
		if err != nil {
			return err
		}
		if other, ok := known[id]; ok {
			return fmt.Errorf("%s and %s both have the number %d, and every picture needs its own", other, name, id)
		}
		known[id] = name
	}
	return nil
}

// imageID is the number that a picture's name ends with, as COCO names its pictures: 42 of
// COCO_val2014_000000000042.jpg.
func imageID(name string) (int64, error) {
	stem := strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	digits := stem[len(strings.TrimRight(stem, "0123456789")):]
	id, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: its name does not end with a number, which COCO's format has in place of the name", name)
	}
	return id, nil
}
