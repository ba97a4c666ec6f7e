"""llama.cpp through llama-cpp-python: times of prefill or decode steps, as one JSON object.

    python measure_llama.py GGUF decode|prefill --threads N [--streams N] [--prompt N] [--steps N]

Does what `lore bench` does: a prompt in one step; or so many streams behind their prompts, one
token of each in a step. A step is timed until its logits are there; drawing a token, which lore
times too, is not. Keys and values are f16, flash attention is llama.cpp's choice. The library's
Python layer is not in the way: one call of a C function a step.
Needs: llama-cpp-python.
"""

import argparse
import json
import os
import sys
import time

import llama_cpp as llama

WARM = 3


class Decoder:
    def __init__(self, path, threads, streams, prompt, steps):
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(
            path.encode(), llama.llama_model_default_params())
        assert self.model, f"llama.cpp does not open {path}"
        params = llama.llama_context_default_params()
        params.n_ctx = streams * -(-(prompt + steps + WARM) // 256) * 256
        params.n_batch = params.n_ubatch = max(prompt, streams)
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        assert self.context, "llama.cpp makes no context"
        self.batch = llama.llama_batch_init(max(prompt, streams), 0, 1)

    def step(self, rows):
        """rows: (token, position, stream, wants logits). Gives seconds."""
        self.batch.n_tokens = len(rows)
        for i, (token, position, stream, wants_logits) in enumerate(rows):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = stream
            self.batch.logits[i] = wants_logits
        begin = time.perf_counter()
        code = llama.llama_decode(self.context, self.batch)
        llama.llama_synchronize(self.context)
        assert code == 0, f"llama_decode: {code}"
        return time.perf_counter() - begin

    def prompt(self, stream, count):
        return self.step([(1000 * stream + i, i, stream, i + 1 == count) for i in range(count)])

    def forget(self):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf")
    parser.add_argument("mode", choices=["decode", "prefill"])
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    options = parser.parse_args()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the loader's log
    decoder = Decoder(options.gguf, options.threads, options.streams, options.prompt, options.steps)
    times = []
    if options.mode == "prefill":
        for _ in range(options.steps + 1):
            decoder.forget()
            times.append(decoder.prompt(0, options.prompt))
        times = times[1:]
    else:
        for stream in range(options.streams):
            decoder.prompt(stream, options.prompt)
        for i in range(WARM + options.steps):
            times.append(decoder.step([(7 * i + stream, options.prompt + i, stream, True)
                                       for stream in range(options.streams)]))
        times = times[WARM:]
    print(json.dumps({"times": times, "weights": os.path.getsize(options.gguf),
                      "version": llama.__version__,
                      "system": llama.llama_print_system_info().decode()}))


if __name__ == "__main__":
    main()
