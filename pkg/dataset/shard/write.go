package shard

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"blip2/pkg/dataset"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/storage"
)

// WriteOptions say how shards are written.
type WriteOptions struct {
	Dir      string // made if it is missing
	Prefix   string // of the file names; "" means "shard-"
	Samples  int    // most samples of a shard; 0 means 10,000
	MaxBytes int64  // a shard is closed before it is larger than this, unless one sample alone is; 0 means 1 GiB
	// Ranked writes the captions as a bare list, which says that they are ordered best first: readers draw from the
	// first two. Otherwise readers draw from all of them.
	Ranked bool
	// MaxBad is how many samples may be unusable; they are left out. Negative means any number.
	MaxBad int
	// OnShard is told of every shard that is complete, also of those that an earlier call wrote, and how much of the
	// source was read by then, 0 to 1; nil means nobody is.
	OnShard func(done Written, part float64)
}

// Written is a complete shard.
type Written struct {
	File    string `json:"file"`
	First   int    `json:"first"` // pictures of the source that it covers, those left out included: First … End-1
	End     int    `json:"end"`
	Samples int    `json:"samples"`
	Bytes   int64  `json:"bytes"`
	// State is where a source that can only be read in order stood behind the shard.
	State json.RawMessage `json:"state,omitempty"`
}

// Left is a sample that was left out.
type Left struct {
	Index  int    `json:"index"`
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// Manifest is what shards.json beside the shards says. It is written after every shard, and by it a call that was
// interrupted is continued.
type Manifest struct {
	Source   string         `json:"source"`
	Pictures int            `json:"pictures"` // of a source that can only be read in order 0 until it was read
	Settings map[string]any `json:"settings"`
	Complete bool           `json:"complete"`
	Shards   []Written      `json:"shards"`
	Left     []Left         `json:"left_out"`
}

// ManifestName is the file name of the Manifest.
const ManifestName = "shards.json"

// Write writes the pictures of a source with their captions or questions as shards with indexes. The bytes are a
// function of the source and the options. A shard appears under its name when it is complete and safe on the disk;
// after an interrupt or a crash the same call goes on with the first shard that is missing.
func Write(ctx context.Context, src dataset.Source, o WriteOptions) (*Manifest, error) {
	w := &writer{name: src.Name(), pictures: src.Len(), o: o}
	return w.run(ctx, func() (dataset.Pass, error) { return dataset.SourcePass(src, w.next), nil })
}

// WriteStream is Write for a data set that can only be read in order; the samples come as Once gives them.
func WriteStream(ctx context.Context, set *dataset.StreamSet, o WriteOptions) (*Manifest, error) {
	w := &writer{name: set.Name, pictures: -1, fingerprint: set.Fingerprint, o: o}
	return w.run(ctx, func() (dataset.Pass, error) { return set.Once(ctx, w.state) })
}

type writer struct {
	name        string
	pictures    int    // -1 if that is not known
	fingerprint string // of what is read in order
	o           WriteOptions
	m           Manifest

	pass  dataset.Pass
	next  int             // number of the sample that comes next
	state json.RawMessage // of pass in front of it
	held  *taken          // that sample, if it was read already
	ended bool
}

// taken is a sample that was read, and the state behind it.
type taken struct {
	dataset.Sample
	state json.RawMessage
}

// run writes what is missing; open starts the reading where the writer stands.
func (w *writer) run(ctx context.Context, open func() (dataset.Pass, error)) (*Manifest, error) {
	o := &w.o
	setDefault(&o.Prefix, "shard-")
	setDefault(&o.Samples, 10_000)
	setDefault(&o.MaxBytes, 1<<30)
	if o.Samples < 1 || o.MaxBytes < 1 || o.Prefix != filepath.Base(o.Prefix) {
		return nil, errors.New("shard: the size of shards must be positive, and the prefix part of a file name")
	}
	if strings.Contains(o.Dir, "://") {
		return nil, fmt.Errorf("shard: %s: shards are written to a folder on this machine; upload them, with their indexes, "+
			"afterwards", storage.Redact(o.Dir))
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return nil, fmt.Errorf("shard: %w", err)
	}
	if err := w.resume(); err != nil {
		return nil, err
	}
	if w.m.Complete {
		w.tellAll(1)
		return &w.m, nil
	}
	var err error
	if w.pass, err = open(); err != nil {
		return &w.m, fmt.Errorf("shard: %w", err)
	}
	defer w.pass.Close()
	w.tellAll(w.pass.Done())
	for !w.m.Complete {
		if err := w.shard(ctx); err != nil {
			return &w.m, err
		}
	}
	return &w.m, nil
}

func (w *writer) tellAll(part float64) {
	for _, done := range w.m.Shards {
		w.tell(done, part)
	}
}

func (w *writer) tell(done Written, part float64) {
	if w.o.OnShard != nil {
		w.o.OnShard(done, part)
	}
}

// take gives the next sample, which stays the next one until passed.
func (w *writer) take(ctx context.Context) (*dataset.Sample, error) {
	if w.held == nil {
		s, err := w.pass.Next(ctx)
		if err != nil {
			return nil, err
		}
		state, err := w.pass.State()
		if err != nil {
			return nil, err
		}
		w.held = &taken{s, state}
	}
	return &w.held.Sample, nil
}

// passed goes on behind the next sample.
func (w *writer) passed() {
	w.next, w.state, w.held = w.next+1, w.held.state, nil
	w.ended = w.next == w.pictures
}

func (w *writer) manifestPath() string { return filepath.Join(w.o.Dir, ManifestName) }

// resume takes over what an earlier call with the same source and settings has written.
func (w *writer) resume() error {
	w.m = Manifest{Source: w.name, Pictures: max(w.pictures, 0), Shards: []Written{}, Left: []Left{},
		Settings: map[string]any{"samples": float64(w.o.Samples), "max_bytes": float64(w.o.MaxBytes),
			"ranked": w.o.Ranked, "prefix": w.o.Prefix}}
	if w.fingerprint != "" {
		w.m.Settings["source"] = w.fingerprint
	}
	w.ended = w.pictures == 0
	data, err := os.ReadFile(w.manifestPath())
	if errors.Is(err, fs.ErrNotExist) {
		if err := w.checkFree(); err != nil {
			return err
		}
		return w.writeManifest()
	}
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	var old Manifest
	if err := json.Unmarshal(data, &old); err != nil {
		return fmt.Errorf("shard: %s: it is damaged (%w); choose another folder, or remove it", w.manifestPath(), err)
	}
	settings, _ := json.Marshal(w.m.Settings)
	oldSettings, _ := json.Marshal(old.Settings)
	if w.pictures < 0 {
		w.m.Pictures = old.Pictures
	}
	if old.Source != w.m.Source || old.Pictures != w.m.Pictures || !bytes.Equal(settings, oldSettings) {
		return fmt.Errorf("shard: %s holds shards of another source or with other settings (%s of %s); choose another "+
			"folder, or empty it", w.o.Dir, oldSettings, old.Source)
	}
	for _, done := range old.Shards {
		stat, err := os.Stat(filepath.Join(w.o.Dir, filepath.Base(done.File)))
		if err != nil || stat.Size() != done.Bytes || done.First != w.next || done.End <= done.First {
			break // what follows is written again, byte for byte
		}
		w.m.Shards = append(w.m.Shards, done)
		w.next, w.state = done.End, done.State
		w.ended = w.next == w.pictures
	}
	for _, left := range old.Left {
		if left.Index < w.next {
			w.m.Left = append(w.m.Left, left)
		}
	}
	w.m.Complete = old.Complete && len(w.m.Shards) == len(old.Shards)
	return w.removeHalves()
}

// removeHalves removes what a call that was killed had begun to write; a shard's half may be large.
func (w *writer) removeHalves() error {
	entries, err := os.ReadDir(w.o.Dir)
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	for _, e := range entries {
		ours := strings.HasPrefix(e.Name(), "."+w.o.Prefix) || strings.HasPrefix(e.Name(), "."+ManifestName)
		if !ours || !strings.HasSuffix(e.Name(), ".tmp") || !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(w.o.Dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("shard: %w", err)
		}
	}
	return nil
}

// checkFree makes sure that no shards of somebody else are overwritten.
func (w *writer) checkFree() error {
	found, err := filepath.Glob(filepath.Join(w.o.Dir, "*.tar"))
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("shard: %s holds shards already, without a %s; choose another folder", w.o.Dir, ManifestName)
	}
	return err
}

