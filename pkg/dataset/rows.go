package dataset

import (
	"fmt"
	"math"
)

// Unit is what one row of an epoch is.
type Unit string

const (
	// UnitCaption makes every caption a row, as in LAVIS: pictures with more captions come more often, and a picture
	// may stand in a batch several times, as a false negative of itself.
	UnitCaption Unit = "caption"
	// UnitImage makes every picture a row, with one of its captions drawn anew in each epoch.
	UnitImage Unit = "image"
)

// rows maps the rows of an epoch to pictures and captions.
type rows struct {
	n       int64
	image   []int32 // per row, nil for UnitImage
	caption []int32
}

func newRows(src Source, unit Unit) (rows, error) {
	if src.Len() > math.MaxInt32 {
		return rows{}, fmt.Errorf("dataset: %s has %d pictures; 2³¹ is the limit", src.Name(), src.Len())
	}
	switch unit {
	case UnitImage:
		return rows{n: int64(src.Len())}, nil
	case UnitCaption, "":
	default:
		return rows{}, fmt.Errorf("dataset: unknown unit of sampling %q; %q and %q are known", unit,
			UnitCaption, UnitImage)
	}
	var r rows
	for i := range src.Len() {
		for c := range src.Texts(i) {
			r.image = append(r.image, int32(i))
			r.caption = append(r.caption, int32(c))
		}
	}
	r.n = int64(len(r.image))
	return r, nil
}

// CheckBatch fails if the source has fewer rows than a batch: a loader could never fill one.
func CheckBatch(src Source, unit Unit, size int) error {
	r, err := newRows(src, unit)
	if err != nil {
		return err
	}
	return r.checkBatch(src, size)
}

func (r *rows) checkBatch(src Source, size int) error {
	if int64(size) <= r.n {
		return nil
	}
	return fmt.Errorf("dataset: a batch of %d is larger than the data set %s with its %d rows (%d images); make the "+
		"batch size at most %d", size, src.Name(), r.n, src.Len(), r.n)
}

// at is the picture of a row and which of its captions is due in an epoch.
func (r *rows) at(src Source, seed, epoch, row int64) (image, caption int) {
	if r.image != nil {
		return int(r.image[row]), int(r.caption[row])
	}
	s := newStream(seed, epoch, row, purposeCaption)
	return int(row), int(s.intN(int64(src.Texts(int(row)))))
}
