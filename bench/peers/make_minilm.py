"""Random encoder of the shape of all-MiniLM-L6-v2, the same weights for lore and ONNX Runtime.

    python make_minilm.py OUT [--seed N]
    python make_minilm.py --layers 12 --no-onnx OUT

The second writes the folder alone, to OUT: with 12 layers, a BERT of 33 million parameters. The first
writes OUT/minilm (a Hugging Face folder), OUT/f32.onnx, in the fused operators that ONNX Runtime's
own optimizer makes of BERT (Attention, SkipLayerNormalization, BiasGelu), and OUT/int8.onnx, the
same after its quantize_dynamic. The tokenizer knows single characters: texts of any length can be
cut, and nothing is downloaded.
Needs: numpy; onnx and onnxruntime where their files are wanted.
"""

import argparse
import json
import os

import numpy as np

from make_decoder import Safetensors, write_json

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic
except ImportError:
    onnx = None

LAYERS, WIDTH, HEADS, FFN, VOCAB, POSITIONS, EPS = 6, 384, 12, 1536, 30522, 512, 1e-12


def draw(seed, layers=LAYERS):
    """Tensors by their Hugging Face name."""
    random = np.random.Generator(np.random.PCG64(seed))
    made = {}

    def matrix(name, rows, cols, spread=0.05):
        made[name] = spread * random.standard_normal((rows, cols), dtype=np.float32)

    def vector(name, size, centre=0.0):
        made[name] = centre + 0.1 * random.standard_normal(size, dtype=np.float32)

    def norm(name):
        vector(name + ".weight", WIDTH, 1.0)
        vector(name + ".bias", WIDTH)

    matrix("embeddings.word_embeddings.weight", VOCAB, WIDTH)
    matrix("embeddings.position_embeddings.weight", POSITIONS, WIDTH)
    matrix("embeddings.token_type_embeddings.weight", 2, WIDTH)
    norm("embeddings.LayerNorm")
    for i in range(layers):
        layer = f"encoder.layer.{i}."
        for part, rows, cols in (("attention.self.query", WIDTH, WIDTH),
                                 ("attention.self.key", WIDTH, WIDTH),
                                 ("attention.self.value", WIDTH, WIDTH),
                                 ("attention.output.dense", WIDTH, WIDTH),
                                 ("intermediate.dense", FFN, WIDTH),
                                 ("output.dense", WIDTH, FFN)):
            matrix(layer + part + ".weight", rows, cols)
            vector(layer + part + ".bias", rows)
        norm(layer + "attention.output.LayerNorm")
        norm(layer + "output.LayerNorm")
    return made


def write_folder(folder, made, layers=LAYERS):
    os.makedirs(os.path.join(folder, "1_Pooling"), exist_ok=True)
    tensors = Safetensors()
    for name, values in made.items():
        tensors.add(name, "F32", values)
    tensors.write(os.path.join(folder, "model.safetensors"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    marks = [chr(c) for c in range(33, 127)]
    words = special + marks + ["##" + mark for mark in marks]
    write_json(folder, "config.json", {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": WIDTH, "num_hidden_layers": layers, "num_attention_heads": HEADS,
        "intermediate_size": FFN, "vocab_size": VOCAB, "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "layer_norm_eps": EPS, "pad_token_id": 0,
        "position_embedding_type": "absolute"})
    write_json(folder, "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling",
         "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize",
         "type": "sentence_transformers.models.Normalize"}])
    write_json(folder, "1_Pooling/config.json", {
        "word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False})
    write_json(folder, "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": word, "special": True, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False}
                         for i, word in enumerate(special)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                                      {"Sequence": {"id": "A", "type_id": 0}},
                                      {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                                    {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                                    {"Sequence": {"id": "B", "type_id": 1}},
                                    {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
                           "special_tokens": {
                               "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {word: i for i, word in enumerate(words)}}})


class Graph:
    def __init__(self, made):
        self.made, self.nodes, self.constants = made, [], []

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def tensor(self, name):
        return self.constant(name, self.made[name])

    def add(self, kind, inputs, output, domain="com.microsoft", **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def product(self, x, name, output):
        weight = self.constant(name + ".weight^T", self.made[name + ".weight"].T)
        return self.add("MatMul", [x, weight], output, domain="")

    def residual_norm(self, x, skip, norm, bias, output):
        return self.add("SkipLayerNormalization",
                        [x, skip, self.tensor(norm + ".weight"), self.tensor(norm + ".bias"),
                         self.tensor(bias)], output, epsilon=EPS)


def write_onnx(path, made):
    g = Graph(made)
    embeddings = ["word_embeddings", "position_embeddings", "token_type_embeddings"]
    g.nodes.append(helper.make_node(
        "EmbedLayerNormalization",
        ["ids", "types", *(g.tensor(f"embeddings.{part}.weight") for part in embeddings),
         g.tensor("embeddings.LayerNorm.weight"), g.tensor("embeddings.LayerNorm.bias")],
        ["x0", "mask"], domain="com.microsoft", epsilon=EPS))
    x = "x0"
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}."
        parts = [layer + "attention.self." + part for part in ("query", "key", "value")]
        weight = np.concatenate([made[part + ".weight"].T for part in parts], axis=1)
        bias = np.concatenate([made[part + ".bias"] for part in parts])
        mixed = g.add("Attention", [x, g.constant(layer + "qkv", weight),
                                    g.constant(layer + "qkv.bias", bias)],
                      f"mixed{i}", num_heads=HEADS)
        out = g.product(mixed, layer + "attention.output.dense", f"out{i}")
        x = g.residual_norm(out, x, layer + "attention.output.LayerNorm",
                            layer + "attention.output.dense.bias", f"middle{i}")
        up = g.product(x, layer + "intermediate.dense", f"up{i}")
        hidden = g.add("BiasGelu", [up, g.tensor(layer + "intermediate.dense.bias")], f"hidden{i}")
        down = g.product(hidden, layer + "output.dense", f"down{i}")
        x = g.residual_norm(down, x, layer + "output.LayerNorm", layer + "output.dense.bias",
                            f"x{i + 1}")
    g.add("ReduceMean", [x], "mean", domain="", axes=[1], keepdims=0)
    g.add("LpNormalization", ["mean"], "vectors", domain="", axis=1, p=2)
    graph = helper.make_graph(
        g.nodes, "minilm",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["texts", "tokens"])
         for name in ("ids", "types")],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", WIDTH])],
        g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17),
                                                    helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 8
    onnx.save(model, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--no-onnx", dest="onnx", action="store_false")
    options = parser.parse_args()
    made = draw(options.seed, options.layers)
    if not options.onnx:
        write_folder(options.out, made, options.layers)
        return
    if onnx is None or options.layers != LAYERS:
        parser.error("ONNX files need onnx and onnxruntime, and are of 6 layers: --no-onnx?")
    write_folder(os.path.join(options.out, "minilm"), made)
    path = os.path.join(options.out, "f32.onnx")
    write_onnx(path, made)
    quantize_dynamic(path, os.path.join(options.out, "int8.onnx"), weight_type=QuantType.QInt8,
                     extra_options={"DefaultTensorType": TensorProto.FLOAT})


if __name__ == "__main__":
    main()
