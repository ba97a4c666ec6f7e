#!/usr/bin/env python3
"""Reranking over HTTP: a tiny random cross-encoder decides the order of /retrieve and /query, or is over its deadline and the
reply says so; without one nothing of it is seen. Standard library only."""
import unittest

from served import ROOT, Served, run

RANKER = ROOT / "tests" / "golden" / "families" / "rank-bert"
CORPUS = ROOT / "corpora" / "help"
QUESTION = "How do I change my password?"


def with_ranker(**settings):
    options = []
    for key, value in {"reranker": RANKER, "decoder": "none", **settings}.items():
        options += ["--set", f"{key}={value}"]
    return Served(CORPUS, options=options)


def scores(reply):
    return [p["scores"]["rerank"] for p in reply["passages"]]


class Reranking(unittest.TestCase):
    def test_the_order_is_the_rerankers(self):
        with with_ranker(rerank_pairs=50, rerank_ms=60000) as served:
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
        with with_ranker(rerank_pairs=50, rerank_ms=1) as served, Served(CORPUS, options=["--set", "decoder=none"]) as plain:
            asked = {"question": QUESTION, "top_k": 10}
            reply, found = served.post("/retrieve", asked), plain.post("/retrieve", asked)
            self.assertIs(reply["reranked"], False)
            self.assertEqual(reply["rerank_reason"], "deadline")
            self.assertEqual(scores(reply), [None] * 10)
            self.assertLess(reply["timings_ms"]["rerank"], 50)
            self.assertEqual([p["text"] for p in reply["passages"]], [p["text"] for p in found["passages"]])
            self.assertNotIn("reranked", found)
            self.assertNotIn("rerank", found["timings_ms"])
            self.assertEqual(scores(found), [None] * 10)

    def test_a_wrong_folder_is_named(self):
        for folder, words in ((ROOT / "nowhere", "no reranker at"), (ROOT / "weights" / "encoder", "one label")):
            with Served(CORPUS, options=["--set", "decoder=none"]) as served:
                done = run("--data", served.data, "--set", f"reranker={folder}", "--set", "decoder=none", "query", QUESTION, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(words, done.stderr)


if __name__ == "__main__":
    unittest.main()
