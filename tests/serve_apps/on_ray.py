"""Applications as the scheduler declares them, for tests on real Ray Serve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from serve_apps.contract import (
    GATEWAY_APPLICATION,
    GATEWAY_DEPLOYMENT,
    GATEWAY_IMPORT_PATH,
    MODEL_APPLICATION_PREFIX,
    MODEL_DEPLOYMENT,
    MODEL_IMPORT_PATH,
    Booking,
    GatewayArgs,
    GatewayConfig,
    ModelArgs,
    ModelConfig,
    Route,
)
from tests.tiny_model import TINY_REPO_ID, model_key

MODEL_ON_CPU = f"{MODEL_APPLICATION_PREFIX}tiny--cpu-0"
MODEL_ON_GPU = f"{MODEL_APPLICATION_PREFIX}tiny--gpu-b"
STUCK = f"{MODEL_APPLICATION_PREFIX}stuck--nowhere"
UNTIL = datetime.now(UTC) + timedelta(hours=8)


def model_application(name: str, node: str, num_gpus: float) -> dict[str, Any]:
    args = ModelArgs(
        node=node,
        model_key=model_key(),
        repo_id=TINY_REPO_ID,
        dtype="float32",
        num_gpus=num_gpus,
        memory_bytes=0 if num_gpus else 1024**3,
        footprint_bytes=1024**3,
    )
    config = ModelConfig(reservations=("one",))
    return {
        "name": name,
        "route_prefix": None,
        "import_path": MODEL_IMPORT_PATH,
        "args": args.model_dump(mode="json"),
        "deployments": [{"name": MODEL_DEPLOYMENT, "user_config": config.model_dump(mode="json")}],
    }


def gateway_application() -> dict[str, Any]:
    now = datetime.now(UTC)
    config = GatewayConfig(
        routes=(
            Route(
                model_key=model_key(),
                names=(TINY_REPO_ID, "tiny"),
                applications=(MODEL_ON_CPU, MODEL_ON_GPU),
                until=UNTIL,
            ),
            Route(model_key=model_key("ndif-test/stuck"), names=("ndif-test/stuck",), applications=(STUCK,)),
        ),
        bookings=(
            Booking(names=("ndif-test/later",), start=now + timedelta(hours=1), end=now + timedelta(hours=2)),
        ),
    )
    return {
        "name": GATEWAY_APPLICATION,
        "route_prefix": "/",
        "import_path": GATEWAY_IMPORT_PATH,
        "args": GatewayArgs().model_dump(mode="json"),
        "deployments": [{"name": GATEWAY_DEPLOYMENT, "user_config": config.model_dump(mode="json")}],
    }
