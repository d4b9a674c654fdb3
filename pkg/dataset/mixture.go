package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sort"
)

// MixBy says how much of an epoch every data set gets.
type MixBy string

const (
	// MixImages draws from a data set in proportion to its number of pictures (the default, spec/data.md §1).
	MixImages MixBy = "images"
	// MixRows gives every row of every data set once per epoch, as a concatenation does.
	MixRows MixBy = "rows"
	// MixWeights draws in proportion to Part.Weight.
	MixWeights MixBy = "weights"
	// MixBLIP1 takes of every data set the part Part.Share of its rows per epoch: a fifth of the large web set and all of
	// the others is what BLIP trained on.
	MixBLIP1 MixBy = "blip1"
)

// Mix says how data sets are mixed.
type Mix struct {
	By MixBy // "" means MixImages
	// EpochRows is the length of an epoch for MixImages and MixWeights. 0 makes it as long as it can be without
	// any data set giving a row twice.
	EpochRows int64
}

// StreamSet is a data set that can only be read in order.
type StreamSet struct {
	Name string
	// Pictures is how many pictures it has, for the mixture; 0 if that is not known.
	Pictures int64
	// Open starts the stream behind the sample at which State gave the state, or at the beginning where it is nil.
	Open func(ctx context.Context, seed int64, state json.RawMessage) (Stream, error)
	// Once reads the set from front to back a single time, from where State of such a reading stood, or from the
	// beginning where it is nil; nil where that is not possible.
	Once func(ctx context.Context, state json.RawMessage) (Pass, error)
	// Fingerprint names what Once reads: where it is the same, so are the samples.
	Fingerprint string
}

// Part is one data set of a mixture: either a Source or a StreamSet.
type Part struct {
	Source Source
	Stream *StreamSet
	Unit   Unit    // of a Source; "" means UnitCaption. A stream's rows are pictures
	Weight float64 // MixWeights: relative probability
	Share  float64 // MixBLIP1: part of the rows that one epoch takes, 0 < Share; 0 means 1
}

func (p *Part) name() string {
	if p.Stream != nil {
		return p.Stream.Name
	}
	return p.Source.Name()
}

// Mixture is several data sets of which every batch holds some. An epoch has a fixed quota of every data set, and a
// keyed permutation of the epoch's positions says which position belongs to which: shares are exact over an epoch, and
// within a batch as chance has it.
//
// A data set whose quota is its number of rows gives every row exactly once per epoch. Of any other, an epoch takes the
// next quota of rows of a fixed, keyed order of all its rows, going around: whatever the quota, after any number of
// epochs no row was given twice more often than another, and within an epoch none twice unless the quota is above the
// number of rows.
//
// What stands at a position is a function of (seed, epoch, position), found without tables and without reading.
type Mixture struct {
	parts  []part
	epoch  int64 // positions of an epoch
	images int64 // pictures of all sources
}

type part struct {
	Part
	rows     rows
	n        int64 // rows, of a stream pictures; 0 if not known
	pictures int64
	quota    int64 // rows of an epoch
	end      int64 // of the quotas up to this one
	firstRow int64 // among the rows of all sources: numbers draws
	firstImg int64 // among the pictures of all sources
}

