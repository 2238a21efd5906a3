"""One traced block's leftovers never reach the next, nor whoever generates text."""

# ruff: noqa: F841, T201 - what a traced block assigns is saved under that name; blocks print
from __future__ import annotations

import asyncio
import contextlib
import linecache
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from serve_apps.messages import BlockRequest, Chunk, Frame, FrameKind, GenerationRequest
from serve_apps.model.executor import Block, InProcessExecutor
from tests.serve_apps.blocks import Captured, loaded, run_block


def traced(client_model: Any, write: Callable[[Any], None]) -> bytes:
    """The payload of a block that calls ``write(model)`` and then lets the model run."""
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        write(client_model)
        logits = client_model.lm_head.output.save()
    return captured.payload


def logits(replica: Any, client_model: Any) -> Any:
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        logits = client_model.lm_head.output.save()
    return loaded(run_block(replica, captured.payload)[-1])["logits"]


def leave(replica: Any, client_model: Any, write: Callable[[Any], None]) -> None:
    frames = run_block(replica, traced(client_model, write))
    assert frames[-1].kind is FrameKind.RESULT, frames[-1].data.decode()


def zeroed(model: Any) -> None:
    import torch

    with torch.no_grad():
        model.lm_head.weight.zero_()


def zeroed_by_data(model: Any) -> None:
    model.lm_head.weight.data[:] = 0


def replaced_data(model: Any) -> None:
    import torch

    model.lm_head.weight.data = torch.zeros_like(model.lm_head.weight.data)


def replaced_parameter(model: Any) -> None:
    import torch

    model.lm_head._module.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))


def changed_buffer(model: Any) -> None:
    model.model.rotary_emb.inv_freq.mul_(3)


def hooked(model: Any) -> None:
    model.model.norm._module.register_forward_hook(lambda module, inputs, output: output * 0)


def hooked_before(model: Any) -> None:
    model.lm_head._module.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0,))


def other_forward(model: Any) -> None:
    import torch

    module = model.model.norm._module
    module.forward = lambda hidden: torch.zeros_like(hidden)


def other_child(model: Any) -> None:
    import torch

    class Nothing(torch.nn.Module):
        def forward(self, hidden: Any, **others: Any) -> Any:
            return hidden * 0

    model._module.model.layers[3] = Nothing()


def other_config(model: Any) -> None:
    model._module.config.num_hidden_layers = 2
    del model._module.model.layers[2:]


def other_epsilon(model: Any) -> None:
    for module in model._module.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 10.0


def other_attention(model: Any) -> None:

    model._module.set_attn_implementation("eager")


def dropout(model: Any) -> None:
    model._module.config.attention_dropout = 0.9
    for module in model._module.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.9
    model._module.train()


MODEL_WRITES = [
    zeroed, zeroed_by_data, replaced_data, replaced_parameter, changed_buffer, hooked, hooked_before,
    other_forward, other_child, other_config, other_epsilon, dropout,
]  # fmt: skip


