#!/usr/bin/env python3
"""The life of a document: planned, added, seen again without a write, changed, gone; here and through a server.
Standard library only."""
import json
import pathlib
import subprocess
import tempfile
import unittest

from served import Served, binary, run


class LifeTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="lore-life-")
        self.folder = pathlib.Path(self.temporary.name)
        self.docs = self.folder / "docs"
        (self.docs / "deep").mkdir(parents=True)
        self.write("heron.md", "# Herons\n\nThe heron eats frogs at dawn.\n")
        self.write("deep/crane.md", "# Cranes\n\nThe crane dances in spring.\n")
        self.write("\u82cd\u9e6d.md", "# \u82cd\u9e6d\n\n\u82cd\u9e6d\u5728\u9ece\u660e\u5403\u9752\u86d9\u3002\n")
        self.data = str(self.folder / "data")

    def tearDown(self):
        self.temporary.cleanup()

    def write(self, name, text):
        (self.docs / name).write_text(text, encoding="utf-8")

    def json(self, *args, code=0):
        done = run("--data", self.data, "--json", *args, check=False)
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        return json.loads(done.stdout)

    def counts(self, found):
        return tuple(found[key] for key in ("added", "replaced", "unchanged", "deleted", "failed"))

    def change_all(self):
        """One of each: added, replaced, unchanged, deleted, failed."""
        self.write("heron.md", "# Herons\n\nThe heron eats fish at noon.\n")
        self.write("stork.md", "# Storks\n\nThe stork clatters.\n")
        (self.docs / "deep/crane.md").unlink()
        (self.docs / "bad.md").write_bytes(b"\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f")

    def check_plan(self, found):
        self.assertEqual(self.counts(found), (1, 1, 1, 1, 1), found)
        plan = {pathlib.Path(item["source"]).name: item for item in found["plan"]}
        self.assertEqual({name: item["fate"] for name, item in plan.items()},
                         {"stork.md": "added", "heron.md": "replaced", "\u82cd\u9e6d.md": "unchanged", "crane.md": "deleted", "bad.md": "failed"})
        self.assertEqual(plan["stork.md"]["chunks"], 1)
        self.assertIn("not text", plan["bad.md"]["message"])
        self.assertTrue(all(plan[name]["id"].startswith("d_") for name in plan))

    def test_plan(self):
        first = self.json("ingest", "--dry-run", str(self.docs))
        self.assertEqual(self.counts(first), (3, 0, 0, 0, 0))
        self.assertFalse(pathlib.Path(self.data).exists(), "a dry run makes no folder")
        self.json("ingest", str(self.docs))
        self.change_all()
        self.check_plan(self.json("ingest", "--prune", "--dry-run", str(self.docs), code=3))
        self.assertEqual(self.counts(self.json("ingest", "--dry-run", "-c", "other", str(self.docs), code=3)), (3, 0, 0, 0, 1))
        lines = run("--data", self.data, "ingest", "--prune", "--dry-run", str(self.docs), check=False).stdout.splitlines()
        self.assertEqual(sorted(line.split()[0] for line in lines[:-1]), ["added", "deleted", "replaced"])
        self.assertEqual(self.counts(self.json("ingest", "--prune", str(self.docs), code=3)), (1, 1, 1, 1, 1))

    def test_served(self):
        with Served(data=self.data) as server:
            first = self.json("ingest", str(self.docs))
            self.assertEqual(self.counts(first), (3, 0, 0, 0, 0))
            self.assertTrue(first["server"])
            self.assertGreater(first["tokens"], 0)
            self.change_all()
            self.check_plan(self.json("ingest", "--prune", "--dry-run", str(self.docs), code=3))
            # What cannot be read says nothing about what was made of it: nothing under it is pruned.
            (self.docs / "lines.jsonl").write_text('{"id": "line-1", "text": "One line."}\n')
            self.assertEqual(self.counts(self.json("ingest", "--prune", str(self.docs), code=3)), (2, 1, 1, 1, 1))
            (self.docs / "lines.jsonl").write_text('{"id": "line-1"}\n')
            self.assertEqual(self.counts(self.json("ingest", "--prune", str(self.docs), code=3)), (0, 0, 3, 0, 2))
            self.assertEqual(server.get("/collections/default/documents/line-1")["text"], "One line.")

    def test_versions(self):
        found = []
        with Served(data=self.data) as server:
            for text in ("One.", "Two.", "Two.", "Three."):
                status = server.request("PUT", "/collections/default/documents/note", {"text": text})[1]
                found.append((status["version"], server.get("/collections/default/documents/note")["version"]))
            passage = server.post("/query", {"question": "Three?", "mode": "context"})["passages"][0]
            self.assertEqual(passage["document_version"], 3)
            server.request("DELETE", "/collections/default/documents/note")
            found.append((server.request("PUT", "/collections/default/documents/note", {"text": "One."})[1]["version"],) * 2)
        self.assertEqual(found, [(1, 1), (2, 2), (2, 2), (3, 3), (1, 1)])
        self.assertEqual(self.json("documents", "list")["documents"][0]["version"], 1)

    def test_unchanged_writes_nothing(self):
        for i in range(300):
            self.write(f"deep/{i}.md", f"# Note {i}\n\nShelf {i} holds {i * 7} books.\n")
        self.json("ingest", str(self.docs))
        database = pathlib.Path(self.data) / "lore.db"
        before = (database.read_bytes(), database.stat().st_mtime_ns, sorted(p.name for p in database.parent.iterdir()))
        again = self.json("ingest", "--prune", str(self.docs))
        self.assertEqual(self.counts(again), (0, 0, 302 + 1, 0, 0))
        after = (database.read_bytes(), database.stat().st_mtime_ns, sorted(p.name for p in database.parent.iterdir()))
        self.assertEqual(before, after)


if __name__ == "__main__":
    unittest.main()
