#!/usr/bin/env python3
"""Records searches of transformers with a model whose next token depends on the last one alone, by a table of logits.

    python make_searches.py > searches.json      # transformers 4.57.6, torch 2.12.1

Every search has prompts of token ids, which penalties and bans see. Scores are those of beam search, null without.
"""
import json
import random
import sys

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

VOCAB = 9


class Config(PretrainedConfig):
    model_type = "table"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.num_hidden_layers, self.hidden_size, self.num_attention_heads = VOCAB, 1, 4, 1


class Table(PreTrainedModel, GenerationMixin):
    config_class = Config
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Parameter(torch.zeros(VOCAB, VOCAB))

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, **kwargs):
        return CausalLMOutputWithPast(logits=self.table[input_ids])


def main():
    cases = []
    for seed in range(120):
        r = random.Random(seed)
        torch.manual_seed(seed)
        model = Table(Config()).eval()
        table = (2 * torch.randn(VOCAB, VOCAB)).round(decimals=3)
        with torch.no_grad():
            model.table.copy_(table)
        beams = r.choice([1, 2, 3, 5])
        returned = r.randint(1, beams)
        prompts = [[r.randrange(VOCAB) for _ in range(4)] for _ in range(2)]
        options = dict(num_beams=beams, num_return_sequences=returned, no_repeat_ngram_size=r.choice([0, 1, 2, 2, 3]),
                       max_new_tokens=r.choice([1, 4, 6, 9]), min_new_tokens=r.choice([0, 0, 2]),
                       repetition_penalty=r.choice([1.0, 1.0, 1.3]))
        if options["no_repeat_ngram_size"] == 1:
            options["max_new_tokens"] = min(options["max_new_tokens"], 4)  # there are but nine tokens
        options["min_new_tokens"] = min(options["min_new_tokens"], options["max_new_tokens"])
        if beams > 1:
            options.update(length_penalty=r.choice([-1.0, 0.0, 1.0, 2.0]), early_stopping=r.choice([False, True]))
        eos = 7
        config = GenerationConfig(do_sample=False, eos_token_id=eos, pad_token_id=0, use_cache=False,
                                  return_dict_in_generate=True, output_scores=True, **options)
        out = model.generate(torch.tensor(prompts), generation_config=config)
        rows = out.sequences[:, 4:].tolist()
        scores = out.sequences_scores.tolist() if beams > 1 else [None] * len(rows)
        if any(a is not None and b is not None and abs(a - b) < 1e-4 and i // returned == j // returned
               for i, a in enumerate(scores) for j, b in enumerate(scores[:i])):
            continue  # texts of the same tokens in another order: rounding decides which comes first
        texts = []
        for row, score in zip(rows, scores):
            if eos in row:
                row = row[:row.index(eos) + 1]
            texts.append({"tokens": row, "score": None if score is None else round(score, 6)})
        cases.append({"table": [[round(v, 3) for v in line] for line in table.tolist()], "prompts": prompts, "eos": eos,
                      "options": options, "texts": texts})
    json.dump(cases, sys.stdout, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
