"""Small safetensors files and adapters, for tests that give them to the program."""
import json
import struct


def write_tensors(path, tensors):
    """tensors: name -> (shape, numbers); f32."""
    header, data = {}, b""
    for name, (shape, numbers) in tensors.items():
        more = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(more)]}
        data += more
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def numbers(count, start=0):
    """Multiples of 1 / 64, both signs."""
    return [(k * 37 % 65 - 32) / 64 for k in range(start, start + count)]


def write_adapter(folder, module, rows, cols, rank=2, alpha=3):
    """A PEFT folder that changes one matrix."""
    write_tensors(folder / "adapter_model.safetensors", {
        f"base_model.model.{module}.lora_A.weight": ([rank, cols], numbers(rank * cols)),
        f"base_model.model.{module}.lora_B.weight": ([rows, rank], numbers(rows * rank, 7))})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "target_modules": [module]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
