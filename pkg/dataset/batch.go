package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Tokenizer encodes captions; tokenizer.WordPiece is one.
type Tokenizer interface {
	// EncodeCaptionInto writes [CLS] w1 … wk [SEP] [PAD]… to ids and 1 for what is not padding to mask.
	EncodeCaptionInto(ids, mask []int32, text string)
}

// Position is a place in the endless sequence of rows: the epoch and how many of its rows are used up.
type Position struct {
	Epoch int64 `json:"epoch"`
	Index int64 `json:"index"`
	// Streams is where the streams of the data stand, in JSON; "" without streams.
	Streams string `json:"streams,omitempty"`
}

// Batch is a training batch of B rows with pictures of S×S and texts of L tokens. It belongs to the caller until
// Release.
type Batch struct {
	Pixels     []float32 // [B,3,S,S], normalised
	TextIDs    []int32   // [B,L], of the caption or the question; empty without a tokenizer
	TextMask   []int32   // [B,L], 1 where the token is not padding
	ImageIndex []int64   // [B], number of the picture in the data: equal for texts of one picture
	Keys       []string  // [B], file name of the picture
	Captions   []string  // [B], the processed captions, as tokenised; "" for questions

	Questions   []string   // [B], the processed questions; "" for captions
	QuestionIDs []string   // [B], as in the annotation file
	Answers     []string   // [B], the answer drawn, as in the annotation file; with AnswersAll the first
	AnswerSets  [][]Answer // [B], the answers to train on with their weights: one, or all with AnswersAll

	Epoch int64 // position after this batch: where to start to continue with the next one
	Index int64

	streams string
	home    chan *Batch
}

// Position is where a loader has to start to continue after this batch.
func (b *Batch) Position() Position { return Position{b.Epoch, b.Index, b.streams} }

// Release gives the batch's memory back to its loader; the batch must not be used afterwards. Forgetting it costs
// only memory.
func (b *Batch) Release() {
	select {
	case b.home <- b:
	default:
	}
}

func newBatch(size, imageSize, textLen int, home chan *Batch) *Batch {
	return &Batch{
		Pixels: make([]float32, size*3*imageSize*imageSize), TextIDs: make([]int32, size*textLen),
		TextMask: make([]int32, size*textLen), ImageIndex: make([]int64, size), Keys: make([]string, size),
		Captions: make([]string, size), Questions: make([]string, size), QuestionIDs: make([]string, size),
		Answers: make([]string, size), AnswerSets: make([][]Answer, size), home: home,
	}
}

// BadSample names a sample that could not be used and says why.
type BadSample struct {
	Key, Reason string
	Source      string // the data set; "" where there is only one
}

// BadShareError reports that more samples are bad than allowed.
type BadShareError struct {
	Source    string
	Bad, Seen int64       // of the present epoch, or of the whole evaluation set
	Allowed   float64     // the share, as configured
	Examples  []BadSample // some of them, different keys
}

// Error names the source, the counts, and the first bad samples.
func (e *BadShareError) Error() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "dataset: %s: %d of %d samples could not be used, more than the allowed share of %g "+
		"(max_bad_share)", e.Source, e.Bad, e.Seen, e.Allowed)
	for i, s := range e.Examples[:min(len(e.Examples), 5)] {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		if s.Source != "" && s.Source != e.Source {
			sep += s.Source + ": "
		}
		fmt.Fprintf(&b, "%s%s: %s", sep, s.Key, s.Reason)
	}
	return b.String()
}

// errNoCaption is the reason for a row whose caption the processor leaves empty.
var errNoCaption = errors.New("the caption is empty after processing")

// errNoQuestion is the reason for a row whose question the processor leaves empty.
var errNoQuestion = errors.New("the question is empty after processing")

// scratch is the memory that one worker reuses from picture to picture.
type scratch struct {
	picture
	cut       RGB
	resizer   Resizer
	augmenter augmenter
}

// load opens picture i of a source, upright if exif is set; s.w and s.h are its size.
func (s *scratch) load(src Pictures, i int, t Truncated, exif bool) error {
	r, err := src.Open(i)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.loadFrom(r, t, exif)
}

// loadBytes is load for a picture in memory.
func (s *scratch) loadBytes(picture []byte, t Truncated, exif bool) error {
	return s.loadFrom(bytes.NewReader(picture), t, exif)
}

func (s *scratch) loadFrom(r io.Reader, t Truncated, exif bool) error {
	if err := s.read(r); err != nil {
		return err
	}
	return s.open(t, exif)
}

// transform is what becomes of a picture on its way into a batch.
type transform struct {
	box       *Box // what is cut out; nil is all of it
	size      int  // of the result, size×size
	flip      bool
	augment   RandAugment
	draws     []AugmentDraw // operations of augment for this picture; none where it is not augmented
	mean, std [3]float32
}

// write transforms the open picture into dst [3,size,size].
func (s *scratch) write(dst []float32, t transform) error {
	at, err := s.decode(t.box)
	if err != nil {
		return err
	}
	if len(t.draws) == 0 {
		s.resizer.ResizeNormalize(dst, &s.img, at, t.size, t.flip, t.mean, t.std)
		return nil
	}
	s.resizer.Resize(&s.cut, &s.img, at, t.size, t.size, Bicubic)
	if t.flip {
		orient(&s.cut, &s.spare, mirrored)
	}
	s.augmenter.apply(&s.cut, t.augment, t.draws)
	Normalize(dst, &s.cut, false, t.mean, t.std)
	return nil
}

// normalisation fills in CLIP's values where none are given.
func normalisation(mean, std [3]float32) (m, s [3]float32) {
	if std == [3]float32{} {
		return CLIPMean(), CLIPStd()
	}
	return mean, std
}
