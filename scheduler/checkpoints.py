"""Finds out how many parameters a model has, and in which dtype, without loading it.

In this order: the safetensors files in the Hugging Face cache, their index, what the Hub tells of
them, and last the architecture in ``config.json``, built without memory by nnsight.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from loguru import logger
from safetensors import SafetensorError, safe_open

from calendars.reservation import Dtype
from scheduler.types import DTYPE_BYTES, Checkpoint, Model, UnknownSize

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
STORED: dict[str, Dtype] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
RETRY_SECONDS = 60.0
LOOK_UPS_AT_ONCE = 4
ARCHITECTURE_SECONDS = 120.0
LOOKING = UnknownSize(reason="it is still being looked up", remedy="Wait a moment.", pending=True)
OVERRIDE = "Or state it in the catalog with `parameters:`."

# Builds the architecture from config.json alone; in a process of its own, because torch and
# transformers would cost the daemon 400 MB and could run for long.
COUNT = """
import sys
from nnsight.modeling.mixins.remotable import Remotable
print(Remotable.from_model_key(sys.argv[1], dispatch=False)._module.num_parameters())
"""


class Checkpoints:
    """Looks models up and remembers the answers; what is in the cache is read at once.

    The Hub is asked in the background, by daemon threads: one that hangs keeps neither a reading of
    the loop nor the end of the process. A failure is looked up again after ``RETRY_SECONDS``; until
    there is another answer, the last one stands.

    Args:
        cache: the Hugging Face hub cache folder.
        deadline_seconds: how long the first look-up of a model may hold up the caller.
    """

    def __init__(self, cache: Path, deadline_seconds: float = 5.0) -> None:
        self._cache = cache
        self._deadline = deadline_seconds
        self._answers: dict[str, Checkpoint | UnknownSize] = {}
        self._due: dict[str, float] = {}
        self._waiting: queue.SimpleQueue[tuple[Model, threading.Event]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def look_up(self, models: Iterable[Model]) -> Mapping[str, Checkpoint | UnknownSize]:
        """What is known of each model, by model key."""
        wanted = {model.key: model for model in models}
        first: list[threading.Event] = []
        for key, model in wanted.items():
            if self._due.get(key, 0.0) > time.monotonic():
                continue
            found = self._in_cache(model)
            if found is not None:
                self._remember(model, found)
                continue
            asked = self._ask(model)
            if key not in self._answers:
                first.append(asked)
        ends_at = time.monotonic() + self._deadline
        for asked in first:
            asked.wait(max(0.0, ends_at - time.monotonic()))
        return {key: self._answers.get(key, LOOKING) for key in wanted}

    def _in_cache(self, model: Model) -> Checkpoint | UnknownSize | None:
        try:
            return _in_cache(model, self._cache)
        except Exception as error:  # noqa: BLE001  one bad checkpoint must not hide the others
            return _unreadable(error, self._cache)

    def _remember(self, model: Model, answer: Checkpoint | UnknownSize) -> None:
        self._answers[model.key] = answer
        good = isinstance(answer, Checkpoint)
        self._due[model.key] = float("inf") if good else time.monotonic() + RETRY_SECONDS

    def _ask(self, model: Model) -> threading.Event:
        """Have the model looked up by the next thread that is free."""
        done = threading.Event()
        self._due[model.key] = float("inf")
        self._waiting.put((model, done))
        if len(self._threads) < LOOK_UPS_AT_ONCE:
            self._threads.append(threading.Thread(target=self._work, name="checkpoints", daemon=True))
            self._threads[-1].start()
        return done

    def _work(self) -> None:
        while True:
            model, done = self._waiting.get()
            try:
                self._remember(model, read_checkpoint(model, self._cache))
            except Exception as error:  # noqa: BLE001  as above
                logger.exception("Looking {} up failed.", model.name)
                self._remember(model, _unreadable(error, self._cache))
            done.set()


def read_checkpoint(model: Model, cache: Path) -> Checkpoint | UnknownSize:
    """Read one model's size from the cache, or else from the Hub."""
    try:
        return _in_cache(model, cache) or _on_hub(model) or _by_architecture(model)
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError, HFValidationError) as error:
        return _not_on_hub(model, error)
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        httpx2.HTTPError,
        OSError,
    ) as error:
        return UnknownSize(
            reason=f"it is not in the cache {cache}, and the Hugging Face Hub cannot be reached "
            f"({type(error).__name__})",
            remedy=f"Download it into the cache where the Hub can be reached. {OVERRIDE}",
        )
    except (
        ValueError,
        KeyError,
        SafetensorError,
        SafetensorsParsingError,
        subprocess.SubprocessError,
    ) as error:
        return _unreadable(error, cache)


