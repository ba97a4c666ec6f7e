"""Write a tokenizer.json from the vocabulary files that GPT-2, Llama 3 and Qwen were published with.

    python3 byte_level.py gpt2 DATA/gpt2 OUT           (encoder.json, vocab.bpe)
    python3 byte_level.py llama3 DATA/llama3 OUT       (tokenizer.model: base64 and rank a line)
    python3 byte_level.py qwen2 DATA/qwen OUT          (qwen.tiktoken, likewise)

Rank files hold no merges; they are found by merging each token's bytes with the ranks below its own
until two parts are left. Standard library only: test_tokenizer.c runs this where ../shared is there.
"""

import argparse
import base64
import json
import os

TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
PATTERNS = {"llama3": HEAD + r"\p{N}{1,3}" + TAIL, "qwen2": HEAD + r"\p{N}" + TAIL}
FILES = {"llama3": "tokenizer.model", "qwen2": "qwen.tiktoken"}


def byte_alphabet():
    """GPT-2's bytes_to_unicode: one printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def split_last(token, ranks, rank):
    """The two parts that the merges below `rank` leave of a token."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], 1 << 60), i) for i in range(len(parts) - 1))
        if best >= rank:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def from_ranks(path):
    """Vocabulary and merges of a file of `base64 rank` lines."""
    alphabet = byte_alphabet()
    text = lambda token: "".join(alphabet[b] for b in token)
    ranks = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = split_last(token, ranks, rank)
            if parts is not None:
                merges.append([text(parts[0]), text(parts[1])])
    return {text(token): rank for token, rank in ranks.items()}, merges


def from_gpt2(folder):
    """Vocabulary and merges as OpenAI published them."""
    with open(os.path.join(folder, "encoder.json"), encoding="utf-8") as file:
        vocab = json.load(file)
    with open(os.path.join(folder, "vocab.bpe"), encoding="utf-8") as file:
        lines = file.read().split("\n")
    return vocab, [line for line in lines[1:] if line]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["gpt2", "llama3", "qwen2"])
    parser.add_argument("folder")
    parser.add_argument("out", help="folder that gets tokenizer.json")
    args = parser.parse_args()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": args.kind == "gpt2"}
    if args.kind == "gpt2":
        vocab, merges = from_gpt2(args.folder)
        pre_tokenizer = byte_level
    else:
        vocab, merges = from_ranks(os.path.join(args.folder, FILES[args.kind]))
        split = {"type": "Split", "pattern": {"Regex": PATTERNS[args.kind]}, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "NFC"} if args.kind == "qwen2" else None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "ignore_merges": args.kind == "llama3", "vocab": vocab, "merges": merges},
    }
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False)


if __name__ == "__main__":
    main()
