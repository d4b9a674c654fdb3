"""Writes configs.json: configurations as transformers saves them, the same without what equals the classes' defaults,
and what the library reads in both, as the JSON of Spec. Run with transformers 4.57.6: python configs.py > configs.json"""
import json

from transformers import BertConfig, Blip2Config, BlipConfig, CLIPConfig, OPTConfig, T5Config

FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def vision(c, arch):
    return {"Arch": arch, "ImageSize": c.image_size, "PatchSize": c.patch_size, "Width": c.hidden_size,
            "Layers": c.num_hidden_layers, "Heads": c.num_attention_heads, "LayerNormEps": c.layer_norm_eps,
            "MLPRatio": (c.intermediate_size + 0.5) / c.hidden_size}


def opt(c):
    embed = c.word_embed_proj_dim
    return {"Vocab": c.vocab_size, "Hidden": c.hidden_size, "Layers": c.num_hidden_layers,
            "Heads": c.num_attention_heads, "FFN": c.ffn_dim, "Positions": c.max_position_embeddings,
            "EmbedDim": 0 if embed == c.hidden_size else embed, "PostNorm": not c.do_layer_norm_before,
            "LayerNormEps": 1e-5, "Dropout": c.dropout, "AttentionDropout": c.attention_dropout}


def t5(c):
    return {"Vocab": c.vocab_size, "Hidden": c.d_model, "HeadDim": c.d_kv, "Heads": c.num_heads, "FFN": c.d_ff,
            "EncoderLayers": c.num_layers, "DecoderLayers": c.num_decoder_layers, "Activation": c.dense_act_fn,
            "Buckets": c.relative_attention_num_buckets, "MaxDistance": c.relative_attention_max_distance,
            "RMSNormEps": c.layer_norm_epsilon, "Dropout": c.dropout_rate}


def bert(c):
    return {"Hidden": c.hidden_size, "Layers": c.num_hidden_layers, "Heads": c.num_attention_heads,
            "Intermediate": c.intermediate_size, "Vocab": c.vocab_size, "MaxPositions": c.max_position_embeddings,
            "LayerNormEps": c.layer_norm_eps, "Dropout": c.hidden_dropout_prob}


def blip2(c, retrieval):
    q = bert(c.qformer_config)
    q.update(Queries=c.num_query_tokens, CrossAttentionFreq=c.qformer_config.cross_attention_frequency,
             EncoderWidth=c.qformer_config.encoder_hidden_size)
    s = {"vision": vision(c.vision_config, "eva"), "qformer": q, "ln_vision_eps": c.vision_config.layer_norm_eps}
    if c.image_token_index is not None:
        s["image_token"] = c.image_token_index
    if retrieval:
        return dict(s, model="blip2-stage1", qformer_text=True, embed_dim=c.image_text_hidden_size)
    q.update(Vocab=0, MaxPositions=0)  # tables that the folder does not hold
    text = c.text_config
    if text.model_type == "t5":
        return dict(s, model="blip2-t5", t5=t5(text), eos=text.eos_token_id, llm_width=text.d_model)
    return dict(s, model="blip2-opt", opt=opt(text), eos=text.eos_token_id, llm_width=text.word_embed_proj_dim)


def meaning(c, retrieval):
    if c.model_type == "blip-2":
        return blip2(c, retrieval)
    if c.model_type == "opt":
        return {"model": "opt", "opt": opt(c), "eos": c.eos_token_id}
    if c.model_type == "t5":
        return {"model": "t5", "t5": t5(c)}
    if c.model_type == "bert":
        return {"model": "bert", "bert": bert(c)}
    text = c.text_config
    if c.model_type == "clip":
        return {"model": "clip", "clip": {"Image": vision(c.vision_config, "clip"), "Embed": c.projection_dim, "Text": {
            "Vocab": text.vocab_size, "Context": text.max_position_embeddings, "Width": text.hidden_size,
            "Layers": text.num_hidden_layers, "Heads": text.num_attention_heads, "MLP": text.intermediate_size,
            "LayerNormEps": text.layer_norm_eps}}}
    decoder = bert(text)
    del decoder["Dropout"]
    return {"model": "blip-caption", "bos": text.bos_token_id, "eos": text.sep_token_id,
            "blip": dict(decoder, Vision=vision(c.vision_config, "blip"))}


