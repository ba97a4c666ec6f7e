#!/usr/bin/env python3
"""Cases for golden_pieces.c, made with the packages `tokenizers` (normalizers, WordPiece, Unigram) and
`sentencepiece` (its own normaliser).

  make_pieces.py                                    writes tests/golden/pieces/cases.jsonl
  make_pieces.py --count 10000 --charsmap M --out F writes F; run LORE_GOLDEN_PIECES=F golden_pieces

One line is one normalizer or model with its cases: [text, normal text, origin of each character] or
[text, ids, starts]; offsets count characters. A charsmap comes from a sentencepiece model where one
is given, else from the small table below."""
import argparse
import base64
import json
import os
import random
import struct

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "the of and to in is was for it with as his on be at by that from or an are this have not " \
        "been which their had were there will more when who one all would can if no has".split()
SCRIPTS = [
    (0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x17f), (0x180, 0x24f), (0x300, 0x36f), (0x370, 0x3ff),
    (0x400, 0x4ff), (0x5d0, 0x5f4), (0x600, 0x6ff), (0x900, 0x97f), (0x980, 0x9ff), (0xe00, 0xe7f),
    (0xf00, 0xfd4), (0x1100, 0x11ff), (0x1e00, 0x1eff), (0x1f00, 0x1fff), (0x2000, 0x206f),
    (0x2070, 0x20cf), (0x2100, 0x218f), (0x2460, 0x24ff), (0x3000, 0x30ff), (0x3200, 0x33ff),
    (0x4e00, 0x4eff), (0xac00, 0xad00), (0xf900, 0xfaff), (0xfb00, 0xfdff), (0xfe00, 0xffef),
    (0x10300, 0x1034f), (0x11100, 0x11150), (0x1d100, 0x1d1ff), (0x1d400, 0x1d7ff),
    (0x1f1e6, 0x1f1ff), (0x1f300, 0x1f64f), (0x20000, 0x20100), (0x2f800, 0x2fa1d)]
ODD = [" ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff", "\ufffd", "\u0001",
       "\u0085", "\u2028", "\u2581", "\u0301", "\u0327\u0301", "\u0345", "\u0344", "\u1100\u1161\u11a8",
       "e\u0301", "\ufb01", "\u00bd", "\u0130", "\u03a3", "\u1e9e", "\u212b", "\uff76\uff9e",
       "\U0001f468\u200d\U0001f469", "\u0f71\u0f72\u0f73", "\u4f60\u597d", "<unk>", "##a", "''", "``",
       "\u0600" + "1", "\u0958"]
SMALL_MAP = {"\u00bd": "1\u20442", "\ufb01": "fi", "e\u0301": "\u00e9", "\u00aa": "a", "\uff76": "\u30ab",
             "\uff76\uff9e": "\u30ac", "\u0001": "", "\t": " ", "\n": " ", "\r": " ", "\u3000": " ", "\u200b": "",
             "\u0958": "\u0915\u093c", "A": "a", "\u00e9": "e", "\u1100\u1161": "\uac00", "\u0301": ""}


def build_charsmap(table):
    """sentencepiece's format: a double array as darts-clone lays it out, and the replacements."""
    replacements = b"\0".join(v.encode() for v in table.values()) + b"\0"
    offsets, at = {}, 0
    for key, value in table.items():
        offsets[key.encode()] = at
        at += len(value.encode()) + 1
    units, used, bases = {0: 0}, {0}, set()

    def place(node, prefix):
        labels = sorted({k[len(prefix)] if len(k) > len(prefix) else 0
                         for k in offsets if k.startswith(prefix)})
        base = next(b for b in range(1, 1 << 20)
                    if b not in bases and all(b ^ x not in used for x in labels))
        bases.add(base)
        offset = base ^ node
        assert offset < 1 << 21
        units[node] |= offset << 10 | (256 if labels[0] == 0 else 0)
        used.update(base ^ x for x in labels)
        for label in labels:
            units[base ^ label] = label if label else offsets[prefix] | 1 << 31
            if label:
                place(base ^ label, prefix + bytes([label]))

    place(0, b"")
    size = (max(units) // 256 + 1) * 256
    return struct.pack(f"<{size + 1}I", size * 4, *(units.get(i, 0) for i in range(size))) + replacements


def random_text(rng, is_any):
    parts = []
    for _ in range(rng.randrange(1, 9)):
        kind = rng.random()
        if kind < .35:
            word = rng.choice(WORDS)
            parts.append(rng.choice([word, word.capitalize(), word + rng.choice(",.;!?)"), word * 2]))
            parts.append(" " * rng.choice([0, 1, 1, 1, 2]))
        elif kind < .6:
            parts.append(rng.choice(ODD))
        elif kind < .9 or not is_any:
            first, last = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 5))))
        else:
            c = rng.randrange(1, 0x110000)
            parts.append(chr(c) if not 0xd800 <= c < 0xe000 else "x")
    return "".join(parts)


