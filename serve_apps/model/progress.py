"""How far a replica is with loading its model, told to the daemon through the ``Controller`` actor.

Best effort: it is measured and told in a thread of its own. Loading never waits for it, and never fails
because of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger("ray.serve")

LOOK_SECONDS = 1.0
REPEAT_SECONDS = 20.0
"""What has not changed is told again after so long: the daemon forgets what is old."""
SEARCH_SECONDS = 5.0
"""How often the actor is looked for where there is none."""
HUB_SECONDS = 10.0
"""Deadline of the one question to the Hub, for the sizes of a repository's files."""

WEIGHTS_BAR = "Loading weights"
"""What transformers calls its progress bar over a model's tensors."""
OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".h5", ".msgpack", ".ot", ".onnx", ".gguf")
"""Weights that are not fetched where a repository has safetensors."""

Tell = Callable[[str, float | None], None]
"""Takes ``downloading``, ``loading`` or ``warming``, and the share of it that is done, where known."""


class LoadingProgress:
    """Watches a model while it is loaded, and tells when something changed.

        with LoadingProgress(tell) as progress:
            ...                               # load
            progress.warming()

    Args:
        tell: may raise and may take its time; it is called in a thread of its own.
    """

    def __init__(self, tell: Tell, look_seconds: float = LOOK_SECONDS) -> None:
        self._tell = tell
        self._look_seconds = look_seconds
        self._download: Download | None = None
        self._weights: _Counted | None = None
        self._warming = False
        self._told: tuple[str, float | None] | None = None
        self._told_at = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loading-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()

    def downloads(self, repo_id: str, revision: str | None, repository: Path) -> None:
        """The weights are not all here: until they are, they are downloaded.

        Args:
            repository: its folder in the cache.
        """
        self._download = Download(repo_id, revision, repository)

    def warming(self) -> None:
        """The weights are in their place; the first token is computed."""
        self._warming = True

    @contextmanager
    def counting_weights(self) -> Iterator[None]:
        """Meanwhile the tensors that transformers puts in their place are counted."""
        from transformers.utils import logging as transformers_logging

        before = transformers_logging.set_tqdm_hook(self._bar)
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(before)

    @property
    def now(self) -> tuple[str, float | None]:
        """The step, and how much of it is done."""
        if self._warming:
            return "warming", None
        if self._weights is not None:
            return "loading", self._weights.fraction
        if self._download is not None and (arrived := self._download.fraction) != 1.0:
            return "downloading", arrived
        return "loading", 0.0

    def _bar(self, factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        bar = factory(*args, **options)
        if options.get("desc") != WEIGHTS_BAR or not args or not hasattr(args[0], "__len__"):
            return bar
        self._weights = _Counted(bar, len(args[0]))
        return self._weights

    def _watch(self) -> None:
        while True:
            now, at = _rounded(self.now), time.monotonic()
            if now != self._told or at - self._told_at > REPEAT_SECONDS:
                try:
                    self._tell(*now)
                except Exception:  # a model is loaded whether or not anybody hears of it
                    logger.debug("could not tell how far loading is", exc_info=True)
                self._told, self._told_at = now, at
            if self._end.wait(self._look_seconds):
                return


class _Counted:
    """A progress bar that knows how far it is; all else is the bar's own."""

    def __init__(self, bar: Any, total: int) -> None:
        self._bar = bar
        self._total = total
        self._done = 0

    @property
    def fraction(self) -> float | None:
        return self._done / self._total if self._total else None

    def __iter__(self) -> Iterator[Any]:
        for one in self._bar:
            yield one
            self._done += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)


class Download:
    """How much of a repository has arrived in the Hub's cache: bytes there over bytes there will be."""

    def __init__(self, repo_id: str, revision: str | None, repository: Path) -> None:
        self._repo_id, self._revision = repo_id, revision
        self._blobs = repository / "blobs"
        self._sizes: dict[str, int] | None = None
        """Bytes by the name a file has among the blobs; empty where the Hub did not say."""

    @property
    def fraction(self) -> float | None:
        """Share of the bytes that are here; None where the Hub does not tell their number."""
        if self._sizes is None:
            self._sizes = _sizes_at_hub(self._repo_id, self._revision)
        total = sum(self._sizes.values())
        return (
            sum(min(size, self._here(name)) for name, size in self._sizes.items()) / total if total else None
        )

    def _here(self, name: str) -> int:
        found = 0
        for path in (self._blobs / name, *self._blobs.glob(f"{name}*.incomplete")):
            try:
                status = path.stat()
            except OSError:
                continue  # not there, or renamed in this moment
            # what is written at several places at once has its whole length from the start
            found = max(found, min(status.st_size, status.st_blocks * 512))
        return found


def _sizes_at_hub(repo_id: str, revision: str | None) -> dict[str, int]:
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
    except Exception:  # whatever the client of the Hub raises: the share is unknown then
        logger.info("the Hub does not tell the size of %s", repo_id, exc_info=True)
        return {}
    return wanted_sizes(info.siblings or ())


def wanted_sizes(files: Iterable[Any]) -> dict[str, int]:
    """Bytes, by the name in the cache, of the files that loading a model fetches; as the Hub lists them."""
    top = [one for one in files if "/" not in one.rfilename and one.size]
    if any(one.rfilename.endswith(".safetensors") for one in top):
        top = [one for one in top if not one.rfilename.endswith(OTHER_WEIGHTS)]
    return {(one.lfs.sha256 if one.lfs else one.blob_id): one.size for one in top}


def _rounded(now: tuple[str, float | None]) -> tuple[str, float | None]:
    step, fraction = now
    return step, None if fraction is None else round(fraction, 2)


class TellsController:
    """Tells the ``Controller`` actor of this cluster; nobody where there is none.

    Args:
        application: which Serve application the replica belongs to.
    """

    def __init__(self, application: str) -> None:
        self._application = application
        self._actor: Any = None
        self._looked_at: float | None = None

    def __call__(self, step: str, fraction: float | None) -> None:
        actor = self._found()
        if actor is not None:
            actor.report.remote(self._application, step, fraction)

    def _found(self) -> Any:
        import ray

        from serve_apps.controller.process import NAME, NAMESPACE

        now = time.monotonic()
        if self._actor is None and (self._looked_at is None or now - self._looked_at > SEARCH_SECONDS):
            self._looked_at = now
            try:
                self._actor = ray.get_actor(NAME, namespace=NAMESPACE)
            except ValueError:
                logger.debug("there is no actor %s: nobody is told how far loading is", NAME)
        return self._actor


def tells_daemon() -> Tell:
    """Whom the replica in this process tells how far it is."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return TellsController(serve.get_replica_context().app_name)
    except RayServeException:
        return lambda step, fraction: None  # outside Serve there is nobody to tell
