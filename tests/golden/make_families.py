"""Tiny random checkpoints of the decoder families, with what transformers computes from them.

    pip install torch transformers safetensors
    python make_families.py [NAME ...]        (all of them without a name)

families/NAME/ becomes a folder as save_pretrained writes it, with weights scaled so that logits differ
by more than rounding, and families/NAME/expected/model.safetensors with, all f32:

    ids_0, ids_1, ids_2   three prompts    logits_0, ...   [tokens, vocab / COLUMN_STEP], every position
    next_ids, next_gaps   128 greedy tokens after ids_1, and at each how far the best logit was ahead
    long_logits           [LONG_ROWS, vocab / COLUMN_STEP]: the last positions of the 2,100 tokens of long_ids()

Of row r of logits the columns r % COLUMN_STEP, r % COLUMN_STEP + COLUMN_STEP, ... are kept: twice as many as
the WIDTH numbers that a row is made of, and rows together have all.

Rows are computed in one pass where that is what a family means by it; with dynamic rope, whose
frequencies follow the length so far, each row by itself behind a cache, as decoding would. With
longrope a text that outgrows the original length is computed anew, as generate() of Phi-3 does.
"""

import argparse
import json
import math
import os
import shutil

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
    Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
)

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families")
VOCAB, WIDTH, FFN, LAYERS = 272, 32, 64, 2
LONG, LONG_ROWS = 2100, 3
GREEDY = 128
LENGTHS = (1, 9, 24)
COLUMN_STEP = 4

BASE = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=256, eos_token_id=257, pad_token_id=None)


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


# name: (config class, model class, configuration, what else: dtype, shards, whose weights, turn)
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, dict(BASE, num_key_value_heads=4), {}),
    "llama-biases": (LlamaConfig, LlamaForCausalLM, dict(BASE, attention_bias=True, mlp_bias=True, head_dim=16), {"dtype": torch.float16}),
    "llama-linear": (LlamaConfig, LlamaForCausalLM, dict(BASE, rope_parameters=rope("linear", factor=4.0)), {}),
    "llama-dynamic": (LlamaConfig, LlamaForCausalLM,
                      dict(BASE, max_position_embeddings=1024, rope_parameters=rope("dynamic", factor=4.0)), {"stepwise": True}),
    "llama-yarn": (LlamaConfig, LlamaForCausalLM,
                   dict(BASE, head_dim=16, rope_parameters=rope("yarn", factor=8.0, original_max_position_embeddings=512)), {}),
    "llama3": (LlamaConfig, LlamaForCausalLM,
               dict(BASE, head_dim=16, tie_word_embeddings=True, eos_token_id=[257, 258, 259],
                    rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512)),
               {"shards": "40KB"}),
    "mistral": (MistralConfig, MistralForCausalLM, dict(BASE, sliding_window=20), {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(BASE, tie_word_embeddings=True), {}),
    "qwen2-window": (Qwen2Config, Qwen2ForCausalLM,
                     dict(BASE, num_hidden_layers=3, use_sliding_window=True, sliding_window=16, max_window_layers=1), {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(BASE, head_dim=16, tie_word_embeddings=True), {}),
    "phi3": (Phi3Config, Phi3ForCausalLM, dict(BASE, sliding_window=24), {}),
    "phi3-partial": (Phi3Config, Phi3ForCausalLM,
                     dict(BASE, head_dim=16, sliding_window=None, tie_word_embeddings=True,
                          rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}), {}),
    "phi3-long": (Phi3Config, Phi3ForCausalLM,
                  dict(BASE, sliding_window=None, original_max_position_embeddings=16,
                       rope_parameters=rope("longrope", short_factor=[1.0, 1.1, 1.3, 1.5], long_factor=[1.0, 2.5, 6.0, 12.0],
                                            original_max_position_embeddings=16, attention_factor=1.2)), {"weights": "phi3", "turn": 16}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM,
               dict(BASE, num_hidden_layers=3, head_dim=16, query_pre_attn_scalar=24, sliding_window=16, attn_logit_softcapping=5.0,
                    final_logit_softcapping=1.0, tie_word_embeddings=True), {}),
}


