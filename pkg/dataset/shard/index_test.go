package shard

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"blip2/pkg/dataset"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/internal/measure"
)

// scanned lists the samples of a tar.
func scanned(t testing.TB, data []byte) []string {
	t.Helper()
	r := newSampleReader(newFileInput(bytes.NewReader(data), int64(len(data)), windowSize), true)
	var all []string
	for {
		var s sample
		err := r.next(&s)
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text := string(s.key) + ": "
		if s.bad == good {
			text += fmt.Sprintf("%s %q %v", s.pixels, s.record.captions, s.record.ranked)
		} else {
			text += s.bad.String()
		}
		all = append(all, text)
	}
}

func TestGrouping(t *testing.T) {
	for name, c := range map[string]struct {
		files []file
		want  []string
	}{
		"list is ranked": {[]file{{name: "a.jpg", data: "A"}, {name: "a.json", data: `["x", "y"]`}},
			[]string{`a: A ["x" "y"] true`}},
		"object": {[]file{{name: "a.JPG", data: "A"}, {name: "a.json", data: `{"caption": "x", "url": "u"}`}},
			[]string{`a: A ["x"] false`}},
		"object with list": {[]file{{name: "a.png", data: "A"}, {name: "a.json", data: `{"captions": ["x", "", "y"]}`}},
			[]string{`a: A ["x" "y"] false`}},
		"text": {[]file{{name: "a.webp", data: "A"}, {name: "a.txt", data: "x\n"}, {name: "a.cls", data: "7"}},
			[]string{`a: A ["x\n"] false`}},
		"img2dataset": {[]file{{name: "000000012.jpg", data: "A"}, {name: "000000012.json",
			data: `{"url": "u", "caption": "x", "key": "000000012", "status": "success", "error_message": null, "width": 256,
				"height": 256, "original_width": 600, "original_height": 400, "exif": "{}", "sha256": "ab"}`},
			{name: "000000012.txt", data: "x"}}, []string{`000000012: A ["x"] false`}},
		"img2dataset with columns that lack a value": {[]file{{name: "a.jpg", data: "A"},
			{name: "a.json", data: `{"caption": "x", "similarity": NaN, "punsafe": NaN}`}, {name: "b.jpg", data: "B"},
			{name: "b.json", data: `{"caption": NaN}`}, {name: "b.txt", data: "y"}},
			[]string{`a: A ["x"] false`, `b: B ["y"] false`}},
		"no caption in the json": {[]file{{name: "a.jpg", data: "A"}, {name: "a.json", data: `{"caption": null}`},
			{name: "a.txt", data: "x"}}, []string{`a: A ["x"] false`}},
		"folders with dots": {[]file{{name: "v1.0/a.b/", flag: tar.TypeDir}, {name: "v1.0/a.jpg", data: "A"},
			{name: "v1.0/a.txt", data: "x"}, {name: "v2.0/a.jpg", data: "B"}, {name: "v2.0/a.txt", data: "y"}},
			[]string{`v1.0/a: A ["x"] false`, `v2.0/a: B ["y"] false`}},
		"key up to the first dot": {[]file{{name: "a.seg.png", data: "S"}, {name: "a.jpg", data: "A"},
			{name: "a.txt", data: "x"}}, []string{`a: A ["x"] false`}},
		"consecutive only": {[]file{{name: "a.jpg", data: "A"}, {name: "b.txt", data: "y"}, {name: "a.txt", data: "x"}},
			[]string{"a: " + noCaption.String(), "b: " + noPicture.String(), "a: " + noPicture.String()}},
		"links and names without a key": {[]file{{name: "a.jpg", data: "A"}, {name: "l.jpg", flag: tar.TypeSymlink},
			{name: "README", data: "r"}, {name: ".hidden", data: "h"}, {name: "a.txt", data: "x"}},
			[]string{`a: A ["x"] false`}},
		"two pictures": {[]file{{name: "a.png", data: "P"}, {name: "a.jpg", data: "A"}, {name: "a.txt", data: "x"}},
			[]string{`a: A ["x"] false`}},
		"the same twice": {[]file{{name: "a.jpg", data: "A"}, {name: "a.jpg", data: "B"}, {name: "a.txt", data: "x"}},
			[]string{"a: " + twice.String()}},
		"leaves": {[]file{{name: "../a.jpg", data: "A"}, {name: "../a.txt", data: "x"}, {name: "/b.jpg", data: "B"},
			{name: "c/../../c.jpg", data: "C"}, {name: `d/x\..\..\..\d.jpg`, data: "D"}, {name: "..e/e.jpg", data: "E"},
			{name: "..e/e.txt", data: "x"}},
			[]string{"../a: " + badName.String(), "/b: " + badName.String(), "c/../../c: " + badName.String(),
				`d/x\: ` + badName.String(), `..e/e: E ["x"] false`}},
		"broken json": {[]file{{name: "a.jpg", data: "A"}, {name: "a.json", data: `["x", 7]`}, {name: "b.jpg", data: "B"},
			{name: "b.json", data: `["x"`}, {name: "c.jpg"}, {name: "c.json"}},
			[]string{"a: " + brokenText.String(), "b: " + brokenText.String(), "c: " + brokenText.String()}},
		"blank captions": {[]file{{name: "a.jpg", data: "A"}, {name: "a.json", data: `[" ", "x"]`},
			{name: "b.jpg", data: "B"}, {name: "b.json", data: `["\n"]`}},
			[]string{`a: A ["x"] true`, "b: " + noCaption.String()}},
		"too much text": {[]file{{name: "a.jpg", data: "A"}, {name: "a.txt", data: strings.Repeat("x", maxText+1)}},
			[]string{"a: " + tooLarge.String()}},
	} {
		got := scanned(t, tarOf(t, tar.FormatPAX, c.files...))
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: got\n%q, want\n%q", name, got, c.want)
		}
	}
}

