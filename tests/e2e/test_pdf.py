#!/usr/bin/env python3
"""PDF through the real program: generated documents of one to three columns come out paragraph by paragraph in the order in which they
were written, each at its page; answers name the page; what can be wrong with a PDF, or with pdftotext, is named and harms nobody else."""
import json
import os
import pathlib
import random
import stat
import tempfile
import time
import unittest

import pdf_maker
from served import Served, run

BOOKS = 10
SEED = int(os.environ.get("LORE_SEED", "20261123"))


def ingest(data, *paths, check=False, path=None):
    """(exit code, --json summary)"""
    env = {**os.environ, **({"PATH": path} if path else {})}
    done = run("--data", data, "--json", "ingest", *map(str, paths), check=check, env=env)
    return done.returncode, json.loads(done.stdout)


class Pdf(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="lore-pdf-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name, "docs")
        self.folder.mkdir()
        self.data = folder.name + "/data"

    def test_reading_order(self):
        print(f"LORE_SEED={SEED}")
        books = {}
        for seed in range(SEED, SEED + BOOKS):
            content, told, dropped = pdf_maker.book(seed, pages=2)
            (self.folder / f"{seed}.pdf").write_bytes(content)
            books[f"{self.folder}/{seed}.pdf"] = (told, dropped)
        with Served(self.folder) as served:
            listed = served.get("/collections/default/documents?limit=100")["documents"]
            self.assertEqual({one["source"] for one in listed}, set(books))
            for one in listed:
                told, dropped = books[one["source"]]
                document = served.get("/collections/default/documents/" + one["id"])
                lines = document["text"].split("\n")
                self.assertEqual(lines, [text for _, text in told], one["source"])
                self.assertEqual((document["metadata"]["author"], document["media"]), ("Li Lei", "application/pdf"))
                starts = {page["page"]: page["start"] for page in document["pages"]}
                at = 0
                for (page, _), line in zip(told, lines):
                    last = max(p for p, start in starts.items() if start <= at)
                    self.assertEqual(last, page, (one["source"], line))
                    at += len(line.encode()) + 1

    def test_table_heading_and_hyphens(self):
        pdf = pdf_maker.Pdf()
        pdf.page()
        pdf.text(60, 80, "Care of hares", 20)
        pdf.lines(60, 120, ["Hares are shy animals, and like other ani-", "mals of the field they need rest. A well-", "known rule is not to wake them."], 10)
        for row, cells in enumerate([("Kind", "Weight", "Speed"), ("Brown hare", "4.0 kg", "70 km/h"), ("Snow hare", "2.5 kg", "60 km/h")]):
            for column, cell in enumerate(cells):
                pdf.text(60 + 110 * column, 180 + 14 * row, cell, 10)
        pdf.page()
        pdf.text(60, 80, "Food", 14)
        pdf.text(60, 110, "The snow hare eats willow and birch in winter.", 10)
        (self.folder / "hares.pdf").write_bytes(pdf.bytes(random.Random(1)))
        with Served(self.folder) as served:
            answer = served.post("/query", {"question": "What does the snow hare eat in winter?", "mode": "extract"})
            self.assertEqual([c["page"] for c in answer["citations"]][:1], [2])
            self.assertEqual([p["page"] for p in answer["passages"]], [1])  # where it begins
            document = served.get("/collections/default/documents/" + answer["citations"][0]["document_id"])
            self.assertEqual(document["title"], "Care of hares")
            self.assertEqual(document["text"].split("\n"), [
                "Hares are shy animals, and like other animals of the field they need rest. A well-known rule is not to wake them.",
                "Kind | Weight | Speed", "Brown hare | 4.0 kg | 70 km/h", "Snow hare | 2.5 kg | 60 km/h", "Food",
                "The snow hare eats willow and birch in winter."])
            chunks = served.get("/collections/default/documents/" + answer["citations"][0]["document_id"] + "/chunks")["chunks"]
            self.assertEqual([c["page"] for c in chunks], [1])
            printed = run("--data", served.data, "query", "--mode", "extract", "What does the snow hare eat in winter?").stdout
            self.assertIn("hares.pdf, page 2, bytes ", printed)
            status, reply = served.request("PUT", "/collections/other/documents/sent", pdf.bytes(), {"Content-Type": "application/pdf"})
            self.assertEqual((status, reply["status"]), (201, "added"))

    def fake(self, script):
        """A PATH on which pdftotext is this."""
        folder = self.folder.parent / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "pdftotext"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return f"{folder}:{os.environ['PATH']}"

    def test_failures_are_named_and_alone(self):
        pdf = pdf_maker.Pdf()
        pdf.page()
        (self.folder / "empty.pdf").write_bytes(pdf.bytes())
        good = pdf_maker.Pdf()
        good.page()
        good.text(60, 100, "The canary sings.", 10)
        (self.folder / "good.pdf").write_bytes(good.bytes())
        (self.folder / "damaged.pdf").write_bytes(good.bytes()[:200])
        (self.folder / "no.pdf").write_bytes(b"")
        (self.folder / "text.txt").write_text("The canary sings at dawn.")
        code, summary = ingest(self.data, self.folder)
        reasons = {pathlib.Path(f["source"]).name: f["message"] for f in summary["failures"]}
        self.assertEqual((code, summary["added"]), (3, 2))
        self.assertEqual(sorted(reasons), ["damaged.pdf", "empty.pdf", "no.pdf"])
        self.assertIn("has 1 pages and no text: recognising text in pictures (OCR)", reasons["empty.pdf"])
        self.assertIn("is no PDF, or a damaged one", reasons["damaged.pdf"])
        self.assertIn("is no PDF, or a damaged one", reasons["no.pdf"])
        for name in ("empty.pdf", "damaged.pdf", "no.pdf"):
            (self.folder / name).unlink()
        scripts = {"echo 'Command Line Error: Incorrect password' >&2; exit 1": "is a PDF with a password: save it without one",
                   "exec sleep 100": "pdftotext takes longer than 300 ms", "while :; do :; done": "pdftotext takes longer than 300 ms",
                   "exec yes '<word xMin=\"1\">'": "has a word of over 1048576 bytes", "exec yes '<page >'": "has over 100000 pages",
                   "echo x > /tmp/lore-never": "is a PDF that pdftotext dies of (signal 25", "exit 0": "pdftotext does not say why",
                   "echo '<doc>'; exit 1": "is no PDF, or a damaged one", "ls | cat": "is no PDF, or a damaged one"}
        os.environ["LORE_LIMITS_PDF_MS_MAX"] = "300"
        self.addCleanup(os.environ.pop, "LORE_LIMITS_PDF_MS_MAX")
        for number, (script, reason) in enumerate(scripts.items()):
            if "yes" in script:
                os.environ["LORE_LIMITS_PDF_MS_MAX"] = "60000"
            begun = time.monotonic()
            code, summary = ingest(f"{self.data}{number}", self.folder, path=self.fake(script))
            self.assertEqual((code, summary["added"], summary["failed"]), (3, 1, 1), script)
            self.assertIn(reason, summary["failures"][0]["message"], script)
            self.assertLess(time.monotonic() - begun, 60, script)
        code, summary = ingest(self.data + "none", self.folder, path=str(self.folder))
        self.assertEqual((code, summary["added"]), (3, 1))
        self.assertIn("pdftotext is not installed: install poppler-utils", summary["failures"][0]["message"])


if __name__ == "__main__":
    unittest.main()
