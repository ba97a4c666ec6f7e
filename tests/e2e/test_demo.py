#!/usr/bin/env python3
"""The demo as a newcomer sees it: scripts/demo runs, answers right, says what to try next; a second run ingests nothing; and of
ten answerable questions drawn from corpora/qa.jsonl by seed, most are answered right with citations."""
import json
import os
import random
import subprocess
import sys
import tempfile
import time

from served import ROOT, binary, run

SEED = 11
RIGHT_MIN = 5
EXPECTED = ["five seconds", "do not need to enter a card", "goes to the buyer", "五台卫星", "30 天守护版试用", "could not find"]


def demo(data):
    start = time.monotonic()
    done = subprocess.run([str(ROOT / "scripts" / "demo")], capture_output=True, text=True,
                          env={**os.environ, "LORE_DATA": data, "LORE_BINARY": binary()})
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - start


def main():
    rows = [json.loads(line) for line in open(ROOT / "corpora" / "qa.jsonl", encoding="utf-8")]
    with tempfile.TemporaryDirectory(prefix="lore-demo-") as data:
        out, _ = demo(data)
        for words in EXPECTED:
            assert words in out, f"the demo does not say '{words}':\n{out}"
        assert "Try next" in out and "[1]" in out, out
        again, seconds = demo(data)
        assert "63 unchanged" in again, again
        print(f"second demo: {seconds:.1f} s")
        right = 0
        for row in random.Random(SEED).sample([r for r in rows if r["answer"]], 10):
            answer = json.loads(run("--data", data, "--json", "query", row["question"]).stdout)
            good = "".join(row["answer"].split()) in "".join(answer["answer"].split()) and bool(answer["citations"])
            right += good
            print("right" if good else "wrong", "|", row["question"], "|", answer["answer"])
    print(f"{right} of 10 right")
    return 0 if right >= RIGHT_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