func TestSparseIsRefused(t *testing.T) {
	data := tarOf(t, tar.FormatPAX, file{name: "a.jpg", data: "A"}, file{name: "a.txt", data: "x"})
	data[156] = 'S'
	fixChecksum(data[:block])
	if got := scanned(t, data); len(got) != 1 || got[0] != "a: "+holes.String() {
		t.Errorf("got %q", got)
	}
}

// fixChecksum makes a changed header valid again.
func fixChecksum(head []byte) {
	copy(head[148:156], "        ")
	sum := 0
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

func TestSidecar(t *testing.T) {
	ctx := context.Background()
	dir := inFolder(t, shardsOf(t, 20))
	path := filepath.Join(dir, "s000.tar")
	in := &Indexer{CacheDir: t.TempDir()}
	index := func(built bool, samples int) {
		t.Helper()
		info, err := in.Index(ctx, path)
		if err != nil || info.Built != built || info.Samples != samples || info.Index != path+IndexSuffix {
			t.Errorf("got %+v, %v; want built %v", info, err, built)
		}
	}
	index(true, 20)
	index(false, 20)
	// The sidecar is small, and nothing else is left in the folder.
	if stat, err := os.Stat(path + IndexSuffix); err != nil || stat.Size() != headSize+20*entrySize {
		t.Errorf("the index: %v, %v", stat, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the folder holds %v", entries)
	}
	// Another time stamp, and another size, make it stale.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	index(true, 20)
	index(false, 20)
	writeFile(t, path, tarOf(t, tar.FormatUSTAR, numbered(0, 21)...))
	index(true, 21)
	// Any flipped byte is noticed, and so is a cut.
	whole, err := os.ReadFile(path + IndexSuffix)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		broken := bytes.Clone(whole)
		broken[at] ^= 0x40
		if _, err := decode(broken); err == nil {
			t.Errorf("byte %d is not checked", at)
		}
	}
	for cut := range whole {
		if _, err := decode(whole[:cut]); err == nil {
			t.Errorf("a cut at %d is not noticed", cut)
		}
	}
	whole[headSize+30] ^= 1
	writeFile(t, path+IndexSuffix, whole)
	index(true, 21)
	index(false, 21)
	in.Rebuild = true
	index(true, 21)
}

// Many processes that open the same shard for the first time get one good index.
func TestSidecarAtTheSameTime(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 200))
	path := filepath.Join(dir, "s000.tar")
	var wg sync.WaitGroup
	for range 8 {
		in := &Indexer{CacheDir: t.TempDir()}
		wg.Go(func() {
			if info, err := in.Index(context.Background(), path); err != nil || info.Samples != 200 {
				t.Errorf("got %+v, %v", info, err)
			}
		})
	}
	wg.Wait()
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the folder holds %v", entries)
	}
}

