"""lore beside other programs: the same weights, the same machine, one after the other.

    python peers.py decoder MODELS --lore PATH [--threads N] [--rounds N] [--before "COMMAND"]
    python peers.py encoder MODELS --lore PATH [--threads N] [--rounds N] [--before "COMMAND"]
    python peers.py gpu-decoder FOLDER --lore PATH [--device cuda] [--batches 1,8] [--prompt N]
    python peers.py gpu-encoder FOLDER --lore PATH [--device cuda] [--tokens N]

The first two: llama.cpp and ONNX Runtime on a processor. MODELS is what make_qwen2.py (decoder) or make_minilm.py (encoder) wrote. Each measurement is a
process of its own that gives medians of many steps; lore and its peer take turns, ROUNDS times
each, so that what other machines do to the memory of this one meets both. Printed are the medians
over rounds, their range, and the median of the ratios of neighbouring runs. --before stands in
front of each measured command (taskset, numactl). Shares are of the read bandwidth that lore
measures beside each of its figures. The other two: transformers (a static cache and a compiled step)
and sentence-transformers on one folder of make_decoder.py or make_minilm.py; what the installed
version cannot do is said and the rest goes on.
Needs: llama-cpp-python, built here (pip's --no-binary, CMAKE_ARGS=-DGGML_NATIVE=ON); onnxruntime.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))  # where lore finds text for its prompts


class Failed(Exception):
    pass


def run(options, command):
    command = shlex.split(options.before) + command
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        tail = (done.stderr or done.stdout)[-800:]
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{tail}")
    return json.loads(done.stdout[done.stdout.index("{"):])


def figures(report, section):
    return {(one["name"], one.get("unit")): one for one in report[section]}


# ---- decoders ----

# Name, folder of lore, file of llama.cpp, what is done, streams, what the issue asks for.
DECODER_CASES = [
    ("decode, 1 stream, int8 / Q8_0", "int8", "q8_0.gguf", "decode", 1, 1.0),
    ("decode, 1 stream, int4 / Q4_0", "int4", "q4_0.gguf", "decode", 1, 1.0),
    ("decode, 16 streams, int8 / Q8_0", "int8", "q8_0.gguf", "decode", 16, 1.5),
    ("decode, 16 streams, int4 / Q4_0", "int4", "q4_0.gguf", "decode", 16, 1.5),
    ("prefill 512, int8 / Q8_0", "int8", "q8_0.gguf", "prefill", 1, 1.2),
    ("prefill 512, int4 / Q4_0", "int4", "q4_0.gguf", "prefill", 1, 1.2),
]


def lore_decoder(options, folder, mode, streams):
    tokens = "--prompt" if mode == "prefill" else "--context"
    command = [options.lore, "bench", mode, "--json", tokens, str(options.prompt),
               "--set", f"decoder={os.path.join(options.models, folder)}",
               "--set", f"threads={options.threads}",
               "--set", f"limits.batch_sequences_max={streams}"]
    if mode == "decode":
        command += ["--batch", str(streams)]
    report = run(options, command)
    found = figures(report, mode)
    if mode == "prefill":
        one = found[(f"{options.prompt} tokens", "tok/s")]
        return one["value"], one.get("share", 0.0), 0.0
    plural = "" if streams == 1 else "s"
    one = found[(f"{streams} stream{plural}, past {options.prompt}", "tok/s")]
    megabytes = found[("weights read for a token", "MB")]["value"]
    # The bandwidth of that moment, about: keys and values, which the share counts too, left out.
    bandwidth = megabytes * 1e6 * one["value"] / streams / one["share"]
    return one["value"], one["share"], bandwidth


def llama_decoder(options, file, mode, streams):
    report = run(options, [
        sys.executable, os.path.join(HERE, "measure_llama.py"),
        os.path.join(options.models, file), mode, "--threads", str(options.threads),
        "--streams", str(streams), "--prompt", str(options.prompt),
        "--steps", str(options.prefills if mode == "prefill" else options.steps)])
    tokens = options.prompt if mode == "prefill" else streams
    seconds = statistics.median(report["times"])
    return tokens / seconds, report["weights"] / seconds, report


def spread(values):
    return f"{statistics.median(values):8.1f} ({min(values):.1f} to {max(values):.1f})"


def decoder_case(options, case):
    name, folder, file, mode, streams, bar = case
    ours, theirs, our_shares, their_shares, system = [], [], [], [], None
    for _ in range(options.rounds):
        rate, share, bandwidth = lore_decoder(options, folder, mode, streams)
        ours.append(rate)
        our_shares.append(share)
        rate, read_rate, report = llama_decoder(options, file, mode, streams)
        theirs.append(rate)
        their_shares.append(read_rate / bandwidth if bandwidth > 0 else 0.0)
        system = report
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    print(f"{name:34} lore {spread(ours)}  llama.cpp {spread(theirs)} tok/s  "
          f"{ratio:5.2f}x (asked: {bar:.1f})")
    limit = "multiply rate" if mode == "prefill" else "read bandwidth"
    line = f"{'':34} lore {100 * statistics.median(our_shares):.0f} % of the {limit}"
    if mode == "decode":
        line += f", llama.cpp {100 * statistics.median(their_shares):.0f} %"
    print(line, flush=True)
    return system


def decoders(options):
    system = None
    for case in DECODER_CASES:
        if options.only in case[0]:
            system = decoder_case(options, case)
    if system is not None:
        print(f"llama-cpp-python {system['version']}: {system['system']}")


# ---- encoders ----

# Precision of lore, file of ONNX Runtime, what the issue asks for (0: nothing).
ENCODER_CASES = [("int8", "f32.onnx", 4.0), ("int8", "int8.onnx", 1.2), ("bf16", "f32.onnx", 0.0),
                 ("f32", "f32.onnx", 0.0)]


def lore_encoder(options, precision):
    report = run(options, [
        options.lore, "bench", "encode", "--json", "--chunk", str(options.tokens),
        "--set", f"encoder={os.path.join(options.models, 'minilm')}",
        "--set", f"precision={precision}", "--set", f"threads={options.threads}"])
    name = f"chunks of {options.tokens} tokens, 32 at a time"
    return figures(report, "encode")[(name, "chunks/s")]["value"]


def onnx_encoder(options, file):
    report = run(options, [
        sys.executable, os.path.join(HERE, "measure_onnx.py"), os.path.join(options.models, file),
        "--threads", str(options.threads), "--tokens", str(options.tokens)])
    return report["texts"] / statistics.median(report["times"]), report["version"]


def encoder_case(options, case):
    precision, file, bar = case
    ours, theirs, version = [], [], None
    for _ in range(options.rounds):
        ours.append(lore_encoder(options, precision))
        rate, version = onnx_encoder(options, file)
        theirs.append(rate)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    name = f"encode 32 x {options.tokens}, {precision} / {file}"
    asked = f" (asked: {bar:.1f})" if bar > 0 else ""
    print(f"{name:34} lore {spread(ours)}  ONNX Runtime {spread(theirs)} texts/s  "
          f"{ratio:5.2f}x{asked}", flush=True)
    return version


def encoders(options):
    version = None
    for case in ENCODER_CASES:
        if options.only in case[0]:
            version = encoder_case(options, case)
    if version is not None:
        print(f"onnxruntime {version}")


# ---- beside transformers, on a GPU or a processor ----


def lines(command):
    """The JSON objects that a program writes; what it cannot do is an object with "failed"."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        found = [{"failed": f"exit {done.returncode}: {(done.stderr or done.stdout)[-300:]}"}]
    return found


