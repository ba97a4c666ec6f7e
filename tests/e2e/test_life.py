#!/usr/bin/env python3
"""The life of a document: planned, added, seen again without a write, changed, gone; here and through a server.
Standard library only."""
import json
import pathlib
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

from served import ROOT, Served, binary, run


class Watching:
    """with Watching(data, docs, "--prune") as w: ... w.round(): the JSON object of the next round"""

    def __init__(self, data, docs, *flags):
        self.process = subprocess.Popen([binary(), "--data", data, "--json", "ingest", "--watch", *flags, str(docs)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        self.first = self.round()
        return self

    def round(self, timeout=20):
        ready = select.select([self.process.stdout], [], [], timeout)[0]
        assert ready, "no round came"
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def stop(self):
        """Exit code and what was said on standard error."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=20)[1].decode()
        return self.process.returncode, said

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def other_encoder(folder):
    """The shipped encoder with its words in another order: another fingerprint, other vectors."""
    shutil.copytree(ROOT / "weights" / "encoder", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    name = next(key for key in header if "word_embeddings" in key and key.endswith("weight"))
    begin, end = (8 + size + at for at in header[name]["data_offsets"])
    content[begin:end] = content[begin:end][::-1]
    weights.write_bytes(content)
    return f"encoder={folder}"


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

    def sources(self):
        found = self.json("documents", "list")["documents"]
        return sorted(str(pathlib.Path(item["source"]).relative_to(self.docs)) for item in found)

    def sum_rounds(self, watching, wanted):
        """Rounds until their counts add up: how changes fall into rounds is a matter of time."""
        total = [0] * 5
        while tuple(total) != wanted:
            total = [a + b for a, b in zip(total, self.counts(watching.round()))]
            self.assertTrue(all(a <= b for a, b in zip(total, wanted)), (total, wanted))

    def watch_growth(self, watching):
        # A folder with files in it, at once; a file in a folder made a moment ago; a hidden file, a file of no known kind.
        (self.docs / "new/deeper").mkdir(parents=True)
        self.write("new/deeper/owl.md", "# Owls\n\nThe owl hunts at night.\n")
        self.write("new/.hidden.md", "# No\n\nNothing.\n")
        self.write("new/photo.jpg", "no picture")
        self.sum_rounds(watching, (1, 0, 0, 0, 0))
        self.write("new/deeper/eagle.md", "# Eagles\n\nThe eagle circles.\n")
        self.write("heron.md", "# Herons\n\nThe heron eats fish at noon.\n")
        self.sum_rounds(watching, (1, 1, 0, 0, 0))

    def watch_moves(self, watching):
        # A file is moved, a folder is moved, and what is in it is changed under its new name.
        (self.docs / "heron.md").rename(self.docs / "grey heron.md")
        self.sum_rounds(watching, (1, 0, 0, 1, 0))
        (self.docs / "new").rename(self.docs / "old")
        self.sum_rounds(watching, (2, 0, 0, 2, 0))
        self.write("old/deeper/owl.md", "# Owls\n\nThe owl sleeps at noon.\n")
        self.sum_rounds(watching, (0, 1, 0, 0, 0))
        # Lines of a file go, as an editor saves it: written beside and renamed over it.
        self.write("lines.jsonl", '{"id": "1", "text": "One."}\n{"id": "2", "text": "Two."}\n')
        self.sum_rounds(watching, (2, 0, 0, 0, 0))
        self.write(".lines", '{"id": "2", "text": "Two."}\n')
        (self.docs / ".lines").rename(self.docs / "lines.jsonl")
        self.sum_rounds(watching, (0, 1, 0, 1, 0))
        self.write("bad.md", "\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f")
        self.sum_rounds(watching, (0, 0, 0, 0, 1))
        shutil.rmtree(self.docs / "old")
        (self.docs / "deep/crane.md").unlink()
        self.sum_rounds(watching, (0, 0, 0, 3, 0))
        self.assertEqual(self.sources(), ["grey heron.md", "lines.jsonl#1", "\u82cd\u9e6d.md"])

    def test_watch(self):
        with Watching(self.data, self.docs, "--prune") as watching:
            self.assertEqual(self.counts(watching.first), (3, 0, 0, 0, 0))
            self.watch_growth(watching)
            self.watch_moves(watching)
            # The folder itself goes: nothing is taken for deleted. It comes back: all is looked at again.
            self.docs.rename(self.folder / "away")
            self.assertEqual(self.counts(watching.round()), (0, 0, 0, 0, 1))
            (self.folder / "away").rename(self.docs)
            (self.docs / "bad.md").unlink()
            self.write("wren.md", "# Wrens\n\nThe wren is small.\n")
            self.sum_rounds(watching, (1, 0, 3, 0, 0))
            code, said = watching.stop()
            self.assertEqual((code, "tried again" in said), (0, False), said)

    def test_watch_beside_a_server(self):
        """Served from the first round on; then nobody serves; then a server comes while watching."""
        with Served(data=self.data) as server:
            with Watching(self.data, self.docs, "--prune") as watching:
                self.assertTrue(watching.first["server"])
                self.watch_growth(watching)
                self.write("lines.jsonl", '{"id": "1", "text": "One."}\n{"id": "2", "text": "Two."}\n')
                self.sum_rounds(watching, (2, 0, 0, 0, 0))
                self.write("lines.jsonl", '{"id": "2", "text": "Two."}\n')
                shutil.rmtree(self.docs / "new")
                self.sum_rounds(watching, (0, 1, 0, 3, 0))
                found = server.post("/query", {"question": "\u82cd\u9e6d\u5403\u4ec0\u4e48", "mode": "context"})["passages"]
                self.assertIn("\u9752\u86d9", found[0]["text"])
                self.assertEqual(watching.stop()[0], 0)
        with Watching(self.data, self.docs) as watching:
            self.assertFalse(watching.first["server"])
            with Served(data=self.data):
                self.write("tern.md", "# Terns\n\nThe tern flies far.\n")
                found = watching.round()
                self.assertEqual((found["added"], bool(found["server"])), (1, True))
                (self.docs / "tern.md").unlink()  # without --prune its document stays
                self.write("wren.md", "# Wrens\n\nThe wren is small.\n")
                self.assertEqual(self.counts(watching.round())[:4], (1, 0, 0, 0))

    def test_watch_refuses(self):
        for args, code in ((["-"], 2), (["--dry-run", str(self.docs)], 2), ([str(self.folder / "none")], 1)):
            done = run("--data", self.data, "ingest", "--watch", *args, check=False)
            self.assertEqual(done.returncode, code, done.stderr)

    def test_watch_of_the_folder_that_holds_the_data(self):
        """What a run writes is no change."""
        with Watching(str(self.docs / "data"), self.docs) as watching:
            self.assertEqual(self.counts(watching.first), (3, 0, 0, 0, 0))
            time.sleep(1.5)
            self.write("tern.md", "# Terns\n\nThe tern flies far.\n")
            found = watching.round()
            self.assertEqual((found["added"], found["seen"]), (1, 1))
            time.sleep(1.5)
            self.assertFalse(select.select([watching.process.stdout], [], [], 0)[0])

    def test_near_duplicates(self):
        page = "The ferry to the island leaves at eight in the morning and at noon, and returns at four in the afternoon; tickets are sold on board."
        chinese = "\u6e21\u8f6e\u65e9\u4e0a\u516b\u70b9\u5f00\u5f80\u5c9b\u4e0a\uff0c\u4e0b\u5348\u56db\u70b9\u8fd4\u56de\uff0c\u8239\u7968\u5728\u8239\u4e0a\u51fa\u552e\u3002"
        for name, text in (("a.md", page), ("b.txt", page.upper()), ("c.md", chinese), ("d.txt", chinese.replace("\uff0c", " ")),
                           ("e.md", page.replace("ferry", "bus").replace("eight", "two").replace("noon", "ten").replace("four", "six"))):
            self.write(name, text + "\n")
        self.assertEqual(self.json("ingest", str(self.docs))["near_duplicates"], 2)
        found = self.json("documents", "list")["documents"]
        names = {item["id"]: pathlib.Path(item["source"]).name for item in found}
        near = {names[item["id"]]: names[item["near_duplicate_of"]] for item in found if item["near_duplicate_of"]}
        self.assertEqual(near, {"b.txt": "a.md", "d.txt": "c.md"})
        for question in ("When does the ferry leave?", "\u6e21\u8f6e\u51e0\u70b9\u5f00"):
            passages = self.json("query", "--mode", "context", "-k", "9", question)["passages"]
            seen = [pathlib.Path(passage["source"]).name for passage in passages]
            self.assertEqual((len({"a.md", "b.txt"} & set(seen)), len({"c.md", "d.txt"} & set(seen))), (1, 1), seen)
            self.assertIn("e.md", seen)
        with Served(data=self.data) as server:
            status = server.request("PUT", "/collections/default/documents/f", {"text": page})[1]
            self.assertIn(names[status["near_duplicate_of"]], ("a.md", "b.txt"))
            self.write("g.md", page + "\n")
            self.assertEqual(self.json("ingest", str(self.docs))["near_duplicates"], 1)

    def test_settings_of_a_collection(self):
        text = "# Birds\n\n" + " ".join(f"The bird number {i} of the long list sits on branch {i * 3} today." for i in range(40))
        self.write("birds.md", text)
        refusal = "\u8bf7\u8be2\u95ee\u524d\u53f0\u3002 Ask the desk."
        run("--data", self.data, "collections", "create", "small", "--chunk-tokens", "32", "--overlap", "0", "--refusal", refusal)
        self.json("ingest", str(self.docs))
        self.json("ingest", "-c", "small", str(self.docs))
        found = {item["name"]: item for item in self.json("collections", "list")["collections"]}
        self.assertEqual([found["small"][key] for key in ("chunk_tokens", "chunk_overlap", "refusal")], [32, 0, refusal])
        self.assertEqual([found["default"][key] for key in ("chunk_tokens", "chunk_overlap", "refusal")], [None] * 3)
        self.assertGreater(found["small"]["chunks"], 2 * found["default"]["chunks"])
        asked = self.json("query", "-c", "small", "--mode", "extract", "How much is the customs duty on bicycles from Norway?")
        self.assertEqual((asked["refused"], asked["answer"]), (True, refusal))
        self.assertEqual(self.counts(self.json("ingest", "-c", "small", str(self.docs))), (0, 0, 4, 0, 0))
        with Served(data=self.data) as server:
            # Through the server the same chunks are made; then other settings, and every document is cut again.
            self.write("more.md", text.replace("bird", "fish"))
            self.json("ingest", "-c", "small", str(self.docs))
            run("--data", self.data, "collections", "create", "small", "--chunk-tokens", "200")
            self.assertEqual(self.counts(self.json("ingest", "-c", "small", str(self.docs))), (0, 5, 0, 0, 0))
            small = [item for item in server.get("/collections")["collections"] if item["name"] == "small"][0]
            self.assertEqual([small[key] for key in ("chunk_tokens", "chunk_overlap", "refusal")], [200, 0, refusal])
            self.assertEqual(server.request("PUT", "/collections/small", {"chunk_tokens": 3})[0], 400)

    def test_another_encoder(self):
        for i in range(24):
            self.write(f"deep/{i}.md", f"# Note {i}\n\n" + f"Shelf {i} holds {i * 7} books about the sea. " * 40)
        self.json("ingest", str(self.docs))
        new = ("--set", other_encoder(self.folder / "encoder"))
        chunks = self.json("collections", "list")["collections"][0]["chunks"]

        def passages(*flags, code=0):
            return self.json(*flags, "query", "--mode", "context", "What does the heron eat?", code=code)

        before = passages()
        refused = run("--data", self.data, *new, "query", "--mode", "context", "What?", check=False)
        self.assertEqual((refused.returncode, "reembed" in refused.stderr), (1, True), refused.stderr)
        with Served(data=self.data):
            held = run("--data", self.data, *new, "collections", "reembed", check=False)
            self.assertEqual((held.returncode, "held by" in held.stderr), (1, True), held.stderr)
        # Killed at some moment or other: the old vectors answer as before, and each run goes on where the last one was.
        for moment in (0.2, 0.5):
            process = subprocess.Popen([binary(), "--data", self.data, *new, "collections", "reembed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(moment)
            process.kill()
            if process.wait() == 0 or b"exchanged" in process.communicate()[0]:
                break
            self.assertEqual([p["score"] for p in passages()["passages"]], [p["score"] for p in before["passages"]])
        done = self.json(*new, "collections", "reembed")
        self.assertEqual(done["chunks"], chunks)
        run("--data", self.data, "fsck")
        self.assertEqual(run("--data", self.data, "query", "What?", check=False).returncode, 1)
        after = passages(*new)
        self.assertNotEqual([p["scores"]["dense"] for p in after["passages"]], [p["scores"]["dense"] for p in before["passages"]])
        # Documents are the same: nothing is read in again.
        self.assertEqual(self.counts(self.json(*new, "ingest", str(self.docs))), (0, 0, 27, 0, 0))
        self.assertTrue(self.json(*new, "collections", "reembed")["unchanged"])

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
