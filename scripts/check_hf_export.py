#!/usr/bin/env python3
"""Proves that an exported Hugging Face folder is the model that it was made from.

  scripts/check_hf_export.py --original DIR_OR_FILE... --exported DIR [--image FILE] [--text TEXT]

Both sides are loaded with transformers, one after the other. Checked are: no missing, unexpected or ill-shaped tensor
in the export; every parameter equal bit for bit; stored types; config.json and generation_config.json; the ids and
texts of the tokenizers; the pixels of the image processors; and what the models answer to the same picture and prompt
(features, logits, ten greedy tokens). Prints a line per check, and ends with status 1 if anything differs. One thing
may: a BLIP-2 export has the image token that older folders lack, since transformers 4.57 cannot run them without.

The original is a Hugging Face folder, or what LAVIS needs in its place: its .pth file, the image encoder's file where
that was frozen, and the language model's folder. A later one wins over an earlier one, as in LAVIS:

  scripts/check_hf_export.py --exported out --original eva_vit_g.pth blip2_pretrained_opt2.7b.pth opt-2.7b

Models: Blip2ForConditionalGeneration (OPT, T5), Blip2ForImageTextRetrieval, OPTForCausalLM, T5ForConditionalGeneration,
CLIPModel, BlipForConditionalGeneration, BertForMaskedLM.

  pip install torch==2.12.1 transformers==4.57.6 tokenizers==0.22.2 safetensors==0.8.0 pillow sentencepiece protobuf
"""
import argparse
import hashlib
import json
import os
import re
import sys

import numpy
import torch
import transformers
from PIL import Image
from safetensors import SafetensorError, safe_open

import lavis_names

CLASSES = {"blip-2": "Blip2ForConditionalGeneration", "opt": "OPTForCausalLM", "t5": "T5ForConditionalGeneration",
           "clip": "CLIPModel", "blip": "BlipForConditionalGeneration", "bert": "BertForMaskedLM"}
# Settings that change no answer: of the library, of a fresh model's weights, and of classes long gone.
NOT_CONFIG = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "initializer_range",
              "initializer_factor", "prefix", "output_past")
DEFAULTS = {"position_embedding_type": "absolute"}
# What published files hold and the models do not use: buffers, BERT's other heads, a stray table of T5.
NOT_USED = re.compile(r"position_ids$|pooler\.|seq_relationship\.|EncDecAttention\.relative_attention_bias")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
TEXTS = ["", "a photo of", "Question: what is this? Answer:", " two  cats,\non a couch ", "it's the dog's, isn't it",
         "Naïve café: 東京 №42 🙂!", "</s> <pad> [SEP]"]
PROMPT = "a photo of a lion statue"
SEED = 20230130


class Report:
    """One line per check; counts those that failed."""

    def __init__(self):
        self.failed = 0

    def line(self, name, problems, good="equal"):
        self.failed += bool(problems)
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        print(f"{name:18s} {'; '.join(problems[:5]) + more if problems else good}", flush=True)


# ---------------------------------------------------------------- files

def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


def weight_files(path):
    """The files with tensors of a folder, by its index where it has one; of a file, the file itself."""
    if os.path.isfile(path):
        return [path]
    for stem in ("model.safetensors", "pytorch_model.bin"):
        if os.path.exists(os.path.join(path, stem + ".index.json")):
            names = sorted(set(read_json(path, stem + ".index.json")["weight_map"].values()))
            return [os.path.join(path, name) for name in names]
        if os.path.exists(os.path.join(path, stem)):
            return [os.path.join(path, stem)]
    sys.exit(f"{path}: neither model.safetensors nor pytorch_model.bin")


def read_tensors(path):
    """All tensors of a file or folder under their stored names; of a LAVIS checkpoint its model."""
    out = {}
    for file in weight_files(path):
        if file.endswith(".safetensors"):
            with safe_open(file, "pt") as f:
                out.update({name: f.get_tensor(name) for name in f.keys()})
        else:
            saved = torch.load(file, map_location="cpu", weights_only=True)
            out.update(saved.get("model", saved))
    return out


def stored_types(tensors):
    return {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}


# ---------------------------------------------------------------- models