def normalizer_nodes(charsmap):
    precompiled = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    nodes = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")]
    nodes += [{"type": "BertNormalizer", "clean_text": bool(i & 1), "handle_chinese_chars": bool(i & 2),
               "strip_accents": [None, True, False][i % 3], "lowercase": bool(i & 4)} for i in (7, 1, 2, 3, 4, 11)]
    nodes += [
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
        {"type": "Replace", "pattern": {"Regex": "[\\n\\r\\t]"}, "content": "--"},
        {"type": "Replace", "pattern": {"Regex": "a*"}, "content": "$1"},
        precompiled]
    sequences = [
        [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}],
        [{"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}],
        [{"type": "Replace", "pattern": {"String": "``"}, "content": "\""},
         {"type": "Replace", "pattern": {"String": "''"}, "content": "\""}, {"type": "NFKD"},
         {"type": "StripAccents"}, {"type": "Lowercase"}, precompiled,
         {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
        [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
        [{"type": "Strip", "strip_left": True, "strip_right": True}, precompiled,
         {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}],
        [{"type": "StripAccents"}, {"type": "Prepend", "prepend": "xy"}, {"type": "NFD"}, {"type": "NFKC"}]]
    return nodes + [{"type": "Sequence", "normalizers": s} for s in sequences]


def load(model, normalizer=None, pre_tokenizer=None):
    return Tokenizer.from_str(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None, "model": model}))


def normalizer_line(node, texts):
    each = load({"type": "WordLevel", "vocab": {"u": 0}, "unk_token": "u"}, node)
    each.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    cases = [[t, each.normalizer.normalize_str(t), [o[0] for o in each.encode(t).offsets]] for t in texts]
    return {"normalizer": node, "cases": cases}


def wordpiece_line(rng, texts):
    vocab = ["[UNK]"]
    for word in WORDS[::3]:
        vocab += [word, "##" + word[-2:], word[:2], word[0].upper()]
    vocab += [p + chr(c) for p in ("", "##") for c in list(range(0x21, 0x7f)) + list(range(0xe0, 0xf0)) +
              list(range(0x4e00, 0x4e10)) + [0x301] if rng.random() < .8]
    vocab = list(dict.fromkeys(vocab))
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
             "max_input_chars_per_word": 12, "vocab": {t: i for i, t in enumerate(vocab)}}
    t = load(model, None, {"type": "BertPreTokenizer"})
    cases = [[x, e.ids, [o[0] for o in e.offsets]] for x in texts for e in [t.encode(x)]]
    return {"wordpiece": {"vocab": vocab, "prefix": "##", "unk": 0, "max": 12}, "cases": cases}


def unigram_line(rng, texts, byte_fallback, is_coarse):
    """Coarse scores make ties."""
    score = (lambda: -float(rng.randrange(1, 4))) if is_coarse else (lambda: -rng.randrange(12000) / 1000)
    pieces = [["<unk>", 0.0]]
    for word in WORDS[::3]:
        pieces += [[word, score()], ["\u2581" + word, score()], [word[:2], score()], [word[-2:] + " ", score()]]
    pieces += [[chr(c), score()] for c in list(range(0x20, 0x7f, 2)) + list(range(0x4e00, 0x4e10)) + [0x301, 0xe9]
               if rng.random() < .8]
    pieces += [["the of", score()], ["<unk>a", score()], ["\u4f60\u597d", score()]]
    seen = {}
    pieces = [seen.setdefault(p[0], p) for p in pieces if p[0] not in seen]
    if byte_fallback:
        pieces += [[f"<0x{b:02X}>", 0.0] for b in range(256) if b != 0xf0]
    t = load({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": byte_fallback})
    cases = [[x, e.ids, [o[0] for o in e.offsets]] for x in texts for e in [t.encode(x)]]
    return {"unigram": {"pieces": pieces, "unk": 0, "byte_fallback": byte_fallback}, "cases": cases}


def sentencepiece_line(charsmap, flags, texts):
    """The library itself normalises with a model of one piece."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto()
    for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("a", 1)):
        model.pieces.add(piece=text, score=0, type=kind)
    model.trainer_spec.model_type = 1
    spec = model.normalizer_spec
    spec.precompiled_charsmap = charsmap
    spec.add_dummy_prefix, spec.remove_extra_whitespaces, spec.escape_whitespaces = flags
    library = SentencePieceProcessor(model_proto=model.SerializeToString())
    cases = []
    for text in texts:
        normal, offsets = library.normalize(text, with_offsets=True)
        cases.append([text, normal, offsets[:len(normal)]])
    node = {"charsmap": base64.b64encode(charsmap).decode(), "prefix": flags[0], "squeeze": flags[1], "escape": flags[2]}
    return {"sentencepiece": node, "cases": cases}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--charsmap", help="a sentencepiece model whose map is taken")
    parser.add_argument("--out", default=os.path.join(HERE, "pieces", "cases.jsonl"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    charsmap = build_charsmap(SMALL_MAP)
    if options.charsmap:
        from sentencepiece import sentencepiece_model_pb2
        model = sentencepiece_model_pb2.ModelProto.FromString(open(options.charsmap, "rb").read())
        charsmap = model.normalizer_spec.precompiled_charsmap

    def texts():
        return [random_text(rng, True) for _ in range(options.count)]
    lines = [normalizer_line(node, texts()) for node in normalizer_nodes(charsmap)]
    lines.append(wordpiece_line(rng, texts()))
    lines += [unigram_line(rng, texts(), fallback, coarse) for fallback, coarse in ((False, False), (True, True))]
    for flags in ((True, True, True), (False, False, True), (True, False, False)):
        lines.append(sentencepiece_line(charsmap if flags[1] else b"", flags, texts()))
    with open(options.out, "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
