package tokenizer

// model is the vocabulary of a tokenizer and its way to cut a word into pieces. It is immutable and safe for
// concurrent use.
type model interface {
	// append appends the ids of a word, which is not empty, to ids. With literal, the ids of special tokens are not
	// given, even where their names are in the word.
	append(ids []int32, word string, literal bool) []int32
	// id and piece translate between the vocabulary's entries and their ids.
	id(piece string) (int32, bool)
	piece(id int32) (string, bool)
	// size is the number of entries, end the largest id and one.
	size() int32
	end() int32
}

// vocabulary is a list of pieces by id with its inverse. Ids without a piece are gaps.
type vocabulary struct {
	pieces []string
	ids    map[string]int32
}

func (v *vocabulary) id(piece string) (int32, bool) {
	id, ok := v.ids[piece]
	return id, ok
}

func (v *vocabulary) piece(id int32) (string, bool) {
	if id < 0 || int(id) >= len(v.pieces) {
		return "", false
	}
	piece := v.pieces[id]
	if piece == "" { // a gap, unless the empty piece has this id
		empty, ok := v.ids[""]
		return "", ok && empty == id
	}
	return piece, true
}

func (v *vocabulary) size() int32 { return int32(len(v.ids)) }

func (v *vocabulary) end() int32 { return int32(len(v.pieces)) }
