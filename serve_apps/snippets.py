"""The commands shown to people who have just brought a model up. Tests run them as they stand."""

from __future__ import annotations

import json
import shlex

PROMPT = "The Eiffel Tower is in the city of"


def curl_snippet(url: str, model: str, question: str = "What is the capital of France?") -> str:
    """A shell command that asks the model a question; the answer is the JSON of a chat completion."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 40,
        "temperature": 0,
    }
    return (
        f"curl -s {shlex.quote(url.rstrip('/') + '/v1/chat/completions')} "
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    )


def nnsight_snippet(url: str, model: str, hf_home: str, python: str = "python", layer: int = 3) -> str:
    """A shell command that reads a layer's activations of the served model with nnsight's own client.

    Works with and without a network. The client needs the model's config and tokenizer, found in
    the cache ``hf_home``, and asks the Hub how the repo id is spelled, even offline: filling in the
    answer beforehand (``_ID_CACHE``) spares it that. Where the Hub can be reached, that line,
    ``HF_HOME`` and ``HF_HUB_OFFLINE`` may go.
    """
    name = json.dumps(model)
    program = f"""\
from nnsight import TransformersModel
from nnsight.modeling.huggingface import _ID_CACHE
_ID_CACHE[{name}] = {name}
model = TransformersModel({name}, task="text-generation")
with model.trace("{PROMPT}", remote=True):
    hidden = model.model.layers[{layer}].output.save()
print(hidden.shape)"""
    environment = {"NDIF_HOST": url.rstrip("/"), "HF_HOME": hf_home, "HF_HUB_OFFLINE": "1"}
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    return f"{settings} {shlex.quote(python)} -c '\n{program}'"