// shard writes the next shard, its index and the manifest.
func (w *writer) shard(ctx context.Context) error {
	done := Written{File: fmt.Sprintf("%s%06d.tar", w.o.Prefix, len(w.m.Shards)), First: w.next}
	path := filepath.Join(w.o.Dir, done.File)
	left := len(w.m.Left)
	err := atomicfile.Write(path, func(file io.Writer) error {
		buffered := bufio.NewWriterSize(file, 1<<20)
		t := &tarWriter{w: buffered}
		if err := w.fill(ctx, t, &done); err != nil {
			return err
		}
		if err := t.close(); err != nil {
			return err
		}
		done.Bytes = t.n
		return buffered.Flush()
	})
	if err != nil {
		w.m.Left = w.m.Left[:left]
		return fmt.Errorf("shard: %w", err)
	}
	done.End = w.next
	if w.pictures < 0 {
		done.State = w.state
	}
	if done.Samples == 0 { // everything that was left could not be used
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("shard: %w", err)
		}
	} else {
		if _, err := (&Indexer{Rebuild: true}).Index(ctx, path); err != nil {
			return err
		}
		w.m.Shards = append(w.m.Shards, done)
	}
	if w.m.Complete = w.ended; w.ended {
		w.m.Pictures = w.next
	}
	if err := w.writeManifest(); err != nil {
		return err
	}
	if done.Samples > 0 {
		w.tell(done, w.pass.Done())
	}
	return nil
}

