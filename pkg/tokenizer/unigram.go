package tokenizer

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// unigram is SentencePiece's unigram language model: of all ways to cut a word into pieces it takes the one with the
// largest sum of scores, found by dynamic programming over the positions (Viterbi).
type unigram struct {
	vocabulary
	trie     *trie
	scores   []float64
	unk      int32
	unkScore float64
	bytes    *[256]int32 // ids of the byte pieces, nil if unknown characters are unk
	special  []bool      // by id: special tokens, which literal text must not give
	// single says that sums are float32 and unknown characters go to bytes one by one, as in SentencePiece itself;
	// Hugging Face's tokenizers calculate in float64 and look at all that is unknown in a row together.
	single bool
	room   sync.Pool // of *viterbiRoom
}

// unkPenalty is how far below the worst piece an unknown character scores.
const unkPenalty = 10

// maxPiece bounds the length in bytes of pieces and added tokens that are looked for at every place of a text.
const maxPiece = 8000

// scoredPiece is an entry of a unigram vocabulary.
type scoredPiece struct {
	piece string
	score float64
}

// newUnigram builds the model that Hugging Face's tokenizers read from tokenizer.json: every entry, special tokens
// included, can be found in a text; of equal pieces the last one counts.
func newUnigram(vocab []scoredPiece, unk int, byteFallback bool) (*unigram, error) {
	if unk < 0 || unk >= len(vocab) {
		return nil, fmt.Errorf("the unknown piece's id %d is not in the vocabulary of %d pieces", unk, len(vocab))
	}
	if len(vocab) > maxID {
		return nil, fmt.Errorf("the vocabulary has %d pieces; at most %d are accepted", len(vocab), maxID)
	}
	u := &unigram{unk: int32(unk), unkScore: math.Inf(1), scores: make([]float64, len(vocab)),
		vocabulary: vocabulary{make([]string, len(vocab)), make(map[string]int32, len(vocab))}}
	keys := make([]trieKey, 0, len(vocab))
	for i, entry := range slices.Backward(vocab) {
		if math.IsNaN(entry.score) || math.IsInf(entry.score, 0) {
			return nil, fmt.Errorf("the piece %q has the score %v", entry.piece, entry.score)
		}
		if len(entry.piece) > maxPiece {
			return nil, fmt.Errorf("the piece %d has %d bytes; at most %d are accepted", i, len(entry.piece), maxPiece)
		}
		u.pieces[i], u.scores[i] = entry.piece, entry.score
		u.unkScore = min(u.unkScore, entry.score)
		if _, later := u.ids[entry.piece]; !later {
			u.ids[entry.piece] = int32(i)
			keys = append(keys, trieKey{entry.piece, int32(i)})
		}
	}
	u.unkScore -= unkPenalty
	u.trie = newTrie(keys)
	if byteFallback {
		u.bytes = u.byteIDs()
	}
	u.room.New = func() any { return new(viterbiRoom) }
	return u, nil
}

// extend adds a piece that no text contains, unless it is there already.
func (u *unigram) extend(piece string) {
	if _, ok := u.ids[piece]; ok {
		return
	}
	u.ids[piece] = int32(len(u.pieces))
	u.pieces = append(u.pieces, piece)
	u.scores = append(u.scores, 0)
}

// byteIDs finds the pieces <0x00> to <0xFF>; noValue for those that are missing.
func (u *unigram) byteIDs() *[256]int32 {
	ids := new([256]int32)
	for b := range ids {
		ids[b] = noValue
		if id, ok := u.ids[bytePiece(byte(b))]; ok {
			ids[b] = id
		}
	}
	return ids
}

func bytePiece(b byte) string { return fmt.Sprintf("<0x%02X>", b) }

