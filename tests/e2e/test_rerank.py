#!/usr/bin/env python3
"""Reranking over HTTP: a tiny random cross-encoder decides the order of /retrieve and /query, or is over its deadline and the
reply says so; without one nothing of it is seen. Standard library only."""
import json
import pathlib
import re
import shutil
import tempfile
import unittest

from served import FAMILIES, ROOT, Served, run

RANKER = FAMILIES / "rank-bert"
CORPUS = ROOT / "corpora" / "help"
QUESTION = "How do I change my password?"
CHINESE = "R1 的管理密码连续输错 5 次，管理页面会锁定多久？"



def scores(reply):
    return [p["scores"]["rerank"] for p in reply["passages"]]


def outcomes(served):
    page = served.request("GET", "/metrics")[1]
    return {name: int(count) for name, count in re.findall(r'lore_reranks_total{outcome="(\w+)"} (\d+)', page)}


class Reranking(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="lore-rerank-")
        cls.data = pathlib.Path(cls.temporary.name) / "data"
        run("--data", str(cls.data), "ingest", str(CORPUS))

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def served(self, **settings):
        """A server on a copy of the data: each has a folder of its own."""
        folder = tempfile.mkdtemp(dir=self.temporary.name)
        shutil.copytree(self.data, folder, dirs_exist_ok=True)
        return Served(options=[x for key, value in {"decoder": "none", **settings}.items() for x in ("--set", f"{key}={value}")], data=folder)

    def with_ranker(self, **settings):
        return self.served(reranker=RANKER, **settings)

    def test_the_order_is_the_rerankers(self):
        with self.with_ranker(rerank_pairs=50, rerank_ms=60000) as served:
            for path, body in (("/retrieve", {}), ("/query", {"mode": "context"}), ("/query", {"mode": "extract"})):
                reply = served.post(path, {"question": QUESTION, "top_k": 4, **body})
                self.assertIs(reply["reranked"], True, reply)
                self.assertNotIn("rerank_reason", reply)
                self.assertEqual(scores(reply), sorted(scores(reply), reverse=True))
                self.assertTrue(all(0 < s < 1 for s in scores(reply)))
                self.assertGreater(reply["timings_ms"]["rerank"], 0)
                self.assertEqual(len(reply["passages"]), 4)
            wide = served.post("/retrieve", {"question": QUESTION, "top_k": 50})
            self.assertEqual([p["chunk_id"] for p in wide["passages"][:4]],
                             [p["chunk_id"] for p in served.post("/retrieve", {"question": QUESTION, "top_k": 4})["passages"]])

    def test_the_deadline_is_kept_and_told(self):
        with self.with_ranker(rerank_pairs=50, rerank_ms=1) as served, self.served() as plain:
            asked = {"question": QUESTION, "top_k": 10}
            reply, found = served.post("/retrieve", asked), plain.post("/retrieve", asked)
            self.assertIs(reply["reranked"], False)
            self.assertEqual(reply["rerank_reason"], "deadline")
            self.assertEqual(scores(reply), [None] * 10)
            self.assertLess(reply["timings_ms"]["rerank"], 1000)
            self.assertEqual([p["text"] for p in reply["passages"]], [p["text"] for p in found["passages"]])
            self.assertNotIn("reranked", found)
            self.assertNotIn("rerank", found["timings_ms"])
            self.assertEqual(scores(found), [None] * 10)

    def test_a_few_passages_are_read_and_no_more(self):
        with self.with_ranker(rerank_pairs=5, rerank_ms=60000) as served, self.served() as plain:
            for question in (QUESTION, CHINESE):
                asked = {"question": question, "top_k": 10}
                reply, found = served.post("/retrieve", asked), plain.post("/retrieve", asked)
                self.assertIs(reply["reranked"], True)
                self.assertEqual([s is None for s in scores(reply)], [False] * 5 + [True] * 5)
                self.assertEqual(scores(reply)[:5], sorted(scores(reply)[:5], reverse=True))
                texts = [[p["text"] for p in answer["passages"]] for answer in (reply, found)]
                self.assertEqual(sorted(texts[0][:5]), sorted(texts[1][:5]))
                self.assertEqual(texts[0][5:], texts[1][5:])
            self.assertEqual(outcomes(served), {"done": 2, "deadline": 0, "error": 0})
        for wrong in (0, 51):
            done = run("--set", f"rerank_pairs={wrong}", "config", check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("rerank_pairs", done.stderr)

    def test_every_kind_of_reply_says_that_it_was_late(self):
        with self.with_ranker(rerank_pairs=50, rerank_ms=1) as served:
            for question in (QUESTION, CHINESE):
                for path, body in (("/retrieve", {}), ("/query", {"mode": "context"}), ("/query", {"mode": "extract"})):
                    reply = served.post(path, {"question": question, **body})
                    self.assertIs(reply["reranked"], False, reply)
                    self.assertEqual(reply["rerank_reason"], "deadline")
                    self.assertGreater(len(reply["passages"]), 0)
            status, stream = served.request("POST", "/query", {"question": CHINESE, "mode": "extract", "stream": True})
            self.assertEqual(status, 200)
            done = json.loads(stream.split("event: done\ndata: ")[1].splitlines()[0])
            self.assertIs(done["reranked"], False)
            self.assertEqual(done["rerank_reason"], "deadline")
            self.assertEqual(outcomes(served), {"done": 0, "deadline": 7, "error": 0})

    def test_doctor_tries_it(self):
        def line(folder, code=0):
            done = run("--set", f"reranker={folder}", "--set", "decoder=none", "--json", "doctor", check=False)
            self.assertEqual(done.returncode, code, done.stderr)
            return next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "reranker")

        found = line(RANKER)
        self.assertEqual(found["state"], "OK")
        self.assertRegex(found["message"], r"^rank-bert \(bert\), 0\.0 M parameters, loads in .* s \(.*/rank-bert\)$")
        self.assertEqual(line("none")["message"], "none is configured: passages stay as they were found")
        for folder, words in ((ROOT / "nowhere", "no folder at"), (ROOT / "weights" / "encoder", "one label")):
            broken = line(folder, code=1)
            self.assertEqual(broken["state"], "FAIL")
            self.assertIn(words, broken["message"])
            self.assertIn("or reranker=none", broken["message"])

    def test_models_info_knows_what_it_reads(self):
        view = json.loads(run("--json", "models", "info", "--dir", str(RANKER)).stdout)["models"][0]
        self.assertEqual((view["role"], view["name"], view["context"]), ("reranker", "rank-bert", 40))
        self.assertGreater(view["vocabulary"], 100)

    def test_a_wrong_folder_is_named(self):
        for folder, words in ((ROOT / "nowhere", "no reranker at"), (ROOT / "weights" / "encoder", "one label")):
            with self.served() as served:
                done = run("--data", served.data, "--set", f"reranker={folder}", "--set", "decoder=none", "query", QUESTION, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
