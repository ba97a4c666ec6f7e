#!/usr/bin/env python3
"""What an operator meets where the GPU cannot be used: --device cuda says why and what to do, auto serves from the processor with one
line in the log. Standard library only; the driver in trouble is tests/e2e/libcuda_that_fails.c."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from served import ROOT, Served, binary

# What the driver does, and the words that say so. 100 is its CUDA_ERROR_NO_DEVICE, 999 CUDA_ERROR_UNKNOWN.
TROUBLES = {
    "old": ({"LORE_TEST_DRIVER": "11040"}, "the NVIDIA driver is for CUDA 11.4", "update the driver"),
    "absent": ({"LORE_TEST_DRIVER": "13000", "LORE_TEST_INIT": "100"}, "no NVIDIA GPU is visible here", "CUDA_VISIBLE_DEVICES"),
    "broken": ({"LORE_TEST_DRIVER": "13000", "LORE_TEST_INIT": "999"}, "the GPU cannot be used: unknown error", "nvidia-smi"),
}


def is_built_with_cuda():
    done = subprocess.run([binary(), "--device", "cuda:99", "bench", "start"], capture_output=True, text=True)
    return "built without the cuda backend" not in done.stderr


class DeviceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not is_built_with_cuda():
            raise unittest.SkipTest("lore was built without CUDA")
        if shutil.which("cc") is None:
            raise unittest.SkipTest("no C compiler")
        cls.temporary = tempfile.TemporaryDirectory(prefix="lore-device-")
        folder = pathlib.Path(cls.temporary.name)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(ROOT / "tests/e2e/libcuda_that_fails.c")],
                       check=True)
        cls.docs = folder / "docs"
        cls.docs.mkdir()
        (cls.docs / "heron.md").write_text("# Herons\n\nThe heron builds its nest in the tallest pine.\n", encoding="utf-8")
        cls.folder = folder

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def lore(self, trouble, *args):
        env = {**os.environ, "LD_LIBRARY_PATH": str(self.folder), **trouble}
        return subprocess.run([binary(), "--data", str(self.folder / "data"), *args], capture_output=True, text=True, timeout=120, env=env,
                              cwd=ROOT)

    def test_cuda_says_why(self):
        for name, (trouble, why, what_to_do) in TROUBLES.items():
            with self.subTest(name):
                done = self.lore(trouble, "--device", "cuda", "ingest", str(self.docs))
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("device cuda: " + why, done.stderr)
                self.assertIn(what_to_do, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_auto_goes_on(self):
        for name, (trouble, why, _) in TROUBLES.items():
            with self.subTest(name):
                done = self.lore(trouble, "--device", "auto", "--log-level", "info", "--set", "decoder=none", "ingest", str(self.docs))
                self.assertEqual(done.returncode, 0, done.stderr)
                lines = [line for line in done.stderr.splitlines() if "event=no_gpu" in line]
                self.assertEqual(len(lines), 1, done.stderr)
                self.assertIn(why, lines[0])
                # Only what somebody should look at is worth a warning.
                self.assertTrue(re.search(r"\binfo\b" if name == "absent" else r"\bwarn\b", lines[0]), lines[0])

    def test_auto_serves(self):
        env = {"LD_LIBRARY_PATH": str(self.folder), **TROUBLES["old"][0]}
        with Served(self.docs, options=["--device", "auto", "--set", "decoder=none"], env=env) as s:
            status, found = s.request("POST", "/query", {"question": "Where does the heron build its nest?"})
            self.assertEqual(status, 200, found)
            self.assertIn("tallest pine", found["answer"])
            self.assertEqual(s.request("GET", "/ready")[1]["status"], "ready")


if __name__ == "__main__":
    unittest.main()
