package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// smallestBPE is the vocabulary without merges: OPT's special tokens and the bytes.
const smallestBPE = 4 + 256

// TrainBPE makes a tokenizer of OPT's kind for texts: byte-level BPE (Sennrich et al., 2016) with GPT-2's way to cut
// texts into words, and OPT's special tokens in front. It returns the files of a folder that Load takes: vocab.json,
// merges.txt and tokenizer_config.json.
//
// Merges are added, the most frequent pair first and of equal ones the first in order, until the vocabulary has size
// ids or no pair occurs twice; so it may become smaller than size.
func TrainBPE(texts []string, size int) (map[string][]byte, error) {
	if size < smallestBPE {
		return nil, fmt.Errorf("tokenizer: a vocabulary of %d is too small: special tokens and bytes are %d", size,
			smallestBPE)
	}
	pieces := []string{"<s>", "<pad>", "</s>", "<unk>"}
	for _, r := range byteRunes {
		pieces = append(pieces, string(r))
	}
	words := countWords(texts)
	var merges bytes.Buffer
	merges.WriteString("#version: 0.2\n")
	known := map[string]bool{}
	for len(pieces) < size {
		pair, count := mostFrequent(words)
		if count < 2 {
			break
		}
		for _, w := range words {
			w.merge(pair)
		}
		fmt.Fprintf(&merges, "%s %s\n", pair[0], pair[1])
		if joined := pair[0] + pair[1]; !known[joined] { // different pairs may give the same piece
			known[joined] = true
			pieces = append(pieces, joined)
		}
	}
	ids := make(map[string]int, len(pieces))
	for id, piece := range pieces {
		ids[piece] = id
	}
	vocab, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	config, err := json.MarshalIndent(map[string]any{"tokenizer_class": "GPT2Tokenizer", "add_bos_token": true,
		"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "</s>"}, "", "  ")
	return map[string][]byte{fileVocabJSON: append(vocab, '\n'), fileMerges: merges.Bytes(),
		fileConfig: append(config, '\n')}, err
}

// trainedWord is a word of the texts, cut into the pieces that there are so far.
type trainedWord struct {
	pieces []string
	count  int
}

// countWords cuts texts into words of byte characters, in their order.
func countWords(texts []string) []*trainedWord {
	counts := map[string]int{}
	splitter := byteLevelSplitter{classes: loadWordClasses()}
	for _, text := range texts {
		splitter.split(validUTF8(text), true, func(word string) bool {
			counts[word]++
			return true
		})
	}
	words := make([]*trainedWord, 0, len(counts))
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		w := &trainedWord{count: counts[word]}
		for i := range len(word) {
			w.pieces = append(w.pieces, string(byteRunes[word[i]]))
		}
		words = append(words, w)
	}
	return words
}

// mostFrequent returns the neighbours that occur most often, of equals the first in order.
func mostFrequent(words []*trainedWord) (best [2]string, count int) {
	counts := map[[2]string]int{}
	for _, w := range words {
		for i := range len(w.pieces) - 1 {
			counts[[2]string{w.pieces[i], w.pieces[i+1]}] += w.count
		}
	}
	for pair, n := range counts {
		if n > count || n == count && slices.Compare(pair[:], best[:]) < 0 {
			best, count = pair, n
		}
	}
	return best, count
}

// merge joins every occurrence of the pair, from left to right.
func (w *trainedWord) merge(pair [2]string) {
	if !slices.Contains(w.pieces, pair[0]) {
		return
	}
	out := w.pieces[:0]
	for i := 0; i < len(w.pieces); i++ {
		if i+1 < len(w.pieces) && w.pieces[i] == pair[0] && w.pieces[i+1] == pair[1] {
			out = append(out, strings.Join(pair[:], ""))
			i++
			continue
		}
		out = append(out, w.pieces[i])
	}
	w.pieces = out
}