// An index that cannot lie beside its shard lies in the cache folder.
func TestReadOnlyFolder(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 5))
	path := filepath.Join(dir, "s000.tar")
	if err := os.Mkdir(path+IndexSuffix, 0o777); err != nil { // in the way, whoever runs the test
		t.Fatal(err)
	}
	in := &Indexer{CacheDir: filepath.Join(t.TempDir(), "new")}
	x := &index{}
	info := IndexInfo{}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o777) })
	places := in.places(path)
	places[0] = filepath.Join(dir, "nosuch", "x"+IndexSuffix)
	in.keep(places, x, &info)
	if info.Index != places[1] {
		t.Errorf("the index lies at %q, want %q", info.Index, places[1])
	}
	// Where nothing can be kept, the index serves from memory.
	info = IndexInfo{}
	if got := in.keep([]string{filepath.Join(dir, "nosuch", "x")}, x, &info); got != x || info.Index != "" {
		t.Errorf("got %p, %q", got, info.Index)
	}
}

// What is packed cannot be indexed, and nothing is left beside it.
func TestPackedIsNotIndexed(t *testing.T) {
	dir := inFolder(t, map[string][]byte{"s.tar": gzipped(t, shardsOf(t, 3)["s000.tar"])})
	_, err := (&Indexer{CacheDir: t.TempDir()}).Index(t.Context(), filepath.Join(dir, "s.tar"))
	if err == nil || !strings.Contains(err.Error(), "packed with gzip") {
		t.Errorf("got %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("the folder holds %v", entries)
	}
}

// Where the disk is full, the index lies in the cache folder, or if that is full too in memory: the shards are read all
// the same, the reason is said, and nothing half-written is left.
func TestFullDiskForIndexes(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 60, 40))
	cache := t.TempDir()
	for _, full := range [][]string{{dir}, {dir, cache}} {
		var log bytes.Buffer
		o := Options{Log: logTo(&log), Indexer: Indexer{CacheDir: cache, Rebuild: true}}
		o.Indexer.write = func(path string, fill func(io.Writer) error) error {
			return atomicfile.Write(path, func(w io.Writer) error {
				if slices.Contains(full, filepath.Dir(path)) {
					w = fullDisk{w}
				}
				// The head and the entries are more than the disk takes.
				var b bytes.Buffer
				if err := fill(&b); err != nil {
					return err
				}
				_, err := w.Write(b.Bytes())
				return err
			})
		}
		checkSource(t, openSource(t, o, filepath.Join(dir, "*.tar")), 100)
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("the folder holds %v, %v", entries, err)
		}
		kept, err := os.ReadDir(cache)
		if err != nil || len(kept) != 4-2*len(full) {
			t.Errorf("%d folders are full: the cache holds %v, %v", len(full), kept, err)
		}
		said := strings.Contains(log.String(), "could not be kept") && strings.Contains(log.String(), "no space left")
		if said != (len(full) == 2) {
			t.Errorf("%d folders are full: %s", len(full), log.String())
		}
		for _, e := range kept {
			if err := os.Remove(filepath.Join(cache, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRandomAccess(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 30, 1, 17, 52))
	x := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	if x.Len() != 100 {
		t.Fatalf("%d samples", x.Len())
	}
	checkSource(t, x, 100)
	// The second time the sidecars are there; * does not take them for shards.
	checkSource(t, openSource(t, Options{}, filepath.Join(dir, "s{000..003}.tar")), 100)
	if all := openSource(t, Options{TopK: -1}, filepath.Join(dir, "*.tar")); all.Texts(0) != 3 {
		t.Errorf("without top_k there are %d captions", all.Texts(0))
	}
}

// A folder means the shards in it, whatever img2dataset has put beside them.
func TestFolderOfShards(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 4, 6))
	for _, name := range []string{"s000_stats.json", "s000.parquet", "shards.json"} {
		writeFile(t, filepath.Join(dir, name), []byte("{}"))
	}
	for _, pattern := range []string{dir, dir + "/", filepath.Join(dir, "*"), "file://" + dir,
		filepath.Join(dir, "{s000,s001}.tar")} {
		checkSource(t, openSource(t, Options{}, pattern), 10)
	}
	for _, pattern := range []string{t.TempDir(), filepath.Join(dir, "x*"), "http://127.0.0.1/folder/",
		"ftp://host/x.tar"} {
		if _, err := Locate(context.Background(), testStore(t), pattern); err == nil {
			t.Errorf("%s is taken", pattern)
		}
	}
}

