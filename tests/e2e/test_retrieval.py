#!/usr/bin/env python3
"""nDCG@10 of POST /retrieve on the public collections of ../shared/data/ir, default settings, against the bars.

    test_retrieval.py [--queries N] [SET ...]     N: at most so many questions of each set (0: all)

A document's rank is that of its best passage. Skips (exit 77) where the data are absent."""
import argparse
import json
import math
import random
import sys

from served import SHARED, Served

BARS = {"cranfield": .36, "med": .66, "squad-dev-en": .86, "qa-dev-zh": .91}


def ndcg(ranked, relevant):
    gains = [relevant.get(d, 0) for d in ranked[:10]]
    ideal = sorted(relevant.values(), reverse=True)[:10]
    return (sum(g / math.log2(i + 2) for i, g in enumerate(gains))
            / sum(g / math.log2(i + 2) for i, g in enumerate(ideal)))


def relevance(folder):
    relevant = {}
    with open(folder / "qrels.tsv", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, grade = line.split("\t")
            if float(grade) > 0:
                relevant.setdefault(query, {})[document] = float(grade)
    return relevant


def measure(name, queries_max):
    folder = SHARED / "data" / "ir" / name
    relevant = relevance(folder)
    queries = [json.loads(line) for line in open(folder / "queries.jsonl", encoding="utf-8")]
    queries = [q for q in queries if str(q["id"]) in relevant]
    if queries_max and len(queries) > queries_max:
        queries = random.Random(1).sample(queries, queries_max)
    scores = []
    with Served(folder / "docs.jsonl") as served:
        for query in queries:
            found = served.post("/retrieve", {"question": query["text"], "top_k": 30})["passages"]
            ranked = list(dict.fromkeys(p["document_id"] for p in found))
            scores.append(ndcg(ranked, relevant[str(query["id"])]))
    return sum(scores) / len(scores), len(scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=0)
    parser.add_argument("sets", nargs="*", default=list(BARS))
    args = parser.parse_args()
    if not (SHARED / "data" / "ir").is_dir():
        print(f"skipped: {SHARED}/data/ir is not here")
        return 77
    failed = []
    for name in args.sets:
        score, count = measure(name, args.queries)
        bar = BARS.get(name, 0)
        print(f"{name:14} nDCG@10 {score:.4f} over {count} questions (bar {bar})", flush=True)
        if score < bar:
            failed.append(name)
    print("below the bar: " + ", ".join(failed) if failed else "all bars held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
