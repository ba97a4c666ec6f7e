"""Tiny random encoders and cross-encoders of every family, with what sentence-transformers makes of them.

    pip install torch transformers sentence-transformers safetensors
    python make_encoders.py [NAME ...]        (all of them without a name)

families/NAME/ becomes a sentence-transformers folder with a tokenizer of the family's kind, and
families/NAME/expected.json holds, computed in f32 from the weights as they were rounded for the file:

    encoders     texts, query and document: the vectors of each text as a question and as a document, of length 1
    rerankers    queries, passages, scores: for each query the probability of each passage (sigmoid of the logit)
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, ModernBertConfig, ModernBertForSequenceClassification,
    ModernBertModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3Model, XLMRobertaConfig,
    XLMRobertaForSequenceClassification, XLMRobertaModel,
)

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "families")
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

# name: (model, tokenizer, dtype of the file, companions)
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
                        "sentence": {"prompts": {"topic": "about: "}, "default_prompt_name": "topic"}}),
    "enc-qwen3": (lambda: Qwen3Model(Qwen3Config(**QWEN)), lambda: byte_level("$A <|endoftext|>", ["<|endoftext|>"]), torch.bfloat16,
                  {"pooling": dict(POOLING, pooling_mode_lasttoken=True), "normalize": True,
                   "sentence": {"prompts": QWEN_PROMPTS, "default_prompt_name": None, "truncate_dim": 20}}),
}
RERANKERS = {
    "rank-bert": (lambda: BertForSequenceClassification(BertConfig(**bert(num_labels=1))), wordpiece, torch.float16),
    "rank-xlmr": (lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**xlmr(num_labels=1))), unigram, torch.float16),
    "rank-modernbert": (lambda: ModernBertForSequenceClassification(ModernBertConfig(**MODERN_RANK)), wordpiece, torch.float16),
}


def fill(model, seed):
    """Random weights under which activations keep their size and attention looks at more than one place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            random = torch.randn(value.shape, generator=generator)
            if value.dim() > 1:
                value.copy_(random * (1.0 if "embed" in name else 1.4 * value.shape[-1] ** -0.5))
            else:
                value.copy_(random * 0.2 + (1.0 if name.endswith("weight") else 0.0))


def write_json(folder, name, content):
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
        json.dump(content, out, ensure_ascii=False)
        out.write("\n")


def write_model(folder, model, tokenizer, dtype, seed):
    shutil.rmtree(folder, ignore_errors=True)
    fill(model, seed)
    model.eval().to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_companions(folder, more, seed):
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(folder, "1_Pooling/config.json", more["pooling"])
    if "dense" in more:
        modules.append(("2_Dense", "Dense"))
        write_json(folder, "2_Dense/config.json", {"in_features": WIDTH, "out_features": more["dense"], "bias": True,
                                                   "activation_function": "torch.nn.modules.activation.Tanh"})
        generator = torch.Generator().manual_seed(seed)
        save_file({"linear.weight": torch.randn(more["dense"], WIDTH, generator=generator) * WIDTH ** -0.5,
                   "linear.bias": torch.randn(more["dense"], generator=generator) * 0.2},
                  os.path.join(folder, "2_Dense", "model.safetensors"))
    if more.get("normalize"):
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write_json(folder, "modules.json", [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind}
                                        for i, (path, kind) in enumerate(modules)])
    if "max_seq_length" in more:
        write_json(folder, "sentence_bert_config.json", {"max_seq_length": more["max_seq_length"], "do_lower_case": False})
    if "sentence" in more:
        write_json(folder, "config_sentence_transformers.json", more["sentence"])


def rename(folder, prefix):
    """Names as a checkpoint of a whole task has them."""
    path = os.path.join(folder, "model.safetensors")
    save_file({prefix + name: value for name, value in load_file(path).items()}, path, {"format": "pt"})


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


def make_encoder(name, seed):
    model, tokenizer, dtype, more = ENCODERS[name]
    folder = os.path.join(HERE, name)
    write_model(folder, model(), tokenizer(), dtype, seed)
    write_companions(folder, more, seed)
    encoder = SentenceTransformer(folder, device="cpu", truncate_dim=more.get("sentence", {}).get("truncate_dim"),
                                  model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    sentence = more.get("sentence", {})
    query, document = prompt_of(sentence, ["query"]), prompt_of(sentence, ["document", "passage", "corpus"])
    write_json(folder, "expected.json", {"texts": TEXTS,
                                         "query": rounded(encoder.encode(TEXTS, prompt=query, normalize_embeddings=True)),
                                         "document": rounded(encoder.encode(TEXTS, prompt=document, normalize_embeddings=True))})
    if "prefix" in more:
        rename(folder, more["prefix"])


def make_reranker(name, seed):
    model, tokenizer, dtype = RERANKERS[name]
    folder = os.path.join(HERE, name)
    t = tokenizer()
    t.model_max_length = 40  # where the model's own limit is read from
    write_model(folder, model(), t, dtype, seed)
    ranker = CrossEncoder(folder, device="cpu", model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"})
    queries = [TEXTS[0], TEXTS[5] * 2, ""]  # the second is cut, too
    scores = [ranker.predict([(q, p) for p in PASSAGES], activation_fn=torch.nn.Sigmoid()) for q in queries]
    write_json(folder, "expected.json", {"queries": queries, "passages": PASSAGES,
                                         "scores": [[round(float(s), 7) for s in row] for row in scores]})


def main():
    names = [*ENCODERS, *RERANKERS]
    for name in sys.argv[1:] or names:
        make = make_encoder if name in ENCODERS else make_reranker
        make(name, 1000 + names.index(name))
        for spare in ("special_tokens_map.json", "README.md"):
            if os.path.exists(os.path.join(HERE, name, spare)):
                os.remove(os.path.join(HERE, name, spare))
        print(name)


if __name__ == "__main__":
    main()