def model_class(path):
    """The retrieval model if config.json names it, else the class of its model type."""
    config = read_json(path, "config.json")
    kind = config.get("model_type")
    if kind not in CLASSES:
        sys.exit(f"{path}: model type {kind!r} is not one of {', '.join(CLASSES)}")
    retrieval = kind == "blip-2" and config.get("architectures") == ["Blip2ForImageTextRetrieval"]
    return getattr(transformers, "Blip2ForImageTextRetrieval" if retrieval else CLASSES[kind])


def load_folder(path, dtype):
    """The model of a folder, what is wrong with its tensors, and their stored types."""
    model, info = model_class(path).from_pretrained(path, dtype=dtype, attn_implementation="eager",
                                                    output_loading_info=True)
    problems = [f"{what[:-5]} {n}" for what in ("missing_keys", "unexpected_keys") for n in sorted(info[what])]
    problems += [f"mismatched {key}" for key in info["mismatched_keys"]] + list(info["error_msgs"])
    problems += [f"{n} was not loaded" for n, p in model.named_parameters() if p.is_meta]
    return model, problems, stored_types(read_tensors(path))


def load_lavis(paths, exported, dtype):
    """The exported folder's class with the tensors of LAVIS's files, what is wrong with them, and the names that have
    no place there."""
    config = transformers.AutoConfig.from_pretrained(exported)
    cls, table, prefix = model_class(exported), lavis_names.BLIP2, None
    if cls is transformers.BlipForConditionalGeneration:
        table = lavis_names.BLIP_CAPTION
    elif cls is transformers.Blip2ForConditionalGeneration:
        prefix = "opt_model." if config.text_config.model_type == "opt" else "t5_model."
        table = lavis_names.OPT if prefix == "opt_model." else lavis_names.T5
    tensors = {}
    for path in paths:
        part = read_tensors(path)
        if os.path.isdir(path):
            part = {prefix + language_name(n, prefix): t for n, t in part.items()}
        elif "cls_token" in part:
            part = {"visual_encoder." + n: t for n, t in part.items()}
        tensors.update(part)
    blocks = config.vision_config.num_hidden_layers
    renamed, left = lavis_names.to_hf({n: t for n, t in tensors.items() if not unused_block(n, blocks)}, table)
    config._attn_implementation = "eager"
    model = cls(config).to(dtype)
    wrong = model.load_state_dict(renamed, strict=False)
    model.tie_weights()
    own = model.state_dict()
    given = {own[n].data_ptr() for n in renamed if n in own}
    problems = [f"the original lacks {n}" for n in wrong.missing_keys if own[n].data_ptr() not in given]
    problems += [f"the original has {n}" for n in wrong.unexpected_keys if not NOT_USED.search(n)]
    return model, problems, [n for n in left if not NOT_USED.search(n)]


def language_name(name, prefix):
    """facebook/opt-* exist with and without "model."."""
    return "model." + name if prefix == "opt_model." and name.startswith("decoder.") else name


def unused_block(name, blocks):
    """A published encoder file may hold a block more than LAVIS builds, and a head."""
    match = re.match(r"visual_encoder\.(?:blocks\.(\d+)|(head))\.", name)
    return bool(match) and (match[2] is not None or int(match[1]) >= blocks)


def own_memory(model):
    """Parameters in memory of torch's own alignment: kernels may round otherwise for tensors that lie in a file."""
    for p in model.parameters():
        p.data = p.data.clone()
    return model.eval()


def digests(model):
    """Type, shape and hash of every parameter: equal hashes are equal bits, and one model is in memory at a time."""
    out = {}
    for name, t in model.state_dict().items():
        if not NOT_USED.search(name):
            raw = t.detach().reshape(-1).contiguous().view(torch.uint8).numpy()
            out[name] = (str(t.dtype), tuple(t.shape), hashlib.sha256(raw).hexdigest())
    return out


# ---------------------------------------------------------------- answers to one picture and one prompt

def new_tokens(model, given, skip):
    return model.generate(**given, max_new_tokens=10, num_beams=1, do_sample=False)[:, skip:]


def decoder_input(ids):
    return torch.cat([torch.zeros_like(ids[:, :1]), ids], 1)


