"""Grounded question answering of an exported checkpoint, with transformers on one GPU.

    python evalqa.py WORK MODEL [N]

For N questions of each WORK/eval-*.jsonl (question, context, answers, lang) the model gets the question's own
passage and two others, trimmed as in training. Printed: how often an answer stands in the trimmed
evidence, in the output, and in the sentence that overlaps the question most (the baseline to beat); how
often the citation is right and the quote verbatim.
"""

import argparse
import glob
import json
import random
import re
import time
from collections import namedtuple

import prep
import torch

BATCH = 128
NEW_TOKENS = 96
NEIGHBOURS = 60  # rows around a question that its other passages come from

Item = namedtuple("Item", "prompt answers citation best question is_in_evidence")


def overlap_grams(text, lang):
    """Words, or pairs of characters."""
    if lang == "en":
        return set(re.findall(r"\w+", text.lower()))
    return {text[i : i + 2] for i in range(len(text) - 1)}


def best_sentence(question, passages, lang):
    """The sentence of all passages that overlaps the question most, for its length."""
    wanted = overlap_grams(question, lang)
    scored = []
    for passage in passages:
        for sentence in prep.sentences(passage, lang):
            grams = overlap_grams(sentence, lang)
            scored.append((len(wanted & grams) / (len(grams) ** 0.3 + 1), sentence))
    return max(scored, default=(0, ""))[1]


def make_item(rows, i, rnd):
    """One question with its prompt; None where no answer stands in its context."""
    row = rows[i]
    lang = row.get("lang", "en")
    answers = [a for a in row["answers"] if a]
    if not any(a in row["context"] for a in answers):
        return None
    near = rows[max(0, i - NEIGHBOURS) : i + NEIGHBOURS]
    contexts = list(dict.fromkeys(r["context"] for r in near))
    contexts = [c for c in contexts if c != row["context"] and not any(a in c for a in answers)]
    chosen = rnd.sample(contexts, min(2, len(contexts)))
    budget = 300 if lang == "zh" else 900
    sentences = prep.sentences(row["context"], lang)
    support = next((s for s in sentences if any(a in s for a in answers)), None)
    passages = [prep.passage("", "", c, budget, rnd) for c in chosen]
    position = rnd.randint(0, len(passages))
    passages.insert(position, prep.passage("", "", row["context"], budget, rnd, support))
    evidence, order = prep.evidence(row["question"], passages, lang)
    return Item(
        prep.prompt(row["question"], evidence),
        answers,
        order.index(position) + 1,
        best_sentence(row["question"], passages, lang),
        row["question"],
        any(a in e for e in evidence for a in answers),
    )


def generate(model, tokenizer, prompts):
    """Greedy answers."""
    outputs = []
    for i in range(0, len(prompts), BATCH):
        encoded = tokenizer(
            prompts[i : i + BATCH], return_tensors="pt", padding=True, add_special_tokens=False
        ).to("cuda")
        ids = model.generate(
            **encoded,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=[2, 0],
            pad_token_id=3,
        )
        outputs += tokenizer.batch_decode(
            ids[:, encoded.input_ids.shape[1] :], skip_special_tokens=True
        )
    return outputs


def holds(text, answers):
    """Whether any answer stands in the text, ignoring case."""
    return any(a.lower() in text.lower() for a in answers)


def report(path, items, outputs, seconds):
    """Figures of one file, and its first answers."""
    n = len(items)
    pairs = list(zip(items, outputs))
    quotes = [re.sub(r"\s*\[\d+\]\s*$", "", output).strip() for output in outputs]
    figures = {
        "answer in evidence": sum(x.is_in_evidence for x in items),
        "answer in output": sum(holds(output, x.answers) for x, output in pairs),
        "best-overlap sentence": sum(holds(x.best, x.answers) for x in items),
        "right citation": sum(f"[{x.citation}]" in output for x, output in pairs),
        "verbatim quote": sum(quote in x.prompt for x, quote in zip(items, quotes)),
    }
    shown = ", ".join(f"{name} {value/n:.3f}" for name, value in figures.items())
    print(f"{path}: n {n}, {shown}, mean chars {sum(map(len, outputs))/n:.0f}, {seconds:.0f}s")
    for x, output in pairs[:4]:
        start = output[:220].replace("\n", " / ")
        print("   Q", x.question, "| A", x.answers[:1], "|", x.citation, "| OUT", start)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work")
    parser.add_argument("model", help="folder of the checkpoint (train.py: OUT/deq for int8)")
    parser.add_argument("count", type=int, nargs="?", default=400)
    args = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.padding_side = "left"
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).cuda().eval()
    for path in sorted(glob.glob(f"{args.work}/eval-*.jsonl")):
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        rnd = random.Random(3)
        picked = rnd.sample(range(len(rows)), min(args.count, len(rows)))
        items = [make_item(rows, i, rnd) for i in picked]
        items = [item for item in items if item is not None]
        started = time.time()
        outputs = generate(model, tokenizer, [item.prompt for item in items])
        report(path, items, outputs, time.time() - started)


if __name__ == "__main__":
    main()
