"""Rebuilds a model from a GGUF file as a Hugging Face checkpoint. A process of its own.

``python -m serve_apps.providers.gguf_conversion FILE FOLDER DTYPE``: de-quantizing takes a gigabyte
of memory, which goes back to the system when this process ends, and killing it leaves nothing but
its folder. Prints one line per step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STEPS = ("reading the tokenizer", "reading the weights", "writing the checkpoint")


def convert(gguf: Path, folder: Path, dtype: str) -> None:
    """Writes config, tokenizer and safetensors of ``gguf`` into ``folder``, weights as ``dtype``.

    In the dtype it is served in, because the weights then stay in the mapped file when loaded.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    _say(STEPS[0])
    tokenizer = AutoTokenizer.from_pretrained(**where)
    _say(STEPS[1])
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)

    _say(STEPS[2])
    config = model.config.to_dict()
    tokenizer.save_pretrained(folder)
    _mend_tokenizer(folder / "tokenizer_config.json", config["max_position_embeddings"])
    # save_pretrained refuses a model that still says it is quantized
    for leftover in ("quantization_config", "_name_or_path"):
        config.pop(leftover, None)
    config |= {"dtype": dtype, "architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    model.generation_config.save_pretrained(folder)
    tied = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    weights = {
        name: tensor.to(getattr(torch, dtype)).contiguous()
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _mend_tokenizer(path: Path, context_length: int) -> None:
    """Takes out what only said where it was read from, which stops a later load from the cache."""
    settings = json.loads(path.read_text())
    for leftover in ("is_local", "local_files_only"):
        settings.pop(leftover, None)
    settings["model_max_length"] = context_length
    path.write_text(json.dumps(settings, indent=2))


def _say(step: str) -> None:
    sys.stdout.write(f"{step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
