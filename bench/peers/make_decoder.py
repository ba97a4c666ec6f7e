"""Random decoder of a known shape as a Hugging Face folder, for speed: it does not depend on values.

    python make_decoder.py --shape mistral-7b OUT [--seed N]
    python make_decoder.py --from FOLDER OUT

The first draws weights as initialisers do (normal, .02, less where branches are added to the
residual), in bf16, in files below 5 GB; with torch and a GPU 14.5 GB take seconds, else numpy draws.
The token that ends a text has no weight in the head, so its logit is 0 and a greedy answer never
draws it. The tokenizer is byte-level BPE with as many tokens as the shape has. The second unfolds a
folder of lore's int8 rows (weights/decoder) to bf16, a trained model that transformers loads too.
Needs: numpy; torch where there is a GPU.
"""

import argparse
import json
import os
import shutil
import struct

import numpy as np

try:
    import torch
except ImportError:
    torch = None

SHARD_BYTES = 4_900_000_000


class Shape:
    def __init__(self, family, layers, width, heads, kv_heads, head, ffn, vocab, context, **more):
        self.family, self.layers, self.width, self.heads = family, layers, width, heads
        self.kv_heads, self.head, self.ffn, self.vocab = kv_heads, head, ffn, vocab
        self.context, self.theta = context, more.get("theta", 10000.0)
        self.eps, self.is_tied = more.get("eps", 1e-5), more.get("is_tied", False)
        self.rope_scaling = more.get("rope_scaling")


LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
SHAPES = {
    "mistral-7b": Shape("mistral", 32, 4096, 32, 8, 128, 14336, 32768, 32768, theta=1e6),
    "llama-8b": Shape("llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192, theta=5e5),
    "llama-1b": Shape("llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, theta=5e5, is_tied=True,
                      rope_scaling=LLAMA3),
    "qwen2-0.5b": Shape("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, theta=1e6, eps=1e-6,
                        is_tied=True),
    "llama-10m": Shape("llama", 6, 256, 8, 4, 32, 768, 8192, 4096),  # for trying things out
}


def tensors_of(shape):
    """(name, dimensions, spread) in the order of the file; spread 0: a norm."""
    width, heads = shape.width, shape.heads * shape.head
    branch = 0.02 / (2 * shape.layers) ** 0.5
    yield "model.embed_tokens.weight", (shape.vocab, width), 0.02
    for i in range(shape.layers):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (width,), 0
        yield layer + "post_attention_layernorm.weight", (width,), 0
        for part, rows in (("q", heads), ("k", shape.kv_heads * shape.head),
                           ("v", shape.kv_heads * shape.head)):
            yield f"{layer}self_attn.{part}_proj.weight", (rows, width), 0.02
            if shape.family == "qwen2":
                yield f"{layer}self_attn.{part}_proj.bias", (rows,), 0.02
        yield layer + "self_attn.o_proj.weight", (width, heads), branch
        yield layer + "mlp.gate_proj.weight", (shape.ffn, width), 0.02
        yield layer + "mlp.up_proj.weight", (shape.ffn, width), 0.02
        yield layer + "mlp.down_proj.weight", (width, shape.ffn), branch
    yield "model.norm.weight", (width,), 0
    if not shape.is_tied:
        yield "lm_head.weight", (shape.vocab, width), 0.02


def to_bf16(values):
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Drawer:
    """bf16 arrays as uint16, on the GPU where there is one."""

    def __init__(self, seed):
        self.has_gpu = torch is not None and torch.cuda.is_available()
        self.numpy = np.random.Generator(np.random.PCG64(seed))
        if self.has_gpu:
            self.torch = torch.Generator(device="cuda").manual_seed(seed)

    def draw(self, dimensions, spread):
        centre, spread = (0.0, spread) if spread > 0 else (1.0, 0.1)
        if self.has_gpu:
            values = torch.empty(dimensions, dtype=torch.bfloat16, device="cuda")
            values.normal_(centre, spread, generator=self.torch)
            return values.view(torch.int16).cpu().numpy().view(np.uint16)
        values = self.numpy.standard_normal(dimensions, dtype=np.float32)
        values *= spread
        values += centre
        return to_bf16(values)


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
        header = json.dumps({"__metadata__": {"format": "pt"}, **self.header}).encode()
        header += b" " * (-len(header) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(header)))
            file.write(header)
            for array in self.arrays:
                array.tofile(file)


class Shards:
    """A folder of files below SHARD_BYTES, and the index of them; one file where one holds all."""

    def __init__(self, folder):
        self.folder, self.file, self.paths, self.places = folder, Safetensors(), [], {}

    def add(self, name, array):
        if self.file.offset + array.nbytes > SHARD_BYTES:
            self.flush()
        self.file.add(name, "BF16", array)
        self.places[name] = len(self.paths)

    def flush(self):
        self.paths.append(os.path.join(self.folder, f"{len(self.paths) + 1}.part"))
        self.file.write(self.paths[-1])
        self.file = Safetensors()

    def close(self):
        self.flush()
        count = len(self.paths)
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        if count == 1:
            names = ["model.safetensors"]
        for path, name in zip(self.paths, names):
            os.replace(path, os.path.join(self.folder, name))
        if count > 1:
            size = sum(os.path.getsize(os.path.join(self.folder, name)) for name in names)
            write_json(self.folder, "model.safetensors.index.json", {
                "metadata": {"total_size": size},
                "weight_map": {name: names[at] for name, at in self.places.items()}})


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)


