"""Names of the same tensors in LAVIS's files and in transformers' classes, for the scripts beside it.

It is written apart from the program's own tables on purpose: it checks them.
"""
import re

import torch

# LAVIS pattern, transformers pattern; * stands for the same text on both sides. The first match wins either way.
VISION = [
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.*", "vision_model.embeddings.patch_embedding.*"),
    ("visual_encoder.blocks.*.norm1.*", "vision_model.encoder.layers.*.layer_norm1.*"),
    ("visual_encoder.blocks.*.norm2.*", "vision_model.encoder.layers.*.layer_norm2.*"),
    ("visual_encoder.blocks.*.attn.qkv.*", "vision_model.encoder.layers.*.self_attn.qkv.*"),
    ("visual_encoder.blocks.*.attn.proj.*", "vision_model.encoder.layers.*.self_attn.projection.*"),
    ("visual_encoder.blocks.*.mlp.*", "vision_model.encoder.layers.*.mlp.*"),
]
BLIP2 = VISION + [
    ("ln_vision.*", "vision_model.post_layernorm.*"),
    ("query_tokens", "query_tokens"),
    ("Qformer.bert.embeddings.LayerNorm.*", "qformer.layernorm.*"),
    ("Qformer.bert.embeddings.word_embeddings.*", "embeddings.word_embeddings.*"),
    ("Qformer.bert.embeddings.position_embeddings.*", "embeddings.position_embeddings.*"),
    ("Qformer.bert.encoder.layer.*.attention.self.*", "qformer.encoder.layer.*.attention.attention.*"),
    ("Qformer.bert.encoder.layer.*.crossattention.self.*", "qformer.encoder.layer.*.crossattention.attention.*"),
    ("Qformer.bert.encoder.*", "qformer.encoder.*"),
    ("vision_proj.*", "vision_projection.*"),
    ("text_proj.*", "text_projection.*"),
    ("itm_head.*", "itm_head.*"),
]
OPT = BLIP2 + [("opt_proj.*", "language_projection.*"), ("opt_model.*", "language_model.*")]
T5 = BLIP2 + [("t5_proj.*", "language_projection.*"), ("t5_model.*", "language_model.*")]
BLIP_CAPTION = VISION + [
    ("visual_encoder.norm.*", "vision_model.post_layernorm.*"),
    ("text_decoder.*", "text_decoder.*"),
]
# The image tower of OpenAI's CLIP in LAVIS's bare file, and in transformers' CLIPModel, but for attention and proj.
CLIP = [
    ("class_embedding", "vision_model.embeddings.class_embedding"),
    ("positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    ("ln_pre.*", "vision_model.pre_layrnorm.*"),
    ("ln_post.*", "vision_model.post_layernorm.*"),
    ("transformer.resblocks.*.ln_1.*", "vision_model.encoder.layers.*.layer_norm1.*"),
    ("transformer.resblocks.*.ln_2.*", "vision_model.encoder.layers.*.layer_norm2.*"),
    ("transformer.resblocks.*.attn.out_proj.*", "vision_model.encoder.layers.*.self_attn.out_proj.*"),
    ("transformer.resblocks.*.mlp.c_fc.*", "vision_model.encoder.layers.*.mlp.fc1.*"),
    ("transformer.resblocks.*.mlp.c_proj.*", "vision_model.encoder.layers.*.mlp.fc2.*"),
]


def rename(name, table, to_hf=True):
    """The other name, or None where the table has none."""
    for lavis, hf in table:
        source, target = (lavis, hf) if to_hf else (hf, lavis)
        match = re.fullmatch("(.+?)".join(re.escape(part) for part in source.split("*")), name)
        if match:
            pieces = target.split("*")
            return "".join(a + b for a, b in zip(pieces, [*match.groups(), ""]))
    return None


def to_hf(tensors, table):
    """LAVIS tensors under transformers' names, and the names that have no place there. The two attention biases of EVA
    become one, with zeros for the keys."""
    out, left = {}, []
    for name, tensor in tensors.items():
        bias = re.fullmatch(r"(visual_encoder\.blocks\.\d+\.attn\.)([qv])_bias", name)
        if bias:
            q, v = tensors[bias[1] + "q_bias"], tensors[bias[1] + "v_bias"]
            out[rename(bias[1] + "qkv.bias", table)] = torch.cat([q, torch.zeros_like(q), v])
        elif rename(name, table):
            out[rename(name, table)] = tensor
        else:
            left.append(name)
    return out, left


def to_lavis(tensors, table):
    """The other direction. A key bias that is not zero has no place in LAVIS; its captioner keeps qkv.bias as it is."""
    out = {}
    for name, tensor in tensors.items():
        new = rename(name, table, to_hf=False)
        if new is None:
            raise ValueError(f"no LAVIS name for {name}")
        if new.endswith(".attn.qkv.bias") and table is not BLIP_CAPTION:
            q, k, v = tensor.chunk(3)
            if bool(k.any()):
                raise ValueError(f"{name}: the key bias is not zero")
            out[new.replace("qkv.bias", "q_bias")], out[new.replace("qkv.bias", "v_bias")] = q.clone(), v.clone()
        else:
            out[new] = tensor
    return out


def clip_to_lavis(tensors):
    """The image tower of a CLIPModel under OpenAI's names: q, k and v stacked, the projection transposed."""
    out = {"proj": tensors["visual_projection.weight"].t().contiguous()}
    for name, tensor in tensors.items():
        attention = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name)
        if attention:
            stack = [tensors[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            out[f"transformer.resblocks.{attention[1]}.attn.in_proj_{attention[2]}"] = torch.cat(stack)
        elif rename(name, CLIP, to_hf=False):
            out[rename(name, CLIP, to_hf=False)] = tensor
    return out
