"""Golden tokens for test_decoder.c: greedy decoding of the default decoder in float64 with numpy.

    pip install numpy tokenizers
    python decoder_reference.py > decoder.json

Written from the papers and the checkpoint's config, without a look at the C code: weights are
int8 * scale, everything else is float64. For each of 50 prompts the file holds the prompt's ids, 64
greedy tokens (past the end token too), and at each of them how far the best logit was ahead of the
second. Prompts are built by the recipe's own prompt() and evidence() from passages.json, a few are
plain text. They are sorted by length, so that a quick test can take the first ones.
"""

import argparse
import json
import os
import random
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..", "..")
sys.path.insert(0, os.path.join(ROOT, "weights", "recipe"))
PROMPTS = 50
TOKENS = 64


def read_safetensors(path):
    """{name: float64 array}; int8 tensors come out times their row scales."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    raw = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        part = data[begin:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(part, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(part, {"F32": "<f4", "I8": "i1"}[entry["dtype"]])
        raw[name] = values.reshape(entry["shape"]).astype(np.float64)
    tensors = {}
    for name, values in raw.items():
        if name + "_scale" in raw:
            tensors[name] = values * raw[name + "_scale"][:, None]
        elif not name.endswith("_scale"):
            tensors[name] = values
    return tensors


def rms_norm(x, weight, eps):
    """Over the last axis."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


class Qwen3:
    """One model, any number of sequences; keys and values are kept per sequence and layer."""

    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.config = json.load(file)
        self.t = read_safetensors(os.path.join(folder, "model.safetensors"))
        self.head_dim = self.config["head_dim"]
        half = np.arange(0, self.head_dim, 2) / self.head_dim
        self.frequency = self.config["rope_theta"] ** -half

    def rotate(self, x, positions):
        """x [n, heads, head_dim]; halves rotate against each other."""
        angle = positions[:, None] * self.frequency
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        first, second = np.split(x, 2, -1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    def attend(self, q, keys, values):
        """q [n, heads, head_dim] are the last n positions of keys and values [m, kv heads, head_dim]."""
        n, m = len(q), len(keys)
        group = q.shape[1] // keys.shape[1]
        keys, values = keys.repeat(group, 1), values.repeat(group, 1)
        scores = np.einsum("nhe,mhe->hnm", q, keys) / np.sqrt(self.head_dim)
        hidden = np.arange(m)[None, :] > np.arange(m - n, m)[:, None]
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hnm,mhe->nhe", weights, values).reshape(n, -1)

    def step(self, pieces, caches):
        """pieces: list of id lists, one a sequence; caches: list of {layer: [keys, values]}. Logits of each last row."""
        c, t, eps = self.config, self.t, self.config["rms_norm_eps"]
        heads, kv_heads, e = c["num_attention_heads"], c["num_key_value_heads"], self.head_dim
        lengths = [len(p) for p in pieces]
        edges = np.cumsum([0] + lengths)
        past = [len(cache[0][0]) if cache else 0 for cache in caches]
        positions = np.concatenate([np.arange(p, p + n) for p, n in zip(past, lengths)])
        x = t["model.embed_tokens.weight"][np.concatenate(pieces)]
        for layer in range(c["num_hidden_layers"]):
            w = lambda name: t[f"model.layers.{layer}.{name}.weight"]
            h = rms_norm(x, w("input_layernorm"), eps)
            q = (h @ w("self_attn.q_proj").T).reshape(-1, heads, e)
            k = (h @ w("self_attn.k_proj").T).reshape(-1, kv_heads, e)
            v = (h @ w("self_attn.v_proj").T).reshape(-1, kv_heads, e)
            q = self.rotate(rms_norm(q, w("self_attn.q_norm"), eps), positions)
            k = self.rotate(rms_norm(k, w("self_attn.k_norm"), eps), positions)
            mixed = []
            for i, cache in enumerate(caches):
                rows = slice(edges[i], edges[i + 1])
                if layer in cache:
                    cache[layer] = [np.concatenate([cache[layer][0], k[rows]]), np.concatenate([cache[layer][1], v[rows]])]
                else:
                    cache[layer] = [k[rows], v[rows]]
                mixed.append(self.attend(q[rows], *cache[layer]))
            x = x + np.concatenate(mixed) @ w("self_attn.o_proj").T
            h = rms_norm(x, w("post_attention_layernorm"), eps)
            gate = h @ w("mlp.gate_proj").T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
        last = rms_norm(x[edges[1:] - 1], t["model.norm.weight"], eps)
        return last @ t["model.embed_tokens.weight"].T


def build_prompts(tokenizer):
    """Ids of PROMPTS prompts: every question of passages.json over three or two passages, until there are enough."""
    import prep

    with open(os.path.join(HERE, "passages.json"), encoding="utf-8") as file:
        data = json.load(file)
    rnd = random.Random(7)
    texts = list(data["plain"])
    turn = 0
    while len(texts) < PROMPTS:
        lang = "zh" if turn % 3 == 2 else "en"
        pool = data[lang]
        question, own = pool[(turn * 5) % len(pool)]
        others = [p for _, p in pool if p != own]
        chosen = rnd.sample(others, rnd.choice([1, 2, 3]))
        if rnd.random() < 0.9:  # the others do not hold the answer
            chosen.insert(rnd.randint(0, len(chosen)), own)
        passages, _ = prep.evidence(question, chosen, lang)
        texts.append(prep.prompt(question, passages))
        turn += 1
    return sorted((tokenizer.encode(t, add_special_tokens=False).ids for t in texts), key=len)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "weights", "decoder"))
    args = parser.parse_args()
    from tokenizers import Tokenizer

    model = Qwen3(args.model)
    prompts = build_prompts(Tokenizer.from_file(os.path.join(args.model, "tokenizer.json")))
    caches = [{} for _ in prompts]
    logits = np.concatenate([model.step([p], [cache]) for p, cache in zip(prompts, caches)])
    out = [{"prompt": p, "tokens": [], "gaps": []} for p in prompts]
    for turn in range(TOKENS):
        best = logits.argmax(-1)
        top = np.sort(np.partition(logits, -2, -1)[:, -2:], -1)
        for entry, token, pair in zip(out, best, top):
            entry["tokens"].append(int(token))
            entry["gaps"].append(float(f"{pair[1] - pair[0]:.4g}"))
        if turn + 1 < TOKENS:
            logits = model.step([[int(token)] for token in best], caches)
        print(f"\rtoken {turn + 1} of {TOKENS}", end="", file=sys.stderr)
    print(file=sys.stderr)
    print("[" + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in out) + "]")


if __name__ == "__main__":
    main()
