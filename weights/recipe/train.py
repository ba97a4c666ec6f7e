"""Train the embedded default decoder (Qwen3 architecture) on one GPU within a wall-clock budget.

    python train.py WORK SECONDS OUT

Phase 1 reads the language-model stream; from PHASE2 of the time on, three of four micro-batches are
grounded examples, at the end all, while the learning rate decays to zero. Start it together with prep.py: it
compiles meanwhile and waits for the data. OUT gets a Hugging Face checkpoint in bf16, OUT/int8 the one that
the program ships, OUT/deq the int8 values as bf16, for evaluation with transformers.

Matrices inside the blocks are trained with Muon (orthogonalised momentum), all else with AdamW.
"""

import argparse
import json
import math
import os
import shutil
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DEVICE = "cuda"

# the model
VOCAB = 24576
WIDTH = 512
LAYERS = 12
HEADS = 8
KV_HEADS = 2
HEAD_DIM = 64
FFN = 1536
CONTEXT = 2048
THETA = 10000.0
EPS = 1e-6
PAD = 3

# the training
BUCKETS = [256, 512, 1024]  # lengths that grounded examples are padded to
STREAM_LENGTH = 1024
MICRO_BATCH = 64512  # tokens
ACCUMULATE = 4
PHASE2 = 0.42
ONLY_GROUNDED = 0.9
PROMPT_WEIGHT = 0.1  # loss on the tokens of a prompt; 1 on those of its answer
MUON_LR = 0.02
ADAM_LR = 3e-3
WARMUP_STEPS = 100
DECAY_FROM = 0.45
VALIDATION = 512

CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Block(nn.Module):
    """One layer; weights are f32, the computation bf16."""

    def __init__(self):
        super().__init__()

        def linear(inputs, outputs, is_zero=False):
            scale = 0.5 / math.sqrt(inputs)
            start = (
                torch.zeros(outputs, inputs) if is_zero else torch.randn(outputs, inputs) * scale
            )
            return nn.Parameter(start)

        self.ln1, self.ln2 = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.qn, self.kn = nn.Parameter(torch.ones(HEAD_DIM)), nn.Parameter(torch.ones(HEAD_DIM))
        self.q = linear(WIDTH, HEADS * HEAD_DIM)
        self.k = linear(WIDTH, KV_HEADS * HEAD_DIM)
        self.v = linear(WIDTH, KV_HEADS * HEAD_DIM)
        self.o = linear(HEADS * HEAD_DIM, WIDTH, True)
        self.g = linear(WIDTH, FFN)
        self.u = linear(WIDTH, FFN)
        self.d = linear(FFN, WIDTH, True)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        bf = torch.bfloat16
        h = F.rms_norm(x, (WIDTH,), self.ln1.to(x.dtype), EPS)
        q = F.linear(h, self.q.to(bf)).view(batch, length, HEADS, HEAD_DIM)
        k = F.linear(h, self.k.to(bf)).view(batch, length, KV_HEADS, HEAD_DIM)
        v = F.linear(h, self.v.to(bf)).view(batch, length, KV_HEADS, HEAD_DIM)
        q = rotate(F.rms_norm(q, (HEAD_DIM,), self.qn.to(bf), EPS), cos, sin)
        k = rotate(F.rms_norm(k, (HEAD_DIM,), self.kn.to(bf), EPS), cos, sin)
        a = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
        )
        a = a.transpose(1, 2).reshape(batch, length, HEADS * HEAD_DIM)
        x = x + F.linear(a, self.o.to(bf))
        h = F.rms_norm(x, (WIDTH,), self.ln2.to(x.dtype), EPS)
        gate, up = F.linear(h, self.g.to(bf)), F.linear(h, self.u.to(bf))
        return x + F.linear(F.silu(gate) * up, self.d.to(bf))


def rotate(x, cos, sin):
    """Rotary position embedding, halves against each other."""
    half = HEAD_DIM // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


