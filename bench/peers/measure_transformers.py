"""transformers on the same folder, each measurement as one JSON object a line.

    python measure_transformers.py FOLDER decode --batches 1,8 --context 512 [--steps N]
    python measure_transformers.py FOLDER serve [--requests N]
    python measure_transformers.py FOLDER greedy OUT [--prompts N] [--dtype float32]

decode: a static cache and a compiled step (torch.compile, mode reduce-overhead, drawing included),
or where that fails generate() with a static cache; seconds a step, as medians of runs of steps that
wait for the device once. serve: its continuous batching, 450 random tokens in and 234 out, all given
at once. greedy: answers of 64 tokens to random prompts of 64, with the gap between the two best
logits of every step, for compare_greedy.py; in f32 by default, so that the differences are ours.
--device cpu tries everything out without a GPU.
"""

import argparse
import inspect
import json
import os
import statistics
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM

WARM, CHUNK = 4, 512


def say(**what):
    print(json.dumps({**what, "transformers": transformers.__version__,
                      "torch": torch.__version__}), flush=True)


def load(options, dtype):
    names = inspect.signature(AutoModelForCausalLM.from_pretrained).parameters
    key = "dtype" if "dtype" in names or int(transformers.__version__.split(".")[0]) >= 5 \
        else "torch_dtype"
    model = AutoModelForCausalLM.from_pretrained(options.folder, **{key: dtype})
    return model.to(options.device).eval()


def wait(options):
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def make_cache(model, batch, length, options):
    """StaticCache, whose arguments changed between versions."""
    wanted = {"config": model.config, "max_cache_len": length, "max_batch_size": batch,
              "batch_size": batch, "device": options.device, "dtype": model.dtype}
    taken = inspect.signature(transformers.StaticCache.__init__).parameters
    return transformers.StaticCache(**{k: v for k, v in wanted.items() if k in taken})


class Steps:
    """Decoding with a static cache; position is a tensor, so one graph serves all steps."""

    def __init__(self, model, batch, context, steps, options):
        self.model, self.options = model, options
        vocab = model.config.vocab_size
        self.cache = make_cache(model, batch, context + steps + 8, options)
        self.has_position = "cache_position" in inspect.signature(model.forward).parameters
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(vocab, (batch, context), generator=generator).to(options.device)
        for at in range(0, context, CHUNK):
            piece = ids[:, at:at + CHUNK]
            last = self.forward(piece, torch.arange(at, at + piece.shape[1],
                                                    device=options.device))
        self.ids = last.clone()
        self.position = torch.tensor([context], device=options.device)
        self.step = self.forward
        if options.compile:
            self.step = torch.compile(self.forward, mode="reduce-overhead", fullgraph=True,
                                      dynamic=False)

    def forward(self, ids, position):
        more = {"cache_position": position} if self.has_position else {}
        logits = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True,
                            position_ids=position[None].expand(ids.shape[0], -1),
                            logits_to_keep=1, **more).logits
        return logits[:, -1].argmax(-1, keepdim=True)

    def run(self, count):
        for _ in range(count):
            # Before each step: what the last one gave is in memory of its graph.
            torch.compiler.cudagraph_mark_step_begin()
            self.ids = self.step(self.ids, self.position).clone()
            self.position = self.position + 1


