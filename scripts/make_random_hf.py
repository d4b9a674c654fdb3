#!/usr/bin/env python3
"""Writes the folders and files that BLIP-2's parts are published in, small and with random weights, to try loaders on.

  scripts/make_random_hf.py --tokenizers DIR --out DIR [--only PART_OF_A_NAME...] [--seed N] [sizes]

Names, types, buffers, tied tensors and containers are those of the published files, the vocabularies are the real ones,
and the model sizes are flags. DIR of the tokenizers has bert-base-uncased/vocab.txt, opt/{vocab.json,merges.txt},
t5/tokenizer.json with its two config files, and clip/bpe_simple_vocab_16e6.txt.gz.

Files of one family hold the same numbers, all exact in float16, so that different ways to load a model can be compared:
the folder blip2-opt, and LAVIS's file with the image encoder's file and the language model's folder, are one model.
README.md in the output says which is which, and what is particular about each.

  pip install torch==2.12.1 transformers==4.57.6 tokenizers==0.22.2 safetensors==0.8.0 pillow sentencepiece protobuf
"""
import argparse
import base64
import collections
import copy
import gzip
import json
import math
import os
import shutil
import sys
import zipfile

import torch
import transformers
from safetensors.torch import save_file
from transformers.models.clip.tokenization_clip import bytes_to_unicode

import lavis_names

LAYOUTS = {
    "opt-bin": "facebook/opt-1.3b: one pytorch_model.bin of torch 1.6 to 1.10, float16, `model.decoder.*`, and "
               "`lm_head.weight` in one storage with `embed_tokens`",
    "opt-bin-bare": "facebook/opt-350m: names `decoder.*` without `model.`, no `lm_head.weight`",
    "opt-sharded-bin": "facebook/opt-6.7b: two parts with an index, names `decoder.*`, no `lm_head.weight`",
    "opt-safetensors-head": "an automatic conversion: `lm_head.weight` is there, `model.decoder.embed_tokens.weight` "
                            "is not; the header's metadata say that they are one. transformers 4.57 leaves the table "
                            "empty",
    "flan-t5-sharded": "google/flan-t5-xl: two safetensors shards, float32; the index also lists the embedding tables "
                       "of encoder and decoder, which no shard holds (they are `shared.weight`)",
    "flan-t5-bin": "google/flan-t5-base: one pytorch_model.bin; three names of the embedding in one storage; stray "
                   "`decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight`, as in older T5 files",
    "flan-t5-sharded-bin": "google/flan-t5-xxl: three parts with an index, three names of the embedding",
    "blip2-opt": "Salesforce/blip2-opt-2.7b as first published: float32, two safetensors shards, no "
                 "`lm_head.weight`, no image token, all defaults written out in config.json",
    "blip2-opt-image-token": "the same now: image_token_index 50265, 50,304 rows, processor_config.json, config.json "
                             "without defaults",
    "blip2-opt-bin": "the same as pytorch_model.bin in three parts, with `lm_head.weight`",
    "blip2-opt-q-bias": "the same from before `qkv.bias`: `q_bias` and `v_bias`. transformers 4.57 does not load it",
    "blip2-opt-coco": "Salesforce/blip2-opt-2.7b-coco: the larger picture, an image encoder of its own",
    "blip2-flan-t5": "Salesforce/blip2-flan-t5-xl as first published: float32, no image token, `shared.weight` once",
    "blip2-flan-t5-image-token": "the same now, saved in float16: image_token_index 32100, processor_config.json",
    "blip2-flan-t5-coco": "Salesforce/blip2-flan-t5-xl-coco: the larger picture",
    "blip2-itm-vit-g": "Salesforce/blip2-itm-vit-g: one model.safetensors, BERT's vocabulary with [DEC] = 30522",
    "blip2-itm-vit-g-coco": "Salesforce/blip2-itm-vit-g-coco: the larger picture; image_token_index 30523 has no row",
    "clip-safetensors": "openai/clip-vit-large-patch14: float32, int64 `*.position_ids`, `logit_scale`, config.json "
                        "with text_config_dict, preprocessor_config.json with plain numbers as sizes",
    "clip-bin": "the same as pytorch_model.bin",
    "bert-old-bin": "bert-base-uncased: the container from before torch 1.6, LayerNorm.gamma, beta, pooler, two heads",
    "bert-old-safetensors": "the same names in model.safetensors, `cls.predictions.decoder.weight` written again",
    "bert-new-safetensors": "a present BertForMaskedLM: weight and bias, no pooler, tied tensors written once",
    "blip-caption-safetensors": "Salesforce/blip-image-captioning-large: float32, tied tensors written once, "
                                "`position_ids`; config.json says layer_norm_eps 1e-5 although 1e-6 was trained",
    "blip-caption-bin": "the same as pytorch_model.bin, with the tied names",
    "lavis/eva_vit_g.pth": "the frozen ViT-g: bare state dict, float16, a block more than is used, final norm, head",
    "lavis/clip_vit_L.pth": "the image tower of clip-safetensors under OpenAI's names: bare, float16, with the last "
                            "block, ln_post and proj",
    "lavis/blip2_pretrained.pth": "stage 1: {'model': …}, float32, no image encoder; with eva_vit_g.pth it is "
                                  "blip2-itm-vit-g",
    "lavis/blip2_pretrained_vitL.pth": "stage 1 on clip_vit_L.pth",
    "lavis/blip2_finetune_coco.pth": "retrieval: with `visual_encoder.*`; it is blip2-itm-vit-g-coco",
    "lavis/blip2_pretrained_opt2.7b.pth": "stage 2: Q-Former without text side, opt_proj; with eva_vit_g.pth and "
                                          "opt-bin it is blip2-opt",
    "lavis/blip2_pretrained_flant5xl.pth": "stage 2: t5_proj; with eva_vit_g.pth and flan-t5-sharded it is "
                                           "blip2-flan-t5",
    "lavis/blip2_caption_opt2.7b.pth": "captioning: with `visual_encoder.*`; with opt-bin it is blip2-opt-coco",
    "lavis/blip2_caption_flant5xl.pth": "the same; with flan-t5-sharded it is blip2-flan-t5-coco",
    "lavis/model_large_caption.pth": "the original of blip-caption-*: {'model': …}, timm's names, `qkv.bias` whole",
}
FP16 = torch.float16
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
OPT_ROWS, OPT_PADDED_ROWS, T5_ROWS, BERT_ROWS, CLIP_ROWS = 50272, 50304, 32128, 30522, 49408
NEWLINE = 50118  # ends a text in BLIP-2's OPT folders
IMAGE_TOKEN = {"opt": 50265, "t5": 32100, None: BERT_ROWS + 1}
OPT_HEAD, OPT_TABLE = "lm_head.weight", "model.decoder.embed_tokens.weight"
T5_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
GENERATION = {"opt": {"bos_token_id": 2, "eos_token_id": NEWLINE, "pad_token_id": 1},
              "t5": {"bos_token_id": 1, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}}


