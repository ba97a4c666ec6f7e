"""LoRA adapters of a real server: loading, choosing, replacing and unloading over HTTP and from the command line, bad
folders refused with their reason, and all of it under traffic (LORE_CHURN changes, 24 unless said) without an answer
lost or mixed. The adapters are made here: random, and strong enough that answers differ."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import shutil
import struct
import tempfile
import threading
import time
import unittest

from served import ROOT, Served, run

DECODER = json.loads((ROOT / "weights/decoder/config.json").read_text())
QUESTION = "How long do I hold the button?"


def numbers(seed, count, scale):
    """bf16 as bytes: the upper halves of floats"""
    source = random.Random(seed)
    return b"".join(struct.pack("<f", source.uniform(-scale, scale))[2:] for _ in range(count))


def write_adapter(folder, seed, rank=4, layers=range(2, 12), scale=.4, change=None):
    """A PEFT folder for the default decoder; change(config, tensors) makes it wrong."""
    width, heads = DECODER["hidden_size"], DECODER["num_attention_heads"] * DECODER["head_dim"]
    tensors = {}
    for layer in layers:
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = ([rank, width], numbers(f"{seed} {layer} a", rank * width, scale))
        tensors[f"{stem}.lora_B.weight"] = ([heads, rank], numbers(f"{seed} {layer} b", heads * rank, scale))
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 4 * rank, "target_modules": ["q_proj"],
              "layers_to_transform": list(layers), "layers_pattern": "layers"}
    if change is not None:
        change(config, tensors)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


class Adapters(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="lore-adapters-"))
        document = cls.folder / "button.md"
        document.write_text("# Reset\n\nHold the button for ten seconds to reset the router.\n")
        for name in ["one", "two", "three"]:
            write_adapter(cls.folder / "all" / name, name)
        (cls.folder / "all" / "not-an-adapter").mkdir()
        # Room for two of the three: those under traffic take it from one another.
        cls.served = Served(document, options=["--set", "guard=false", "--set", "refuse_below=0",
                                               "--set", "limits.adapter_bytes_max=200K"])
        cls.served.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.served.__exit__(None, None, None)
        shutil.rmtree(cls.folder, ignore_errors=True)

    def tearDown(self):
        for adapter in self.adapters():
            self.served.request("POST", "/v1/unload_lora_adapter", {"lora_name": adapter["id"]})

    def adapters(self):
        status, reply = self.served.request("GET", "/v1/adapters")
        self.assertEqual(status, 200, reply)
        self.assertEqual(reply["object"], "list")
        return reply["data"]

    def load(self, name, folder=None, expected=200, **more):
        path = folder or self.folder / "all" / name
        body = {"lora_name": name, "lora_path": str(path), **more}
        status, reply = self.served.request("POST", "/v1/load_lora_adapter", body)
        self.assertEqual(status, expected, reply)
        return reply

    def ask(self, adapter=None, expected=200, **more):
        body = {"question": QUESTION, "adapter": adapter, "max_tokens": 8, **more}
        status, reply = self.served.request("POST", "/query", body)
        self.assertEqual(status, expected, reply)
        return reply

    def test_load_choose_and_unload(self):
        base = self.ask()
        self.assertIsNone(base["adapter"])
        refusal = self.load(base["model"], self.folder / "all" / "one", expected=400)
        self.assertIn("the decoder's own name", refusal["error"]["message"])
        self.assertEqual(self.ask("one", 404)["error"]["message"],
                         "adapter: there is no adapter 'one', nor any other")
        self.assertEqual(self.load("one"), "Success: LoRA adapter 'one' added successfully.")
        self.assertIn("is there already", self.load("one", expected=400)["error"]["message"])
        first = self.ask("one")
        self.assertEqual((first["adapter"], first["mode_used"]), ("one", "answer"))
        self.assertNotEqual(first["answer"], base["answer"])
        self.assertEqual(self.ask("one")["answer"], first["answer"])
        self.assertEqual(self.ask()["answer"], base["answer"])
        self.load("two", pinned=True)
        self.assertNotIn(self.ask("two")["answer"], [first["answer"], base["answer"]])
        self.assertIn("there is no adapter 'six'; of 2 that there are:", self.ask("six", 404)["error"]["message"])
        self.ask("six", 404, mode="context")
        listed = {a["id"]: a for a in self.adapters()}
        self.assertEqual(sorted(listed), ["one", "two"])
        self.assertEqual((listed["one"]["state"], listed["one"]["pinned"], listed["two"]["pinned"]),
                         ("device", False, True))
        self.assertEqual((listed["one"]["rank"], listed["one"]["modules"], listed["one"]["error"]), (4, 10, None))
        self.assertGreater(listed["one"]["size_bytes"], 80000)
        self.assertEqual(self.load("one", self.folder / "all/three", load_inplace=True)[:7], "Success")
        third = self.ask("one")
        self.assertNotIn(third["answer"], [first["answer"], base["answer"]])
        self.assertEqual(third["usage"]["cached_tokens"], 0)  # keys and values of another reading
        status, reply = self.served.request("POST", "/v1/unload_lora_adapter", {"lora_name": "one"})
        self.assertEqual((status, reply), (200, "Success: LoRA adapter 'one' removed successfully."))
        self.assertEqual(self.served.request("POST", "/v1/unload_lora_adapter", {"lora_name": "one"})[0], 404)
        self.ask("one", 404)
        status, page = self.served.request("GET", "/metrics")
        self.assertIn('lore_adapters{state="device"} 1', page)
        self.assertIn('lore_adapter_size_bytes{adapter="two",state="device"} ', page)
        self.assertIn("lore_adapter_requests 0", page)

    def test_streams(self):
        self.load("one")
        whole = self.ask("one")
        text = self.ask("one", stream=True)
        done = json.loads(text.split("event: done\ndata: ")[1].split("\n")[0])
        self.assertEqual((done["adapter"], done["answer"]), ("one", whole["answer"]))

    def test_bad_bodies(self):
        for body, param in [({"lora_path": "x"}, "lora_name"), ({"lora_name": "x"}, "lora_path"),
                            ({"lora_name": 1, "lora_path": "x"}, "lora_name"),
                            ({"lora_name": "x", "lora_path": "x", "load_inplace": 3}, "load_inplace")]:
            status, reply = self.served.request("POST", "/v1/load_lora_adapter", body)
            self.assertEqual((status, reply["error"]["param"]), (400, param), reply)
        self.assertEqual(self.served.request("POST", "/v1/load_lora_adapter", "{")[0], 400)
        self.load("a b", self.folder, expected=400)
        self.assertEqual(self.ask("a" * 129, 400)["error"]["param"], "adapter")
        self.load("a", self.folder / "no-such-folder", expected=404)

    def test_bad_folders_are_refused_with_their_reason(self):
        def wrong_rank(config, tensors):
            config["r"] = 8

        def not_finite(config, tensors):
            name, (shape, values) = next(iter(tensors.items()))
            tensors[name] = (shape, b"\xc0\x7f" + values[2:])

        def no_target(config, tensors):
            config["target_modules"] = ["no_such_proj"]

        def dora(config, tensors):
            config["use_dora"] = True

        def missing(config, tensors):
            tensors.popitem()

        def bias(config, tensors):
            config["bias"] = "all"

        def saved(config, tensors):
            config["modules_to_save"] = ["lm_head"]

        self.load("one")
        before = self.ask("one")["answer"]
        for change, word in [(wrong_rank, "lora_"), (not_finite, "lora_A"), (no_target, "target_modules"),
                             (dora, "use_dora"), (missing, "lora_B"), (bias, "bias"), (saved, "modules_to_save")]:
            folder = write_adapter(self.folder / "bad" / change.__name__, "bad", change=change)
            message = self.load("bad", folder, expected=400)["error"]["message"]
            self.assertIn(word, message)
            self.assertIn("'bad'", message)
            self.ask("bad", 404)
            self.load("one", folder, expected=400, load_inplace=True)
            self.assertEqual(self.ask("one")["answer"], before)
        cut = write_adapter(self.folder / "bad" / "cut", "cut") / "adapter_model.safetensors"
        cut.write_bytes(cut.read_bytes()[:-100])
        self.load("bad", cut.parent, expected=400)
        self.assertEqual([a["id"] for a in self.adapters()], ["one"])

    def test_command_line(self):
        data = ["--data", self.served.data]
        self.assertEqual(run(*data, "adapters", "list").stdout, "There are no adapters.\n")
        self.assertEqual(run(*data, "adapters", "add", "one", "all/one", "--pin", cwd=self.folder).stdout, "added one\n")
        self.assertRegex(run(*data, "adapters", "list").stdout, r"^one  device, pinned  0\.\d MB, rank 4  0 requests  \(")
        self.assertEqual(json.loads(run(*data, "adapters", "list", "--json").stdout)["data"][0]["id"], "one")
        self.assertNotEqual(run(*data, "adapters", "add", "one", "all/two", check=False, cwd=self.folder).returncode, 0)
        run(*data, "adapters", "add", "one", "all/two", "--replace", cwd=self.folder)
        self.assertEqual(json.loads(run(*data, "adapters", "remove", "one", "--json").stdout), {"removed": "one"})
        self.assertIn("there is no adapter 'one'", run(*data, "adapters", "remove", "one", check=False).stderr)
        self.assertEqual(run(*data, "adapters", "add", "one", check=False).returncode, 2)

    def test_usage_names_the_adapter(self):
        self.load("three")
        self.ask("of-the-client's-making", 404)
        self.ask("three")
        for _ in range(100):  # the log is written behind the answer
            names = [row["adapter"] for row in self.served.get("/usage")["usage"]]
            if "three" in names:
                self.assertNotIn("of-the-client's-making", names)
                return
            time.sleep(.05)
        self.fail("no usage of the adapter")

    def test_under_traffic(self):
        """Each answer is what its adapter gives alone, whatever is loaded, replaced and unloaded meanwhile."""
        known = {"base": {self.ask()["answer"]}}
        for name in ["one", "two", "three"]:
            self.load(name)
            known[name] = {self.ask(name)["answer"]}
        known["one"] |= known["three"]  # what replaces it and is replaced by it
        stop, wrong, counts = threading.Event(), [], {"answers": 0, "absent": 0}

        def client(number):
            connection = http.client.HTTPConnection(self.served.host, self.served.port, timeout=120)
            choice = random.Random(number)
            while not stop.is_set():
                name = choice.choice(["base", "one", "two", "three"])
                body = {"question": QUESTION, "adapter": None if name == "base" else name, "max_tokens": 8}
                connection.request("POST", "/query", json.dumps(body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                reply = json.loads(response.read())
                if response.status == 404 and name == "two":
                    counts["absent"] += 1
                elif response.status != 200 or reply["answer"] not in known[name]:
                    wrong.append((name, response.status, reply.get("answer", reply)))
                    stop.set()
                else:
                    counts["answers"] += 1
            connection.close()

        def allocations():
            page = self.served.request("GET", "/metrics")[1]
            return int(page.split("\nlore_allocations ")[1].split("\n")[0].split(".")[0])

        before, changes = allocations(), int(os.environ.get("LORE_CHURN", "24"))
        broken = write_adapter(self.folder / "bad" / "traffic", "bad", change=lambda c, t: t.popitem())
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client, number) for number in range(4)]
            try:
                for change in range(changes):
                    seen = counts["answers"]
                    while counts["answers"] < seen + 2 and not stop.is_set():
                        time.sleep(.002)
                    if stop.is_set():
                        break
                    if change % 3 == 0:
                        source = "three" if change % 2 == 0 else "one"
                        self.load("one", self.folder / "all" / source, load_inplace=True)
                    elif change % 3 == 1:
                        status, reply = self.served.request("POST", "/v1/unload_lora_adapter", {"lora_name": "two"})
                        self.assertEqual(status, 200, reply)
                        self.load("two")
                    else:
                        self.load("three", broken, expected=400, load_inplace=True)
            finally:
                stop.set()
            for done in clients:
                done.result()
        self.assertEqual(wrong, [])
        self.assertGreaterEqual(counts["answers"], changes)
        # Caches fill up, once. A change that left anything behind would show in a long run.
        self.assertLess(allocations(), before + 1200 + changes // 2)
        self.assertEqual([a for a in self.adapters() if a["requests"] > 0 or a["leaving"]], [])


class Configured(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lore-adapters-"))
        self.document = self.folder / "button.md"
        self.document.write_text("# Reset\n\nHold the button for ten seconds to reset the router.\n")
        for name in ["one", "two"]:
            write_adapter(self.folder / "all" / name, name)
        write_adapter(self.folder / "all" / "broken", "broken", change=lambda c, t: t.popitem())

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def test_adapters_of_the_start(self):
        """Named ones are read at the start, those of a folder when somebody asks for them."""
        setting = f"adapters=law={self.folder}/all/one,{self.folder}/all"
        with Served(self.document, options=["--set", setting, "--set", "guard=false", "--set", "refuse_below=0",
                                            "--set", "adapters_pinned=law"]) as served:
            def states():
                return {a["id"]: (a["state"], a["pinned"]) for a in served.request("GET", "/v1/adapters")[1]["data"]}
            self.assertEqual(states(), {"law": ("device", True), "one": ("disk", False), "two": ("disk", False),
                                        "broken": ("disk", False)})

            def ask(adapter):
                return served.request("POST", "/query", {"question": QUESTION, "adapter": adapter, "max_tokens": 8})
            law, one = ask("law"), ask("one")
            self.assertEqual((law[0], one[0]), (200, 200))
            self.assertEqual(law[1]["answer"], one[1]["answer"])  # the same folder
            status, reply = ask("broken")
            self.assertEqual(status, 500)
            self.assertIn("lora_B", reply["error"]["message"])
            self.assertIn("'broken'", reply["error"]["message"])
            self.assertEqual(states()["broken"], ("failed", False))
            shutil.rmtree(self.folder / "all" / "two")
            status, reply = ask("two")
            self.assertEqual(status, 404)
            self.assertIn("adapter 'two': ", reply["error"]["message"])
            self.assertEqual(ask(None)[0], 200)

    def test_a_small_budget(self):
        setting = f"adapters={self.folder}/all"
        with Served(self.document, options=["--set", setting, "--set", "guard=false", "--set", "refuse_below=0",
                                            "--set", "limits.adapter_bytes_max=400K"]) as served:
            answers = [served.request("POST", "/query", {"question": QUESTION, "adapter": name, "max_tokens": 4})
                       for name in ["one", "two", "one", "two"]]
            self.assertEqual([status for status, reply in answers], [200] * 4)
            self.assertEqual(answers[0][1]["answer"], answers[2][1]["answer"])
            reply = served.request("GET", "/v1/adapters")[1]
            self.assertLessEqual(reply["device_bytes"], reply["device_bytes_max"])
            self.assertEqual(reply["device_bytes_max"], 400 * 1024)

    def test_without_a_decoder_there_are_none(self):
        with Served(self.document, options=["--set", "decoder=none"]) as served:
            self.assertEqual(served.get("/v1/adapters")["data"], [])
            body = {"lora_name": "one", "lora_path": str(self.folder / "all/one")}
            self.assertEqual(served.request("POST", "/v1/load_lora_adapter", body)[0], 501)
            status, reply = served.request("POST", "/query", {"question": QUESTION, "adapter": "one"})
            self.assertEqual(status, 404)
            self.assertIn("no decoder is loaded", reply["error"]["message"])

    def test_a_start_that_cannot_be(self):
        options = ["--data", str(self.folder / "data")]
        run(*options, "ingest", str(self.document))
        for setting, word in [(f"bad={self.folder}/all/broken", "lora_B"), (f"x={self.folder}/none", "none"),
                              (f"{self.folder}/none", "none"), (f"a b={self.folder}/all/one", "the name of an adapter")]:
            done = run(*options, "serve", "--listen", "127.0.0.1:0", "--adapters", setting, check=False, timeout=60)
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr)
            self.assertIn("adapters:", done.stderr)
        done = run(*options, "serve", "--listen", "127.0.0.1:0", "--adapters", f"a={self.folder}/all/one", "--pin", "b",
                   check=False, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("adapters_pinned: there is no adapter 'b'", done.stderr)

    def test_query_and_list_without_a_server(self):
        data = ["--data", str(self.folder / "data")]
        run(*data, "ingest", str(self.document))
        adapters = ["--adapters", f"law={self.folder}/all/one,{self.folder}/all"]
        listed = run(*data, "adapters", "list", *adapters).stdout
        self.assertEqual(sorted(line.split()[0] for line in listed.splitlines()), ["broken", "law", "one", "two"])
        self.assertIn("no `lore serve` has", run(*data, "adapters", "remove", "law", check=False).stderr)
        reply = json.loads(run(*data, "query", "--json", "--adapter", "law", *adapters, "--max-tokens", "4",
                               QUESTION).stdout)
        self.assertEqual(reply["adapter"], "law")
        done = run(*data, "query", "--adapter", "lw", *adapters, QUESTION, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no adapter 'lw'", done.stderr)


if __name__ == "__main__":
    unittest.main()
