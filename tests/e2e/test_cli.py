#!/usr/bin/env python3
"""The commands as a user types them: exit codes, --json as exactly one object, flags that --help documents, ingest with its counts,
skips, failures and interruption, query in all modes, chat, and what is said when something is missing. Standard library only."""
import fcntl
import http.server
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from served import ROOT, binary
from tensors import numbers, write_adapter, write_tensors

COMMANDS = ["ingest", "query", "chat", "serve", "documents", "collections", "models", "eval", "bench", "backup", "restore", "fsck", "digest", "doctor", "config", "version"]
HERON = "# Herons\n\n## Nesting\n\nThe heron builds its nest in the tallest pine.\n\n## Food\n\nThe heron eats frogs at dawn.\n"


class CliTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="lore-cli-")
        self.folder = pathlib.Path(self.temporary.name)
        self.docs = self.folder / "docs"
        self.docs.mkdir()
        (self.docs / "heron.md").write_text(HERON, encoding="utf-8")
        (self.docs / "gate.html").write_text("<h1>Gate</h1><p>The gate opens at eight.</p>", encoding="utf-8")
        self.data = str(self.folder / "data")

    def tearDown(self):
        self.temporary.cleanup()

    def lore(self, *args, code=0, stdin=None, env=None, words=None):
        """Standard output; checks the exit code, and that standard error holds the words."""
        done = subprocess.run([binary(), "--data", self.data, *args], input=stdin, capture_output=True, timeout=120,
                              env={**os.environ, **(env or {})}, cwd=ROOT)
        out, err = done.stdout.decode(), done.stderr.decode()
        self.assertEqual(done.returncode, code, f"{args}\n{out}\n{err}")
        if words is not None:
            self.assertIn(words, err)
        return out

    def json(self, *args, **kwargs):
        """The one object on standard output."""
        out = self.lore("--json", *args, **kwargs)
        found = json.loads(out)
        self.assertIsInstance(found, dict)
        self.assertEqual(out.count("\n"), 1, out)
        return found

    # ---- usage ----

    def test_usage(self):
        self.assertIn("usage: lore", self.lore("--help"))
        self.assertIn("usage: lore", self.lore("help"))
        self.lore(code=2)
        self.lore("fly", code=2, words="no command 'fly'")
        self.lore("--fly", code=2, words="unknown flag '--fly'")
        self.lore("query", code=2, words="a question is needed")
        self.lore("query", "--top-k", code=2, words="--top-k needs a value")
        self.lore("query", "--top-k", "many", "x", code=2, words="--top-k must be a number")
        self.lore("query", "--top-k", "0", "x", code=2)
        self.lore("query", "--mode", "poem", "x", code=2, words="mode must be")
        self.lore("query", "--filter", "{", "x", code=2, words="--filter")
        self.lore("query", "--temperature", "warm", "x", code=2, words="--temperature must be a number")
        self.lore("query", "--var", "novalue", "x", code=2, words="--var must be NAME=VALUE")
        self.lore("ingest", code=2)
        self.lore("ingest", "--meta", "x", str(self.docs), code=2, words="--meta must be KEY=VALUE")
        self.lore("documents", "burn", code=2)
        self.lore("collections", code=2)
        self.lore("models", code=2)
        self.lore("serve", "now", code=2)
        self.lore("adapters", "convert", "--alpha", "0", "a", "b", "c", code=2, words="--alpha must be above 0")
        self.lore("--set", "no_such_key=1", "config", code=2, words="no_such_key")
        self.lore("--set", "top_k", "config", code=2, words="KEY=VALUE")
        self.lore("--device", "abacus", "query", "x", code=2, words="abacus")
        self.lore("--config", "/nowhere.json", "config", code=1, words="/nowhere.json")
        self.lore("--log-level", "loud", "config", code=2, words="loud")

    def test_every_documented_flag_parses(self):
        values = {"N": "3", "X": "0.5", "FIELD=PATH": "text=body", "JSON": '{"type":"eq","key":"k","value":1}', "KEY=VALUE": "top_k=4",
                  "NAME=VALUE": "a=b", "MODE": "extract", "DEVICE": "cpu", "LEVEL": "warn", "ADDR:PORT": "127.0.0.1:0",
                  "NAME[@VERSION]": "default@1", "TOKENS": "64", "SECONDS": "3"}
        seen = 0
        for command in COMMANDS:
            text = self.lore(command, "--help")
            self.assertTrue(text.startswith(f"usage: lore {command}"), text)
            for letter, name, value in re.findall(r"^ {2}(?:-(\w), )? *--([a-z-]+)(?: (\S+))?", text, re.M):
                given = [values.get(value, "some-text")] if value else []
                self.lore(command, f"--{name}", *given, "--help")
                if letter:
                    self.lore(command, f"-{letter}", *given, "--help")
                if value:
                    self.lore(command, f"--{name}={given[0]}", "--help")
                    self.lore(command, f"--{name}", code=2)
                seen += 1
        self.assertGreater(seen, 80)
        manual = (ROOT / "docs" / "lore.1").read_text(encoding="utf-8").replace("\\-", "-")
        for command in COMMANDS:
            self.assertIn(f"lore {command}", manual)
            for name in re.findall(r"--([a-z-]+)", self.lore(command, "--help")):
                self.assertIn(f"--{name}", manual, f"of {command}")

    # ---- small commands ----

    def test_version_and_config(self):
        self.assertTrue(self.lore("version").startswith("lore "))
        bare = subprocess.run([binary(), "--version"], capture_output=True, text=True, check=True)
        self.assertTrue(bare.stdout.startswith("lore "))
        self.assertIn("version", self.json("version"))
        config = self.json("config")
        self.assertEqual(config["data"], self.data)
        explained = self.lore("config", "--explain")
        for key in ["top_k", "limits", "LORE_"]:
            self.assertIn(key, explained)
        self.assertEqual(self.json("config", env={"LORE_TOP_K": "7"})["top_k"], 7)
        self.assertEqual(self.json("--set", "top_k=8", "config", env={"LORE_TOP_K": "7"})["top_k"], 8)
        file = self.folder / "lore.json"
        file.write_text('{"top_k": 6, "max_tokens": 99}', encoding="utf-8")
        config = self.json("--config", str(file), "config", env={"LORE_TOP_K": "7"})
        self.assertEqual((config["top_k"], config["max_tokens"]), (7, 99))
        file.write_text('{"top_q": 6}', encoding="utf-8")
        self.lore("--config", str(file), "config", code=2, words="top_q")

    def test_fsck(self):
        self.lore("fsck", code=1, words="holds no index")
        self.lore("ingest", str(self.docs))
        self.assertIn("2 documents", self.lore("fsck"))
        with sqlite3.connect(self.data + "/lore.db") as db:
            db.execute("update collections set documents=7")
        found = self.json("fsck", code=1)
        self.assertEqual((found["clean"], [f["name"] for f in found["findings"]]), (False, ["counters"]))
        self.assertTrue(self.json("fsck", "--repair")["clean"])
        with sqlite3.connect(self.data + "/lore.db") as db:
            lost, = db.execute("select external_id from documents where id=1").fetchone()
            db.execute("delete from texts where document=1")
        self.assertIn(lost, self.lore("fsck", code=1))
        found = self.json("fsck", "--repair", code=3)
        self.assertEqual([f["subjects"] for f in found["findings"] if f["loss"]], [[lost]])
        self.lore("ingest", str(self.docs))
        self.assertEqual((self.json("fsck")["documents"], self.json("query", "When does the gate open?")["refused"]), (2, False))

    def test_backup(self):
        self.lore("backup", code=2)
        self.lore("backup", str(self.docs), code=1, words="holds no index")
        self.lore("ingest", str(self.docs))
        made = self.json("backup", str(self.docs))
        self.assertRegex(made["file"], r"/docs/lore-\d{8}T\d{6}Z\.backup$")
        self.assertEqual((made["documents"], os.path.getsize(made["file"])), (2, made["bytes"]))
        digest = self.json("digest")
        self.lore("restore", made["file"], code=1, words="is there already")
        self.data = str(self.folder / "other")
        self.assertIn("2 documents", self.lore("restore", made["file"]))
        self.assertEqual(self.json("digest"), digest)
        self.assertEqual(self.json("query", "When does the gate open?")["refused"], False)

    def test_doctor(self):
        self.assertIn("WARN  data", self.lore("doctor"))
        self.lore("ingest", str(self.docs))
        report = self.json("doctor")
        self.assertEqual({check["state"] for check in report["checks"]} - {"WARN"}, {"OK"})
        names = {check["name"] for check in report["checks"]}
        self.assertTrue({"cpu", "memory", "gpu", "libraries", "encoder", "reranker", "decoder", "data"} <= names)
        broken = self.json("--set", "decoder=/nowhere", "doctor", code=1)
        self.assertIn("FAIL", {check["state"] for check in broken["checks"] if check["name"] == "decoder"})

    def test_models(self):
        models = self.json("models", "info")["models"]
        self.assertEqual([model["role"] for model in models], ["encoder", "decoder"])
        for model in models:
            self.assertGreater(model["parameters"], 10**6)
            self.assertEqual(len(model["fingerprint"]), 64)
            self.assertIn("int8", model["dtype"])
            self.assertIn("model.safetensors", [file["name"] for file in model["files"]])
        alone = self.json("models", "info", "--dir", models[1]["folder"])["models"]
        self.assertEqual(alone, [models[1]])
        self.assertEqual(models[1]["generation"], {"do_sample": False, "temperature": 1, "top_p": 1, "top_k": 50, "repetition_penalty": 1})
        self.assertNotIn("generation", models[0])
        self.lore("models", "info", "--dir", str(self.docs), code=1, words="config.json")
        self.lore("models", "info", "--dir", "/nowhere", code=1, words="/nowhere")

    def test_quantize(self):
        encoder, decoder = [model["folder"] for model in self.json("models", "info")["models"]]
        out = str(self.folder / "int4")
        text = self.docs / "heron.md"
        done = self.json("models", "quantize", "--to", "int4", "--group", "64", "--calibration", str(text), decoder, out)
        self.assertGreater(done["matrices_int4"], 0)
        self.assertLess(done["bytes_after"], done["bytes_before"])
        self.assertTrue(0 < done["relative_error"] < 0.2)
        self.assertGreater(done["perplexity_tokens"], 5)
        self.assertTrue(0.2 < done["perplexity_after"] / done["perplexity_before"] < 5)
        found = self.json("models", "info", "--dir", out)["models"][0]
        self.assertEqual(found["parameters"], self.json("models", "info", "--dir", decoder)["models"][0]["parameters"])
        self.lore("models", "quantize", "--to", "int8", encoder, out, code=1, words="exists")
        self.lore("models", "quantize", "--to", "int5", encoder, out, code=2, words="--to must be")
        self.lore("models", "quantize", "--to", "int8", "--group", "64", encoder, out, code=2, words="--group")
        self.lore("models", "quantize", "--to", "int8", encoder, code=2, words="NEW-FOLDER")
        other = str(self.folder / "int8")
        self.lore("models", "quantize", "--to", "int8", "--calibration", "/nowhere", encoder, other, code=1, words="/nowhere")
        self.assertFalse(os.path.exists(other))
        self.assertIn("no text was given", self.lore("models", "quantize", "--to", "int8", encoder, other))

    def test_merge_lora(self):
        decoder = self.json("models", "info")["models"][1]["folder"]
        config = json.loads(pathlib.Path(decoder, "config.json").read_text())
        width, ffn = config["hidden_size"], config["intermediate_size"]
        adapter, module = self.folder / "adapter", "model.layers.0.mlp.up_proj"
        write_adapter(adapter, module, ffn, width)
        merge = ["models", "merge-lora"]
        out = str(self.folder / "merged")
        self.lore(*merge, decoder, str(adapter), out, code=1, words="is quantised")
        self.lore(*merge, "--to", "int8", decoder, str(adapter), out, code=2, words="--to must be")
        self.lore(*merge, "--to", "bf16", decoder, str(adapter), code=2, words="NEW-FOLDER")
        self.lore(*merge, "--to", "bf16", decoder, decoder, out, code=1, words="adapter_config.json")
        self.assertFalse(os.path.exists(out))
        done = self.json(*merge, "--to", "bf16", decoder, str(adapter), out)
        self.assertEqual((done["modules"], done["dtype"], done["untied"], done["files"]), (1, "bf16", False, 1))
        found = self.json("models", "info", "--dir", out)["models"][0]
        self.assertEqual((found["dtype"], found["parameters"]), ("bf16", self.json("models", "info", "--dir", decoder)["models"][0]["parameters"]))
        self.lore(*merge, "--to", "bf16", decoder, str(adapter), out, code=1, words="exists")
        self.lore(*merge, "--to", "bf16", decoder, str(adapter), decoder, code=1, words="exists")
        # The same adapter as MLX-LM would have written it, converted, makes the same weights.
        rank, a, b = 2, numbers(2 * width), numbers(2 * ffn, 7)
        mlx, peft = self.folder / "mlx", str(self.folder / "peft")
        write_tensors(mlx / "adapters.safetensors", {
            f"{module}.lora_a": ([width, rank], [a[k * width + i] for i in range(width) for k in range(rank)]),
            f"{module}.lora_b": ([rank, ffn], [b[i * rank + k] for k in range(rank) for i in range(ffn)])})
        (mlx / "adapter_config.json").write_text(json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 1.5}}))
        self.assertEqual(self.json("adapters", "convert", decoder, str(mlx), peft)["modules"], 1)
        again = str(self.folder / "again")
        self.assertIn("1 matrices of", self.lore(*merge, "--to", "bf16", decoder, peft, again))
        self.assertEqual(self.json("models", "info", "--dir", again)["models"][0]["fingerprint"], found["fingerprint"])
        self.lore("adapters", "convert", decoder, str(mlx), peft, code=1, words="exists")
        self.lore("adapters", "convert", decoder, str(mlx), code=2, words="NEW-FOLDER")
        self.lore("adapters", "convert", "--alpha", "-1", decoder, str(mlx), again, code=2, words="--alpha")
        (mlx / "adapter_config.json").unlink()
        other = str(self.folder / "other")
        self.lore("adapters", "convert", decoder, str(mlx), other, code=1, words="--alpha")
        self.assertIn("of rank 2", self.lore("adapters", "convert", "--alpha", "3", decoder, str(mlx / "adapters.safetensors"), other))

    def test_bench(self):
        figures = self.json("bench", "ops", "--case-ms", "1", "--only", "decode qkv 1x")["ops"]
        self.assertTrue(figures and all(figure["best_us"] > 0 for figure in figures))
        self.lore("bench", "nothing", code=2)
        self.lore("bench", "--isa", "mmx", code=2, words="mmx")

    # ---- ingest ----

    def test_ingest(self):
        first = self.json("ingest", str(self.docs))
        self.assertEqual((first["seen"], first["added"], first["failed"]), (2, 2, 0))
        again = self.json("ingest", str(self.docs))
        self.assertEqual((again["unchanged"], again["added"], again["chunks"]), (2, 0, 0))
        (self.docs / "heron.md").write_text(HERON + "\nIt sleeps on one leg.\n", encoding="utf-8")
        (self.docs / "gate.html").unlink()
        third = self.json("ingest", "--prune", str(self.docs))
        self.assertEqual((third["replaced"], third["deleted"]), (1, 1))
        self.assertEqual(len(self.json("documents", "list")["documents"]), 1)

    def test_ingest_standard_input(self):
        lines = "\n".join(json.dumps(line) for line in [{"id": "a", "text": "The lamp is green."}, {"text": 5}, {"id": "b", "text": "B."}])
        counts = self.json("ingest", "-c", "lines", "--meta", "origin=pipe", "-", stdin=lines.encode(), code=3, words="text")
        self.assertEqual((counts["added"], counts["failed"], len(counts["failures"])), (2, 1, 1))
        listed = self.json("documents", "list", "-c", "lines")["documents"]
        self.assertEqual([one["metadata"]["origin"] for one in listed], ["pipe"] * 2)

    def test_ingest_failures(self):
        (self.docs / "bad.txt").write_bytes(b"\x00\x01\xfe\xff" * 64)
        self.lore("ingest", str(self.docs), code=3, words="bad.txt")
        self.lore("ingest", str(self.folder / "nothing"), code=3, words="nothing")
        self.assertEqual(len(self.json("documents", "list")["documents"]), 2)

    def test_refusals_of_a_server(self):
        """A stand-in for the server that holds the folder: what it says of one document is about that one; that it stops ends the run."""
        replies = [(503, "nomem"), (504, "timeout"), (413, "limit"), (500, "io"), (201, ""), (503, "cancelled"), (201, "")]
        seen = []

        class Refuser(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, code = replies[len(seen)]
                seen.append((self.headers["Content-Type"], body))
                reply = json.dumps({"status": "added", "chunks": 1} if status == 201 else {"error": {"message": f"{code} it is", "code": code}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        many = self.folder / "many"
        many.mkdir()
        for i in range(7):
            (many / f"{i}.md").write_text(f'# "Note" {i}\n', encoding="utf-8")
        os.makedirs(self.data)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open(pathlib.Path(self.data) / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write(f"process 1\naddress http://127.0.0.1:{server.server_port}\n")
            lock.flush()
            self.lore("ingest", str(many), code=1, words="the server: cancelled it is")
            self.assertEqual(len(seen), 6)
            self.assertEqual(seen[0], ("text/markdown", b'# "Note" 0\n'))  # as it is, not escaped
            replies[5] = (429, "busy")
            seen.clear()
            self.lore("ingest", str(many), code=1, words="the server: busy it is")
            replies[5] = (201, "")
            seen.clear()
            counts = self.json("ingest", str(many), code=3, words="nomem it is")
            self.assertEqual((counts["added"], counts["failed"]), (3, 4), counts)
        server.shutdown()
        server.server_close()

    def test_dry_run(self):
        self.lore("ingest", str(self.docs))
        (self.docs / "new.txt").write_text("Something new.", encoding="utf-8")
        self.assertIn("dry run", self.lore("ingest", "--dry-run", str(self.docs)))
        self.assertEqual(len(self.json("documents", "list")["documents"]), 2)

    def test_interrupted_ingest_keeps_what_is_committed(self):
        many = self.folder / "many"
        many.mkdir()
        for i in range(3000):
            (many / f"{i:04}.txt").write_text(f"Note {i}. " + f"The {i}th shelf holds {i * 7} books about rivers. " * 12, encoding="utf-8")
        process = subprocess.Popen([binary(), "--data", self.data, "--json", "--set", "commit_documents=8", "ingest", str(many)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        deadline = time.monotonic() + 120  # under a sanitizer loading the encoder alone takes seconds
        listed = [binary(), "--data", self.data, "--json", "collections", "list"]
        while not re.search(rb'"documents":[1-9]', subprocess.run(listed, capture_output=True, cwd=ROOT).stdout):
            self.assertIsNone(process.poll(), "ended early")
            self.assertLess(time.monotonic(), deadline, "nothing was committed")
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        counts = json.loads(out)
        self.assertTrue(counts["interrupted"])
        kept = self.json("collections", "list")["collections"][0]["documents"]
        self.assertGreater(kept, 0)
        self.assertLess(kept, 3000)
        self.assertEqual(kept, counts["added"])

    # ---- asking ----

    def test_query(self):
        self.lore("ingest", "--meta", "kind=bird", str(self.docs / "heron.md"))
        self.lore("ingest", "--meta", "kind=thing", str(self.docs / "gate.html"))
        text = self.lore("query", "Where does the heron build its nest?")
        self.assertIn("tallest pine", text)
        self.assertRegex(text, r"\[1\] Herons > Nesting \(.*heron\.md, bytes \d+-\d+\)")
        answer = self.json("query", "-k", "2", "When", "does", "the", "gate", "open?")
        self.assertIn("eight", answer["answer"])
        self.assertEqual(answer["object"], "lore.answer")
        self.assertIn("frogs", self.lore("query", "-m", "extract", "What does the heron eat?"))
        context = self.lore("query", "--mode", "context", "heron nest")
        self.assertIn("score", context)
        for mode in ("extract", "context"):  # no decoder is loaded, and a name of a template is still checked
            self.lore("query", "-m", mode, "--prompt", "default", "--var", "a=b", "What does the heron eat?")
            self.lore("query", "-m", mode, "--prompt", "nowhere", "What does the heron eat?", code=1, words="nowhere")
        prompt = self.lore("query", "--mode", "prompt", "What does the heron eat?")
        self.assertIn("What does the heron eat?", prompt)
        alpaca = self.lore("query", "--mode", "prompt", "--chat-template", "alpaca", "What does the heron eat?")
        self.assertIn("### Input:", alpaca)
        self.assertNotIn("<|im_start|>", alpaca)
        self.lore("query", "--chat-template", "nowhere", "What does the heron eat?", code=1, words="nowhere")
        only = self.json("query", "-m", "context", "--filter", '{"type":"eq","key":"kind","value":"thing"}', "heron nest")
        self.assertEqual([one["metadata"]["kind"] for one in only["passages"]], ["thing"])
        refused = self.json("query", "Who won the chess tournament in Reykjavik?")
        self.assertTrue(refused["refused"])
        self.lore("query", "-c", "nowhere", "x", code=1, words="nowhere")
        self.lore("query", "--prompt", "nowhere", "Where does the heron build its nest?", code=1, words="nowhere")
        self.lore("--set", "decoder=none", "query", "Where does the heron build its nest?")
        error = self.json("query", "-c", "nowhere", "x", code=1)
        self.assertEqual(sorted(error["error"]), ["code", "message", "param", "type"])

    def test_chat(self):
        self.lore("ingest", str(self.docs))
        text = self.lore("chat", stdin=b"/sources\nWhere does the heron build its nest?\n/sources\n/new\n\n" + b"x" * 9000 + b"\n/quit\nno\n",
                         words="at most")
        self.assertIn("There is no answer yet", text)
        self.assertIn("tallest pine", text)
        self.assertIn("score", text)
        self.assertIn("starts anew", text)
        self.lore("chat", stdin=b"Where does the heron build its nest?\nand what does it eat?")
        self.lore("--json", "chat", code=2)

    # ---- the store ----

    def test_documents_and_collections(self):
        self.lore("ingest", "-c", "birds", str(self.docs / "heron.md"))
        listed = self.json("documents", "list", "-c", "birds")["documents"]
        self.assertEqual(len(listed), 1)
        shown = self.json("documents", "show", "-c", "birds", listed[0]["id"])
        self.assertIn("tallest pine", shown["text"])
        chunks = self.json("documents", "show", "--chunks", "-c", "birds", listed[0]["id"])["chunks"]
        self.assertEqual(shown["text"].encode()[chunks[0]["start"]:chunks[0]["end"]].decode(), chunks[0]["text"])
        self.assertIn("tallest pine", self.lore("documents", "show", "-c", "birds", listed[0]["id"]))
        self.lore("documents", "show", "-c", "birds", "none-such", code=1, words="none-such")
        self.json("documents", "delete", "-c", "birds", listed[0]["id"])
        self.lore("documents", "delete", "-c", "birds", listed[0]["id"], code=1, words="no document")
        self.lore("documents", "list", "-c", "nowhere", code=1, words="nowhere")
        self.lore("collections", "create", "fresh")
        self.assertIn("fresh", self.lore("collections", "list"))
        self.lore("collections", "delete", "fresh")
        self.lore("collections", "delete", "fresh", code=1, words="no collection")
        self.lore("collections", "create", "bad/name", code=1, words="bad/name")

    def test_paging(self):
        lines = "\n".join(json.dumps({"id": f"doc{i}", "text": f"Number {i}."}) for i in range(5))
        self.lore("ingest", "-", stdin=lines.encode())
        page = self.json("documents", "list", "--limit", "2")
        self.assertEqual([one["id"] for one in page["documents"]], ["doc0", "doc1"])
        rest = self.json("documents", "list", "--cursor", page["next_cursor"])
        self.assertEqual([one["id"] for one in rest["documents"]], ["doc2", "doc3", "doc4"])
        self.assertIsNone(rest["next_cursor"])

    # ---- what is missing ----

    def test_missing_things(self):
        self.lore("query", "x", code=1, words="lore ingest")
        self.lore("documents", "list", code=1, words="lore ingest")
        self.lore("--set", "encoder=/nowhere", "ingest", str(self.docs), code=1, words="/nowhere")
        self.lore("ingest", str(self.docs))
        self.lore("--set", "decoder=/nowhere", "query", "x", code=1, words="/nowhere")
        self.lore("--set", "prompts=/nowhere", "query", "x", code=1, words="/nowhere")
        self.lore("--device", "cuda:9", "query", "x", code=1, words="cuda:9")
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([binary(), "--data", self.data, "config"], stdout=full, stderr=subprocess.PIPE, check=False)
            self.assertEqual(done.returncode, 1)


if __name__ == "__main__":
    unittest.main(verbosity=1)