def time_runs(run, options):
    run(WARM)  # compiles, and records its graph
    wait(options)
    runs, each = [], max(1, options.steps // 4)
    for _ in range(4):
        begin = time.perf_counter()
        run(each)
        wait(options)
        runs.append((time.perf_counter() - begin) / each)
    return runs


def generate_times(model, batch, context, options):
    """generate() with a static cache: the difference of two lengths is free of the prompt."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(model.config.vocab_size, (batch, context), generator=generator)
    ids = ids.to(options.device)

    def once(tokens):
        begin = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                       max_new_tokens=tokens, min_new_tokens=tokens,
                       cache_implementation="static", pad_token_id=0)
        wait(options)
        return time.perf_counter() - begin

    short, long = 8, 8 + options.steps
    once(long)
    once(short)
    return [(once(long) - once(short)) / options.steps for _ in range(3)]


@torch.no_grad()
def measure_decode(options):
    model = load(options, torch.bfloat16)
    for batch in options.batches:
        for way in ("static cache" + (", compiled" if options.compile else ""), "generate()"):
            try:
                torch.compiler.reset()
                if way == "generate()":
                    times = generate_times(model, batch, options.context, options)
                else:
                    steps = Steps(model, batch, options.context, WARM + options.steps, options)
                    times = time_runs(steps.run, options)
            except Exception as failure:  # whatever this version cannot do, the others go on
                say(mode="decode", batch=batch, context=options.context, way=way,
                    failed=f"{type(failure).__name__}: {str(failure)[:300]}")
                continue
            say(mode="decode", batch=batch, context=options.context, way=way, times=times,
                seconds=statistics.median(times))
            break


@torch.no_grad()  # inference mode does not reach its thread
def measure_serve(options):
    model = load(options, torch.bfloat16)
    if not hasattr(model, "generate_batch"):
        say(mode="serve", failed="this version has no continuous batching")
        return
    generator = torch.Generator().manual_seed(1)
    vocab = model.config.vocab_size
    prompts = torch.randint(vocab - 2, (options.requests, options.prompt), generator=generator)
    config = transformers.GenerationConfig(max_new_tokens=options.answer, do_sample=False,
                                           eos_token_id=vocab - 1, pad_token_id=0)
    rates = []
    for _ in range(2):
        begin = time.perf_counter()
        outputs = model.generate_batch(inputs=prompts.tolist(), generation_config=config)
        wait(options)
        seconds = time.perf_counter() - begin
        tokens = sum(len(one.generated_tokens) for one in outputs.values())
        if tokens == 0:
            say(mode="serve", failed="its continuous batching gave no token")
            return
        rates.append(tokens / seconds)
        say(mode="serve", requests=options.requests, rates=rates, tokens_per_second=max(rates),
            answers_per_second=max(rates) / options.answer)  # the last line counts


@torch.no_grad()
def measure_greedy(options):
    torch.backends.cuda.matmul.allow_tf32 = False
    model = load(options, getattr(torch, options.dtype))
    generator = torch.Generator().manual_seed(options.seed)
    vocab = model.config.vocab_size
    if options.source is None:
        prompts = torch.randint(vocab - 2, (options.prompts, 64), generator=generator)
    else:
        prompts = text_prompts(options, generator)
    found = []
    for group in prompts.split(25):
        ids = group.to(options.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             repetition_penalty=1.0, max_new_tokens=64, pad_token_id=0,
                             output_logits=True, return_dict_in_generate=True)
        best = torch.stack([logits.float().topk(2).values for logits in out.logits], 1)
        gaps = (best[..., 0] - best[..., 1]).tolist()
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        for i, prompt in enumerate(group.tolist()):
            answer = out.sequences[i, ids.shape[1]:].tolist()
            end = next((at for at, one in enumerate(answer) if one in ends), len(answer))
            # lore does not report the token that ends a text; the step that drew it has a gap.
            found.append({"ids": prompt, "answer": answer[:end], "gaps": gaps[i][:end + 1]})
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "theirs.json"), "w", encoding="utf-8") as file:
        json.dump({"prompts": found, "dtype": options.dtype}, file)
    with open(os.path.join(options.out, "prompts.jsonl"), "w", encoding="utf-8") as file:
        for one in found:
            file.write(json.dumps({"ids": one["ids"]}) + "\n")
    say(mode="greedy", prompts=len(found), dtype=options.dtype)


def text_prompts(options, generator):
    """Pieces of a text at random places, in the folder's own tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
    with open(options.source, encoding="utf-8") as file:
        ids = torch.tensor(tokenizer(file.read(), add_special_tokens=False)["input_ids"])
    starts = torch.randint(len(ids) - 64, (options.prompts,), generator=generator)
    return torch.stack([ids[at:at + 64] for at in starts.tolist()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder")
    parser.add_argument("mode", choices=["decode", "serve", "greedy"])
    parser.add_argument("out", nargs="?", help="greedy: folder for theirs.json and prompts.jsonl")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--prompt", type=int, default=450)
    parser.add_argument("--answer", type=int, default=234)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--text", dest="source", help="greedy: prompts from this file's text")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.batches = [int(one) for one in options.batches.split(",")]
    if options.mode == "greedy" and options.out is None:
        parser.error("greedy needs a folder to write to")
    measure = {"decode": measure_decode, "serve": measure_serve, "greedy": measure_greedy}
    try:
        measure[options.mode](options)
    except Exception as failure:  # said in the same form, so that a table has words for it
        say(mode=options.mode, failed=f"{type(failure).__name__}: {str(failure)[:300]}")
        sys.exit(3)


if __name__ == "__main__":
    main()
