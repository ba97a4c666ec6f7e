"""Turn the llama2.c checkpoint stories260K.bin (v0 format) into a Hugging Face Llama folder in f32.

    python3 stories.py STORIES260K_FOLDER OUT

llama2.c rotates neighbouring pairs (2i, 2i + 1) of a head, Hugging Face pairs (i, i + e / 2): the rows
of q and k are reordered so that both compute the same. The model's own tokenizer is not needed to
follow ids, so OUT gets a byte-level one of 512 entries without merges. Standard library only.
"""

import argparse
import array
import json
import os
import struct

NORM_EPS = 1e-5


class Reader:
    """Floats of the file, taken in order."""

    def __init__(self, data):
        self.values = array.array("f")
        self.values.frombytes(data)
        self.at = 0

    def take(self, count):
        self.at += count
        return self.values[self.at - count : self.at]


def half_split(matrix, heads, head_dim, cols):
    """Rows of each head reordered from interleaved pairs to halves."""
    out = array.array("f")
    for head in range(heads):
        for half in (0, 1):
            for i in range(head_dim // 2):
                row = head * head_dim + 2 * i + half
                out.extend(matrix[row * cols : (row + 1) * cols])
    return out


def read_checkpoint(path):
    """Config and {name: (shape, values)} under Hugging Face names."""
    with open(path, "rb") as file:
        data = file.read()
    dim, ffn, layers, heads, kv_heads, vocab, context = struct.unpack("<7i", data[:28])
    is_tied = vocab > 0
    vocab = abs(vocab)
    head_dim = dim // heads
    kv_dim = kv_heads * head_dim
    r = Reader(data[28:])
    tensors = {"model.embed_tokens.weight": ([vocab, dim], r.take(vocab * dim))}

    def per_layer(name, shape, change=None):
        """One tensor of this name for each layer; llama2.c stores kind by kind, not layer by layer."""
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        for layer in range(layers):
            values = r.take(count)
            tensors[f"model.layers.{layer}.{name}.weight"] = (shape, change(values) if change else values)

    per_layer("input_layernorm", [dim])
    per_layer("self_attn.q_proj", [dim, dim], lambda m: half_split(m, heads, head_dim, dim))
    per_layer("self_attn.k_proj", [kv_dim, dim], lambda m: half_split(m, kv_heads, head_dim, dim))
    per_layer("self_attn.v_proj", [kv_dim, dim])
    per_layer("self_attn.o_proj", [dim, dim])
    per_layer("post_attention_layernorm", [dim])
    per_layer("mlp.gate_proj", [ffn, dim])
    per_layer("mlp.down_proj", [dim, ffn])
    per_layer("mlp.up_proj", [ffn, dim])
    tensors["model.norm.weight"] = ([dim], r.take(dim))
    r.take(context * head_dim)  # tables of cosines and sines that old versions stored
    if not is_tied:
        tensors["lm_head.weight"] = ([vocab, dim], r.take(vocab * dim))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": is_tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return config, tensors


def write_safetensors(path, tensors):
    """f32 tensors in the order given."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in tensors.items():
        size = 4 * len(values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(values.tobytes())


def byte_tokenizer(vocab):
    """A byte-level tokenizer without merges: ids 3 .. 258 are the bytes, the rest special."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    char = lambda byte: chr(byte if byte in printable else 256 + others.index(byte))
    ids = {char(byte): byte + 3 for byte in range(256)}
    names = {i: f"<|{i}|>" for i in range(vocab) if i < 3 or i > 258}
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, name in names.items()
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": ids, "merges": []},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    args = parser.parse_args()
    config, tensors = read_checkpoint(os.path.join(args.folder, "stories260K.bin"))
    os.makedirs(args.out, exist_ok=True)
    write_safetensors(os.path.join(args.out, "model.safetensors"), tensors)
    for name, content in (("config.json", config), ("tokenizer.json", byte_tokenizer(config["vocab_size"]))):
        with open(os.path.join(args.out, name), "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
