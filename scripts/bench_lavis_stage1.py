#!/usr/bin/env python3
"""Times a stage-1 training step of LAVIS on PyTorch's CPU backend, to compare with

    blip2 bench stage1 --model vitl --backend xla:cpu

It trains the same model: CLIP ViT-L/14 frozen, 224 px, the full Q-Former with 32 queries, 32 text tokens, dropout 0.1, float32, random
weights and random pairs; LAVIS's own classes, forward pass and parameter groups, backward pass and torch's AdamW as its loop has them.
Nothing is downloaded.

    pip install torch==2.12.1 torchvision==0.27.1 numpy==2.4.6 omegaconf==2.4.0 pandas==3.1.1 pyyaml==6.0.3 tqdm==4.70.1 \\
        requests==2.34.2 timm==0.4.12 fairscale==0.4.13 iopath==0.1.10 huggingface-hub==0.36.2 tokenizers==0.13.3 packaging regex filelock
    pip install --no-deps transformers==4.33.3
    python scripts/bench_lavis_stage1.py --lavis DIR --batch 8 --steps 5

DIR is a checkout of github.com/salesforce/LAVIS, main (506965b9c4a18c1e565bd32acaccabe0198433f7). The last line is one JSON object.
"""
import argparse
import importlib
import importlib.machinery
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import types
from unittest import mock

VOCAB, LENGTH, PAD, CLS, SEP, BOS = 30523, 32, 0, 101, 102, 30522


def enter(root):
    """Makes LAVIS's files importable one by one: its packages' own __init__ files would import every model it has."""
    for name in ["lavis", "lavis.models", "lavis.models.blip_models", "lavis.models.blip2_models", "lavis.tasks", "lavis.datasets"]:
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split("."))]
        sys.modules[name] = package
    for name in ["cv2", "decord", "webdataset"]:  # imported by some files, used by none that runs here
        try:
            importlib.import_module(name)
        except Exception:
            sys.modules[name] = mock.MagicMock(__spec__=importlib.machinery.ModuleSpec(name, None), __path__=[])
    registry = importlib.import_module("lavis.common.registry").registry
    registry.register("MAX_INT", sys.maxsize)
    sys.modules["lavis.models"].BaseModel = importlib.import_module("lavis.models.base_model").BaseModel  # the registry asks for it
    registry.mapping["paths"].setdefault("cache_root", tempfile.gettempdir())
    registry.mapping["paths"].setdefault("library_root", root)


class Texts:
    """Stands where LAVIS has BERT's tokenizer: gives random word ids in place of a text's."""
    pad_token_id, bos_token_id = PAD, BOS

    def __len__(self):
        return VOCAB

    def __call__(self, texts, **_):
        import torch
        from transformers.tokenization_utils_base import BatchEncoding
        ids, mask = torch.zeros(len(texts), LENGTH, dtype=torch.long), torch.zeros(len(texts), LENGTH, dtype=torch.long)
        for row, tokens in enumerate(texts):
            ids[row, :tokens] = torch.randint(1000, VOCAB - 1, (tokens,))
            ids[row, 0], ids[row, tokens - 1] = CLS, SEP
            mask[row, :tokens] = 1
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})


def build():
    """LAVIS's Blip2Qformer through its own constructor, with random numbers where it would download weights."""
    import torch
    blip2 = importlib.import_module("lavis.models.blip2_models.blip2")
    stage1 = importlib.import_module("lavis.models.blip2_models.blip2_qformer")
    clip = importlib.import_module("lavis.models.clip_vit")
    with tempfile.NamedTemporaryFile(suffix=".pth") as empty:
        torch.save({}, empty.name)
        with mock.patch.object(clip, "download_cached_file", lambda *a, **k: empty.name), \
                mock.patch.object(blip2.Blip2Base, "init_tokenizer", classmethod(lambda c, *a, **k: Texts())), \
                mock.patch.object(blip2.BertConfig, "from_pretrained", lambda name: blip2.BertConfig()), \
                mock.patch.object(blip2.BertLMHeadModel, "from_pretrained", lambda name, config: blip2.BertLMHeadModel(config)):
            return stage1.Blip2Qformer(vit_model="clip_L", vit_precision="fp32")


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lavis", required=True, help="a checkout of github.com/salesforce/LAVIS")
    p.add_argument("--batch", type=int, default=8, help="pairs per step")
    p.add_argument("--steps", type=int, default=5, help="steps that are measured")
    p.add_argument("--warmup", type=int, default=1, help="steps before them that are not")
    p.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    args = p.parse_args()

    import torch
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    enter(os.path.abspath(args.lavis))
    with tempfile.TemporaryDirectory() as scratch:
        torch.distributed.init_process_group("gloo", init_method="file://" + os.path.join(scratch, "store"), rank=0, world_size=1)
        model = build()
    model.train()
    optimizer = torch.optim.AdamW(model.get_optimizer_params(weight_decay=0.05), lr=1e-4, betas=(0.9, 0.999))
    initialised = peak_memory()
    seconds, cpu, loss = [], [], None
    for step in range(args.warmup + args.steps):
        batch = {"image": torch.randn(args.batch, 3, 224, 224), "text_input": torch.randint(3, LENGTH + 1, (args.batch,)).tolist()}
        start, used = time.perf_counter(), time.process_time()
        loss = model(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = float(loss)
        took = time.perf_counter() - start
        print(f"step {step}: {took:.2f} s, loss {loss:.3f}", file=sys.stderr, flush=True)
        if step >= args.warmup:
            seconds.append(took)
            cpu.append(time.process_time() - used)
    trained = sum(q.numel() for q in model.parameters() if q.requires_grad)
    median = statistics.median(seconds)
    print(json.dumps({
        "torch": torch.__version__, "threads": args.threads, "batch": args.batch, "steps": args.steps,
        "parameters": sum(q.numel() for q in model.parameters()), "trainable_parameters": trained,
        "step_seconds": {"median": median, "min": min(seconds), "max": max(seconds)}, "cpu_seconds": statistics.mean(cpu),
        "img_per_s": args.batch / median, "peak_memory": peak_memory(), "peak_memory_init": initialised, "loss": loss}))


if __name__ == "__main__":
    main()
