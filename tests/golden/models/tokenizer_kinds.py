"""Tokenizers of every kind, and what the `tokenizers` package makes of random texts.

    pip install tokenizers
    python tokenizer_kinds.py OUT [--count 10000] [--seed 4] [--only NAME]

Models are trained on this repository's documents and put into the pipelines (normalizer,
pre-tokenizer, added tokens, post-processor, decoder) of the families that they stand for. Each
folder OUT/NAME gets tokenizer.json and vectors.jsonl: {"text", "ids", "special": special tokens in
the text are recognised, "whole": with the post-processor, "decoded"}. Where ../shared/data is
there, its vocabularies are used as well, among them (with the package `sentencepiece`)
sentencepiece's own files against its own library.

tests/long/tokenizer_agreement_long.c runs this and compares.
"""

import argparse
import glob
import io
import json
import os
import random
import unicodedata

from make_tokenizer_golden import ROOT, SNIPPETS, TEXTS, random_char
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

DATA = os.path.join(ROOT, "..", "shared", "data", "tokenizers")
SPACE = "\u2581"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"


# ---- models ----


def corpus():
    texts = []
    for pattern in ("docs/*.md", "README.md", "corpora/**/*", "tests/golden/clean/*", "tests/golden/models/passages.json"):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern), recursive=True)):
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="ignore") as file:
                    texts.append(file.read(200_000).replace("\0", ""))
    return texts + [text.replace("\0", "") for text in TEXTS]


def trained(model, trainer, pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_level_model(size=3000):
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))


def fallback_model():
    bytes_ = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=bytes_, limit_alphabet=600, show_progress=False)
    model = trained(models.BPE(unk_token="<unk>"), trainer, pre_tokenizers.Metaspace())
    model.update(byte_fallback=True, fuse_unk=True)
    return model


def wordpiece_model(lowercase):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=specials, limit_alphabet=900, show_progress=False)
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=lowercase))


def unigram_model(fallback=False):
    specials = ["<s>", "<pad>", "</s>", "<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if fallback else [])
    trainer = trainers.UnigramTrainer(vocab_size=3000, special_tokens=specials, unk_token="<unk>", show_progress=False)
    model = trained(models.Unigram(), trainer, pre_tokenizers.Metaspace(), normalizers.NFKC())
    model["byte_fallback"] = fallback
    return model


def charsmap():
    """precompiled_charsmap of a sentencepiece model (nmt_nfkc): field 2 of the model's field 3."""
    path = os.path.join(DATA, "sentencepiece", "test_model.model")
    if not os.path.exists(path):
        return None

    def fields(data):
        at = 0

        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value

        while at < len(data):
            key = varint()
            if key & 7 == 0:
                yield key >> 3, varint()
                continue
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            yield key >> 3, data[at : at + size]
            at += size

    with open(path, "rb") as file:
        spec = dict(fields(file.read()))[3]
    return bytes(dict(fields(spec))[2])


def published(model_type, *files):
    """A model out of vocabularies of ../shared/data, or None."""
    paths = [os.path.join(DATA, file) for file in files]
    if not all(map(os.path.exists, paths)):
        return None
    return json.loads(Tokenizer(model_type.from_file(*paths)).to_str())["model"]


# ---- pipelines ----


def assemble(model, normalizer=None, pre=None, decoder=None, post=None, added=()):
    base = {"version": "1.0", "added_tokens": [], "model": model}
    tokenizer = Tokenizer.from_str(json.dumps(base))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    if decoder is not None:
        tokenizer.decoder = decoder
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    return tokenizer


def special(text, **flags):
    return AddedToken(text, special=True, normalized=False, **flags)


def split(regex, behavior="isolated"):
    return pre_tokenizers.Split(Regex(regex), behavior)


def byte_level(use_regex=True, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def template(before, behind=None):
    def make(tokenizer):
        names = [name for name in (before, behind) if name]
        return processors.TemplateProcessing(
            single=f"{before}:0 $A:0" + (f" {behind}:0" if behind else ""),
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
        )

    return make


def llama_decoder(strip=True):
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))


