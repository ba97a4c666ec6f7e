"""sentence-transformers on the same folder: texts a second, one JSON object a line.

    python measure_sentence_transformers.py FOLDER [--tokens N] [--texts N] [--dtypes bfloat16,...]

Texts have exactly so many tokens, the marks around them included, and lie in memory; tokenising and
the vectors' way home are part of it, as they are of lore's figure. Each dtype is tried with several
batch sizes; the best is what counts. --device cpu tries it out without a GPU.
"""

import argparse
import json
import statistics
import time

import sentence_transformers
import torch
from sentence_transformers import SentenceTransformer

WORDS = ("the of and to in a is that for it as was with be by on not he his but at are this have "
         "from or had an they which one you were all her she there would their we him been").split()


def make_texts(tokenizer, tokens, count):
    """Random words, cut at the character where the wanted token ends."""
    own = tokens - tokenizer.num_special_tokens_to_add(False)
    generator = torch.Generator().manual_seed(1)
    texts = []
    for _ in range(count):
        picks = torch.randint(len(WORDS), (own,), generator=generator).tolist()
        text = " ".join(WORDS[i] for i in picks)
        offsets = tokenizer(text, add_special_tokens=False,
                            return_offsets_mapping=True)["offset_mapping"]
        texts.append(text[:offsets[own - 1][1]])
    return texts


def measure(model, texts, batch):
    model.encode(texts[:2 * batch], batch_size=batch)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        model.encode(texts, batch_size=batch, convert_to_numpy=True, normalize_embeddings=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--batches", default="256,512,1024")
    parser.add_argument("--dtypes", default="bfloat16,float16")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    for dtype in options.dtypes.split(","):
        try:
            model = SentenceTransformer(options.folder, device=options.device)
            model = model.to(getattr(torch, dtype)).eval()
            texts = make_texts(model.tokenizer, options.tokens, options.texts)
            for batch in (int(one) for one in options.batches.split(",")):
                seconds = measure(model, texts, batch)
                print(json.dumps({"mode": "encode", "dtype": dtype, "batch": batch,
                                  "tokens": options.tokens, "rate": len(texts) / seconds,
                                  "sentence_transformers": sentence_transformers.__version__,
                                  "torch": torch.__version__}), flush=True)
        except Exception as failure:  # one dtype may fail, the other goes on
            print(json.dumps({"mode": "encode", "dtype": dtype,
                              "failed": f"{type(failure).__name__}: {str(failure)[:300]}"}),
                  flush=True)


if __name__ == "__main__":
    main()
