"""Train the embedded default encoder (BERT architecture, mean pooling) contrastively, on one GPU.

    python train_enc.py WORK SECONDS OUT

Batches are unions of runs of neighbouring pairs of prep.py, so that a question's negatives come from
the same documents. Passages are embedded in chunks without a graph, and again with the gradient that the loss
gave them (GradCache, Gao et al. 2021). OUT gets a sentence-transformers folder in bf16, OUT/int8 the tensors that
the program ships. At the end nDCG@10 and recall@10 are printed for every WORK/ir-*/ (docs.jsonl,
queries.jsonl, qrels.tsv).
"""

import argparse
import glob
import json
import math
import os
import queue
import threading
import time

import numpy as np
import torch
import torch.nn.functional as F

DEVICE = "cuda"
BOS, EOS, PAD = 0, 2, 3

# the model
VOCAB = 24576
WIDTH = 384
LAYERS = 6
HEADS = 6
FFN = 1536
POSITIONS = 512
TOKENS_MAX = 256

# the training
BATCH = 4096
RUN = 16  # neighbouring pairs that stay together
QUESTION_TOKENS = 48
PASSAGE_TOKENS = 224
PASSAGE_CHUNKS = 4
LR = 1e-3
WARMUP_STEPS = 150
DECAY_FROM = 0.3
SCALE = 30.0  # of cosines, in the loss


def make_model():
    """An untrained BERT and its configuration."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        max_position_embeddings=POSITIONS,
        pad_token_id=PAD,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False).to(DEVICE), config


def make_embed(model):
    """A function from padded ids and mask to unit vectors."""

    def embed(ids, mask):
        with torch.autocast("cuda", torch.bfloat16):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (hidden.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=-1)

    return embed


def pad(sequences, length):
    """ids and mask [n, length]: begin, as much of the sequence as fits, end."""
    ids = np.full((len(sequences), length), PAD, np.int64)
    mask = np.zeros((len(sequences), length), np.int64)
    for i, s in enumerate(sequences):
        s = s[: length - 2]
        ids[i, 0] = BOS
        ids[i, 1 : len(s) + 1] = s
        ids[i, len(s) + 1] = EOS
        mask[i, : len(s) + 2] = 1
    return torch.from_numpy(ids).to(DEVICE), torch.from_numpy(mask).to(DEVICE)


def start_loader(work):
    """A queue that a thread fills with (questions, passages) of one batch."""
    data = np.load(f"{work}/pairs.npz")
    tokens, ql, pl = data["tokens"], data["ql"], data["pl"]
    starts = np.concatenate([[0], np.cumsum(ql + pl, dtype=np.int64)])
    count = len(ql)
    print("pairs", count, flush=True)
    rng = np.random.RandomState(0)
    batches = queue.Queue(6)

    def load():
        while True:
            runs = rng.permutation(count // RUN)
            for i in range(0, len(runs) - BATCH // RUN, BATCH // RUN):
                chosen = (runs[i : i + BATCH // RUN, None] * RUN + np.arange(RUN)).ravel()
                questions = [tokens[starts[j] : starts[j] + ql[j]] for j in chosen]
                passages = [tokens[starts[j] + ql[j] : starts[j + 1]] for j in chosen]
                batches.put((questions, passages))

    threading.Thread(target=load, daemon=True).start()
    return batches


def learning_rate(step, done):
    """Warm-up by steps, then decay by the part of the time that is done."""
    decay = 1 if done < DECAY_FROM else max(0.02, (1 - done) / (1 - DECAY_FROM))
    return LR * min(1, (step + 1) / WARMUP_STEPS) * decay


def make_optimizer(model):
    """AdamW; vectors are not decayed."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.98), fused=True)


def contrast(embed, questions, passages, labels):
    """Gradients of one batch into the model. Gives the loss and the scores."""
    size = BATCH // PASSAGE_CHUNKS
    chunks = [slice(i, i + size) for i in range(0, BATCH, size)]
    with torch.no_grad():
        vectors = torch.cat([embed(passages[0][c], passages[1][c]) for c in chunks])
    vectors.requires_grad_(True)
    scores = embed(*questions) @ vectors.T * SCALE
    loss = (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels)) / 2
    loss.backward()
    for c in chunks:
        (embed(passages[0][c], passages[1][c]) * vectors.grad[c]).sum().backward()
    return loss, scores


