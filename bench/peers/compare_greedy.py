"""Do lore's greedy answers follow transformers'?

    python compare_greedy.py THEIRS.json OURS.jsonl

THEIRS is what `measure_transformers.py FOLDER greedy` wrote (prompts, answers, and how close the two
best logits of each step were), OURS what `lore bench greedy` said to the same prompts. Where two
answers part, all that follows differs, so only the first difference counts. The verdict is that of
the project: at least 99 % of the prompts match, where a prompt may part only at a gap below .1, and
at most 15 % part at all. Exit status 0: it holds.
"""

import json
import sys

GAP, MATCH, PART = 0.1, 0.99, 0.15


def first_difference(theirs, ours):
    for i, (a, b) in enumerate(zip(theirs, ours)):
        if a != b:
            return i
    return None if len(theirs) == len(ours) else min(len(theirs), len(ours))


def compare(theirs, answers):
    """(prompts, gaps where answers part): the gap is infinite where an answer ends too early."""
    prompts = theirs["prompts"]
    assert len(prompts) == len(answers), f"{len(prompts)} prompts, {len(answers)} answers"
    gaps = []
    for one, answer in zip(prompts, answers):
        at = first_difference(one["answer"], answer)
        if at is not None:
            gaps.append(one["gaps"][at] if at < len(one["gaps"]) else float("inf"))
    return len(prompts), gaps


def verdict(count, gaps):
    wide = [gap for gap in gaps if not gap < GAP]
    holds = count > 0 and count - len(wide) >= MATCH * count and len(gaps) <= PART * count
    words = (f"{count - len(gaps)} of {count} answers are equal, {len(gaps) - len(wide)} part at a "
             f"gap below {GAP}, {len(wide)} at a wider one")
    if gaps:
        words += f" (widest {max(gaps):.3f})"
    return holds, f"{words}: {'holds' if holds else 'does not hold'}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        theirs = json.load(file)
    with open(sys.argv[2], encoding="utf-8") as file:
        answers = [json.loads(line)["ids"] for line in file if line.strip()]
    holds, words = verdict(*compare(theirs, answers))
    print(words)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
