"""What a newcomer is told once the first model serves."""

from __future__ import annotations

import json
import shlex
from textwrap import indent

PROMPT = "The capital of France is"


def curl_command(url: str, model: str) -> str:
    """A command for a shell that asks ``model`` to continue a sentence."""
    body = json.dumps({"model": model, "prompt": PROMPT, "max_tokens": 24})
    return f"curl -s {url}/v1/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def nnsight_snippet(url: str, model: str) -> str:
    """Python that reads activations of ``model`` with nnsight's own client."""
    return "\n".join(
        [
            "from nnsight import CONFIG, LanguageModel",
            f"CONFIG.API.HOST = {json.dumps(url)}",
            f"model = LanguageModel({json.dumps(model)})",
            f"with model.trace({json.dumps(PROMPT)}, remote=True):",
            "    logits = model.lm_head.output.save()",
            "print(model.tokenizer.decode(logits[0, -1].argmax()))",
        ]
    )


def welcome(url: str, model: str, calendar: str) -> str:
    """The three things that matter: ask it, look into it, book something else."""
    return "\n\n".join(
        [
            f"{model} is serving.",
            "Ask it:\n" + indent(curl_command(url, model), "  "),
            "Look into it, from Python:\n" + indent(nnsight_snippet(url, model), "  "),
            f"Book something else: edit {calendar}; `./start.sh plan` shows what will happen.",
        ]
    )
