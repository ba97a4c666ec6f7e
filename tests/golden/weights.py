#!/usr/bin/env python3
"""Weights of the tiny models of families/: they are not stored, but made from tensors.json beside each config.json.

    python3 weights.py FOLDER        (the build does so, for build/tests/families)

FOLDER, which is not there yet, becomes a copy of families/ in which tensors.json has become
model.safetensors, or the files that model.safetensors.index.json names. Standard library only, and the same
bytes everywhere: values come from SHAKE-128 of the seed and the tensor's name, by additions, multiplications
and roots of doubles alone.

tensors.json is {"seed": TEXT, "tensors": [[NAME, TYPE, SHAPE, HOW, PARAMETERS ...], ...]}. A name with {0..2}
stands for three tensors. HOW:

    normal MEAN DEVIATION    the sum of four uniform numbers, so at most 3.5 deviations away
    uniform LOW HIGH         LOW <= number < HIGH
    integers LOW HIGH        HIGH among them
    nibbles LOW HIGH         eight such integers, four bits each, to a number of 32 bits
    groups SIZE              0 so many times, 1 so many times, ...
    shuffled SIZE            the same in another order
    values V ...             these

make_families.py and make_encoders.py write tensors.json (describe()) and compute what the tests expect from
the weights that come of it.
"""

import array
import glob
import hashlib
import json
import math
import os
import re
import shutil
import struct
import sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families")
DESCRIPTION = "tensors.json"
FORMATS = {"F32": "f", "F16": "e", "BF16": "H", "I8": "b", "I32": "I", "I64": "q"}


def words(key, count):
    """Random numbers of 16 bits."""
    made = array.array("H", hashlib.shake_128(key.encode()).digest(2 * count))
    if sys.byteorder == "big":
        made.byteswap()
    return made


def normal(key, count, mean, deviation):
    scale = deviation * math.sqrt(3) / 65536
    return [mean + scale * (sum(four) - 2 * 65535) for four in zip(*[iter(words(key, 4 * count))] * 4)]


def uniform(key, count, low, high):
    return [low + (high - low) * word / 65536 for word in words(key, count)]


def integers(key, count, low, high):
    return [low + (word * (high - low + 1) >> 16) for word in words(key, count)]


def nibbles(key, count, low, high):
    return [sum(value << 4 * i for i, value in enumerate(eight)) for eight in zip(*[iter(integers(key, 8 * count, low, high))] * 8)]


def groups(_, count, size):
    return [i // size for i in range(count)]


def shuffled(key, count, size):
    random = words(key, count)
    return [i // size for i in sorted(range(count), key=lambda i: (random[i], i))]


def values(_, count, *given):
    assert len(given) == count
    return given


HOW = {f.__name__: f for f in (normal, uniform, integers, nibbles, groups, shuffled, values)}


def packed(dtype, numbers):
    if dtype == "BF16":  # to nearest, ties to even
        bits = struct.unpack(f"<{len(numbers)}I", struct.pack(f"<{len(numbers)}f", *numbers))
        numbers = [(b + 0x7FFF + (b >> 16 & 1)) >> 16 for b in bits]
    return struct.pack(f"<{len(numbers)}{FORMATS[dtype]}", *numbers)


def expanded(name):
    span = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if span is None:
        return [name]
    return [name[: span.start()] + str(i) + name[span.end() :] for i in range(int(span[1]), int(span[2]) + 1)]


def tensors_of(path):
    """name: (dtype, shape, bytes)"""
    with open(path, encoding="utf-8") as file:
        description = json.load(file)
    tensors = {}
    for pattern, dtype, shape, how, *parameters in description["tensors"]:
        for name in expanded(pattern):
            numbers = HOW[how](f"{description['seed']} {name}", math.prod(shape), *parameters)
            tensors[name] = (dtype, shape, packed(dtype, numbers))
    return tensors


def write(path, tensors):
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, shape, data) in sorted(tensors.items(), key=lambda item: (-struct.calcsize(FORMATS[item[1][0]]), item[0])):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        parts.append(data)
        end += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def make(source, target):
    """target becomes source with weights instead of descriptions."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(DESCRIPTION))
    for path in glob.glob(os.path.join(source, "**", DESCRIPTION), recursive=True):
        tensors = tensors_of(path)
        folder = os.path.join(target, os.path.dirname(os.path.relpath(path, source)))
        try:
            with open(os.path.join(folder, "model.safetensors.index.json"), encoding="utf-8") as file:
                file_of = json.load(file)["weight_map"]
        except FileNotFoundError:
            file_of = dict.fromkeys(tensors, "model.safetensors")
        for name in set(file_of.values()):
            write(os.path.join(folder, name), {tensor: tensors[tensor] for tensor in tensors if file_of[tensor] == name})


# ---- descriptions ----


def headers_of(folder):
    tensors = {}
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        with open(path, "rb") as file:
            tensors.update(json.loads(file.read(struct.unpack("<Q", file.read(8))[0])))
    tensors.pop("__metadata__", None)
    return tensors


def collapsed(rows):
    """Rows that are equal but for the number of the layer become one."""
    layers = {}
    for name, *rest in rows:
        number = re.search(r"(?<=\.)\d+(?=\.)", name)
        pattern = name if number is None else name[: number.start()] + "{}" + name[number.end() :]
        layers.setdefault((pattern, json.dumps(rest)), []).append(number and int(number[0]))
    for (pattern, rest), numbers in layers.items():
        if "{}" in pattern:
            assert sorted(numbers) == list(range(min(numbers), max(numbers) + 1))
            pattern = pattern.replace("{}", f"{{{min(numbers)}..{max(numbers)}}}")
        yield [pattern, *json.loads(rest)]


def write_description(folder, seed, rows):
    lines = ",\n".join(json.dumps(row) for row in collapsed(sorted(rows, key=lambda row: row[0])))
    with open(os.path.join(folder, DESCRIPTION), "w", encoding="utf-8") as file:
        file.write(f'{{"seed": {json.dumps(seed)}, "tensors": [\n{lines}\n]}}\n')


def describe(folder, seed, rows_of):
    """The weights that save_pretrained wrote give way to a description: rows_of(name, dtype, shape) is what stands for a tensor."""
    rows = [row for name, tensor in headers_of(folder).items() for row in rows_of(name, tensor["dtype"], tensor["shape"])]
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        os.remove(path)
    write_description(folder, seed, rows)


if __name__ == "__main__":
    make(HERE, sys.argv[1])
