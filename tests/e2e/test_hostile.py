#!/usr/bin/env python3
"""Model folders made to do harm, on the real binary: every one is refused within a second, on one line that says what is wrong and
where, by `lore models info` as by a command that opens the model. Small damages stand in test_faults.py; these are lies about sizes,
numbers out of range, files that are no files, and structures without end. Standard library only."""
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

from served import FAMILIES, ROOT, binary

SLOWNESS = float(os.environ.get("LORE_SLOWNESS", "1"))  # builds with sanitizers set it
GIB = 1 << 30


def read_header(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        return json.loads(file.read(size)), file.read()


def write_weights(path, tensors, data):
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def weights(edit, name="model.safetensors"):
    """The header as `edit` leaves it, the same bytes behind."""
    def change(folder):
        tensors, data = read_header(folder / name)
        made = edit(tensors)
        write_weights(folder / name, tensors if made is None else made, data)
    return change


def tensor(name, **values):
    return weights(lambda tensors: tensors[name].update(values))


def overlap(tensors):
    tensors["model.norm.weight"]["data_offsets"] = list(tensors["model.layers.0.input_layernorm.weight"]["data_offsets"])


def field(key, value, name="config.json"):
    def change(folder):
        path = folder / name
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        config = json.loads(text)
        where = config
        *outer, last = key.split(".")
        for part in outer:
            where = where[part]
        where[last] = value
        path.write_text(json.dumps(config), encoding="utf-8")  # NaN and Infinity as Python writes them
    return change


def number(key, text):
    """A number that json.dumps would not write."""
    def change(folder):
        field(key, "@@")(folder)
        path = folder / "config.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"@@"', text), encoding="utf-8")
    return change


def put(name, data):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
    return change


def sparse(name, size, head=b""):
    def change(folder):
        put(name, head)(folder)
        os.truncate(folder / name, size)
    return change


def special(name, make):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
    return change


def loop(path):
    path.symlink_to(path.name)


def sharded(weight_map):
    """An index in place of the one file."""
    def change(folder):
        (folder / "model.safetensors").rename(folder / "one.safetensors")
        tensors, _ = read_header(folder / "one.safetensors")
        named = {name: "one.safetensors" for name in tensors if name != "__metadata__"}
        made = weight_map(named, folder)
        text = made if isinstance(made, str) else json.dumps({"weight_map": named if made is None else made})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    return change


def shard(name, make=None):
    def weight_map(named, folder):
        named["model.norm.weight"] = name
        if make is not None:
            make(folder / name)
    return sharded(weight_map)


def many_shards(named, folder):
    """The scan for a name that is known already must not be quadratic."""
    names = [f"{i:05}.safetensors" for i in range(4000)]
    keys = {f"t{i}": names[i] for i in range(4000)}
    keys.update({f"u{i}": names[i % 2] for i in range(600_000)})
    return keys


def bpe(**model):
    def change(folder):
        path = folder / "tokenizer.json"
        made = json.loads(path.read_text(encoding="utf-8"))
        made["model"].update(model)
        path.unlink()
        path.write_text(json.dumps(made), encoding="utf-8")
    return change


def tokenizer(**values):
    def change(folder):
        path = folder / "tokenizer.json"
        made = json.loads(path.read_text(encoding="utf-8"))
        made.update(values)
        path.unlink()
        path.write_text(json.dumps(made), encoding="utf-8")
    return change


def hole(folder):
    path = folder / "tokenizer.json"
    made = json.loads(path.read_text(encoding="utf-8"))
    made["model"]["vocab"]["\u0120\u0120"] = 9_999_999
    path.unlink()
    path.write_text(json.dumps(made), encoding="utf-8")


def template(text):
    return put("chat_template.jinja", text.encode())


def quantisation(key, value):
    return field(f"quantization_config.{key}", value)


def order(values):
    """Act-order columns that name groups which do not exist."""
    def change(folder):
        path = folder / "model.safetensors"
        tensors, data = read_header(path)
        begin, end = next(one["data_offsets"] for name, one in tensors.items() if name.endswith("q_proj.g_idx"))
        count = (end - begin) // 4
        write_weights(path, tensors, data[:begin] + struct.pack(f"<{count}i", *values(count)) + data[end:])
    return change


def fill(suffix, byte):
    def change(folder):
        path = folder / "model.safetensors"
        tensors, data = read_header(path)
        begin, end = next(one["data_offsets"] for name, one in tensors.items() if name.endswith(suffix))
        write_weights(path, tensors, data[:begin] + byte * (end - begin) + data[end:])
    return change


CONFIG, WEIGHTS, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
NORM, TABLE = "model.norm.weight", "model.embed_tokens.weight"
NUMBERS = ["num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
           "max_position_embeddings", "head_dim"]

DAMAGES = [  # family, what is done to it, words of the error
    ("llama", sparse(WEIGHTS, 4096, struct.pack("<Q", 1 << 60)), [WEIGHTS, "header of"]),
    ("llama", sparse(WEIGHTS, 4096, struct.pack("<Q", (1 << 64) - 1)), [WEIGHTS, "header of"]),
    ("llama", sparse(WEIGHTS, 3 * GIB, struct.pack("<Q", 2 * GIB)), [WEIGHTS, "header"]),
    ("llama", sparse(WEIGHTS, 0), [WEIGHTS, "only 0 bytes"]),
    ("llama", weights(overlap), [WEIGHTS, "overlap"]),
    ("llama", tensor(NORM, data_offsets=[-64, 64]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, data_offsets=[128, 0]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, data_offsets=[1 << 62, (1 << 62) + 64]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, data_offsets=[0, 1e300]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, data_offsets=[0.5, 128.5]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, shape=[-32]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, shape=[1 << 32, 1 << 32]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, shape=[0]), [WEIGHTS, NORM]),
    ("llama", tensor(NORM, shape=[1] * 4000), [WEIGHTS, NORM]),
    ("llama", tensor(TABLE, shape=[32, 272]), [WEIGHTS, TABLE]),
    ("llama", weights(lambda t: b"[" * 1_000_000), [WEIGHTS, "JSON"]),
    ("llama", weights(lambda t: b'{"a":' * 1_000_000), [WEIGHTS, "JSON"]),
    ("llama", weights(lambda t: {f"x{i}": t[NORM] for i in range(100_000)}), [WEIGHTS]),
    ("llama", special(WEIGHTS, os.mkfifo), [WEIGHTS, "not a regular file"]),
    ("llama", special(WEIGHTS, os.mkdir), [WEIGHTS]),
    ("llama", special(WEIGHTS, loop), [WEIGHTS]),
    ("llama", special(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), [WEIGHTS]),
    ("llama", shard("../one.safetensors"), [INDEX, "../one.safetensors"]),
    ("llama", shard("/etc/passwd"), [INDEX, "/etc/passwd"]),
    ("llama", shard("/dev/zero.safetensors"), [INDEX]),
    ("llama", shard("missing.safetensors"), ["missing.safetensors"]),
    ("llama", shard("pipe.safetensors", os.mkfifo), ["pipe.safetensors"]),
    ("llama", shard("folder.safetensors", os.mkdir), ["folder.safetensors"]),
    ("llama", shard("loop.safetensors", loop), ["loop.safetensors"]),
    ("llama", shard("cut.safetensors", lambda path: path.write_bytes(b"\1")), ["cut.safetensors", "only 1 bytes"]),
    ("llama", shard(""), [INDEX]),
    ("llama", shard(7), [INDEX]),
    ("llama", sharded(lambda named, folder: {}), [INDEX, "weight_map"]),
    ("llama", sharded(many_shards), ["00000.safetensors"]),
    ("llama3", put("model-00002-of-00002.safetensors", b"\x40"), ["model-00002-of-00002.safetensors"]),
    ("llama", sparse(CONFIG, GIB), [CONFIG]),
    ("llama", put(CONFIG, b"{" + b" " * (60 << 20)), [CONFIG]),
    ("llama", put(CONFIG, b"[" * 10_000_000), [CONFIG]),
    ("llama", special(CONFIG, os.mkfifo), [CONFIG]),
    ("llama", special(CONFIG, loop), [CONFIG]),
    ("llama", special(CONFIG, lambda path: path.symlink_to("/dev/zero")), [CONFIG]),
    *[("llama", number(key, text), [CONFIG]) for key in NUMBERS for text in ["NaN", "1e999"]],
    *[("llama", number(key, text), [CONFIG, key]) for key in NUMBERS
      for text in ["-1", "0", "2147483648", "9223372036854775808", "1.5", "[1]"]],
    *[("llama", field("rms_norm_eps", value), [CONFIG, "rms_norm_eps"]) for value in [-1, 0, 1e30, "x"]],
    *[("llama", field("rope_parameters.rope_theta", value), [CONFIG, "rope_theta"]) for value in [-1, 0, 1e300, []]],
    ("llama", field("rope_parameters.rope_type", "spiral"), [CONFIG, "spiral"]),
    ("llama-linear", field("rope_parameters.factor", 0), [CONFIG, "factor"]),
    ("llama-yarn", field("rope_parameters.original_max_position_embeddings", -5), [CONFIG, "original_max_position_embeddings"]),
    ("phi3-long", field("rope_parameters.long_factor", [0, 0, 0, 0]), [CONFIG, "long_factor"]),
    ("phi3-long", field("rope_parameters.short_factor", [1] * 100_000), [CONFIG, "short_factor"]),
    ("mistral", field("sliding_window", -3), [CONFIG, "sliding_window"]),
    ("llama", field("intermediate_size", 63), [WEIGHTS, "must be [63, 32]"]),
    ("llama", field("num_attention_heads", 3), [CONFIG, "heads"]),
    ("llama", field("tie_word_embeddings", "yes"), [CONFIG, "tie_word_embeddings"]),
    ("llama3", field("tie_word_embeddings", False), ["lm_head.weight"]),
    ("llama", field("eos_token_id", list(range(100_000))), [CONFIG, "eos_token_id"]),
    ("llama", field("eos_token_id", -1), [CONFIG, "eos_token_id"]),
    ("llama", field("temperature", -1, "generation_config.json"), ["generation_config.json", "temperature"]),
    ("llama", field("repetition_penalty", 0, "generation_config.json"), ["generation_config.json", "repetition_penalty"]),
    ("llama", field("eos_token_id", [1 << 40], "generation_config.json"), ["generation_config.json", "eos_token_id"]),
    ("quant-gptq", quantisation("group_size", 0), [CONFIG, "group_size"]),
    ("quant-gptq", quantisation("group_size", 1 << 40), [CONFIG, "group_size"]),
    ("quant-gptq", quantisation("bits", 3), [CONFIG, "bits"]),
    ("quant-gptq", quantisation("bits", -4), [CONFIG, "bits"]),
    ("quant-awq", quantisation("group_size", 7), [WEIGHTS, "group_size"]),
    ("quant-gptq", quantisation("quant_method", "magic"), [CONFIG, "magic"]),
    ("quant-awq", quantisation("group_size", -7), [CONFIG, "group_size"]),
    ("quant-int4", quantisation("config_groups.group_0.weights.group_size", 0), [CONFIG, "group_size"]),
    ("quant-int4", quantisation("config_groups.group_0.weights.num_bits", 5), [CONFIG, "num_bits"]),
    ("quant-gptq-order", order(lambda count: [count] * count), [WEIGHTS, "g_idx"]),
    ("quant-gptq-order", order(lambda count: [-1] + [0] * (count - 1)), [WEIGHTS, "g_idx"]),
    ("quant-gptq-order", order(lambda count: [-(1 << 31)] * count), [WEIGHTS, "g_idx"]),
    ("quant-gptq", fill("q_proj.scales", b"\x7e"), [WEIGHTS, "scales"]),
    ("quant-int8", fill("q_proj.weight_scale", b"\xff"), [WEIGHTS, "weight_scale"]),
    ("llama", bpe(merges=["a b", "ab a", "b ab"] * 3), [TOKENIZER]),
    ("llama", bpe(merges=[["ab", "ab"], ["abab", "abab"]]), [TOKENIZER]),
    ("llama", bpe(merges=["x"]), [TOKENIZER]),
    ("llama", bpe(vocab={"a": 0, "b": 0}), [TOKENIZER]),
    ("llama", bpe(vocab={"a": -1}), [TOKENIZER]),
    ("llama", bpe(vocab={"a": 1e300}), [TOKENIZER]),
    ("llama", hole, [TOKENIZER]),
    ("llama", tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 100_000}, "behavior": "Isolated", "invert": False}),
     [TOKENIZER]),
    ("llama", sparse(TOKENIZER, GIB), [TOKENIZER]),
    ("llama", special(TOKENIZER, os.mkfifo), [TOKENIZER]),
]
TEMPLATES = [  # read where a conversation is, not by `models info`
    ("{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}", []),
    ("{% for m in messages %}" * 5000, []),
    ("{{ " + "(" * 100_000, []),
    ("{% set x = 'a' * 9999999999 %}{{ x }}", []),
    ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", []),
]


class HostileTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="lore-hostile-")
        self.root = pathlib.Path(self.temporary.name)

    def tearDown(self):
        self.temporary.cleanup()

    def folder(self, family, index, change):
        """A copy, links and all made real."""
        folder = self.root / f"{family}-{index}"
        shutil.copytree(FAMILIES / family, folder, ignore=shutil.ignore_patterns("expected"))
        change(folder)
        return folder

    def refused(self, folder, words, *command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([binary(), "--data", str(self.root / "data"), *command], capture_output=True, text=True, cwd=ROOT,
                              timeout=10 * SLOWNESS, stdin=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # whatever else the machine does
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertLess(len(done.stderr), 1500)
        for word in [folder.name, *words]:
            self.assertIn(word, done.stderr)
        self.assertLess(took, SLOWNESS, done.stderr)

    def test_folders(self):
        (self.root / "note.md").write_text("# Herons\n\nThe heron nests in pines.\n", encoding="utf-8")
        subprocess.run([binary(), "--data", str(self.root / "data"), "ingest", str(self.root / "note.md")], check=True, cwd=ROOT,
                       capture_output=True)
        for index, (family, change, words) in enumerate(DAMAGES):
            with self.subTest(index=index, family=family, words=words):
                folder = self.folder(family, index, change)
                try:
                    self.refused(folder, words, "models", "info", "--dir", str(folder))
                    self.refused(folder, words, "--set", f"decoder={folder}", "query", "Where does the heron nest?")
                finally:
                    shutil.rmtree(folder)

    def test_the_folders_themselves_are_good(self):
        """Or everything above would be refused for another reason."""
        for family in sorted({family for family, _, _ in DAMAGES}):
            folder = self.folder(family, "good", lambda folder: None)
            subprocess.run([binary(), "models", "info", "--dir", str(folder)], check=True, cwd=ROOT, capture_output=True)

    def test_templates(self):
        for index, (text, words) in enumerate(TEMPLATES):
            with self.subTest(template=text[:60]):
                folder = self.folder("llama", f"template{index}", template(text))
                (self.root / "note.md").write_text("# Herons\n\nThe heron nests in pines.\n", encoding="utf-8")
                subprocess.run([binary(), "--data", str(self.root / "data"), "ingest", str(self.root / "note.md")], check=True,
                               cwd=ROOT, capture_output=True)
                self.refused(folder, words, "--set", f"decoder={folder}", "query", "Where does the heron nest?")


if __name__ == "__main__":
    unittest.main()