// A server that sends whole files only cannot give random access; its shards are read in order.
func TestServerWithoutRanges(t *testing.T) {
	local := inFolder(t, shardsOf(t, 10))
	openSource(t, Options{}, filepath.Join(local, "s000.tar"))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		http.ServeFile(w, r, filepath.Join(local, filepath.Base(r.URL.Path)))
	}))
	t.Cleanup(server.Close)
	set := openStreams(t, small(), server.URL+"/s000.tar")
	s := start(t, set, 1, nil)
	want := next(t, s, 25)
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, next(t, s, 10)...)
	if got := next(t, start(t, set, 1, state), 10); strings.Join(got, " ") != strings.Join(want[25:], " ") {
		t.Errorf("continued: %q, want %q", got, want[25:])
	}
}

// checkSource reads numbered samples in an order of its own, from several goroutines.
func checkSource(t *testing.T, x dataset.Source, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for k := worker; k < n; k += 3 {
				i := k * 37 % n
				e, err := x.Example(i)
				if err != nil {
					t.Error(err)
					continue
				}
				r, err := x.Open(i)
				if err != nil {
					t.Error(err)
					continue
				}
				data, err := io.ReadAll(r)
				if err != nil || r.Close() != nil || x.Texts(i) != 2 {
					t.Errorf("sample %d: %v, %d texts", i, err, x.Texts(i))
				}
				got := describe(t, &dataset.Sample{Example: e, Picture: data})
				if !strings.HasSuffix(got, fmt.Sprintf("/%06d", i)) {
					t.Errorf("sample %d is %s", i, got)
				}
			}
		})
	}
	wg.Wait()
}

// Bad samples keep their places, and say where they are.
func TestBadSamplesOfASource(t *testing.T) {
	files := numbered(0, 4)
	files[3].data = "not json"
	data := tarOf(t, tar.FormatUSTAR, files...)
	data = data[:len(data)-3*block] // into the last member
	dir := inFolder(t, map[string][]byte{"a.tar": data})
	x := openSource(t, Options{}, filepath.Join(dir, "a.tar"))
	for i := range x.Len() {
		e, err := x.Example(i)
		_, err2 := x.Open(i)
		switch i {
		case 0, 2:
			if err != nil || err2 != nil {
				t.Errorf("sample %d: %v, %v", i, err, err2)
			}
		default:
			if err == nil || err2 == nil || x.Texts(i) != 1 || !strings.Contains(err.Error(), "a.tar, byte ") || e.Key == "" {
				t.Errorf("sample %d: key %q, %v, %v", i, e.Key, err, err2)
			}
		}
	}
	if x.Len() != 5 { // 000003 lacks its captions, and the cut is reported
		t.Errorf("%d samples", x.Len())
	}
}

// A shard that is replaced or vanishes is never read as if it were the one that was indexed.
func TestShardChangesUnderway(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 3, 3))
	x := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	if err := os.Remove(filepath.Join(dir, "s000.tar")); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Open(1); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "s000.tar, byte ") {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(dir, "s001.tar")
	if _, err := x.Example(4); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Written over in place, with the same size: the picture's header does not fit any more.
	writeFile(t, path, tarOf(t, tar.FormatUSTAR, append([]file{{name: "x", data: "y"}}, numbered(3, 3)...)...)[:len(data)])
	if _, err := x.Open(4); !errors.Is(err, errStale) {
		t.Errorf("got %v", err)
	}
	// Put back into place it is whole again, and the missing shard can return.
	writeFile(t, path, data)
	if _, err := x.Open(4); err != nil {
		t.Error(err)
	}
	// A file that was not open yet is compared with its index.
	y := openSource(t, Options{}, path)
	writeFile(t, path, data[:len(data)-block])
	if _, err := y.Open(0); !errors.Is(err, errStale) {
		t.Errorf("got %v", err)
	}
}

func TestManyShardsFewOpen(t *testing.T) {
	sizes := make([]int, maxOpen+50)
	for i := range sizes {
		sizes[i] = 1
	}
	x := openSource(t, Options{}, filepath.Join(inFolder(t, shardsOf(t, sizes...)), "*.tar"))
	checkSource(t, x, len(sizes))
	if n := len(x.files.open); n > maxOpen+4 {
		t.Errorf("%d shards are open", n)
	}
}