# ---------------------------------------------------------------- models

def randomise(model, seed):
    """Uneven norms and biases, lively attention; all exact in float16. The key biases that LAVIS lacks are 0."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name.lower() and name.endswith("weight"):
                noise = torch.rand(p.shape, generator=gen) * 0.8 + 0.6
            elif name == "logit_scale":
                noise = torch.tensor(math.log(1 / 0.07))
            elif any(part in name for part in ("embed", "shared.", "query_tokens")):
                noise *= 0.25
            elif p.dim() < 2:
                noise *= 0.1
            elif "relative_attention_bias" not in name:
                noise *= 1.4 / math.sqrt(p[0].numel())
            if name.endswith("self_attn.qkv.bias") and model.config.model_type == "blip-2":
                noise.chunk(3)[1].zero_()
            p.copy_(noise.to(FP16))
    model.tie_weights()
    return model.eval()


def blip2_parts(args, size, **qformer):
    width, layers, heads = args.vision
    hidden, depth, parts = args.qformer
    vision = dict(hidden_size=width, intermediate_size=int(width * 4.3637), num_hidden_layers=layers,
                  num_attention_heads=heads, image_size=size, patch_size=14, hidden_act="gelu", layer_norm_eps=1e-6,
                  attention_dropout=0.0, qkv_bias=True)
    middle = dict(vocab_size=BERT_ROWS, hidden_size=hidden, num_hidden_layers=depth, num_attention_heads=parts,
                  intermediate_size=4 * hidden, max_position_embeddings=512, layer_norm_eps=1e-12,
                  cross_attention_frequency=2, encoder_hidden_size=width)
    return dict(vision_config=vision, qformer_config=middle | qformer, num_query_tokens=args.queries)


def opt_config(args):
    hidden, layers, heads = args.opt
    return dict(model_type="opt", vocab_size=OPT_ROWS, hidden_size=hidden, word_embed_proj_dim=hidden,
                ffn_dim=4 * hidden, num_hidden_layers=layers, num_attention_heads=heads, max_position_embeddings=2048,
                bos_token_id=2, eos_token_id=NEWLINE, pad_token_id=1, prefix="</s>")


def t5_config(args):
    """As in BLIP-2: the exact gelu. google/flan-t5-* say gelu_new."""
    width, layers, heads, kv = args.t5
    return dict(model_type="t5", vocab_size=T5_ROWS, d_model=width, d_kv=kv, d_ff=2 * width, num_layers=layers,
                num_decoder_layers=layers, num_heads=heads, feed_forward_proj="gated-gelu", dense_act_fn="gelu",
                layer_norm_epsilon=1e-6, tie_word_embeddings=False, is_encoder_decoder=True, bos_token_id=1,
                pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)


def blip2(args, language, size, seed):
    text = opt_config(args) if language == "opt" else t5_config(args)
    config = transformers.Blip2Config(**blip2_parts(args, size), text_config=text)
    return randomise(transformers.Blip2ForConditionalGeneration(config), seed)


def blip2_itm(args, size, seed):
    parts = blip2_parts(args, size, vocab_size=BERT_ROWS + 1, use_qformer_text_input=True)
    config = transformers.Blip2Config(**parts, image_text_hidden_size=args.embed)
    return randomise(transformers.Blip2ForImageTextRetrieval(config), seed)


def share_vision(target, source):
    """The frozen encoder is the same in every model trained on it; the norm after it is each model's own."""
    for part in ("embeddings", "encoder"):
        getattr(target.vision_model, part).load_state_dict(getattr(source.vision_model, part).state_dict())


