#!/usr/bin/env python3
"""Clients that mean harm or know no better, against a real `lore serve`: broken and ambiguous requests, lies about lengths, half-closed
and pipelined connections, drips, readers that do not read, more connections and descriptors than there are, and signals under load.
Each is refused or served as documented, and the service goes on. Standard library only."""
import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import tempfile
import threading
import time
import unittest

from served import Served

SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))  # builds with sanitizers set it
RESET = "# Resetting the Quill router\n\nHold the brass button for eleven seconds to reset the Quill router.\n"
QUESTION = "How long must I hold the brass button?"
HOST = b"Host: x\r\n"
CLOSE = b"Host: x\r\nConnection: close\r\n"
JSON, LIBRARY = "json", "library"  # whose words the refusal has


def post(body, path="/query", headers=CLOSE):
    data = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), headers, len(data)) + data


class Case(unittest.TestCase):
    """A server per class, with the class' options."""
    options = []
    env = {}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="lore-clients-")
        cls.docs = pathlib.Path(cls.folder.name) / "docs"
        cls.docs.mkdir()
        (cls.docs / "reset.md").write_text(RESET, encoding="utf-8")
        cls.write_more()
        cls.served = cls.serve()
        cls.served.__enter__()

    @classmethod
    def write_more(cls):
        """Documents that one class needs."""

    @classmethod
    def tearDownClass(cls):
        cls.served.__exit__(None, None, None)
        cls.folder.cleanup()

    @classmethod
    def serve(cls, *options):
        return Served(cls.docs, options=[*cls.options, *options], env=cls.env)

    def dial(self, served=None, timeout=30):
        at = served or self.served
        return socket.create_connection((at.host, at.port), timeout=timeout)

    def read_all(self, raw, seconds=30):
        """Until the other side ends; a reset is an end, too."""
        raw.settimeout(seconds * SLOWNESS)
        got = b""
        try:
            while True:
                piece = raw.recv(65536)
                if not piece:
                    return got
                got += piece
        except ConnectionError:
            return got

    def talk(self, data, served=None, half=False):
        with self.dial(served) as raw:
            try:
                raw.sendall(data)
                if half:
                    raw.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused before all was sent; the reply is there all the same
            return self.read_all(raw)

    def split(self, reply):
        """(status, headers in small letters, body) of one reply with Content-Length, and what follows it."""
        head, _, rest = reply.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        size = int(headers.get("content-length", len(rest)))
        return int(lines[0].split(" ")[1]), headers, rest[:size], rest[size:]

    def metrics(self, served=None):
        reply = self.split(self.talk(b"GET /metrics HTTP/1.1\r\n" + CLOSE + b"\r\n", served))
        self.assertEqual(reply[0], 200)
        lines = [line.rsplit(" ", 1) for line in reply[2].decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def wait(self, what, seconds=20):
        end = time.monotonic() + seconds * SLOWNESS
        while not what():
            self.assertLess(time.monotonic(), end, "it does not come")
            time.sleep(0.05)

    def wait_quiet(self, served=None):
        """Only the connection and the request that ask are left."""
        def is_quiet():
            try:
                now = self.metrics(served)
            except AssertionError:
                return False  # refused: those before us still count
            return now["lore_requests_active"] == 1 and now["lore_connections_open"] <= 2 and now["lore_engine_running"] == 0
        self.wait(is_quiet)

    def assert_serves(self, served=None):
        self.assertEqual(self.split(self.talk(b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n", served))[0], 200)

    def cpu_seconds(self, served):
        fields = pathlib.Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class HostileTest(Case):
    options = ["--set", "limits.idle_timeout_ms=2000", "--set", "limits.body_bytes_max=100000"]

    def check(self, name, data, status, words):
        reply = self.talk(data)
        got, headers, body, _ = self.split(reply) if reply else (0, {}, b"", b"")
        self.assertEqual(got, status, (name, reply[:300]))
        if words == JSON:
            error = json.loads(body)["error"]
            self.assertEqual(sorted(error), ["code", "message", "param", "type"], name)
            self.assertTrue(error["message"], name)
            self.assertIn("x-request-id", headers, name)
        if status >= 400 and status not in (404, 405):
            self.assertEqual(headers.get("connection"), "close", name)

    def test_requests_that_are_none(self):
        for name, data, status, words in [
                ("no host", b"GET /health HTTP/1.1\r\n\r\n", 400, JSON),
                ("two hosts", b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, JSON),
                ("HTTP/0.9", b"GET /health\r\n\r\n", 400, LIBRARY),
                ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, LIBRARY),
                ("another protocol", b"GET / HTCPCP/1.1\r\n" + HOST + b"\r\n", 400, LIBRARY),
                ("TLS hello", bytes.fromhex("16030100c8010000c40303") + bytes(189), 0, LIBRARY),
                ("bytes", bytes(range(256)) * 4, 400, LIBRARY),
                ("no address", b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400, LIBRARY),
                ("NUL in a name", b"GET /health HTTP/1.1\r\n" + HOST + b"X-\0: y\r\n\r\n", 400, LIBRARY),
                ("NUL in the version", b"GET /health HTTP/1.1\0\r\n" + HOST + b"\r\n", 400, LIBRARY),
                ("no colon", b"GET /health HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n", 400, LIBRARY),
                ("space before the colon", b"POST /query HTTP/1.1\r\n" + HOST + b"Content-Length : 3\r\n\r\nabc", 400, JSON),
                ("folded first", b"GET /health HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n", 400, JSON),
                ("a bare CR", b"GET /health HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400, JSON),
                ("1 MB of header", b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 2**20 + b"\r\n\r\n", 431, LIBRARY),
                ("100,000 headers", b"GET /health HTTP/1.1\r\n" + HOST + b"a: b\r\n" * 100_000 + b"\r\n", 431, LIBRARY),
                ("a long address", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, LIBRARY),
                ("a long method", b"G" * 100_000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n", 414, LIBRARY),
                ("3,000 arguments", b"GET /usage?" + b"&".join(b"a%d=1" % i for i in range(3000)) + b" HTTP/1.1\r\n" + HOST + b"\r\n", 0, LIBRARY),
                ("up and away", b"GET /../../etc/passwd HTTP/1.1\r\n" + CLOSE + b"\r\n", 404, JSON),
                ("a proxy's address", b"GET http://x/health HTTP/1.1\r\n" + CLOSE + b"\r\n", 404, JSON),
                ("OPTIONS", b"OPTIONS /query HTTP/1.1\r\n" + CLOSE + b"\r\n", 405, JSON),
                ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + CLOSE + b"\r\n", 404, JSON),
                ("an unknown method", b"BREW /query HTTP/1.1\r\n" + CLOSE + b"\r\n", 405, JSON),
                ("a method in small letters", b"get /health HTTP/1.1\r\n" + CLOSE + b"\r\n", 405, JSON),
                ("CONNECT", b"CONNECT x:80 HTTP/1.1\r\n" + CLOSE + b"\r\n", 404, JSON),
                ("HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", 200, None),
                ("an offer to upgrade", b"GET /health HTTP/1.1\r\n" + HOST + b"Upgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n", 200, None),
                ("empty lines first", b"\r\n\r\nGET /health HTTP/1.1\r\n" + CLOSE + b"\r\n", 200, None),
                ("lines without CR", b"GET /health HTTP/1.1\nHost: x\nConnection: close\n\n", 200, None)]:
            with self.subTest(name):
                self.check(name, data, status, words)
        self.wait_quiet()

    def test_lies_about_lengths(self):
        start = b"POST /query HTTP/1.1\r\n" + HOST
        for name, rest, status, words in [
                ("negative", b"Content-Length: -3\r\n\r\nabc", 400, LIBRARY),
                ("signed", b"Content-Length: +3\r\n\r\nabc", 400, LIBRARY),
                ("no number", b"Content-Length: 0x3\r\n\r\nabc", 400, LIBRARY),
                ("empty", b"Content-Length:\r\n\r\nabc", 400, LIBRARY),
                ("a list", b"Content-Length: 3, 3\r\n\r\nabc", 400, LIBRARY),
                ("twice", b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, JSON),
                ("beyond the limit", b"Content-Length: 999999999\r\n\r\nabc", 413, JSON),
                ("beyond 63 bits", b"Content-Length: 18446744073709551615\r\n\r\nabc", 413, JSON),
                ("beyond 64 bits", b"Content-Length: 99999999999999999999999\r\n\r\nabc", 413, LIBRARY),
                ("both", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, JSON),
                ("chunked twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, JSON),
                ("unknown coding", b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, JSON),
                ("nearly chunked", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, JSON),
                ("unknown expectation", b"Expect: miracles\r\nContent-Length: 3\r\n\r\nabc", 417, JSON),
                ("no chunk size", b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", 400, LIBRARY),
                ("a negative chunk", b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400, LIBRARY),
                ("a huge chunk", b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\nabc\r\n0\r\n\r\n", 413, LIBRARY),
                ("a chunk without end", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", 400, LIBRARY)]:
            with self.subTest(name):
                self.check(name, start + rest, status, words)
        # What comes behind a short length is the next request, and it is none.
        reply = self.talk(start + b"Content-Length: 2\r\n\r\n{}GARBAGE /\r\n\r\n")
        status, _, _, rest = self.split(reply)
        self.assertEqual((status, self.split(rest)[0]), (400, 400))
        # More was promised than comes: no request, no reply.
        self.assertEqual(self.talk(start + b"Content-Length: 100\r\n\r\n{}", half=True), b"")
        self.assertEqual(self.talk(start + b"Transfer-Encoding: chunked\r\n\r\n64\r\n{}", half=True), b"")
        self.wait_quiet()

    def test_smuggled_requests_are_not_answered(self):
        """A refused length closes the connection: nothing behind it is read as a request."""
        for lie in [b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 0\r\nContent-Length: 4\r\n"]:
            reply = self.talk(b"POST /query HTTP/1.1\r\n" + HOST + lie + b"\r\n0\r\n\r\nGET /health HTTP/1.1\r\n" + HOST + b"\r\n")
            self.assertEqual(reply.count(b"HTTP/1.1 "), 1, reply)

    def test_a_nul_ends_a_value(self):
        """The library reads text as C does; documented, and of no consequence here."""
        status, headers, _, _ = self.split(self.talk(b"GET /health HTTP/1.1\r\n" + CLOSE + b"X-Request-Id: a\0b\r\n\r\n"))
        self.assertEqual((status, headers["x-request-id"]), (200, "a"))

    def test_expect_continue(self):
        with self.dial() as raw:
            data = json.dumps({"question": QUESTION, "mode": "extract"}).encode()
            raw.sendall(b"POST /query HTTP/1.1\r\n" + CLOSE + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(data))
            self.assertTrue(raw.recv(1000).startswith(b"HTTP/1.1 100 "))
            raw.sendall(data)
            self.assertEqual(self.split(self.read_all(raw))[0], 200)

    def test_head(self):
        for path, wanted in [("/health", 200), ("/openapi.json", 200), ("/nowhere", 404)]:
            status, headers, body, _ = self.split(self.talk(b"HEAD %s HTTP/1.1\r\n" % path.encode() + CLOSE + b"\r\n"))
            self.assertEqual((status, body), (wanted, b""))
            self.assertGreater(int(headers["content-length"]), 10)

    def test_pipelining(self):
        """All in one write, answered in order; what is refused in between breaks nothing."""
        asked = [b"GET /nowhere/%d HTTP/1.1\r\n" % i + HOST + b"X-Request-Id: n%d\r\n\r\n" % i for i in range(20)]
        asked[5] = post({"question": QUESTION, "mode": "extract"}, headers=HOST + b"X-Request-Id: n5\r\n")
        asked[9] = post({}, headers=HOST + b"X-Request-Id: n9\r\n")
        asked[12] = post({"question": QUESTION, "stream": True, "mode": "extract"}, headers=HOST + b"X-Request-Id: n12\r\n")
        rest = self.talk(b"".join(asked) + b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n")
        for i in range(20):
            if i == 12:
                head, _, rest = rest.partition(b"\r\n\r\n")
                self.assertIn(b"n12", head)
                self.assertIn(b"chunked", head)
                stream, _, rest = rest.partition(b"\r\n0\r\n\r\n")
                self.assertIn(b"event: done", stream)
                continue
            status, headers, _, rest = self.split(rest)
            self.assertEqual((status, headers["x-request-id"]), ({5: 200, 9: 400}.get(i, 404), f"n{i}"))
        self.assertEqual((self.split(rest)[0], self.split(rest)[3]), (200, b""))

    def test_a_connection_serves_on_after_errors(self):
        connection = http.client.HTTPConnection(self.served.host, self.served.port, timeout=30)
        for path, body, wanted in [("/nowhere", "{}", 404), ("/query", "{", 400), ("/health", "x", 405), ("/query", "y" * 200_000, 413),
                                   ("/query", json.dumps({"question": QUESTION, "mode": "extract"}), 200)]:
            connection.request("POST", path, body)
            reply = connection.getresponse()
            reply.read()
            self.assertEqual(reply.status, wanted)
            self.assertIsNotNone(connection.sock, "it was closed")
        connection.close()

    def test_half_closed_clients_get_their_answer(self):
        for body in [{"question": QUESTION}, {"question": QUESTION, "mode": "extract"}]:
            reply = self.talk(post(body, headers=HOST), half=True)
            while reply.startswith(b"HTTP/1.1 100 "):  # asked whether it is there
                reply = reply.partition(b"\r\n\r\n")[2]
            status, _, answer, rest = self.split(reply)
            self.assertEqual((status, rest), (200, b""))
            self.assertIn("eleven seconds", json.loads(answer)["answer"])
            stream = self.talk(post({**body, "stream": True}, headers=HOST), half=True)
            self.assertIn(b"event: done", stream)
            self.assertTrue(stream.endswith(b"0\r\n\r\n"))
        # HTTP/1.0 knows no interim replies, and gets none.
        reply = self.talk(post({"question": QUESTION}).replace(b"HTTP/1.1", b"HTTP/1.0"), half=True)
        self.assertEqual(self.split(reply)[0], 200)
        self.wait_quiet()


class DeadlineTest(Case):
    options = ["--set", "limits.idle_timeout_ms=700", "--set", "limits.request_timeout_ms=1500"]
    env = {"LORE_CHUNK_TOKENS": "2000"}

    @classmethod
    def write_more(cls):
        for i in range(10):
            lines = [f"The {n}th shelf of room {i} holds {n * 7} books about rivers and the keepers of rivers." for n in range(400)]
            (cls.docs / f"room{i}.md").write_text("\n\n".join(lines), encoding="utf-8")

    def drip(self, first, piece, seconds):
        """How long the connection lasts while a piece comes now and then."""
        with self.dial() as raw:
            begun = time.monotonic()
            try:
                raw.sendall(first)
                while time.monotonic() - begun < seconds * SLOWNESS:
                    raw.sendall(piece)
                    time.sleep(0.05)
            except OSError:
                pass
            return time.monotonic() - begun

    def test_drips(self):
        for name, first, piece, most in [
                ("a request line", b"GET /", b"x", 0.7), ("headers", b"GET /health HTTP/1.1\r\n", b"X: y\r\n", 0.7), ("empty lines", b"\r\n", b"\r\n", 0.7),
                ("a body", b"POST /query HTTP/1.1\r\n" + HOST + b"Content-Length: 10000\r\n\r\n", b" ", 1.5),
                ("chunks", b"POST /query HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 1.5),
                ("a chunk size", b"POST /query HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 1.5),
                ("a refused body", b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n", b" ", 1.5)]:
            with self.subTest(name):
                self.assertLess(self.drip(first, piece, most + 10), (most + 6) * SLOWNESS)
        self.wait_quiet()

    def test_silence(self):
        for first in [b"", b"\0\xff\1\r\n\r\n", b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n", b"POST /query HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\n"]:
            with self.dial() as raw:
                begun = time.monotonic()
                raw.sendall(first)
                self.read_all(raw)
                self.assertLess(time.monotonic() - begun, 15 * SLOWNESS)

    def test_silent_connections_cost_no_time(self):
        """The processor is idle while many connections wait for their deadline, and after it."""
        open_ones = [self.dial() for _ in range(60)]
        time.sleep(0.1)
        before = self.cpu_seconds(self.served)
        time.sleep(1)
        self.assertLess(self.cpu_seconds(self.served) - before, 0.25 * SLOWNESS)
        for raw in open_ones:
            raw.close()
        self.wait_quiet()

    def open_slow_reader(self, data):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(30)
        raw.connect((self.served.host, self.served.port))
        raw.sendall(data)
        return raw

    def open_waiting_readers(self, ask):
        """Readers for which the service waits. On a busy machine their requests can be over before anybody has looked."""
        for _ in range(20):
            readers = [self.open_slow_reader(post({**ask, "stream": stream})) for stream in (True, True, False, False)]
            end = time.monotonic() + 2
            while time.monotonic() < end:
                if self.metrics()["lore_requests_active"] >= 2:  # the one that asks, and one that waits for its reader
                    return readers
            for raw in readers:
                raw.close()
        return self.fail("nobody is waited for")

    def test_readers_that_do_not_read(self):
        """More than the sockets hold, to clients that take nothing or a little now and then: the work for them ends all the same."""
        ask = {"question": "Which shelf holds books about rivers?", "top_k": 50, "mode": "context"}
        after = []
        for _ in range(4):
            readers = self.open_waiting_readers(ask)
            begun, is_over = time.monotonic(), threading.Event()

            def drip(raw):
                while not is_over.wait(0.02) and raw.recv(1):
                    pass
            drips = [threading.Thread(target=drip, args=[raw]) for raw in readers[::2]]  # half of them take a little now and then
            for thread in drips:
                thread.start()
            self.wait_quiet()
            self.assertLess(time.monotonic() - begun, 15 * SLOWNESS, "the deadline of a reply is absolute")
            is_over.set()
            for thread in drips:
                thread.join()
            for raw in readers:
                raw.close()
            after.append(self.metrics())
        # Readers of the index are opened when more are needed at one time than before, and kept with their prepared statements: not in
        # every round, where a leak would show.
        for name, slack in [("lore_threads", 2), ("process_open_fds", 2), ("lore_allocations", 50)]:
            grown = [later[name] - earlier[name] for earlier, later in zip(after, after[1:])]
            self.assertLessEqual(min(grown), slack, (name, grown))


class CapTest(Case):
    options = ["--set", "limits.connections_max=12", "--set", "limits.connections_per_ip_max=8"]

    def hold(self, count, address):
        """Connections that were let in: one that just left may still count when the next one comes."""
        held, end = [], time.monotonic() + 20 * SLOWNESS
        while len(held) < count:
            self.assertLess(time.monotonic(), end, "no room")
            raw = socket.create_connection((self.served.host, self.served.port), 30, (address, 0))
            raw.settimeout(0.2)
            try:
                raw.recv(1)
                raw.close()
            except TimeoutError:
                raw.settimeout(30)
                held.append(raw)
        return held

    def test_caps(self):
        held = self.hold(8, "127.0.0.1")
        self.wait(lambda: self.split(self.talk(b""))[0] == 429)
        status, headers, body, _ = self.split(self.talk(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"))
        self.assertEqual((status, headers["retry-after"]), (429, "1"))
        self.assertIn("connections_per_ip_max", json.loads(body)["error"]["message"])
        others = self.hold(4, "127.0.0.2")

        def from_third(request=b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n"):
            with socket.create_connection((self.served.host, self.served.port), 30, ("127.0.0.3", 0)) as raw:
                raw.sendall(request)
                return self.split(self.read_all(raw))
        self.wait(lambda: from_third()[0] == 503)
        status, headers, body, _ = from_third(post({"question": "x" * 60_000}))
        self.assertEqual((status, headers["retry-after"]), (503, "1"))
        self.assertIn("connections_max", json.loads(body)["error"]["message"])
        for raw in held + others:
            raw.close()
        self.wait(lambda: from_third()[0] != 503)
        self.assert_serves()
        self.assertGreater(self.metrics()["lore_connections_refused_total"], 3)

    def test_a_flood_of_connections(self):
        """Many more at once than there is room for: quick refusals, and service when they are gone."""
        begun = time.monotonic()
        flood = [socket.create_connection((self.served.host, self.served.port), 30) for _ in range(400)]
        refused = 0
        for raw in flood:
            raw.settimeout(0.5)
            try:
                refused += raw.recv(100).startswith(b"HTTP/1.1 429 ")
            except TimeoutError:
                pass  # one of those with room
            except OSError:
                refused += 1
        self.assertGreaterEqual(refused, 390)
        self.assertLess(time.monotonic() - begun, 25 * SLOWNESS)
        for raw in flood:
            raw.close()
        self.wait_quiet()
        self.assert_serves()


class ShortageTest(Case):
    def limit(self, served, what, soft):
        _, hard = resource.prlimit(served.process.pid, what)
        resource.prlimit(served.process.pid, what, (soft, hard))

    def test_no_descriptors(self):
        with self.serve() as served:
            served.connection.close()
            before = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
            fds = len(os.listdir(f"/proc/{served.process.pid}/fd"))
            self.limit(served, resource.RLIMIT_NOFILE, fds + 32 + 4)  # 32 are kept for files
            held = [self.dial(served) for _ in range(12)]
            self.wait(lambda: b" 503 " in self.talk(b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n", served))
            self.limit(served, resource.RLIMIT_NOFILE, 3)  # not even enough to refuse
            with self.dial(served) as waiting:
                time.sleep(0.3)
                spent = self.cpu_seconds(served)
                time.sleep(1)
                self.assertLess(self.cpu_seconds(served) - spent, 0.25 * SLOWNESS, "it spins")
                for raw in held:
                    raw.close()
                self.limit(served, resource.RLIMIT_NOFILE, before[0])
                waiting.sendall(b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n")
                self.assertIn(b" 200 ", self.read_all(waiting)[:20])
            self.assertIn("eleven seconds", served.post("/query", {"question": QUESTION})["answer"])

    @unittest.skipIf(SLOWNESS > 1, "sanitizers need the address space")
    def test_no_memory_for_threads(self):
        with self.serve() as served:
            served.connection.close()
            statm = int(pathlib.Path(f"/proc/{served.process.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
            before = resource.prlimit(served.process.pid, resource.RLIMIT_AS)
            self.limit(served, resource.RLIMIT_AS, statm + 300 * 1024)  # less than a stack
            held = [self.dial(served) for _ in range(8)]
            refused = sum(b" 503 " in self.read_all(raw)[:20] for raw in held[2:])
            self.assertGreater(refused, 0)
            resource.prlimit(served.process.pid, resource.RLIMIT_AS, before)
            for raw in held:
                raw.close()
            self.wait_quiet(served)
            self.assertIn("eleven seconds", served.post("/query", {"question": QUESTION})["answer"])


class SignalTest(Case):
    """On the reference backend, where an answer takes seconds."""
    options = ["--device", "ref", "--set", "evidence_passages=1", "--set", "evidence_sentences=1", "--set", "refuse_below=0"]

    def begin(self, served, body):
        """One question under way: (thread, results)."""
        results = []

        def ask():
            results.append(self.talk(post(body), served))
        thread = threading.Thread(target=ask)
        thread.start()
        return thread, results

    def test_drain_under_load(self):
        with self.serve("--set", "limits.drain_timeout_ms=120000") as served:
            body = {"question": QUESTION, "max_tokens": 16}
            running = [self.begin(served, {**body, "stream": i % 2 == 0}) for i in range(4)]
            self.wait(lambda: self.metrics(served)["lore_requests_active"] == 5)
            kept = self.dial(served)  # a connection from before the signal
            served.process.send_signal(signal.SIGTERM)
            self.wait(lambda: b" 503 " in self.talk(b"GET /ready HTTP/1.1\r\n" + CLOSE + b"\r\n", served))
            for _ in range(3):
                status, headers, reply, _ = self.split(self.talk(post(body), served))
                self.assertEqual((status, headers["retry-after"]), (503, "1"))
                self.assertIn("stopping", json.loads(reply)["error"]["message"])
            kept.sendall(post(body, headers=HOST))
            status, headers, _, _ = self.split(self.read_all(kept))
            self.assertEqual((status, headers["connection"]), (503, "close"))
            kept.close()
            for thread, results in running:
                thread.join()
                self.assertIn(b" 200 ", results[0][:20])
                self.assertTrue(results[0].endswith(b"0\r\n\r\n") and b"event: done" in results[0] or b'"finish_reason"' in results[0], results)
            self.assertEqual(served.process.wait(30), 0)
            self.assertEqual(served.process.stderr.read(), "")

    def test_the_deadline_of_the_drain(self):
        with self.serve("--set", "limits.drain_timeout_ms=300") as served:
            running = [self.begin(served, {"question": QUESTION, "max_tokens": 1000, "stream": i % 2 == 0}) for i in range(2)]
            self.wait(lambda: self.metrics(served)["lore_requests_active"] == 3)
            begun = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            self.assertEqual(served.process.wait(30), 0)
            self.assertLess(time.monotonic() - begun, 15 * SLOWNESS)  # a step of this backend is not interrupted
            for thread, results in running:
                thread.join()
                self.assertTrue(b" 503 " in results[0][:20] or b"event: error" in results[0] or b"event: done" not in results[0], results)

    def test_a_second_signal_ends_at_once(self):
        for first, second in [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)]:
            with self.serve() as served:
                thread, _ = self.begin(served, {"question": QUESTION, "max_tokens": 1000})
                self.wait(lambda: self.metrics(served)["lore_requests_active"] == 2)
                served.process.send_signal(first)
                self.wait(lambda: b" 503 " in self.talk(b"GET /ready HTTP/1.1\r\n" + CLOSE + b"\r\n", served))
                begun = time.monotonic()
                served.process.send_signal(second)
                self.assertEqual(served.process.wait(30), 130)
                self.assertLess(time.monotonic() - begun, 10 * SLOWNESS)
                thread.join()

    def test_other_signals(self):
        self.served.process.send_signal(signal.SIGPIPE)
        self.served.process.send_signal(signal.SIGCHLD)
        self.assert_serves()
        self.assertIsNone(self.served.process.poll())


if __name__ == "__main__":
    unittest.main(verbosity=1)
