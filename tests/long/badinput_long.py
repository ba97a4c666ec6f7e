#!/usr/bin/env python3
"""Every bad file by itself through `lore ingest` (tests/e2e/badinput.py): within 5 seconds and 512 MB. Says which was the slowest and
which the largest."""
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from badinput import check_file, folders  # noqa: E402

if __name__ == "__main__":
    if not folders():
        print("no ../shared/data/badinput")
        sys.exit(77)
    runs, failed = [], 0
    with tempfile.TemporaryDirectory(prefix="lore-bad-") as data:
        for folder in folders():
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                outcome = check_file(path, data)
                failed += outcome.summary["failed"] > 0
                runs.append((outcome, path.relative_to(folder.parent)))
    slowest, largest = max(runs, key=lambda r: r[0].seconds), max(runs, key=lambda r: r[0].bytes)
    print(f"{len(runs)} files, {failed} with errors; slowest {slowest[0].seconds:.1f} s: {slowest[1]}; "
          f"largest {largest[0].bytes >> 20} MB: {largest[1]}")
