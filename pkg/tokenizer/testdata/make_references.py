"""Records what the reference tokenizers make of difficult texts: references.json.gz beside this file.

    python make_references.py SHARED [--out FILE] [--captions N] [--random N]

SHARED is the folder with data/ and golden/. Needs transformers 4.57.6, tokenizers 0.22.2, sentencepiece 0.2.x and
protobuf. The small tokenizers that the file contains are trained here, on captions; the others are read from SHARED
and recorded by their paths in it. With --captions and --random the file becomes a large one, for a single comparison:

    BLIP2_TOKENIZER_REFERENCES=FILE go test ./pkg/tokenizer -run TestReferences
"""

import argparse
import base64
import gzip
import io
import json
import os
import random
import shutil
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    CLIPTokenizerFast,
    GPT2TokenizerFast,
    PreTrainedTokenizerFast,
    T5TokenizerFast,
)

parser = argparse.ArgumentParser()
parser.add_argument("shared")
parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "references.json.gz"))
parser.add_argument("--captions", type=int, default=12)
parser.add_argument("--random", type=int, default=34)
args = parser.parse_args()
DATA = os.path.join(args.shared, "data")
random.seed(1)

# Texts -----------------------------------------------------------------------------------------------------------

DIFFICULT = [
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\t",
    "\r\n",
    "\r",
    "a",
    " a",
    "a ",
    "  a  b  ",
    "\ta\nb\r\nc",
    "a\u00a0b",
    "\u00a0",
    "a\u3000b",
    "a\u200bb",
    "a\u200db",
    "a\u2028b\u2029c",
    "a\ufeffb",
    "\ufeffa",
    "a\x00b",
    "\x00a",
    "a\x01\x02b",
    "\x01 a",
    "a\x7fb",
    "a\x85b",
    "a\x0bb\x0cc",
    "a\x1cb\x1dc",
    "a\u180eb",
    "a\u061cb",
    "\u202ea b\u202c",
    "can't won't I'll they've he's she'd I'm you're",
    "CAN'T 'S 'T 'RE 's 't 're 've 'm 'll 'd",
    "'''s ''t 'x '",
    "it''s",
    "a 's b",
    "don\u2019t",
    "rock 'n' roll",
    "do not . ? ! , ' n't 'm 's 've 're",
    'Hello, World! (test) [x] {y} <z> #1 @me $5 50% 1/2 a_b-c+d=e~f`g^h|i\\j"k',
    "...!!!???",
    "a...b!!!c",
    "1,000.50 3.14159 0x1F 12345678901234567890",
    "1234 ٣٤٥ ५६७ ⅷ ½ ² ①",
    "x²+y²",
    "100% of 50€ £3 ¥4 ₹5 ₿6",
    "http://example.com/a?b=c&d=e#f",
    "user@example.com",
    "C:\\temp\\x",
    "café naïve über São Paulo",
    "cafe\u0301 nai\u0308ve",
    "A\u030a Å \u212b",
    "e\u0301\u0302\u0303\u0327",
    "\u0301",
    "\u0301a",
    " \u0301",
    "a \u0301b",
    "q\u0323\u0307 q\u0307\u0323",
    "a" + "\u0301" * 40,
    "x" + "\u0323\u0301" * 20,
    "ÀÉÎÕÜ Çñ ŁØÞ ß ẞ ŉ ǰ ΐ",
    "İstanbul IĞDIR ı i̇",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ Σ ςσ",
    "ΑΣ ΑΣ. ΑΣ'",
    "Ǆ ǅ ǆ ǈ",
    "ﬁ ﬂ ﬀ ﬃ ﬅ",
    "ﬁ\u0301",
    "ＦＵＬＬ ｗｉｄｔｈ １２３！＜／ｓ＞",
    "＜pad＞ ＜／s＞",
    "ｶﾞｷﾞ ﾊﾟ",
    "㍿ ㎏ ㏒ ℡ ™ ™\u0301 № ㈱ ①",
    "½\u0301 ⅓",
    "ª º µ ſ",
    "…",
    "a…b",
    "¨ ¨a a¨",
    "˘ ˙",
    "生活的真谛是",
    "日本語のテキスト",
    "한국어 문장",
    "가\u0301 \u1100\u1161\u11a8",
    "漢字kanji漢字",
    "㐀 䶿 一 鿿 豈 𠀀 𪛟 𫜀 𫠝 𫠠 𬺰 丽",
    "ไทยภาษา",
    "हिन्दी क्षेत्र ज़ क़\u0301",
    "தமிழ்",
    "العربية ١٢٣",
    "עברית שלום",
    "العَرَبِيَّة",
    "русский язык",
    "ελληνικά",
    "Tiếng Việt",
    "🐶🦒 emoji",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪🇫🇷",
    "❤️",
    "a😀b",
    "©\u200d© ®️ ™️",
    "‼ ⁉ ㊗",
    "1️⃣",
    "👨\u200d\u200d👨",
    "\u200d",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "▁a ▁ ▁▁b",
    "Ġa Ċ Ā",
    "##a ## #a",
    "</w> a</w>",
    "<0x41> <0xE4>",
    "a</w>b",
    "[SEP] [CLS] [UNK] [MASK] [PAD] [DEC]",
    "a[SEP]b [sep] x [MASK]y",
    "</s>",
    "a</s>b </s> c",
    "<s> <pad> <unk>",
    "a <pad>b<pad> c",
    "<image>",
    "a <image> b",
    "<image><image>a",
    "<extra_id_0> a <extra_id_99>b<extra_id_100>",
    "<extra_id_1><extra_id_12>",
    "  <extra_id_0>  a",
    "<|endoftext|>",
    "a<|endoftext|>b <|startoftext|> c",
    "<|EndOfText|>",
    "< /s>",
    "<<</s>>>",
    "</s> <image> x",
    " </s> a",
    "a\u0301</s>",
    "﹤/s﹥",
    "</S>",
    "[ SEP ]",
    "[SEP]]",
    "[[SEP]",
    "\u0e33a ำ",
    "\u0600a \u0601\u0301",
    "क्\u200dष क्\u200cष क्\u0301ष",
    "्\u0958\u0301",
    "क\u094d\u0958\u0301",
    "a\u0903 \u0e33",
    "\u1100\uac00\u0301",
    "\u00ad",
    "a\u00adb",
    "\U0001d400\U0001d41a\U0001d7d8",
    "\U00010d50\U00010d70",
    "\U00016ea0",
    "\u1c89\u1c8a",
    "\ua7cb \ua7da \ua7dc",
    "\U00011938 \U00011935\U00011930",
    "\u0898\u0316 \u0898\u0899",
    "a\u0898\u0316b",
    "\u07fd\u0316a",
    "\u08ca\u0301 x\u08cay",
    "\u0890a \u08e2b \U000110cd \U00013430",
    "\u061d \u2e52 \u2e5d \u166d a\u061db",
    "\u1734a \u09fe b\u0c3c",
    "\ue000 \U000f0000 \U0010fffd",
    "\uffff \ufdd0 \ufffe",
    "\ufffd a\ufffdb",
    "\u0378a \U000e0041",
    "\u2460\u24b6 \u3251",
    "\u0130",
    "\u0149",
    "\u01f0",
    "\u0390",
    "\u1e9e",
    "\u2126\u212a\u212b",
    "\ufb1d \ufb4f",
    "\u0340\u0341\u0343\u0344",
    "\u0374 \u037e \u0387",
    "\u1fef \u1ffd",
    "\u2000a\u2001",
    "\u2329\u232a",
    "a <strip> b<strip>c",
    "  <strip>  <strip>x ",
    "<strip>\n\u3000<strip> .",
    "Color color Colors acolor Color. _Color Color1",
    "\u00c9T \u00e9t x\u00c9Tx E\u0301T et",
    "\u1c89Color \U00010d40Color \u0378Color",
    "Color\u200c Color\u0301 (Color)",
    "Supercalifragilisticexpialidocious",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 100,
    "x" * 101,
    "é" * 100,
    "é" * 101,
    "ab" * 150,
    "aaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbb",
    "the" * 60,
    "Question: what color is the cat? Answer:",
    "a photo of",
    "Question: how many? Short answer:",
    "a  photo   of    a     cat",
    "def main():\n\tpass\n\n\n  x",
    "  leading",
    "trailing   ",
    "tab\there",
    "line\nbreak",
    "MiXeD CaSe TeXt",
    "ALL CAPS",
    "snake_case camelCase kebab-case",
    "a/b/c",
    "a.b.c",
    "U.S.A.",
    "3rd 2nd 1st",
    "10:30am",
    "don't.",
    '"quoted"',
    "(a) [b] {c}",
    "a--b---c",
    "$1.00",
    "#hashtag @mention",
    "x&y",
    "a;b:c",
    "\u2014 \u2013 \u2018a\u2019 \u201cb\u201d \u00ab\u00bb \u2022 \u00b7",
    "\u0964 \u3002 \uff0c",
    "\u2190\u2192 \u2200 \u2211 \u221e \u2248",
    "\u2588\u2591 \u25a0 \u2605",
    "\u0e3f \u20ac",
    "a\u0300\u0301 b\u0316\u0300",
    "\u1ea5 \u1ee9",
    "\u0915\u093c \u0958",
    "\u30ab\u3099 \u30ac",
    "\u05d0\u05bc",
    "\u0671\u0653",
    "o\u0308\u0304 \u022b",
    "\u1e69 s\u0323\u0307 s\u0307\u0323",
]

ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJ",
    "0123456789",
    " \t\n\r\u00a0\u3000",
    " ",
    ".,;:!?'\"()[]{}<>/\\|-_+=*&^%$#@~`",
    "àéîõüçñßøłđħ",
    "αβγδΣσςΩ",
    "бгдЖЩ",
    "\u0301\u0300\u0323\u0308\u0327\u034f\u200d\u200c\ufe0f",
    "中文字日本語",
    "한국어가각",
    "アイウｶﾞ",
    "अआकखग\u094d\u093c\u0902",
    "עבר",
    "ابت\u064b",
    "ไทย\u0e31\u0e33",
    "😀👍🏽👩🇩🇪❤",
    "ﬁ½™㎏Ａｂ１",
    "\x00\x01\x1f\x7f\x85\u200b\ufeff\u2028",
    "'s't're've'm'll'd",
    "▁Ġ#",
    "\U0001d400\U00010d50\U00016ea0\u1c89\u0898\u08ca\U00011935\U00011930",
]
SNIPPETS = [
    "<strip>",
    "Color",
    "\u00e9t",
    "</s>",
    "<pad>",
    "<unk>",
    "<s>",
    "<image>",
    "[SEP]",
    "[MASK]",
    "<extra_id_0>",
    "<extra_id_7>",
    "<|endoftext|>",
    "<|startoftext|>",
    " the",
    "ing",
    " a",
    "'s",
    "  ",
    "\r\n",
    "...",
]