def lore_step(options, batch):
    """Milliseconds of a step, and how many times the floor."""
    report = run(options, [
        options.lore, "bench", "decode", "--json", "--device", options.device, "--batch",
        str(batch), "--context", str(options.prompt), "--set", f"decoder={options.models}"])
    step = figures(report, "decode")[("  a step", "ms")]
    return step["value"], step["ratio"]


def gpu_decoders(options):
    version = ""
    for batch in (int(one) for one in options.batches.split(",")):
        ours, floors, theirs, way = [], [], [], ""
        for _ in range(options.rounds):
            time, ratio = lore_step(options, batch)
            ours.append(time)
            floors.append(ratio)
            print(f"  lore {time:.3f} ms, {ratio:.2f}x of the floor", flush=True)
            for one in lines([sys.executable, os.path.join(HERE, "measure_transformers.py"),
                              options.models, "decode", "--device", options.device, "--batches",
                              str(batch), "--context", str(options.prompt),
                              "--steps", str(options.steps)] + options.eager):
                if "failed" in one:
                    print(f"  transformers, {one.get('way', '')}: {one['failed']}", flush=True)
                else:
                    theirs.append(one["seconds"] * 1e3)
                    way, version = one["way"], f"transformers {one['transformers']}, torch {one['torch']}"
        line = f"decode, {batch} at {options.prompt:<5} lore {spread(ours)} ms, " \
               f"{statistics.median(floors):.2f}x of the floor"
        if theirs:
            ratio = statistics.median(theirs) / statistics.median(ours)
            line += f"  transformers ({way}) {spread(theirs)} ms  {ratio:5.2f}x"
        print(line, flush=True)
    print(version)


def gpu_encoder(options):
    report = run(options, [
        options.lore, "bench", "encode", "--json", "--device", options.device, "--chunk",
        str(options.tokens), "--set", f"encoder={options.models}"])
    ours = next(one["value"] for (name, unit), one in figures(report, "encode").items()
                if unit == "chunks/s" and name)
    print(f"encode {options.tokens} tokens: lore {ours:.0f} texts/s", flush=True)
    found = lines([sys.executable, os.path.join(HERE, "measure_sentence_transformers.py"),
                   options.models, "--device", options.device, "--tokens", str(options.tokens),
                   "--texts", str(options.texts)])
    for one in found:
        print("  sentence-transformers", one["failed"] if "failed" in one else
              f"{one['dtype']}, {one['batch']} at a time: {one['rate']:.0f} texts/s")
    best = max((one for one in found if "rate" in one), key=lambda one: one["rate"], default=None)
    if best is not None:
        print(f"  {ours / best['rate']:.2f}x of the best of them; sentence-transformers "
              f"{best['sentence_transformers']}, torch {best['torch']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["decoder", "encoder", "gpu-decoder", "gpu-encoder"])
    parser.add_argument("models")
    parser.add_argument("--lore", default="lore")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, help="5; beside transformers 1")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--prefills", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--no-compile", dest="eager", action="store_const", default=[],
                        const=["--no-compile"])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--before", default="", help="in front of each measured command")
    options = parser.parse_args()
    options.models = os.path.abspath(options.models)
    if os.sep in options.lore:
        options.lore = os.path.abspath(options.lore)
    if options.rounds is None:
        options.rounds = 1 if options.what.startswith("gpu") else 5
    measures = {"decoder": decoders, "encoder": encoders, "gpu-decoder": gpu_decoders,
                "gpu-encoder": gpu_encoder}
    try:
        measures[options.what](options)
    except Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
