package tokenizer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// smallestUnigram is a vocabulary of T5's special tokens, the mark in front of words, and ASCII's visible characters.
const smallestUnigram = 3 + 1 + '~' - '!' + 1

// wordMark stands for a space in SentencePiece.
const wordMark = "▁"

// TrainUnigram makes a tokenizer of T5's kind for texts: a unigram language model over pieces, with T5's special tokens
// in front. It returns the files of a folder that Load takes: tokenizer.json and tokenizer_config.json.
//
// Pieces are whole words, the most frequent first and of equal ones the first in order, until the vocabulary has size
// ids; their scores are the logarithms of their shares. Behind them stand single characters, those of the texts and all
// of ASCII, at scores so low that a word is spelled only if it is no piece. SentencePiece also finds parts of words,
// which captions of a few thousand words do without.
func TrainUnigram(texts []string, size int) (map[string][]byte, error) {
	words, letters, total := map[string]int{}, map[string]bool{}, 0
	for c := '!'; c <= '~'; c++ {
		letters[string(c)] = true
	}
	for _, text := range texts {
		for _, word := range strings.Fields(validUTF8(text)) {
			words[word]++
			total++
			for _, r := range word {
				letters[string(r)] = true
			}
		}
	}
	delete(letters, wordMark)
	room := size - 3 - 1 - len(letters)
	if room < 0 {
		return nil, fmt.Errorf("tokenizer: a vocabulary of %d is too small: special tokens and single characters are %d",
			size, size-room)
	}
	frequent := slices.SortedFunc(maps.Keys(words), func(a, b string) int {
		return cmp.Or(cmp.Compare(words[b], words[a]), cmp.Compare(a, b))
	})
	vocab := [][2]any{{"<pad>", 0}, {"</s>", 0}, {"<unk>", 0}}
	for _, word := range frequent[:min(room, len(frequent))] {
		vocab = append(vocab, [2]any{wordMark + word, math.Log(float64(words[word]) / float64(total))})
	}
	spelled := -2 * math.Log(float64(total+2)) // a word is worth more than half of it
	for _, letter := range append([]string{wordMark}, slices.Sorted(maps.Keys(letters))...) {
		vocab = append(vocab, [2]any{letter, spelled})
	}
	return unigramFiles(vocab)
}

// unigramFiles are the files of a tokenizer with the given pieces and scores, T5's special tokens in front.
func unigramFiles(vocab [][2]any) (map[string][]byte, error) {
	special := func(id int, content string) map[string]any {
		return map[string]any{"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
			"rstrip": false, "normalized": false}
	}
	spaces := map[string]any{"type": "Metaspace", "replacement": wordMark, "prepend_scheme": "always", "split": true}
	sequence := map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}
	end := map[string]any{"SpecialToken": map[string]any{"id": "</s>", "type_id": 0}}
	tokenizer, err := json.Marshal(map[string]any{
		"version":      "1.0",
		"added_tokens": []any{special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")},
		"normalizer":   nil, "pre_tokenizer": spaces, "decoder": spaces,
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{sequence, end},
			"pair": []any{sequence, end}, "special_tokens": map[string]any{
				"</s>": map[string]any{"id": "</s>", "ids": []int{1}, "tokens": []string{"</s>"}}}},
		"model": map[string]any{"type": "Unigram", "unk_id": 2, "byte_fallback": false, "vocab": vocab},
	})
	if err != nil {
		return nil, err
	}
	config, err := json.MarshalIndent(map[string]any{"tokenizer_class": "T5Tokenizer", "eos_token": "</s>",
		"pad_token": "<pad>", "unk_token": "<unk>", "extra_ids": 0}, "", "  ")
	return map[string][]byte{fileTokenizer: append(tokenizer, '\n'), fileConfig: append(config, '\n')}, err
}