// NewMixture mixes data sets.
func NewMixture(mix Mix, parts ...Part) (*Mixture, error) {
	if len(parts) == 0 {
		return nil, errors.New("dataset: no source of pictures is given; name at least one data set")
	}
	m := &Mixture{}
	streams := map[string]bool{}
	for i := range parts {
		p := part{Part: parts[i]}
		var err error
		switch {
		case (p.Source == nil) == (p.Stream == nil):
			return nil, fmt.Errorf("dataset: part %d of the mixture needs either a source or a stream", i)
		case p.Source != nil:
			if p.rows, err = newRows(p.Source, p.Unit); err != nil {
				return nil, err
			}
			p.n, p.pictures = p.rows.n, int64(p.Source.Len())
		case streams[p.Stream.Name]:
			return nil, fmt.Errorf("dataset: two streams are called %s; give one of them another name", p.Stream.Name)
		default:
			streams[p.Stream.Name] = true
			p.n, p.pictures = p.Stream.Pictures, p.Stream.Pictures
		}
		m.parts = append(m.parts, p)
	}
	if err := m.setQuotas(mix); err != nil {
		return nil, err
	}
	var rowsBefore int64
	for i := range m.parts {
		p := &m.parts[i]
		m.epoch += p.quota
		p.end, p.firstRow, p.firstImg = m.epoch, rowsBefore, m.images
		if p.Source != nil {
			rowsBefore += p.n
			m.images += p.pictures
		}
		if rowsBefore > maxEpoch || m.epoch > maxEpoch {
			return nil, fmt.Errorf("dataset: the data sets have more than %d rows together", int64(maxEpoch))
		}
	}
	return m, nil
}

// maxEpoch bounds the rows of an epoch and of all sources together, so that numbers made of them stay apart.
const maxEpoch = 1 << 40

func (m *Mixture) setQuotas(mix Mix) error {
	weights := make([]float64, len(m.parts))
	for i := range m.parts {
		p := &m.parts[i]
		if p.Source != nil && p.n == 0 {
			return fmt.Errorf("dataset: %s has no rows", p.name())
		}
		switch mix.By {
		case MixImages, "":
			weights[i] = float64(p.pictures)
		case MixWeights:
			if weights[i] = p.Weight; !(p.Weight > 0) || math.IsInf(p.Weight, 0) {
				return fmt.Errorf("dataset: mixing by weights needs a weight above 0 of %s, not %g", p.name(), p.Weight)
			}
			continue
		case MixRows, MixBLIP1:
			share := 1.0
			if mix.By == MixBLIP1 && p.Share != 0 {
				share = p.Share
			}
			if !(share > 0) || share*float64(p.n) > maxEpoch {
				return fmt.Errorf("dataset: the share of %s per epoch is %g; it must be above 0", p.name(), share)
			}
			p.quota = max(1, int64(math.Round(share*float64(p.n))))
		default:
			return fmt.Errorf("dataset: unknown way to mix data sets %q; %q, %q, %q and %q are known", mix.By,
				MixImages, MixRows, MixWeights, MixBLIP1)
		}
		if p.n == 0 {
			return fmt.Errorf("dataset: how many pictures the stream %s has is not known; say it (expect: {images: ...}), "+
				"or mix by weights", p.name())
		}
	}
	if mix.By == MixRows || mix.By == MixBLIP1 {
		return nil
	}
	return m.scaleQuotas(mix.EpochRows, weights)
}

// scaleQuotas divides an epoch among the parts in proportion to their weights. Without a length, the part whose rows
// are used up first gives each of them once.
func (m *Mixture) scaleQuotas(length int64, weights []float64) error {
	scale, total := math.Inf(1), 0.0
	for i := range m.parts {
		total += weights[i]
		if n := m.parts[i].n; n > 0 {
			scale = min(scale, float64(n)/weights[i])
		}
	}
	if length > 0 {
		scale = float64(length) / total
	}
	switch {
	case length < 0 || length > maxEpoch:
		return fmt.Errorf("dataset: an epoch of %d rows; it must have 1 to %d", length, int64(maxEpoch))
	case math.IsInf(scale, 0):
		return errors.New("dataset: how many pictures the streams have is not known; say how many rows an epoch has")
	case scale*total > maxEpoch:
		return fmt.Errorf("dataset: an epoch of the mixture would have %.3g rows, more than %d", scale*total,
			int64(maxEpoch))
	}
	for i := range m.parts {
		m.parts[i].quota = max(1, int64(math.Round(scale*weights[i])))
	}
	return nil
}

// Name names the first data set and how many there are.
func (m *Mixture) Name() string {
	if len(m.parts) == 1 {
		return m.parts[0].name()
	}
	return fmt.Sprintf("%s and %d more", m.parts[0].name(), len(m.parts)-1)
}