def run_blip2(model, pixels, ids):
    config, text = model.config, model.config.text_config
    if config.image_token_index is None:  # older folders have none, but transformers 4.57 wants one: an id not in use
        config.image_token_index = text.vocab_size - 1
    ids = torch.cat([torch.full((1, config.num_query_tokens), config.image_token_index), ids], 1)
    given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    opt = text.model_type == "opt"
    extra = {} if opt else {"decoder_input_ids": decoder_input(ids[:, config.num_query_tokens:])}
    return {"query embeddings": model.get_image_features(pixels), "logits": model(**given, **extra).logits,
            "greedy tokens": new_tokens(model, given, ids.shape[1] if opt else 1)}


def run_itm(model, pixels, ids):
    if model.config.image_token_index is not None:
        ids = torch.cat([torch.full((1, model.config.num_query_tokens), model.config.image_token_index), ids], 1)
    given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    itc, itm = (model(**given, use_image_text_matching_head=head) for head in (False, True))
    return {"ITM logits": itm.logits_per_image, "ITC": itc.logits_per_image, "image features": itc.image_embeds,
            "text features": itc.text_embeds}


def run_opt(model, pixels, ids):
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"logits": model(**given).logits, "greedy tokens": new_tokens(model, given, ids.shape[1])}


def run_t5(model, pixels, ids):
    out = model(input_ids=ids, decoder_input_ids=decoder_input(ids))
    return {"encoder": out.encoder_last_hidden_state, "logits": out.logits,
            "greedy tokens": new_tokens(model, {"input_ids": ids}, 1)}


def run_clip(model, pixels, ids):
    out = model(pixel_values=pixels, input_ids=ids[:, :model.config.text_config.max_position_embeddings])
    return {"logits": out.logits_per_image, "image features": out.image_embeds, "text features": out.text_embeds}


def run_blip(model, pixels, ids):
    out = model(pixel_values=pixels, input_ids=ids)
    return {"image features": out.image_embeds, "logits": out.logits,
            "greedy tokens": new_tokens(model, {"pixel_values": pixels}, 1)}


def run_bert(model, pixels, ids):
    return {"logits": model(input_ids=ids).logits}


RUNS = {"Blip2ForConditionalGeneration": run_blip2, "Blip2ForImageTextRetrieval": run_itm, "OPTForCausalLM": run_opt,
        "T5ForConditionalGeneration": run_t5, "CLIPModel": run_clip, "BlipForConditionalGeneration": run_blip,
        "BertForMaskedLM": run_bert}


def make_picture(path):
    if path:
        return Image.open(path).convert("RGB")
    noise = numpy.random.default_rng(SEED).integers(0, 256, (24, 32, 3), dtype=numpy.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.BICUBIC)


def make_pixels(config, processor, picture):
    """[1, 3, S, S]; random where the folder does not say how pictures are prepared; None where the model sees none."""
    if not hasattr(config, "vision_config"):
        return None
    if processor is not None:
        return processor(picture, return_tensors="pt").pixel_values
    size = config.vision_config.image_size
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(SEED))


def make_ids(config, cls, tokenizer, text):
    """[1, L]: the prompt, or random ids of the vocabulary where there is no tokenizer."""
    if tokenizer is not None:
        return tokenizer([text], return_tensors="pt").input_ids
    retrieval = cls is transformers.Blip2ForImageTextRetrieval
    part = config.qformer_config if retrieval else getattr(config, "text_config", config)
    return torch.randint(4, part.vocab_size - 1, (1, 6), generator=torch.Generator().manual_seed(SEED))


# ---------------------------------------------------------------- the other files of a folder

def tokenizer_of(path):
    if path and any(os.path.exists(os.path.join(path, name)) for name in TOKENIZER_FILES):
        return transformers.AutoTokenizer.from_pretrained(path)
    return None


def images_of(path):
    if path and os.path.exists(os.path.join(path, "preprocessor_config.json")):
        return transformers.AutoImageProcessor.from_pretrained(path, use_fast=False)
    return None


def generation_of(path):
    if os.path.exists(os.path.join(path, "generation_config.json")):
        return transformers.GenerationConfig.from_pretrained(path).to_dict()
    return {}


