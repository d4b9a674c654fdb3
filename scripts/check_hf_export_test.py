#!/usr/bin/env python3
"""Shows that check_hf_export.py finds damage: whole folders pass, and each way to spoil one is reported by name.

  scripts/check_hf_export_test.py --tokenizers DIR      (as for make_random_hf.py; two minutes of one core)
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import torch
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ARGS = argparse.Namespace(tokenizers=None, work=None)


def script(name, *args):
    return subprocess.run([sys.executable, os.path.join(HERE, name), *args], capture_output=True, text=True)


def tensors(change):
    """Spoils model.safetensors, or the first shard."""
    def spoil(folder):
        name = sorted(f for f in os.listdir(folder) if f.endswith(".safetensors"))[0]
        path = os.path.join(folder, name)
        held = load_file(path)
        change(held)
        save_file(held, path, metadata={"format": "pt"})
    return spoil


def flip_bit(held):
    t = held["query_tokens"]
    t.view(torch.int32)[0, 0, 0] ^= 1


def swap(held):
    a, b = (f"vision_model.encoder.layers.0.layer_norm{i}.weight" for i in (1, 2))
    held[a], held[b] = held[b], held[a]


def rename(held):
    held["qformer.layernorm.gain"] = held.pop("qformer.layernorm.weight")


def reshape(held):
    held["query_tokens"] = held["query_tokens"][:, :-1].contiguous()


def narrow(held):
    held["query_tokens"] = held["query_tokens"].half()


def extra(held):
    held["temp"] = torch.tensor(0.07)


def setting(name, *keys, value):
    """Changes one value of a JSON file of the folder."""
    def spoil(folder):
        path = os.path.join(folder, name)
        with open(path, encoding="utf-8") as f:
            whole = json.load(f)
        part = whole
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        with open(path, "w", encoding="utf-8") as f:
            json.dump(whole, f)
    return spoil


def cut_file(folder):
    path = os.path.join(folder, "model.safetensors")
    with open(path, "r+b") as f:
        f.truncate(os.path.getsize(path) - 4)


def drop(*names):
    def spoil(folder):
        for name in names:
            os.remove(os.path.join(folder, name))
    return spoil


# The folder to spoil, how, and the checks that must fail.
DAMAGE = {
    "one bit": ("blip2-itm-vit-g", tensors(flip_bit), ["tensors"]),
    "two tensors swapped": ("blip2-opt", tensors(swap), ["tensors", "query embeddings"]),
    "another name": ("blip2-itm-vit-g", tensors(rename), ["export's keys", "tensors"]),
    "another shape": ("blip2-itm-vit-g", tensors(reshape), ["models"]),
    "another type": ("blip2-itm-vit-g", tensors(narrow), ["stored types"]),
    "one tensor more": ("blip2-itm-vit-g", tensors(extra), ["export's keys"]),
    "a file cut short": ("blip2-itm-vit-g", cut_file, ["models"]),
    "another epsilon": ("blip2-opt", setting("config.json", "vision_config", "layer_norm_eps", value=1e-3),
                        ["config", "query embeddings"]),
    "the other gelu": ("blip2-flan-t5", setting("config.json", "text_config", "dense_act_fn", value="gelu_new"),
                       ["config", "logits"]),
    "another end of text": ("blip2-opt", setting("generation_config.json", "eos_token_id", value=2),
                            ["generation config"]),
    "another class": ("blip2-itm-vit-g",
                      setting("config.json", "architectures", value=["Blip2ForConditionalGeneration"]), ["class"]),
    "another mean": ("blip2-opt", setting("preprocessor_config.json", "image_mean", value=[0.5, 0.5, 0.5]),
                     ["image processor", "Blip2Processor"]),
    "no start of text": ("blip2-opt", setting("tokenizer.json", "post_processor", value=None),
                         ["tokenizer", "Blip2Processor"]),
    "no tokenizer": ("blip2-itm-vit-g", drop("tokenizer.json", "vocab.txt"), ["tokenizer"]),
    "no image processor": ("blip2-itm-vit-g", drop("preprocessor_config.json"), ["image processor"]),
}


class Damage(unittest.TestCase):
    def check(self, original, exported):
        return script("check_hf_export.py", "--original", *original, "--exported", exported)

    def test_whole(self):
        for name in sorted({folder for folder, _, _ in DAMAGE.values()}):
            with self.subTest(name):
                folder = os.path.join(ARGS.work, name)
                done = self.check([folder], folder)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_lavis(self):
        files = [os.path.join(ARGS.work, "lavis", f) for f in ("eva_vit_g.pth", "blip2_pretrained.pth")]
        exported = os.path.join(ARGS.work, "blip2-itm-vit-g")
        done = self.check(files, exported)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = self.check(files[1:], exported)
        self.assertEqual(done.returncode, 1, "the image encoder is missing")
        self.assertIn("the original lacks vision_model.embeddings.class_embedding", done.stdout)

    def test_damage(self):
        for what, (name, spoil, checks) in DAMAGE.items():
            with self.subTest(what), tempfile.TemporaryDirectory() as folder:
                original = os.path.join(ARGS.work, name)
                shutil.copytree(original, folder, dirs_exist_ok=True)
                spoil(folder)
                done = self.check([original], folder)
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                for check in checks:
                    lines = [line for line in done.stdout.splitlines() if line.startswith(f"{check:18s} ")]
                    good = [line for line in lines if line.endswith((" equal", "none unexpected", "bit for bit"))]
                    self.assertTrue(lines and not good, f"{check} is not reported:\n{done.stdout}{done.stderr}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokenizers", required=True)
    ARGS.tokenizers = p.parse_args().tokenizers
    with tempfile.TemporaryDirectory() as ARGS.work:
        done = script("make_random_hf.py", "--tokenizers", ARGS.tokenizers, "--out", ARGS.work, "--only", "blip2",
                      "eva", "--image-size", "42", "--caption-image-size", "56")
        if done.returncode:
            sys.exit(done.stderr)
        unittest.main(argv=sys.argv[:1])


if __name__ == "__main__":
    main()