// Rows is the length of an epoch.
func (m *Mixture) Rows() int64 { return m.epoch }

// Share is what an epoch takes of one data set.
type Share struct {
	Name     string `json:"name"`
	Pictures int64  `json:"pictures"` // of the data set; 0 for a stream of unknown length
	Texts    int64  `json:"texts"`    // of the data set; of a stream its pictures
	Rows     int64  `json:"rows"`     // of the data set: its texts or its pictures
	Quota    int64  `json:"quota"`    // rows of an epoch that are this data set's
}

// Shares says what an epoch takes of every data set.
func (m *Mixture) Shares() []Share {
	all := make([]Share, len(m.parts))
	for i := range m.parts {
		p := &m.parts[i]
		all[i] = Share{Name: p.name(), Pictures: p.pictures, Texts: p.texts(), Rows: p.n, Quota: p.quota}
	}
	return all
}

func (p *part) texts() int64 {
	if p.Source == nil || !p.rows.draws {
		return p.n
	}
	n := int64(0)
	for i := range p.Source.Len() {
		n += int64(p.Source.Texts(i))
	}
	return n
}

// CheckBatch fails if an epoch has fewer rows than a batch: a loader could never fill one.
func (m *Mixture) CheckBatch(size int) error {
	if int64(size) <= m.epoch {
		return nil
	}
	return fmt.Errorf("dataset: a batch of %d is larger than the data set %s with its %d rows (%d images); make the "+
		"batch size at most %d", size, m.Name(), m.epoch, m.images, m.epoch)
}

// order is the sequence of a mixture under a seed, in one epoch.
type order struct {
	m         *Mixture
	seed      int64
	epoch     int64
	positions permutation
	windows   []permutation // per part: the fixed order of its rows; unused where the quota is a multiple of the rows
}

func (m *Mixture) order(seed, epoch int64) *order {
	o := &order{m: m, seed: seed, epoch: epoch, positions: epochOrder(seed, epoch, m.epoch)}
	for i := range m.parts {
		// Epochs count from 0; the negative ones key what holds for all of them.
		o.windows = append(o.windows, epochOrder(seed, int64(-1-i), max(m.parts[i].n, 1)))
	}
	return o
}

// place is what stands at one position of an epoch.
type place struct {
	part int
	row  int64 // of the part's source
	key  int64 // numbers the row's random draws in this epoch: no two positions have the same one
}

// at is what stands at position 0 ≤ i < Rows.
func (o *order) at(i int64) place {
	v := o.positions.at(i)
	at := sort.Search(len(o.m.parts), func(k int) bool { return o.m.parts[k].end > v })
	p := &o.m.parts[at]
	if p.Stream != nil {
		return place{part: at, key: o.streamKey(i)}
	}
	j := v - (p.end - p.quota)
	if p.quota%p.n == 0 {
		row := j % p.n
		return place{part: at, row: row, key: o.key(p, row, j/p.n)}
	}
	start := mulMod(o.epoch, p.quota, p.n)
	turn := (start + j) / p.n
	row := o.windows[at].at((start + j) % p.n)
	return place{part: at, row: row, key: o.key(p, row, turn)}
}

// key numbers the draws of a row; turn counts how often the epoch has begun its data set anew.
func (o *order) key(p *part, row, turn int64) int64 {
	return int64(uint64(p.firstRow+row) + uint64(turn)<<42)
}

// streamKey numbers the draws of a stream's sample by its position.
func (o *order) streamKey(i int64) int64 { return 1<<41 + i }

// again draws a row of a part in place of a bad one at a position; see spare.
func (o *order) again(at int, row int64) place {
	p := &o.m.parts[at]
	return place{part: at, row: row, key: o.key(p, row, 0)}
}

// image is the picture and the text of a place of a source.
func (o *order) image(at place) (image, text int) {
	return o.m.parts[at.part].rows.at(at.row, func(n int64) int64 {
		s := newStream(o.seed, o.epoch, at.key, purposeCaption)
		return s.intN(n)
	})
}