@pytest.mark.parametrize("write", MODEL_WRITES, ids=lambda write: write.__name__)
def test_what_a_block_does_to_the_model_is_undone(
    replica: Any, client_model: Any, write: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = logits(replica, client_model)
    restore = replica._executor._baseline.restore
    with monkeypatch.context() as patched:
        # the block does leave something, or this test would show nothing
        patched.setattr(replica._executor._baseline, "restore", lambda: None)
        try:
            leave(replica, client_model, write)
            assert not (logits(replica, client_model) == before).all()
        finally:
            restore()
    assert (logits(replica, client_model) == before).all()


def test_the_attention_implementation_is_the_models_own_again(replica: Any, client_model: Any) -> None:
    own = replica._model.attn_implementation
    leave(replica, client_model, other_attention)
    assert replica._model.attn_implementation == own != "eager"


def test_edits_end_with_their_block(replica: Any, client_model: Any) -> None:
    before = logits(replica, client_model)
    captured = Captured()
    with client_model.session(backend=captured):
        with client_model.edit(inplace=True):
            client_model.lm_head.output[:] = 0
        with client_model.trace("Hello"):
            edited = client_model.lm_head.output.save()
    assert (loaded(run_block(replica, captured.payload)[-1])["edited"] == 0).all()
    assert (logits(replica, client_model) == before).all()


def test_an_attached_module_is_gone(replica: Any, client_model: Any) -> None:
    import torch

    known = set(replica._model.interleaver.envoys)
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        client_model.model.layers[0].adapter = torch.nn.Linear(4, 4)
        seen = client_model.model.layers[0].output.save()
    run_block(replica, captured.payload)
    assert "adapter" not in replica._model._module.model.layers[0]._modules
    assert set(replica._model.interleaver.envoys) == known


def test_an_adapter_is_there_for_its_block_alone(replica: Any, client_model: Any, tmp_path: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    from tests.tiny_model import TINY_REPO_ID

    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(TINY_REPO_ID),
        peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
    ).eval()
    adapted.save_pretrained(tmp_path)
    before = logits(replica, client_model)
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        logits_ = client_model.lm_head.output.save()
    last = run_with(replica, captured.payload, env={"peft": str(tmp_path)})[-1]
    assert last.kind is FrameKind.RESULT, last.data.decode()
    with torch.no_grad():
        expected = adapted(**client_model.tokenizer("Hello", return_tensors="pt")).logits
    assert torch.allclose(loaded(last)["logits_"], expected, atol=1e-5)
    assert not torch.allclose(expected, before, atol=1e-3)
    assert (logits(replica, client_model) == before).all()
    assert isinstance(asyncio.run(replica.complete(GenerationRequest(prompt="a", max_tokens=1))), Chunk)


def test_gradients_are_gone(replica: Any, client_model: Any) -> None:
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        client_model.lm_head.weight.requires_grad_(True)
        loss = client_model.lm_head.output.sum()
        loss.backward()
        gradient = client_model.lm_head.weight.grad.clone().save()
    assert loaded(run_block(replica, captured.payload)[-1])["gradient"].abs().sum() > 0
    parameters = list(replica._model._module.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in parameters)


def test_prints_go_to_their_own_sender_only(replica: Any, client_model: Any) -> None:
    def stays(model: Any) -> None:
        import sys

        sys.stdout.write("no end of line")
        sys.stdout = None  # type: ignore[assignment]

    original = sys.stdout
    leave(replica, client_model, stays)
    assert sys.stdout is original
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        print("mine")
    printed = [frame.data for frame in run_block(replica, captured.payload) if frame.kind is FrameKind.LOG]
    assert printed == [b"mine"]


def test_sources_of_a_block_are_forgotten(replica: Any, client_model: Any) -> None:
    payload = traced(client_model, lambda model: None)
    linecache.cache[__file__] = (1, None, ["this file's own first line\n"], __file__)
    try:
        assert run_block(replica, payload)[-1].kind is FrameKind.RESULT
        assert linecache.cache[__file__][2] == ["this file's own first line\n"]
    finally:
        del linecache.cache[__file__]


def test_chance_is_each_blocks_own(replica: Any, client_model: Any) -> None:
    def seeded(model: Any) -> None:
        import random

        import numpy
        import torch

        torch.manual_seed(0)
        numpy.random.seed(0)
        random.seed(0)

    def draws() -> list[float]:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            import random

            import numpy
            import torch

            drawn = [float(torch.rand(1)), float(numpy.random.rand()), random.random()]
            drawn.save()
        found: list[float] = loaded(run_block(replica, captured.payload)[-1])["drawn"]
        return found

    import torch

    state, python_state = torch.get_rng_state(), random.getstate()
    leave(replica, client_model, seeded)
    assert (torch.get_rng_state() == state).all() and random.getstate() == python_state
    leave(replica, client_model, seeded)
    first = draws()
    leave(replica, client_model, seeded)
    assert all(one != other for one, other in zip(first, draws(), strict=True))


def test_the_process_is_as_before(replica: Any, client_model: Any) -> None:
    def changes(model: Any) -> None:
        import os
        import sys

        import torch

        os.environ["LEFT_BY_A_BLOCK"] = "1"
        os.environ.pop("HOME", None)
        os.chdir("/")
        sys.path.insert(0, "/left")
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")

    import torch

    before = dict(os.environ), os.getcwd(), list(sys.path)  # noqa: PTH109
    leave(replica, client_model, changes)
    assert (dict(os.environ), os.getcwd(), list(sys.path)) == before  # noqa: PTH109
    assert torch.ones(1).dtype == torch.float32 and torch.ones(1).device.type == "cpu"


def test_memory_does_not_grow_with_blocks(replica: Any, client_model: Any) -> None:
    import gc

    import torch

    def tensors() -> int:
        return sum(1 for item in gc.get_objects() if isinstance(item, torch.Tensor))

    def hoards(model: Any) -> None:
        import torch

        ring: list[Any] = [torch.ones(1000)]
        ring.append(ring)
        model._module.hoard = ring

    def fails(model: Any) -> None:
        model.model.layers[99].output.save()

    payloads = [traced(client_model, hoards), traced(client_model, fails)]
    for payload in payloads:
        run_block(replica, payload)
    before = tensors()
    gc.disable()
    try:
        for _ in range(5):
            for payload in payloads:
                run_block(replica, payload)
        assert tensors() <= before
    finally:
        gc.enable()


def run_with(replica: Any, payload: bytes, **fields: Any) -> list[Frame]:
    request = BlockRequest(job_id="j", payload=payload, compress=True, **fields)

    async def collect() -> list[Frame]:
        return [frame async for frame in replica.run_block(request)]

    return asyncio.run(collect())


def endless(client_model: Any) -> bytes:
    captured = Captured()
    with client_model.trace("Hello", backend=captured):
        print("begun")
        while True:
            with contextlib.suppress(Exception):
                total = sum(range(1000))
    return captured.payload


class TestTime:
    def test_a_block_that_takes_too_long_is_ended(self, replica: Any, client_model: Any) -> None:
        began = time.monotonic()
        frames = run_with(replica, endless(client_model), limit_seconds=0.5)
        assert 0.5 <= time.monotonic() - began < 10
        text = frames[-1].data.decode()
        assert frames[-1].kind is FrameKind.ERROR and frames[-2].kind is FrameKind.META
        assert "longer than the 0.5 s" in text
        # and it says where it was
        assert "test_isolation.py" in text
        replica.check_health()
        assert isinstance(asyncio.run(replica.complete(GenerationRequest(prompt="a", max_tokens=1))), Chunk)

    def test_a_block_whose_sender_leaves_is_ended(self, replica: Any, client_model: Any) -> None:
        request = BlockRequest(job_id="j", payload=endless(client_model), compress=True)

        async def go_away() -> Any:
            async with aclosing(replica.run_block(request)) as frames:
                async for frame in frames:
                    # printed while the block runs
                    if frame.kind is FrameKind.LOG:
                        break
            return await replica.complete(GenerationRequest(prompt="a", max_tokens=1))

        assert isinstance(asyncio.run(go_away()), Chunk)

    def test_a_block_that_cannot_be_ended_makes_the_replica_ill(
        self, replica: Any, client_model: Any
    ) -> None:
        captured = Captured()
        held = threading.Event()
        with client_model.trace("Hello", backend=captured):
            import time

            time.sleep(1)
            done = [1].save()
        executor = InProcessExecutor(replica._model, replica._executor._baseline, grace_seconds=0.1)
        frames = list(executor.run(Block(captured.payload, True, {}, limit_seconds=0.2), held))
        assert b"could not be stopped" in frames[-1].data
        assert "could not be stopped" in (executor.fatal() or "")
        for thread in threading.enumerate():
            if thread.name == "traced-block":
                thread.join(10)