def random_text():
    out = []
    for _ in range(random.randint(1, 8)):
        kind = random.random()
        if kind < 0.12:
            out.append(random.choice(SNIPPETS))
        elif kind < 0.2:
            out.append(
                "".join(
                    chr(
                        random.choice(
                            [random.randint(0, 0xD7FF), random.randint(0xE000, 0x10FFFF), random.randint(0x80, 0x5FF)]
                        )
                    )
                    for _ in range(random.randint(1, 3))
                )
            )
        else:
            alphabet = random.choice(ALPHABETS)
            out.append("".join(random.choice(alphabet) for _ in range(random.randint(1, 7))))
    return "".join(out)


def captions():
    out = []
    with open(os.path.join(DATA, "coco-eval/captions_val2017.json")) as f:
        out += [a["caption"] for a in json.load(f)["annotations"]]
    with open(os.path.join(DATA, "flickr8k-mini/captions.json")) as f:
        out += [c for image in json.load(f) for c in image["captions"]]
    for part in ("valid", "test"):
        with gzip.open(os.path.join(DATA, f"vqa-mini/vqav2-subset/questions_{part}.json.gz"), "rt") as f:
            out += [q["question"] for q in json.load(f)["questions"]]
    return out


CAPTIONS = captions()
TEXTS = DIFFICULT + random.sample(CAPTIONS, args.captions) + [random_text() for _ in range(args.random)]
BROKEN = [
    b"\xff",
    b"a\xffb",
    b"\xc3",
    b"\xc3(",
    b"\xe2\x82",
    b"\xe2\x82a",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xc0\x80",
    b"\xf5\x80",
    b"\x80\x80",
    b"caf\xe9",
    b"\xe4\xb8\xff\xe4\xb8\xad",
    b"\xf4\x90\x80\x80",
]