def scale_weights(model, seed):
    """Random weights under which activations keep their size and attention looks at more than one place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            random = torch.randn(value.shape, generator=generator)
            if value.dim() == 1 and "norm" in name:
                centre = 0.0 if "Gemma" in type(model).__name__ else 1.0
                value.copy_(centre + 0.2 * random)
            elif value.dim() == 1:
                value.copy_(0.3 * random)
            elif "embed" in name:  # small where it is the head, too, or every token would predict itself
                scale = 0.2 if model.config.tie_word_embeddings else 1.0
                value.copy_(scale * random / (0.4 * math.sqrt(WIDTH) if "Gemma" in type(model).__name__ else 1.0))
            else:
                value.copy_(1.3 * random / math.sqrt(value.shape[1]))


def long_ids():
    """The same in golden_families.c."""
    state, ids = 12345, []
    for _ in range(LONG):
        state = (state * 1103515245 + 12345) % 2**31
        ids.append((state >> 16) % 256)
    return ids


def prompts(seed):
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, length).tolist() for length in LENGTHS]


def logits_of(model, ids, stepwise):
    with torch.no_grad():
        if not stepwise:
            return model(torch.tensor([ids])).logits[0].numpy()
        rows, past = [], None
        for token in ids:
            out = model(torch.tensor([[token]]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            rows.append(out.logits[0, -1].numpy())
        return np.stack(rows)


def greedy(model, ids, turn):
    """Behind a cache, a token at a time, past the end token too; from the start when the text outgrows `turn`."""
    out, gaps, past, feed = [], [], None, ids
    with torch.no_grad():
        for _ in range(GREEDY):
            if len(ids) + len(out) == turn + 1:
                past, feed = None, ids + out
            step = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
            past = step.past_key_values
            best = torch.topk(step.logits[0, -1], 2)
            out.append(int(best.indices[0]))
            gaps.append(float(best.values[0] - best.values[1]))
            feed = [out[-1]]
    return out, gaps


def reset_rope(model):
    """Dynamic frequencies keep the longest length seen; each sequence starts anew."""
    rotary = model.model.rotary_emb
    if hasattr(rotary, "max_seq_len_cached"):
        rotary.inv_freq = rotary.original_inv_freq.clone()  # longrope writes into it
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def expected_of(model, seed, stepwise=False, turn=0):
    tensors = {}
    for i, ids in enumerate(prompts(seed)):
        reset_rope(model)
        tensors[f"ids_{i}"] = np.array(ids, np.float32)
        tensors[f"logits_{i}"] = logits_of(model, ids, stepwise)
    reset_rope(model)
    ids, gaps = greedy(model, prompts(seed)[1], turn)
    tensors["next_ids"], tensors["next_gaps"] = np.array(ids, np.float32), np.array(gaps, np.float32)
    reset_rope(model)
    tensors["long_logits"] = np.ascontiguousarray(logits_of(model, long_ids(), stepwise)[-LONG_ROWS:])
    return tensors


def thinned(logits):
    return np.stack([row[i % COLUMN_STEP :: COLUMN_STEP] for i, row in enumerate(logits)])


def write_expected(folder, tensors):
    tensors = {name: thinned(value) if "logits" in name else value for name, value in tensors.items()}
    os.makedirs(os.path.join(folder, "expected"), exist_ok=True)
    save_file({name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()},
              os.path.join(folder, "expected", "model.safetensors"))


def link_tokenizer(folder):
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.lexists(path):
        os.symlink("../tokenizer.json", path)


def byte_alphabet():
    """GPT-2's bytes_to_unicode: one printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def write_tokenizer():
    """A token for each byte, no merges, and three special tokens; every fixture links to it."""
    special = ["<bos>", "<eos>", "<end>"]
    added = [{"id": 256 + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, text in enumerate(special)]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {char: byte for byte, char in byte_alphabet().items()}, "merges": []},
    }
    with open(os.path.join(HERE, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)


def make(name, seed):
    config_class, model_class, settings, more = FAMILIES[name]
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    dtype = more.get("dtype", torch.bfloat16)
    seed = sum(more.get("weights", name).encode())
    torch.manual_seed(seed)
    model = model_class(config_class(**settings, attn_implementation="eager")).eval()
    scale_weights(model, seed)
    model = model.to(dtype)
    model.save_pretrained(folder, max_shard_size=more.get("shards", "1GB"))
    # from the rounded weights; model.to would have rounded the frequencies of rope, too
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    write_expected(folder, expected_of(model, seed, more.get("stepwise", False), more.get("turn", 0)))
    link_tokenizer(folder)
    if "weights" in more:
        path = os.path.join(folder, "model.safetensors")
        os.remove(path)
        os.symlink(f"../{more['weights']}/model.safetensors", path)


# ---- quantised copies of a Llama: the stored integers are chosen at random, transformers gets their values ----

GROUP = 32


def pack_int32(values, axis, order=range(8)):
    """Eight 4-bit values of an axis to one int32, the first in the lowest bits (AWQ: in its order)."""
    values = np.moveaxis(values.astype(np.uint32), axis, -1)
    parts = values.reshape(*values.shape[:-1], -1, 8)
    packed = sum(parts[..., source] << np.uint32(4 * place) for place, source in enumerate(order))
    return np.ascontiguousarray(np.moveaxis(packed.astype(np.uint32).view(np.int32), -1, axis))


def random_int4(random, out, cols, is_symmetric, by_group=True):
    groups = cols // GROUP
    stored = random.integers(0, 16, (out, cols))
    zeros = np.full((out, groups), 8) if is_symmetric else random.integers(7, 10, (out, groups))
    scales = (random.uniform(0.5, 1.5, (out, groups)) * 0.28 / math.sqrt(cols)).astype(np.float16)
    return stored, zeros, scales


def values_of(stored, zeros, scales, group_of):
    return ((stored - zeros[:, group_of]) * scales.astype(np.float32)[:, group_of]).astype(np.float32)


def quantised(kind, random, out, cols):
    """(tensors by suffix, the matrix they stand for)"""
    by_column = np.arange(cols) // GROUP
    if kind == "int8":
        stored = random.integers(-127, 128, (out, cols)).astype(np.int8)
        scales = (random.uniform(0.5, 1.5, (out, 1)) * 0.018 / math.sqrt(cols)).astype(np.float32)
        return {"weight": stored, "weight_scale": scales}, stored * scales
    is_symmetric = kind in ("int4", "gptq-order")
    stored, zeros, scales = random_int4(random, out, cols, is_symmetric)
    if kind == "int4":
        return {"weight_packed": pack_int32(stored, 1), "weight_scale": scales,
                "weight_shape": np.array([out, cols], np.int64)}, values_of(stored, zeros, scales, by_column)
    if kind == "awq":
        order = (0, 2, 4, 6, 1, 3, 5, 7)
        return {"qweight": pack_int32(stored.T, 1, order), "qzeros": pack_int32(zeros.T, 1, order),
                "scales": np.ascontiguousarray(scales.T)}, values_of(stored, zeros, scales, by_column)
    group_of = random.permutation(by_column) if kind == "gptq-order" else by_column
    return {"qweight": pack_int32(stored.T, 0), "qzeros": pack_int32(zeros.T - 1, 1), "scales": np.ascontiguousarray(scales.T),
            "g_idx": group_of.astype(np.int32)}, values_of(stored, zeros, scales, group_of)


def ct_config(bits):
    scheme = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "channel" if bits == 8 else "group", "dynamic": False}
    if bits == 4:
        scheme["group_size"] = GROUP
    group = {"targets": ["Linear"], "weights": scheme, "input_activations": None, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": "int-quantized" if bits == 8 else "pack-quantized",
            "ignore": ["lm_head"], "config_groups": {"group_0": group}, "quantization_status": "compressed"}