def terse(saved, defaults):
    """What is left of a saved configuration without values that are the class's defaults."""
    out = {}
    for key, value in saved.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict) and value.get("model_type") != "t5":
            out[key] = terse(value, defaults[key])
        elif key == "model_type" or value != defaults.get(key):
            out[key] = value
    return out


def main():
    small = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
    flan = dict(FLAN, d_model=20, d_kv=4, num_heads=3, d_ff=7, num_layers=2, num_decoder_layers=3)
    itm = {"qformer_config": {"use_qformer_text_input": True, "vocab_size": 30523}}
    configs = {
        "opt, all defaults": OPTConfig(),
        "opt-350m": OPTConfig(hidden_size=1024, word_embed_proj_dim=512, do_layer_norm_before=False,
                              num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096),
        "opt, others": OPTConfig(vocab_size=99, hidden_size=8, num_attention_heads=2, ffn_dim=12, num_hidden_layers=1,
                                 max_position_embeddings=30, eos_token_id=50118, dropout=0.0, attention_dropout=0.2),
        "t5, defaults but those of Flan": T5Config(**FLAN),
        "t5, others": T5Config(**flan, vocab_size=40, relative_attention_num_buckets=8, dropout_rate=0.0,
                               relative_attention_max_distance=20, layer_norm_epsilon=1e-5),
        "clip, all defaults": CLIPConfig(),
        "clip, others": CLIPConfig(text_config=dict(small, vocab_size=77, max_position_embeddings=9),
                                   vision_config=dict(small, image_size=28, patch_size=14), projection_dim=6),
        "blip, all defaults": BlipConfig(),
        "blip, others": BlipConfig(text_config=dict(small, vocab_size=77, bos_token_id=75, sep_token_id=3),
                                   vision_config=dict(small, image_size=32, layer_norm_eps=1e-6)),
        "bert, all defaults": BertConfig(),
        "bert, others": BertConfig(**small, vocab_size=50, max_position_embeddings=9),
        "blip-2, all defaults": Blip2Config(),
        "blip-2, opt": Blip2Config(
            vision_config=dict(small, image_size=28), num_query_tokens=5, image_token_index=50265,
            qformer_config=dict(small, cross_attention_frequency=3, encoder_hidden_size=24),
            text_config={"model_type": "opt", "hidden_size": 8, "num_attention_heads": 2, "eos_token_id": 50118,
                         "vocab_size": 50304}),
        "blip-2, t5": Blip2Config(
            vision_config=dict(small, layer_norm_eps=1e-5), image_token_index=32100,
            qformer_config=dict(small, encoder_hidden_size=24),
            text_config=dict(flan, model_type="t5", dense_act_fn="gelu")),
        "blip-2, the encoder's width follows": Blip2Config(vision_config={"hidden_size": 32}),
        "blip-2 for retrieval": Blip2Config(**itm),
        "blip-2 for retrieval, others": Blip2Config(
            vision_config=dict(small, image_size=42), image_text_hidden_size=12, image_token_index=30523,
            qformer_config=dict(small, encoder_hidden_size=24, use_qformer_text_input=True, vocab_size=60)),
    }
    out = []
    for name, config in configs.items():
        retrieval = "retrieval" in name
        if retrieval:
            config.architectures = ["Blip2ForImageTextRetrieval"]
        saved = json.loads(config.to_json_string(use_diff=True))
        short = terse(saved, type(config)().to_dict())
        short.get("qformer_config", {}).pop("encoder_hidden_size", None)  # which the library derives
        spec, again = (meaning(type(config).from_dict(dict(c)), retrieval) for c in (saved, short))
        assert spec == again, name
        out.append({"name": name, "config": saved, "terse": short, "spec": spec})
    print(json.dumps(out, indent=1, sort_keys=True))


main()
