"""A replica whose weights are a byte each: it answers, is traced, differentiated and tidied like others."""

# ruff: noqa: F841 - what a traced block assigns is saved under that name
from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_apps.messages import Chunk, FrameKind, GenerationRequest
from serve_apps.model.isolation import _plain
from tests.serve_apps.blocks import Captured, loaded, run_block
from tests.serve_apps.test_isolation import leave, logits
from tests.tiny_model import TINY_REPO_ID, model_key


@pytest.fixture(scope="module")
def int8(hf_home: Path) -> Any:
    from serve_apps.model.replica import ModelReplica

    async def make() -> ModelReplica:
        return ModelReplica(
            {
                "node": "cpu-0",
                "model_key": model_key(),
                "repo_id": TINY_REPO_ID,
                "dtype": "int8",
                "num_gpus": 0,
                "memory_bytes": 0,
                "footprint_bytes": 0,
            }
        )

    return asyncio.run(make())


def weight_bytes(replica: Any) -> int:
    weights = _plain(dict(replica._model._module.named_parameters()))
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def test_matrices_take_a_byte_a_weight_and_the_rest_two(int8: Any) -> None:
    module = int8._model._module
    matrices = sum(weight.numel() for weight in module.model.layers.parameters() if weight.ndim == 2)
    others = sum(one.numel() for one in module.parameters()) - matrices
    scales = weight_bytes(int8) - matrices - 2 * others
    assert 0 < scales < 0.2 * matrices


def test_it_says_nearly_the_same_as_the_model_it_was(int8: Any, replica: Any, client_model: Any) -> None:
    theirs, ours = (logits(one, client_model).float() for one in (replica, int8))
    assert 0 < (theirs - ours).norm() < 0.05 * theirs.norm()


def test_it_generates(int8: Any) -> None:
    answer = asyncio.run(int8.complete(GenerationRequest(prompt="Hello", max_tokens=8, temperature=0)))
    assert isinstance(answer, Chunk) and answer.completion_tokens == 8


def test_traced_blocks_read_and_write_what_flows_through_it(int8: Any, client_model: Any) -> None:
    before = logits(int8, client_model)
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        hidden = client_model.model.layers[1].output.save()
        client_model.model.layers[2].mlp.output[:] = 0
        changed = client_model.lm_head.output.save()
    saved = loaded(run_block(int8, captured.payload)[-1])
    assert saved["hidden"].shape[-1] == int8._model._module.config.hidden_size
    assert not (saved["changed"] == before).all()


def test_gradients_flow_through_it(int8: Any, client_model: Any) -> None:
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        hidden = client_model.model.layers[0].output
        hidden.requires_grad_(True)
        loss = client_model.lm_head.output.float().sum()
        with loss.backward():
            gradient = hidden.grad.save()
    assert loaded(run_block(int8, captured.payload)[-1])["gradient"].abs().sum() > 0


def zeroed(model: Any) -> None:
    import torch

    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.qdata.zero_()


def scaled(model: Any) -> None:
    model.model.layers[1].mlp.up_proj.weight.scale.data[:] = 0


def other_integers(model: Any) -> None:
    import torch

    weight = model.model.layers[1].mlp.up_proj._module.weight
    weight.qdata = torch.zeros_like(weight.qdata)


def other_weight(model: Any) -> None:
    import torch

    module = model.model.layers[1].mlp.up_proj._module
    module.weight = torch.nn.Parameter(torch.zeros(module.out_features, module.in_features).bfloat16())


@pytest.mark.parametrize(
    "write", [zeroed, scaled, other_integers, other_weight], ids=lambda write: write.__name__
)
def test_what_a_block_does_to_the_weights_is_undone(
    int8: Any, client_model: Any, write: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logits(int8, client_model)
    restore = int8._executor._baseline.restore
    with monkeypatch.context() as patched:
        # the block does leave something, or this test would show nothing
        patched.setattr(int8._executor._baseline, "restore", lambda: None)
        try:
            leave(int8, client_model, write)
            assert not (logits(int8, client_model) == before).all()
        finally:
            restore()
    assert (logits(int8, client_model) == before).all()


def test_weights_can_be_read_as_numbers(int8: Any, client_model: Any) -> None:
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        weight = client_model.model.layers[1].mlp.up_proj.weight.dequantize().save()
    frame = run_block(int8, captured.payload)[-1]
    assert frame.kind is not FrameKind.ERROR
    assert loaded(frame)["weight"].is_floating_point()
