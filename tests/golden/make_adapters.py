"""What PEFT makes of adapters on the decoder families.

    pip install torch transformers peft
    python make_adapters.py

adapters/cases.jsonl has a line for each family: the configuration that save_pretrained wrote (without fields
that are null, false or empty, but in the first line), names and shapes of the tensors that it wrote, and for each
module that was adapted u^T D v, D being the change of its weight (get_delta_weight). Values of tensors, of u and
of v are those of fill(): golden_adapters.c makes them again, and takes copies of the base's weights from the base. adapters/written/ is one folder as it was written.

adapters/logits.jsonl has a line for each family and rank: what the logits are with an adapter of that rank on
every linear layer and the head, values of fill() too, at ROWS of PROMPT and at COLUMNS of them.
"""

import json
import os
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT looks for the base model there

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import AutoModelForCausalLM

import weights

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "adapters")
made = tempfile.TemporaryDirectory()
FAMILIES = os.path.join(made.name, "families")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

CASES = {
    "llama": dict(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"]),
    "llama-biases": dict(r=2, lora_alpha=3, target_modules="all-linear", use_rslora=True, exclude_modules=["self_attn.k_proj"]),
    "llama-linear": dict(r=4, lora_alpha=4, target_modules=["o_proj"], fan_in_fan_out=True),
    "llama-dynamic": dict(r=2, lora_alpha=4, target_modules=["up_proj"], alpha_pattern={"layers.0.mlp.up_proj": 7}),
    "llama-yarn": dict(r=2, lora_alpha=4, target_modules="model.layers.1.mlp.down_proj|lm_head"),
    "llama3": dict(r=3, lora_alpha=5, target_modules=["lm_head", "o_proj"]),
    "mistral": dict(r=2, lora_alpha=8, target_modules=r".*\.(self_attn\.[qv]|mlp\.(?:up|down))_proj"),
    "qwen2": dict(r=2, lora_alpha=4, target_modules=["k_proj", "model.layers.0.mlp.gate_proj"], layers_to_transform=[1],
                  layers_pattern="layers"),
    "qwen2-window": dict(r=2, lora_alpha=4, target_modules=["v_proj", "gate_proj"], layers_to_transform=[0, 2]),
    "qwen3": dict(r=2, lora_alpha=4, target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"], use_rslora=True,
                  rank_pattern={"q_proj": 5, "model.layers.0.mlp.gate_proj": 3, r"layers\.1\.mlp\..*": 1, "o_proj": 4},
                  alpha_pattern={"^model.layers.1.self_attn.k_proj": 9, "proj": 5, "(up|down)_proj": 6}),
    "phi3": dict(r=3, lora_alpha=6, target_modules="all-linear"),
    "phi3-partial": dict(r=2, lora_alpha=6, target_modules=["qkv_proj", "lm_head"]),
    "phi3-long": dict(r=1, lora_alpha=1, target_modules=["gate_up_proj"]),
    "gemma2": dict(r=2, lora_alpha=5, target_modules=["v_proj", "up_proj", "lm_head"], exclude_modules=r".*\.1\..*"),
}

RANKS = [1, 8, 16, 64, 128]
PROMPT = [(73 * i + 5) % 256 for i in range(12)]
ROWS = [0, 5, 11]
COLUMNS = 8  # of each row: those that come first in so many equal parts of it, and as many further as the row's number


def hash_of(text):
    """lore_str_hash: FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def fill(name, *shape):
    """Multiples of 1 / 64 up to a half."""
    state, values = hash_of(name) % 2**31, []
    for _ in range(torch.Size(shape).numel()):
        state = (state * 1103515245 + 12345) % 2**31
        values.append(((state >> 16) % 65 - 32) / 64)
    return torch.tensor(values).reshape(shape)


def adapted(family, options):
    base = AutoModelForCausalLM.from_pretrained(os.path.join(FAMILIES, family), dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
    model.peft_config["default"].base_model_name_or_path = family
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                value.copy_(fill(name.replace(".default", ""), *value.shape))
    return model


def change_of(layer):
    delta = layer.get_delta_weight("default").double()
    return float(fill("u", delta.shape[0]).double() @ delta @ fill("v", delta.shape[1]).double())


def case_of(family, options, is_whole):
    model = adapted(family, options)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        model.save_pretrained(folder)
        with open(os.path.join(folder, "adapter_config.json")) as file:
            config = json.load(file)
        if isinstance(config["target_modules"], list):  # a set, in any order
            config["target_modules"].sort()
        with safe_open(os.path.join(folder, "adapter_model.safetensors"), "pt") as file:
            tensors = [[name, *file.get_slice(name).get_shape()] for name in sorted(file.keys())]
    if not is_whole:
        config = {key: value for key, value in config.items() if value not in (None, False, [], {}) and not key.startswith("megatron")}
    changes = [[name.removeprefix("base_model.model."), change_of(layer)]
               for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]
    return {"family": family, "config": config, "tensors": tensors, "changes": changes}


def write_folder(path):
    """A folder as it was written, in bf16, with the first case's smallest part."""
    model = adapted("llama", dict(r=1, lora_alpha=2, target_modules=["k_proj"], layers_to_transform=0)).to(torch.bfloat16)
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path)
    os.remove(os.path.join(path, "README.md"))


def logits_of(family, rank):
    base = AutoModelForCausalLM.from_pretrained(os.path.join(FAMILIES, family), dtype=torch.float32)
    ends = {name.split(".")[-1] for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)}
    # What is added is about a third of what it is added to.
    size = base.model.layers[0].self_attn.o_proj.weight.std()
    alpha = round(float(size / 3 / 0.084 * rank**0.5), 3)
    with torch.no_grad():
        before = base(torch.tensor([PROMPT])).logits[0]
        after = adapted(family, dict(r=rank, lora_alpha=alpha, target_modules=sorted(ends)))(torch.tensor([PROMPT])).logits[0]
    change = ((after - before).pow(2).mean() / before.pow(2).mean()).sqrt()
    assert 0.05 < change < 5, (family, rank, float(change))
    step = after.shape[1] // COLUMNS
    values = [float(f"{after[row, row + step * i]:.6g}") for row in ROWS for i in range(COLUMNS)]
    return {"family": family, "rank": rank, "alpha": alpha, "logits": values}


def main():
    weights.make(weights.HERE, FAMILIES)
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "cases.jsonl"), "w") as file:
        for i, (family, options) in enumerate(CASES.items()):
            file.write(json.dumps(case_of(family, options, i == 0), separators=(",", ":")) + "\n")
    with open(os.path.join(OUT, "logits.jsonl"), "w") as file:
        for family in CASES:
            for rank in RANKS:
                file.write(json.dumps(logits_of(family, rank), separators=(",", ":")) + "\n")
    write_folder(os.path.join(OUT, "written"))


main()
