package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// decoder turns the pieces of a text into strings that only need to be joined. It may change the slice in place.
type decoder interface {
	decode(pieces []string) []string
}

// decoders are applied in order.
type decoders []decoder

func (list decoders) decode(pieces []string) []string {
	for _, d := range list {
		pieces = d.decode(pieces)
	}
	return pieces
}

// wordPieceDecoder joins inner pieces to the one before and puts a space before all others but the first.
type wordPieceDecoder struct {
	prefix  string
	cleanUp bool // take spaces away that BERT puts around punctuation, within each piece
}

func (d wordPieceDecoder) decode(pieces []string) []string {
	for i, piece := range pieces {
		if i > 0 {
			if rest, ok := strings.CutPrefix(piece, d.prefix); ok {
				piece = rest
			} else {
				piece = " " + piece
			}
		}
		if d.cleanUp {
			piece = tidyPiece(piece)
		}
		pieces[i] = piece
	}
	return pieces
}

// tidyPiece is tidySpaces with the rule for "do not" that only the decoder of Hugging Face's tokenizers has.
func tidyPiece(s string) string {
	if !strings.Contains(s, " ") {
		return s
	}
	for i, r := range tidyRules {
		if i == tidyNotBefore {
			s = strings.ReplaceAll(s, " do not", " don't")
		}
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// byteLevelDecoder turns the characters of byte-level BPE back into bytes; what is not UTF-8 becomes U+FFFD. A piece
// with other characters stays as it is.
type byteLevelDecoder struct{}

func (byteLevelDecoder) decode(pieces []string) []string {
	var out []byte
	for _, piece := range pieces {
		var ok bool
		if out, ok = appendPieceBytes(out, piece); !ok {
			out = append(out, piece...)
		}
	}
	return append(pieces[:0], validUTF8(string(out)))
}

// metaspaceDecoder turns marks into spaces, but those of the first piece into nothing.
type metaspaceDecoder struct {
	mark   string
	prefix prefixScheme
}

func (d metaspaceDecoder) decode(pieces []string) []string {
	for i, piece := range pieces {
		space := " "
		if i == 0 && d.prefix != prefixNever {
			space = ""
		}
		pieces[i] = strings.ReplaceAll(piece, d.mark, space)
	}
	return pieces
}

// byteFallbackDecoder turns rows of pieces such as <0xE5> into the text whose bytes they are. Where these are not
// UTF-8, Hugging Face's rule gives U+FFFD for every byte of the row; SentencePiece's (each) only for the wrong ones.
type byteFallbackDecoder struct{ each bool }

func (d byteFallbackDecoder) decode(pieces []string) []string {
	out := make([]string, 0, len(pieces))
	var row []byte
	flush := func() {
		if len(row) > 0 {
			out = append(out, d.text(row))
			row = row[:0]
		}
	}
	for _, piece := range pieces {
		if b, ok := byteOfPiece(piece); ok {
			row = append(row, b)
			continue
		}
		flush()
		out = append(out, piece)
	}
	flush()
	return out
}

func (d byteFallbackDecoder) text(row []byte) string {
	if utf8.Valid(row) {
		return string(row)
	}
	if !d.each {
		return strings.Repeat("\uFFFD", len(row))
	}
	return string([]rune(string(row))) // one U+FFFD for every wrong byte
}

// fuseDecoder joins all pieces.
type fuseDecoder struct{}

func (fuseDecoder) decode(pieces []string) []string {
	joined := strings.Join(pieces, "")
	return append(pieces[:0], joined)
}

// isPythonSpace is str.isspace of Python, which strips the ends of CLIP's decoded texts.
func isPythonSpace(r rune) bool { return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F }
