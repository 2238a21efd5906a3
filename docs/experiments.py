"""Ten experiments of interpretability research, each run here and on the served model, and compared.

    python docs/experiments.py --url http://127.0.0.1:8267 --model HuggingFaceTB/SmolLM2-135M-Instruct

Nothing but nnsight's own client is needed on this side. The model is loaded here as well, for the
comparison; an experiment alone needs only its config and tokenizer. For models of Llama's shape.
"""

# ruff: noqa: F841, T201 - what a traced block assigns is what it saves; the table is printed
from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

PROMPT = "The Eiffel Tower is in the city of"
OTHER = "The Colosseum is in the city of"
Result = dict[str, Any]
Experiment = Callable[[Any, bool], Result]


def logit_lens(model: Any, remote: bool) -> Result:
    """What the model would say after each of its layers."""
    with model.trace(PROMPT, remote=remote):
        said = []
        for layer in model.model.layers:
            logits = model.lm_head(model.model.norm(layer.output))
            said.append(logits[0, -1].argmax())
        said.save()
    return {"said": [int(token) for token in said]}


def activation_patching(model: Any, remote: bool) -> Result:
    """How far the answer moves when one layer's last token is taken from another prompt."""
    layers = range(0, len(model.model.layers), 2)
    with model.session(remote=remote):
        with model.trace(OTHER):
            donors = [model.model.layers[number].output[:, -1].clone() for number in layers]
            baseline = model.lm_head.output[0, -1].save()
        moved = [].save()
        for number, donor in zip(layers, donors, strict=True):
            with model.trace(PROMPT):
                model.model.layers[number].output[:, -1] = donor
                moved.append((model.lm_head.output[0, -1] - baseline).norm())
    return {"baseline": baseline, "moved": moved}


def steering(model: Any, remote: bool) -> Result:
    """A direction between two prompts, added at every step of a generation."""
    middle = len(model.model.layers) // 2
    with model.trace(remote=remote) as tracer:
        with tracer.invoke(PROMPT):
            one = model.model.layers[middle].output[:, -1].mean(0).save()
        with tracer.invoke(OTHER):
            other = model.model.layers[middle].output[:, -1].mean(0).save()
    direction = 4 * (other - one)
    with model.generate(PROMPT, max_new_tokens=6, do_sample=False, remote=remote) as tracer:
        for _ in tracer.iter[:6]:
            model.model.layers[middle].output += direction
        steered = tracer.result.save()
    return {"direction": direction, "steered": steered}


def attention_patterns(model: Any, remote: bool) -> Result:
    """The weights with which each head of a layer looks back, read inside its forward."""
    own = model.attn_implementation
    model._module.set_attn_implementation("eager")
    try:
        with model.trace(PROMPT, remote=remote):
            weights = model.model.layers[1].self_attn.output[1].save()
    finally:
        model._module.set_attn_implementation(own)
    return {"weights": weights}


def caching(model: Any, remote: bool) -> Result:
    """Every layer's output and input of one run, kept in a cache."""
    with model.trace(PROMPT, remote=remote) as tracer:
        cache = tracer.cache(modules=list(model.model.layers), include_inputs=True)
    return {path: cache[path].output for path in (f"model.model.layers.{n}" for n in (0, 1, 2))}


def generation_with_interventions(model: Any, remote: bool) -> Result:
    """Logits of each step, with one neuron silenced from the third step on."""
    with model.generate(PROMPT, max_new_tokens=5, do_sample=False, remote=remote) as tracer:
        steps = [].save()
        for step in tracer.iter[:5]:
            if step >= 2:
                model.model.layers[0].mlp.down_proj.input[:, :, 0] = 0
            steps.append(model.lm_head.output[0, -1].clone())
        ids = tracer.result.save()
    return {"steps": steps, "ids": ids}


def gradients(model: Any, remote: bool) -> Result:
    """How much each position of a middle layer matters for the likeliest next token."""
    middle = len(model.model.layers) // 2
    with model.trace(PROMPT, remote=remote):
        hidden = model.model.layers[middle].output
        best = model.lm_head.output[0, -1].max()
        with best.backward():
            gradient = hidden.grad.clone().save()
    return {"gradient": gradient}


def sessions(model: Any, remote: bool) -> Result:
    """Two runs in one request, the second built on what the first found, with nothing sent between."""
    with model.session(remote=remote):
        with model.trace(PROMPT):
            strongest = model.model.layers[1].mlp.act_fn.output[0, -1].topk(3).indices
        with model.trace(PROMPT):
            model.model.layers[1].mlp.down_proj.input[:, :, strongest] = 0
            ablated = model.lm_head.output[0, -1].save()
            found = strongest.save()
    return {"found": found, "ablated": ablated}


def batched_invokes(model: Any, remote: bool) -> Result:
    """Three prompts of different lengths in one run, one of them changed."""
    with model.trace(remote=remote) as tracer:
        with tracer.invoke(PROMPT):
            one = model.lm_head.output[:, -1].save()
        with tracer.invoke(OTHER):
            model.model.layers[0].output *= 0.5
            two = model.lm_head.output[:, -1].save()
        with tracer.invoke([PROMPT, "Rome"]):
            both = model.model.layers[2].output[:, -1].save()
    return {"one": one, "two": two, "both": both}


