package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// smallTokenizers are those that the recorded references bring along.
func smallTokenizers(t testing.TB) map[string]*pipeline {
	t.Helper()
	small := map[string]*pipeline{}
	for _, r := range readReferences(t).Tokenizers {
		if r.Files != nil {
			small[r.Name] = r.load(t).(*pipeline)
		}
	}
	return small
}

// FuzzEncode checks for every kind of tokenizer that no text makes it fail, and what is true of all ids.
func FuzzEncode(f *testing.F) {
	small := smallTokenizers(f)
	for _, text := range []string{"a photo of", "é\u0301\u0323 ﬁ ½", "</s><pad>[SEP]<|endoftext|>", "\xff\xc3(", "日本\u200d👍🏽",
		"'s  \r\n\t x's", "aaaaaaaaaaaaab", "\x00\x01", "ＡＢ＜／ｓ＞", "Color <strip> <image>", "\u1100\uac00\u0301 क\u094dक"} {
		f.Add(text, uint8(5))
	}
	f.Fuzz(func(t *testing.T, text string, length uint8) {
		for name, p := range small {
			ids := p.Encode(text, EncodeOptions{})
			plain := p.Encode(text, EncodeOptions{NoSpecial: true})
			if want := slices.Concat(p.template.before, plain, p.template.after); !slices.Equal(ids, want) {
				t.Fatalf("%s: %q gives %v, and without special tokens %v", name, text, ids, plain)
			}
			checkCuts(t, name, p, text, plain, int(length))
			for _, id := range p.Encode(text, EncodeOptions{NoSpecial: true, Literal: true}) {
				if piece, _ := p.Piece(id); p.added.special[piece] && id != p.special.Unk {
					t.Fatalf("%s: literal %q gives the special token %q", name, text, piece)
				}
			}
			if decoded := p.Decode(ids, length%2 == 0); !utf8.ValidString(decoded) {
				t.Fatalf("%s: %q is decoded as %q", name, text, decoded)
			}
			p.Decode(append(ids, -1, 1<<30, int32(length)), true)
		}
	})
}

// checkCuts compares cut texts with the whole one.
func checkCuts(t *testing.T, name string, p *pipeline, text string, plain []int32, length int) {
	t.Helper()
	around := len(p.template.before) + len(p.template.after)
	keep := min(max(length-around, 0), len(plain))
	for left, part := range map[bool][]int32{false: plain[:keep], true: plain[len(plain)-keep:]} {
		got := p.Encode(text, EncodeOptions{MaxLength: length, CutLeft: left})
		want := slices.Concat(p.template.before, part, p.template.after)
		if length > 0 && !slices.Equal(got, want[:min(len(want), length)]) {
			t.Fatalf("%s: %q cut to %d (left: %t) is %v, want %v", name, text, length, left, got, want)
		}
	}
}

// FuzzDecode decodes any ids.
func FuzzDecode(f *testing.F) {
	small := smallTokenizers(f)
	f.Add([]byte{0, 1, 0, 2, 0, 3, 1, 200, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var ids []int32
		for ; len(data) > 1; data = data[2:] {
			ids = append(ids, int32(int16(binary.BigEndian.Uint16(data))))
		}
		for name, p := range small {
			for _, skip := range []bool{false, true} {
				if text := p.Decode(ids, skip); !utf8.ValidString(text) {
					t.Fatalf("%s: %v is decoded as %q", name, ids, text)
				}
			}
		}
	})
}

// exercise uses a tokenizer that was made from fuzzed files.
func exercise(t *testing.T, p *pipeline) {
	t.Helper()
	for _, text := range []string{"a b", "Café </s>\u0301 日本x", "the cat's 12\r\n\xff", strings.Repeat("ab", 50)} {
		ids := p.Encode(text, EncodeOptions{})
		for _, id := range ids {
			if int(id) >= p.VocabSize() && !slices.Contains(p.template.before, id) && !slices.Contains(p.template.after, id) {
				t.Fatalf("%q gives the id %d of %d", text, id, p.VocabSize())
			}
		}
		p.Encode(text, EncodeOptions{Literal: true, MaxLength: 3})
		p.Decode(ids, true)
	}
}

func emptyConfig(t testing.TB) *hfConfig {
	t.Helper()
	c, err := parseConfig(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// FuzzTokenizerJSON reads anything as tokenizer.json.
func FuzzTokenizerJSON(f *testing.F) {
	for _, seed := range tokenizerJSONs() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := fromTokenizerJSON(data, emptyConfig(t)); err == nil {
			exercise(t, p)
		}
	})
}

// tokenizerJSONs are small files of every supported kind.
func tokenizerJSONs() map[string]string {
	return map[string]string{
		"bert": `{"added_tokens":[{"id":2,"content":"[S]","special":true,"normalized":false},
			{"id":4,"content":"É","lstrip":true,"rstrip":true,"single_word":true}],
			"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"},
			"post_processor":{"type":"BertProcessing","cls":["[S]",2],"sep":["[S]",2]},
			"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
			"model":{"vocab":{"[UNK]":0,"a":1,"[S]":2,"##b":3}}}`,
		"bpe": `{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true},"decoder":{"type":"ByteLevel"},
			"post_processor":{"type":"ByteLevel"},
			"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"abab":4},"merges":["a b",  "ab ab"]}}`,
		"clip": `{"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace",
			"pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"},{"type":"NFD"}]},
			"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","behavior":"Removed","invert":true,
			"pattern":{"Regex":"<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
			{"type":"ByteLevel"}]},"post_processor":{"type":"RobertaProcessing","sep":["e",5],"cls":["s",4]},
			"model":{"type":"BPE","unk_token":"e","end_of_word_suffix":"</w>","fuse_unk":true,
			"vocab":{"a":0,"b</w>":1,"ab</w>":2,"s":4,"e":5},"merges":[["a","b</w>"]]}}`,
		"t5": `{"normalizer":{"type":"Sequence","normalizers":[{"type":"Strip","strip_right":true},{"type":"Replace",
			"pattern":{"String":"x"},"content":"y"}]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[
			{"type":"WhitespaceSplit"},{"type":"Metaspace","replacement":"▁","prepend_scheme":"first"}]},
			"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},
			{"SpecialToken":{"id":"</s>"}}],"special_tokens":{"</s>":{"ids":[1]}}},
			"decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Metaspace","replacement":"▁"},
			{"type":"Fuse"}]},"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,
			"vocab":[["<unk>",0],["</s>",0.0],["▁a",-1.5],["b",-2e0],["<0x61>",-3]]}}`,
	}
}

