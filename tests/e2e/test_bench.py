#!/usr/bin/env python3
"""`lore bench` as a user types it, on the shipped decoder: every section gives its figures as one JSON object, floors and
spreads included; lists of sizes are checked; the load, the soak and the helpers for other programs do what they say. And the
verdict on greedy answers beside another program's. Standard library only."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from served import ROOT, binary

sys.path.insert(0, os.path.join(ROOT, "bench", "peers"))
import compare_greedy  # noqa: E402

SLOWNESS = int(os.environ.get("LORE_SLOWNESS", "1"))


class BenchTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="lore-bench-")
        self.folder = pathlib.Path(self.temporary.name)

    def tearDown(self):
        self.temporary.cleanup()

    def lore(self, *args, code=0, words=None):
        done = subprocess.run([binary(), "--data", str(self.folder / "data"), *args], capture_output=True,
                              timeout=120 * SLOWNESS, cwd=ROOT, text=True)
        self.assertEqual(done.returncode, code, f"{args}\n{done.stdout}\n{done.stderr}")
        if words is not None:
            self.assertIn(words, done.stderr)
        return done.stdout

    def figures(self, section, *args):
        """{name: figure} of a section."""
        report = json.loads(self.lore("--json", "bench", *args))
        return {(one["name"], one.get("unit")): one for one in report[section]}

    def check_median(self, figure, has_floor=True):
        self.assertGreater(figure["value"], 0)
        self.assertLessEqual(figure["p10"], figure["value"])
        self.assertGreaterEqual(figure["p90"], figure["value"])
        if has_floor:
            self.assertAlmostEqual(figure["ratio"], figure["value"] / figure["floor"], delta=0.02 * figure["ratio"])

    def test_flags(self):
        for flag, value in (("--batch", "8,1"), ("--batch", "1,,2"), ("--context", "0"), ("--context", "99999"),
                            ("--prompt", "x"), ("--batch", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17")):
            self.lore("bench", "decode", flag, value, code=2, words="ascending numbers")
        self.lore("bench", "serve", "--engine", code=2, words="--rate or --find-rate")
        self.lore("bench", "serve", "--rate", "1e9", code=2, words="--rate")
        self.lore("bench", "greedy", code=2, words="a file of prompts")

    def test_ingest_without_encoder(self):
        (self.folder / "a.md").write_text("# A\n\n" + "Some words about a router. 关于路由器的话。\n" * 200, encoding="utf-8")
        found = self.figures("ingest", "ingest", str(self.folder), "--without-encoder")
        self.assertGreater(found["text without the encoder", "MB/s"]["value"], 0)
        self.assertGreater(found["most memory without the encoder's work", "MiB"]["value"], 1)

    def test_decode(self):
        found = self.figures("decode", "decode", "--batch", "1,3", "--context", "20,70")
        for context in (20, 70):
            for name in (f"1 stream, past {context}", f"3 streams, past {context}"):
                self.assertGreater(found[(name, "tok/s")]["value"], 0)
                self.assertGreater(found[(name, "tok/s")]["share"], 0)
        self.check_median(found[("  a step", "ms")])
        self.lore("bench", "decode", "--context", "30000", code=1, words="a context of")

    def test_prefill(self):
        found = self.figures("prefill", "prefill", "--prompt", "33,64")
        for name in ("33 tokens", "64 tokens"):
            self.check_median(found[(name, "ms")], has_floor="floor" in found[(name, "ms")])
            self.assertGreater(found[(name, "TOP/s")]["value"], 0)
        new, known = (next(one for (name, _), one in found.items() if word in name) for word in ("new +", "known +"))
        self.check_median(new, has_floor=False)
        self.assertLess(known["value"], new["value"])  # the beginning is not computed again

    def test_scan(self):
        found = self.figures("search", "search", "--vectors", "20000")
        self.check_median(found[("1 question, 20000 x 384", "ms")])
        self.check_median(found[("64 questions, 20000 x 384", "ms")])

    def test_start(self):
        self.check_median(self.figures("start", "start")[("start of the program to first token", "ms")], has_floor=False)
        self.assertIn("first_token", json.loads(self.lore("bench", "start", "--once")))

    def test_load(self):
        found = self.figures("load", "serve", "--rate", str(2 / SLOWNESS), "--seconds", str(6 * SLOWNESS))
        self.assertGreater(found[("first token, p99", "ms")]["value"], 0)
        self.assertGreaterEqual(found[("first token, p99", "ms")]["value"], found[("first token, p50", "ms")]["value"])
        self.assertGreater(found[("tokens", "tok/s")]["value"], 0)

    def test_soak(self):
        found = self.figures("soak", "serve", "--soak", str(8 * SLOWNESS), "--set", "limits.batch_sequences_max=8")
        self.assertGreater(found[("preempted", "")]["value"], 0)
        self.assertGreater(found[("cancelled", "")]["value"], 0)
        self.assertEqual(found[("allocations left", "")]["value"], 0)
        self.lore("bench", "serve", "--soak", "1", "--set", "limits.batch_sequences_max=64", "--set",
                  "decoder=/nowhere", code=1, words="/nowhere")

    def test_greedy(self):
        prompts = self.folder / "prompts.jsonl"
        prompts.write_text('{"ids": [5, 6, 7]}\n\n{"ids": [9]}\n{"ids": [5, 6, 7]}\n', encoding="utf-8")
        answers = [json.loads(line)["ids"] for line in self.lore("bench", "greedy", str(prompts)).splitlines()]
        self.assertEqual(len(answers), 3)
        self.assertEqual(answers[0], answers[2])
        self.assertTrue(all(len(answer) <= 64 for answer in answers))
        for wrong in ("{}", '{"ids": []}', '{"ids": [-1]}', '{"ids": ["x"]}', '{"ids": [99999999]}', "x"):
            prompts.write_text(wrong, encoding="utf-8")
            self.lore("bench", "greedy", str(prompts), code=1)
        self.lore("bench", "greedy", str(self.folder / "none"), code=1, words="none")


class VerdictTest(unittest.TestCase):
    """99 of 100 match, where a prompt may part only at a gap below .1, and at most 15 part."""

    def verdict(self, parts, wide, count=100):
        theirs = {"prompts": [{"ids": [1], "answer": [1, 2, 3], "gaps": [1.0, 0.05 if i < parts else 0.5, 1.0]}
                              for i in range(count)]}
        answers = [[1, 9, 9] if i < parts or i >= count - wide else [1, 2, 3] for i in range(count)]
        return compare_greedy.verdict(*compare_greedy.compare(theirs, answers))[0]

    def test_verdict(self):
        self.assertTrue(self.verdict(0, 0))
        self.assertTrue(self.verdict(15, 0))
        self.assertFalse(self.verdict(16, 0))
        self.assertTrue(self.verdict(14, 1))
        self.assertFalse(self.verdict(15, 1))
        self.assertFalse(self.verdict(0, 2))
        self.assertFalse(self.verdict(0, 0, count=0))

    def test_lengths(self):
        theirs = {"prompts": [{"ids": [1], "answer": [1, 2], "gaps": [1.0, 0.5, 0.01]}]}
        self.assertEqual(compare_greedy.compare(theirs, [[1, 2]]), (1, []))
        self.assertEqual(compare_greedy.compare(theirs, [[1, 2, 3]]), (1, [0.01]))  # theirs drew the end there
        self.assertEqual(compare_greedy.compare(theirs, [[1]]), (1, [0.5]))


if __name__ == "__main__":
    unittest.main()
