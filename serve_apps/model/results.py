"""What a traced block gives back, in the bytes its client reads."""

from __future__ import annotations

import io
import pickle
import traceback
from typing import Any


def completed_frame(job_id: str, data: bytes, meta: dict[str, Any]) -> bytes:
    """nnsight's binary COMPLETED frame around a result.

    Pickle protocol 4, as its client does: protocol 2, torch's default, has no bytes and would write
    the result as text of half as much again.
    """
    import torch

    message = {"id": job_id, "status": "COMPLETED", "description": "", "data": data, "meta": meta}
    with io.BytesIO() as file:
        torch.save(message, file, pickle_protocol=4)
        return file.getvalue()


def pack(saved: dict[str, Any], compress: bool) -> bytes:
    """The bytes the client loads: ``torch.save`` of the saved values, zstd if it asked for that."""
    import torch

    with io.BytesIO() as file:
        try:
            torch.save(saved, file)
        except (pickle.PicklingError, AttributeError):
            file.seek(0)
            file.truncate()
            torch.save(saved, file, pickle_module=_ByName, pickle_protocol=4)
        data = file.getvalue()
    if not compress:
        return data
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(data)


class _ByNamePickler(pickle._Pickler):
    """Writes classes that only the client can import as their name, without importing them here.

    A class the client defined arrives by value, so its instances would otherwise be refused.
    """

    def save_global(self, obj: Any, name: str | None = None) -> None:
        try:
            super().save_global(obj, name)  # type: ignore[misc]
        except pickle.PicklingError:
            self.save(obj.__module__)  # type: ignore[attr-defined]
            self.save(name or obj.__qualname__)  # type: ignore[attr-defined]
            self.write(pickle.STACK_GLOBAL)  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]


class _ByName:
    """What ``torch.save`` needs of a pickle module."""

    Pickler = _ByNamePickler


def describe(error: BaseException, own_files: tuple[str, ...]) -> str:
    """A traceback that points at the sender's own lines: nnsight's and our plumbing left out."""
    from nnsight.tracing.util import clean_traceback

    raised_at = getattr(error, "__intervention_tb__", None) or error.__traceback__
    shown = clean_traceback(raised_at)
    lines = traceback.format_exception(type(error), error, shown, chain=False)
    return "".join(line for line in lines if not any(f'"{file}"' in line for file in own_files)).strip()