def train(work, seconds, model):
    """Until the time is over."""
    embed = torch.compile(make_embed(model), dynamic=False)
    batches = start_loader(work)
    optimizer = make_optimizer(model)
    embed(*pad([np.arange(9)] * BATCH, QUESTION_TOKENS))
    embed(*pad([np.arange(9)] * (BATCH // PASSAGE_CHUNKS), PASSAGE_TOKENS))
    labels = torch.arange(BATCH, device=DEVICE)
    started = last = time.time()
    step = 0
    while (done := (time.time() - started) / seconds) < 1:
        questions, passages = batches.get()
        questions, passages = pad(questions, QUESTION_TOKENS), pad(passages, PASSAGE_TOKENS)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, done)
        loss, scores = contrast(embed, questions, passages, labels)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            accuracy = (scores.argmax(1) == labels).float().mean()
            now = time.time()
            print(
                f"step {step} t {now-started:.0f} loss {float(loss):.3f} "
                f"accuracy {float(accuracy):.3f} pairs/s {50*BATCH/(now-last):.0f}",
                flush=True,
            )
            last = now


def write_json(path, content):
    """Indented by one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def write_tokenizer(work, out):
    """The decoder's tokenizer, with the encoder's special tokens round every text."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(f"{work}/tok/tokenizer.json")
    begin, end = tokenizer.id_to_token(BOS), tokenizer.id_to_token(EOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B {end}",
        special_tokens=[(begin, BOS), (end, EOS)],
    )
    tokenizer.save(f"{out}/tokenizer.json")


def write_folder(work, out, config):
    """Everything of a sentence-transformers folder but the weights."""
    config.architectures = ["BertModel"]
    config.save_pretrained(out)
    write_tokenizer(work, out)
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write_json(f"{out}/modules.json", modules)
    pooling = {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
    }
    write_json(f"{out}/1_Pooling/config.json", pooling)
    sentence = {"max_seq_length": TOKENS_MAX, "do_lower_case": False}
    write_json(f"{out}/sentence_bert_config.json", sentence)


def quantise(state):
    """int8 per row: X becomes int8 X and f32 X_scale; vectors become bf16."""
    out = {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and min(tensor.shape) > 1:
            scale = tensor.abs().amax(1).clamp(min=1e-8) / 127
            out[name] = torch.round(tensor / scale[:, None]).to(torch.int8)
            out[name + "_scale"] = scale
        else:
            out[name] = tensor.bfloat16().contiguous()
    return out


def export(work, out, model, config):
    """OUT in bf16, OUT/int8."""
    from safetensors.torch import save_file

    state = {
        name: tensor.detach().float().cpu()
        for name, tensor in model.state_dict().items()
        if "position_ids" not in name
    }
    os.makedirs(f"{out}/int8", exist_ok=True)
    full = {name: tensor.bfloat16().contiguous() for name, tensor in state.items()}
    note = "int8 per row, weight = int8 * scale[row]"
    save_file(full, f"{out}/model.safetensors", metadata={"format": "pt"})
    save_file(
        quantise(state),
        f"{out}/int8/model.safetensors",
        metadata={"format": "pt", "quantization": note},
    )
    write_folder(work, out, config)


@torch.no_grad()
def encode(tokenizer, embed, texts, length):
    """Vectors of texts, each cut at `length` tokens."""
    vectors = []
    for i in range(0, len(texts), 512):
        batch = [text or " " for text in texts[i : i + 512]]
        encoded = tokenizer.encode_batch(batch, add_special_tokens=False)
        vectors.append(embed(*pad([np.array(e.ids) for e in encoded], length)))
    return torch.cat(vectors)


def read_lines(path):
    """Objects of a JSONL file."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_judgements(path):
    """{query: {document: gain}} of a TREC or BEIR file."""
    relevant = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            fields = line.split("\t")
            if len(fields) >= 3 and fields[0] not in ("query-id", "query_id", "qid"):
                document = fields[1] if len(fields) == 3 else fields[2]
                relevant.setdefault(fields[0], {})[document] = float(fields[-1])
    return relevant


def discounted(gains):
    """Discounted cumulative gain (Jarvelin, Kekalainen 2002)."""
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))


def evaluate(tokenizer, embed, folder):
    """Print nDCG@10 and recall@10 of dense retrieval alone."""
    docs, queries = read_lines(f"{folder}/docs.jsonl"), read_lines(f"{folder}/queries.jsonl")
    judgements = read_judgements(f"{folder}/qrels.tsv")
    titled = [(d.get("title") or "") + "\n" + d["text"] for d in docs]
    doc_vectors = encode(tokenizer, embed, titled, TOKENS_MAX)
    query_vectors = encode(tokenizer, embed, [q["text"] for q in queries], 96)
    top = (query_vectors @ doc_vectors.T).topk(10).indices.tolist()
    ndcg = recall = count = 0
    for query, ranked in zip(queries, top):
        gains = {d: g for d, g in judgements.get(str(query["id"]), {}).items() if g > 0}
        if not gains:
            continue
        count += 1
        found = [gains.get(str(docs[i]["id"]), 0) for i in ranked]
        ideal = sorted(gains.values(), reverse=True)[:10]
        ndcg += discounted(found) / discounted(ideal)
        recall += sum(g > 0 for g in found) / len(gains)
    if count:
        print(
            f"{folder}: docs {len(docs)} queries {count} "
            f"nDCG@10 {ndcg/count:.3f} recall@10 {recall/count:.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", help="work folder that prep.py has filled")
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", help="folder of the model")
    args = parser.parse_args()
    from tokenizers import Tokenizer

    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    model, config = make_model()
    print("params", sum(p.numel() for p in model.parameters()) / 1e6, "M", flush=True)
    train(args.work, args.seconds, model)
    model.eval()
    export(args.work, args.out, model, config)
    tokenizer = Tokenizer.from_file(f"{args.work}/tok/tokenizer.json")
    for folder in sorted(glob.glob(f"{args.work}/ir-*")):
        evaluate(tokenizer, make_embed(model), folder)
    with open(f"{args.out}/DONE", "w", encoding="ascii") as file:
        file.write("1")


if __name__ == "__main__":
    main()