// FuzzConfig reads anything as the three files beside tokenizer.json.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"tokenizer_class":"BertTokenizer","bos_token":{"content":"[DEC]"},"do_lower_case":false,
		"added_tokens_decoder":{"4":{"content":"<image>","special":true}},"additional_special_tokens":["<x>"]}`),
		[]byte(`{"bos_token":"[DEC]"}`), []byte(`{"<image>":4}`))
	f.Add([]byte(`{"tokenizer_class":"T5TokenizerFast","extra_ids":3,"extra_special_tokens":{"a":"b"}}`), []byte(nil),
		[]byte(`{"[DEC]":4}`))
	files := tokenizerJSONs()
	f.Fuzz(func(t *testing.T, config, special, added []byte) {
		for _, file := range files {
			c, err := parseConfig(config, special, added)
			if err != nil {
				return
			}
			if p, err := fromTokenizerJSON([]byte(file), c); err == nil {
				exercise(t, p)
			}
		}
	})
}

// FuzzVocabJSON reads anything as vocab.json with merges.txt.
func FuzzVocabJSON(f *testing.F) {
	f.Add([]byte(`{"a":0,"b":1,"ab":2,"Ġ":3}`), []byte("#version: 0.2\na b\n"))
	f.Add([]byte(`{"!</w>":0,"a":1,"b</w>":2,"ab</w>":3,"<|startoftext|>":4,"<|endoftext|>":5}`), []byte("a b</w>\r\n"))
	f.Add([]byte(`{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4}`), []byte(nil))
	f.Fuzz(func(t *testing.T, vocab, merges []byte) {
		if p, err := fromVocabJSON(vocab, merges, emptyConfig(t)); err == nil {
			exercise(t, p)
		}
	})
}

// FuzzVocabTxt reads anything as vocab.txt.
func FuzzVocabTxt(f *testing.F) {
	f.Add([]byte(toyVocab))
	f.Add([]byte("[UNK]\n[CLS]\r\n[SEP]\n##\n##a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := fromVocabTxt(data, emptyConfig(t)); err == nil {
			exercise(t, p)
		}
		if w, err := NewWordPiece(data); err == nil {
			w.Decode(w.Encode("Café a##b"))
		}
	})
}

// FuzzSentencePiece reads anything as spiece.model.
func FuzzSentencePiece(f *testing.F) {
	for _, r := range readReferences(f).Tokenizers {
		if data, ok := r.Files[fileSpiece]; ok && r.Name == "spm-user" {
			f.Add(data)
		}
	}
	f.Add([]byte("\x0a\x0c\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02\x0a\x0a\x0a\x03\xe2\x96\x81\x15\x00\x00\x80\xbf"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := fromSentencePiece(data, emptyConfig(t)); err == nil {
			exercise(t, p)
		}
	})
}

// FuzzCharsmap reads anything as a compiled character map.
func FuzzCharsmap(f *testing.F) {
	f.Add([]byte("\x08\x00\x00\x00\x00\x04\x00\x00a\x05\x00\x00b\x00"), "aé")
	f.Add(make([]byte, 20), "a\x00")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		m, err := newCharsmap(data)
		if err != nil {
			return
		}
		text = validUTF8(text)
		whole := precompiled{m, loadClusters()}.normalize(text, true)
		sp := &spNormalizer{table: m, spec: &sentencePiece{addDummyPrefix: true, removeExtraWhitespaces: true,
			escapeWhitespaces: true}}
		if !utf8.ValidString(whole) || !utf8.ValidString(sp.normalize(text, true)) {
			t.Fatalf("%q becomes %q", text, whole)
		}
	})
}

// FuzzCLIPMerges reads anything as OpenAI's file.
func FuzzCLIPMerges(f *testing.F) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte("title\na b</w>\n")); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(packed.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := fromCLIPMerges(data, emptyConfig(t)); err == nil {
			exercise(t, p)
		}
	})
}

// FuzzClusters checks that clusters are whole characters and cover the text.
func FuzzClusters(f *testing.F) {
	f.Add("a\u0301\r\n👨\u200d👨🇩🇪🇫 \u1100\uac00\u11a8 क\u094dक \u0600a")
	f.Fuzz(func(t *testing.T, text string) {
		text = validUTF8(text)
		clusters := loadClusters()
		for rest := text; rest != ""; {
			n := clusters.clusterEnd(rest)
			if n <= 0 || n > len(rest) || !utf8.ValidString(rest[:n]) {
				t.Fatalf("%q: a cluster of %d bytes", rest, n)
			}
			rest = rest[n:]
		}
	})
}