def clip(args, seed):
    width, layers, heads = args.clip_vision
    text, depth, parts = args.clip_text
    config = transformers.CLIPConfig(
        projection_dim=text, logit_scale_init_value=2.6592,
        vision_config=dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, patch_size=14,
                           num_attention_heads=heads, image_size=args.image_size, projection_dim=text),
        text_config=dict(hidden_size=text, intermediate_size=4 * text, num_hidden_layers=depth, vocab_size=CLIP_ROWS,
                         num_attention_heads=parts, max_position_embeddings=77, projection_dim=text,
                         bos_token_id=0, eos_token_id=2, pad_token_id=1))
    return randomise(transformers.CLIPModel(config), seed)


def bert(args, seed):
    """With both heads, as it was trained."""
    hidden, layers, heads = args.qformer
    config = transformers.BertConfig(vocab_size=BERT_ROWS, hidden_size=hidden, num_hidden_layers=layers,
                                     num_attention_heads=heads, intermediate_size=4 * hidden)
    return randomise(transformers.BertForPreTraining(config), seed)


def blip_caption(args, seed):
    width, layers, heads = args.blip_vision
    hidden, depth, parts = args.blip_text
    config = transformers.BlipConfig(
        vision_config=dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, patch_size=16,
                           num_attention_heads=heads, image_size=args.blip_image_size, layer_norm_eps=1e-5),
        text_config=dict(vocab_size=BERT_ROWS + 2, hidden_size=hidden, encoder_hidden_size=width,
                         intermediate_size=4 * hidden, num_hidden_layers=depth, num_attention_heads=parts,
                         max_position_embeddings=512, bos_token_id=BERT_ROWS, sep_token_id=102, pad_token_id=0,
                         eos_token_id=2, is_decoder=True))
    return randomise(transformers.BlipForConditionalGeneration(config), seed)


# ---------------------------------------------------------------- containers

def state(model, **position_ids):
    """The state dict as torch gives it. position_ids: lengths of the buffers that older versions of the library stored;
    two underscores stand for a dot."""
    out = model.state_dict()
    for name, length in position_ids.items():
        name = name.replace("__", ".") + ".position_ids"
        out[name] = torch.arange(length)[None]
        out.move_to_end(name, last=False)
    return out


def pick(tensors, keep):
    return collections.OrderedDict((name, t) for name, t in tensors.items() if keep(name))


def convert(t, dtype):
    return t.detach().to(dtype).clone() if dtype and t.is_floating_point() else t.detach().clone()


