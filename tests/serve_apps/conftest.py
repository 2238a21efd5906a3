"""The tiny model on a replica of its own, without Ray, and the client's view of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_apps.model.loading import import_nnsight
from tests.ray_cluster import environment
from tests.tiny_model import TINY_REPO_ID, model_key, write_tiny_model


@pytest.fixture(scope="module")
def hf_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("hf")
    write_tiny_model(home)
    from huggingface_hub import constants

    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    with environment({"HF_HUB_OFFLINE": "1"}):
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(home / "hub"), True
        yield home
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before


@pytest.fixture(scope="module")
def replica(hf_home: Path) -> Any:
    from serve_apps.model.replica import ModelReplica

    async def make() -> ModelReplica:
        # in an event loop, as Serve makes them
        return ModelReplica(
            {
                "node": "cpu-0",
                "model_key": model_key(),
                "repo_id": TINY_REPO_ID,
                "dtype": "float32",
                "num_gpus": 0,
                "memory_bytes": 0,
                "footprint_bytes": 0,
            }
        )

    return asyncio.run(make())


@pytest.fixture(scope="module")
def client_model(replica: Any) -> Any:
    import_nnsight()
    from nnsight import TransformersModel

    return TransformersModel(TINY_REPO_ID, task="text-generation")
