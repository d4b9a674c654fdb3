package tokenizer

// Tokenizer turns text into the ids of a language model and back. It is immutable and safe for concurrent use. Load
// makes one from the files of a model; texts and ids may be anything, neither method fails.
type Tokenizer interface {
	// Encode gives the ids of a text as Hugging Face's fast tokenizers do. Bytes that are not UTF-8 count as U+FFFD.
	Encode(text string, o EncodeOptions) []int32
	// Decode gives the text of ids. Ids that are not in the vocabulary are left out, and with skipSpecial so are
	// special tokens. Spaces before punctuation are taken away where the model's configuration says so
	// (clean_up_tokenization_spaces).
	Decode(ids []int32, skipSpecial bool) string
	// Piece is the vocabulary's entry for an id; ok says that there is one. The entry is as in the files: byte-level
	// BPE writes a space as Ġ, SentencePiece as ▁.
	Piece(id int32) (piece string, ok bool)
	// ID is the inverse of Piece.
	ID(piece string) (id int32, ok bool)
	// VocabSize is the number of ids, added tokens included: the largest id and one.
	VocabSize() int
	// Special gives the ids of the special tokens.
	Special() SpecialIDs
}

// EncodeOptions change how a text is encoded; the zero value is what Hugging Face does by default.
type EncodeOptions struct {
	NoSpecial bool // leave out the tokens that the model puts around a text, such as [CLS] and [SEP]
	// Literal makes the names of special tokens in the text ordinary text, so that a caption cannot forge a </s>. Other
	// added tokens are still found. Unlike Hugging Face's split_special_tokens it gives no special token even where a
	// vocabulary of SentencePiece has its name as a piece.
	Literal   bool
	MaxLength int  // cut the text so that this many ids are given, the model's own tokens included; 0 for no limit
	CutLeft   bool // cut at the start of the text instead of the end
}

// SpecialIDs are the ids of special tokens, -1 for those that the model does not have.
type SpecialIDs struct {
	BOS, EOS, Pad, Unk, CLS, SEP, Mask int32
}

// Side is the left or right end of a row of ids.
type Side uint8

// The sides.
const (
	Right Side = iota
	Left
)

// Pad makes rows of ids equally long: as long as the longest, but at least length. It returns the ids and the mask,
// which is 1 where the id is not padding, as [row, position] row after row, and the length of a row. Decoder-only
// language models such as OPT are padded on the left for generation, all others on the right.
func Pad(rows [][]int32, length int, pad int32, side Side) (ids, mask []int32, width int) {
	width = max(length, 0)
	for _, row := range rows {
		width = max(width, len(row))
	}
	ids, mask = make([]int32, len(rows)*width), make([]int32, len(rows)*width)
	for i, row := range rows {
		out, ones := ids[i*width:(i+1)*width], mask[i*width:(i+1)*width]
		start := 0
		if side == Left {
			start = width - len(row)
		}
		for j := range out {
			out[j] = pad
		}
		copy(out[start:], row)
		for j := range row {
			ones[start+j] = 1
		}
	}
	return ids, mask, width
}
