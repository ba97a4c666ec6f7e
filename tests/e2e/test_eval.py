#!/usr/bin/env python3
"""lore eval as a user runs it: figures against an independent count of its own run file, to the last digit; the same output twice;
baselines and gates; fitting and storing a weight, here and through a server; answers; and what is said of bad input."""
import csv
import json
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from served import ROOT, Served, binary

WORDS = ["heron", "gate", "lantern", "harbour", "walnut", "glacier", "violin", "beacon", "meadow", "copper", "falcon", "ribbon"]


def documents():
    """Two documents for each word, and one long one that mentions them all once."""
    for i, word in enumerate(WORDS):
        other = WORDS[(i + 1) % len(WORDS)]
        yield {"id": f"d{i}", "text": f"The {word} stands beside the old mill. Everybody who passes the {word} looks at it."}
        yield {"id": f"e{i}", "text": f"A {word} and a {other} were seen together at noon on the {i + 3}th of May."}
    yield {"id": "all", "text": "An inventory: " + ", ".join(WORDS) + "."}


def figures_of(grades, ranked):
    """The definitions once more: linear gains, log2 discounts, sums in order of rank."""
    found = [grades.get(d, 0) for d in ranked]
    ideal = sorted((g for g in grades.values() if g > 0), reverse=True)
    dcg = lambda gains: sum(g / math.log2(i + 2) for i, g in enumerate(gains[:10]) if g > 0)
    hits = [i for i, g in enumerate(found) if g > 0]
    return {"ndcg@10": dcg(found) / dcg(ideal), "recall@10": sum(i < 10 for i in hits) / len(ideal),
            "recall@100": sum(i < 100 for i in hits) / len(ideal),
            "mrr@10": 1 / (hits[0] + 1) if hits and hits[0] < 10 else 0.0,
            "map": sum((n + 1) / (i + 1) for n, i in enumerate(hits)) / len(ideal)}


class EvalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lore-eval-"))
        cls.set = cls.folder / "set"
        (cls.set / "qrels").mkdir(parents=True)
        cls.write("corpus.jsonl", *map(json.dumps, documents()))
        cls.write("queries.jsonl", *(json.dumps({"_id": f"q{i}", "text": f"Where is the {w}?"}) for i, w in enumerate(WORDS)),
                  json.dumps({"_id": "free", "text": "Nobody judged this one."}))
        cls.grades = {f"q{i}": {f"d{i}": 2, f"e{i}": 1, "all": 0, f"e{(i + 5) % 12}": 1} for i in range(12)}
        cls.write("qrels/test.tsv", "query-id\tcorpus-id\tscore",
                  *(f"{q}\t{d}\t{g}" for q, judged in cls.grades.items() for d, g in judged.items()))
        cls.data = str(cls.folder / "data")
        cls.lore_at(cls.data, "ingest", str(cls.set / "corpus.jsonl"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def write(cls, name, *lines):
        path = cls.set / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    @classmethod
    def lore_at(cls, data, *args, code=0, words=""):
        done = subprocess.run([binary(), "--data", data, *args], capture_output=True, text=True, cwd=ROOT, timeout=300)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert words in done.stderr, (words, done.stderr)
        return done.stdout

    def lore(self, *args, **kwargs):
        return self.lore_at(self.data, *args, **kwargs)

    def figures(self, *args, **kwargs):
        report = json.loads(self.lore("--json", "eval", *args, **kwargs))
        return report, {f["name"]: f for f in report["figures"]}

    # ---- rankings ----

    def test_figures_to_the_last_digit(self):
        run, table = self.folder / "run", self.folder / "table"
        report, figures = self.figures("--qrels", str(self.set), "--run", str(run), "--per-query", str(table))
        self.assertEqual((report["questions"], report["unjudged"], report["absent_documents"]), (12, 1, 0))
        ranked = {}
        for line in run.read_text().splitlines():
            query, zero, document, rank, score, tag = line.split("\t")
            ranked.setdefault(query, []).append(document)
            self.assertEqual((zero, int(rank), tag), ("Q0", len(ranked[query]), "lore"))
        rows = {row["query"]: row for row in csv.DictReader(table.read_text().splitlines(), delimiter="\t")}
        self.assertEqual(sorted(rows), sorted(self.grades))
        sums = {}
        for query in sorted(rows):
            for name, value in figures_of(self.grades[query], ranked[query]).items():
                self.assertEqual(float(rows[query][name]), value, (query, name))
                sums[name] = sums.get(name, 0.0) + value
        for name, total in sums.items():
            self.assertEqual(figures[name]["value"], total / 12, name)
            self.assertLessEqual(figures[name]["low"], figures[name]["value"])
            self.assertGreaterEqual(figures[name]["high"], figures[name]["value"])
        self.assertGreater(figures["ndcg@10"]["value"], .5)

    def test_same_output_twice(self):
        first, second = (self.lore("--json", "eval", "--qrels", str(self.set)) for _ in range(2))
        self.assertEqual(first, second)

    def test_splits_and_trec_files(self):
        self.write("qrels/dev.tsv", "q0\td0\t1")
        report, figures = self.figures("--qrels", str(self.set), "--split", "dev")
        self.assertEqual(report["questions"], 1)
        trec = self.folder / "trec"
        trec.mkdir()
        (trec / "topics.txt").write_text("<top>\n<num> Number: 301\n<title> Where is the heron?\n</top>\n")
        (trec / "qrels.txt").write_text("301 0 d0 1\n301 0 gone 1\n")
        report, figures = self.figures("--qrels", str(trec))
        self.assertEqual((report["questions"], report["absent_documents"]), (1, 1))
        self.assertLessEqual(figures["recall@100"]["value"], .5)

    # ---- baselines and gates ----

    def test_baseline_and_gates(self):
        table = str(self.folder / "baseline")
        qrels = ("--qrels", str(self.set))
        self.lore("eval", *qrels, "--per-query", table)
        report, figures = self.figures(*qrels, "--baseline", table, "--fail-below", ".1", "--fail-drop", "0", "--fail-below", "map=0")
        self.assertTrue(all(g["held"] for g in report["gates"]) and len(report["gates"]) == 3)
        self.assertEqual([figures["map"]["change"][k] for k in ("value", "low", "high", "p")], [0, 0, 0, 1])
        report, _ = self.figures(*qrels, "--fail-below", "1.01", code=1)
        self.assertEqual([g["held"] for g in report["gates"]], [False])
        better = pathlib.Path(table).read_text().splitlines()
        better = [better[0]] + ["\t".join([row.split("\t")[0]] + ["1"] * 5) for row in better[1:]]
        pathlib.Path(table).write_text("\n".join(better) + "\n")
        self.assertIn("FAILED: map", self.lore("eval", *qrels, "--baseline", table, "--fail-drop", "map=.01", code=1))

    # ---- the weight ----

    def tuning(self, data):
        listed = json.loads(self.lore_at(data, "--json", "collections", "list"))["collections"]
        return {c["name"]: {k: c[k] for k in ("fusion_weight", "expansion")} for c in listed}["default"]

    def test_fit_is_stored_and_used(self):
        data = str(self.folder / "fit")
        shutil.copytree(self.data, data)
        # With the configuration's weight at 0 the words alone decide; the vectors add to them.
        args = ("--json", "--set", "fusion_weight=0", "eval", "--qrels", str(self.set))
        before = json.loads(self.lore_at(data, *args))["figures"][0]["value"]
        report = json.loads(self.lore_at(data, *args, "--fit"))
        figures = {f["name"]: f["value"] for f in report["figures"]}
        self.assertEqual(figures["configured_ndcg@10"], before)
        self.assertEqual(figures["lexical_ndcg@10"], before)
        self.assertEqual(report["fit"]["stored"], figures["fitted_ndcg@10"] > before)
        self.assertTrue(report["fit"]["stored"], report)
        self.assertEqual(self.tuning(data), report["fit"]["best"])
        self.assertIn(f"fusion weight {report['fit']['best']['fusion_weight']:.2f}", self.lore_at(data, "collections", "list"))
        after = json.loads(self.lore_at(data, *args))["figures"][0]["value"]
        best = max(w["ndcg@10"] for w in report["fit"]["tried"])
        self.assertEqual(after, best)
        self.assertGreater(after, before)

    def test_fit_through_a_server(self):
        data = str(self.folder / "served")
        shutil.copytree(self.data, data)
        with Served(data=data) as served:
            args = ("--json", "--set", "fusion_weight=0", "eval", "--qrels", str(self.set), "--fit")
            report = json.loads(self.lore_at(data, *args))
            listed = {c["name"]: c for c in served.get("/collections")["collections"]}
            self.assertEqual(listed["default"]["fusion_weight"], report["fit"]["best"]["fusion_weight"])
            self.assertEqual(listed["default"]["expansion"], report["fit"]["best"]["expansion"])
            for body, status in (({"fusion_weight": 1.5}, 400), ({"fusion_weight": "x"}, 400), ({"expansion": -.1}, 400), ([], 400), ({}, 200)):
                self.assertEqual(served.request("PUT", "/collections/default", body)[0], status, body)
            listed = {c["name"]: c for c in served.get("/collections")["collections"]}
            self.assertEqual(listed["default"]["fusion_weight"], report["fit"]["best"]["fusion_weight"])
            self.assertEqual(listed["default"]["expansion"], report["fit"]["best"]["expansion"])
            self.assertEqual(served.request("PUT", "/collections/default", {"fusion_weight": None})[0], 200)
            listed = {c["name"]: c for c in served.get("/collections")["collections"]}
            self.assertIsNone(listed["default"]["fusion_weight"])
            self.assertEqual(listed["default"]["expansion"], report["fit"]["best"]["expansion"])
            self.assertEqual(served.request("PUT", "/collections/default", {"expansion": .5})[0], 200)
            listed = {c["name"]: c for c in served.get("/collections")["collections"]}
            self.assertEqual((listed["default"]["fusion_weight"], listed["default"]["expansion"]), (None, .5))

    # ---- answers ----

    def test_answers(self):
        rows = [{"id": "a", "question": "When were the heron and the gate seen together?", "answers": ["3th of May"]},
                {"id": "b", "question": "Where does the violin stand?", "answer": "beside the old mill", "document": "d6"},
                {"id": "c", "question": "Who wrote the constitution of Iceland?", "answer": None}]
        path, table = self.write("qa.jsonl", *map(json.dumps, rows)), self.folder / "qa.tsv"
        first, figures = self.figures("--qa", path, "--per-query", str(table))
        self.assertEqual(figures["f1"]["questions"], 2)
        self.assertEqual(figures["passage_recall"]["value"], 1)
        self.assertEqual(figures["citation_verified"]["value"], 1)
        for name in ("answer_in_output", "f1", "rouge_l", "citation_recall"):
            self.assertGreater(figures[name]["value"], 0, name)
        self.assertEqual(self.figures("--qa", path)[0], first)
        cells = list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))
        self.assertEqual(cells[2]["f1"], "-")
        _, extract = self.figures("--qa", path, "--mode", "extract", "--baseline", str(table), "--fail-below", "0")
        self.assertIn("change", extract["f1"])

    # ---- bad input ----

    def test_bad_input(self):
        bad = self.folder / "bad"
        bad.mkdir()
        eval_bad = lambda code=1, words="", *more: self.lore("eval", "--qrels", str(bad), *more, code=code, words=words)
        eval_bad(1, "has no questions (")
        (bad / "queries.tsv").write_text("q0\tWhere?\n")
        eval_bad(1, "has no judgements")
        (bad / "qrels.tsv").write_text("")
        eval_bad(1, "judges nothing relevant")
        (bad / "qrels.tsv").write_text("q0\td0\thigh\n" * 2)
        eval_bad(1, "qrels.tsv' line 2: a judgement")
        (bad / "qrels.tsv").write_text("q0\tnowhere\t1\n")
        eval_bad(1, "none of the documents")
        (bad / "qrels.tsv").write_text("q0\td0\t1\n")
        eval_bad(1, "a tuning needs 10 judged questions", "--fit")
        eval_bad(1, "other", "-c", "other")
        eval_bad(1, "no such figure", "--fail-below", "bleu=1")
        eval_bad(1, "must be a number", "--fail-below", "x")
        eval_bad(1, "is not a table", "--baseline", str(bad / "queries.tsv"))
        eval_bad(2, "--fail-drop needs --baseline", "--fail-drop", "0")
        eval_bad(2, "one of --qrels DIR and --qa FILE", "--qa", "x")
        (bad / "queries.tsv").write_text("q0\tWhere?\nq0\tWhen?\n")
        eval_bad(1, "'q0' stands there twice")
        self.lore("eval", code=2, words="one of --qrels DIR and --qa FILE")
        self.lore("eval", "--qa", str(bad / "none"), code=1, words="none")
        self.lore("eval", "--qa", str(bad / "qrels.tsv"), "--fit", code=2, words="need --qrels")
        self.assertEqual(self.tuning(self.data), {"fusion_weight": None, "expansion": None})


if __name__ == "__main__":
    os.environ.setdefault("LORE_DEVICE", "cpu")
    unittest.main()
