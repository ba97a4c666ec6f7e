"""ONNX Runtime on the CPU: times of encoding 32 texts at once, as one JSON object.

    python measure_onnx.py MODEL --threads N [--tokens N] [--steps N]

All texts have the same length, so that it pads nothing. Tokenising, which lore times too, is not
part of it.
Needs: numpy, onnxruntime.
"""

import argparse
import json
import time

import numpy as np
import onnxruntime

TEXTS, WARM = 32, 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(options.model, settings,
                                           providers=["CPUExecutionProvider"])
    shape = (TEXTS, options.tokens)
    inputs = {"ids": np.random.default_rng(1).integers(5, 30000, shape, dtype=np.int32),
              "types": np.zeros(shape, np.int32)}
    times = []
    for _ in range(WARM + options.steps):
        begin = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"times": times[WARM:], "texts": TEXTS, "version": onnxruntime.__version__}))


if __name__ == "__main__":
    main()
