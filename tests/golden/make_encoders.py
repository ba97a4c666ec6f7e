"""Tiny random encoders and cross-encoders of every family, with what sentence-transformers makes of them.

    pip install torch transformers sentence-transformers safetensors
    python make_encoders.py [NAME ...]        (all of them without a name)

families/NAME/ becomes a sentence-transformers folder with a tokenizer of the family's kind and weights that
tensors.json describes (weights.py), and families/NAME/expected.json holds, computed in f32 from the weights as they were rounded for the file:

    encoders     texts, query and document: the vectors of each text as a question and as a document, of length 1
    rerankers    queries, passages, scores: for each query the probability of each passage (sigmoid of the logit)
"""

import json
import os
import shutil
import sys
import tempfile

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, ModernBertConfig, ModernBertForSequenceClassification,
    ModernBertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model, XLMRobertaConfig,
    XLMRobertaForSequenceClassification, XLMRobertaModel,
)

import weights
from weights import HERE

WIDTH, FFN = 32, 48

TEXTS = [
    "How do I reset the router?",
    "Hold the button for ten seconds.",
    "",
    "Öffnen Sie das Gerät nicht: café, naïve.",
    "如何重置路由器？",
    "The light blinks red twice, then green; wait until it stays green before you connect the cable (see page 12).",
    "a " * 60,
    "supercalifragilistic 3.14159 e-mail@example.org \U0001f600 \t end",
]
PASSAGES = [t for t in TEXTS if t] + ["Routers are reset with the button on the back. " * 6]
WORDS = ("how do i reset the router hold button for ten seconds light blinks red then green wait until it stays before you "
         "connect cable see page a end back are with on not open is").split()


def wordpiece():
    """BERT's, uncased: words, characters, and pieces that go on in a word."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *".,;:?!()@-'", *("##" + c for c in letters),
             *(w for w in WORDS if len(w) > 1), "##er", "##ing", "##s", "如", "何", "重", "置", "器", "？"]
    vocab = list(dict.fromkeys(vocab))
    t = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
                                   sep_token="[SEP]", mask_token="[MASK]",
                                   model_input_names=["input_ids", "token_type_ids", "attention_mask"])


def unigram():
    """XLM-R's: pieces with a score, words begin with a bar."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + w, -4.0 - 0.01 * i) for i, w in enumerate(WORDS) if len(w) > 1]
    pieces += [(w, -6.0 - 0.01 * i) for i, w in enumerate(("er", "ing", "re", "set", "out", "on", "ec", "th"))]
    pieces += [(c, -7.0 - 0.01 * i) for i, c in enumerate("abcdefghijklmnopqrstuvwxyzHRTÖ0123456789.,;:?!()@-éäï如何重置路由器")]
    t = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    t.normalizer = normalizers.NFKC()
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    t.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>",
                                   bos_token="<s>", eos_token="</s>")


