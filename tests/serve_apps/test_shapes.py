"""OpenAI's bodies both ways: what a request means, what an answer looks like."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve_apps.gateway.openai import ChatBody, CompletionBody, EmbeddingBody
from serve_apps.gateway.shapes import Shape, embedding_body
from serve_apps.messages import Chunk, Embeddings, TokenLogprob
from tests.serve_apps.fakes import FakeBackend
from tests.serve_apps.test_gateway import backend, client, events, gateway  # noqa: F401 - fixtures

A = TokenLogprob("a", -0.5, (("a", -0.5), ("b", -1.0)))
B = TokenLogprob("bc", -0.25, (("bc", -0.25),))


def completion(**fields: Any) -> Any:
    return CompletionBody.model_validate({"model": "m", "prompt": "x", **fields}).to_request()


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ("x", {"prompt": "x"}),
        ([1, 2], {"token_ids": (1, 2)}),
        (["x"], {"prompt": "x"}),
        ([[1, 2]], {"token_ids": (1, 2)}),
        (["x", "y"], {"prompts": ("x", "y")}),
        ([[1], [2, 3]], {"prompts": ((1,), (2, 3))}),
    ],
)
def test_prompts_in_all_their_forms(prompt: Any, fields: dict[str, Any]) -> None:
    request = completion(prompt=prompt)
    given = {"prompt": None, "token_ids": None, "prompts": (), **fields}
    assert {name: getattr(request, name) for name in given} == given


def test_every_field_reaches_the_model() -> None:
    request = completion(
        n=2, logprobs=3, presence_penalty=1, frequency_penalty=-1, logit_bias={"7": 5}, seed=4, top_p=0.5
    )
    assert (request.n, request.logprobs, request.seed, request.top_p) == (2, 3, 4, 0.5)
    assert (request.presence_penalty, request.frequency_penalty) == (1, -1)
    assert request.logit_bias == ((7, 5.0),)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 4}, 4),
        ({"top_logprobs": 4}, None),
    ],
)
def test_chats_log_probabilities(fields: dict[str, Any], expected: int | None) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = ChatBody.model_validate({"model": "m", "messages": messages, **fields})
    assert body.to_request().logprobs == expected


@pytest.mark.parametrize(
    ("given", "inputs"),
    [("x", ("x",)), ([1, 2], ((1, 2),)), (["x", "y"], ("x", "y")), ([[1], [2]], ((1,), (2,)))],
)
def test_inputs_in_all_their_forms(given: Any, inputs: Any) -> None:
    assert EmbeddingBody.model_validate({"model": "m", "input": given}).to_request().inputs == inputs


def test_several_choices_are_counted_together() -> None:
    other = Chunk(text="no", finish_reason="length", completion_tokens=4, index=1)
    answer = Chunk(text="yes", finish_reason="stop", prompt_tokens=3, completion_tokens=2, others=(other,))
    body = Shape(True, "1", 0, "m").whole(answer)
    assert [choice["message"]["content"] for choice in body["choices"]] == ["yes", "no"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def test_log_probabilities_of_a_completion() -> None:
    answer = Chunk(text="abc", finish_reason="stop", logprobs=(A, B))
    assert Shape(False, "1", 0, "m", logprobs=True).whole(answer)["choices"][0]["logprobs"] == {
        "tokens": ["a", "bc"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"a": -0.5, "b": -1.0}, {"bc": -0.25}],
        "text_offset": [0, 1],
    }


def test_tokens_that_look_alike_are_told_as_the_likeliest() -> None:
    token = TokenLogprob("?", -0.5, (("?", -0.5), ("b", -1.0), ("?", -2.0)))
    answer = Chunk(text="?", finish_reason="stop", logprobs=(token,))
    told = Shape(False, "1", 0, "m", logprobs=True).whole(answer)["choices"][0]["logprobs"]
    assert told["top_logprobs"] == [{"?": -0.5, "b": -1.0}]


def test_log_probabilities_of_a_chat() -> None:
    answer = Chunk(text="a", finish_reason="stop", logprobs=(A,))
    told = Shape(True, "1", 0, "m", logprobs=True).whole(answer)["choices"][0]["logprobs"]["content"]
    assert told[0]["token"] == "a" and told[0]["bytes"] == [97]
    assert [other["logprob"] for other in told[0]["top_logprobs"]] == [-0.5, -1.0]


def test_a_stream_of_choices_names_each_speaker_once_and_ends_with_the_counts() -> None:
    shape = Shape(True, "1", 0, "m", usage=True)
    chunks = [
        Chunk(text="y"),
        Chunk(text="n", index=1),
        Chunk(text="", finish_reason="stop", prompt_tokens=3, completion_tokens=2),
        Chunk(text="o", finish_reason="stop", completion_tokens=2, index=1),
    ]
    bodies = [body for chunk in chunks for body in shape.pieces(chunk)]
    deltas = [(body["choices"][0]["index"], body["choices"][0]["delta"]) for body in bodies]
    assert deltas == [
        (0, {"role": "assistant", "content": ""}), (0, {"content": "y"}),
        (1, {"role": "assistant", "content": ""}), (1, {"content": "n"}),
        (0, {}), (1, {"content": "o"}),
    ]  # fmt: skip
    last = shape.last()
    assert last is not None and last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_offsets_go_on_through_a_stream() -> None:
    shape = Shape(False, "1", 0, "m", logprobs=True)
    chunks = [Chunk(text="a", logprobs=(A,)), Chunk(text="bc", logprobs=(B,))]
    told = [shape.pieces(chunk)[0]["choices"][0]["logprobs"]["text_offset"] for chunk in chunks]
    assert told == [[0], [1]]


def test_vectors_as_numbers_and_as_bytes() -> None:
    raw = struct.pack("<4f", 1, 0, 0.5, -1)
    found = Embeddings(width=2, data=raw, prompt_tokens=5)
    body = embedding_body("m", found, as_base64=False)
    assert [item["embedding"] for item in body["data"]] == [[1, 0], [0.5, -1]]
    assert body["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    coded = embedding_body("m", found, as_base64=True)["data"][1]["embedding"]
    assert base64.b64decode(coded) == raw[8:]


def test_embeddings_are_served(client: TestClient, backend: FakeBackend) -> None:  # noqa: F811
    body = client.post("/v1/embeddings", json={"model": "M", "input": ["x", "y"]}).json()
    assert [item["embedding"] for item in body["data"]] == [pytest.approx([0.6, 0.8])] * 2
    assert body["model"] == "org/m"


def test_a_million_stops_are_one_clear_error(client: TestClient) -> None:  # noqa: F811
    stops = ["x"] * 1_000_000
    response = client.post("/v1/completions", json={"model": "m", "prompt": "x", "stop": stops})
    assert response.status_code == 413
    assert "larger than" in response.json()["error"]["message"]


def test_a_model_that_fails_in_the_middle_ends_the_stream_with_one_error(
    client: TestClient,  # noqa: F811
    backend: FakeBackend,  # noqa: F811
) -> None:
    from serve_apps.messages import Refusal

    backend.answer = (Chunk(text="Hel"), Refusal(message="The model failed: out of memory", status=500))
    text = client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True}).text
    told = events(text)
    assert [body for body in told if "error" in body] == told[-1:]
    assert told[-1]["error"]["message"] == "The model failed: out of memory"
