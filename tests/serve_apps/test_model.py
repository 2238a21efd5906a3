"""A replica's logic on the tiny model, without Ray: generation, turns, traced blocks."""

# ruff: noqa: F841 - what a traced block assigns is saved under that name
from __future__ import annotations

import asyncio
import io
import json
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from serve_apps.messages import BlockRequest, Chunk, Frame, FrameKind, GenerationRequest, Refusal
from serve_apps.model.loading import cached_snapshot, choose_device
from tests.serve_apps.blocks import Captured, loaded, run_block
from tests.tiny_model import TINY_CONTEXT, TINY_REPO_ID, TINY_SNAPSHOT, write_tiny_model


def complete(replica: Any, **request: Any) -> Chunk | Refusal:
    answer: Chunk | Refusal = asyncio.run(replica.complete(GenerationRequest(**request)))
    return answer


def greedy(replica: Any, **request: Any) -> Chunk:
    answer = complete(replica, **{"prompt": "Hello", "temperature": 0, "max_tokens": 12, **request})
    assert isinstance(answer, Chunk), answer
    return answer


class TestGeneration:
    def test_counts_and_reason(self, replica: Any) -> None:
        answer = greedy(replica)
        assert (answer.prompt_tokens, answer.completion_tokens) == (5, 12)
        assert answer.finish_reason == "length"

    def test_text_and_tokens_say_the_same(self, replica: Any) -> None:
        ids = tuple(replica._model.tokenizer("Hello")["input_ids"])
        assert greedy(replica, prompt=None, token_ids=ids).text == greedy(replica).text

    def test_a_stop_string_ends_the_text_before_it(self, replica: Any) -> None:
        whole = greedy(replica).text
        stop = whole[4:6]
        answer = greedy(replica, stop=(stop,))
        assert answer.text == whole[: whole.index(stop)]
        assert answer.finish_reason == "stop"
        assert answer.completion_tokens < 12

    def test_the_same_seed_says_the_same(self, replica: Any) -> None:
        def sampled(seed: int | None) -> str:
            answer = complete(replica, prompt="Hello", temperature=2, max_tokens=20, seed=seed)
            assert isinstance(answer, Chunk)
            return answer.text

        assert sampled(1) == sampled(1)
        assert len({sampled(None) for _ in range(3)}) > 1

    def test_chat_goes_through_the_models_template(self, replica: Any) -> None:
        answer = greedy(replica, prompt=None, messages=({"role": "user", "content": "hi"},))
        assert answer.prompt_tokens == len(["<|user|>", "h", "i", "<|end|>", "<|assistant|>"])

    def test_generation_ends_where_the_context_does(self, replica: Any) -> None:
        prompt = "x" * (TINY_CONTEXT - 3)
        assert greedy(replica, prompt=prompt, max_tokens=None).completion_tokens <= 3

    @pytest.mark.parametrize(
        ("request_", "word"),
        [
            ({"prompt": "x" * (TINY_CONTEXT + 1)}, "context holds 256"),
            ({"prompt": "x" * 200, "max_tokens": 100}, "context holds 256"),
            ({"prompt": ""}, "empty"),
            ({"token_ids": (10**6,)}, "token id"),
            ({"messages": ({"role": "pirate", "content": "x"},)}, "unknown role"),
        ],
    )
    def test_what_cannot_be_generated_is_refused(
        self, replica: Any, request_: dict[str, Any], word: str
    ) -> None:
        answer = complete(replica, **request_)
        assert isinstance(answer, Refusal)
        assert answer.status == 400 and word in answer.message

    def test_leaving_a_stream_ends_it_and_frees_the_turn(self, replica: Any) -> None:
        async def leave() -> int:
            request = GenerationRequest(prompt="a", max_tokens=250, temperature=0)
            seen = 0
            async with aclosing(replica.stream(request)) as parts:
                async for _ in parts:
                    seen += 1
                    break
            assert isinstance(await replica.complete(GenerationRequest(prompt="b", max_tokens=1)), Chunk)
            return seen

        assert asyncio.run(leave()) == 1

    def test_requests_wait_their_turn(self, replica: Any) -> None:
        async def all_at_once() -> list[Any]:
            requests = [GenerationRequest(prompt="Hello", temperature=0, max_tokens=12)] * 5
            return await asyncio.gather(*(replica.complete(request) for request in requests))

        assert {answer.text for answer in asyncio.run(all_at_once())} == {greedy(replica).text}

    def test_a_device_that_broke_makes_the_replica_ill(
        self, replica: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*args: Any) -> None:
            raise RuntimeError("CUDA error: device-side assert triggered")

        monkeypatch.setattr(replica._engine._rows, "begin", broken)
        monkeypatch.setattr(replica._engine, "fatal", None)
        replica.check_health()
        answer = complete(replica, prompt="x")
        assert isinstance(answer, Refusal) and answer.status == 500
        with pytest.raises(RuntimeError, match="CUDA error"):
            replica.check_health()

    def test_reconfigure_never_raises(self, replica: Any) -> None:
        replica.reconfigure({"reservations": ["one"]})
        replica.reconfigure({"nonsense": 1})
        assert replica._config.reservations == ("one",)