class LanguageModel(nn.Module):
    """Decoder with tied embeddings; forward gives the weighted mean loss."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Parameter(torch.randn(VOCAB, WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln = nn.Parameter(torch.ones(WIDTH))
        frequency = 1.0 / THETA ** (torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        angle = torch.outer(torch.arange(CONTEXT).float(), frequency)
        angle = torch.cat((angle, angle), -1)
        self.register_buffer("cos", angle.cos().bfloat16()[None, :, None])
        self.register_buffer("sin", angle.sin().bfloat16()[None, :, None])

    def forward(self, ids, targets, weights):
        length = ids.shape[1]
        x = F.embedding(ids, self.emb).bfloat16()
        for block in self.blocks:
            x = block(x, self.cos[:, :length], self.sin[:, :length])
        x = F.rms_norm(x, (WIDTH,), self.ln.to(x.dtype), EPS)
        logits = F.linear(x, self.emb.bfloat16()).float()
        loss = F.cross_entropy(logits.view(-1, VOCAB), targets.reshape(-1), reduction="none")
        return (loss * weights.reshape(-1)).sum() / weights.sum().clamp(min=1)


@torch.compile
def orthogonalise(matrices):
    """Newton-Schulz iteration of Muon: the nearest (nearly) orthogonal matrices."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    is_tall = x.size(-2) > x.size(-1)
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Optimizer:
    """Muon for the matrices of the blocks, stacked by shape; AdamW for the rest."""

    def __init__(self, model):
        self.matrices = {}
        others = []
        for name, p in model.named_parameters():
            if p.ndim == 2 and "blocks" in name:
                self.matrices.setdefault(tuple(p.shape), []).append(p)
            elif p is not model.emb:
                others.append(p)
        self.momentum = {
            shape: torch.zeros(len(ps), *shape, device=DEVICE)
            for shape, ps in self.matrices.items()
        }
        groups = [{"params": [model.emb], "lr": ADAM_LR}, {"params": others, "lr": ADAM_LR}]
        self.adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, number, lr):
        """lr: share of the peak learning rates."""
        momentum = 0.85 + 0.1 * min(1, number / 300)
        for shape, ps in self.matrices.items():
            grads = torch.stack([p.grad for p in ps])
            self.momentum[shape].lerp_(grads, 1 - momentum)
            updates = orthogonalise(grads.lerp(self.momentum[shape], momentum)).float()
            scale = MUON_LR * lr * max(1, shape[0] / shape[1]) ** 0.5
            for i, p in enumerate(ps):
                p.data.mul_(1 - MUON_LR * lr * 0.01).add_(updates[i], alpha=-scale)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_LR * lr
        self.adam.step()


def wait_for(path):
    """Until prep.py has written it."""
    while not os.path.exists(path):
        time.sleep(0.5)


def to_device(x):
    """A numpy array on the GPU, without waiting for it."""
    return torch.from_numpy(x).pin_memory().to(DEVICE, non_blocking=True)


class Stream:
    """Micro-batches of the language-model stream, in a fixed random order of its rows."""

    def __init__(self, work):
        wait_for(f"{work}/lm.done")
        self.tokens = np.memmap(f"{work}/lm.bin", dtype=np.uint16, mode="r")
        self.rows = (len(self.tokens) - 1) // STREAM_LENGTH
        self.order = np.random.RandomState(1).permutation(self.rows)
        self.next = 0

    def batch(self):
        """ids, targets, weights"""
        n = MICRO_BATCH // STREAM_LENGTH
        rows = self.order[[(self.next + i) % self.rows for i in range(n)]]
        self.next += n
        starts = [r * STREAM_LENGTH for r in rows]
        x = np.stack([self.tokens[s : s + STREAM_LENGTH + 1] for s in starts]).astype(np.int64)
        x = to_device(x)
        return x[:, :-1], x[:, 1:], torch.ones(n, STREAM_LENGTH, device=DEVICE)


