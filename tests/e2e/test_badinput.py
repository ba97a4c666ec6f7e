#!/usr/bin/env python3
"""Folders of bad files through `lore ingest` (badinput.py); tests/long/badinput_long.py takes every file by itself. Skips where the data
is not there."""
import pathlib
import sys
import tempfile
import unittest

from badinput import CANARY, check_folder, folders


class BadInput(unittest.TestCase):
    def test_folders(self):
        with tempfile.TemporaryDirectory(prefix="lore-bad-") as scratch:
            canary = pathlib.Path(scratch, "canary.txt")
            canary.write_text(CANARY, encoding="utf-8")
            for folder in folders():
                if folder.name in ("epub", "pdf_misc_pdfjs"):
                    continue  # long enough for the long test alone: books to embed, processes to start
                with self.subTest(folder=folder.name):
                    check_folder(folder, canary, scratch + "/data")


if __name__ == "__main__":
    if not folders():
        print("no ../shared/data/badinput")
        sys.exit(77)
    unittest.main()
