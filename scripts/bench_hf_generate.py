#!/usr/bin/env python3
"""Measures what `blip2 bench generate` measures, with generate of transformers on PyTorch: same sizes, random weights.

    python scripts/bench_hf_generate.py --model opt-350m --batch 1 --beams 5 --new-tokens 20 --dtype f32

Needs torch and transformers. Nothing is downloaded: the models are made from their published sizes. The first token is
timed by a run of its own with one new token.
"""
import argparse
import json
import statistics
import time

import torch
from transformers import OPTConfig, OPTForCausalLM, T5Config, T5ForConditionalGeneration

OPT = {  # hidden, layers, heads, embedding
    "opt-125m": (768, 12, 12, 768), "opt-350m": (1024, 24, 16, 512), "opt-1.3b": (2048, 24, 32, 2048),
    "opt-2.7b": (2560, 32, 32, 2560), "opt-6.7b": (4096, 32, 32, 4096),
}
T5 = {  # d_model, d_ff, layers, heads
    "flan-t5-small": (512, 1024, 8, 6), "flan-t5-base": (768, 2048, 12, 12), "flan-t5-large": (1024, 2816, 24, 16),
    "flan-t5-xl": (2048, 5120, 24, 32),
}


def build(name, dtype):
    torch.set_default_dtype(dtype)
    if name in OPT:
        hidden, layers, heads, embed = OPT[name]
        return OPTForCausalLM(OPTConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                                        ffn_dim=4 * hidden, word_embed_proj_dim=embed,
                                        do_layer_norm_before=name != "opt-350m")).eval(), embed
    width, ffn, layers, heads = T5[name]
    return T5ForConditionalGeneration(T5Config(vocab_size=32128, d_model=width, d_kv=64, d_ff=ffn, num_layers=layers,
                                               num_decoder_layers=layers, num_heads=heads,
                                               feed_forward_proj="gated-gelu", tie_word_embeddings=False,
                                               decoder_start_token_id=0)).eval(), width


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, choices=sorted({**OPT, **T5}))
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--tokens", type=int, default=40)
    p.add_argument("--beams", type=int, default=5)
    p.add_argument("--new-tokens", type=int, default=20)
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--warmup", type=int, default=1)
    p.add_argument("--threads", type=int, default=0)
    a = p.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[a.dtype]
    model, width = build(a.model, dtype)
    embeds = torch.randn(a.batch, a.tokens, width, dtype=dtype)
    mask = torch.ones(a.batch, a.tokens, dtype=torch.long)

    def run(n):
        start, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            out = model.generate(inputs_embeds=embeds, attention_mask=mask, num_beams=a.beams, do_sample=False,
                                 max_new_tokens=n, min_new_tokens=n)
        assert out.shape[0] == a.batch
        return time.perf_counter() - start, time.process_time() - cpu

    for _ in range(a.warmup):
        run(a.new_tokens)
    runs = [run(a.new_tokens) for _ in range(a.runs)]
    seconds = [s for s, _ in runs]
    first = statistics.median(run(1)[0] for _ in range(a.runs))
    median = statistics.median(seconds)
    print(json.dumps({
        "model": a.model, "dtype": a.dtype, "batch": a.batch, "prompt_tokens": a.tokens, "beams": a.beams,
        "new_tokens": a.new_tokens, "threads": torch.get_num_threads(), "seconds": [round(s, 4) for s in seconds],
        "median": round(median, 4), "cpu_seconds": round(statistics.mean(c for _, c in runs), 3),
        "first_token_seconds": round(first, 4),
        "next_token_seconds": round((median - first) / (a.new_tokens - 1), 5),
        "tokens_per_s": round(a.batch * a.new_tokens / median, 2),
    }))


if __name__ == "__main__":
    main()
