"""lore models pull against a hub of our own that breaks connections, lies about lengths and sends wrong bytes."""
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from served import FAMILIES, ROOT, binary

SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))
COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"


def weights(seed, size=700_000):
    """A safetensors file of one tensor."""
    header = json.dumps({"w": {"dtype": "I8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(size)


def standard_files():
    return {
        "config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": weights(1),
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}', "README.md": b"# Card",
        # Not wanted, or worse:
        "pytorch_model.bin": b"x" * 1000, "onnx/model.onnx": b"x" * 1000, "consolidated.safetensors": weights(2, 1000),
        ".gitattributes": b"x", "../escape.json": b"x", "/etc/escape.json": b"x", "a/../../escape.safetensors": b"x",
    }


class Hub:
    """What a repository holds, and how its server misbehaves; everything asked of it is in `asked`."""

    def __init__(self, files=None):
        self.files = files or standard_files()
        self.commit = COMMIT
        self.sizes, self.sums = {}, {}  # lies of the list
        self.asked, self.tokens = [], []
        self.break_after = []  # bytes of the body after which the next answers break off
        self.behaviour = {}  # file: a function of the handler that answers instead
        self.needs_token = None
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                hub.answer(self)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that leaves is part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def listing(self):
        entries = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": self.sizes.get(name, len(data)), "blobId": "0" * 40}
            if name.endswith(".safetensors"):
                sha = self.sums.get(name, hashlib.sha256(data).hexdigest())
                entry["lfs"] = {"sha256": sha, "size": entry["size"], "pointerSize": 134}
            entries.append(entry)
        return {"id": "acme/tiny", "sha": self.commit, "siblings": entries}

    def answer(self, handler):
        self.asked.append((handler.path, handler.headers.get("Range")))
        self.tokens.append(handler.headers.get("Authorization"))
        if self.needs_token and handler.headers.get("Authorization") != f"Bearer {self.needs_token}":
            return self.send(handler, 401, b'{"error":"who are you"}')
        if handler.path in self.behaviour:
            return self.behaviour[handler.path](handler)
        if re.fullmatch(r"/api/models/acme/tiny/revision/(main|v1|refs%2Fpr%2F1)\?blobs=true", handler.path):
            return self.send(handler, 200, json.dumps(self.listing()).encode())
        found = re.fullmatch(rf"/acme/tiny/resolve/{self.commit}/(.*)", handler.path)
        if not found or found.group(1) not in self.files:
            return self.send(handler, 404, b"no such thing")
        if found.group(1) in self.behaviour:
            return self.behaviour[found.group(1)](handler)
        return self.send_file(handler, self.files[found.group(1)])

    def send(self, handler, status, body, headers=()):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def send_file(self, handler, data):
        start = int(re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"]).group(1)) if handler.headers.get("Range") else 0
        if start >= len(data) > 0:
            return self.send(handler, 416, b"")
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        body = data[start:]
        if self.break_after and len(body) > self.break_after[0]:
            handler.wfile.write(body[: self.break_after.pop(0)])
            handler.wfile.flush()
            handler.connection.shutdown(2)
            handler.close_connection = True
        else:
            handler.wfile.write(body)


class PullTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lore-pull-")
        self.data = pathlib.Path(self.folder.name) / "data"
        self.model = self.data / "models" / "acme" / "tiny"

    def tearDown(self):
        self.folder.cleanup()

    def environment(self, hub, **more):
        env = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()}
        return {**env, "HF_ENDPOINT": hub.address if hub else "http://127.0.0.1:9", **more}

    def pull(self, hub, target="acme/tiny", code=0, words="", flags=(), **env):
        done = subprocess.run([binary(), "--data", str(self.data), "--json", "models", "pull", target, *flags], capture_output=True, text=True,
                              timeout=60 * SLOWNESS, cwd=ROOT, env=self.environment(hub, **env))
        self.assertEqual(done.returncode, code, done)
        self.assertNotIn("Sanitizer", done.stderr)
        self.assertIn(words, done.stdout)
        return json.loads(done.stdout)

    def check_whole(self, hub, names=("config.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json", "README.md"), at=None):
        at = at or self.model
        there = {str(path.relative_to(at)) for path in at.rglob("*") if path.is_file()}
        self.assertEqual(there, {*names, "lore-pull.json"})
        for name in names:
            self.assertEqual((at / name).read_bytes(), hub.files[name], name)
        self.assertEqual(json.loads((at / "lore-pull.json").read_text())["commit"], hub.commit)
        self.assertEqual([path.name for path in at.parent.iterdir()], [at.name], "something is left beside it")

    def test_fetches_what_is_needed_and_no_more(self):
        with Hub() as hub:
            reply = self.pull(hub)
            self.assertEqual((reply["repository"], reply["commit"], reply["folder"]), ("acme/tiny", COMMIT, str(self.model)))
            self.check_whole(hub)
            self.assertEqual(list(pathlib.Path(self.folder.name).rglob("escape*")), [])
            before = len(hub.asked)
            self.assertEqual(self.pull(hub)["files"], 0)
            self.assertEqual(len(hub.asked), before + 1, "only the list is asked for again")
            self.pull(hub, "acme/tiny@refs/pr/1", flags=["--to", f"{self.folder.name}/elsewhere/"])
            self.assertEqual((pathlib.Path(self.folder.name) / "elsewhere" / "model.safetensors").read_bytes(), hub.files["model.safetensors"])

    def test_a_new_commit_takes_the_place_of_the_old(self):
        with Hub() as hub:
            self.pull(hub)
            hub.commit, hub.files["model.safetensors"] = OTHER, weights(3)
            self.pull(hub)
            self.check_whole(hub)

    def test_what_no_pull_made_stays(self):
        to = pathlib.Path(self.folder.name) / "mine"
        with Hub() as hub:
            for suffix in ["", ".pull", ".old"]:
                there = pathlib.Path(f"{to}{suffix}")
                there.mkdir()
                (there / "thesis.txt").write_text("years of work")
                self.pull(hub, code=1, words="no pull made it", flags=["--to", str(to)])
                self.assertEqual((there / "thesis.txt").read_text(), "years of work")
                shutil.rmtree(there)
            self.model.parent.mkdir(parents=True)
            self.model.symlink_to(self.folder.name)
            self.pull(hub, code=1, words="it is no folder")
            self.assertTrue(self.model.is_symlink())
            self.model.unlink()
            self.pull(hub)
            (self.model / "deep" / "deeper").mkdir(parents=True)
            hub.commit = OTHER
            self.pull(hub)  # what is two levels deep keeps the old folder beside the new one
            self.assertEqual((self.model / "model.safetensors").read_bytes(), hub.files["model.safetensors"])

    def test_two_pulls_do_not_mix(self):
        with Hub() as hub:
            reached, go = threading.Event(), threading.Event()

            def wait(handler):
                reached.set()
                go.wait(20 * SLOWNESS)
                return hub.send_file(handler, hub.files["config.json"])

            hub.behaviour["config.json"] = wait
            process = subprocess.Popen([binary(), "--data", str(self.data), "models", "pull", "acme/tiny"], cwd=ROOT, env=self.environment(hub),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.assertTrue(reached.wait(20 * SLOWNESS))
            self.pull(hub, code=1, words="another pull fills it")
            go.set()
            self.assertEqual(process.wait(timeout=30 * SLOWNESS), 0)
            self.check_whole(hub)

    def test_broken_connections_are_taken_up_again(self):
        with Hub() as hub:
            hub.break_after = [100_000, 1, 200_000, 5]
            self.pull(hub)
            self.check_whole(hub)
            ranges = [wanted for path, wanted in hub.asked if path.endswith("model.safetensors") and wanted]
            self.assertEqual(len(ranges), 4)
            self.assertEqual(ranges[0], "bytes=100000-")

    def test_a_kill_loses_nothing_that_was_there(self):
        with Hub() as hub:
            reached = threading.Event()

            def stall(handler):
                data = hub.files["model.safetensors"]
                handler.send_response(200)
                handler.send_header("Content-Length", str(len(data)))
                handler.end_headers()
                handler.wfile.write(data[:300_000])
                handler.wfile.flush()
                reached.set()
                time.sleep(3)

            hub.behaviour["model.safetensors"] = stall
            for number in (signal.SIGKILL, signal.SIGINT):
                reached.clear()
                process = subprocess.Popen([binary(), "--data", str(self.data), "models", "pull", "acme/tiny"], cwd=ROOT, env=self.environment(hub),
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self.assertTrue(reached.wait(20 * SLOWNESS))
                time.sleep(0.3)
                process.send_signal(number)
                code = process.wait(timeout=20 * SLOWNESS)
                self.assertEqual(code, -signal.SIGKILL if number == signal.SIGKILL else 130)
                self.assertFalse(self.model.exists(), "half a model has no name")
                self.assertTrue(self.has_part())
            del hub.behaviour["model.safetensors"]
            asked = len(hub.asked)
            self.pull(hub)
            self.check_whole(hub)
            self.assertIn("bytes=300000-", [wanted for _, wanted in hub.asked[asked:]])

    def has_part(self):
        return (self.model.parent / "tiny.pull" / "model.safetensors.part").exists()

    def test_a_server_without_ranges_begins_anew(self):
        with Hub() as hub:
            hub.break_after = [100_000]
            data = hub.files["model.safetensors"]
            first = hub.send_file

            def no_ranges(handler):
                if handler.headers.get("Range"):
                    return hub.send(handler, 200, data)
                return first(handler, data)

            hub.behaviour["model.safetensors"] = no_ranges
            self.pull(hub)
            self.check_whole(hub)

    def test_a_range_from_elsewhere_is_not_appended(self):
        with Hub() as hub:
            hub.break_after = [100_000]
            data = hub.files["model.safetensors"]

            def wrong_range(handler):
                if handler.headers.get("Range"):
                    hub.behaviour.clear()
                    return hub.send(handler, 206, data[5000:], [("Content-Range", f"bytes 5000-{len(data) - 1}/{len(data)}")])
                return hub.send_file(handler, data)

            hub.behaviour["model.safetensors"] = wrong_range
            self.pull(hub)
            self.check_whole(hub)

    def test_wrong_bytes_are_refused(self):
        with Hub() as hub:
            wrong = bytearray(hub.files["model.safetensors"])
            wrong[-1] ^= 1
            served = []

            def once(handler):
                served.append(1)
                return hub.send(handler, 200, bytes(wrong) if len(served) == 1 else hub.files["model.safetensors"])

            hub.behaviour["model.safetensors"] = once
            self.pull(hub)  # one wrong transfer is taken for an accident
            self.check_whole(hub)
            shutil.rmtree(self.model)
            hub.behaviour["model.safetensors"] = lambda handler: hub.send(handler, 200, bytes(wrong))
            self.pull(hub, code=1, words="SHA-256")
            self.assertFalse(self.model.exists())
            self.assertFalse(self.has_part(), "it is no beginning of the right file")

    def test_lengths_that_lie(self):
        with Hub() as hub:
            data = hub.files["model.safetensors"]
            hub.behaviour["model.safetensors"] = lambda handler: hub.send(handler, 200, data + b"more")
            self.pull(hub, code=1, words="longer than the hub's list says")
            self.assertFalse(self.has_part())
            hub.behaviour["model.safetensors"] = lambda handler: hub.send(handler, 200, data[:1000]) if not handler.headers.get("Range") else hub.send(handler, 416, b"")
            self.pull(hub, code=1, words="ended after 1000 of")
            hub.behaviour.clear()
            hub.sizes["model.safetensors"] = 1 << 47
            self.pull(hub, code=1, words="has room for")
            self.assertFalse(self.model.exists())

    def test_a_server_that_is_busy_is_asked_again(self):
        with Hub() as hub:
            busy = [429, 503]

            def passing(handler):
                if busy:
                    return hub.send(handler, busy.pop(), b"later")
                return hub.send_file(handler, hub.files["config.json"])

            hub.behaviour["config.json"] = passing
            self.pull(hub)
            self.check_whole(hub)
            hub.behaviour["/api/models/acme/tiny/revision/main?blobs=true"] = lambda handler: hub.send(handler, 500, b"")
            self.assertIn("status 500", self.pull(hub, code=1)["error"]["message"])

    def test_tokens_stay_with_their_host(self):
        with Hub() as hub, Hub() as store:
            hub.needs_token = "hf_secret"
            refused = self.pull(hub, code=1, words="HF_TOKEN")
            self.assertNotIn("hf_secret", json.dumps(refused))
            there = f"http://localhost:{store.server.server_address[1]}/acme/tiny/resolve/{COMMIT}/model.safetensors"
            hub.behaviour["model.safetensors"] = lambda handler: hub.send(handler, 302, b"", [("Location", there)])
            self.pull(hub, HF_TOKEN="hf_secret")
            self.check_whole(hub)
            self.assertEqual(set(store.tokens), {None})
            for token in ["hf_a\nX-Other: b", "hf_a\r", "hf a", "hf_\u00e4"]:
                refused = self.pull(hub, code=1, words="HF_TOKEN must be", HF_TOKEN=token)
                self.assertNotIn("hf_", json.dumps(refused))

    def test_redirects_without_end(self):
        with Hub() as hub:
            hub.behaviour["config.json"] = lambda handler: hub.send(handler, 302, b"", [("Location", handler.path)])
            self.pull(hub, code=1, words="config.json")
            hub.behaviour["config.json"] = lambda handler: hub.send(handler, 302, b"", [("Location", "file:///etc/passwd")])
            self.pull(hub, code=1, words="config.json")

    def test_lists_that_are_none(self):
        path = "/api/models/acme/tiny/revision/main?blobs=true"
        lists = [b"", b"[]", b"{", b'{"sha": "x", "siblings": []}', b'{"siblings": [{"rfilename": "config.json"}]}',
                 b"[" * 100000, json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": -1}]}).encode(),
                 json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "m.safetensors", "size": 1, "lfs": {"sha256": "no", "size": 1}}]}).encode()]
        with Hub() as hub:
            for body in lists:
                hub.behaviour[path] = lambda handler, body=body: hub.send(handler, 200, body)
                self.pull(hub, code=1, words="is not one")
            hub.behaviour[path] = lambda handler: hub.send(handler, 404, b"")
            self.pull(hub, code=1, words="the hub has no 'acme/tiny'")
            del hub.behaviour[path]
            del hub.files["model.safetensors"]
            del hub.files["consolidated.safetensors"]
            self.pull(hub, code=1, words="no .safetensors file")
            hub.files["model.safetensors"] = b"\x00" * 50
            self.pull(hub, code=1, words="model.safetensors")
            self.assertFalse(self.model.exists(), "what does not open is not installed")

    def test_what_was_pulled_is_a_model_by_its_name(self):
        folder = FAMILIES / "llama3"
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        with Hub(files) as hub:
            self.pull(hub)
        lore = [binary(), "--data", str(self.data), "--json", "models"]
        listed = json.loads(subprocess.run([*lore, "list"], capture_output=True, check=True).stdout)["models"]
        mine = [one for one in listed if one["folder"] == str(self.model)]
        self.assertEqual([(one["role"], one["dtype"]) for one in mine], [("decoder", "bf16")])
        (model,) = json.loads(subprocess.run([*lore, "info", "acme/tiny"], capture_output=True, check=True).stdout)["models"]
        self.assertEqual((model["layers"], model["kv_bytes_per_token"], model["memory_bytes"]["bf16"]), (2, 2 * 2 * 2 * 16 * 2, 2 * model["parameters"]))
        (self.model / "config.json").write_text("{")
        listed = json.loads(subprocess.run([*lore, "list"], capture_output=True, check=True).stdout)["models"]
        self.assertIn("config.json", next(one for one in listed if one["folder"] == str(self.model))["problem"])

    def test_names_and_addresses(self):
        for target in ["tiny", "acme/", "/tiny", "../tiny", "acme/..", "acme/ti ny", "acme/tiny@", "a/b/c"]:
            self.pull(None, target, code=2, words="must be OWNER/NAME")
        self.pull(None, code=1, words="HF_ENDPOINT", HF_ENDPOINT="ftp://127.0.0.1")
        self.pull(None, code=1, words="cannot reach the hub")

    def test_offline(self):
        self.pull(None, code=1, words="offline nothing is fetched", flags=["--offline"])
        with Hub() as hub:
            self.pull(hub)
        reply = self.pull(None, HF_HUB_OFFLINE="1")
        self.assertEqual((reply["folder"], reply["commit"]), (str(self.model), COMMIT))
        for target in ["acme/tiny@main", f"acme/tiny@{COMMIT}"]:
            self.assertEqual(self.pull(None, target, flags=["--offline"])["commit"], COMMIT)
        self.pull(None, "acme/tiny@v2", code=1, words="is at revision 'main', not 'v2'", flags=["--offline"])

    def test_a_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("mounting a small disk needs root")
        self.data.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(self.data)], capture_output=True).returncode != 0:
            self.skipTest("no mount here")
        try:
            with Hub() as hub:
                self.pull(hub, code=1, words="has room for")
                hub.sizes["model.safetensors"] = None  # a hub that does not say
                self.assertIn("No space left", self.pull(hub, code=1)["error"]["message"])
                self.assertFalse(self.model.exists())
        finally:
            subprocess.run(["umount", str(self.data)], check=True)


if __name__ == "__main__":
    unittest.main()
