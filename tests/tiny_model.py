"""A tiny random Llama with a real tokenizer, written into a Hugging Face cache layout in no time.

It talks nonsense, but loads, generates, chats and is traced exactly like a real model. Written without
torch and transformers, so that a test that only deploys it need not import them.
"""

from __future__ import annotations

import json
from pathlib import Path

TINY_REPO_ID = "ndif-test/tiny-llama"
TINY_SNAPSHOT = "0" * 39 + "1"
TINY_CONTEXT = 256
TINY_LAYERS = 4
HIDDEN = 32

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def model_key(repo_id: str = TINY_REPO_ID, revision: str | None = None, task: str = "text-generation") -> str:
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
    _write_config(folder, vocabulary=_write_tokenizer(folder))
    _write_weights(folder)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(snapshot)
    return folder


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(special + letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "pad_token": "<|end|>",
        "additional_special_tokens": special[1:],
        "model_max_length": TINY_CONTEXT,
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def _write_config(folder: Path, vocabulary: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": TINY_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HIDDEN // 4,
        "max_position_embeddings": TINY_CONTEXT,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 0}))


def _write_weights(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    shapes = {
        "model.embed_tokens": (vocabulary, HIDDEN),
        "lm_head": (vocabulary, HIDDEN),
        "model.norm": (HIDDEN,),
    }
    for layer in range(TINY_LAYERS):
        prefix = f"model.layers.{layer}"
        shapes |= {
            f"{prefix}.self_attn.q_proj": (HIDDEN, HIDDEN),
            f"{prefix}.self_attn.k_proj": (HIDDEN // 2, HIDDEN),
            f"{prefix}.self_attn.v_proj": (HIDDEN // 2, HIDDEN),
            f"{prefix}.self_attn.o_proj": (HIDDEN, HIDDEN),
            f"{prefix}.mlp.gate_proj": (2 * HIDDEN, HIDDEN),
            f"{prefix}.mlp.up_proj": (2 * HIDDEN, HIDDEN),
            f"{prefix}.mlp.down_proj": (HIDDEN, 2 * HIDDEN),
            f"{prefix}.input_layernorm": (HIDDEN,),
            f"{prefix}.post_attention_layernorm": (HIDDEN,),
        }
    random = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": np.ones(shape, np.float32)
        if len(shape) == 1
        else random.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
