"""A real `lore serve` on a data folder of its own: what every end-to-end test stands on. Standard library only."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
FAMILIES = pathlib.Path(os.environ.get("LORE_FAMILIES", ROOT / "build" / "tests" / "families"))  # tiny models, which the build makes


def binary():
    return os.environ.get("LORE_BINARY", str(ROOT / "build" / "lore"))


def run(*args, check=True, **kwargs):
    """One command of the binary; its standard output as text."""
    done = subprocess.run([binary(), *args], capture_output=True, text=True, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"lore {' '.join(args)} gave {done.returncode}: {done.stderr or done.stdout}")
    return done


class Served:
    """with Served(*paths to ingest) as s: s.post("/query", {...}); data: a folder that stays, else one of its own"""

    def __init__(self, *paths, collection="default", options=(), env=None, cwd=ROOT, data=None):
        self.folder = data
        self.paths, self.collection, self.options, self.cwd = paths, collection, list(options), cwd
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.data = self.folder or tempfile.mkdtemp(prefix="lore-e2e-")
        self.process = None
        try:
            for path in self.paths:
                run("--data", self.data, "ingest", "-c", self.collection, str(path), cwd=self.cwd, env=self.env)
            self.process = subprocess.Popen(
                [binary(), "--data", self.data, *self.options, "serve", "--listen", "127.0.0.1:0"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.cwd, env=self.env)
            seen = ""
            for line in self.process.stdout:
                seen += line
                found = re.search(r"http://([\d.]+):(\d+)", line)
                if found:
                    self.host, self.port = found.group(1), int(found.group(2))
                    break
            else:
                raise AssertionError(f"serve did not start: {seen} {self.process.stderr.read()}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        return self

    def __exit__(self, *exc):
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
        if self.folder is None:
            shutil.rmtree(self.data, ignore_errors=True)

    def request(self, method, path, body=None, headers=None):
        """(status, parsed JSON or text)"""
        data = None if body is None else (body if isinstance(body, (bytes, str)) else json.dumps(body))
        if isinstance(data, str):
            data = data.encode()
        self.connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        response = self.connection.getresponse()
        raw = response.read()
        if "json" in response.headers.get("Content-Type", ""):
            return response.status, json.loads(raw)
        return response.status, raw.decode("utf-8", "replace")

    def post(self, path, body):
        status, answer = self.request("POST", path, body)
        assert status == 200, (path, body, status, answer)
        return answer

    def get(self, path):
        status, answer = self.request("GET", path)
        assert status == 200, (path, status, answer)
        return answer
