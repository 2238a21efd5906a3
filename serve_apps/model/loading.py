"""Brings one model into memory with nnsight, from the Hugging Face cache or from the Hub."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from serve_apps.contract import Dtype, ModelArgs
from serve_apps.model.progress import LoadingProgress

logger = logging.getLogger("ray.serve")

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "tekken.json", "vocab.json", "vocab.txt",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
FAKE_GPUS_VARIABLE = "NDIF_FAKE_GPUS"
"""Set to 1 where Ray was told of GPUs that do not exist (tests): replicas then run on the CPU."""


class NoDeviceError(RuntimeError):
    """The replica reserved a GPU and torch sees none."""


def hub_cache() -> Path:
    """The folder of the Hugging Face cache that holds the repositories."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached_repository(cache: Path, repo_id: str) -> Path:
    """The folder of a repository in the cache, whether or not it is there."""
    return cache / f"models--{repo_id.replace('/', '--')}"


def cached_snapshot(cache: Path, repo_id: str, revision: str | None) -> Path | None:
    """The folder of a snapshot that holds everything a model needs, or None.

    Judged by the files alone: a config, a tokenizer or its like, and every weight file the index
    names. A download that was broken off leaves its file unlinked, so what exists is complete.
    """
    repository = cached_repository(cache, repo_id)
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    if commit is None:
        return None
    folder = repository / "snapshots" / commit
    if not (folder / "config.json").exists():
        return None
    if not any((folder / name).exists() for name in PREPROCESSOR_FILES):
        return None
    return folder if any(_has_weights(folder, name) for name in WEIGHT_FILES) else None


def _has_weights(folder: Path, name: str) -> bool:
    if (folder / name).exists():
        return True
    index = folder / f"{name}.index.json"
    if not index.exists():
        return False
    shards = set(json.loads(index.read_text())["weight_map"].values())
    return all((folder / shard).exists() for shard in shards)


def keep_off_the_hub() -> None:
    """Makes every later read of this process use the cache alone.

    An argument is not enough: nnsight and transformers each ask the Hub on their own (for the
    task, for a safetensors conversion), and every such question costs retries where it is
    unreachable.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    # read from the environment at import, which Ray's worker may have done already
    constants.HF_HUB_OFFLINE = True


def choose_device(num_gpus: float) -> str:
    """``cuda`` for a replica that reserved GPUs, else ``cpu``.

    Raises ``NoDeviceError`` if GPUs were reserved and torch cannot use any: running on the CPU
    instead would break what the plan promised without a word.
    """
    if num_gpus == 0:
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get(FAKE_GPUS_VARIABLE) == "1":
        return "cpu"
    raise NoDeviceError(
        f"This replica reserved {num_gpus:g} GPU, but torch {torch.__version__} finds none it can use "
        "on this node. Install the CUDA build of torch and check the driver with nvidia-smi."
    )


def import_nnsight() -> None:
    """Imports nnsight without breaking what else this process imports later.

    nnsight gives every object a ``save``; anyio, which Serve imports when a replica is ready, then
    takes that for an attribute of its classes without an annotation and refuses to load.
    """
    import anyio._backends._asyncio
    import anyio.abc  # noqa: F401
    import nnsight  # noqa: F401


def precision(dtype: Dtype) -> dict[str, Any]:
    """What transformers is told of a dtype: int8 is a byte for each weight of a matrix, and bfloat16 else."""
    import torch

    if dtype != "int8":
        return {"dtype": getattr(torch, dtype)}
    from torchao.quantization import Int8WeightOnlyConfig  # type: ignore[import-untyped]
    from transformers import TorchAoConfig

    return {"dtype": torch.bfloat16, "quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}


def load_model(args: ModelArgs, progress: LoadingProgress) -> Any:
    """The model as nnsight's ``TransformersModel``, on its device, without gradients on the weights.

    Reads the Hugging Face cache alone when the snapshot is complete there. ``progress`` is told what is
    being waited for. Logs what it took in seconds. Raises whatever loading raises; Serve shows it in the
    application's message.
    """
    started = time.monotonic()
    snapshot = cached_snapshot(hub_cache(), args.repo_id, args.revision)
    if snapshot is not None:
        keep_off_the_hub()
    else:
        progress.downloads(args.repo_id, args.revision, cached_repository(hub_cache(), args.repo_id))
    device = choose_device(args.num_gpus)

    import_nnsight()
    from nnsight.modeling.transformers import TransformersModel

    # several whole GPUs: accelerate spreads the layers; one device: all on it
    placement: dict[str, Any] = (
        {"device_map": "auto"} if device == "cuda" and args.num_gpus > 1 else {"device": device}
    )
    if args.trust_remote_code:
        placement["trust_remote_code"] = True
    with progress.counting_weights():
        model = TransformersModel(
            args.repo_id,
            revision=args.revision,
            task=args.task,
            dispatch=True,
            **precision(args.dtype),
            **placement,
        )
    model._module.requires_grad_(False)
    model._module.eval()
    source = f"cache {snapshot}" if snapshot else "Hugging Face Hub"
    logger.info(
        "loaded %s in %.1f s as %s on %s from %s",
        args.repo_id, time.monotonic() - started, args.dtype, device, source,
    )  # fmt: skip
    return model


def original_weights(args: ModelArgs, module: Any) -> dict[str, Any]:
    """The parameters and buffers of ``module`` by name, read anew onto the CPU."""
    fresh = type(module).from_pretrained(
        args.repo_id,
        revision=args.revision,
        **precision(args.dtype),
        **({"trust_remote_code": True} if args.trust_remote_code else {}),
    )
    return dict(fresh.named_parameters()) | dict(fresh.named_buffers())
