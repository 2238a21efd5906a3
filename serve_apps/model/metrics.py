"""What a model's replica tells of itself: how busy it is, and what it holds of its device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psutil

from serve_apps.telemetry.metric import Metric
from serve_apps.telemetry.ray_metrics import Recorder

if TYPE_CHECKING:
    from serve_apps.model.engine import Engine

TELL_SECONDS = 1.0

TEXTS = Metric(
    "ndif_model_texts",
    "gauge",
    "Texts at a model's replicas: growing (a token each step), and waiting for a row.",
    ("model", "state"),
)
ALONE = Metric(
    "ndif_model_alone",
    "gauge",
    "Traced blocks and embeddings that wait at a replica to have the model alone.",
    ("model",),
)
MEMORY = Metric(
    "ndif_model_memory_bytes",
    "gauge",
    "Memory of replicas: of GPUs as torch holds it (allocated, reserved), else of the process (resident).",
    ("model", "of"),
)

MODEL: tuple[Metric, ...] = (TEXTS, ALONE, MEMORY)


def tell_metrics(model: str, engine: Engine) -> threading.Thread:
    """Tells them once a second until the process ends: Ray forgets what is not told again."""
    recorder, stop = Recorder(MODEL), threading.Event()

    def tell() -> None:
        while not stop.wait(TELL_SECONDS):
            tell_once(recorder, model, engine)

    thread = threading.Thread(target=tell, name="metrics", daemon=True)
    thread.start()
    return thread


def tell_once(recorder: Recorder, model: str, engine: Engine) -> None:
    """Tells them as they are now."""
    load = engine.load
    recorder.set(TEXTS, load.growing, model, "growing")
    recorder.set(TEXTS, load.waiting, model, "waiting")
    recorder.set(ALONE, load.alone, model)
    for name, size in held_bytes().items():
        recorder.set(MEMORY, size, model, name)


def held_bytes() -> dict[str, int]:
    """Memory of this process, by what it is."""
    import torch

    # asking would make a context, and take memory, on a GPU that nothing uses
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {"resident": psutil.Process().memory_info().rss}
    devices = range(torch.cuda.device_count())
    return {
        "allocated": sum(torch.cuda.memory_allocated(device) for device in devices),
        "reserved": sum(torch.cuda.memory_reserved(device) for device in devices),
    }