// Shards elsewhere with their indexes beside them have random access too: one request gives a sample.
func TestRemoteIndex(t *testing.T) {
	local := inFolder(t, shardsOf(t, 10, 15))
	openSource(t, Options{}, filepath.Join(local, "*.tar"))
	shards := map[string][]byte{}
	for _, name := range []string{"s000.tar", "s001.tar", "s000.tar.index", "s001.tar.index"} {
		data, err := os.ReadFile(filepath.Join(local, name))
		if err != nil {
			t.Fatal(err)
		}
		shards[name] = data
	}
	url := onServer(t, shards, nil)
	x := openSource(t, Options{}, url+"/s{000..001}.tar")
	checkSource(t, x, 25)
	if n := len(x.spans.held); n != 0 {
		t.Errorf("%d samples are still held", n)
	}
	first, none := maps.Clone(shards), maps.Clone(shards)
	delete(first, "s001.tar.index")
	_, _, err := Open(context.Background(), Options{Store: testStore(t)}, onServer(t, first, nil)+"/s{000..001}.tar")
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "data index") {
		t.Errorf("got %v", err)
	}
	delete(none, "s000.tar.index")
	openStreams(t, Options{}, onServer(t, none, nil)+"/s{000..001}.tar")
}

func FuzzIndex(f *testing.F) {
	data := tarOf(f, tar.FormatUSTAR, numbered(0, 2)...)
	x, err := scan(context.Background(), bytes.NewReader(data), int64(len(data)), 7)
	if err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if err := x.encode(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := decode(data)
		if err != nil {
			return
		}
		for i := range x.len() {
			if e := x.at(i); x.texts(i, 2) < 1 || e.bad == good && (e.picture.data+e.picture.size > x.tarSize ||
				e.text.data+e.text.size > x.tarSize || e.picture.size > maxPicture) {
				t.Errorf("entry %+v of a tar of %d bytes", e, x.tarSize)
			}
		}
		var b bytes.Buffer
		if err := x.encode(&b); err != nil || !bytes.Equal(b.Bytes()[16:40], data[16:40]) {
			t.Errorf("written again it is different: %v", err)
		}
	})
}

func FuzzCaptions(f *testing.F) {
	f.Add([]byte(`["a", "b"]`), []byte("c"))
	f.Add([]byte(`{"caption": "a", "captions": ["b"], "url": 7, "image_id": 9}`), []byte("\xff"))
	f.Add([]byte(`{"questions": [{"question": "q", "answers": [{"answer": "a", "weight": 1}], "correct_choice": 0}]}`),
		[]byte(""))
	f.Fuzz(func(t *testing.T, json, txt []byte) {
		var r record
		if r.parse(json, txt) != good {
			return
		}
		used := r.used(2)
		if len(used)+len(r.questions) == 0 || r.texts() > maxCaptions || r.ranked && len(used) > 2 {
			t.Errorf("captions %q, used %q, questions %+v", r.captions, used, r.questions)
		}
		for _, c := range used {
			if strings.TrimSpace(c) == "" {
				t.Errorf("a blank caption: %q", c)
			}
		}
	})
}

// The index is built at disk speed: pictures are not read.
func BenchmarkIndex(b *testing.B) {
	for name, c := range map[string]struct{ pictures, size int }{"100KB": {2000, 100 << 10}, "1KB": {40_000, 1 << 10}} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "x.tar")
			file, err := os.Create(path)
			if err != nil {
				b.Fatal(err)
			}
			w := &tarWriter{w: file}
			picture := bytes.Repeat([]byte("\xff\xd8"), c.size/2)
			for i := range c.pictures {
				key := fmt.Sprintf("%09d", i)
				captions := []byte(`["a caption", "another"]`)
				if err := errors.Join(w.add(key+".jpg", picture), w.add(key+".json", captions)); err != nil {
					b.Fatal(err)
				}
			}
			if err := errors.Join(w.close(), file.Close()); err != nil {
				b.Fatal(err)
			}
			in := &Indexer{Rebuild: true, CacheDir: b.TempDir()}
			b.SetBytes(w.n)
			cpu := measure.CPUSeconds()
			for b.Loop() {
				if info, err := in.Index(context.Background(), path); err != nil || info.Samples != c.pictures {
					b.Fatal(info, err)
				}
			}
			b.ReportMetric(float64(w.n)*float64(b.N)/1e6/max(measure.CPUSeconds()-cpu, 0.01), "MB/cpu-s")
		})
	}
}