# Small tokenizers ------------------------------------------------------------------------------------------------

WORK = tempfile.mkdtemp()


def folder(name, files):
    path = os.path.join(WORK, name)
    os.makedirs(path)
    for file, content in files.items():
        with open(os.path.join(path, file), "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
    return path


def read(*parts):
    with open(os.path.join(*parts), "rb") as f:
        return f.read()


def saved_json(tokenizer):
    """tokenizer.json of a fast tokenizer, without line breaks."""
    return json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))


def small_bert():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += (
        [chr(c) for c in range(33, 127) if not chr(c).isupper()]
        + ["##" + chr(c) for c in range(97, 123)]
        + ["##" + str(d) for d in range(10)]
    )
    words += list("éßøłđħαβγδσςωбгджщ中日本語字ㄱアイ한국½²€£…") + ["##σ", "##ς", "##β", "##ß", "##i"]
    words += [
        "the",
        "dog",
        "##s",
        "cat",
        "##ing",
        "run",
        "photo",
        "of",
        "color",
        "what",
        "answer",
        "question",
        "cafe",
        "over",
        "##ver",
        "istanbul",
        "can",
        "won",
        "ll",
    ]
    vocab = list(dict.fromkeys(words))
    path = folder("bert", {"vocab.txt": "\n".join(vocab) + "\n"})
    tokenizer = BertTokenizerFast.from_pretrained(path)
    yield "bert-vocab", path, tokenizer
    cased = folder(
        "bert-cased",
        {
            "vocab.txt": "\n".join(vocab + list("ABCDEFGHIJKLMNOPQRSTUVWXYZÉ")) + "\n",
            "tokenizer_config.json": json.dumps(
                {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "tokenize_chinese_chars": False}
            ),
        },
    )
    yield "bert-cased", cased, BertTokenizerFast.from_pretrained(cased)
    tokenizer = BertTokenizerFast.from_pretrained(path)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    from tokenizers import AddedToken

    tokenizer.add_tokens(
        [
            AddedToken("Color", single_word=True),
            AddedToken("<strip>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("ÉT", normalized=True),
            AddedToken("<image>", special=True, normalized=False),
        ]
    )
    path = os.path.join(WORK, "bert-json")
    tokenizer.save_pretrained(path)
    os.remove(os.path.join(path, "vocab.txt"))
    with open(os.path.join(path, "tokenizer.json"), "w") as f:
        f.write(saved_json(tokenizer))
    yield "bert-json", path, AutoTokenizer.from_pretrained(path)


def small_gpt2():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        CAPTIONS[:4000],
        trainers.BpeTrainer(
            vocab_size=560,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    trained.model.save(WORK)
    files = {"vocab.json": read(WORK, "vocab.json"), "merges.txt": read(WORK, "merges.txt")}
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False} | {
        k: {
            "__type": "AddedToken",
            "content": v,
            "lstrip": False,
            "rstrip": False,
            "normalized": True,
            "single_word": False,
        }
        for k, v in names.items()
    }
    path = folder("opt", files | {"tokenizer_config.json": json.dumps(config)})
    tokenizer = GPT2TokenizerFast.from_pretrained(path)
    yield "opt-files", path, tokenizer
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    path = folder("opt-json", {"tokenizer.json": saved_json(tokenizer)})
    yield "opt-json", path, PreTrainedTokenizerFast(tokenizer_file=os.path.join(path, "tokenizer.json"))
    vocab = json.loads(files["vocab.json"])
    vocab = {k: v - 4 for k, v in vocab.items() if v > 3} | {"<|endoftext|>": len(vocab) - 4}
    path = folder("gpt2", {"vocab.json": json.dumps(vocab, ensure_ascii=False), "merges.txt": files["merges.txt"]})
    yield "gpt2-files", path, GPT2TokenizerFast.from_pretrained(path)


def clip_files(count):
    with gzip.open(os.path.join(DATA, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz"), "rt") as f:
        merges = f.read().split("\n")[1 : 1 + count]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocab = (
        alphabet
        + [c + "</w>" for c in alphabet]
        + [m.replace(" ", "") for m in merges]
        + ["<|startoftext|>", "<|endoftext|>"]
    )
    return {
        "vocab.json": json.dumps({v: i for i, v in enumerate(vocab)}, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "\n".join(merges) + "\n",
    }


def small_clip():
    path = folder("clip", clip_files(300))
    tokenizer = CLIPTokenizerFast.from_pretrained(path)
    yield "clip-files", path, tokenizer
    path = os.path.join(WORK, "clip-json")
    tokenizer.save_pretrained(path)
    for name in ("vocab.json", "merges.txt"):
        os.remove(os.path.join(path, name))
    with open(os.path.join(path, "tokenizer.json"), "w") as f:
        f.write(saved_json(tokenizer))
    yield "clip-json", path, CLIPTokenizerFast.from_pretrained(path)


RULES = {
    "ﬁ": "fi",
    "½": "1/2",
    "…": "...",
    "\u00a0": " ",
    "\u3000": " ",
    "\t": " ",
    "\n": " ",
    "\r": " ",
    "\u200b": " ",
    "\x01": "",
    "\u00ad": "",
    "e\u0301": "é",
    "a\u0301": "á",
    "o\u0308\u0304": "ȫ",
    "™": "TM",
    "¨": " \u0308",
    "Ａ": "A",
    "ｂ": "b",
    "＜": "<",
    "＞": ">",
    "／": "/",
    "ｓ": "s",
    "가\u0301": "x",
    "\u0915\u093c": "\u0958",
    "\u0958": "\u0915",
    "ab": "AB",
    "\r\n": "|",
    "②": "2",
}


def train_spm(name, **options):
    rules = os.path.join(WORK, "rules.tsv")
    with open(rules, "w") as f:
        for key, value in RULES.items():
            f.write(" ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value) + "\n")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS[:6000] + ["é á ȫ T M 1/2 ... naïve"] * 20),
        model_writer=model,
        normalization_rule_tsv=rules,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    proto = spm.ModelProto.FromString(model.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # a path
    return proto.SerializeToString(deterministic=True)


def small_t5():
    ids = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    model = train_spm("t5", vocab_size=400, **ids)
    path = folder("t5-spm", {"spiece.model": model})
    yield "t5-spm", path, SentencePiece(path)
    tokenizer = T5TokenizerFast.from_pretrained(path)
    path = folder(
        "t5-json",
        {
            "tokenizer.json": saved_json(tokenizer),
            "tokenizer_config.json": json.dumps(
                {"tokenizer_class": "T5Tokenizer", "clean_up_tokenization_spaces": True}
            ),
        },
    )
    yield "t5-json", path, T5TokenizerFast.from_pretrained(path)
    file = json.loads(saved_json(tokenizer))
    file["normalizer"] = file["normalizer"]["normalizers"][0]
    file["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True},
        ],
    }
    path = folder("t5-old", {"tokenizer.json": json.dumps(file, ensure_ascii=False, separators=(",", ":"))})
    yield "t5-old", path, PreTrainedTokenizerFast(tokenizer_file=os.path.join(path, "tokenizer.json"))
    path = folder("spm-bytes", {"spiece.model": train_spm("bytes", vocab_size=640, byte_fallback=True, **ids)})
    yield "spm-bytes", path, SentencePiece(path)
    pieces = [(p.piece, p.score) for p in SentencePiece(path).proto.pieces]
    unigram = Tokenizer(models.Unigram(pieces, 2, True))
    unigram.normalizer = normalizers.Replace(" ", "▁")
    unigram.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    file = json.dumps(json.loads(unigram.to_str()), ensure_ascii=False, separators=(",", ":"))
    path = folder("bytes-json", {"tokenizer.json": file})
    yield "bytes-json", path, PreTrainedTokenizerFast(tokenizer_file=os.path.join(path, "tokenizer.json"))
    model = train_spm(
        "user",
        vocab_size=300,
        user_defined_symbols=["<user>", "▁the", "ing!"],
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        **ids,
    )
    path = folder("spm-user", {"spiece.model": model})
    yield "spm-user", path, SentencePiece(path)


class SentencePiece:
    """SentencePiece itself, with T5's </s> at the end. It knows no names of special tokens."""

    def __init__(self, path):
        data = read(path, "spiece.model")
        self.model = sentencepiece.SentencePieceProcessor(model_proto=data)
        self.proto = spm.ModelProto.FromString(data)

    def ids(self, text):
        return self.model.encode(text) + [1]


# Recording -------------------------------------------------------------------------------------------------------


def shared_folders():
    yield "shared-bert", "data/tokenizers/bert-base-uncased", BertTokenizerFast
    yield "shared-t5", "data/tokenizers/t5", T5TokenizerFast
    for case in ("hf-folder-opt", "hf-folder-t5", "hf-itm-a"):
        yield case, f"golden/{case}/model", AutoTokenizer


def shared_tokenizers():
    for name, path, cls in shared_folders():
        yield name, path, cls.from_pretrained(os.path.join(args.shared, path))
    clip = folder("clip-full", clip_files(48894))
    yield "shared-clip", "data/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz", CLIPTokenizerFast.from_pretrained(clip)
    opt = os.path.join(WORK, "opt-full")
    shutil.copytree(os.path.join(DATA, "tokenizers/opt"), opt)
    os.chmod(opt, 0o755)
    shutil.copy(os.path.join(WORK, "opt", "tokenizer_config.json"), opt)
    yield "shared-opt", "data/tokenizers/opt", GPT2TokenizerFast.from_pretrained(opt)


# Of these only the ids are recorded: another entry has nearly the same decoder.
SHORT = ["opt-json", "gpt2-files", "clip-files", "t5-old", "shared-bert", "shared-t5", "shared-opt"]


def record(name, tokenizer):
    if isinstance(tokenizer, SentencePiece):
        return {
            "literal": True,
            "ids": [tokenizer.ids(t) for t in TEXTS],
            "broken": [tokenizer.ids(b.decode(errors="replace")) for b in BROKEN],
        }
    encode = lambda text, **options: tokenizer(text, **options)["input_ids"]
    special = {
        key: -1 if getattr(tokenizer, name + "_token", None) is None else getattr(tokenizer, name + "_token_id")
        for key, name in {
            "BOS": "bos",
            "EOS": "eos",
            "Pad": "pad",
            "Unk": "unk",
            "CLS": "cls",
            "SEP": "sep",
            "Mask": "mask",
        }.items()
    }
    out = {"size": len(tokenizer)}
    if type(tokenizer) is not PreTrainedTokenizerFast:  # which does not know what its special tokens are for
        out["special"] = special
    out["ids"] = [encode(t) for t in TEXTS]
    out["plain"] = [encode(t, add_special_tokens=False) for t in TEXTS[:40]]
    out["broken"] = [encode(b.decode(errors="replace")) for b in BROKEN]
    if name in SHORT:
        return out
    out["decoded"] = [tokenizer.decode(i) for i in out["ids"]]
    out["skipped"] = [tokenizer.decode(i, skip_special_tokens=True) for i in out["ids"][-40:]]
    chance = [[random.randrange(len(tokenizer) + 3) for _ in range(random.randint(0, 12))] for _ in range(30)]
    out["chance"] = [[i, tokenizer.decode(i), tokenizer.decode(i, skip_special_tokens=True)] for i in chance]
    out["cut"] = []
    for t in random.sample(TEXTS, 20):
        for side in ("right", "left"):
            tokenizer.truncation_side = side
            length = random.randint(3, 12)
            out["cut"].append([t, length, side, encode(t, max_length=length, truncation=True)])
    return out


def main():
    tokenizers = []
    for group in (small_bert, small_gpt2, small_clip, small_t5):
        for name, path, tokenizer in group():
            files = {f: base64.b64encode(read(path, f)).decode() for f in sorted(os.listdir(path))}
            tokenizers.append({"name": name, "files": files} | record(name, tokenizer))
    for name, path, tokenizer in shared_tokenizers():
        tokenizers.append({"name": name, "shared": path} | record(name, tokenizer))
    out = {"texts": TEXTS, "broken": [base64.b64encode(b).decode() for b in BROKEN], "tokenizers": tokenizers}
    data = json.dumps(out, ensure_ascii=False, separators=(",", ":")).encode()
    with open(args.out, "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))
    print(
        args.out,
        len(TEXTS),
        "texts",
        {t["name"]: sum(len(v) for v in t.get("files", {}).values()) for t in tokenizers},
    )


main()