def _unreadable(error: Exception, cache: Path) -> UnknownSize:
    return UnknownSize(
        reason=f"its files cannot be read ({type(error).__name__}: {str(error)[:200]})",
        remedy=f"Check the repository, or delete it from the cache {cache}. {OVERRIDE}",
    )


def _not_on_hub(model: Model, error: Exception) -> UnknownSize:
    if isinstance(error, GatedRepoError):
        return UnknownSize(
            reason="its repository is gated and this service has no access",
            remedy="Ask for access on its page, and give the service a token with HF_TOKEN.",
        )
    if isinstance(error, RevisionNotFoundError):
        return UnknownSize(
            reason=f"its repository has no revision {model.revision}", remedy="Correct the revision."
        )
    return UnknownSize(
        reason="the Hugging Face Hub has no such repository, or it is private",
        remedy="Check the spelling: organisation/model, as in its page's address.",
    )


def _in_cache(model: Model, cache: Path) -> Checkpoint | None:
    single, index = (_cached(model, name, cache) for name in (SINGLE_FILE, INDEX_FILE))
    if single is not None:
        return _sum_up(_tensors(single), SINGLE_FILE)
    if index is None:
        return None
    content = json.loads(index.read_text())
    shards = [_cached(model, name, cache) for name in sorted(set(content["weight_map"].values()))]
    present = [shard for shard in shards if shard is not None]
    if len(present) == len(shards):
        return _sum_up(sum((_tensors(shard) for shard in present), Counter()), INDEX_FILE)
    dtype = _configured_dtype(model, cache)
    if dtype is None:
        return None
    return Checkpoint(
        parameters=int(content["metadata"]["total_size"]) // DTYPE_BYTES[dtype],
        dtype=dtype,
        source=INDEX_FILE,
    )


def _cached(model: Model, name: str, cache: Path) -> Path | None:
    found = try_to_load_from_cache(model.repo_id, name, cache_dir=cache, revision=model.revision)
    return Path(found) if isinstance(found, str) else None


def _tensors(path: Path) -> Counter[str]:
    """Parameters by stored dtype, read from the header alone."""
    counts: Counter[str] = Counter()
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  not a dict
            tensor = file.get_slice(name)
            size = 1
            for length in tensor.get_shape():
                size *= length
            counts[tensor.get_dtype()] += size
    return counts


def _configured_dtype(model: Model, cache: Path) -> Dtype | None:
    path = _cached(model, "config.json", cache)
    config = json.loads(path.read_text()) if path else {}
    name = config.get("dtype") or config.get("torch_dtype")
    return next((dtype for dtype in STORED.values() if dtype == name), None)


def _on_hub(model: Model) -> Checkpoint | None:
    try:
        found = HfApi().get_safetensors_metadata(model.repo_id, revision=model.revision)
    except NotASafetensorsRepoError:
        return None
    return _sum_up(Counter(found.parameter_count), "the Hugging Face Hub")


def _sum_up(counts: Mapping[str, int], source: str) -> Checkpoint:
    most = max(counts, key=lambda name: counts[name])
    return Checkpoint(parameters=sum(counts.values()), dtype=STORED.get(most), source=source)


def _by_architecture(model: Model) -> Checkpoint:
    if model.trust_remote_code:
        raise ValueError("it has no safetensors files, and its own code is not run to count parameters")
    result = subprocess.run(
        [sys.executable, "-c", COUNT, model.key],
        capture_output=True,
        text=True,
        timeout=ARCHITECTURE_SECONDS,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        raise ValueError(f"no safetensors files, and config.json does not help: {lines[-1]}")
    return Checkpoint(parameters=int(result.stdout.split()[-1]), source="config.json")
