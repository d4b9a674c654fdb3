package lemma

import (
	"bufio"
	"compress/gzip"
	"embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

//go:embed data/*.gz
var files embed.FS

// tables are the built-in data.
type tables struct {
	nouns, verbs rules
	special      map[string][]string // tokens of strings that are split by a table
	runs         map[string]string   // those strings by the parts that they have otherwise, each followed by a zero byte
	longest      int                 // greatest number of these parts
	weights      map[string][kinds]int16
	bias         [kinds]int
}

// load unpacks the tables at the first call. They are part of the program: whatever is wrong with them is a mistake of
// ours and panics, which the package's tests would show.
var load = sync.OnceValue(func() *tables {
	t := &tables{
		nouns:   rules{rules: nounRules(), words: map[string]bool{}, exceptions: map[string]string{}},
		verbs:   rules{rules: verbRules(), words: map[string]bool{}, exceptions: map[string]string{}},
		special: map[string][]string{}, weights: map[string][kinds]int16{},
	}
	for name, r := range map[string]*rules{"noun": &t.nouns, "verb": &t.verbs} {
		lines(name+"s", func(line string) { r.words[line] = true })
		lines(name+"-exceptions", func(line string) {
			form, lemma, _ := strings.Cut(line, " ")
			r.exceptions[form] = lemma
		})
	}
	lines("tokens", func(line string) {
		text, tokens, _ := strings.Cut(line, "\t")
		t.special[text] = strings.Split(tokens, " ")
	})
	t.findRuns()
	lines("weights", t.addWeights)
	return t
})

// addWeights reads a line of the feature's name and its weights, separated by tabs.
func (t *tables) addWeights(line string) {
	fields := strings.Split(line, "\t")
	if len(fields) != 1+kinds {
		panic(fmt.Sprintf("lemma: weights: line %q", line))
	}
	var w [kinds]int16
	for i, field := range fields[1:] {
		v, err := strconv.ParseInt(field, 10, 16)
		if err != nil {
			panic(fmt.Sprintf("lemma: weights: line %q: %v", line, err))
		}
		w[i] = int16(v)
	}
	if fields[0] != "bias" {
		t.weights[fields[0]] = w
		return
	}
	for i, v := range w {
		t.bias[i] = int(v)
	}
}

// lines calls f with every line of a built-in file.
func lines(name string, f func(string)) {
	file, err := files.Open("data/" + name + ".txt.gz")
	if err != nil {
		panic(err)
	}
	unzip, err := gzip.NewReader(file)
	if err != nil {
		panic(err)
	}
	scan := bufio.NewScanner(unzip)
	for scan.Scan() {
		f(scan.Text())
	}
	if err := scan.Err(); err != nil {
		panic(err)
	}
}
