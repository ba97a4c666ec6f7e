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
import os
import shutil
import subprocess

import gguf
import numpy as np

from make_decoder import SHAPES, Drawer, Safetensors, tensors_of, write_config, write_tokenizer

SHAPE = SHAPES["qwen2-0.5b"]


def draw(seed):
    """Triples (name, bf16 array, the same numbers in f32) in the order of the file."""
    drawer = Drawer(seed)
    for name, dimensions, spread in tensors_of(SHAPE):
        values = drawer.draw(dimensions, spread)
        yield name, values, (values.astype(np.uint32) << 16).view(np.float32)


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
    writer.add_block_count(SHAPE.layers)
    writer.add_context_length(SHAPE.context)
    writer.add_embedding_length(SHAPE.width)
    writer.add_feed_forward_length(SHAPE.ffn)
    writer.add_head_count(SHAPE.heads)
    writer.add_head_count_kv(SHAPE.kv_heads)
    writer.add_rope_freq_base(SHAPE.theta)
    writer.add_layer_norm_rms_eps(SHAPE.eps)
    writer.add_tokenizer_model("no_vocab")  # tokens go in as numbers
    writer.add_vocab_size(SHAPE.vocab)
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
    for name, stored, values in draw(options.seed):
        tensors.add(name, "BF16", stored)
        is_table = name == "model.embed_tokens.weight"
        for file, kind in ((files["q8_0"], q8_0), (files["q4_0"], q8_0 if is_table else q4_0)):
            if values.ndim == 1:
                file.add_tensor(gguf_name(name), values)
            else:
                file.add_tensor(gguf_name(name), gguf.quants.quantize(values, kind),
                                raw_dtype=kind)
    folder = os.path.join(options.out, "bf16")
    os.makedirs(folder, exist_ok=True)
    write_config(folder, SHAPE)
    write_tokenizer(folder, SHAPE.vocab)
    tensors.write(os.path.join(folder, "model.safetensors"))
    for file in files.values():
        close_gguf(file)
    for kind in ("int8", "int4"):
        to = os.path.join(options.out, kind)
        shutil.rmtree(to, ignore_errors=True)
        subprocess.run([options.lore, "models", "quantize", "--to", kind, folder, to], check=True)


if __name__ == "__main__":
    main()