// byteOfPiece is the inverse of bytePiece. Like the reference it accepts small letters.
func byteOfPiece(piece string) (byte, bool) {
	if len(piece) != 6 || !strings.HasPrefix(piece, "<0x") || piece[5] != '>' {
		return 0, false
	}
	hi, okHi := hexDigit(piece[3])
	lo, okLo := hexDigit(piece[4])
	return hi<<4 | lo, okHi && okLo
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// viterbiRoom is the working memory of one word: for every position the best way to get there.
type viterbiRoom struct {
	best []float64 // sum of scores
	from []int32   // where the last piece starts, -1 if there is no way yet
	id   []int32   // of the last piece
}

func (r *viterbiRoom) reset(n int) {
	r.best = slices.Grow(r.best[:0], n)[:n]
	r.from = slices.Grow(r.from[:0], n)[:n]
	r.id = slices.Grow(r.id[:0], n)[:n]
	for i := range r.from {
		r.from[i] = -1
	}
	r.best[0] = 0
}

// offer takes a way to a position if it is better than those before.
func (r *viterbiRoom) offer(at, from int, id int32, sum float64) {
	if r.from[at] >= 0 && sum <= r.best[at] {
		return
	}
	r.best[at], r.from[at], r.id[at] = sum, int32(from), id
}

// maxSum is the size of float32 sums above which SentencePiece starts to count from 0 again.
const maxSum = 100000

// restart subtracts the sum at a position from those at and behind it, up to the last one that has been reached.
func (r *viterbiRoom) restart(at, reached int) {
	offset := float32(r.best[at])
	for i := at; i <= reached; i++ {
		if i == at || r.from[i] >= 0 {
			r.best[i] = float64(float32(r.best[i]) - offset)
		}
	}
}

// maxUnigramWord bounds the length in bytes of one word, as positions are 32 bits wide. Longer ones are cut.
const maxUnigramWord = math.MaxInt32 - 8

// append appends the ids of a word in valid UTF-8. The time is its length times that of the longest piece.
func (u *unigram) append(ids []int32, word string, literal bool) []int32 {
	for len(word) > maxUnigramWord {
		cut := maxUnigramWord
		for !utf8.RuneStart(word[cut]) {
			cut--
		}
		ids = u.append(ids, word[:cut], literal)
		word = word[cut:]
	}
	room := u.room.Get().(*viterbiRoom)
	room.reset(len(word) + 1)
	u.forward(room, word, literal)
	ids = u.backward(ids, room, word, literal)
	if cap(room.best) <= keepRoom {
		u.room.Put(room)
	}
	return ids
}

// forward fills in the best ways from left to right.
func (u *unigram) forward(room *viterbiRoom, word string, literal bool) {
	reached := 0
	for at := 0; at < len(word); {
		_, size := utf8.DecodeRuneInString(word[at:])
		known := false // the character is a piece on its own
		if u.single && math.Abs(room.best[at]) > maxSum {
			room.restart(at, reached)
		}
		sum := room.best[at]
		node := int32(0)
		for end := at; end < len(word); {
			if node = u.trie.child(node, word[end]); node == noNode {
				break
			}
			end++
			id := u.trie.values[node]
			if id == noValue || u.forbids(id, literal) {
				continue
			}
			room.offer(end, at, id, u.plus(sum, u.scores[id]))
			reached = max(reached, end)
			known = known || end-at == size
		}
		if !known {
			room.offer(at+size, at, u.unk, u.plus(sum, u.unkScore))
			reached = max(reached, at+size)
		}
		at += size
	}
}

// forbids says that the id is that of a special token, which literal text must not give.
func (u *unigram) forbids(id int32, literal bool) bool {
	return literal && int(id) < len(u.special) && u.special[id]
}

func (u *unigram) plus(a, b float64) float64 {
	if u.single {
		return float64(float32(a) + float32(b))
	}
	return a + b
}

// backward appends the ids of the best way, several unknown characters in a row as one.
func (u *unigram) backward(ids []int32, room *viterbiRoom, word string, literal bool) []int32 {
	start := len(ids)
	for end := len(word); end > 0; {
		from := int(room.from[end])
		id := room.id[end]
		if id != u.unk || u.single && u.bytes != nil {
			ids = u.appendBackward(ids, id, word[from:end])
			end = from
			continue
		}
		for from > 0 && room.id[from] == u.unk {
			from = int(room.from[from])
		}
		ids = u.appendUnknown(ids, word[from:end], literal)
		end = from
	}
	slices.Reverse(ids[start:])
	return ids
}

// appendBackward appends the id of a piece, or the bytes of an unknown one from the last to the first.
func (u *unigram) appendBackward(ids []int32, id int32, text string) []int32 {
	if id != u.unk {
		return append(ids, id)
	}
	return u.appendBytes(ids, text)
}

// appendUnknown appends what stands for a stretch of unknown characters, backwards. The reference looks the stretch up
// once more.
func (u *unigram) appendUnknown(ids []int32, text string, literal bool) []int32 {
	if id, ok := u.ids[text]; ok && !u.single && !u.forbids(id, literal) {
		return append(ids, id)
	}
	if u.bytes == nil {
		return append(ids, u.unk)
	}
	return u.appendBytes(ids, text)
}

// appendBytes appends the byte pieces of text, backwards, or unk if one of them is missing.
func (u *unigram) appendBytes(ids []int32, text string) []int32 {
	for i := 0; i < len(text); i++ {
		if u.bytes[text[i]] == noValue {
			return append(ids, u.unk)
		}
	}
	for i := len(text) - 1; i >= 0; i-- {
		ids = append(ids, u.bytes[text[i]])
	}
	return ids
}