def byte_level_kinds():
    model = byte_level_model()
    end = [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")]
    level = decoders.ByteLevel()
    sequence = pre_tokenizers.Sequence
    digits = pre_tokenizers.Digits(individual_digits=True)
    yield "gpt2", assemble(model, None, byte_level(), level, None, end)
    real = published(models.BPE, "gpt2/encoder.json", "gpt2/vocab.bpe")
    if real is not None:
        yield "gpt2-real", assemble(real, None, byte_level(), level, None, end)
    roberta = [special("<s>"), special("</s>"), special("<mask>", lstrip=True)]
    yield "roberta", assemble(
        model, None, byte_level(prefix=True), level, lambda t: processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>"))), roberta
    )
    llama3 = dict(model, ignore_merges=True)
    yield "llama3", assemble(llama3, None, sequence([split(LLAMA3), byte_level(False)]), level, template("<|endoftext|>"), end)
    think = [AddedToken("<think>", normalized=False), AddedToken("  x", normalized=True, single_word=True)]
    yield "qwen2", assemble(model, normalizers.NFC(), sequence([split(QWEN2), byte_level(False)]), level, None, end + think)
    yield "o200k", assemble(model, None, sequence([split(O200K), byte_level(False)]), level, None, end)
    yield "cl100k", assemble(model, None, sequence([split(CL100K), byte_level(False)]), level, None, end)
    yield "starcoder", assemble(model, None, sequence([digits, byte_level()]), level, None, end)
    coder = [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), digits, byte_level(False)]
    yield "deepseek-coder", assemble(model, None, sequence(coder), level, None, end)
    llm = [split("[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split("[一-龥]+"), digits, byte_level(False)]
    yield "deepseek-llm", assemble(model, None, sequence(llm), level, None, end)
    falcon = [pre_tokenizers.Punctuation("contiguous"), byte_level(), pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")]
    yield "falcon", assemble(model, None, sequence(falcon), level, None, end)
    odd = [split(r"(?:ab)+?|\s{2,3}|^x|[^\S\n]+$", "merged_with_previous"), split(r"[aeiou]", "merged_with_next"), split(r"\d+(?=[.,])|zz*", "contiguous"), byte_level(False)]
    yield "odd-splits", assemble(model, None, sequence(odd), level, None, end)
    kept = [token for token in sorted(model["vocab"], key=model["vocab"].get) if len(token) > 1 or token.isascii()]
    partly = dict(model, vocab={token: i for i, token in enumerate(kept)})
    partly["merges"] = [m for m in partly["merges"] if all(p in partly["vocab"] for p in m) and "".join(m) in partly["vocab"]]
    yield "missing-bytes", assemble(partly, None, byte_level(), level, None, end)


def fallback_kinds():
    model = fallback_model()
    specials = [special("<unk>"), special("<s>"), special("</s>")]
    prepend = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    yield "llama2", assemble(model, prepend, None, llama_decoder(), template("<s>"), specials)
    phi = [special("<|assistant|>", rstrip=True), special("<|end|>", rstrip=True), AddedToken("<|x|>", normalized=True, lstrip=True)]
    yield "phi3", assemble(model, prepend, None, llama_decoder(), template("<s>"), specials + phi)
    first = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    yield "mistral", assemble(model, None, first, llama_decoder(), template("<s>"), specials + [special("[INST]"), special("[/INST]")])
    gemma = [special("<bos>"), special("<start_of_turn>")] + [AddedToken(t, normalized=False) for t in ("\n\n", "\n\n\n", SPACE * 2, SPACE * 3, "[table]")]
    yield "gemma", assemble(model, normalizers.Replace(" ", SPACE), None, llama_decoder(False), template("<bos>"), specials + gemma)
    merged = pre_tokenizers.Split(" ", "merged_with_previous")
    yield "gemma-split", assemble(model, normalizers.Replace(" ", SPACE), merged, llama_decoder(False), template("<bos>"), specials + gemma)
    unknown = dict(model, byte_fallback=False)
    yield "unknown-fused", assemble(unknown, prepend, None, llama_decoder(), None, specials)
    yield "unknown-single", assemble(dict(unknown, fuse_unk=False), prepend, None, llama_decoder(), None, specials)


def wordpiece_kinds():
    specials = [special(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    bert = pre_tokenizers.BertPreTokenizer()
    for name, lowercase, chinese, accents in (("bert-uncased", True, True, None), ("bert-cased", False, True, None), ("bert-plain", False, False, True)):
        normalizer = normalizers.BertNormalizer(lowercase=lowercase, handle_chinese_chars=chinese, strip_accents=accents)
        post = template("[CLS]", "[SEP]")
        if not lowercase:
            post = lambda t: processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))
        yield name, assemble(wordpiece_model(lowercase), normalizer, bert, decoders.WordPiece(), post, specials + [AddedToken("New York", normalized=True)])
    for name, lowercase in (("uncased", True), ("multilingual-cased", False), ("chinese", True)):
        real = published(models.WordPiece, f"bert/bert-base-{name}-vocab.txt")
        if real is not None:
            normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None)
            yield f"bert-base-{name}", assemble(dict(real, unk_token="[UNK]"), normalizer, bert, decoders.WordPiece(), template("[CLS]", "[SEP]"), specials)
    yield "words", assemble(wordpiece_model(False), None, pre_tokenizers.Whitespace(), decoders.WordPiece(), None, specials)


def unigram_kinds():
    model = unigram_model()
    meta = pre_tokenizers.Metaspace()
    specials = [special(t) for t in ("<s>", "<pad>", "</s>", "<unk>")] + [special("<mask>", lstrip=True)]
    yield "unigram", assemble(model, normalizers.NFKC(), meta, decoders.Metaspace(), template("<s>", "</s>"), specials)
    albert = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    yield "albert", assemble(model, normalizers.Sequence(albert), meta, decoders.Metaspace(), template("<s>", "</s>"), specials)
    yield "unigram-bytes", assemble(unigram_model(True), normalizers.NFKC(), meta, llama_decoder(), None, specials)
    whole = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    yield "unigram-whole", assemble(model, normalizers.NFKC(), whole, decoders.Metaspace(), None, specials)
    table = charsmap()
    if table is not None:
        xlmr = normalizers.Sequence([normalizers.Precompiled(table), normalizers.Replace(Regex(" {2,}"), " ")])
        old = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta])
        yield "xlm-r", assemble(model, normalizers.Precompiled(table), old, decoders.Metaspace(), template("<s>", "</s>"), specials)
        yield "xlm-r-new", assemble(model, xlmr, meta, decoders.Metaspace(), template("<s>", "</s>"), specials)
        t5 = normalizers.Sequence([normalizers.Precompiled(table), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)])
        yield "t5", assemble(model, t5, meta, decoders.Metaspace(), template("<s>", "</s>"), specials)