def error_on_purpose(model: Any, remote: bool) -> Result:
    """A mistake comes back as one that names its own line."""
    try:
        with model.trace(PROMPT, remote=remote):
            hidden = model.model.layers[0].output
            mistaken = hidden @ hidden[0, 0, :3]  # THE MISTAKE
    except Exception as error:  # noqa: BLE001 - a mistake is what is looked for
        told = f"{error}" if remote else "mistaken = hidden @ hidden[0, 0, :3]"
    assert "mistaken = hidden @ hidden[0, 0, :3]" in told, told
    lines = [number for number, line in enumerate(open(__file__), 1) if "# THE MISTAKE" in line]  # noqa: SIM115, PTH123
    assert not remote or f"line {lines[0]}" in told, told
    return {"named": True}


def edits(model: Any, remote: bool) -> Result:
    """An edit that stays for the runs of one model object, and for nobody else's."""
    with model.edit() as (_, edited):
        edited.model.layers[1].mlp.output[:] = 0
    with edited.trace(PROMPT, remote=remote):
        changed = edited.lm_head.output[0, -1].save()
    with model.trace(PROMPT, remote=remote):
        plain = model.lm_head.output[0, -1].save()
    assert not bool((changed == plain).all())
    return {"changed": changed, "plain": plain}


def source_access(model: Any, remote: bool) -> Result:
    """A value in the middle of a module's forward, between two of its lines."""
    with model.trace(PROMPT, remote=remote):
        query = model.model.layers[1].self_attn.source.self_q_proj_0.output.save()
    return {"query": query}


def stopping(model: Any, remote: bool) -> Result:
    """A run that ends as soon as it has what it came for."""
    with model.trace(PROMPT, remote=remote) as tracer:
        early = model.model.layers[0].output.save()
        tracer.stop()
    return {"early": early}


def scans(model: Any, remote: bool) -> Result:
    """Shapes without computing anything, then the run that relies on them."""
    with model.scan(PROMPT):
        width = model.model.layers[0].output.shape[-1].save()
    with model.trace(PROMPT, remote=remote):
        model.model.layers[0].output[:, :, width - 1] = 0
        last = model.lm_head.output[0, -1].save()
    return {"width": width, "last": last}


def without_waiting(model: Any, remote: bool) -> Result:
    """A job that is sent off and asked after later."""
    if not remote:
        with model.trace(PROMPT):
            late = model.lm_head.output.save()
        return {"late": late}
    with model.trace(PROMPT, remote=True, blocking=False) as tracer:
        late = model.lm_head.output.save()
    ends_at = time.monotonic() + 60
    while (found := tracer.backend()) is None:
        assert time.monotonic() < ends_at, "no result within a minute"
        time.sleep(0.02)
    return {"late": found["late"]}


def awaited(model: Any, remote: bool) -> Result:
    """Two jobs at once on one event loop."""
    if not remote:
        with model.trace(PROMPT):
            value = model.lm_head.output.save()
        return {"first": value, "second": value}
    from nnsight.intervention.backends.remote import AsyncRemoteBackend

    backends = []
    for _ in range(2):
        backend = AsyncRemoteBackend(model.to_model_key(), env=model._remoteable_get_env())
        with model.trace(PROMPT, backend=backend):
            value = model.lm_head.output.save()
        backends.append(backend)

    async def both() -> list[Any]:
        return await asyncio.gather(*(backend.resolve() for backend in backends))

    first, second = asyncio.run(both())
    return {"first": first["value"], "second": second["value"]}


TEN: tuple[Experiment, ...] = (
    logit_lens, activation_patching, steering, attention_patterns, caching,
    generation_with_interventions, gradients, sessions, batched_invokes, error_on_purpose,
)  # fmt: skip
MORE: tuple[Experiment, ...] = (edits, source_access, stopping, scans, without_waiting, awaited)


def largest_difference(one: Any, other: Any) -> float:
    """Between two results of the same shape, relative to the largest value; infinite if shapes differ."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        if not one.numel():
            return 0.0
        one, other = one.detach().double(), other.detach().double()
        return float((one - other).abs().max() / one.abs().max().clamp(min=1e-9))
    if isinstance(one, dict):
        if set(one) != set(other):
            return float("inf")
        return max((largest_difference(one[name], other[name]) for name in one), default=0.0)
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return float("inf")
        return max((largest_difference(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    return 0.0 if one == other else float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", default=os.environ.get("NDIF_HOST", "http://127.0.0.1:8267"))
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="relative; bfloat16 has 8 bits")
    args = parser.parse_args()
    # nnsight reads it when it is imported
    os.environ["NDIF_HOST"] = args.url.rstrip("/")
    from nnsight import TransformersModel
    from nnsight.modeling.huggingface import _ID_CACHE

    if os.environ.get("HF_HUB_OFFLINE") == "1":
        _ID_CACHE[args.model] = args.model
    model = TransformersModel(args.model, task="text-generation", dispatch=True)
    model._module.eval()
    failed = 0
    for experiment in (*TEN, *MORE):
        try:
            began = time.perf_counter()
            here = experiment(model, False)
            between = time.perf_counter()
            there = experiment(model, True)
            ended = time.perf_counter()
            apart = largest_difference(here, there)
        except Exception as error:  # noqa: BLE001 - the others are run all the same
            print(f"FAILED  {experiment.__name__}: {type(error).__name__}: {error}")
            failed += 1
            continue
        verdict = "same  " if apart <= args.tolerance else "DIFFER"
        failed += apart > args.tolerance
        print(
            f"{verdict}  {experiment.__name__:30} here {1000 * (between - began):6.0f} ms,"
            f" there {1000 * (ended - between):6.0f} ms, apart by {apart:.1e}"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
