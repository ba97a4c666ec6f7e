"""Tokenizer folders out of the vocabularies that llama.cpp publishes for its own tests.

    pip download --no-deps --no-binary :all: llama-cpp-python && tar xzf llama_cpp_python-*.tar.gz
    python gguf_tokenizers.py llama_cpp_python-*/vendor/llama.cpp/models VECTORS.jsonl OUT
    build/tests/tokenizer_agreement_long OUT/*

(the latter runs this itself where LORE_GGUF_VOCABULARIES names that models folder).

VECTORS.jsonl is ../shared/data/tokenizers/vectors.jsonl. Each folder gets tokenizer.json and the
vectors of that tokenizer. Only vocabularies whose pre-tokenizer is written down here are taken; the
pre-tokenizers are those of the models' own tokenizer.json.
"""

import json
import os
import struct
import sys

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def read_gguf(path):
    """The metadata of a GGUF file as a dictionary."""
    with open(path, "rb") as file:
        data = file.read()
    at = 8

    def scalar(form):
        nonlocal at
        value = struct.unpack_from(form, data, at)[0]
        at += struct.calcsize(form)
        return value

    def value(kind):
        nonlocal at
        if kind == 8:
            size = scalar("<Q")
            text = data[at : at + size]
            at += size
            return text.decode("utf-8", "surrogateescape")
        if kind == 9:
            inner, count = scalar("<I"), scalar("<Q")
            return [value(inner) for _ in range(count)]
        return scalar(SCALARS[kind])

    _, count = scalar("<Q"), scalar("<Q")
    facts = {}
    for _ in range(count):
        key = value(8)
        facts[key] = value(scalar("<I"))
    return facts


def split(regex, behavior="Isolated"):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": False}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


DIGITS = {"type": "Digits", "individual_digits": True}
CJK = "[一-龥ࠀ-一가-퟿]+"
LETTERS = (
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbe"
    "ῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
PRE_TOKENIZERS = {
    "command-r": sequence(DIGITS, byte_level(True)),
    "deepseek-coder": sequence(split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split(CJK), DIGITS, byte_level(False)),
    "deepseek-llm": sequence(split("[\r\n]"), split(LETTERS), split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"), split("\\s+$"), split(CJK), DIGITS, byte_level(False)),
    "falcon": sequence(
        {"type": "Punctuation", "behavior": "Contiguous"},
        byte_level(True),
        {"type": "Digits", "individual_digits": False},
        split("[0-9][0-9][0-9]"),
    ),
    "gpt-2": byte_level(True),
    "mpt": byte_level(True),
    "refact": sequence(DIGITS, byte_level(True)),
    "starcoder": sequence(DIGITS, byte_level(True)),
}
NORMALIZERS = {"mpt": {"type": "NFC"}, "command-r": {"type": "NFC"}}


def convert(facts, name):
    tokens = facts["tokenizer.ggml.tokens"]
    kinds = facts["tokenizer.ggml.token_type"]
    added = [
        {"id": i, "content": token, "special": kinds[i] == 3, "normalized": False}
        for i, token in enumerate(tokens)
        if kinds[i] in (3, 4)
    ]
    return {
        "added_tokens": added,
        "normalizer": NORMALIZERS.get(name),
        "pre_tokenizer": PRE_TOKENIZERS[name],
        "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": facts["tokenizer.ggml.merges"],
        },
    }


def main():
    models, vectors, out = sys.argv[1:4]
    for name in PRE_TOKENIZERS:
        path = os.path.join(models, f"ggml-vocab-{name}.gguf")
        if not os.path.exists(path):
            continue
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(convert(read_gguf(path), name), file, ensure_ascii=False)
        with open(vectors, encoding="utf-8") as source, open(os.path.join(folder, "vectors.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(line for line in source if json.loads(line)["tokenizer"] == name)


if __name__ == "__main__":
    main()
