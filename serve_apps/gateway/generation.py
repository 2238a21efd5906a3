"""The routes of OpenAI's API that compute something: completions, chat, as a whole or as a stream."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from serve_apps.gateway.backend import BackendError
from serve_apps.gateway.endings import ending_headers
from serve_apps.gateway.openai import ChatBody, CompletionBody, EmbeddingBody, error_body
from serve_apps.gateway.shapes import Shape, embedding_body
from serve_apps.messages import Chunk, Refusal

if TYPE_CHECKING:
    from serve_apps.gateway.http import Gateway


def error_response(
    status: int,
    message: str,
    code: str | None,
    *,
    param: str | None = None,
    retry_after: int | None = None,
    headers: Any = None,
) -> JSONResponse:
    """OpenAI's error shape, with the text once more as ``detail`` where nnsight's client looks."""
    known = dict(headers or {})
    if retry_after is not None:
        known["Retry-After"] = str(retry_after)
    return JSONResponse({**error_body(message, code, status, param), "detail": message}, status, known)


def generation_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions")
    async def completions(body: CompletionBody) -> Response:
        return await _generate(gateway, body)

    @router.post("/v1/chat/completions")
    async def chat(body: ChatBody) -> Response:
        return await _generate(gateway, body)

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody) -> Response:
        serving = await gateway.find(body.model)
        request = body.to_request()
        answer = await gateway.ask(serving, lambda app: gateway.backend.embed(app, request))
        if isinstance(answer, Refusal):
            return error_response(answer.status, answer.message, answer.code, param=answer.param)
        as_base64 = body.encoding_format == "base64"
        headers = ending_headers(gateway.ends(serving.route.until))
        return JSONResponse(embedding_body(serving.route.names[0], answer, as_base64), headers=headers)

    return router


async def _generate(gateway: Gateway, body: CompletionBody | ChatBody) -> Response:
    serving = await gateway.find(body.model)
    request = body.to_request()
    name = serving.route.names[0]
    shape = Shape(
        isinstance(body, ChatBody),
        uuid.uuid4().hex,
        int(time.time()),
        name,
        logprobs=request.logprobs is not None,
        usage=body.include_usage,
    )
    if not body.stream:
        answer = await gateway.ask(serving, lambda app: gateway.backend.complete(app, request))
        if isinstance(answer, Refusal):
            return error_response(answer.status, answer.message, answer.code, param=answer.param)
        return JSONResponse(shape.whole(answer), headers=ending_headers(gateway.ends(serving.route.until)))

    # the first piece decides between an answer and a proper error status
    first, pieces = await gateway.ask(serving, lambda app: _begin(gateway.backend.stream(app, request)))
    if isinstance(first, Refusal):
        await pieces.aclose()
        return error_response(first.status, first.message, first.code, param=first.param)
    events = _events(shape, first, pieces)
    headers = {"Cache-Control": "no-cache", **ending_headers(gateway.ends(serving.route.until))}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


Pieces = AsyncGenerator[Chunk | Refusal, None]


async def _begin(pieces: Pieces) -> tuple[Chunk | Refusal, Pieces]:
    try:
        return await anext(pieces), pieces
    except StopAsyncIteration:
        return Refusal(message="The model answered nothing.", status=500), pieces
    except BaseException:
        await pieces.aclose()
        raise


async def _events(shape: Shape, first: Chunk, pieces: Pieces) -> AsyncIterator[str]:
    """Server-sent events. An error after the first piece ends the stream as an event of its own."""

    async def parts() -> AsyncGenerator[Chunk | Refusal, None]:
        yield first
        async for piece in pieces:
            yield piece

    async with aclosing(pieces):
        try:
            async for part in parts():
                if isinstance(part, Refusal):
                    yield _event(error_body(part.message, part.code, part.status, part.param))
                    return
                for piece in shape.pieces(part):
                    yield _event(piece)
        except BackendError as error:
            yield _event(error_body(error.message, error.code, error.status))
            return
        last = shape.last()
        if last is not None:
            yield _event(last)
        yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
