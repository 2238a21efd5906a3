"""A model that computes nothing: ``import_path`` is ``benchmarks.noop_model:build``."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request

from serve_apps.contract import MODEL_DEPLOYMENT
from serve_apps.messages import Chunk, GenerationRequest

ANSWER = Chunk(text="Paris.", finish_reason="stop", prompt_tokens=5, completion_tokens=3)


class NoopModel:
    """Answers at once: by handle as a model does, by HTTP as an application without a gateway would."""

    async def complete(self, request: GenerationRequest) -> Chunk:
        return ANSWER

    async def __call__(self, request: Request) -> dict[str, Any]:
        await request.json()
        return {"choices": [{"text": ANSWER.text}]}


def build(args: dict[str, Any]) -> Application:
    return (
        serve.deployment(NoopModel)
        .options(name=MODEL_DEPLOYMENT, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
        .bind()
    )