class TestBlocks:
    def test_saved_values_and_printed_lines_come_back(self, replica: Any, client_model: Any) -> None:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            print("one\ntwo")  # noqa: T201
            hidden = client_model.model.layers[1].output.save()
            unsaved = client_model.model.layers[2].output
        frames = run_block(replica, captured.payload)
        kinds = [frame.kind for frame in frames]
        assert kinds == [FrameKind.RUNNING, FrameKind.LOG, FrameKind.LOG, FrameKind.META, FrameKind.RESULT]
        assert [frame.data for frame in frames[1:3]] == [b"one", b"two"]
        cost = json.loads(frames[3].data)
        assert set(cost) == {"runtime", "max_memory_usage", "max_mem_by_gpu", "max_mem_pct_by_gpu"}
        assert cost["runtime"] > 0 and cost["max_memory_usage"] > 10**7
        result = loaded(frames[-1])
        assert set(result) == {"hidden"}
        assert result["hidden"].shape == (1, 5, 32)

    def test_a_small_result_comes_as_the_clients_own_frame(self, replica: Any, client_model: Any) -> None:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            logits = client_model.lm_head.output.save()
        last = run_block(replica, captured.payload, inline_limit=10**6)[-1]
        assert last.kind is FrameKind.COMPLETED
        assert "logits" in loaded(last)

    def test_an_instance_of_a_class_only_the_sender_has_comes_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import sys
        import types

        import torch

        from serve_apps.model.results import pack

        module = types.ModuleType("only_there")
        probe = type("Probe", (), {"__module__": "only_there", "__qualname__": "Probe"})
        instance = probe()
        instance.weight = torch.ones(2)
        data = pack({"probe": instance}, compress=False)
        module.Probe = probe  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "only_there", module)
        back = torch.load(io.BytesIO(data), weights_only=False)["probe"]
        assert type(back) is probe and back.weight.tolist() == [1, 1]

    def test_generation_is_traced(self, replica: Any, client_model: Any) -> None:
        captured = Captured()
        with client_model.generate("Hello", max_new_tokens=3, do_sample=False, backend=captured) as tracer:
            ids = tracer.result.save()
        assert loaded(run_block(replica, captured.payload)[-1])["ids"].shape == (1, 8)

    def test_an_error_points_at_the_senders_line(self, replica: Any, client_model: Any) -> None:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            hidden = client_model.model.layers[1].output
            hidden.nonsense.save()
        last = run_block(replica, captured.payload)[-1]
        text = last.data.decode()
        assert last.kind is FrameKind.ERROR
        assert "hidden.nonsense" in text and "test_model.py" in text and "AttributeError" in text
        assert "executor.py" not in text

    def test_a_block_runs_between_the_steps_of_long_texts(self, replica: Any, client_model: Any) -> None:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            hidden = client_model.model.layers[1].output.save()
        block = BlockRequest(job_id="j", payload=captured.payload, compress=True)
        request = GenerationRequest(prompt="a", max_tokens=240, temperature=0, logit_bias=((0, -100.0),))

        async def both() -> tuple[list[str], str]:
            ends: list[str] = []
            begun = asyncio.Event()

            async def text() -> str:
                said = ""
                async with aclosing(replica.stream(request)) as parts:
                    async for part in parts:
                        said += part.text
                        begun.set()
                ends.append("text")
                return said

            async def trace() -> None:
                await begun.wait()
                async with aclosing(replica.run_block(block)) as frames:
                    kinds = [frame.kind async for frame in frames]
                assert kinds[-1] is FrameKind.RESULT
                ends.append("trace")

            texts = [asyncio.create_task(text()) for _ in range(3)]
            await asyncio.gather(trace(), trace())
            said = {await one for one in texts}
            assert len(said) == 1
            return ends, said.pop()

        ends, said = asyncio.run(both())
        # the texts went on around the blocks, and said what they say alone
        assert ends[:2] == ["trace", "trace"]
        assert said == greedy(replica, prompt="a", max_tokens=240, logit_bias=((0, -100.0),)).text

    @pytest.mark.parametrize("payload", [b"", b"junk", b"\x28\xb5\x2f\xfd"])
    def test_a_payload_that_is_none_is_an_error(self, replica: Any, payload: bytes) -> None:
        assert run_block(replica, payload)[-1].kind is FrameKind.ERROR

    def test_a_block_that_exits_does_not_take_the_replica_along(
        self, replica: Any, client_model: Any
    ) -> None:
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            raise SystemExit(3)
        assert b"SystemExit" in run_block(replica, captured.payload)[-1].data
        assert greedy(replica).completion_tokens == 12

    def test_nothing_of_a_block_is_left_behind(self, replica: Any, client_model: Any) -> None:
        import linecache

        text = greedy(replica).text
        captured = Captured()
        with client_model.trace("Hello", backend=captured):
            client_model.model.layers[0].output[:] = 0
            loss = client_model.lm_head.output.sum().save()
        # the client, which is in this process here, reads the source it captures
        before = set(linecache.cache)
        run_block(replica, captured.payload)
        assert set(linecache.cache) == before
        assert greedy(replica).text == text
        assert all(parameter.grad is None for parameter in replica._model._module.parameters())

    def test_prints_of_other_threads_stay_where_they_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        import sys
        import threading

        from serve_apps.model.printing import printed_lines

        frames: list[Frame] = []
        with printed_lines(frames.append):
            other = threading.Thread(target=lambda: sys.stdout.write("other\n"))
            other.start()
            other.join()
            sys.stdout.write("mine\nlast")
        assert [frame.data for frame in frames] == [b"mine", b"last"]
        assert capsys.readouterr().out == "other\n"

    def test_endless_printing_is_cut(self) -> None:
        import sys

        from serve_apps.model.printing import MAX_LOG_BYTES, printed_lines

        frames: list[Frame] = []
        with printed_lines(frames.append):
            for _ in range(MAX_LOG_BYTES // 500):
                sys.stdout.write("x" * 1000 + "\n")
        assert sum(len(frame.data) for frame in frames) <= MAX_LOG_BYTES
        assert b"dropped" in frames[-1].data


class TestCache:
    @pytest.fixture
    def hub(self, tmp_path: Path) -> Path:
        write_tiny_model(tmp_path)
        return tmp_path / "hub"

    def folder(self, hub: Path) -> Path:
        return hub / "models--ndif-test--tiny-llama" / "snapshots" / TINY_SNAPSHOT

    @pytest.mark.parametrize("revision", [None, "main", TINY_SNAPSHOT])
    def test_a_complete_snapshot_is_found(self, hub: Path, revision: str | None) -> None:
        assert cached_snapshot(hub, TINY_REPO_ID, revision) == self.folder(hub)

    @pytest.mark.parametrize("revision", ["other", "1" * 40])
    def test_another_revision_is_not(self, hub: Path, revision: str) -> None:
        assert cached_snapshot(hub, TINY_REPO_ID, revision) is None

    @pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_an_incomplete_one_is_not(self, hub: Path, missing: str) -> None:
        (self.folder(hub) / missing).unlink()
        assert cached_snapshot(hub, TINY_REPO_ID, None) is None

    def test_every_shard_counts(self, hub: Path) -> None:
        folder = self.folder(hub)
        (folder / "model.safetensors").rename(folder / "1.safetensors")
        index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert cached_snapshot(hub, TINY_REPO_ID, None) is None
        (folder / "2.safetensors").touch()
        assert cached_snapshot(hub, TINY_REPO_ID, None) == folder

    def test_a_link_without_its_file_is_missing(self, hub: Path) -> None:
        weights = self.folder(hub) / "model.safetensors"
        weights.unlink()
        weights.symlink_to(hub / "nowhere")
        assert cached_snapshot(hub, TINY_REPO_ID, None) is None


def test_a_reserved_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from serve_apps.model.loading import NoDeviceError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("NDIF_FAKE_GPUS", raising=False)
    assert choose_device(0) == "cpu"
    with pytest.raises(NoDeviceError, match=r"reserved 0\.5 GPU"):
        choose_device(0.5)


def test_building_an_application_imports_no_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys, serve_apps.model.app, serve_apps.gateway.app;"
        "assert not {'torch', 'nnsight', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ), timeout=60)