# ---- texts ----

MORE = SNIPPETS + [
    "<s>", "</s>", "<unk>", "<mask>", "[MASK]", "[CLS]", " [SEP] ", "<|x|>", "<|end|>", "<|assistant|>\n ", "<think>", "  x", "[INST]", "<bos>", "\n\n\n",
    SPACE, SPACE * 2, "New York", "new york", "``", "''", "ab", "abab", "zz", "12.", "x\n", "it's n't", " ' ", "ﬁ", "①", "Ⅷ", "㎏", "ﾊﾞ", "각", "が",
    "é", "e\u0301", "İ", "ß", "\u00ad", "\u200d", "\ufffd", "#", "##ing", "<0x41>", "reset the router", "Hold the button for 10 seconds.", "如何重置路由器", "日本語の",
]


def random_text(rnd):
    parts = []
    for _ in range(rnd.choice([1, 2, 3, 5, 8, 13, 21, 34])):
        parts.append(rnd.choice(MORE) if rnd.random() < 0.3 else random_char(rnd))
        if rnd.random() < 0.15:
            parts.append(" ")
    return "".join(parts)


def write_vectors(folder, texts, encode):
    with open(os.path.join(folder, "vectors.jsonl"), "w", encoding="utf-8") as file:
        for text in texts:
            print(json.dumps(dict(encode(text), text=text), ensure_ascii=False, separators=(",", ":")), file=file)


def write_kind(out, name, tokenizer, texts):
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))

    def encode(text):
        ids = tokenizer.encode(text, add_special_tokens=True).ids
        return {"ids": ids, "special": True, "whole": True, "decoded": tokenizer.decode(ids, skip_special_tokens=True)}

    write_vectors(folder, texts, encode)


def sentencepiece_models(sentencepiece):
    """Its own files, and models that it trains: with and without a charsmap and bytes of unknown text."""
    files = {"sp-llama2": "llama2/tokenizer.model", "sp-mistral": "mistral/tokenizer.model.v1",
             "sp-unigram": "sentencepiece/test_model.model", "sp-unigram-ja": "sentencepiece/test_ja_model.model"}
    for name, path in files.items():
        if os.path.exists(os.path.join(DATA, path)):
            with open(os.path.join(DATA, path), "rb") as file:
                yield name, file.read()
    lines = [line for text in corpus() for line in text.splitlines() if 0 < len(line) < 4000]
    for name, rule, fallback, more in (
        ("sp-trained", "nmt_nfkc", False, {}),
        ("sp-trained-bytes", "nmt_nfkc_cf", True, {}),
        ("sp-trained-plain", "identity", False, {"remove_extra_whitespaces": False, "add_dummy_prefix": False}),
        ("sp-trained-plain-bytes", "identity", True, {"split_by_whitespace": False}),
        ("sp-trained-bpe", "nfkc", True, {"model_type": "bpe"}),
    ):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=3000, hard_vocab_limit=False,
            normalization_rule_name=rule, byte_fallback=fallback, minloglevel=2, num_threads=1, **more)
        yield name, model.getvalue()


def write_sentencepiece(out, texts, only):
    """Files of sentencepiece against its own library."""
    try:
        import sentencepiece
    except ImportError:
        return
    for name, model in sentencepiece_models(sentencepiece):
        if only not in (None, name):
            continue
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
            file.write(model)
        library = sentencepiece.SentencePieceProcessor(model_proto=model)
        write_vectors(folder, texts, lambda text: {"ids": library.encode(text)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--only", help="this kind alone")
    args = parser.parse_args()
    rnd = random.Random(args.seed)
    texts = [text for text in TEXTS if "\0" not in text] + [random_text(rnd) for _ in range(args.count)]
    for kinds in (byte_level_kinds, fallback_kinds, wordpiece_kinds, unigram_kinds):
        for name, tokenizer in kinds():
            if args.only in (None, name):
                write_kind(args.out, name, tokenizer, texts)
    if args.only is None or args.only.startswith("sp-"):
        write_sentencepiece(args.out, texts, args.only)


if __name__ == "__main__":
    main()