# ---- tokenizer ----


def byte_alphabet():
    """The characters that byte-level BPE writes bytes as (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(others)})
    return [names[b] for b in range(256)]


def write_tokenizer(folder, vocab):
    """All bytes, then pairs and threes of the commonest characters, until but two ids are left:
    those that begin and end a text."""
    letters = byte_alphabet()
    common = [letters[b] for b in b" etaoinshrdlucmfwypvbgkjqxz.,ETAOINSHRDLUCMFWYPVBGKJQXZ"]
    others = [c for c in letters if c not in common]
    words, merges = dict.fromkeys(letters), []

    def combine(lefts, rights):
        for left in lefts:
            for right in rights:
                if len(words) < vocab - 2 and left + right not in words:
                    words[left + right] = None
                    merges.append([left, right])

    combine(common, common)
    combine([word for word in words if len(word) == 2], common)
    combine(others + common, others + common)
    assert len(words) == vocab - 2, f"no tokenizer of {vocab} tokens"
    marks = [{"id": vocab - 2 + i, "content": content, "special": True, "single_word": False,
              "lstrip": False, "rstrip": False, "normalized": False}
             for i, content in enumerate(("<|begin|>", "<|end|>"))]
    bytes_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                   "use_regex": True}
    write_json(folder, "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": marks,
        "normalizer": None, "pre_tokenizer": bytes_level, "post_processor": None,
        "decoder": bytes_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": {word: i for i, word in enumerate(words)},
                  "merges": merges}})
    write_json(folder, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>",
        "eos_token": "<|end|>", "model_max_length": 1 << 20})


# ---- folders ----


def write_config(folder, shape):
    kinds = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM",
             "qwen2": "Qwen2ForCausalLM"}
    config = {"architectures": [kinds[shape.family]], "model_type": shape.family,
              "hidden_act": "silu", "hidden_size": shape.width, "intermediate_size": shape.ffn,
              "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
              "num_key_value_heads": shape.kv_heads, "head_dim": shape.head,
              "vocab_size": shape.vocab, "max_position_embeddings": shape.context,
              "rms_norm_eps": shape.eps, "rope_theta": shape.theta,
              "tie_word_embeddings": shape.is_tied, "torch_dtype": "bfloat16",
              "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
              "bos_token_id": shape.vocab - 2, "eos_token_id": shape.vocab - 1}
    if shape.family == "llama":
        config |= {"attention_bias": False, "mlp_bias": False, "rope_scaling": shape.rope_scaling}
    if shape.family == "mistral":
        config["sliding_window"] = None
    if shape.family == "qwen2":
        config["use_sliding_window"] = False
    write_json(folder, "config.json", config)
    write_json(folder, "generation_config.json", {
        "bos_token_id": shape.vocab - 2, "eos_token_id": shape.vocab - 1})


def write_shape(folder, shape, seed):
    os.makedirs(folder, exist_ok=True)
    drawer, shards = Drawer(seed), Shards(folder)
    for name, dimensions, spread in tensors_of(shape):
        values = drawer.draw(dimensions, spread)
        if name == "lm_head.weight" or (shape.is_tied and name == "model.embed_tokens.weight"):
            values[shape.vocab - 1] = 0
        shards.add(name, values)
    shards.close()
    write_config(folder, shape)
    write_tokenizer(folder, shape.vocab)


def unfold(source, folder):
    """int8 rows and their scales to bf16."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(source, "model.safetensors"), "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    types = {"I8": np.int8, "F32": np.float32, "BF16": np.uint16}

    def read(name):
        one = header[name]
        begin, end = one["data_offsets"]
        return np.frombuffer(data[begin:end], types[one["dtype"]]).reshape(one["shape"])

    shards = Shards(folder)
    for name, one in header.items():
        if name.endswith("_scale"):
            continue
        values = read(name)
        if one["dtype"] == "I8":
            values = values.astype(np.float32) * read(name + "_scale").reshape(-1, 1)
        shards.add(name, values if values.dtype == np.uint16 else to_bf16(values))
    shards.close()
    for name in sorted(os.listdir(source)):
        if name.endswith(".json") and name != "lore.json":
            shutil.copy(os.path.join(source, name), folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("out")
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--from", dest="source")
    parser.add_argument("--seed", type=int, default=20261122)
    options = parser.parse_args()
    if (options.shape is None) == (options.source is None):
        parser.error("either --shape or --from")
    if options.source is not None:
        unfold(options.source, options.out)
    else:
        write_shape(options.out, SHAPES[options.shape], options.seed)


if __name__ == "__main__":
    main()
