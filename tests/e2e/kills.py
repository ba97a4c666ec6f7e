"""kill -9 at random points of the real program: ingest, delete, publish, compaction, rebuild, a deleted collection, backup, restore,
repair, and a serving process that several clients write to.

One data folder lives through all of it. Beside it stands what it must hold: for each document the version that was acknowledged
last and those that were under way when the process died. After each kill tests/fault/verify_index opens the folder as the next
writer would (within a second), checks that tables, full-text index, vectors and files agree, and lists the documents; lore fsck must
find nothing either. A kill comes
after a random time, or exactly before the N-th call of a kind (preload.c). Everything depends on the seed, but for the threads."""
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time

from served import ROOT, binary

KINDS = ["open", "write", "sync", "rename", "truncate", "remove", "map", "thread"]
SHELVES, LINES = 24, 1300


def build_preload(folder):
    """preload.c as a library, or None: no compiler, or a program with a sanitizer, which wants to be loaded first itself."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None or "LORE_SLOWNESS" in os.environ:
        return None
    library = pathlib.Path(folder) / "preload.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", f"-I{ROOT}", "-o", str(library),
                    str(ROOT / "tests" / "e2e" / "preload.c")], check=True)
    return str(library)


def verify(data):
    """What verify_index says of the folder: {"open_ms", "documents"}. Fails where anything is wrong."""
    done = subprocess.run([str(pathlib.Path(binary()).parent / "tests" / "verify_index"), str(data)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{data} is not whole:\n{done.stderr}")
    return json.loads(done.stdout)


def fsck(data, *flags):
    """What `lore fsck` finds."""
    done = subprocess.run([binary(), "--data", str(data), "--json", "fsck", *flags], capture_output=True, text=True)
    return json.loads(done.stdout)["findings"]


def note(i, version):
    words = f"The keeper of shelf {i} is called Person{i}v{version}. It holds {i * 7} books about rivers. "
    return f"# Note {i} version {version}\n\n" + words * (1 + (i + version) % 4) + "\n"


class Kills:
    """with Kills(folder, seed) as k: k.run(kills); k.summary"""

    def __init__(self, folder, seed):
        self.chance = random.Random(seed)
        self.folder = pathlib.Path(folder)
        self.data, self.docs = str(self.folder / "data"), self.folder / "docs"
        self.docs.mkdir()
        self.preload = build_preload(folder)
        self.lines = self.write_lines()
        self.sure = {}    # id: version or None
        self.maybe = {}   # id: versions that may be there instead
        self.version = 0
        self.backed_up = {}  # what the backup holds
        self.files = {}   # shelf: version of the file
        self.seconds = {}  # of an undisturbed run of each kind
        self.calls = {}
        self.summary = {"kills": 0, "too late": 0, "slowest open ms": 0, "slowest open CPU ms": 0}

    def write_lines(self):
        """More short documents than stay unpublished, as one file: reading it in is followed by a publication."""
        path = self.folder / "lines" / "lines.jsonl"
        path.parent.mkdir()
        with open(path, "w", encoding="utf-8") as out:
            for i in range(LINES):
                out.write(json.dumps({"id": f"line{i}", "title": "version 0", "text": f"Line {i} of many."}) + "\n")
        return path

    # ---- running ----

    def start(self, *args, fault=None, counts=None):
        env = dict(os.environ)
        if self.preload is not None and (fault or counts):
            env.update({"LD_PRELOAD": self.preload, **({"LORE_FAULT": fault} if fault else {}),
                        **({"LORE_FAULT_COUNTS": counts} if counts else {})})
        return subprocess.Popen([binary(), "--data", self.data, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=env)

    def measure(self, kind, args):
        """Seconds and calls of one run that nobody kills."""
        counts = str(self.folder / "counts")
        begun = time.monotonic()
        process = self.start(*args, counts=counts)
        _, err = process.communicate(timeout=300)
        if process.returncode != 0:
            raise AssertionError(f"{args}: {err.decode()}")
        self.seconds[kind] = time.monotonic() - begun
        self.calls[kind] = {}
        if self.preload is not None:
            for line in pathlib.Path(counts).read_text(encoding="utf-8").splitlines():
                name, count = line.split()
                self.calls[kind][name] = int(count)

    def kill_once(self, kind, args):
        """True: it died at work. False: it was done before, and what it did is acknowledged."""
        if kind not in self.seconds:
            self.measure(kind, args)
            return False
        calls = [name for name in KINDS if self.calls[kind].get(name)]
        if calls and self.chance.random() < 0.6:
            name = self.chance.choice(calls + ["write", "sync"] * 2)
            process = self.start(*args, fault=f"{name}:{self.chance.randint(1, max(1, self.calls[kind].get(name, 1)))}:kill")
            _, err = process.communicate(timeout=300)
        else:
            process = self.start(*args)
            time.sleep(self.chance.uniform(0.02, 1.1) * self.seconds[kind])
            process.kill()
            _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            return False
        if process.returncode != -9:
            raise AssertionError(f"{kind} gave {process.returncode}: {err.decode()}")
        return True

    # ---- what is expected ----

    def check(self, happened):
        found = verify(self.data)
        problems = fsck(self.data)
        assert not problems, f"after {happened}: {problems}"
        for key, value in [("slowest open ms", found["open_ms"]), ("slowest open CPU ms", found["open_cpu_ms"])]:
            self.summary[key] = max(self.summary[key], value)
        versions = {}
        for one in found["documents"]:
            key = (one["collection"], one["id"])
            assert key not in versions, f"{key} is there twice"
            versions[key] = int(re.search(r"version (\d+)", one["title"]).group(1))
        for key in set(versions) | set(self.sure) | set(self.maybe):
            wanted, also, have = self.sure.get(key), self.maybe.get(key, set()), versions.get(key)
            assert have == wanted or have in also, f"after {happened}: {key} has version {have}, not {wanted} (or {also})"
        self.sure, self.maybe = versions, {}
        # By the clock it is the same on a machine that does nothing else; these runs often share one.
        if found["open_cpu_ms"] > 1000 * float(os.environ.get("LORE_SLOWNESS", "1")):
            raise AssertionError(f"opening took {found['open_cpu_ms']} ms of a processor after {happened}")

    def settle(self, was_killed, changes):
        """changes: {key: the versions on the way, the last one in the end}."""
        for key, versions in changes.items():
            if was_killed:
                self.maybe.setdefault(key, set()).update(versions)
            else:
                self.sure[key] = versions[-1]

    # ---- the kinds ----

    def ingest(self):
        """Some files are new or changed; those that are gone are pruned."""
        self.version += 1
        for i in range(SHELVES):
            if self.chance.random() < 0.5 or i not in self.files:
                self.files[i] = self.version
                (self.docs / f"{i}.md").write_text(note(i, self.version), encoding="utf-8")
        gone = self.chance.choice(sorted(self.files))
        self.files.pop(gone)
        (self.docs / f"{gone}.md").unlink()
        changes = {("default", self.id_of(i)): [version] for i, version in self.files.items()}
        changes[("default", self.id_of(gone))] = [None]
        every = self.chance.choice([1, 4, 16])
        killed = self.kill_once("ingest", ["--set", f"commit_documents={every}", "ingest", "--prune", str(self.docs)])
        self.settle(killed, changes)
        return killed

    def id_of(self, i):
        return self.ids[i]

    def learn_ids(self):
        """The ids that documents of a folder are given: an undisturbed run tells."""
        self.version += 1
        for i in range(SHELVES):
            self.files[i] = self.version
            (self.docs / f"{i}.md").write_text(note(i, self.version), encoding="utf-8")
        self.measure("ingest", ["ingest", str(self.docs)])
        self.ids = {}
        for one in verify(self.data)["documents"]:
            self.ids[int(re.search(r"Note (\d+) ", one["title"]).group(1))] = one["id"]
            self.sure[("default", one["id"])] = self.version

    def delete(self):
        there = sorted(key[1] for key, version in self.sure.items() if version is not None and key[0] == "default")
        chosen = self.chance.sample(there, min(len(there), 6))
        if not chosen:
            return self.ingest()
        killed = self.kill_once("delete", ["documents", "delete", *chosen])
        self.settle(killed, {("default", one): [None] for one in chosen})
        return killed

    def on_copy(self, kind, prepare, args, changes):
        """One command on a copy of a folder with a collection that has just outgrown what stays unpublished, after prepare(); embedding
        its documents once is enough."""
        mine, self.data = self.data, str(self.folder / "copy")
        pristine = self.folder / "pristine"
        if not pristine.exists():
            whole = ["--set", "commit_documents=4096", "--set", "commit_ms=60000"]  # one commit, and then a publication
            process = self.start(*whole, "ingest", "-c", "lines", str(self.lines.parent), fault="rename:1:kill" if self.preload else None)
            process.communicate(timeout=300)
            verify(self.data) if self.preload is None else None
            shutil.copytree(self.data, pristine)
            shutil.rmtree(self.data)
        shutil.copytree(pristine, self.data)
        outer, self.sure, self.maybe = (self.sure, self.maybe), {("lines", f"line{i}"): 0 for i in range(LINES)}, {}
        prepare()
        killed = self.kill_once(kind, args)
        self.settle(killed, changes)
        if kind == "repair" and killed:
            fsck(self.data, "--repair")  # what was not mended yet
        self.check(kind)
        shutil.rmtree(self.data)
        (self.sure, self.maybe), self.data = outer, mine
        return killed

    def publish(self):
        """The next writer folds the tail into a file, and dies meanwhile."""
        return self.on_copy("publish", lambda: None, ["documents", "delete", "-c", "lines", "line7"], {("lines", "line7"): [None]})

    def damage(self):
        verify(self.data)
        for path in pathlib.Path(self.data).glob("vec-*"):
            os.truncate(path, path.stat().st_size // 2)

    def rebuild(self):
        """Files are damaged: the next writer makes them anew."""
        return self.on_copy("rebuild", self.damage, ["documents", "delete", "-c", "lines", "line7"], {("lines", "line7"): [None]})

    def compaction(self):
        """A quarter of the collection goes, more than a file may hold of dead rows: it is written anew."""
        gone = self.chance.sample(range(LINES), LINES // 4)
        lines = self.lines.read_text(encoding="utf-8").splitlines()

        def prepare():
            verify(self.data)
            self.lines.write_text("".join(line + "\n" for i, line in enumerate(lines) if i not in set(gone)), encoding="utf-8")
        try:
            return self.on_copy("compaction", prepare, ["ingest", "--prune", "-c", "lines", str(self.lines.parent)],
                                {("lines", f"line{i}"): [None] for i in gone})
        finally:
            self.lines.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def drop(self):
        """A whole collection goes, or stays."""
        return self.on_copy("drop", lambda: None, ["collections", "delete", "lines"], {("lines", f"line{i}"): [None] for i in range(LINES)})

    def repair(self):
        """Rows and files are damaged, and the one who mends them dies: whoever comes next mends the rest, and no document is lost."""
        def prepare():
            self.damage()
            with sqlite3.connect(self.data + "/lore.db") as db:
                db.execute("update collections set documents=7")
                db.execute("insert into vectors select 99999999, collection, data from vectors where chunk=1")
                db.execute("update meta set value=3 where key='next_chunk'")
        return self.on_copy("repair", prepare, ["fsck", "--repair"], {})

    def backup(self):
        """The folder stays as it is, and so does the backup of that name, until there is a whole new one."""
        file, restored = self.folder / "index.backup", self.folder / "restored"
        before = dict(self.backed_up)
        killed = self.kill_once("backup", ["backup", str(file)])
        if not killed:
            before = dict(self.sure)
        if file.exists():
            subprocess.run([binary(), "--data", str(restored), "restore", str(file)], check=True, capture_output=True)
            found = {(one["collection"], one["id"]) for one in verify(restored)["documents"]}
            problems = fsck(restored)
            shutil.rmtree(restored)
            assert not problems, problems
            now = {key for key, version in self.sure.items() if version is not None}
            then = {key for key, version in before.items() if version is not None}
            assert found == now or found == then, f"a backup of another moment: {found ^ now}"
            self.backed_up = dict(self.sure) if found == now else before
        else:
            assert not before, "the last backup is gone"
        return killed

    def restore(self):
        """A folder without an index, or with all of it."""
        file, mine = self.folder / "index.backup", self.data
        if not file.exists():
            return self.backup()
        self.data = str(self.folder / "restored")
        killed = self.kill_once("restore", ["restore", str(file)])
        if not killed or os.path.exists(self.data + "/lore.db"):
            found = {(one["collection"], one["id"]) for one in verify(self.data)["documents"]}
            problems = fsck(self.data)
            assert not problems, problems
            assert found == {key for key, version in self.backed_up.items() if version is not None}
        if os.path.exists(self.data):
            shutil.rmtree(self.data)
        self.data = mine
        return killed

    def serve(self):
        """Three clients put and delete, each its own documents, until the process is gone."""
        process = self.start("serve", "--listen", "127.0.0.1:0")
        port = None
        for line in process.stdout:
            found = re.search(rb"http://127.0.0.1:(\d+)", line)
            if found:
                port = int(found.group(1))
                break
        assert port is not None, process.stderr.read().decode()
        begun = {}
        clients = [threading.Thread(target=self.client, args=(port, i, self.chance.randrange(10**9), begun)) for i in range(3)]
        for client in clients:
            client.start()
        time.sleep(self.chance.uniform(0.05, 0.6))
        process.kill()
        for client in clients:
            client.join(60)
        process.communicate(timeout=60)
        for key, version in begun.items():
            self.maybe.setdefault(key, set()).add(version)
        return True

    def client(self, port, number, seed, begun):
        chance = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        version = 0
        try:
            while True:
                version += 1
                name = f"client{number}-{chance.randrange(8)}"
                path, key = f"/collections/default/documents/{name}", ("default", name)
                is_delete = chance.random() < 0.3
                begun[key] = None if is_delete else self.version * 1000 + version
                if is_delete:
                    connection.request("DELETE", path)
                else:
                    connection.request("PUT", path, json.dumps({"markdown": note(number, begun[key])}))
                reply = connection.getresponse()
                reply.read()
                assert reply.status in (200, 201, 204, 404), reply.status
                self.sure[key] = begun.pop(key)
        except (OSError, http.client.HTTPException):
            pass
        connection.close()

    def run(self, kills):
        self.learn_ids()
        self.check("the first run")
        kinds = ["ingest", "ingest", "delete", "publish", "rebuild", "compaction", "drop", "repair", "backup", "restore", "serve", "serve"]
        while self.summary["kills"] < kills:
            kind = self.chance.choice(kinds)
            self.version += 1
            killed = getattr(self, kind)()
            self.check(kind)
            self.summary["kills"] += killed
            self.summary["too late"] += not killed
            self.summary[kind] = self.summary.get(kind, 0) + killed
        return self.summary