func (w *writer) writeManifest() error {
	err := atomicfile.Write(w.manifestPath(), func(file io.Writer) error {
		enc := json.NewEncoder(file)
		enc.SetIndent("", " ")
		return enc.Encode(&w.m)
	})
	if err != nil {
		return fmt.Errorf("shard: %w", err)
	}
	return nil
}

// fill writes samples until the shard is full or the source at its end.
func (w *writer) fill(ctx context.Context, t *tarWriter, done *Written) error {
	for !w.ended && done.Samples < w.o.Samples {
		s, err := w.take(ctx)
		if err == io.EOF {
			w.ended = true
			return nil
		}
		if err != nil {
			return err
		}
		text, ext, err := w.sample(s)
		if err != nil {
			if err := w.leave(s, err); err != nil {
				return err
			}
			continue
		}
		size := 2*block + padded(int64(len(s.Picture))) + padded(int64(len(text)))
		if done.Samples > 0 && t.n+size+2*block > w.o.MaxBytes {
			return nil
		}
		key := fmt.Sprintf("%09d", w.next)
		if err := t.add(key+"."+ext, s.Picture); err != nil {
			return err
		}
		if err := t.add(key+".json", text); err != nil {
			return err
		}
		done.Samples++
		w.passed()
	}
	return nil
}

// leave leaves out a sample that cannot be used, if that is still allowed.
func (w *writer) leave(s *dataset.Sample, err error) error {
	var bad *badSample
	if !errors.As(err, &bad) {
		return err
	}
	w.m.Left = append(w.m.Left, Left{w.next, s.Example.Key, bad.Error()})
	if w.o.MaxBad >= 0 && len(w.m.Left) > w.o.MaxBad {
		return fmt.Errorf("%d samples of %s cannot be used, more than the %d allowed; the last is %s: %w", len(w.m.Left),
			w.name, w.o.MaxBad, s.Example.Key, err)
	}
	w.passed()
	return nil
}

// badSample says why a sample is left out.
type badSample struct{ error }

func (b *badSample) Unwrap() error { return b.error }

// sample makes the text member of a sample, and finds the ending of its picture.
func (w *writer) sample(s *dataset.Sample) (text []byte, ext string, err error) {
	switch {
	case s.Err != nil:
		return nil, "", &badSample{s.Err}
	case len(s.Picture) > maxPicture:
		return nil, "", &badSample{errors.New(tooLarge.String())}
	}
	if ext = pictureKind(s.Picture); ext == "" {
		return nil, "", &badSample{errors.New("the file is not a jpg, png, webp, gif, bmp or tiff picture")}
	}
	e := s.Example
	if e.ImageID < 0 {
		e.ImageID = int64(w.next)
	}
	if text, err = w.text(&e); err != nil {
		return nil, "", err
	}
	if n := len(e.Captions) + len(e.Questions); len(text) > maxText || n == 0 || n > maxCaptions {
		return nil, "", &badSample{fmt.Errorf("it has %d captions and questions, of %d bytes; 1 to %d and %d are possible", n,
			len(text), maxCaptions, maxText)}
	}
	if w.o.Ranked && len(e.Questions) > 0 {
		return nil, "", &badSample{errors.New("it has questions, and ranked captions go without")}
	}
	return text, ext, nil
}

// text is the .json member of a sample.
func (w *writer) text(e *dataset.Example) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	var v any = e.Captions
	if !w.o.Ranked {
		v = struct {
			Captions  []string   `json:"captions,omitempty"`
			Questions []question `json:"questions,omitempty"`
			Key       string     `json:"source_key,omitempty"`
			ImageID   int64      `json:"image_id"`
			URL       string     `json:"url,omitempty"`
			License   string     `json:"license,omitempty"`
		}{e.Captions, questionsOf(e.Questions), e.Key, e.ImageID, e.URL, e.License}
	}
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// pictureKind is the ending for a picture by its first bytes; "" for what is none.
func pictureKind(data []byte) string {
	for _, kind := range []struct{ magic, ext string }{
		{"\xff\xd8", "jpg"}, {"\x89PNG\r\n\x1a\n", "png"}, {"GIF8", "gif"}, {"BM", "bmp"},
		{"II*\x00", "tiff"}, {"MM\x00*", "tiff"},
	} {
		if bytes.HasPrefix(data, []byte(kind.magic)) {
			return kind.ext
		}
	}
	if len(data) > 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP" {
		return "webp"
	}
	return ""
}

// tarWriter writes members that look the same whoever writes them when, and counts the bytes.
type tarWriter struct {
	w io.Writer
	n int64
}

func (t *tarWriter) add(name string, data []byte) error {
	w := tar.NewWriter(t.w)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644,
		ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR})
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	t.n += block + padded(int64(len(data)))
	return w.Flush()
}

// close writes the two empty blocks at the end of an archive.
func (t *tarWriter) close() error {
	t.n += 2 * block
	_, err := t.w.Write(make([]byte, 2*block))
	return err
}
