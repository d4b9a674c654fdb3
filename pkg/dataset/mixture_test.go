package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// numbered is a Source of n pictures without contents; picture i has 1 + i mod texts texts.
type numbered struct {
	name  string
	n     int
	texts int
}

func (s numbered) Name() string                    { return s.name }
func (s numbered) Len() int                        { return s.n }
func (s numbered) Texts(i int) int                 { return 1 + i%s.texts }
func (s numbered) Example(int) (Example, error)    { return Example{}, errors.New("no contents") }
func (s numbered) Open(int) (io.ReadCloser, error) { return nil, errors.New("no contents") }

func mustMix(t *testing.T, mix Mix, parts ...Part) *Mixture {
	t.Helper()
	m, err := NewMixture(mix, parts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func quotas(m *Mixture) []int64 {
	var all []int64
	for _, s := range m.Shares() {
		all = append(all, s.Quota)
	}
	return all
}

func TestQuotas(t *testing.T) {
	coco := Part{Source: numbered{"coco", 100, 9}}
	rows := int64(0)
	for i := range 100 {
		rows += int64(1 + i%9)
	}
	web := Part{Source: numbered{"web", 1000, 1}}
	large := Part{Source: numbered{"large", 20000, 1}, Share: 0.2}
	stream := Part{Stream: &StreamSet{Name: "stream", Pictures: 5000}}
	weighted := func(p Part, w float64) Part { p.Weight = w; return p }
	for _, c := range []struct {
		name  string
		mix   Mix
		parts []Part
		want  []int64
	}{
		{"one source", Mix{}, []Part{coco}, []int64{rows}},
		{"by images", Mix{By: MixImages}, []Part{coco, web, large}, []int64{100, 1000, 20000}},
		{"by rows", Mix{By: MixRows}, []Part{coco, web, large}, []int64{rows, 1000, 20000}},
		{"blip1", Mix{By: MixBLIP1}, []Part{coco, web, large}, []int64{rows, 1000, 4000}},
		{"by weights", Mix{By: MixWeights}, []Part{weighted(web, 1), weighted(large, 3)}, []int64{1000, 3000}},
		{"epoch given", Mix{By: MixWeights, EpochRows: 600}, []Part{weighted(web, 1), weighted(large, 2)},
			[]int64{200, 400}},
		{"oversampled", Mix{EpochRows: 211_000}, []Part{coco, web, large}, []int64{1000, 10_000, 200_000}},
		{"with a stream", Mix{}, []Part{web, stream}, []int64{1000, 5000}},
		{"a stream of unknown length", Mix{By: MixWeights},
			[]Part{weighted(web, 2), weighted(Part{Stream: &StreamSet{Name: "s"}}, 1)}, []int64{1000, 500}},
		{"tiny share", Mix{By: MixBLIP1}, []Part{web, {Source: numbered{"tiny", 2, 1}, Share: 0.1}}, []int64{1000, 1}},
	} {
		if got := quotas(mustMix(t, c.mix, c.parts...)); !slices.Equal(got, c.want) {
			t.Errorf("%s: quotas %v, want %v", c.name, got, c.want)
		}
	}
}

// TestPaperMixture: the six data sets in proportion to their pictures, and as BLIP mixed them.
func TestPaperMixture(t *testing.T) {
	parts := []Part{{Source: numbered{"coco", 113_287, 9}}, {Source: numbered{"vg", 100_000, 15}},
		{Source: numbered{"cc3m", 3_000_000, 1}}, {Source: numbered{"cc12m", 10_000_000, 1}},
		{Source: numbered{"sbu", 860_000, 1}},
		{Stream: &StreamSet{Name: "laion", Pictures: 115_000_000}, Share: 0.2}}
	m := mustMix(t, Mix{}, parts...)
	for i, s := range m.Shares() {
		if s.Quota != s.Pictures {
			t.Errorf("%s: %d of an epoch, has %d pictures", parts[i].name(), s.Quota, s.Pictures)
		}
	}
	counts := make([]float64, len(parts))
	o := m.order(42, 3)
	const draws = 200_000
	for i := range int64(draws) {
		counts[o.at(i*600).part]++
	}
	for i, s := range m.Shares() {
		want := draws * float64(s.Quota) / float64(m.Rows())
		if math.Abs(counts[i]-want) > 4*math.Sqrt(want)+1 {
			t.Errorf("%s: %g of %d places, want about %.0f", s.Name, counts[i], draws, want)
		}
	}
	if q := quotas(mustMix(t, Mix{By: MixBLIP1}, parts...)); q[5] != 23_000_000 || q[2] != 3_000_000 {
		t.Errorf("blip1: %v", q)
	}
}

// TestEpochsAreBalanced walks whole epochs: shares are exact, rows of proportional sources come once, no source gives a
// row twice in an epoch unless it must, and over epochs no row is ahead of another by more than one.
func TestEpochsAreBalanced(t *testing.T) {
	parts := []Part{{Source: numbered{"a", 30, 4}, Weight: 2}, {Source: numbered{"b", 97, 1}, Weight: 5},
		{Source: numbered{"c", 11, 1}, Weight: 3, Share: 0.3}}
	for _, mix := range []Mix{{}, {By: MixRows}, {By: MixWeights}, {By: MixBLIP1}, {By: MixWeights, EpochRows: 203}} {
		m := mustMix(t, mix, parts...)
		total := make([]map[int64]int, len(parts))
		for i := range total {
			total[i] = map[int64]int{}
		}
		for epoch := range int64(7) {
			o, again := m.order(9, epoch), m.order(9, epoch)
			here, keys := make([]map[int64]int, len(parts)), map[int64]bool{}
			for i := range here {
				here[i] = map[int64]int{}
			}
			for i := range m.Rows() {
				at := o.at(i)
				if keys[at.key] || at != again.at(i) {
					t.Fatalf("%+v: position %d is %+v, then %+v", mix, i, at, again.at(i))
				}
				keys[at.key] = true
				here[at.part][at.row]++
				total[at.part][at.row]++
			}
			for i, s := range m.Shares() {
				n := int64(0)
				for row, times := range here[i] {
					n += int64(times)
					if most := (s.Quota + s.Rows - 1) / s.Rows; int64(times) > most || row < 0 || row >= s.Rows {
						t.Errorf("%+v: row %d of %s comes %d times in an epoch", mix, row, s.Name, times)
					}
				}
				if n != s.Quota {
					t.Errorf("%+v: %d rows of %s in an epoch, want %d", mix, n, s.Name, s.Quota)
				}
			}
		}
		for i, s := range m.Shares() {
			least, most := math.MaxInt, 0
			for row := range s.Rows {
				least, most = min(least, total[i][row]), max(most, total[i][row])
			}
			if most-least > 1 {
				t.Errorf("%+v: rows of %s come %d to %d times in 7 epochs", mix, s.Name, least, most)
			}
		}
	}
}

func TestRowsFindPictures(t *testing.T) {
	for _, texts := range []int{1, 2, 7} {
		src := numbered{"made", 333, texts}
		r, err := newRows(src, UnitCaption)
		if err != nil {
			t.Fatal(err)
		}
		row := int64(0)
		for i := range src.n {
			for k := range src.Texts(i) {
				if image, text := r.at(row, nil); image != i || text != k {
					t.Fatalf("row %d is text %d of picture %d, want %d of %d", row, text, image, k, i)
				}
				row++
			}
		}
		if row != r.n {
			t.Errorf("%d rows, want %d", r.n, row)
		}
	}
}

// TestRowsNeedNoTables: what the order of 2·10⁷ rows keeps in memory is an eighth of a byte per picture.
func TestRowsNeedNoTables(t *testing.T) {
	src := numbered{"large", 4_000_000, 9} // 2·10⁷ rows
	before := heap()
	m := mustMix(t, Mix{}, Part{Source: src})
	o := m.order(1, 5)
	perPicture := float64(heap()-before) / float64(src.n)
	if perPicture > 0.2 {
		t.Errorf("%.2f bytes per picture", perPicture)
	}
	seen := map[int64]bool{}
	for i := range int64(1000) {
		at := o.at(i * 18_000)
		if image, text := o.image(at); image < 0 || image >= src.n || text >= src.Texts(image) || seen[at.row] {
			t.Fatalf("position %d is text %d of picture %d", i, text, image)
		}
		seen[at.row] = true
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestMixtureRefuses(t *testing.T) {
	web := Part{Source: numbered{"web", 1000, 1}}
	stream := func(name string, n int64) Part { return Part{Stream: &StreamSet{Name: name, Pictures: n}, Weight: 1} }
	for _, c := range []struct {
		mix   Mix
		parts []Part
		want  string
	}{
		{Mix{}, nil, "no source"},
		{Mix{}, []Part{{}}, "either a source or a stream"},
		{Mix{By: "size"}, []Part{web}, `"size"`},
		{Mix{By: MixWeights}, []Part{web}, "weight above 0 of web"},
		{Mix{By: MixBLIP1}, []Part{{Source: web.Source, Share: -1}}, "share of web"},
		{Mix{}, []Part{{Source: web.Source, Unit: "row"}}, `"row"`},
		{Mix{}, []Part{{Source: numbered{"none", 0, 1}}}, "none has no rows"},
		{Mix{}, []Part{stream("s", 0)}, "how many pictures the stream s has"},
		{Mix{By: MixWeights}, []Part{stream("s", 0)}, "how many rows an epoch has"},
		{Mix{By: MixWeights}, []Part{stream("s", 5), stream("s", 5)}, "two streams are called s"},
		{Mix{EpochRows: -4}, []Part{web}, "epoch of -4 rows"},
		{Mix{EpochRows: 1 << 50}, []Part{web}, "an epoch of"},
		{Mix{By: MixBLIP1}, []Part{{Source: web.Source, Share: 1e12}}, "share of web"},
	} {
		if _, err := NewMixture(c.mix, c.parts...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v %+v: error %v does not contain %q", c.mix, c.parts, err, c.want)
		}
	}
}

// counting is a Stream whose samples are pictures of a made source in a keyed order, one epoch after another.
type counting struct {
	src    *made
	seed   int64
	at     int64
	broken map[int64]error // samples by their number that cannot be used
	fails  int64           // number of the sample at which the stream fails; 0 for none
	closed *int
}

func (c *counting) Name() string { return "counting" }

func (c *counting) Next(ctx context.Context) (Sample, error) {
	if err := ctx.Err(); err != nil {
		return Sample{}, err
	}
	if c.fails > 0 && c.at == c.fails {
		return Sample{}, errors.New("shard 7 at byte 512 is cut off")
	}
	n := int64(c.src.n)
	order := epochOrder(c.seed, c.at/n, n)
	i := int(order.at(c.at % n))
	number := c.at
	c.at++
	e, err := c.src.Example(i)
	if err != nil {
		return Sample{}, err
	}
	e.Key = fmt.Sprintf("sample %d: %s", number, e.Key)
	if err := c.broken[number]; err != nil {
		return Sample{Example: Example{Key: e.Key}, Err: err}, nil
	}
	r, err := c.src.Open(i)
	if err != nil {
		return Sample{Example: e, Picture: []byte("no picture")}, nil
	}
	picture, err := io.ReadAll(r)
	return Sample{Example: e, Picture: picture}, err
}

func (c *counting) State() (json.RawMessage, error) {
	return json.RawMessage(fmt.Sprintf(`{"at":%d}`, c.at)), nil
}

func (c *counting) Close() error { *c.closed++; return nil }

// streamSet makes a StreamSet of counting; change may alter what is opened.
func streamSet(n int, change func(*counting)) (*StreamSet, *int) {
	closed := new(int)
	return &StreamSet{Name: "counting", Pictures: int64(n),
		Open: func(_ context.Context, seed int64, state json.RawMessage) (Stream, error) {
			c := &counting{src: &made{n: n}, seed: seed, closed: closed}
			if change != nil {
				change(c)
			}
			if state == nil {
				return c, nil
			}
			var from struct{ At int64 }
			err := json.Unmarshal(state, &from)
			c.at = from.At
			return c, err
		}}, closed
}

// mixed is a mixture of two sources and a stream, with bad samples in each.
func mixed(t *testing.T, mix Mix) *Mixture {
	set, _ := streamSet(40, func(c *counting) {
		c.broken = map[int64]error{3: errors.New("member is broken"), 30: errors.New("member is broken")}
		c.src.broken = map[int]bool{11: true}
		c.src.blank = map[int]bool{21: true}
	})
	return mustMix(t, mix, Part{Source: &made{n: 20, broken: map[int]bool{5: true}}, Weight: 3},
		Part{Source: &made{n: 30, blank: map[int]bool{9: true}}, Unit: UnitImage, Weight: 2, Share: 0.5},
		Part{Stream: set, Weight: 2})
}

func mixtureDigests(t *testing.T, m *Mixture, o LoaderOptions, n int) (all []string, at []Position) {
	t.Helper()
	l, err := NewMixtureLoader(m, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all, at = append(all, digest(t, b)), append(at, b.Position())
		b.Release()
	}
	return all, at
}

// TestMixtureSameForAnyWorkers compares whole orders over more than three epochs, bad samples and streams included.
func TestMixtureSameForAnyWorkers(t *testing.T) {
	for _, mix := range []Mix{{}, {By: MixBLIP1}, {By: MixWeights, EpochRows: 100}} {
		o := options()
		o.MaxBadShare, o.Workers, o.Prefetch = 1, 1, 1
		m := mixed(t, mix)
		n := int(3*m.Rows()/int64(o.BatchSize) + 5)
		want, _ := mixtureDigests(t, m, o, n)
		for _, workers := range []int{2, 7} {
			o.Workers, o.Prefetch = workers, 2*workers
			if got, _ := mixtureDigests(t, mixed(t, mix), o, n); !slices.Equal(got, want) {
				t.Errorf("%+v: %d workers give other batches than one", mix, workers)
			}
		}
	}
}

// TestMixtureResumesAnywhere stops after a random batch and goes on from its position, which passes through JSON.
func TestMixtureResumesAnywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, mix := range []Mix{{}, {By: MixRows}, {By: MixBLIP1}, {By: MixWeights}} {
		o := options()
		o.MaxBadShare = 1
		want, at := mixtureDigests(t, mixed(t, mix), o, 40)
		for range 5 {
			k := random.IntN(len(want) - 4)
			text, err := json.Marshal(at[k])
			if err != nil {
				t.Fatal(err)
			}
			resumed := o
			if err := json.Unmarshal(text, &resumed.Start); err != nil {
				t.Fatal(err)
			}
			resumed.Workers, resumed.Prefetch = 1+random.IntN(5), 1+random.IntN(5)
			if got, _ := mixtureDigests(t, mixed(t, mix), resumed, 3); !slices.Equal(got, want[k+1:k+4]) {
				t.Errorf("%+v: resumed after batch %d: %v, want %v", mix, k, got, want[k+1:k+4])
			}
		}
	}
}

// TestShardsMakeTheWholeBatch: what the processes get together is what one process gets, replacements included.
func TestShardsMakeTheWholeBatch(t *testing.T) {
	o := options()
	o.MaxBadShare, o.BatchSize = 1, 12
	for _, shards := range []int{2, 4} {
		var loaders []*Loader
		for s := range shards {
			o.Shard, o.Shards = s, shards
			o.Start = Position{}
			l, err := NewMixtureLoader(mixed(t, Mix{}), letters{}, o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			loaders = append(loaders, l)
		}
		o.Shard, o.Shards = 0, 1
		whole, err := NewMixtureLoader(mixed(t, Mix{}), letters{}, o)
		if err != nil {
			t.Fatal(err)
		}
		defer whole.Close()
		for n := range 16 {
			want := next(t, whole)
			var got Batch
			for _, l := range loaders {
				b := next(t, l)
				if b.Position() != want.Position() {
					t.Fatalf("shards stand at %+v, want %+v", b.Position(), want.Position())
				}
				got.Pixels = append(got.Pixels, b.Pixels...)
				got.TextIDs = append(got.TextIDs, b.TextIDs...)
				got.ImageIndex = append(got.ImageIndex, b.ImageIndex...)
				got.Keys = append(got.Keys, b.Keys...)
			}
			if !slices.Equal(got.Keys, want.Keys) || !slices.Equal(got.Pixels, want.Pixels) ||
				!slices.Equal(got.TextIDs, want.TextIDs) || !slices.Equal(got.ImageIndex, want.ImageIndex) {
				t.Fatalf("%d shards: batch %d is\n%q, want\n%q", shards, n, got.Keys, want.Keys)
			}
		}
	}
}

func next(t *testing.T, l *Loader) *Batch {
	t.Helper()
	b, err := l.Next(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBadStreamSamplesAreReplaced: broken members, broken pictures and blank captions of a stream are counted, named
// and replaced by samples that are good.
func TestBadStreamSamplesAreReplaced(t *testing.T) {
	o := options()
	o.MaxBadShare = 1
	l, err := NewMixtureLoader(mixed(t, Mix{}), letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 * l.BatchesPerEpoch() {
		for _, key := range next(t, l).Keys {
			if strings.HasPrefix(key, "sample 3:") || strings.HasSuffix(key, ": 0011.png") {
				t.Errorf("%s in a batch", key)
			}
		}
	}
	reasons := map[string]bool{}
	for _, b := range l.BadSamples() {
		if b.Source == "counting" {
			reasons[b.Reason] = true
		}
	}
	if !reasons["member is broken"] || !reasons[errNoCaption.Error()] || len(reasons) != 3 {
		t.Errorf("reasons %v", reasons)
	}
	counts := l.Counts()
	samples, bad := l.Seen()
	if counts[2].Name != "counting" || counts[2].Bad < 5 || samples != 3*8*l.BatchesPerEpoch() ||
		counts[0].Bad+counts[1].Bad+counts[2].Bad != bad {
		t.Errorf("counts %+v of %d samples, %d bad", counts, samples, bad)
	}
}

func TestStreamFails(t *testing.T) {
	set, closed := streamSet(40, func(c *counting) { c.fails = 60 })
	l, err := NewMixtureLoader(mustMix(t, Mix{}, Part{Stream: set}), letters{}, options())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, err = l.Next(context.Background()); err != nil || i > 20 {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "counting: shard 7 at byte 512") {
		t.Errorf("error %v", err)
	}
	if _, again := l.Next(context.Background()); again != err {
		t.Errorf("after the failure Next gives %v", again)
	}
	l.Close()
	if *closed != 1 {
		t.Errorf("the stream was closed %d times", *closed)
	}
	for name, c := range map[string]struct{ streams, want string }{
		"broken":  {"{", "not to be read"},
		"missing": {`{"other": {}}`, "does not say where the stream counting stands"},
		"refused": {`{"counting": {"at": "x"}}`, "counting"},
	} {
		o := options()
		o.Start.Streams = c.streams
		if _, err := NewMixtureLoader(mustMix(t, Mix{}, Part{Stream: set}), letters{}, o); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not contain %q", name, err, c.want)
		}
	}
}

// TestShareOfBadStreamSamplesStopsTheRun: max_bad_share holds for streams too.
func TestShareOfBadStreamSamplesStopsTheRun(t *testing.T) {
	set, _ := streamSet(40, func(c *counting) { c.src.broken = map[int]bool{1: true, 2: true, 3: true} })
	o := options()
	o.MaxBadShare = 0.02
	l, err := NewMixtureLoader(mustMix(t, Mix{}, Part{Stream: set}), nil, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var share *BadShareError
	for range 6 {
		b, err := l.Next(context.Background())
		if errors.As(err, &share) {
			break
		}
		if err != nil || len(b.TextIDs) != 0 || b.Captions[0] == "" {
			t.Fatalf("batch %+v, %v", b, err)
		}
	}
	if share == nil || share.Source != "counting" || !strings.Contains(share.Examples[0].Key, ".png") {
		t.Errorf("error %v", share)
	}
}