class Grounded:
    """Micro-batches of grounded examples, each of one bucket of lengths."""

    def __init__(self, work):
        wait_for(f"{work}/sft.done")
        data = np.load(f"{work}/sft.npz")
        self.tokens, self.lengths, self.prompts = data["tokens"], data["lens"], data["plens"]
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        order = np.random.RandomState(0).permutation(len(self.lengths))
        self.validation, self.order = order[:VALIDATION], order[VALIDATION:]
        self.queues = {bucket: [] for bucket in BUCKETS}
        self.seen = 0
        print("sft examples", len(self.lengths), flush=True)

    def pack(self, examples, length, prompt_weight):
        """Padded examples; the answer's tokens count fully, the prompt's by prompt_weight."""
        x = np.full((len(examples), length + 1), PAD, np.int64)
        weights = np.zeros((len(examples), length), np.float32)
        for row, i in enumerate(examples):
            n = self.lengths[i]
            x[row, :n] = self.tokens[self.starts[i] : self.starts[i] + n]
            weights[row, : n - 1] = prompt_weight
            weights[row, self.prompts[i] - 1 : n - 1] = 1.0
        x = to_device(x)
        return x[:, :-1], x[:, 1:], torch.from_numpy(weights).to(DEVICE)

    def batch(self):
        """The next bucket that is full."""
        while True:
            i = self.order[self.seen % len(self.order)]
            self.seen += 1
            if self.lengths[i] > BUCKETS[-1]:
                continue
            bucket = next(b for b in BUCKETS if self.lengths[i] <= b)
            queue = self.queues[bucket]
            queue.append(i)
            count = MICRO_BATCH // bucket
            if len(queue) >= count:
                self.queues[bucket] = queue[count:]
                return self.pack(queue[:count], bucket, PROMPT_WEIGHT)

    @torch.no_grad()
    def validate(self, model):
        """Print the loss on the answers of the validation examples."""
        losses = []
        shorter = 0
        for bucket in BUCKETS:
            chosen = [i for i in self.validation if shorter < self.lengths[i] <= bucket]
            shorter = bucket
            if chosen:
                losses.append((len(chosen), float(model(*self.pack(chosen[:64], bucket, 0.0)))))
        mean = sum(n * loss for n, loss in losses) / sum(n for n, _ in losses)
        print("val answer loss", mean, losses, flush=True)
        print("examples seen", self.seen, "of", len(self.order), flush=True)


def compile_shapes(model, compiled):
    """Run every shape once, while the data are being prepared."""
    for length in [STREAM_LENGTH] + BUCKETS:
        n = MICRO_BATCH // length
        x = torch.randint(0, VOCAB, (n, length + 1), device=DEVICE)
        compiled(x[:, :-1], x[:, 1:], torch.ones(n, length, device=DEVICE)).backward()
    model.zero_grad(set_to_none=True)
    print("compiled", flush=True)


def learning_rate(step, done):
    """Share of the peak: warm-up by steps, then by the part of the time that is done."""
    decay = 1.0 if done < DECAY_FROM else max(0.02, (1 - done) / (1 - DECAY_FROM))
    return min(1, (step + 1) / WARMUP_STEPS) * decay


