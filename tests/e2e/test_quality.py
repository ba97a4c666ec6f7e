#!/usr/bin/env python3
"""The quality gate: every question of corpora/qa.jsonl through the real server. Prints the figures and fails below the bars.

    test_quality.py [--hard] [--dump FILE]

recall@5     one of the five passages of /query is of the gold document and holds the answer span
extractive   the answer in mode extract holds the span (answerable questions)
refusals     unanswerable questions that are refused; false refusals: answerable ones that are
answer       the same in mode answer, with the support guard and (a server of its own) without it
own          answers in mode answer whose text is the decoder's (mode_used answer), of those not refused
citations    document[start:end] == cited_text for every citation of every answer, against GET of the document
"""
import argparse
import collections
import json
import sys
import urllib.parse

from served import ROOT, Served

# What the design asks for, and what the shipped models reach (docs/evaluation.md): a figure below its bar is named, one below
# its floor fails. Negative: at most.
BARS = {"recall@5": .90, "extractive": .70, "extractive paraphrase": .45, "refusals": .70, "false refusals": -.10,
        "own": .40, "citations": 1.0}
FLOORS = {**BARS, "recall@5": .85, "extractive": .64, "extractive paraphrase": .20, "refusals": .25}
GUARD_LOSS = .03  # answer mode may lose this much against extract


def squeeze(text):
    return "".join(text.split())


def holds(text, answer):
    return squeeze(answer) in squeeze(text)


def share(flags):
    return sum(flags) / len(flags) if flags else float("nan")


class Checker:
    """Citations against the stored documents, each fetched once."""

    def __init__(self, served):
        self.served, self.texts, self.seen, self.good = served, {}, 0, 0

    def text(self, document):
        if document not in self.texts:
            path = "/collections/default/documents/" + urllib.parse.quote(document, safe="")
            self.texts[document] = self.served.get(path)["text"].encode()
        return self.texts[document]

    def check(self, answer):
        for citation in answer["citations"]:
            self.seen += 1
            span = self.text(citation["document_id"])[citation["start"]:citation["end"]]
            self.good += span.decode("utf-8", "replace") == citation["cited_text"]


def ask(served, checker, rows, mode, extra=None):
    out = []
    for row in rows:
        answer = served.post("/query", {"question": row["question"], "mode": mode, "top_k": 5, **(extra or {})})
        checker.check(answer)
        out.append(answer)
    return out


def of_kind(rows, flags, wanted):
    return share([f for row, f in zip(rows, flags) if wanted(row)])


def measure(rows, options=()):
    with Served("corpora/help", options=options) as served:
        checker = Checker(served)
        extract = ask(served, checker, rows, "extract")
        answer = ask(served, checker, rows, "answer")
    gold = lambda row: row["answer"] is not None
    found = [gold(r) and any(r["document"] in p["source"] and holds(p["text"], r["answer"]) for p in a["passages"])
             for r, a in zip(rows, extract)]
    right = {m: [gold(r) and not a["refused"] and holds(a["answer"], r["answer"]) for r, a in zip(rows, list_)]
             for m, list_ in (("extractive", extract), ("answer", answer))}
    refused = [a["refused"] for a in answer]
    figures = collections.OrderedDict()
    figures["recall@5"] = of_kind(rows, found, gold)
    for kind in ("direct", "paraphrase", "generation", "hard"):
        if any(r["kind"] == kind for r in rows):
            figures[f"recall@5 {kind}"] = of_kind(rows, found, lambda r, k=kind: r["kind"] == k)
    for m, flags in right.items():
        figures[m] = of_kind(rows, flags, gold)
        for kind in ("direct", "paraphrase", "generation", "hard"):
            if any(r["kind"] == kind for r in rows):
                figures[f"{m} {kind}"] = of_kind(rows, flags, lambda r, k=kind: r["kind"] == k)
        figures[f"{m} zh"] = of_kind(rows, flags, lambda r: gold(r) and r["lang"] == "zh")
    figures["refusals"] = of_kind(rows, refused, lambda r: not gold(r))
    figures["false refusals"] = of_kind(rows, refused, gold)
    figures["own"] = share([a["mode_used"] == "answer" for a in answer if not a["refused"]])
    figures["citations"] = checker.good / max(checker.seen, 1)
    figures["citations seen"] = checker.seen
    return figures, extract, answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hard", action="store_true", help="corpora/qa-hard.jsonl instead: printed, no bars")
    parser.add_argument("--dump", help="write every answer here, one JSON object a line")
    parser.add_argument("--options", default="", help="global flags for both commands")
    args = parser.parse_args()
    name = "qa-hard.jsonl" if args.hard else "qa.jsonl"
    rows = [json.loads(line) for line in open(ROOT / "corpora" / name, encoding="utf-8")]
    figures, extract, answer = measure(rows, args.options.split())
    unguarded = {} if args.hard else measure_unguarded(rows)
    if args.dump:
        with open(args.dump, "w", encoding="utf-8") as out:
            for row, e, a in zip(rows, extract, answer):
                out.write(json.dumps({"row": row, "extract": e, "answer": a}, ensure_ascii=False) + "\n")
    for key, value in {**figures, **unguarded}.items():
        print(f"{key:28} {value:.3f}" if isinstance(value, float) else f"{key:28} {value}")
    if args.hard:
        return 0
    missed, failed = below(figures, BARS), below(figures, FLOORS)
    print("below the bar of the design: " + ", ".join(missed) if missed else "all bars of the design held")
    print("below the floor: " + ", ".join(failed) if failed else "all floors held")
    return 1 if failed else 0


def below(figures, limits):
    """Names of the figures that are worse than their limits."""
    names = [key for key, limit in limits.items() if (figures[key] < limit if limit >= 0 else figures[key] > -limit)]
    return names + (["answer against extractive"] if figures["answer"] < figures["extractive"] - GUARD_LOSS else [])


def measure_unguarded(rows):
    """Mode answer without the support guard, for the record."""
    with Served("corpora/help", env={"LORE_GUARD": "false"}) as served:
        answer = ask(served, Checker(served), rows, "answer")
    right = [r["answer"] is not None and not a["refused"] and holds(a["answer"], r["answer"]) for r, a in zip(rows, answer)]
    return {"answer, no guard": of_kind(rows, right, lambda r: r["answer"] is not None)}


if __name__ == "__main__":
    sys.exit(main())
