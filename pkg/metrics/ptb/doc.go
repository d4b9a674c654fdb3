// Package ptb cuts English text into tokens of the Penn Treebank exactly as coco-caption does: by Stanford's
// PTBTokenizer (CoreNLP 3.4.1) with the options -preserveLines and -lowerCase, followed by the removal of punctuation
// tokens. BLEU, ROUGE-L, CIDEr-D, METEOR and SPICE all start from its output (spec/evaluation.md section 3.1).
//
// The reference is a longest-match scanner: at each place the rule that matches most text wins, what it must see after
// its token counted; among equals the first. The rules here (rules.go) describe the same tokens in the syntax of
// package regexp; automaton.go runs all of them at once, as one deterministic automaton that is built as far as the
// text needs it. scan.go cuts tokens and rewrites them (quotes, dashes, brackets, currency, fractions).
//
// That automaton was compared with the reference's, pair of states by pair of states: both match the same texts by
// rules of the same effect. The reference looks at UTF-16 units, and so does this package.
package ptb