def train(work, seconds, model):
    """Until the time is over."""
    compiled = torch.compile(model, dynamic=False)
    optimizer = Optimizer(model)
    compile_shapes(model, compiled)
    stream, grounded = Stream(work), None
    started = last = time.time()
    step = tokens = 0
    while True:
        done = (time.time() - started) / seconds
        if done >= PHASE2 and grounded is None:
            grounded = Grounded(work)
        if done >= 1:
            break
        losses = []
        count = 0
        for micro in range(ACCUMULATE):
            is_grounded = done >= ONLY_GROUNDED or (done >= PHASE2 and micro % 4 != 0)
            batch = grounded.batch() if is_grounded else stream.batch()
            loss = compiled(*batch)
            (loss / ACCUMULATE).backward()
            losses.append(loss.detach())
            tokens += batch[0].numel()
            count += is_grounded
        optimizer.step(step, learning_rate(step, done))
        model.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            torch.cuda.synchronize()
            now = time.time()
            speed = ACCUMULATE * MICRO_BATCH * 50 / (now - last) / 1e6
            shown = " ".join(f"{float(x):.3f}" for x in losses)
            print(
                f"step {step} t {now-started:.0f}s done {done:.2f} loss {shown} grounded {count} "
                f"{speed:.2f}M tokens/s, {tokens/1e6:.0f}M in all",
                flush=True,
            )
            last = now
    grounded.validate(model)


def state_of(model):
    """Tensors under their Hugging Face names."""
    names = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "g": "mlp.gate_proj",
        "u": "mlp.up_proj",
        "d": "mlp.down_proj",
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
        "qn": "self_attn.q_norm",
        "kn": "self_attn.k_norm",
    }
    state = {"model.embed_tokens.weight": model.emb, "model.norm.weight": model.ln}
    for i, block in enumerate(model.blocks):
        for ours, theirs in names.items():
            state[f"model.layers.{i}.{theirs}.weight"] = getattr(block, ours)
    return {name: tensor.detach().float().cpu() for name, tensor in state.items()}


def quantise(state):
    """int8 per row: X becomes int8 X and f32 X_scale; vectors become bf16."""
    out = {}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            scale = tensor.abs().amax(1).clamp(min=1e-8) / 127
            out[name] = torch.round(tensor / scale[:, None]).to(torch.int8)
            out[name + "_scale"] = scale
        else:
            out[name] = tensor.bfloat16()
    return out


def write_json(path, content):
    """Indented by one."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def write_config(work, out):
    """The small files of a Hugging Face folder."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "intermediate_size": FFN,
        "hidden_act": "silu",
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": PAD,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    write_json(f"{out}/config.json", config)
    ends = {"bos_token_id": 0, "eos_token_id": [2, 0], "pad_token_id": PAD}
    write_json(f"{out}/generation_config.json", ends)
    shutil.copy(f"{work}/tok/tokenizer.json", out)
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "model_max_length": CONTEXT,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(f"{out}/tokenizer_config.json", tokenizer)


def export(work, out, model):
    """OUT in bf16, OUT/int8, OUT/deq."""
    from safetensors.torch import save_file

    state = state_of(model)
    small = quantise(state)
    rounded = {
        name: (
            (small[name].float() * small[name + "_scale"][:, None]).bfloat16()
            if small[name].ndim == 2
            else small[name]
        )
        for name in state
    }
    os.makedirs(f"{out}/int8", exist_ok=True)
    os.makedirs(f"{out}/deq", exist_ok=True)
    full = {name: tensor.bfloat16().contiguous() for name, tensor in state.items()}
    note = "int8 per row, weight = int8 * scale[row]"
    save_file(full, f"{out}/model.safetensors", metadata={"format": "pt"})
    save_file(
        small, f"{out}/int8/model.safetensors", metadata={"format": "pt", "quantization": note}
    )
    save_file(rounded, f"{out}/deq/model.safetensors", metadata={"format": "pt"})
    write_config(work, out)
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        shutil.copy(f"{out}/{name}", f"{out}/deq")
    with open(f"{out}/DONE", "w", encoding="ascii") as file:
        file.write("1")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", help="work folder that prep.py fills")
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", help="folder of the checkpoint")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    model = LanguageModel().to(DEVICE)
    print("params", sum(p.numel() for p in model.parameters()) / 1e6, "M", flush=True)
    train(args.work, args.seconds, model)
    export(args.work, args.out, model)


if __name__ == "__main__":
    main()
