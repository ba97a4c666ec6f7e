"""Random decoder of the shape of Qwen2-0.5B, the same weights for lore and for llama.cpp.

    python make_qwen2.py OUT --lore PATH [--seed N]

writes OUT/bf16 (a Hugging Face folder), OUT/int8 and OUT/int4 (what `lore models quantize` makes of
it), and OUT/q8_0.gguf and OUT/q4_0.gguf, quantised by the gguf package. The table of tokens, which
is the head too, is int8 beside int4 layers on both sides: that is what llama-quantize makes of this
shape (rows of 896 have no whole blocks of its 6-bit type), and lore as well. Speed does not depend
on the values, so they are drawn; nothing is downloaded.
Needs: numpy, gguf.
"""

import argparse
import json
import os
import shutil
import struct
import subprocess

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, FFN, VOCAB = 24, 896, 14, 2, 64, 4864, 151936
CONTEXT, EPS, THETA = 32768, 1e-6, 1e6


def draw(seed):
    """Pairs (name, f32 array) in the order of the file, each already a bf16 number."""
    shapes = [("model.embed_tokens.weight", (VOCAB, WIDTH))]
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes += [(layer + "input_layernorm.weight", (WIDTH,)),
                   (layer + "post_attention_layernorm.weight", (WIDTH,))]
        for part, rows in (("q", HEADS * HEAD), ("k", KV_HEADS * HEAD), ("v", KV_HEADS * HEAD)):
            shapes += [(f"{layer}self_attn.{part}_proj.weight", (rows, WIDTH)),
                       (f"{layer}self_attn.{part}_proj.bias", (rows,))]
        shapes += [(layer + "self_attn.o_proj.weight", (WIDTH, HEADS * HEAD)),
                   (layer + "mlp.gate_proj.weight", (FFN, WIDTH)),
                   (layer + "mlp.up_proj.weight", (FFN, WIDTH)),
                   (layer + "mlp.down_proj.weight", (WIDTH, FFN))]
    shapes.append(("model.norm.weight", (WIDTH,)))
    random = np.random.Generator(np.random.PCG64(seed))
    for name, shape in shapes:
        values = random.standard_normal(shape, dtype=np.float32)
        values = 1 + 0.1 * values if "norm" in name else 0.02 * values
        yield name, (to_bf16(values).astype(np.uint32) << 16).view(np.float32)


def to_bf16(values):
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Safetensors:
    """Collects tensors, writes them behind their header."""

    TYPES = {"BF16": np.uint16, "F32": np.float32}

    def __init__(self):
        self.header, self.arrays, self.offset = {}, [], 0

    def add(self, name, dtype, array):
        array = np.ascontiguousarray(array, dtype=self.TYPES[dtype])
        end = self.offset + array.nbytes
        self.header[name] = {"dtype": dtype, "shape": list(array.shape),
                             "data_offsets": [self.offset, end]}
        self.arrays.append(array)
        self.offset = end

    def write(self, path):
        header = json.dumps(self.header).encode()
        header += b" " * (-len(header) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)))
            file.write(header)
            for array in self.arrays:
                array.tofile(file)


def byte_alphabet():
    """The characters that byte-level BPE writes bytes as (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(others)})
    return [names[b] for b in range(256)]


def write_folder(folder, tensors):
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
              "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
              "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
              "max_position_embeddings": CONTEXT, "rms_norm_eps": EPS, "rope_theta": THETA,
              "tie_word_embeddings": True, "torch_dtype": "bfloat16", "bos_token_id": 256,
              "eos_token_id": 256, "use_sliding_window": False}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None,
                 "added_tokens": [{"id": 256, "content": "<|endoftext|>", "special": True,
                                   "single_word": False, "lstrip": False, "rstrip": False,
                                   "normalized": False}],
                 "normalizer": None,
                 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                   "trim_offsets": False, "use_regex": True},
                 "post_processor": None,
                 "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                             "use_regex": True},
                 "model": {"type": "BPE", "dropout": None, "unk_token": None,
                           "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False,
                           "vocab": {c: i for i, c in enumerate(byte_alphabet())}, "merges": []}}
    os.makedirs(folder, exist_ok=True)
    for name, value in (("config.json", config), ("tokenizer.json", tokenizer)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
    tensors.write(os.path.join(folder, "model.safetensors"))


GGUF_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
              "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
              "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"


def open_gguf(path):
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_tokenizer_model("no_vocab")  # tokens go in as numbers
    writer.add_vocab_size(VOCAB)
    return writer


def close_gguf(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--lore", default="lore")
    parser.add_argument("--seed", type=int, default=20261122)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    tensors = Safetensors()
    files = {kind: open_gguf(os.path.join(options.out, kind + ".gguf"))
             for kind in ("q8_0", "q4_0")}
    q8_0, q4_0 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0
    for name, values in draw(options.seed):
        tensors.add(name, "BF16", to_bf16(values))
        is_table = name == "model.embed_tokens.weight"
        for file, kind in ((files["q8_0"], q8_0), (files["q4_0"], q8_0 if is_table else q4_0)):
            if values.ndim == 1:
                file.add_tensor(gguf_name(name), values)
            else:
                file.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind),
                                raw_dtype=kind)
    folder = os.path.join(options.out, "bf16")
    write_folder(folder, tensors)
    for file in files.values():
        close_gguf(file)
    for kind in ("int8", "int4"):
        to = os.path.join(options.out, kind)
        shutil.rmtree(to, ignore_errors=True)
        subprocess.run([options.lore, "models", "quantize", "--to", kind, folder, to], check=True)


if __name__ == "__main__":
    main()
