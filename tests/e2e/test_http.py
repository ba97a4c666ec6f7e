#!/usr/bin/env python3
"""Every route of the HTTP service, against a real `lore serve`: what is answered, what is refused and with which words, the order
of events in a stream, a client that leaves, ingest through the server, and the drain. Standard library only."""
import http.client
import json
import os
import pathlib
import signal
import socket
import tempfile
import threading
import time
import unittest

from served import Served, run

SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))  # builds with sanitizers set it
PATIENT = ["--set", f"limits.request_timeout_ms={int(180000 * SLOWNESS)}"] if SLOWNESS > 1 else []
RESET = """# Resetting the Quill router

## Factory reset

Hold the brass button for eleven seconds to reset the Quill router. The light turns violet while it works.

## Restart

Pull the plug for a minute to restart it.
"""
INVOICE = """# Invoices

Invoices are sent on the ninth day of each month. A copy costs two euros.
"""
BODY_MAX = 200_000


def events_of(raw):
    """[(name, data)] of a whole stream; comments are dropped."""
    found = []
    for block in raw.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            assert lines[0].startswith("event: ") and lines[1].startswith("data: ") and len(lines) == 2, lines
            found.append((lines[0][7:], json.loads(lines[1][6:])))
    return found


class HttpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="lore-http-")
        docs = pathlib.Path(cls.folder.name) / "docs"
        docs.mkdir()
        (docs / "reset.md").write_text(RESET, encoding="utf-8")
        (docs / "invoice.md").write_text(INVOICE, encoding="utf-8")
        cls.docs = docs
        cls.served = Served(docs, options=["--set", f"limits.body_bytes_max={BODY_MAX}",
                                           "--set", "limits.header_bytes_max=16384", *PATIENT])
        cls.served.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.served.__exit__(None, None, None)
        cls.folder.cleanup()

    # ---- small things ----

    def send(self, method, path, body=None, headers=None):
        """(status, headers, parsed or text), on a connection of its own."""
        connection = http.client.HTTPConnection(self.served.host, self.served.port, timeout=180 * SLOWNESS)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        raw = response.read()
        connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, response.headers, json.loads(raw) if is_json else raw.decode("utf-8")

    def refused(self, status, method, path, body=None, headers=None, param=None, words=""):
        got, _, reply = self.send(method, path, body, headers)
        self.assertEqual(got, status, reply)
        error = reply["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertIn(words, error["message"])
        if param is not None:
            self.assertEqual(error["param"], param, error)
        return error

    def metric(self, name):
        _, _, text = self.send("GET", "/metrics")
        for line in text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise AssertionError(f"no metric {name} in\n{text}")

    def wait_metric(self, name, value, seconds=20):
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            self.assertLess(time.monotonic(), end, f"{name} stays at {self.metric(name)}, not {value}")
            time.sleep(0.05)

    def check_citations(self, answer):
        """document[start:end] == cited_text, byte for byte, and the marker names its passage."""
        for citation in answer["citations"]:
            path = f"/collections/default/documents/{citation['document_id'].replace('/', '%2F')}"
            _, _, document = self.send("GET", path)
            text = document["text"].encode()
            self.assertEqual(text[citation["start"]:citation["end"]].decode(), citation["cited_text"])
            supported = answer["answer"].encode()[citation["answer_start"]:citation["answer_end"]]
            self.assertTrue(supported)
            passage = answer["passages"][citation["marker"] - 1] if "passages" in answer else None
            if passage:
                self.assertEqual(passage["chunk_id"], citation["chunk_id"])

    # ---- the service ----

    def test_health_ready_metrics(self):
        self.assertEqual(self.send("GET", "/health")[2]["status"], "ok")
        status, _, ready = self.send("GET", "/ready")
        self.assertEqual((status, ready["status"]), (200, "ready"))
        status, headers, text = self.send("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertIn("version=0.0.4", headers["Content-Type"])
        for name in ["lore_requests_total", "lore_request_seconds_bucket", "lore_tokens_total", "lore_answers_total",
                     "lore_engine_running", "lore_engine_waiting", "lore_engine_pages_free", "lore_index_documents",
                     "lore_index_chunks", "process_resident_memory_bytes", "lore_uptime_seconds", "lore_build_info"]:
            self.assertIn(name, text)
        seen = set()
        for line in text.splitlines():
            if not line.startswith("#"):
                key = line.rsplit(" ", 1)[0]
                self.assertNotIn(key, seen, "a series twice")
                seen.add(key)
                float(line.rsplit(" ", 1)[1])

    def test_page_and_description(self):
        status, headers, page = self.send("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertIn("<textarea", page)
        self.assertNotIn('src="http', page)
        _, _, description = self.send("GET", "/openapi.json")
        for path, methods in description["paths"].items():
            filled = path.replace("{collection}", "nowhere").replace("{id}", "none")
            for method in methods:
                if method in ("get", "put", "post", "delete") and path != "/collections/{collection}":
                    status, _, _ = self.send(method.upper(), filled, b"x" if method in ("put", "post") else None)
                    self.assertNotIn(status, (405, 500, 501), f"{method} {path}")

    def test_request_id(self):
        _, headers, _ = self.send("GET", "/health", headers={"X-Request-Id": "mine-1"})
        self.assertEqual(headers["X-Request-Id"], "mine-1")
        for bad in ["has space", "x" * 200, 'quo"te']:
            _, headers, _ = self.send("GET", "/health", headers={"X-Request-Id": bad})
            self.assertTrue(headers["X-Request-Id"].startswith("r_"))
        _, headers, _ = self.send("GET", "/nowhere")
        self.assertTrue(headers["X-Request-Id"].startswith("r_"))

    def test_no_such_address_and_method(self):
        self.refused(404, "GET", "/nowhere")
        self.refused(404, "GET", "/collections/a/b/c/d")
        self.refused(404, "GET", "//")
        got, headers, _ = self.send("GET", "/query")
        self.assertEqual((got, headers["Allow"]), (405, "POST"))
        self.assertEqual(self.send("DELETE", "/health")[1]["Allow"], "GET, HEAD")
        self.assertEqual(self.send("PATCH", "/collections/a/documents/b")[1]["Allow"], "GET, HEAD, PUT, DELETE")
        self.refused(400, "GET", "/collections/%ff/documents", words="UTF-8")
        self.refused(400, "GET", "/collections/%zz/documents", words="escape")
        self.refused(400, "GET", "/collections/a%00b/documents", words="control")

    def test_other_sites_are_refused(self):
        self.refused(403, "POST", "/query", {"question": "x"}, {"Sec-Fetch-Site": "cross-site"})
        self.assertEqual(self.send("GET", "/health", headers={"Sec-Fetch-Site": "cross-site"})[0], 200)

    # ---- questions ----

    def test_answer(self):
        status, _, answer = self.send("POST", "/query", {"question": "How long must I hold the brass button?"})
        self.assertEqual(status, 200)
        self.assertEqual(answer["object"], "lore.answer")
        self.assertIn("eleven seconds", answer["answer"])
        self.assertFalse(answer["refused"])
        self.assertIn(answer["mode_used"], ("answer", "extract"))
        self.assertTrue(answer["citations"])
        self.check_citations(answer)
        for key in ["id", "created", "model", "adapter", "mode", "query_used", "passages", "prompt", "finish_reason",
                    "usage", "timings_ms"]:
            self.assertIn(key, answer)
        passage = answer["passages"][0]
        for key in ["rank", "chunk_id", "document_id", "title", "heading", "source", "text", "start", "end", "score",
                    "scores", "metadata"]:
            self.assertIn(key, passage)
        self.assertEqual(passage["rank"], 1)

    def test_modes(self):
        question = "When are invoices sent?"
        extract = self.send("POST", "/query", {"question": question, "mode": "extract"})[2]
        self.assertEqual(extract["mode_used"], "extract")
        self.assertIn("ninth day", extract["answer"])
        self.check_citations(extract)
        context = self.send("POST", "/query", {"question": question, "mode": "context", "top_k": 1})[2]
        self.assertEqual((context["answer"], len(context["passages"])), ("", 1))
        prompt = self.send("POST", "/query", {"question": question, "mode": "prompt"})[2]
        self.assertIn(question, prompt["answer"])
        self.assertIn("ninth day", prompt["answer"])

    def test_retrieve(self):
        status, _, reply = self.send("POST", "/retrieve", {"question": "brass button", "top_k": 1})
        self.assertEqual(status, 200)
        self.assertEqual(reply["object"], "lore.retrieval")
        self.assertEqual(len(reply["passages"]), 1)
        self.assertIn("eleven seconds", reply["passages"][0]["text"])

    def test_refusal(self):
        answer = self.send("POST", "/query", {"question": "Who won the chess tournament in Reykjavik?"})[2]
        self.assertTrue(answer["refused"])
        self.assertEqual(answer["citations"], [])

    def test_wrong_fields_are_named(self):
        ask = {"question": "x"}
        cases = [({}, "question"), ({"question": 3}, "question"), ({"question": "  "}, "question"),
                 ({**ask, "top_k": "five"}, "top_k"), ({**ask, "top_k": 0}, "top_k"), ({**ask, "top_k": 1.5}, "top_k"),
                 ({**ask, "collection": 1}, "collection"), ({**ask, "collection": [1]}, "collection[0]"),
                 ({**ask, "mode": "poem"}, "mode"), ({**ask, "history": {}}, "history"),
                 ({**ask, "history": [{"role": "system", "content": "x"}]}, "history[0].role"),
                 ({**ask, "history": [{"role": "user"}]}, "history[0].content"),
                 ({**ask, "prompt": "default"}, "prompt"), ({**ask, "prompt": {"version": 2}}, "prompt.version"),
                 ({**ask, "prompt": {"variables": {"a": 1}}}, "prompt.variables.a"),
                 ({**ask, "stream": "yes"}, "stream"), ({**ask, "temperature": -1}, "temperature"),
                 ({**ask, "repetition_penalty": 0}, "repetition_penalty"), ({**ask, "repetition_penalty": 101}, "repetition_penalty"),
                 ({**ask, "seed": "a"}, "seed"), ({**ask, "stop": [""]}, "stop"), ({**ask, "metadata": []}, "metadata"),
                 ({**ask, "max_tokens": 10**9}, "max_tokens")]
        for body, param in cases:
            self.refused(400, "POST", "/query", body, param=param)
        for filter_ in [[], {"type": "like", "key": "a", "value": 1}, {"type": "eq", "value": 1}]:
            error = self.refused(400, "POST", "/query", {**ask, "filter": filter_})
            self.assertTrue((error["param"] or "").startswith("filter"), error)

    def test_bad_json(self):
        for body in [b"", b"{", b"[]", b"\xff", b'{"question": "a", "question": "b"}', b'{"question":"\\ud800"}',
                     b"[" * 10000, b'{"question": "x"} trailing']:
            self.refused(400, "POST", "/query", body, param="body")

    def test_not_found(self):
        self.refused(404, "POST", "/query", {"question": "x", "collection": "nowhere"})
        self.refused(404, "POST", "/query", {"question": "brass button reset", "adapter": "none-such"})
        self.refused(404, "POST", "/query", {"question": "brass button reset", "prompt": {"name": "none-such"}})

    def test_limits(self):
        self.refused(413, "POST", "/query", {"question": "x" * 10000}, param="question")
        self.refused(413, "POST", "/query", {"question": "x", "metadata": {"a": "y" * 70000}}, param="metadata")
        error = self.refused(413, "POST", "/query", {"question": "x", "pad": "y" * (BODY_MAX + 1)}, param="body")
        self.assertIn(str(BODY_MAX), error["message"])
        # Announced and not yet sent: refused before the first byte of the body.
        with socket.create_connection((self.served.host, self.served.port), timeout=20) as raw:
            raw.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n")
            self.assertIn(b" 413 ", raw.recv(4096).split(b"\r\n")[0])
        # Chunked: counted as it comes.
        with socket.create_connection((self.served.host, self.served.port), timeout=20) as raw:
            raw.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            piece = b"10000\r\n" + b"y" * 65536 + b"\r\n"
            raw.sendall(piece * (BODY_MAX // 65536 + 1) + b"0\r\n\r\n")
            self.assertIn(b" 413 ", raw.recv(4096).split(b"\r\n")[0])
        # Headers beyond their limit are the library's to refuse.
        self.assertIn(self.send("GET", "/health", headers={"X-Long": "y" * 40000})[0], (413, 431))

    def test_folded_headers(self):
        """libmicrohttpd glues the second line to the name of the first: a length made or hidden."""
        for lines in (b"Content: 10\r\n -Length", b"Content-Length:\r\n 10", b"Transfer: chunked\r\n -Encoding"):
            with socket.create_connection((self.served.host, self.served.port), timeout=20) as raw:
                raw.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n")
                self.assertIn(b" 400 ", raw.recv(4096).split(b"\r\n")[0])

    # ---- streams ----

    def stream(self, body):
        status, headers, raw = self.send("POST", "/query", {**body, "stream": True})
        self.assertEqual(status, 200)
        self.assertTrue(headers["Content-Type"].startswith("text/event-stream"))
        return events_of(raw)

    def test_stream_order(self):
        for mode in ["answer", "extract"]:
            events = self.stream({"question": "How long must I hold the brass button?", "mode": mode})
            names = [name for name, _ in events]
            self.assertEqual(names[0], "passages")
            self.assertEqual(names[-1], "done")
            self.assertEqual(names.count("done"), 1)
            self.assertLess(names.index("delta"), names.index("citation"))
            self.assertTrue(set(names) <= {"passages", "delta", "citation", "done"})
            done = events[-1][1]
            self.assertEqual("".join(data["text"] for name, data in events if name == "delta"), done["answer"])
            self.assertEqual([data for name, data in events if name == "citation"], done["citations"])
            self.assertNotIn("passages", done)
            self.check_citations({**done, "passages": events[0][1]})

    def test_stream_of_a_bad_question_has_its_status(self):
        self.refused(404, "POST", "/query", {"question": "x", "collection": "nowhere", "stream": True})
        self.refused(400, "POST", "/query", {"stream": True})

    def test_stream_same_as_blocking(self):
        body = {"question": "When are invoices sent?", "seed": 1}
        self.assertEqual(self.stream(body)[-1][1]["answer"], self.send("POST", "/query", body)[2]["answer"])

    def test_client_that_leaves_frees_its_sequence(self):
        self.wait_metric("lore_requests_active", 1)  # the request for the metrics itself
        total = self.metric("lore_engine_pages_total")
        for is_streaming in (True, False):
            sockets = []
            for _ in range(8):
                raw = socket.create_connection((self.served.host, self.served.port), timeout=20)
                body = json.dumps({"question": "How long must I hold the brass button?", "stream": is_streaming,
                                   "max_tokens": 1024}).encode()
                raw.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                sockets.append(raw)
            for raw in sockets:
                raw.close()
            self.wait_metric("lore_requests_active", 1)
            self.wait_metric("lore_engine_running", 0)
            self.wait_metric("lore_engine_waiting", 0)
            self.wait_metric("lore_engine_pages_free", total)

    def test_many_at_once(self):
        results = []

        def one(index):
            results.append(self.send("POST", "/query", {"question": "How long must I hold the brass button?",
                                                        "stream": index % 2 == 0})[0])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(results, [200] * 16)

    # ---- documents ----

    def test_document_life(self):
        path = "/collections/life/documents/kb%2Fowl.md"
        status, _, reply = self.send("PUT", path, {"title": "Owls", "text": "The owl sleeps at noon. It hunts at dusk.",
                                                   "metadata": {"kind": "bird"}})
        self.assertEqual((status, reply["id"], reply["status"], reply["chunks"]), (201, "kb/owl.md", "added", 1))
        ask = {"question": "When does the owl sleep?", "collection": "life"}
        self.assertIn("noon", self.send("POST", "/query", {**ask, "mode": "extract"})[2]["answer"])
        status, _, reply = self.send("PUT", path, {"title": "Owls", "text": "The owl sleeps at noon. It hunts at dusk.",
                                                   "metadata": {"kind": "bird"}})
        self.assertEqual((status, reply["status"]), (200, "unchanged"))
        status, _, reply = self.send("PUT", path, {"title": "Owls", "text": "The owl sleeps at dawn."})
        self.assertEqual((status, reply["status"]), (200, "replaced"))
        self.assertIn("dawn", self.send("POST", "/query", {**ask, "mode": "extract"})[2]["answer"])
        document = self.send("GET", path)[2]
        self.assertEqual((document["id"], document["title"]), ("kb/owl.md", "Owls"))
        self.assertIn("dawn", document["text"])
        chunks = self.send("GET", path + "/chunks")[2]["chunks"]
        self.assertEqual(document["text"].encode()[chunks[0]["start"]:chunks[0]["end"]].decode(), chunks[0]["text"])
        self.assertEqual(self.send("DELETE", path)[2], {"id": "kb/owl.md", "deleted": True})
        self.refused(404, "DELETE", path)
        self.refused(404, "GET", path)
        self.refused(404, "GET", path + "/chunks")
        self.assertEqual(self.send("POST", "/query", {**ask, "mode": "context"})[2]["passages"], [])

    def test_filter(self):
        for name, place in (("a", "north"), ("b", "south")):
            self.send("PUT", f"/collections/filtered/documents/{name}",
                      {"text": f"The gate in the {place} opens at eight.", "metadata": {"place": place}})
        found = self.send("POST", "/retrieve", {
            "question": "When does the gate open?", "collection": "filtered",
            "filter": {"type": "eq", "key": "place", "value": "south"}})[2]["passages"]
        self.assertEqual([one["document_id"] for one in found], ["b"])

    def test_document_forms(self):
        path = "/collections/forms/documents"
        status, _, reply = self.send("POST", path, b"<html><body><h1>Fox</h1><p>The fox is red.</p></body></html>",
                                     {"Content-Type": "text/html; charset=utf-8"})
        self.assertEqual(status, 201)
        self.assertTrue(reply["id"].startswith("d_"))
        status, _, reply = self.send("POST", path + "?id=cafe&title=Caf%C3%A9%20au%20lait&source=a%2Fb.txt",
                                     "Le café est chaud à midi.".encode("latin-1"), {"Content-Type": "text/plain"})
        self.assertEqual((status, reply["id"]), (201, "cafe"))
        document = self.send("GET", path + "/cafe")[2]
        self.assertEqual((document["title"], document["source"]), ("Café au lait", "a/b.txt"))
        self.assertIn("café", document["text"])
        self.assertEqual(self.send("POST", path, {"id": "md", "markdown": "# Hare\n\nThe hare is quick."})[0], 201)
        self.refused(415, "POST", path, b"x", {"Content-Type": "application/msword"})
        self.refused(400, "POST", path, b"x", {"Content-Type": "application/pdf"})
        self.refused(415, "PUT", path + "/x", b"x", {"Content-Type": "multipart/form-data; boundary=y"})
        self.refused(400, "POST", path, {"title": "no text"})
        self.refused(400, "POST", path, {"text": "a", "html": "b"})
        self.refused(400, "POST", path, {"text": 5})
        self.refused(400, "PUT", path + "/one", {"id": "two", "text": "x"}, param="id")
        self.refused(400, "PUT", "/collections/bad%20name/documents/x", {"text": "x"})
        self.refused(413, "PUT", path + "/" + "x" * 600, {"text": "x"})

    def test_lines(self):
        lines = "\n".join([json.dumps({"id": "one", "text": "One is the first."}), "", "{broken",
                           json.dumps({"id": "two", "text": "Two is the second."}), json.dumps({"id": "three"})])
        status, _, reply = self.send("POST", "/collections/lines/documents", lines.encode(),
                                     {"Content-Type": "application/x-ndjson"})
        self.assertEqual(status, 200)
        self.assertEqual((reply["added"], reply["failed"]), (2, 2))
        self.assertEqual([(one["line"], one["status"]) for one in reply["documents"]],
                         [(1, "added"), (3, "failed"), (4, "added"), (5, "failed")])

    def test_pages(self):
        for i in range(7):
            self.send("PUT", f"/collections/pages/documents/doc{i}", {"text": f"Number {i} stands here."})
        cursor, seen = "", []
        while True:
            page = self.send("GET", f"/collections/pages/documents?limit=3&cursor={cursor}")[2]
            self.assertLessEqual(len(page["documents"]), 3)
            seen += [one["id"] for one in page["documents"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        self.assertEqual(seen, [f"doc{i}" for i in range(7)])
        self.refused(400, "GET", "/collections/pages/documents?limit=0", param="limit")
        self.refused(400, "GET", "/collections/pages/documents?limit=many", param="limit")
        self.refused(404, "GET", "/collections/nowhere/documents")

    def test_collections(self):
        self.assertEqual(self.send("PUT", "/collections/fresh")[0], 201)
        self.assertEqual(self.send("PUT", "/collections/fresh")[0], 200)
        names = [one["name"] for one in self.send("GET", "/collections")[2]["collections"]]
        self.assertIn("fresh", names)
        self.assertIn("default", names)
        self.assertEqual(self.send("DELETE", "/collections/fresh")[2], {"name": "fresh", "deleted": True})
        self.refused(404, "DELETE", "/collections/fresh")
        self.refused(400, "PUT", "/collections/bad%2Fname")

    def test_writers_at_once(self):
        statuses = []

        def one(index):
            statuses.append(self.send("PUT", f"/collections/busy/documents/{index}", {"text": f"Writer {index}."})[0])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses, [201] * 12)
        self.assertEqual(len(self.send("GET", "/collections/busy/documents")[2]["documents"]), 12)

    # ---- the commands beside a server ----

    def lore(self, *args, check=True):
        return run("--data", self.served.data, *PATIENT, *args, check=check)

    def test_ingest_through_the_server(self):
        with tempfile.TemporaryDirectory(prefix="lore-hand-") as folder:
            docs = pathlib.Path(folder) / "docs"
            docs.mkdir()
            (docs / "a.md").write_text("# Alder\n\nThe alder grows by water.", encoding="utf-8")
            (docs / "b.html").write_text("<h1>Birch</h1><p>The birch is white.</p>", encoding="utf-8")
            (docs / "c.txt").write_bytes("橡树很高。它的叶子在秋天变红。".encode("gb18030"))
            (docs / "d.jsonl").write_text(json.dumps({"text": "The elm is old.", "metadata": {"n": 1}}), encoding="utf-8")
            options = ("--json", "ingest", "-c", "trees", "--meta", "kind=tree")
            first = json.loads(self.lore(*options, str(docs)).stdout)
            self.assertTrue(first["server"].startswith("http://127.0.0.1:"), first)
            self.assertEqual((first["seen"], first["added"], first["failed"]), (4, 4, 0), first)
            again = json.loads(self.lore(*options, str(docs)).stdout)
            self.assertEqual((again["unchanged"], again["added"]), (4, 0), again)
            listed = self.send("GET", "/collections/trees/documents")[2]["documents"]
            # The same walk into a folder of its own gives the same ids and sources.
            with tempfile.TemporaryDirectory(prefix="lore-direct-") as data:
                run("--data", data, *options, str(docs))
                direct = json.loads(run("--data", data, "--json", "documents", "list", "-c", "trees").stdout)["documents"]
            keys = ("id", "source", "title", "metadata", "text_bytes", "chunks", "media")
            self.assertEqual([[one[key] for key in keys] for one in listed], [[one[key] for key in keys] for one in direct])
            (docs / "a.md").write_text("# Alder\n\nThe alder grows by rivers.", encoding="utf-8")
            (docs / "b.html").unlink()
            third = json.loads(self.lore(*options, "--prune", str(docs)).stdout)
            self.assertEqual((third["replaced"], third["unchanged"], third["deleted"]), (1, 2, 1), third)
            (docs / "e.txt").write_bytes(b"\x00\x01\x02\xff" * 100)
            partly = self.lore(*options, str(docs / "e.txt"), str(docs / "a.md"), check=False)
            self.assertEqual(partly.returncode, 3, partly.stderr)
            self.assertIn("e.txt", partly.stderr)

    def test_ingest_of_a_file_over_the_body_limit(self):
        """What a direct run takes the server takes too: a file is no longer on the way than on the disk, and its limit is its own."""
        with tempfile.TemporaryDirectory(prefix="lore-long-") as folder:
            text = "He said \"yes\\no\".\n\n" * (BODY_MAX // 18 + 500)
            (pathlib.Path(folder) / "quotes.txt").write_text(text, encoding="utf-8")
            (pathlib.Path(folder) / "meta.jsonl").write_text(
                json.dumps({"id": "wide", "text": "Wide metadata.", "metadata": {"note": "n" * 30000}, "title": "A\ttab"}), encoding="utf-8")
            counts = json.loads(self.lore("--json", "ingest", "-c", "long", folder).stdout)
            self.assertEqual((counts["added"], counts["failed"]), (2, 0), counts)
            self.assertEqual(self.send("GET", "/collections/long/documents/wide")[2]["metadata"]["note"], "n" * 30000)
            again = json.loads(self.lore("--json", "ingest", "-c", "long", folder).stdout)
            self.assertEqual(again["unchanged"], 2, again)
        self.assertEqual(self.send("PUT", "/collections/long/documents/json", {"text": text})[0], 201)

    def test_commands_beside_the_server(self):
        answer = json.loads(self.lore("--json", "query", "How long must I hold the brass button?").stdout)
        self.assertIn("eleven seconds", answer["answer"])
        self.send("PUT", "/collections/beside/documents/gone", {"text": "This goes away."})
        self.assertIn("gone", self.lore("documents", "list", "-c", "beside").stdout)
        self.lore("documents", "delete", "-c", "beside", "gone")
        self.refused(404, "GET", "/collections/beside/documents/gone")
        self.lore("collections", "create", "by-hand")
        self.assertIn("by-hand", self.lore("collections", "list").stdout)
        self.lore("collections", "delete", "by-hand")
        second = self.lore("serve", "--listen", "127.0.0.1:0", check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f":{self.served.port}", second.stderr)

    def test_slow_clients_are_closed(self):
        options = ["--set", "limits.idle_timeout_ms=700", "--set", "limits.request_timeout_ms=1500"]
        with Served(self.docs, options=options) as served:
            with socket.create_connection((served.host, served.port), timeout=20) as raw:
                start = time.monotonic()
                raw.sendall(b"GET /health HTTP/1.1\r\n")
                try:
                    while time.monotonic() - start < 20:  # a byte now and then never ends
                        raw.sendall(b"X")
                        time.sleep(0.1)
                except OSError:
                    pass
                self.assertLess(time.monotonic() - start, 15 * SLOWNESS)


class SlowTest(unittest.TestCase):
    """On the reference backend an answer takes seconds: long enough to leave in the middle, and longer than the idle timeout."""

    def test_long_answers(self):
        with tempfile.TemporaryDirectory(prefix="lore-slow-") as folder:
            docs = pathlib.Path(folder) / "docs"
            docs.mkdir()
            (docs / "reset.md").write_text(RESET, encoding="utf-8")
            options = ["--device", "ref", "--set", "limits.idle_timeout_ms=1000", "--set", "evidence_passages=1",
                       "--set", "evidence_sentences=1", "--set", "refuse_below=0"]
            with Served(docs, options=options) as served:
                self.check_leaving(served)
                # Another question: the pages of the one above may be known still.
                story = "I stood before the grey box and looked for the one that is made of brass. " * 5
                body = {"question": story + "For how many seconds is the brass button held?", "max_tokens": 24}
                start = time.monotonic()
                status, raw = self.ask(served, "POST", "/query", {**body, "stream": True})
                self.assertGreater(time.monotonic() - start, 1.0, "too fast to show anything")
                status, answer = self.ask(served, "POST", "/query", body)
                self.assertEqual(status, 200)
                self.assertGreater(answer["usage"]["completion_tokens"], 0)
                self.assertGreater(answer["usage"]["cached_tokens"], 0)
                self.assertEqual(events_of(raw)[-1][1]["answer"], answer["answer"])
                self.assertIn(": ping\n\n", raw)

    def ask(self, served, *args):
        served.connection.close()  # one that was idle for a second is closed by the server too
        return served.request(*args)

    def check_leaving(self, served):
        def metric(name):
            text = self.ask(served, "GET", "/metrics")[1]
            return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[-1])

        total = metric("lore_engine_pages_total")
        for is_streaming in (True, False):
            body = json.dumps({"question": "How long must I hold the brass button?", "stream": is_streaming}).encode()
            raw = socket.create_connection((served.host, served.port), timeout=20)
            raw.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if is_streaming:
                seen = b""
                while b"event: passages" not in seen:
                    piece = raw.recv(1 << 16)
                    self.assertTrue(piece, seen)
                    seen += piece
            end = time.monotonic() + 60
            while metric("lore_engine_pages_free") == total:  # a waiting sequence has no pages yet
                self.assertLess(time.monotonic(), end, "the sequence never started")
            raw.close()
            while metric("lore_engine_running") > 0 or metric("lore_engine_pages_free") < total or metric("lore_requests_active") > 1:
                self.assertLess(time.monotonic(), end, "the sequence is not freed")
                time.sleep(0.05)


class LargeDocumentTest(unittest.TestCase):
    """A document that takes far longer than the request may: it holds up nobody, and it ends when nobody waits for it any more."""

    TEXT = "".join(f"Line {i} says that the boat number {i * 7} left the harbour at noon. " for i in range(76000)).encode()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lore-large-")
        self.docs = pathlib.Path(self.folder.name) / "docs"
        self.docs.mkdir()
        (self.docs / "reset.md").write_text(RESET, encoding="utf-8")

    def tearDown(self):
        self.folder.cleanup()

    def put(self, served, name, body, kind="text/plain"):
        """(status, reply, seconds)"""
        start = time.monotonic()
        connection = http.client.HTTPConnection(served.host, served.port, timeout=180 * SLOWNESS)
        connection.request("PUT", f"/collections/default/documents/{name}", body, {"Content-Type": kind})
        response = connection.getresponse()
        reply = json.loads(response.read())
        connection.close()
        return response.status, reply, time.monotonic() - start

    def ids(self, served):
        served.connection.close()
        return [one["id"] for one in served.get("/collections/default/documents")["documents"] if not one["id"].startswith("d_")]

    def test_others_write_meanwhile_and_the_deadline_holds(self):
        with Served(self.docs, options=["--set", "limits.request_timeout_ms=3000"]) as served:
            results = []
            large = threading.Thread(target=lambda: results.append(self.put(served, "large", self.TEXT)))
            large.start()
            time.sleep(0.7)
            status, _, seconds = self.put(served, "small", b"A small one.")
            self.assertTrue(large.is_alive(), results)
            self.assertEqual(status, 201)
            self.assertLess(seconds, 2 * SLOWNESS)
            large.join()
            status, reply, seconds = results[0]
            self.assertEqual((status, reply["error"]["code"]), (504, "timeout"), reply)
            self.assertIn("request_timeout_ms", reply["error"]["message"])
            self.assertLess(seconds, 15 * SLOWNESS)
            self.assertEqual(self.ids(served), ["small"])

    def test_a_client_that_leaves_and_a_drain_end_it(self):
        head = b"PUT /collections/default/documents/large HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        with Served(self.docs, options=["--set", "limits.drain_timeout_ms=300"]) as served:
            def active():
                served.connection.close()
                text = served.request("GET", "/metrics")[1]
                return int(next(line for line in text.splitlines() if line.startswith("lore_requests_active ")).split()[-1])

            with socket.create_connection((served.host, served.port), timeout=20) as raw:
                raw.sendall(head % len(self.TEXT) + self.TEXT)
                time.sleep(0.5)
                self.assertEqual(active(), 2)
            end = time.monotonic() + 20 * SLOWNESS
            while active() > 1:
                self.assertLess(time.monotonic(), end, "the work for a client that left goes on")
                time.sleep(0.1)
            self.assertEqual(self.ids(served), [])
            results = []

            def put_large():
                try:
                    results.append(self.put(served, "large", self.TEXT))
                except http.client.RemoteDisconnected:  # a piece of work that outlasts the grace gets no reply
                    results.append(None)

            large = threading.Thread(target=put_large)
            large.start()
            time.sleep(0.7)
            start = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            self.assertEqual(served.process.wait(timeout=20 * SLOWNESS), 0)
            self.assertLess(time.monotonic() - start, 15 * SLOWNESS)
            large.join()
            if results[0] is None:
                self.assertGreater(SLOWNESS, 1, "no reply")
            else:
                self.assertEqual((results[0][0], results[0][1]["error"]["code"]), (503, "cancelled"), results)
            listed = json.loads(run("--data", served.data, "--json", "documents", "list").stdout)["documents"]
            self.assertEqual(len(listed), 1)

    def test_memory_grows_with_the_document_up_to_a_limit(self):
        options = ["--set", "limits.arena_bytes_max=1048576", "--set", "limits.document_bytes_max=1000000", *PATIENT]
        with Served(self.docs, options=options) as served:
            self.assertEqual(self.put(served, "fits", self.TEXT[:200000])[0], 201)  # over a megabyte with its vectors
            self.assertEqual(self.put(served, "json", json.dumps({"text": self.TEXT[:200000].decode()}), "application/json")[0], 201)
            status, reply, _ = self.put(served, "dense", b"# a\n" * 50000, "text/markdown")  # a chunk for every four bytes
            self.assertEqual((status, reply["error"]["code"]), (413, "limit"), reply)
            self.assertIn("arena_bytes_max", reply["error"]["message"])
            self.assertEqual(self.ids(served), ["fits", "json"])


class DrainTest(unittest.TestCase):
    """A server of its own for each: they end it."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="lore-drain-")
        self.docs = pathlib.Path(self.folder.name) / "docs"
        self.docs.mkdir()
        (self.docs / "reset.md").write_text(RESET, encoding="utf-8")

    def tearDown(self):
        self.folder.cleanup()

    def test_sigterm_ends_and_frees_the_folder(self):
        with Served(self.docs) as served:
            connection = http.client.HTTPConnection(served.host, served.port, timeout=60)
            connection.request("POST", "/query", json.dumps({"question": "How long must I hold the brass button?", "stream": True}))
            response = connection.getresponse()
            first = response.read(10)
            served.process.send_signal(signal.SIGTERM)
            raw = (first + response.read()).decode()
            self.assertEqual(events_of(raw)[-1][0], "done", "a running stream finishes while draining")
            connection.close()
            self.assertEqual(served.process.wait(timeout=30), 0)
            # The lock is free: a direct ingest works again.
            again = json.loads(run("--data", served.data, "--json", "ingest", str(self.docs)).stdout)
            self.assertEqual((again["server"], again["unchanged"]), ("", 1))

    def test_draining_refuses_new_requests(self):
        with Served(self.docs) as served:
            # A body that is still on its way keeps the drain open.
            slow = socket.create_connection((served.host, served.port), timeout=20)
            slow.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n{\"question\"")
            time.sleep(0.2)
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            status, reply = served.request("POST", "/query", {"question": "x"})
            self.assertEqual((status, reply["error"]["type"]), (503, "unavailable_error"))
            served.connection.close()
            status, reply = served.request("GET", "/ready")
            self.assertEqual((status, reply["status"]), (503, "draining"))
            served.connection.close()
            self.assertEqual(served.request("GET", "/health")[0], 200)
            slow.close()
            self.assertEqual(served.process.wait(timeout=30), 0)

    def test_drain_has_a_deadline_and_second_signal_is_hard(self):
        for is_hard in (False, True):
            with Served(self.docs, options=["--set", "limits.drain_timeout_ms=" + ("60000" if is_hard else "300")]) as served:
                slow = socket.create_connection((served.host, served.port), timeout=20)
                slow.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n{\"question\"")
                time.sleep(0.2)
                served.process.send_signal(signal.SIGTERM)
                if is_hard:
                    time.sleep(0.5)
                    self.assertIsNone(served.process.poll())
                    served.process.send_signal(signal.SIGTERM)
                self.assertEqual(served.process.wait(timeout=20), 130 if is_hard else 0)
                slow.close()

    def test_queue_full(self):
        options = ["--set", "limits.queue_requests_max=1", "--set", "limits.batch_sequences_max=1"]
        with Served(self.docs, options=options) as served:
            statuses = []

            def one():
                connection = http.client.HTTPConnection(served.host, served.port, timeout=60)
                connection.request("POST", "/query", json.dumps({"question": "How long must I hold the brass button?"}))
                response = connection.getresponse()
                response.read()
                connection.close()
                statuses.append((response.status, response.headers.get("Retry-After")))

            threads = [threading.Thread(target=one) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertTrue({status for status, _ in statuses} <= {200, 429}, statuses)
            self.assertIn(200, [status for status, _ in statuses])
            for status, retry in statuses:
                self.assertEqual(retry is not None, status == 429)

    def test_bad_addresses(self):
        with tempfile.TemporaryDirectory(prefix="lore-listen-") as data:
            run("--data", data, "ingest", str(self.docs))
            for listen in ["nonsense", "127.0.0.1:99999", "1.2.3.4.5:80", "127.0.0.1"]:
                done = run("--data", data, "serve", "--listen", listen, check=False)
                self.assertEqual(done.returncode, 1, listen)
                self.assertIn("listen", done.stderr)
            taken = socket.create_server(("127.0.0.1", 0))
            done = run("--data", data, "serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}", check=False)
            self.assertIn("in use", done.stderr)
            taken.close()


if __name__ == "__main__":
    unittest.main(verbosity=1)
