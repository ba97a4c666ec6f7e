"""lore ingest of URLs against servers of our own that redirect, forbid, lie, stall and change: what is asked, what is
stored, what is refused and in which words. Standard library only."""
import gzip
import http.server
import json
import os
import shutil
import tempfile
import threading
import time
import unittest

from served import Served, run

PROXIES = [name + "_proxy" for name in ("http", "https", "all", "no")]
CLEAN = {k: v for k, v in os.environ.items() if k.lower() not in PROXIES}
WORDS = "The {} valve opens at nine bar and closes again at two bar, as the manual of the {} pump says."


def page(name):
    return f"<html><head><title>Page {name}</title></head><body><p>{WORDS.format(name, name)}</p></body></html>".encode()


class Site:
    """pages: path -> (status, headers, body) or a function of the handler; everything asked is in `asked`."""

    def __init__(self):
        self.pages, self.asked, self.lock = {}, [], threading.Lock()
        self.active, self.most = 0, 0
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                site.answer(self)

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # a client that leaves is part of the test

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.at = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        with self.lock:
            self.asked.append((handler.path, dict(handler.headers), time.monotonic()))
            self.active += 1
            self.most = max(self.most, self.active)
        try:
            found = self.pages.get(handler.path, (404, {}, b"no"))
            if callable(found):
                return found(handler)
            self.send(handler, *found)
        finally:
            with self.lock:
                self.active -= 1

    @staticmethod
    def send(handler, status, headers, body):
        handler.send_response(status)
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(body)), **headers}
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def put(self, path, body=None, status=200, **headers):
        body = page(path.strip("/")) if body is None else body
        self.pages[path] = (status, {k.replace("_", "-"): v for k, v in headers.items()}, body)

    def paths(self):
        return [path for path, _, _ in self.asked]

    def sitemap(self, path, *urls, index=False):
        outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
        listed = "".join(f"<{inner}><loc>{url if '://' in url else self.at + url}</loc></{inner}>" for url in urls)
        self.put(path, f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
                       f"{listed}</{outer}>".encode(), Content_Type="application/xml")