def byte_level(template, specials):
    """GPT-2's: all bytes and a few merges; special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "a"), ("e", "r"), ("o", "n"), ("r", "e")]
    vocab = {c: i for i, c in enumerate(alphabet + [a + b for a, b in merges])}
    t = Tokenizer(models.BPE(vocab, merges))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(specials)
    t.post_processor = processors.TemplateProcessing(
        single=template, pair=template + " $B:1", special_tokens=[(s, t.token_to_id(s)) for s in specials if s in template])
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token=specials[0], eos_token=specials[0],
                                   model_input_names=["input_ids", "attention_mask"])


def bert(**more):
    return dict(vocab_size=160, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=40, pad_token_id=0, **more)


def xlmr(**more):
    return dict(bert(), vocab_size=160, pad_token_id=1, max_position_embeddings=42, type_vocab_size=1, layer_norm_eps=1e-5,
                bos_token_id=0, eos_token_id=2, **more)


POOLING = {"word_embedding_dimension": WIDTH}
MODERN = dict(vocab_size=272, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=4, num_attention_heads=4,
              max_position_embeddings=128, local_attention=8, pad_token_id=263, cls_token_id=264, sep_token_id=265, bos_token_id=264,
              eos_token_id=265)
MODERN_RANK = dict(vocab_size=160, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                   max_position_embeddings=64, local_attention=8, global_attn_every_n_layers=2, pad_token_id=0, cls_token_id=2,
                   sep_token_id=3, bos_token_id=2, eos_token_id=3, num_labels=1, classifier_pooling="mean")
QWEN = dict(vocab_size=272, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, max_position_embeddings=96, tie_word_embeddings=True, eos_token_id=263,
            pad_token_id=263)
QWEN_PROMPTS = {"query": "Instruct: find passages that answer\nQuery:", "document": ""}

# name: (model, tokenizer, dtype of the file, companions; seed: one whose weights int8 treats as the tolerance of
# golden_encoders.c has it, which of normal ones, with four layers of 32 columns, it does in every second draw)
ENCODERS = {
    "enc-bert": (lambda: BertModel(BertConfig(**bert())), wordpiece, torch.float32,
                 {"pooling": dict(POOLING, pooling_mode_cls_token=True), "normalize": True, "max_seq_length": 24}),
    "enc-bert-dense": (lambda: BertModel(BertConfig(**bert(hidden_act="gelu_new"))), wordpiece, torch.float16,
                       {"pooling": {"embedding_dimension": WIDTH, "pooling_mode": "mean"}, "dense": 24, "normalize": True,
                        "prefix": "bert."}),
    "enc-xlmr": (lambda: XLMRobertaModel(XLMRobertaConfig(**xlmr())), unigram, torch.float16,
                 {"pooling": dict(POOLING, pooling_mode_mean_tokens=True), "normalize": True, "max_seq_length": 40,
                  "sentence": {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": None}}),
    "enc-modernbert": (lambda: ModernBertModel(ModernBertConfig(**MODERN)),
                       lambda: byte_level("[CLS] $A [SEP]", ["[PAD]", "[CLS]", "[SEP]"]), torch.bfloat16,
                       {"pooling": dict(POOLING, pooling_mode_cls_token=True), "max_seq_length": 100,
                        "sentence": {"prompts": {"topic": "about: "}, "default_prompt_name": "topic"}, "seed": "enc-modernbert7"}),
    "enc-qwen3": (lambda: Qwen3Model(Qwen3Config(**QWEN)), lambda: byte_level("$A <|endoftext|>", ["<|endoftext|>"]), torch.bfloat16,
                  {"pooling": dict(POOLING, pooling_mode_lasttoken=True), "normalize": True,
                   "sentence": {"prompts": QWEN_PROMPTS, "default_prompt_name": None, "truncate_dim": 20}}),
}
RERANKERS = {
    "rank-bert": (lambda: BertForSequenceClassification(BertConfig(**bert(num_labels=1))), wordpiece, torch.float16),
    "rank-xlmr": (lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**xlmr(num_labels=1))), unigram, torch.float16),
    "rank-modernbert": (lambda: ModernBertForSequenceClassification(ModernBertConfig(**MODERN_RANK)), wordpiece, torch.float16),
}


def spread(name, shape):
    """[mean, deviation] of random weights under which activations keep their size and attention looks at more than one place."""
    if len(shape) > 1:
        return [0.0, 1.0 if "embed" in name else round(1.4 * shape[-1] ** -0.5, 6)]
    return [1.0 if name.endswith("weight") else 0.0, 0.2]


def write_json(folder, name, content):
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(content, out, ensure_ascii=False)
        out.write("\n")


def write_model(name, model, tokenizer, dtype, prefix="", seed=None):
    """prefix: before names of tensors, as a checkpoint of a whole task has it."""
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    weights.describe(folder, seed or name, lambda tensor, dtype, shape: [[prefix + tensor, dtype, shape, "normal", *spread(tensor, shape)]])
    tokenizer.save_pretrained(folder)
    for spare in ("special_tokens_map.json", "README.md"):
        if os.path.exists(os.path.join(folder, spare)):
            os.remove(os.path.join(folder, spare))
    return folder


def write_companions(folder, more):
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(folder, "1_Pooling/config.json", more["pooling"])
    if "dense" in more:
        modules.append(("2_Dense", "Dense"))
        write_json(folder, "2_Dense/config.json", {"in_features": WIDTH, "out_features": more["dense"], "bias": True,
                                                   "activation_function": "torch.nn.modules.activation.Tanh"})
        weights.write_description(os.path.join(folder, "2_Dense"), os.path.basename(folder), [
            ["linear.weight", "F32", [more["dense"], WIDTH], "normal", 0.0, round(WIDTH ** -0.5, 6)],
            ["linear.bias", "F32", [more["dense"]], "normal", 0.0, 0.2]])
    if more.get("normalize"):
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write_json(folder, "modules.json", [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind}
                                        for i, (path, kind) in enumerate(modules)])
    if "max_seq_length" in more:
        write_json(folder, "sentence_bert_config.json", {"max_seq_length": more["max_seq_length"], "do_lower_case": False})
    if "sentence" in more:
        write_json(folder, "config_sentence_transformers.json", more["sentence"])


def rounded(vectors):
    return [[round(float(x), 6) for x in v] for v in vectors]


def prompt_of(sentence, names):
    """What the folder wants before a text: the prompt of that name, else the default one. (Version 6 of the library
    passes over "passage" and the default when asked for documents; older ones and its documentation do not.)"""
    prompts = sentence.get("prompts", {})
    for name in [*names, sentence.get("default_prompt_name")]:
        if name in prompts:
            return prompts[name]
    return ""


def make_encoder(name):
    model, tokenizer, dtype, more = ENCODERS[name]
    folder = write_model(name, model(), tokenizer(), dtype, more.get("prefix", ""), more.get("seed"))
    write_companions(folder, more)
    with tempfile.TemporaryDirectory() as temporary:
        made = os.path.join(temporary, name)
        weights.make(folder, made)
        encoder = SentenceTransformer(made, device="cpu", truncate_dim=more.get("sentence", {}).get("truncate_dim"),
                                      model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    sentence = more.get("sentence", {})
    query, document = prompt_of(sentence, ["query"]), prompt_of(sentence, ["document", "passage", "corpus"])
    write_json(folder, "expected.json", {"texts": TEXTS,
                                         "query": rounded(encoder.encode(TEXTS, prompt=query, normalize_embeddings=True)),
                                         "document": rounded(encoder.encode(TEXTS, prompt=document, normalize_embeddings=True))})


def make_reranker(name):
    model, tokenizer, dtype = RERANKERS[name]
    t = tokenizer()
    t.model_max_length = 40  # where the model's own limit is read from
    folder = write_model(name, model(), t, dtype)
    with tempfile.TemporaryDirectory() as temporary:
        made = os.path.join(temporary, name)
        weights.make(folder, made)
        ranker = CrossEncoder(made, device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    queries = [TEXTS[0], TEXTS[5] * 2, ""]  # the second is cut, too
    scores = [ranker.predict([(q, p) for p in PASSAGES], activation_fn=torch.nn.Sigmoid()) for q in queries]
    write_json(folder, "expected.json", {"queries": queries, "passages": PASSAGES,
                                         "scores": [[round(float(s), 7) for s in row] for row in scores]})


def main():
    for name in sys.argv[1:] or [*ENCODERS, *RERANKERS]:
        (make_encoder if name in ENCODERS else make_reranker)(name)
        print(name)


if __name__ == "__main__":
    main()
