package caption

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
)

// DocumentFrequency is how many pictures of a corpus have a reference with an n-gram. CIDEr-D uses one of a greater
// corpus where the evaluated set is too small to tell common words from rare ones.
type DocumentFrequency struct {
	// Pictures is the size of the corpus.
	Pictures int `json:"pictures"`
	// Frequency is the number of pictures of each n-gram of 1 to 4 words, joined by spaces. What is not in it counts as
	// one.
	Frequency map[string]int `json:"document_frequency"`
}

// NewDocumentFrequency counts the references of a corpus.
func NewDocumentFrequency(images []Image) *DocumentFrequency {
	df := &DocumentFrequency{Pictures: len(images), Frequency: map[string]int{}}
	seen := map[string]int{}
	for i, im := range images {
		for _, r := range im.References {
			eachGram(r, func(g string) {
				if seen[g] != i+1 {
					seen[g] = i + 1
					df.Frequency[g]++
				}
			})
		}
	}
	return df
}

// eachGram calls f for every n-gram of the text.
func eachGram(text string, f func(gram string)) {
	words := strings.FieldsFunc(text, pythonSpace)
	for n := 1; n <= maxN; n++ {
		for i := 0; i+n <= len(words); i++ {
			f(strings.Join(words[i:i+n], " "))
		}
	}
}

// ReadDocumentFrequency reads what WriteFile wrote.
func ReadDocumentFrequency(path string) (*DocumentFrequency, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("document frequencies: %w", err)
	}
	df := &DocumentFrequency{}
	if err := json.Unmarshal(data, df); err != nil {
		return nil, fmt.Errorf("document frequencies %s: %w", path, err)
	}
	if df.Pictures < 1 || len(df.Frequency) == 0 {
		return nil, fmt.Errorf("document frequencies %s: want pictures, at least 1, and document_frequency, not empty", path)
	}
	for g, n := range df.Frequency {
		if n < 0 || n > df.Pictures {
			return nil, fmt.Errorf("document frequencies %s: %q is in %d of %d pictures", path, g, n, df.Pictures)
		}
	}
	return df, nil
}

// idf is the weight of the n-grams of a corpus.
func (df *DocumentFrequency) idf(c *corpus) []float64 {
	words := make([]string, len(c.words))
	for w, id := range c.words {
		words[id] = w
	}
	grams := c.table.texts(words)
	idf := make([]float64, len(grams))
	all := math.Log(float64(df.Pictures))
	for id, g := range grams {
		idf[id] = all - math.Log(max(1, float64(df.Frequency[g])))
	}
	return idf
}

// texts returns the n-grams by number.
func (t *gramTable) texts(words []string) []string {
	keys := make([]uint64, t.used)
	for at, key := range t.keys {
		if key != 0 {
			keys[t.ids[at]] = key - 1
		}
	}
	out := make([]string, t.used)
	for id, key := range keys { // the n-gram without its last word has a smaller number
		last := words[key&(1<<30-1)]
		if key>>60 == 0 {
			out[id] = last
		} else {
			out[id] = out[key>>30&(1<<30-1)] + " " + last
		}
	}
	return out
}
