#!/usr/bin/env python3
"""1,000 kills of the real program at random points (tests/e2e/kills.py), from a seed: kill_long.py [KILLS [SEED]]."""
import os
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from kills import Kills  # noqa: E402

if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(os.environ.get("LORE_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lore-kills-") as folder:
        begun = time.monotonic()
        print(f"{Kills(folder, seed).run(kills)} in {time.monotonic() - begun:.0f} s")