def with_metadata(tensors):
    """The attribute that torch gives every state dict, and that is pickled with it."""
    modules = {""} | {name[:i] for name in tensors for i, c in enumerate(name) if c == "."}
    tensors._metadata = collections.OrderedDict((m, {"version": 1}) for m in sorted(modules))
    return tensors


def write_safetensors(folder, tensors, dtype=None, name="model.safetensors", **metadata):
    save_file({n: convert(t, dtype).contiguous() for n, t in tensors.items()}, os.path.join(folder, name),
              metadata={"format": "pt"} | metadata)


def write_bin(path, tensors, dtype=None, container="zip", wrap=None):
    """A pickle of torch.save; tied tensors share a storage. container: "zip" as torch 1.6 to 1.10 wrote it (entries
    under "archive", neither byte order nor alignment), or "legacy" from before. wrap: what the state dict goes into."""
    once, out = {}, collections.OrderedDict()
    for name, t in tensors.items():
        key = (t.data_ptr(), tuple(t.shape)) if t.numel() else name
        out[name] = once.setdefault(key, convert(t, dtype))
    out = with_metadata(out)
    torch.save(wrap(out) if wrap else out, path, _use_new_zipfile_serialization=container == "zip")
    if container == "zip":
        with zipfile.ZipFile(path) as new:
            entries = {n.split("/", 1)[1]: new.read(n) for n in new.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as old:
            for name, content in entries.items():
                if name in ("data.pkl", "version") or name.startswith("data/"):
                    old.writestr("archive/" + name, content)


def write_shards(folder, tensors, count, dtype=None, kind="safetensors", listed=()):
    """Parts of about as many tensors in the order given, with an index; one part is the plain file. listed: names that
    the index has and no part."""
    stem, end = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    files = [f"{stem}-{i + 1:05d}-of-{count:05d}.{end}" for i in range(count)] if count > 1 else [f"{stem}.{end}"]
    where = {name: files[i * count // len(tensors)] for i, name in enumerate(tensors)}
    for file in files:
        part = pick(tensors, lambda name: where[name] == file)
        if kind == "safetensors":
            write_safetensors(folder, part, dtype, file)
        else:
            write_bin(os.path.join(folder, file), part, dtype)
    if count > 1:
        size = sum(t.numel() * (dtype or t.dtype).itemsize for t in tensors.values())
        where = dict(sorted((where | dict.fromkeys(listed, files[0])).items()))
        write_json(folder, f"{stem}.{end}.index.json", {"metadata": {"total_size": size}, "weight_map": where})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def write_generation(folder, ids):
    write_json(folder, "generation_config.json", {"_from_model_config": True} | ids)


def write_config(folder, model, dtype, brief=False, **changes):
    """config.json with torch_dtype, as it was called; brief leaves out defaults; None in changes removes a key."""
    config = model.config.to_diff_dict() if brief else model.config.to_dict()
    config |= {"architectures": [type(model).__name__], "torch_dtype": dtype} | changes
    write_json(folder, "config.json", {k: v for k, v in config.items() if v is not None and k != "dtype"})


# ---------------------------------------------------------------- tokenizers and image processors

def opt_tokenizer(args, folder, fast=False):
    """vocab.json and merges.txt with add_bos_token; BLIP-2's folders also have tokenizer.json."""
    source = os.path.join(args.tokenizers, "opt")
    files = [os.path.join(source, name) for name in ("vocab.json", "merges.txt")]
    slow = transformers.GPT2Tokenizer(*files, bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>",
                                      add_bos_token=True, add_prefix_space=False)
    slow.save_pretrained(folder)
    if fast:
        transformers.GPT2TokenizerFast.from_pretrained(folder).save_pretrained(folder)
    for file in files:
        shutil.copy(file, folder)


def t5_tokenizer(args, folder):
    source = os.path.join(args.tokenizers, "t5")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
    write_spiece(os.path.join(source, "tokenizer.json"), os.path.join(folder, "spiece.model"))


def write_spiece(tokenizer_json, path):
    """The vocabulary of tokenizer.json as a SentencePiece model: published folders have both."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    with open(tokenizer_json, encoding="utf-8") as f:
        whole = json.load(f)
    proto, kinds = pb.ModelProto(), {"<pad>": "CONTROL", "</s>": "CONTROL", "<unk>": "UNKNOWN"}
    for piece, score in whole["model"]["vocab"]:
        if not piece.startswith("<extra_id_"):
            kind = getattr(pb.ModelProto.SentencePiece, kinds.get(piece, "NORMAL"))
            proto.pieces.add(piece=piece, score=score, type=kind)
    spec, rules = proto.trainer_spec, proto.normalizer_spec
    spec.model_type, spec.vocab_size = pb.TrainerSpec.UNIGRAM, len(proto.pieces)
    spec.pad_id, spec.eos_id, spec.unk_id, spec.bos_id, spec.unk_piece = 0, 1, 2, -1, "<unk>"
    rules.name, rules.add_dummy_prefix = "nmt_nfkc", True
    rules.remove_extra_whitespaces, rules.escape_whitespaces = True, True
    steps = whole["normalizer"].get("normalizers", [whole["normalizer"]])
    charsmaps = [base64.b64decode(s["precompiled_charsmap"]) for s in steps if s["type"] == "Precompiled"]
    rules.precompiled_charsmap = charsmaps[0] if charsmaps else b""
    with open(path, "wb") as f:
        f.write(proto.SerializeToString())


def bert_tokenizer(args, folder, **special):
    vocab = os.path.join(args.tokenizers, "bert-base-uncased", "vocab.txt")
    transformers.BertTokenizerFast(vocab, do_lower_case=True, **special).save_pretrained(folder)
    shutil.copy(vocab, folder)


def clip_tokenizer(args, folder):
    """From OpenAI's list of merges. The ids: bytes, bytes that end a word, merges, the two marks."""
    path = os.path.join(args.tokenizers, "clip", "bpe_simple_vocab_16e6.txt.gz")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        merges = f.read().split("\n")[1:CLIP_ROWS - 2 * 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    write_json(folder, "vocab.json", {w: i for i, w in enumerate(words + ["<|startoftext|>", "<|endoftext|>"])})
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "\n".join(merges) + "\n")
    transformers.CLIPTokenizerFast.from_pretrained(folder).save_pretrained(folder)


def image_processor(folder, size, processor="Blip2Processor"):
    write_json(folder, "preprocessor_config.json", {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": CLIP_MEAN,
        "image_processor_type": "BlipImageProcessor", "image_std": CLIP_STD, "processor_class": processor,
        "resample": 3, "rescale_factor": 1 / 255, "size": {"height": size, "width": size}})


# ---------------------------------------------------------------- families

class Writer:
    """Knows what --only asks for, and what was written."""

    def __init__(self, args):
        self.args, self.names = args, []

    def new(self, name):
        """The path for a layout, an empty folder unless it is a file of lavis/; None if it was not asked for."""
        if name not in LAYOUTS:
            raise KeyError(name)
        if self.args.only and not any(part in name for part in self.args.only):
            return None
        self.names.append(name)
        path = os.path.join(self.args.out, name)
        if name.startswith("lavis/"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path)
        return path


def write_opt_family(w, model):
    """facebook/opt-*: the language model of a BLIP-2 under its own names, float16, ending texts with </s>."""
    lm = copy.deepcopy(model.language_model)
    lm.config.eos_token_id = 2
    full = state(lm)
    bare = collections.OrderedDict((n.removeprefix("model."), t) for n, t in full.items() if n != OPT_HEAD)
    headed = pick(full, lambda name: name != OPT_TABLE)
    ways = {"opt-bin": lambda folder: write_shards(folder, full, 1, FP16, "bin"),
            "opt-bin-bare": lambda folder: write_shards(folder, bare, 1, FP16, "bin"),
            "opt-sharded-bin": lambda folder: write_shards(folder, bare, 2, FP16, "bin"),
            "opt-safetensors-head": lambda folder: write_safetensors(folder, headed, FP16, **{OPT_TABLE: OPT_HEAD})}
    for name, write in ways.items():
        if folder := w.new(name):
            write(folder)
            write_config(folder, lm, "float16")
            write_generation(folder, GENERATION["opt"] | {"eos_token_id": 2})
            opt_tokenizer(w.args, folder)


def write_t5_family(w, model):
    """google/flan-t5-*: float32, the other gelu."""
    lm = copy.deepcopy(model.language_model)
    lm.config.dense_act_fn = "gelu_new"
    full, table = state(lm), "decoder.block.0.layer.{}.relative_attention_bias.weight"
    once = pick(full, lambda name: name not in T5_TABLES)
    stray = full | {table.format("1.EncDecAttention"): full[table.format("0.SelfAttention")].clone()}
    ways = {"flan-t5-sharded": lambda folder: write_shards(folder, once, 2, listed=T5_TABLES),
            "flan-t5-bin": lambda folder: write_shards(folder, stray, 1, kind="bin"),
            "flan-t5-sharded-bin": lambda folder: write_shards(folder, full, 3, kind="bin")}
    for name, write in ways.items():
        if folder := w.new(name):
            write(folder)
            write_config(folder, lm, "float32", output_past=True, bos_token_id=None)
            write_generation(folder, {k: v for k, v in GENERATION["t5"].items() if k != "bos_token_id"})
            t5_tokenizer(w.args, folder)


def write_blip2(w, name, model, language=None, shards=2, dtype=None, kind="safetensors", image_token=False,
                head=False):
    """A folder of Salesforce/blip2-*; language "opt", "t5" or None (retrieval). head: OPT's tied head is written."""
    folder = w.new(name)
    if not folder:
        return
    args, size = w.args, model.config.vision_config.image_size
    if language == "opt" and image_token:
        model = copy.deepcopy(model)
        model.language_model.resize_token_embeddings(OPT_PADDED_ROWS, mean_resizing=False)
        model.config.text_config.vocab_size = OPT_PADDED_ROWS
    twice = {"t5": T5_TABLES, "opt": () if head else (OPT_HEAD,)}.get(language, ())
    tensors = pick(state(model), lambda name: name.removeprefix("language_model.") not in twice)
    tensors = split_bias(tensors) if name.endswith("q-bias") else tensors
    write_shards(folder, tensors, shards, dtype, kind)
    write_config(folder, model, "float16" if dtype == FP16 else "float32", brief=image_token,
                 image_token_index=IMAGE_TOKEN[language] if image_token else None)
    image_processor(folder, size)
    if language:
        write_generation(folder, GENERATION[language])
    if language == "opt":
        opt_tokenizer(args, folder, fast=True)
    elif language == "t5":
        t5_tokenizer(args, folder)
    else:
        bert_tokenizer(args, folder, bos_token="[DEC]")
    if image_token:
        pictures = transformers.BlipImageProcessor.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        transformers.Blip2Processor(pictures, tokenizer, num_query_tokens=args.queries).save_pretrained(folder)


def split_bias(tensors):
    out = collections.OrderedDict()
    for name, t in tensors.items():
        if name.endswith("self_attn.qkv.bias"):
            q, _, v = t.chunk(3)
            out[name.replace("qkv.bias", "q_bias")], out[name.replace("qkv.bias", "v_bias")] = q, v
        else:
            out[name] = t
    return out


def write_blip2_families(w):
    args, seed = w.args, w.args.seed * 1000
    opt, opt_coco = blip2(args, "opt", args.image_size, seed), blip2(args, "opt", args.caption_image_size, seed + 1)
    t5, t5_coco = blip2(args, "t5", args.image_size, seed + 2), blip2(args, "t5", args.caption_image_size, seed + 3)
    itm, itm_coco = blip2_itm(args, args.image_size, seed + 4), blip2_itm(args, args.caption_image_size, seed + 5)
    share_vision(t5, opt)
    share_vision(itm, opt)
    for tuned, base in ((opt_coco, opt), (t5_coco, t5)):
        tuned.language_model.load_state_dict(base.language_model.state_dict())
    write_opt_family(w, opt)
    write_t5_family(w, t5)
    write_blip2(w, "blip2-opt", opt, "opt")
    write_blip2(w, "blip2-opt-image-token", opt, "opt", image_token=True)
    write_blip2(w, "blip2-opt-bin", opt, "opt", shards=3, kind="bin", head=True)
    write_blip2(w, "blip2-opt-q-bias", opt, "opt", kind="bin")
    write_blip2(w, "blip2-opt-coco", opt_coco, "opt")
    write_blip2(w, "blip2-flan-t5", t5, "t5")
    write_blip2(w, "blip2-flan-t5-image-token", t5, "t5", shards=3, dtype=FP16, image_token=True)
    write_blip2(w, "blip2-flan-t5-coco", t5_coco, "t5")
    write_blip2(w, "blip2-itm-vit-g", itm, shards=1)
    write_blip2(w, "blip2-itm-vit-g-coco", itm_coco, shards=1, image_token=True)

    write_lavis(w, "eva_vit_g.pth", eva_file(opt, seed + 10), bare=True)
    write_lavis(w, "blip2_pretrained.pth", checkpoint(itm, frozen=True) | stage1_rest(itm, seed + 11))
    write_lavis(w, "blip2_finetune_coco.pth", checkpoint(itm_coco) | stage1_rest(itm_coco, seed + 12))
    write_lavis(w, "blip2_pretrained_opt2.7b.pth", checkpoint(opt, lavis_names.OPT, frozen=True))
    write_lavis(w, "blip2_pretrained_flant5xl.pth", checkpoint(t5, lavis_names.T5, frozen=True))
    write_lavis(w, "blip2_caption_opt2.7b.pth", checkpoint(opt_coco, lavis_names.OPT))
    write_lavis(w, "blip2_caption_flant5xl.pth", checkpoint(t5_coco, lavis_names.T5))


def write_lavis(w, name, tensors, bare=False):
    """Image encoders are bare and float16, checkpoints are {'model': …} and float32."""
    if path := w.new("lavis/" + name):
        write_bin(path, tensors, FP16 if bare else None, wrap=None if bare else lambda t: {"model": t})


def checkpoint(model, table=lavis_names.BLIP2, frozen=False):
    """What LAVIS's trainer saves: what was trained, and BERT's buffer. frozen: the image encoder was not."""
    own = lavis_names.to_lavis(pick(state(model), lambda name: not name.startswith("language_model.")), table)
    out = pick(own, lambda name: not (frozen and name.startswith("visual_encoder.")))
    out["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    return out


def stage1_rest(model, seed):
    """What a stage-1 file has and transformers' retrieval model has not: the captioning head, tied, and temp."""
    gen, hidden = torch.Generator().manual_seed(seed), model.config.qformer_config.hidden_size

    def draw(*shape):
        return (torch.randn(shape, generator=gen) * 0.1).to(FP16).float()

    head, bias = "Qformer.cls.predictions.", draw(BERT_ROWS + 1)
    return {head + "bias": bias, head + "transform.dense.weight": draw(hidden, hidden),
            head + "transform.dense.bias": draw(hidden), head + "transform.LayerNorm.weight": 1 + draw(hidden),
            head + "transform.LayerNorm.bias": draw(hidden), head + "decoder.bias": bias,
            head + "decoder.weight": model.embeddings.word_embeddings.weight, "temp": torch.tensor(0.07)}


def eva_file(model, seed):
    """The encoder under bare names, with a block that LAVIS does not build, a final norm and a head."""
    gen, vision = torch.Generator().manual_seed(seed), model.config.vision_config
    parts = ("vision_model.embeddings", "vision_model.encoder")
    own = lavis_names.to_lavis(pick(state(model), lambda name: name.startswith(parts)), lavis_names.VISION)
    out = collections.OrderedDict((name.removeprefix("visual_encoder."), t) for name, t in own.items())
    for name in [n for n in out if n.startswith("blocks.0.")]:
        out[name.replace(".0.", f".{vision.num_hidden_layers}.", 1)] = torch.randn(out[name].shape, generator=gen)
    for name, rows in (("norm.weight", ()), ("norm.bias", ()), ("head.weight", (10,))):
        out[name] = torch.randn(*rows, vision.hidden_size, generator=gen)
    out["head.bias"] = torch.randn(10, generator=gen)
    return out


def write_clip_family(w):
    args, seed = w.args, w.args.seed * 1000 + 20
    model = clip(args, seed)
    positions = model.vision_model.embeddings.num_positions
    full = state(model, vision_model__embeddings=positions, text_model__embeddings=77)
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "patch_size",
             "projection_dim")
    extra = {key + "_dict": {n: v for n, v in getattr(model.config, key).to_dict().items() if n in sizes}
             for key in ("text_config", "vision_config")}
    for name, kind in (("clip-safetensors", "safetensors"), ("clip-bin", "bin")):
        if folder := w.new(name):
            write_shards(folder, full, 1, kind=kind)
            write_config(folder, model, "float32", **extra)
            clip_tokenizer(args, folder)
            write_json(folder, "preprocessor_config.json", {
                "crop_size": args.image_size, "do_center_crop": True, "do_normalize": True, "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
                "resample": 3, "size": args.image_size})
    write_lavis(w, "clip_vit_L.pth", lavis_names.clip_to_lavis(state(model)), bare=True)
    other = copy.copy(args)
    other.vision = [args.clip_vision[0], 1, 1]  # only the width counts: the encoder itself is not in the checkpoint
    stage1 = blip2_itm(other, args.image_size, seed + 1)
    write_lavis(w, "blip2_pretrained_vitL.pth", checkpoint(stage1, frozen=True) | stage1_rest(stage1, seed + 2))


def write_bert_family(w):
    model = bert(w.args, w.args.seed * 1000 + 30)
    full = pick(state(model), lambda name: name != "cls.predictions.decoder.bias")
    old_names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = collections.OrderedDict()
    for name, t in full.items():
        for new, before in old_names.items():
            name = name.replace(new, before)
        old[name] = t
    gone = ("bert.pooler.", "cls.seq_relationship.", "cls.predictions.decoder.")
    new = pick(full, lambda name: not name.startswith(gone))
    ways = {"bert-old-bin": lambda folder: write_bin(os.path.join(folder, "pytorch_model.bin"), old, None, "legacy"),
            "bert-old-safetensors": lambda folder: write_safetensors(folder, old),
            "bert-new-safetensors": lambda folder: write_safetensors(folder, new)}
    for name, write in ways.items():
        if folder := w.new(name):
            write(folder)
            write_config(folder, model, None, architectures=["BertForMaskedLM"])
            bert_tokenizer(w.args, folder)


def write_caption_family(w):
    model = blip_caption(w.args, w.args.seed * 1000 + 40)
    full = state(model, text_decoder__bert__embeddings=512)
    once = pick(full, lambda name: not name.startswith("text_decoder.cls.predictions.decoder."))
    for name, kind, tensors in (("blip-caption-safetensors", "safetensors", once), ("blip-caption-bin", "bin", full)):
        if folder := w.new(name):
            write_shards(folder, tensors, 1, kind=kind)
            write_config(folder, model, "float32")
            image_processor(folder, w.args.blip_image_size, "BlipProcessor")
            bert_tokenizer(w.args, folder)
    write_lavis(w, "model_large_caption.pth", lavis_names.to_lavis(full, lavis_names.BLIP_CAPTION))


# ---------------------------------------------------------------- command line

def write_readme(w):
    head = ["Folders and files in the layouts of published models, with random weights.",
            f"Made by scripts/make_random_hf.py --seed {w.args.seed} with transformers {transformers.__version__}.", ""]
    rows = ["| path | layout |", "|---|---|"] + [f"| {name} | {LAYOUTS[name]} |" for name in w.names]
    with open(os.path.join(w.args.out, "README.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(head + rows) + "\n")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokenizers", required=True, help="folder with bert-base-uncased, opt, t5 and clip")
    p.add_argument("--out", required=True, help="folder to write into; folders of the same names are replaced")
    p.add_argument("--only", nargs="+", help="write only what has one of these in its name")
    p.add_argument("--seed", type=int, default=1)
    for flag, default in (("vision", [44, 3, 4]), ("qformer", [24, 4, 3]), ("opt", [20, 2, 5]), ("t5", [16, 2, 3, 8]),
                          ("clip-vision", [32, 3, 4]), ("clip-text", [24, 2, 3]), ("blip-vision", [32, 2, 2]),
                          ("blip-text", [24, 2, 3])):
        p.add_argument("--" + flag, type=int, nargs=len(default), default=default,
                       metavar=("WIDTH", "LAYERS", "HEADS", "KEY_WIDTH")[:len(default)])
    for flag, default in (("queries", 32), ("embed", 16), ("image-size", 224), ("caption-image-size", 364),
                          ("blip-image-size", 384)):
        p.add_argument("--" + flag, type=int, default=default)
    return p.parse_args()


def main():
    args = arguments()
    transformers.logging.set_verbosity_error()
    if not os.path.isdir(args.tokenizers):
        sys.exit(f"{args.tokenizers}: no such folder")
    w = Writer(args)
    for write in (write_blip2_families, write_clip_family, write_bert_family, write_caption_family):
        write(w)
    if not w.names:
        sys.exit(f"no layout has {' or '.join(args.only)} in its name; there are {', '.join(LAYOUTS)}")
    write_readme(w)
    print(f"{len(w.names)} layouts in {args.out}; its README.md describes them")


if __name__ == "__main__":
    main()
