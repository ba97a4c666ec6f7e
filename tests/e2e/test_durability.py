"""What was acknowledged stays: concurrent writers, a full disk, a folder that may only be read; and the request log
beside it, which stops nobody."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

from served import Served, run

TEXT = "The harbour of Port Ellis opens at six. Boats of more than nine metres need a pilot."


class Mount:
    """A file system of so many bytes in memory; skips the test where this user may not make one."""

    def __init__(self, test, size):
        self.path = tempfile.mkdtemp(prefix="lore-mount-")
        test.addCleanup(os.rmdir, self.path)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "lore", self.path],
                          capture_output=True).returncode != 0:
            test.skipTest("needs the right to mount")
        test.addCleanup(subprocess.run, ["umount", self.path], check=True)

    def change(self, options):
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


def log_of(data):
    return sqlite3.connect(f"file:{data}/log.db?mode=ro", uri=True)


def wait_for(condition):
    for _ in range(200):
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


class Writers(unittest.TestCase):
    def test_many_at_once(self):
        """Puts and deletions of many clients; one in ten is refused; a restart shows exactly what was said."""
        with tempfile.TemporaryDirectory() as data:
            def client(number):
                kept = []
                connection = http.client.HTTPConnection(s.host, s.port, timeout=60)
                for i in range(12):
                    name = f"c{number}-{i}"
                    body = {"text": f"{TEXT} Berth {name}."} if i % 10 else {"text": "x", "metadata": "no object"}
                    connection.request("PUT", f"/collections/default/documents/{name}", json.dumps(body))
                    reply = connection.getresponse()
                    reply.read()
                    self.assertEqual(reply.status, 201 if i % 10 else 400)
                    if i % 10:
                        kept.append(name)
                    if i % 4 == 3:
                        connection.request("DELETE", f"/collections/default/documents/{kept[0]}")
                        reply = connection.getresponse()
                        reply.read()
                        self.assertEqual(reply.status, 200)
                        kept.pop(0)
                connection.close()
                return kept
            with Served(data=data) as s:
                with concurrent.futures.ThreadPoolExecutor(16) as pool:
                    kept = {name for names in pool.map(client, range(16)) for name in names}
                s.process.kill()
                s.process.wait()
            with Served(data=data) as s:
                found = {d["id"] for d in s.get("/collections/default/documents?limit=1000")["documents"]}
                self.assertEqual(found, kept)
                wanted = sorted(kept)[0]
                passages = s.post("/retrieve", {"question": f"Berth {wanted}"})["passages"]
                self.assertIn(wanted, [p["document_id"] for p in passages])


class FullDisk(unittest.TestCase):
    def test_full_and_back(self):
        """The disk fills up: an error that says so, answers go on, and with new space so does writing."""
        mount = Mount(self, "6m")
        data = os.path.join(mount.path, "data")
        with Served(data=data) as s:
            accepted = []

            def put(number):
                return s.request("PUT", f"/collections/default/documents/d{number}",
                                 {"text": f"{TEXT} {number}", "metadata": {"padding": f"{number} " * 12000}})
            for number in range(400):
                status, reply = put(number)
                if status != 201:
                    break
                accepted.append(f"d{number}")
            self.assertEqual(status, 500, reply)
            self.assertRegex(reply["error"]["message"], "full|No space")
            self.assertGreater(len(accepted), 0)
            for _ in range(3):
                self.assertGreater(len(s.post("/retrieve", {"question": "When does the harbour open?"})["passages"]), 0)
            mount.change("size=64m")
            status, reply = put(number)
            self.assertEqual(status, 201, reply)
            accepted.append(f"d{number}")
        with Served(data=data) as s:
            found = {d["id"] for d in s.get("/collections/default/documents?limit=1000")["documents"]}
            self.assertEqual(found, set(accepted))


class Backup(unittest.TestCase):
    def test_under_load(self):
        """While clients write, a backup is one moment: of each client all documents up to one of them, none that was acknowledged
        before it began missing, none that was begun after it ended there."""
        with tempfile.TemporaryDirectory() as folder:
            data, file, restored = folder + "/data", folder + "/index.backup", folder + "/restored"
            acknowledged, begun, is_over = [0] * 4, [0] * 4, threading.Event()

            def client(number):
                connection = http.client.HTTPConnection(s.host, s.port, timeout=60)
                while not is_over.is_set():
                    begun[number] += 1
                    name = f"c{number}-{begun[number]}"
                    connection.request("PUT", f"/collections/default/documents/{name}", json.dumps({"text": f"{TEXT} {name}"}))
                    reply = connection.getresponse()
                    reply.read()
                    self.assertEqual(reply.status, 201)
                    acknowledged[number] = begun[number]
                connection.close()
            with Served(data=data) as s:
                with concurrent.futures.ThreadPoolExecutor(4) as pool:
                    clients = [pool.submit(client, i) for i in range(4)]
                    wait_for(lambda: min(acknowledged) > 3)
                    before = list(acknowledged)
                    made = json.loads(run("--data", data, "--json", "backup", file).stdout)
                    after = list(begun)
                    wait_for(lambda: all(now > then for now, then in zip(acknowledged, after)))  # writing went on meanwhile
                    self.assertTrue(json.loads(run("--data", data, "--json", "fsck").stdout)["served"])
                    is_over.set()
                    for one in clients:
                        one.result()
            self.assertEqual(os.listdir(folder).count("index.backup.tmp"), 0)
            self.assertEqual(run("--data", data, "restore", file, check=False).returncode, 1)  # there is an index
            run("--data", restored, "restore", file)
            with Served(data=restored) as s:
                found = {d["id"] for d in s.get("/collections/default/documents?limit=1000")["documents"]}
                self.assertEqual(len(found), made["documents"])
                for number in range(4):
                    last = sum(name.startswith(f"c{number}-") for name in found)
                    self.assertEqual({f"c{number}-{i + 1}" for i in range(last)} - found, set())
                    self.assertTrue(before[number] <= last <= after[number], (before, last, after))
                self.assertEqual(s.request("PUT", "/collections/default/documents/more", {"text": TEXT})[0], 201)
            self.assertTrue(json.loads(run("--data", restored, "--json", "fsck").stdout)["clean"])

    def test_full_disk(self):
        """No half a backup: what was there stays, and nothing else does."""
        mount = Mount(self, "256k")
        with tempfile.TemporaryDirectory() as data:
            with Served(data=data) as s:
                for i in range(8):
                    s.request("PUT", f"/collections/default/documents/d{i}", {"text": TEXT, "metadata": {"padding": f"{i} " * 24000}})
            file = mount.path + "/index.backup"
            pathlib.Path(file).write_text("the last one")
            done = run("--data", data, "backup", file, check=False)
            self.assertEqual((done.returncode, os.listdir(mount.path)), (1, ["index.backup"]), done.stderr)
            self.assertRegex(done.stderr, "full|No space")
            self.assertEqual(pathlib.Path(file).read_text(), "the last one")


class Digest(unittest.TestCase):
    def test_order_and_threads(self):
        """The same files in another order, in groups of another size, by another number of threads, over documents that were there
        in another version: the same digest, to the last bit of the vectors."""
        with tempfile.TemporaryDirectory() as folder:
            docs = pathlib.Path(folder, "docs")
            docs.mkdir()
            for i in range(24):
                words = f"Shelf {i} holds {i * 7} books about rivers. 書架有河流的書。 " * (1 + i * i % 37)
                (docs / f"{i}.md").write_text(f"# Shelf {i}\n\n## Books\n\n{words}\n\n## Keeper\n\nPerson{i} keeps it.\n", encoding="utf-8")
            (docs / "late.txt").write_text(TEXT, encoding="utf-8")

            def digest(data):
                return json.loads(run("--data", data, "--json", "digest").stdout)
            one, two = folder + "/one", folder + "/two"
            run("--data", one, "--set", "threads=1", "ingest", str(docs))
            files = sorted(str(path) for path in docs.iterdir())
            random.Random(5).shuffle(files)
            changed = pathlib.Path(files[3])
            kept = changed.read_text(encoding="utf-8")
            changed.write_text("# Another text\n\nNot for long.\n", encoding="utf-8")
            for i in range(0, len(files), 9):
                run("--data", two, "--set", "threads=2", "--set", "commit_documents=2", "ingest", *files[i:i + 9])
            between = digest(two)
            changed.write_text(kept, encoding="utf-8")
            run("--data", two, "--set", "threads=2", "ingest", *files)
            found = digest(one)
            self.assertEqual((found["documents"], found["collections"]), (25, 1))
            self.assertEqual(found, digest(two))
            self.assertNotEqual(found["digest"], between["digest"])
            for data in one, two:
                self.assertTrue(json.loads(run("--data", data, "--json", "fsck").stdout)["clean"])


class ReadOnly(unittest.TestCase):
    def check(self, data):
        with Served(data=data) as s:
            passages = s.post("/retrieve", {"question": "When does the harbour open?"})["passages"]
            self.assertEqual(passages[0]["document_id"], "harbour")
            self.assertEqual(s.post("/query", {"question": "When does the harbour open?"})["refused"], False)
            status, reply = s.request("PUT", "/collections/default/documents/new", {"text": "x"})
            self.assertEqual((status, reply["error"]["type"]), (501, "not_supported_error"))
            self.assertIn("read-only", reply["error"]["message"])
            self.assertEqual(s.request("DELETE", "/collections/default/documents/harbour")[0], 501)
            self.assertEqual(s.request("GET", "/usage")[0], 501)
        listed = json.loads(run("--data", data, "--json", "documents", "list").stdout)
        self.assertEqual([d["id"] for d in listed["documents"]], ["harbour"])
        self.assertNotEqual(run("--data", data, "documents", "delete", "harbour", check=False).returncode, 0)

    def test_read_only_mount(self):
        """A medium that cannot be written to is served, whether its last writer closed it or was killed."""
        for is_killed in (False, True):
            mount = Mount(self, "32m")
            data = os.path.join(mount.path, "data")
            with Served(data=data) as s:
                self.assertEqual(s.request("PUT", "/collections/default/documents/harbour", {"text": TEXT})[0], 201)
                if is_killed:
                    s.process.kill()
                    s.process.wait()
            self.assertEqual(os.path.exists(data + "/lore.db-wal"), is_killed)
            mount.change("ro")
            self.check(data)


class RequestLog(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = folder.name

    def ask_some(self, **options):
        with Served(data=self.data, **options) as s:
            s.request("PUT", "/collections/default/documents/harbour", {"text": TEXT})
            s.post("/query", {"question": "When does the harbour open?"})
            s.post("/retrieve", {"question": "Who needs a pilot?"})
            status, _ = s.request("POST", "/query", {"question": "x", "collection": ["default", "nowhere"]})
            self.assertEqual(status, 404)
            s.request("POST", "/query", {"question": 3}, {"X-Request-Id": "mine"})
            status, events = s.request("POST", "/query", {"question": "Who needs a pilot?", "stream": True})
            self.assertEqual(status, 200)
            s.get("/health")

            def usage():
                reply = s.get("/usage?days=1")
                return reply if sum(r["requests"] for r in reply["usage"]) >= 4 else None
            reply = wait_for(usage)
            self.assertEqual(s.request("GET", "/usage?days=0")[0], 400)
            self.assertIn("lore_request_log_dropped_total 0", s.get("/metrics"))
            return reply

    def test_rows_and_usage(self):
        reply = self.ask_some()
        self.assertEqual((reply["object"], reply["dropped"]), ("lore.usage", 0))
        rows = {r["collection"]: r for r in reply["usage"]}
        self.assertEqual((rows["default"]["requests"], rows["default"]["failed"]), (3, 0))
        self.assertEqual((rows[""]["requests"], rows[""]["failed"]), (1, 1))  # names that clients make up get no rows
        self.assertGreater(rows["default"]["prompt_tokens"], 0)
        with log_of(self.data) as log:
            log.row_factory = sqlite3.Row
            requests = [dict(r) for r in log.execute("select * from requests order by id")]
        routes = [r["route"] for r in requests]
        self.assertIn("PUT /collections/{}/documents/{}", routes)
        self.assertNotIn("GET /health", routes)
        self.assertTrue(all(r["question"] is None for r in requests))
        asked = [r for r in requests if r["route"] == "POST /query" and r["status"] == 200]
        self.assertEqual([r["mode"] for r in asked], ["answer"] * 2 if asked[0]["mode"] == "answer" else ["extract"] * 2)
        self.assertTrue(all(r["total_ms"] > 0 and r["search_ms"] > 0 and r["embed_ms"] > 0 for r in asked))
        bad = [r for r in requests if r["request_id"] == "mine"][0]
        self.assertEqual((bad["status"], bad["error"], bad["mode"]), (400, "invalid", ""))
        self.assertTrue(abs(requests[0]["time_ms"] / 1000 - time.time()) < 600)

    def test_questions_where_wanted(self):
        self.ask_some(options=["--set", "request_log_questions=true"])
        with log_of(self.data) as log:
            asked = [q for q, in log.execute("select question from requests where question is not null")]
        self.assertIn("When does the harbour open?", asked)

    def test_damaged_log_is_set_aside(self):
        pathlib.Path(self.data, "log.db").write_bytes(b"not a database" * 999)
        self.assertGreater(len(self.ask_some()["usage"]), 0)
        self.assertEqual(len([n for n in os.listdir(self.data) if re.match(r"log\.db\.damaged-\d+$", n)]), 1)

    def test_none_kept(self):
        with Served(data=self.data, options=["--set", "request_log_rows=0"]) as s:
            self.assertEqual(s.request("GET", "/usage")[0], 501)
            s.post("/query", {"question": "Anything?"})
        self.assertFalse(os.path.exists(self.data + "/log.db"))


if __name__ == "__main__":
    unittest.main()
