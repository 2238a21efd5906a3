"""Traced blocks as nnsight's client would send them, run on a replica without Ray."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from serve_apps.messages import BlockRequest, Frame, FrameKind


class Captured:
    """A backend for nnsight that keeps the payload its remote backend would send."""

    def __call__(self, tracer: Any) -> None:
        from nnsight.schema.request import RequestModel

        self.payload = RequestModel.serialize(tracer, True)


def run_block(replica: Any, payload: bytes, inline_limit: int = 0) -> list[Frame]:
    request = BlockRequest(job_id="j", payload=payload, compress=True, env={}, inline_limit=inline_limit)

    async def collect() -> list[Frame]:
        return [frame async for frame in replica.run_block(request)]

    return asyncio.run(collect())


def loaded(frame: Frame) -> Any:
    import torch
    import zstandard

    data = frame.data
    if frame.kind is FrameKind.COMPLETED:
        data = torch.load(io.BytesIO(data), weights_only=False)["data"]
    return torch.load(io.BytesIO(zstandard.ZstdDecompressor().decompress(data)), weights_only=False)
