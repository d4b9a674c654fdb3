package dataset

import (
	"fmt"
	"sort"
)

// Unit is what one row of an epoch is.
type Unit string

const (
	// UnitCaption makes every caption (or question) a row, as in LAVIS: pictures with more captions come more often,
	// and a picture may stand in a batch several times, as a false negative of itself.
	UnitCaption Unit = "caption"
	// UnitImage makes every picture a row, with one of its texts drawn anew in each epoch.
	UnitImage Unit = "image"
)

// rowBlock is after how many pictures the number of a row is kept: those between are counted when they are asked for.
const rowBlock = 64

// rows maps the rows of a source to pictures and texts, in an eighth of a byte per picture.
type rows struct {
	src    Source
	n      int64
	starts []int64 // first row of every rowBlock-th picture; nil where every row is a picture
	draws  bool    // UnitImage: the text of a row is drawn
}

func newRows(src Source, unit Unit) (rows, error) {
	r := rows{src: src, n: int64(src.Len())}
	switch unit {
	case UnitImage:
		r.draws = true
		return r, nil
	case UnitCaption, "":
	default:
		return rows{}, fmt.Errorf("dataset: unknown unit of sampling %q; %q and %q are known", unit,
			UnitCaption, UnitImage)
	}
	starts, n := make([]int64, 0, src.Len()/rowBlock+1), int64(0)
	for i := range src.Len() {
		if i%rowBlock == 0 {
			starts = append(starts, n)
		}
		n += int64(src.Texts(i))
	}
	if n != r.n {
		r.n, r.starts = n, starts
	}
	return r, nil
}

// at is the picture of a row and which of its texts is due; draw is where the texts of UnitImage come from.
func (r *rows) at(row int64, draw func(n int64) int64) (image, text int) {
	if r.draws {
		image = int(row)
		return image, int(draw(int64(r.src.Texts(image))))
	}
	if r.starts == nil {
		return int(row), 0
	}
	block := sort.Search(len(r.starts), func(b int) bool { return r.starts[b] > row }) - 1
	rest := row - r.starts[block]
	for image = block * rowBlock; ; image++ {
		n := int64(r.src.Texts(image))
		if rest < n {
			return image, int(rest)
		}
		rest -= n
	}
}
