package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
)

// benchKinds are the kinds of source that bench data compares, in the order in which it shows them.
var benchKinds = []string{"folder", "tar", "tar.gz", "indexed", "http", "http-tar.gz", "http-indexed"}

// benchDataComparison is what the command prints of several kinds of source.
type benchDataComparison struct {
	Sources []benchDataReport `json:"sources"`
	Machine benchMachine      `json:"machine"`
	Build   versionInfo       `json:"build"`
}

// runCompareSources packs the pictures into shards and measures them from every kind of source that is named.
func runCompareSources(ctx context.Context, app *App, opts benchDataOptions) error {
	kinds, err := kindsOf(opts.from)
	if err != nil {
		return err
	}
	src, _, err := opts.open()
	if err != nil {
		return err
	}
	src = firstOf(src, opts.count)
	if opts.count == 0 {
		opts.count = src.Len()
	}
	lab := &benchLab{opts: opts, src: src}
	defer lab.close()
	r := benchDataComparison{Sources: []benchDataReport{}, Machine: thisMachine(), Build: newVersionInfo(app.buildInfo())}
	if kinds[0] != "folder" || len(kinds) > 1 {
		if err := lab.pack(ctx); err != nil {
			return err
		}
	}
	phase := app.progress().Start("measuring sources", 0, len(kinds))
	defer phase.Done()
	for i, kind := range kinds {
		report, err := lab.measure(ctx, app, kind)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		r.Sources = append(r.Sources, report)
		phase.Advance(i + 1)
	}
	phase.Done()
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// kindsOf are the kinds that are meant, each once.
func kindsOf(names []string) ([]string, error) {
	if slices.Equal(names, []string{"all"}) {
		return benchKinds, nil
	}
	for _, name := range names {
		if !slices.Contains(benchKinds, name) {
			return nil, usagef("--from: there is no kind of source %q; want some of %s, or all", name,
				strings.Join(benchKinds, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(benchKinds), func(k string) bool { return !slices.Contains(names, k) }), nil
}

// benchLab is the pictures as every kind of source.
type benchLab struct {
	opts   benchDataOptions
	src    dataset.Pictures
	dir    string // holds the folder indexed of shards with their indexes, and the folder packed of .tar.gz
	server *http.Server
	url    string
}

// benchShards is how many shards the pictures are packed into: more than are read at the same time.
const benchShards = 8

func (l *benchLab) perShard() int { return (l.src.Len() + benchShards - 1) / benchShards }

// pack writes the shards, packed and not, and starts the server.
func (l *benchLab) pack(ctx context.Context) error {
	var err error
	if l.dir, err = os.MkdirTemp("", "blip2-bench-*"); err != nil {
		return err
	}
	indexed, packed := filepath.Join(l.dir, "indexed"), filepath.Join(l.dir, "packed")
	o := shard.WriteOptions{Dir: indexed, Samples: l.perShard(), MaxBytes: math.MaxInt64}
	if _, err := shard.Write(ctx, captioned{l.src}, o); err != nil {
		return err
	}
	tars, err := filepath.Glob(filepath.Join(indexed, "*.tar"))
	if err == nil {
		err = os.Mkdir(packed, 0o700)
	}
	for _, name := range tars {
		if err == nil {
			err = packFile(name, filepath.Join(packed, filepath.Base(name)+".gz"))
		}
	}
	if err != nil {
		return err
	}
	return l.serve()
}

// packFile packs a file with gzip. Pictures do not get smaller, so that the fastest way is as good as any.
func packFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(z, in)
		err = errors.Join(err, z.Close())
	}
	return errors.Join(err, out.Close())
}

// serve serves the folders on this machine: indexed, plain (the same without its indexes) and packed.
func (l *benchLab) serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.url = "http://" + listener.Addr().String()
	files := http.FileServer(http.Dir(l.dir))
	mux := http.NewServeMux()
	mux.Handle("/", files)
	mux.HandleFunc("/plain/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, shard.IndexSuffix) {
			http.NotFound(w, r)
			return
		}
		r.URL.Path = "/indexed/" + strings.TrimPrefix(r.URL.Path, "/plain/")
		files.ServeHTTP(w, r)
	})
	l.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = l.server.Serve(listener) }() // close ends it
	return nil
}

// close ends the server and removes the shards.
func (l *benchLab) close() {
	if l.server != nil {
		_ = l.server.Close()
	}
	if l.dir != "" {
		_ = os.RemoveAll(l.dir)
	}
}

// measure measures the pictures from one kind of source.
func (l *benchLab) measure(ctx context.Context, app *App, kind string) (benchDataReport, error) {
	if kind == "folder" {
		return l.opts.measurePictures(ctx, app, l.src, kind, l.opts.images)
	}
	n := (l.src.Len() + l.perShard() - 1) / l.perShard()
	tars := fmt.Sprintf("shard-{000000..%06d}.tar", n-1)
	pattern := map[string]string{
		"tar": l.dir + "/indexed/" + tars, "indexed": l.dir + "/indexed/" + tars, "tar.gz": l.dir + "/packed/" + tars + ".gz",
		"http": l.url + "/plain/" + tars, "http-indexed": l.url + "/indexed/" + tars,
		"http-tar.gz": l.url + "/packed/" + tars + ".gz",
	}[kind]
	indexed, set, err := openBenchShards(ctx, app, kind == "tar", pattern)
	if err != nil {
		return benchDataReport{}, err
	}
	var r benchDataReport
	if set != nil {
		r, err = l.opts.measureStream(ctx, app, set)
	} else {
		r, err = l.opts.measurePictures(ctx, app, indexed, kind, pattern)
		err = errors.Join(err, indexed.Close())
	}
	r.Kind = kind
	return r, err
}

// captioned is pictures with a caption each, for shards need some.
type captioned struct{ dataset.Pictures }

func (c captioned) Name() string  { return "pictures" }
func (c captioned) Texts(int) int { return 1 }

func (c captioned) Example(i int) (dataset.Example, error) {
	return dataset.Example{Key: fmt.Sprintf("picture %d", i), ImageID: int64(i), Captions: []string{"a picture"}}, nil
}

// writeText writes a line per kind of source.
func (r benchDataComparison) writeText(out io.Writer) error {
	first := r.Sources[0]
	fmt.Fprintf(out, "%d pictures of %.2f Mpixel and %.0f KB in the mean, cropped and resized to %d×%d, JPEG by %s\n"+
		"milliseconds per picture of every stage, and images/s of the whole way\n\n", first.Pictures, first.MeanSize/1e6,
		first.MeanBytes/1e3, first.Size, first.Size, first.JPEG)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var head bytes.Buffer
	head.WriteString("source\t")
	for _, s := range first.Stages {
		fmt.Fprintf(&head, "%s\t", s.Name)
	}
	for _, run := range first.Runs {
		fmt.Fprintf(&head, "all, %s\tper CPU s\t", workers(run.Workers))
	}
	fmt.Fprintln(w, head.String())
	for _, source := range r.Sources {
		fmt.Fprintf(w, "%s\t", source.Kind)
		for _, s := range source.Stages {
			fmt.Fprintf(w, "%.3f\t", 1e3*s.Seconds/float64(source.Pictures))
		}
		for _, run := range source.Runs {
			fmt.Fprintf(w, "%.0f\t%.0f\t", run.PerSecond, run.PerCPU)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
