"""Golden vectors for test_embedder.c: the default encoder in float64 with numpy.

    pip install numpy tokenizers
    python encoder_reference.py > encoder.json

Texts come from passages.json and from here; one is longer than the encoder takes, one is empty.
"""

import argparse
import json
import math
import os

import numpy as np

from decoder_reference import HERE, ROOT, read_safetensors

erf = np.vectorize(math.erf)
SHORT = ["", "a", "reset", "如何", "router reset button", "  spaces  ", "RESET!", "<|im_end|>"]


def layer_norm(x, t, name, eps):
    """Over the last axis."""
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * t[name + ".weight"] + t[name + ".bias"]


def encode(ids, t, config):
    """Unit vector of one sequence."""
    heads, eps, n = config["num_attention_heads"], config["layer_norm_eps"], len(ids)
    dense = lambda x, name: x @ t[name + ".weight"].T + t[name + ".bias"]
    x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.position_embeddings.weight"][:n]
    x = layer_norm(x + t["embeddings.token_type_embeddings.weight"][0], t, "embeddings.LayerNorm", eps)
    for i in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{i}."
        q, k, v = (dense(x, p + "attention.self." + part).reshape(n, heads, -1) for part in ("query", "key", "value"))
        scores = np.einsum("nhe,mhe->hnm", q, k) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hnm,mhe->nhe", weights, v).reshape(n, -1)
        x = layer_norm(x + dense(mixed, p + "attention.output.dense"), t, p + "attention.output.LayerNorm", eps)
        h = dense(x, p + "intermediate.dense")
        h = h / 2 * (1 + erf(h / math.sqrt(2)))
        x = layer_norm(x + dense(h, p + "output.dense"), t, p + "output.LayerNorm", eps)
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "weights", "encoder"))
    args = parser.parse_args()
    from tokenizers import Tokenizer

    with open(os.path.join(HERE, "passages.json"), encoding="utf-8") as file:
        data = json.load(file)
    texts = SHORT + [x for lang in ("en", "zh") for pair in data[lang][:8] for x in pair]
    texts.append(" ".join(text for _, text in data["en"]))
    with open(os.path.join(args.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(args.model, "sentence_bert_config.json"), encoding="utf-8") as file:
        tokens_max = json.load(file)["max_seq_length"]
    tensors = read_safetensors(os.path.join(args.model, "model.safetensors"))
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    lines = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > tokens_max:
            ids = ids[: tokens_max - 1] + ids[-1:]
        vector = [round(x * 1e4) for x in encode(ids, tensors, config)]
        lines.append(json.dumps({"text": text, "tokens": len(ids), "vector": vector}, ensure_ascii=False, separators=(",", ":")))
    print("[" + ",\n".join(lines) + "]")


if __name__ == "__main__":
    main()