class WebTest(unittest.TestCase):
    def setUp(self):
        self.site = Site()
        self.data = tempfile.mkdtemp(prefix="lore-web-")

    def tearDown(self):
        self.site.close()
        shutil.rmtree(self.data, ignore_errors=True)

    def ingest(self, *args, private=True, env=None, settings=()):
        """(counts, {source: message}), with the exit code in the counts."""
        options = [part for one in settings for part in ("--set", one)]
        done = run("--data", self.data, "--json", *options, "ingest", *(["--allow-private"] if private else []),
                   *[self.site.at + a if a.startswith("/") else a for a in args], check=False, env={**CLEAN, **(env or {})})
        counts = json.loads(done.stdout)
        counts["code"] = done.returncode
        return counts, {one["source"].replace(self.site.at, ""): one["message"] for one in counts.get("failures", [])}

    def documents(self):
        listed = json.loads(run("--data", self.data, "--json", "documents", "list", env=CLEAN).stdout)["documents"]
        return {one["source"].replace(self.site.at, ""): one for one in listed}

    def test_pages(self):
        """Content-Type, charset, gzip, a file of another kind; titles, source and url; what cannot be had is named."""
        site = self.site
        site.put("/a")
        site.put("/gbk", "<title>阀门</title><p>打开阀门之前请先关闭电源，然后等待五分钟。</p>".encode("gbk"),
                 Content_Type="text/html; charset=GBK")
        site.put("/packed", gzip.compress(page("packed")), Content_Encoding="gzip")
        site.put("/kb/%E9%87%8D%E7%BD%AE.md?v=1", "# 重置\n\n按住按钮五秒钟，直到指示灯亮起。".encode(), Content_Type="text/plain")
        counts, failures = self.ingest("/a#part", "/gbk", "/packed", "/kb/%E9%87%8D%E7%BD%AE.md?v=1", "/none")
        self.assertEqual((counts["code"], counts["added"], counts["failed"]), (3, 4, 1), failures)
        self.assertIn("status 404", failures["/none"])
        documents = self.documents()
        self.assertEqual(documents["/a"]["url"], site.at + "/a")
        self.assertEqual((documents["/a"]["title"], documents["/a"]["metadata"]["language"]), ("Page a", "en"))
        self.assertEqual((documents["/gbk"]["title"], documents["/gbk"]["metadata"]["language"]), ("阀门", "zh"))
        self.assertEqual(documents["/packed"]["title"], "Page packed")
        self.assertEqual(documents["/kb/%E9%87%8D%E7%BD%AE.md?v=1"]["media"], "text/markdown")
        agents = {headers["User-Agent"] for _, headers, _ in site.asked}
        self.assertTrue(all(agent.startswith("lore/") for agent in agents), agents)
        for _, headers, _ in site.asked:
            self.assertFalse({"Cookie", "Authorization", "Referer"} & set(headers))

    def test_unchanged(self):
        """ETag and Last-Modified go back, 304 is unchanged; other settings fetch anew; a change is taken."""
        site = self.site

        def validated(tag, body):
            def answer(handler):
                same = handler.headers.get("If-None-Match") == tag
                site.send(handler, 304 if same else 200, {"ETag": tag}, b"" if same else body)
            return answer
        site.pages["/tag"] = validated('"one"', page("tag"))

        def dated(handler):
            same = handler.headers.get("If-Modified-Since") == "Tue, 05 Mar 2024 10:00:00 GMT"
            site.send(handler, 304 if same else 200, {"Last-Modified": "Tue, 05 Mar 2024 10:00:00 GMT"},
                      b"" if same else page("date"))
        site.pages["/date"] = dated
        site.put("/plain")
        both = ("/tag", "/date", "/plain")
        self.assertEqual(self.ingest(*both)[0]["added"], 3)
        first = self.documents()
        site.asked.clear()
        self.assertEqual(self.ingest(*both)[0]["unchanged"], 3)
        sent = {path: headers for path, headers, _ in site.asked}
        self.assertEqual(sent["/tag"]["If-None-Match"], '"one"')
        self.assertIn("If-Modified-Since", sent["/date"])
        self.assertNotIn("If-None-Match", sent["/plain"])
        self.assertEqual(self.documents(), first)
        site.asked.clear()  # the page is the same, what is made of it is not
        self.assertEqual(self.ingest("/tag", settings=["chunk_tokens=50"])[0]["replaced"], 1)
        self.assertNotIn("If-None-Match", dict(site.asked[-1][1]))
        site.pages["/tag"] = validated('"two"', page("changed"))
        self.assertEqual(self.ingest("/tag", settings=["chunk_tokens=50"])[0]["replaced"], 1)
        self.assertEqual(self.documents()["/tag"]["title"], "Page changed")

    def test_robots(self):
        """What is forbidden is not asked for; 404 allows, 503 forbids; redirects are asked about anew; Crawl-delay."""
        site, other = self.site, Site()
        try:
            site.put("/robots.txt", b"User-agent: *\nDisallow: /\n\nUser-agent: lore\nDisallow: /secret\n"
                                    b"Allow: /secret/open\nCrawl-delay: 0.3\n", Content_Type="text/plain")
            for path in ("/a", "/b", "/secret/x", "/secret/open"):
                site.put(path)
            site.put("/to", b"", 302, Location="/secret/x")
            site.put("/away", b"", 301, Location=other.at + "/there")
            other.put("/there")
            other.put("/robots.txt", b"User-agent: *\nDisallow: /there\n")
            counts, failures = self.ingest("/a", "/b", "/secret/x", "/secret/open", "/to", "/away")
            self.assertEqual((counts["added"], counts["failed"]), (3, 3), failures)
            self.assertTrue(all("robots.txt" in why and "forbids" in why for why in failures.values()), failures)
            self.assertNotIn("/secret/x", site.paths())
            self.assertEqual(other.paths(), ["/robots.txt"])
            times = [at for path, _, at in site.asked if path != "/robots.txt"]
            self.assertTrue(all(b - a > 0.25 for a, b in zip(times, times[1:])), times)
            other.put("/robots.txt", b"busy", 500)
            counts, failures = self.ingest(other.at + "/there")
            self.assertIn("robots.txt", failures[other.at + "/there"])
            self.assertIn("500", failures[other.at + "/there"])
        finally:
            other.close()

    def test_redirects(self):
        site = self.site
        site.put("/loop", b"", 302, Location="/loop")
        site.put("/one", b"", 301, Location="two")
        site.put("/two", b"", 308, Location=site.at + "/end?x=1")
        site.put("/end?x=1")
        site.put("/file", b"", 302, Location="file:///etc/passwd")
        site.put("/login", b"", 302, Location="http://me:secret@127.0.0.1/")
        site.put("/nowhere", b"", 302)
        counts, failures = self.ingest("/one", "/loop", "/file", "/login", "/nowhere")
        self.assertEqual((counts["added"], counts["failed"]), (1, 4))
        self.assertIn("redirects more than 5 times (limits.fetch_redirects_max)", failures["/loop"])
        self.assertEqual(site.paths().count("/loop"), 6)
        self.assertIn("http or https", failures["/file"])
        self.assertIn("password", failures["/login"])
        self.assertNotIn("secret", json.dumps(failures))
        self.assertIn("no address", failures["/nowhere"])
        self.assertEqual(list(self.documents()), ["/one"])

    def test_private_addresses(self):
        """Loopback in all its spellings, by name, behind a redirect, and behind a proxy, where only the text tells."""
        site = self.site
        site.put("/a")
        hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
        counts, failures = self.ingest(*[f"http://{host}:{site.port}/a" for host in hosts], private=False)
        self.assertEqual((counts["code"], counts["added"]), (3, 0))
        self.assertEqual(site.asked, [])
        for url, why in failures.items():
            self.assertRegex(why, "(loopback|unspecified) address|fetch_private_addresses", url)
        # A proxy may be private; what is asked of it may not.
        site.put("http://docs.example/a")
        site.put("http://docs.example/in", b"", 302, Location="http://169.254.169.254/meta")
        site.put("http://docs.example/home", b"", 302, Location="http://localhost/")
        proxy = {"http_proxy": site.at}
        counts, failures = self.ingest("http://docs.example/a", "http://docs.example/in", "http://docs.example/home",
                                       private=False, env=proxy)
        self.assertEqual((counts["added"], counts["failed"]), (1, 2), failures)
        self.assertIn("link-local", failures["http://docs.example/in"])
        self.assertIn("loopback", failures["http://docs.example/home"])
        self.assertFalse([path for path in site.paths() if "169.254" in path or "localhost" in path])
        self.assertEqual(self.ingest("/a", private=False, settings=["fetch_private_addresses=true"])[0]["added"], 1)

    def test_limits(self):
        """Huge, bombs, lies about lengths, slow, broken off: each an error of its own, and the rest is taken."""
        site = self.site
        site.put("/good")
        site.put("/huge", b"x" * 300_000)
        site.put("/bomb", gzip.compress(b" " * 50_000_000), Content_Encoding="gzip")

        def endless(handler):
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(10_000):
                handler.wfile.write(b"y" * 10_000)
        site.pages["/endless"] = endless

        def broken(handler):
            handler.close_connection = True
            site.send(handler, 200, {"Content-Length": "5000", "Connection": "close"}, page("broken"))
        site.pages["/broken"] = broken

        def slow(handler):
            time.sleep(4)
            handler.close_connection = True
        site.pages["/slow"] = slow
        site.put("/garbled", b"no gzip at all", Content_Encoding="gzip")
        start = time.monotonic()
        counts, failures = self.ingest("/huge", "/bomb", "/endless", "/broken", "/slow", "/garbled", "/good",
                                       settings=["limits.file_bytes_max=200000", "limits.fetch_timeout_ms=1500"])
        self.assertLess(time.monotonic() - start, 15)
        self.assertEqual((counts["added"], counts["failed"]), (1, 6), failures)
        for path in ("/huge", "/bomb", "/endless"):
            self.assertIn("limits.file_bytes_max", failures[path])
        self.assertIn("cannot be fetched", failures["/broken"])
        self.assertIn("limits.fetch_timeout_ms", failures["/slow"])
        self.assertIn("cannot be fetched", failures["/garbled"])

    def test_busy(self):
        site, tries = self.site, []

        def busy(handler):
            tries.append(1)
            if len(tries) == 1:
                return site.send(handler, 503, {"Retry-After": "1"}, b"")
            return site.send(handler, 200, {}, page("busy"))
        site.pages["/busy"] = busy
        site.put("/closed", b"", 429, Retry_After="3600")
        counts, failures = self.ingest("/busy", "/closed")
        self.assertEqual((counts["added"], len(tries)), (1, 2))
        self.assertIn("status 429", failures["/closed"])

    def test_sitemaps(self):
        """An index, a compressed sitemap, pages of several hosts, one listed twice; few requests to a host at once."""
        site, other = self.site, Site()
        try:
            def slowly(name):
                def answer(handler):
                    time.sleep(0.05)
                    site.send(handler, 200, {}, page(name))
                return answer
            for i in range(12):
                site.pages[f"/docs/p{i}"] = slowly(f"p{i}")
            other.put("/far")
            site.sitemap("/docs/index.xml", "/docs/one.xml", "/docs/two.xml.gz", index=True)
            site.sitemap("/docs/one.xml", *[f"/docs/p{i}" for i in range(6)], other.at + "/far", "/docs/p0", "nonsense")
            site.sitemap("/docs/two.xml.gz", *[f"/docs/p{i}" for i in range(5, 12)])
            status, headers, body = site.pages["/docs/two.xml.gz"]
            site.pages["/docs/two.xml.gz"] = (status, {"Content-Type": "application/gzip"}, gzip.compress(body))
            counts, failures = self.ingest("/docs/index.xml")
            self.assertEqual((counts["added"], counts["failed"]), (13, 1), failures)
            self.assertEqual(site.paths().count("/docs/p0"), 1)
            self.assertEqual(site.paths().count("/robots.txt"), 1)
            self.assertLessEqual(site.most, 2)
            # Pruned is what lies in the folder of the sitemap and is not listed any more.
            site.put("/docs/old")
            site.put("/blog")
            self.assertEqual(self.ingest("/docs/old", "/blog")[0]["added"], 2)
            site.sitemap("/docs/one.xml", *[f"/docs/p{i}" for i in range(1, 6)])
            counts, _ = self.ingest("--prune", "/docs/index.xml")
            self.assertEqual((counts["deleted"], counts["failed"]), (2, 0))
            kept = set(self.documents())
            self.assertEqual({"/docs/p0", "/docs/old"} & kept, set())
            self.assertIn("/blog", kept)
            # A part that cannot be read says nothing about its pages.
            site.put("/docs/two.xml.gz", b"", 404)
            counts, failures = self.ingest("--prune", "/docs/index.xml")
            self.assertEqual((counts["deleted"], counts["code"]), (0, 3))
            self.assertIn("404", failures["/docs/two.xml.gz"])
        finally:
            other.close()

    def test_bad_sitemaps(self):
        site = self.site
        site.put("/cut.xml", b"<urlset><url><loc>http://x/", Content_Type="text/xml")
        site.put("/bomb.xml", b'<!DOCTYPE x [<!ENTITY a "aaaa">]><urlset><url><loc>&a;</loc></url></urlset>')
        site.sitemap("/round.xml", "/round.xml", "/page", index=True)
        site.put("/page")
        site.sitemap("/many.xml", *[f"/{i}" for i in range(30)])
        counts, failures = self.ingest("/cut.xml", "/bomb.xml", "/round.xml", settings=["limits.fetch_pages_max=20"])
        self.assertEqual((counts["code"], counts["added"]), (3, 0))
        self.assertIn("line 1", failures["/cut.xml"])
        self.assertIn("entities", failures["/bomb.xml"])
        self.assertIn("is no sitemap", failures["/page"])
        _, failures = self.ingest("/many.xml", settings=["limits.fetch_pages_max=20"])
        self.assertIn("limits.fetch_pages_max", failures["/many.xml"])

    def test_through_a_server(self):
        """The same where a server holds the folder; what it answers from names the URL."""
        site = self.site
        site.put("/a")
        with Served(data=self.data, env=CLEAN) as served:
            counts, failures = self.ingest("/a", "/none")
            self.assertEqual((counts["added"], counts["failed"]), (1, 1), failures)
            self.assertEqual(self.ingest("/a")[0]["unchanged"], 1)
            answer = served.post("/query", {"question": "At how many bar does the valve open?", "stream": False})
            cited = answer["citations"][0]["document_id"]
            self.assertEqual([one["url"] for one in answer["passages"] if one["document_id"] == cited], [site.at + "/a"])


if __name__ == "__main__":
    unittest.main()
