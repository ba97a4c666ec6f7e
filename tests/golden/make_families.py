"""Tiny random checkpoints of the decoder families, with what transformers computes from them.

    pip install torch transformers safetensors
    python make_families.py [NAME ...]        (all of them without a name)

families/NAME/ becomes a folder as save_pretrained writes it, but for the weights, which tensors.json
describes (weights.py), scaled so that logits differ by more than rounding; and
families/NAME/expected/model.safetensors has, all f32:

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
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
    Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM,
)

import weights
from weights import HERE

VOCAB, WIDTH, FFN, LAYERS = 272, 32, 64, 2
LONG, LONG_ROWS = 2100, 3
GREEDY = 128
LENGTHS = (1, 9, 24)
COLUMN_STEP = 4

BASE = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=256, eos_token_id=257, pad_token_id=None)


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


# name: (config class, model class, configuration, what else: dtype, shards, whose weights, their seed, turn);
# with the name for a seed phi3-long would choose another token in int8 where the best two are .23 apart
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
    "phi3": (Phi3Config, Phi3ForCausalLM, dict(BASE, sliding_window=24), {"seed": "phi3d"}),
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


def spread(config, name, shape):
    """[mean, deviation] of random weights under which activations keep their size and attention looks at more than one place."""
    is_gemma = config.model_type == "gemma2"
    if len(shape) == 1 and "norm" in name:
        return [0.0 if is_gemma else 1.0, 0.2]
    if len(shape) == 1:
        return [0.0, 0.3]
    if "embed" in name:  # small where it is the head, too, or every token would predict itself
        return [0.0, round((0.2 if config.tie_word_embeddings else 1.0) / (0.4 * math.sqrt(WIDTH) if is_gemma else 1.0), 6)]
    return [0.0, round(1.3 / math.sqrt(shape[1]), 6)]


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
    owner = more.get("weights", name)
    seed = sum(owner.encode())
    model = model_class(config_class(**settings)).to(more.get("dtype", torch.bfloat16))
    model.save_pretrained(folder, max_shard_size=more.get("shards", "1GB"))
    weights.describe(folder, FAMILIES[owner][3].get("seed", owner),
                     lambda tensor, dtype, shape: [[tensor, dtype, shape, "normal", *spread(model.config, tensor, shape)]])
    link_tokenizer(folder)
    with tempfile.TemporaryDirectory() as temporary:
        made = os.path.join(temporary, name)
        weights.make(folder, made)
        # from the rounded weights; model.to would have rounded the frequencies of rope, too
        model = model_class.from_pretrained(made, dtype=torch.float32, attn_implementation="eager")
    write_expected(folder, expected_of(model, seed, more.get("stepwise", False), more.get("turn", 0)))
    if "weights" in more:
        path = os.path.join(folder, weights.DESCRIPTION)
        os.remove(path)
        os.symlink(f"../{owner}/{weights.DESCRIPTION}", path)


# ---- quantised copies of a Llama: the stored integers are random, transformers gets what they stand for ----

GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpacked(packed, axis, order=range(8)):
    """The 4-bit values of an axis, eight to an int32, the first in the lowest bits (AWQ: in its order)."""
    words = np.moveaxis(packed.view(np.uint32), axis, -1)
    parts = np.empty((*words.shape, 8), np.int64)
    for place, source in enumerate(order):
        parts[..., source] = words >> np.uint32(4 * place) & 15
    return np.moveaxis(parts.reshape(*words.shape[:-1], -1), -1, axis)


def parts_of(kind, out, cols):
    """What stands for a matrix [out, cols]: rows of tensors.json with the ends of names."""
    count = cols // GROUP
    scales = ["uniform", *(round(edge * 0.28 / math.sqrt(cols), 6) for edge in (0.5, 1.5))]
    if kind == "int8":
        return [["weight", "I8", [out, cols], "integers", -127, 127],
                ["weight_scale", "F32", [out, 1], "uniform", *(round(edge * 0.018 / math.sqrt(cols), 6) for edge in (0.5, 1.5))]]
    if kind == "int4":
        return [["weight_packed", "I32", [out, cols // 8], "nibbles", 0, 15], ["weight_scale", "F16", [out, count], *scales],
                ["weight_shape", "I64", [2], "values", out, cols]]
    if kind == "awq":
        return [["qweight", "I32", [cols, out // 8], "nibbles", 0, 15], ["qzeros", "I32", [count, out // 8], "nibbles", 7, 9],
                ["scales", "F16", [count, out], *scales]]
    zeros, order = ((6, 8), "groups") if kind == "gptq" else ((7, 7), "shuffled")  # zeros are stored less one
    return [["qweight", "I32", [cols // 8, out], "nibbles", 0, 15], ["qzeros", "I32", [count, out // 8], "nibbles", *zeros],
            ["scales", "F16", [count, out], *scales], ["g_idx", "I32", [cols], order, GROUP]]


def matrix_of(kind, parts):
    """The matrix [out, cols] that the parts stand for."""
    if kind == "int8":
        return parts["weight"] * parts["weight_scale"]
    if kind == "int4":
        stored, zeros, scales = unpacked(parts["weight_packed"], 1), 8, parts["weight_scale"]
        group_of = np.arange(stored.shape[1]) // GROUP
    elif kind == "awq":
        stored, scales = unpacked(parts["qweight"], 1, AWQ_ORDER).T, parts["scales"].T
        group_of = np.arange(stored.shape[1]) // GROUP
        zeros = unpacked(parts["qzeros"], 1, AWQ_ORDER).T[:, group_of]
    else:
        stored, scales, group_of = unpacked(parts["qweight"], 0).T, parts["scales"].T, parts["g_idx"]
        zeros = unpacked(parts["qzeros"], 1).T[:, group_of] + 1
    return (stored - zeros) * scales.astype(np.float32)[:, group_of]


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
    model.save_pretrained(folder)

    def rows_of(tensor, _, shape):
        if len(shape) == 2 and ".layers." in tensor:
            return [[tensor[: -len("weight")] + end, *how] for end, *how in parts_of(kind, *shape)]
        return [[tensor, "F16", shape, "normal", *spread(model.config, tensor, shape)]]

    weights.describe(folder, name, rows_of)
    path = os.path.join(folder, "config.json")
    config = json.load(open(path, encoding="utf-8"))
    config["quantization_config"] = quantization
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
    link_tokenizer(folder)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        made = os.path.join(temporary, name)
        weights.make(folder, made)
        tensors = load_file(os.path.join(made, "model.safetensors"))
        for tensor, value in model.named_parameters():
            stem = tensor[: -len("weight")]
            is_packed = value.dim() == 2 and ".layers." in tensor
            matrix = matrix_of(kind, {key[len(stem):]: part for key, part in tensors.items() if key.startswith(stem)}) if is_packed else tensors[tensor]
            value.copy_(torch.from_numpy(matrix.astype(np.float32)))
    write_expected(folder, expected_of(model, seed))


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