QUANTISED = {
    "quant-int8": ("int8", ct_config(8)),
    "quant-int4": ("int4", ct_config(4)),
    "quant-gptq": ("gptq", {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False, "checkpoint_format": "gptq"}),
    "quant-gptq-order": ("gptq-order", {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": True}),
    "quant-awq": ("awq", {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
}


def make_quantised(name, seed):
    kind, quantization = QUANTISED[name]
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    model = LlamaForCausalLM(LlamaConfig(**BASE, attn_implementation="eager")).eval()
    scale_weights(model, seed)
    model.save_pretrained(folder)
    tensors, out = load_file(os.path.join(folder, "model.safetensors")), {}
    random, weights = np.random.default_rng(seed), dict(model.named_parameters())
    for tensor, value in tensors.items():
        if value.ndim == 2 and ".layers." in tensor:
            parts, matrix = quantised(kind, random, *value.shape)
            out.update({tensor[: -len("weight")] + suffix: part for suffix, part in parts.items()})
            with torch.no_grad():
                weights[tensor].copy_(torch.from_numpy(matrix))
        else:
            out[tensor] = value.astype(np.float16)
            with torch.no_grad():
                weights[tensor].copy_(torch.from_numpy(out[tensor].astype(np.float32)))
    save_file(out, os.path.join(folder, "model.safetensors"), {"format": "pt"})
    path = os.path.join(folder, "config.json")
    config = json.load(open(path, encoding="utf-8"))
    config["quantization_config"] = quantization
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    write_expected(folder, expected_of(model, seed))
    link_tokenizer(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*FAMILIES, *QUANTISED])
    os.makedirs(HERE, exist_ok=True)
    write_tokenizer()
    for name in parser.parse_args().names:
        seed = sum(name.encode())
        (make if name in FAMILIES else make_quantised)(name, seed)
        print(name, sum(os.path.getsize(os.path.join(at, file)) for at, _, files in os.walk(os.path.join(HERE, name)) for file in files))


if __name__ == "__main__":
    main()