def flat(value, path=""):
    if not isinstance(value, dict):
        return {path: value}
    parts = [flat(v, f"{path}.{k}".strip(".")) for k, v in value.items() if k not in NOT_CONFIG]
    return {k: v for part in parts for k, v in part.items()}


def config_differences(before, after, ignored):
    def values(config):
        return {k: DEFAULTS.get(k.split(".")[-1]) if v is None else v for k, v in config.items()}
    a, b = flat(before), flat(after)
    keys = [k for k in sorted(set(a) | set(b)) if not k.startswith(tuple(ignored))]
    a, b = values(dict.fromkeys(keys) | a), values(dict.fromkeys(keys) | b)
    return [f"{k}: {a[k]!r} became {b[k]!r}" for k in keys if a[k] != b[k]]


def tokenizer_differences(before, after):
    if after is None:
        return ["the export has none"]
    out = []
    for text in TEXTS:
        a, b = before(text).input_ids, after(text).input_ids
        if a != b:
            out.append(f"ids of {text!r}: {a} became {b}")
        elif before.decode(a, skip_special_tokens=True) != after.decode(b, skip_special_tokens=True):
            out.append(f"another text for {a}")
    return out


def image_differences(before, after, picture):
    if after is None:
        return ["the export has none"]
    a, b = (p(picture, return_tensors="pt").pixel_values for p in (before, after))
    return [] if a.shape == b.shape and torch.equal(a, b) else ["other pixels"]


def check_image_token(report, before, after, ignored):
    """config.json; an export may add the image token that older folders lack and transformers 4.57 needs."""
    added = before.get("image_token_index") is None and after.get("image_token_index") is not None
    if added:
        report.line("image token", [], f"added: {after['image_token_index']}")
        ignored = [*ignored, "image_token_index"]
    report.line("config", config_differences(before, after, ignored))
    return added


def check_processor(report, original, exported, picture, added):
    """Blip2Processor must load and run, and give what the original's gives. added: after the places of the image."""
    def run(path):
        processor = transformers.Blip2Processor.from_pretrained(path)
        return processor(images=picture, text=PROMPT, return_tensors="pt"), processor.num_query_tokens
    try:
        got, places = run(exported)
    except Exception as problem:  # whatever goes wrong inside the library is a finding about the folder
        report.line("Blip2Processor", [f"does not load or run: {problem}"])
        return
    if tokenizer_of(original) is None or images_of(original) is None:
        report.line("Blip2Processor", [], f"loads and runs, {got.input_ids.shape[1]} ids for the prompt")
        return
    want, _ = run(original)
    start = places if added else 0
    if len(got.input_ids[0, :start].unique()) > 1:
        report.line("Blip2Processor", [f"the first {start} ids are not one: {got.input_ids[0, :start].tolist()}"])
        return
    for key in ("input_ids", "attention_mask"):
        got[key] = got[key][:, start:]
    report.line("Blip2Processor", [f"other {k}" for k in want if k not in got or not torch.equal(want[k], got[k])])


def check_other_files(report, original, exported, picture, ignored):
    """Configurations, tokenizer, image processor, processor. original: None if it is LAVIS's files."""
    words, images, added = tokenizer_of(exported), images_of(exported), False
    if original:
        configs = (transformers.AutoConfig.from_pretrained(path).to_dict() for path in (original, exported))
        added = check_image_token(report, *configs, ignored)
        report.line("generation config", config_differences(generation_of(original), generation_of(exported), ignored))
    if tokenizer_of(original) is not None:
        report.line("tokenizer", tokenizer_differences(tokenizer_of(original), words))
    if images_of(original) is not None:
        report.line("image processor", image_differences(images_of(original), images, picture))
    blip2 = read_json(exported, "config.json")["model_type"] == "blip-2"
    if blip2 and words is not None and images is not None:
        check_processor(report, original, exported, picture, added)
    return words, images


# ---------------------------------------------------------------- comparison

def tensor_differences(a, b):
    out = [f"the export lacks {n}" for n in sorted(set(a) - set(b))]
    out += [f"only the export has {n}" for n in sorted(set(b) - set(a))]
    for name in sorted(set(a) & set(b)):
        if a[name][1] != b[name][1]:
            out.append(f"{name}: shape {list(a[name][1])} became {list(b[name][1])}")
        elif a[name] != b[name]:
            out.append(f"{name}: other bits")
    return out


