#!/usr/bin/env python3
"""Hundreds of clients stream answers for minutes, and a tenth of them leave at random: soak_clients.py [SECONDS [CLIENTS [SEED]]].

Each of CLIENTS asks the questions of corpora/qa.jsonl one after another, on new and on kept connections. A tenth of the questions is
given up: closed or reset before, during or right after the answer begins, or half-closed, which must still be answered. Every reply is
a whole stream, or 429 or 503 with Retry-After. Memory is flat once the pool of everything is warm, and after the last client has left
threads, descriptors, pages, connections and allocations are what they were. Standard library only; the binary is $LORE_BINARY."""
import asyncio
import json
import os
import pathlib
import random
import re
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from served import ROOT, Served  # noqa: E402

SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))
LEAVING = 0.1
WARM_SHARE = 0.35  # of the time: by then every buffer has had its largest answer
GROWTH_MAX = 16 * 2**20
WATCHED = ("lore_threads", "process_open_fds", "lore_engine_pages_free", "lore_connections_open", "lore_requests_active", "lore_engine_running",
           "lore_engine_waiting")
SLACK = {"process_open_fds": 24}  # readers of the index are opened when more are needed at one time than ever before, and kept


class Client:
    def __init__(self, soak, seed):
        self.soak, self.random = soak, random.Random(seed)
        self.reader = self.writer = None

    def close(self, hard=False):
        if self.writer is not None:
            if hard:  # reset instead of a farewell
                raw = self.writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.close()
        self.reader = self.writer = None

    async def read_chunks(self, most=None):
        """The body of a chunked reply; most: chunks after which to stop."""
        body, count = b"", 0
        while most is None or count < most:
            size = int(await self.reader.readline(), 16)
            piece = await self.reader.readexactly(size + 2)
            if size == 0:
                return body
            body += piece[:-2]
            count += 1
        return body

    async def ask(self):
        question = self.random.choice(self.soak.questions)
        body = json.dumps({"question": question, "stream": True, "max_tokens": 64}).encode()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.soak.served.host, self.soak.served.port)
        self.writer.write(b"POST /query HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        way = self.random.choice(["at once", "soon", "in the middle", "half-closed"]) if self.random.random() < LEAVING else "stays"
        if way == "at once":
            await self.writer.drain()
            return self.close(hard=self.random.random() < 0.5)
        if way == "soon":
            await asyncio.sleep(self.random.uniform(0, 2))
            return self.close(hard=self.random.random() < 0.5)
        if way == "half-closed":
            self.writer.write_eof()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ")[1])
        self.soak.count(status)
        if status != 200:
            assert status in (429, 503) and "retry-after: 1" in head, head
            size = int(re.search(r"content-length: (\d+)", head).group(1))
            json.loads(await self.reader.readexactly(size))["error"]
            if "connection: close" in head or way == "half-closed":
                self.close()
            await asyncio.sleep(self.random.uniform(0.5, 1.5))
            return None
        if way == "in the middle":
            await self.read_chunks(self.random.randint(0, 3))
            return self.close(hard=self.random.random() < 0.5)
        stream = await self.read_chunks()
        last = stream.rstrip(b"\n").rpartition(b"\n\n")[2]
        assert last.startswith((b"event: done\n", b"event: error\n")) and stream.endswith(b"\n\n"), stream[-300:]
        if last.startswith(b"event: error"):
            assert json.loads(last.partition(b"data: ")[2])["error"]["type"] in ("rate_limit_error", "unavailable_error", "timeout_error"), last
            self.soak.count("error event")
        else:
            self.soak.count("answered")
        if way == "half-closed" or "connection: close" in head or self.random.random() < 0.3:
            self.close()

    async def run(self):
        while time.monotonic() < self.soak.end:
            await self.ask()
        self.close()


class Soak:
    def __init__(self, served, seconds, clients, seed):
        self.served, self.clients, self.seed = served, clients, seed
        lines = (ROOT / "corpora" / "qa.jsonl").read_text(encoding="utf-8").splitlines()
        self.questions = [json.loads(line)["question"] for line in lines]
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.counts, self.samples = {}, []

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    async def metrics(self):
        reader, writer = await asyncio.open_connection(self.served.host, self.served.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        rows = [line.rsplit(" ", 1) for line in text.partition("\r\n\r\n")[2].splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    async def watch(self):
        while time.monotonic() < self.end:
            now = await self.metrics()
            now["at"] = time.monotonic() - self.begun
            self.samples.append(now)
            if len(self.samples) % 6 == 1:
                shown = {name.replace("lore_", "").replace("process_", ""): int(now[name]) for name in WATCHED + ("lore_allocations",)}
                print(f"{now['at']:4.0f} s  {now['process_resident_memory_bytes'] / 2**20:.1f} MiB  {shown}  {self.counts}", flush=True)
            await asyncio.sleep(5)

    async def settle(self, wanted=None):
        """Metrics when nothing is under way and, if wanted is given, the counts are what they were then."""
        end = time.monotonic() + 60 * SLOWNESS
        while True:
            now = await self.metrics()
            is_quiet = now["lore_requests_active"] == 1 and now["lore_connections_open"] == 1 and now["lore_engine_running"] == 0
            same = wanted is None or all(0 <= now[name] - wanted[name] <= SLACK.get(name, 0) for name in WATCHED)
            if is_quiet and same:
                return now
            assert time.monotonic() < end, {name: (now[name], wanted and wanted[name]) for name in WATCHED}
            await asyncio.sleep(0.5)

    async def round(self, seconds):
        self.end = time.monotonic() + seconds
        clients = [Client(self, self.seed * 1000 + i).run() for i in range(self.clients)]
        await asyncio.gather(self.watch(), *clients)

    async def ask_alone(self, count):
        """Allocations that the requests of a single client leave: one reader of the index, long warm, serves them all."""
        client, left = Client(self, self.seed), 0
        for asked in (50, count):
            before = await self.settle()
            for _ in range(asked):
                await client.ask()
            client.close()
            left = (await self.settle())["lore_allocations"] - before["lore_allocations"]
        return left

    async def run(self, seconds):
        await self.round(seconds * WARM_SHARE)  # threads' stacks, readers of the index, heaps: all that is kept
        warm = await self.settle()
        self.samples.clear()
        await self.round(seconds * (1 - WARM_SHARE))
        after = await self.settle(warm)
        half = len(self.samples) // 2
        early, late = (max(one["process_resident_memory_bytes"] for one in part) for part in (self.samples[:half], self.samples[half:]))
        grown = after["process_resident_memory_bytes"] - warm["process_resident_memory_bytes"]
        print(json.dumps({"seconds": seconds, "clients": self.clients, "seed": self.seed, "counts": {str(k): v for k, v in self.counts.items()},
                          "rss_mib": {"warm": warm["process_resident_memory_bytes"] / 2**20, "peak, first half": early / 2**20,
                                      "peak, second half": late / 2**20, "after": after["process_resident_memory_bytes"] / 2**20},
                          "allocations": [warm["lore_allocations"], after["lore_allocations"]],
                          "threads": after["lore_threads"], "descriptors": after["process_open_fds"],
                          "pages_free": [after["lore_engine_pages_free"], after["lore_engine_pages_total"]]}), flush=True)
        assert after["lore_engine_pages_free"] == after["lore_engine_pages_total"]
        # Each reader of the index goes on filling its page cache, a block a page: thousands in all, but less than a leak of one a reply.
        assert abs(after["lore_allocations"] - warm["lore_allocations"]) < max(200, self.counts.get("answered", 0) * 0.75), "memory is lost"
        left = await self.ask_alone(300)
        print(json.dumps({"allocations left by 300 requests of one client": left}), flush=True)
        assert left < 60, "memory is lost by each reply"
        assert self.counts.get("answered", 0) > self.clients / 2, "too little was answered to show anything"
        if SLOWNESS == 1:  # sanitizers keep what is freed
            assert late - early < GROWTH_MAX and grown < GROWTH_MAX, "memory grows"


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 10**6
    print(f"seed {seed}", flush=True)
    options = ["--set", f"limits.connections_max={clients + 64}", "--set", f"limits.connections_per_ip_max={clients + 64}"]
    corpus = ROOT / "corpora" / "help" / ("" if SLOWNESS == 1 else "en/community")  # sanitizers take minutes to ingest all
    with Served(corpus, options=options) as served:
        asyncio.run(Soak(served, seconds, clients, seed).run(seconds))
        served.process.terminate()
        out, err = served.process.communicate(timeout=60 * SLOWNESS)
        assert served.process.returncode == 0 and "Sanitizer" not in err, (served.process.returncode, out, err)
    print("sound")


if __name__ == "__main__":
    main()
