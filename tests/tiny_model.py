"""A tiny random Llama with a real tokenizer, written into a Hugging Face cache layout in no time.

It talks nonsense, but loads, generates, chats and is traced exactly like a real model.
"""

from __future__ import annotations

import json
from pathlib import Path

TINY_REPO_ID = "ndif-test/tiny-llama"
TINY_SNAPSHOT = "0" * 39 + "1"
TINY_CONTEXT = 256
TINY_LAYERS = 4

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def model_key(repo_id: str = TINY_REPO_ID, revision: str = "main", task: str = "text-generation") -> str:
    """The key nnsight's client mints for a repository."""
    named = json.dumps({"repo_id": repo_id, "revision": revision, "task": task})
    return f"nnsight.modeling.transformers.TransformersModel:{named}"


def write_tiny_model(hf_home: Path, repo_id: str = TINY_REPO_ID, snapshot: str = TINY_SNAPSHOT) -> Path:
    """Writes the model under ``hf_home/hub`` and returns its snapshot folder; once is enough."""
    repository = hf_home / "hub" / f"models--{repo_id.replace('/', '--')}"
    folder = repository / "snapshots" / snapshot
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True)
    _write_weights(folder, vocabulary=_write_tokenizer(folder))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(snapshot)
    return folder


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(special + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=special[1:],
    )
    fast.chat_template = _CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return len(vocabulary)


def _write_weights(folder: Path, vocabulary: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=TINY_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TINY_CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