def type_differences(a, b):
    """Of the names that both sides store."""
    return [f"{n}: {a[n]} became {b[n]}" for n in sorted(set(a) & set(b)) if a[n] != b[n]]


def compare_outputs(report, before, after, atol):
    for name, want in before.items():
        got = after[name]
        if want.is_floating_point() and want.shape == got.shape:
            worst = (want.double() - got.double()).abs().max().item()
            text = f"greatest difference {worst:.3g}, values up to {want.abs().max().item():.3g}"
            report.line(name, [] if worst <= atol else [text], text)
        elif want.is_floating_point():
            report.line(name, [f"shape {list(want.shape)} became {list(got.shape)}"])
        else:
            report.line(name, [] if torch.equal(want, got) else [f"{want.tolist()} became {got.tolist()}"])


@torch.no_grad()
def check_models(report, args, original, words, images, picture):
    dtype, cls = getattr(torch, args.dtype), model_class(args.exported)
    config = transformers.AutoConfig.from_pretrained(args.exported)
    pixels, ids = make_pixels(config, images, picture), make_ids(config, cls, words, args.text)
    pixels = None if pixels is None else pixels.to(dtype)

    def see(model):
        model = own_memory(model)
        return digests(model), RUNS[cls.__name__](model, pixels, ids)

    if original:
        model, problems, types_before = load_folder(original, dtype)
        report.line("original's keys", [p for p in problems if not NOT_USED.search(p)], "as the class wants them")
    else:
        model, problems, left = load_lavis(args.original, args.exported, dtype)
        report.line("original's keys", problems, f"all found; without a place: {', '.join(left) or 'none'}")
    if any(p.is_meta for p in model.parameters()):
        return
    before, answers = see(model)
    del model
    model, problems, types_after = load_folder(args.exported, dtype)
    report.line("export's keys", problems, "none missing, none unexpected")
    if any(p.is_meta for p in model.parameters()):
        return
    after, again = see(model)
    report.line("tensors", tensor_differences(before, after), f"{len(before)} equal bit for bit")
    if original and not args.types_may_differ:  # LAVIS's parts have types of their own, which a folder need not keep
        report.line("stored types", type_differences(types_before, types_after))
    compare_outputs(report, answers, again, args.atol)


# ---------------------------------------------------------------- command line

def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--original", required=True, nargs="+", help="a Hugging Face folder, or LAVIS's files and folders")
    p.add_argument("--exported", required=True, help="the folder to prove")
    p.add_argument("--image", help="a picture; without it a made one")
    p.add_argument("--text", default=PROMPT, help="the prompt, where the export has a tokenizer")
    p.add_argument("--dtype", default="float32", help="type to run in; every stored type fits into float32 exactly")
    p.add_argument("--atol", type=float, default=0.0, help="greatest difference of outputs that passes")
    p.add_argument("--types-may-differ", action="store_true", help="the export may store equal values in other types")
    p.add_argument("--ignore-config", nargs="*", default=[], metavar="KEY", help="beginnings of keys that may differ")
    return p.parse_args()


def main():
    args, report = arguments(), Report()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for path in (*args.original, os.path.join(args.exported, "config.json")):
        if not os.path.exists(path):
            sys.exit(f"{path}: no such file or folder")
    first = args.original[0]
    original = first if len(args.original) == 1 and os.path.exists(os.path.join(first, "config.json")) else None
    names = [model_class(path).__name__ for path in (original, args.exported) if path]
    report.line("class", [" became ".join(names)] if len(set(names)) > 1 else [],
                f"{names[-1]}, transformers {transformers.__version__}, torch {torch.__version__}")
    if not report.failed:
        picture = make_picture(args.image)
        words, images = check_other_files(report, original, args.exported, picture, args.ignore_config)
        try:
            check_models(report, args, original, words, images, picture)
        except (OSError, RuntimeError, ValueError, SafetensorError) as problem:
            report.line("models", [f"do not load or run: {problem}"])
    print(f"{report.failed} checks failed" if report.failed else "the export is the original")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
