"""Puts back what a traced block left in the model and in its process, before the next one comes.

For blocks that run in the model's own process. It undoes what blocks do in the course of research;
it is no defence against a sender who means harm, which only another process is.
"""

from __future__ import annotations

import gc
import linecache
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger("ray.serve")

SAMPLES = 16
"""Elements of each weight that are compared after a block, besides torch's own count of writes."""

Weights = Mapping[str, Any]


class ModelBaseline:
    """A model as it was when it was loaded, and the way back to it.

    Covers modules (children, hooks, attributes, training mode), parameters (identity, gradients,
    ``requires_grad``, hooks, values), the configurations and the tokenizer's settings. ``reload``
    gives the original weights by name; it is called only after a block has written on some.
    """

    def __init__(self, model: Any, reload: Callable[[], Weights] | None = None) -> None:
        self._model = model
        self._module = model._module
        self._reload = reload
        self._modules = [(module, _attributes(module)) for module in self._module.modules()]
        # the interleaver knows envoys by the address of their module, which a later one may get again
        settings = [
            model.interleaver,
            getattr(self._module, "config", None),
            getattr(self._module, "generation_config", None),
            getattr(model, "tokenizer", None),
        ]
        self._settings = [(item, _attributes(item)) for item in settings if item is not None]
        self._attention = model.attn_implementation
        weights = dict(self._module.named_parameters()) | dict(self._module.named_buffers())
        self._parts = [(whole, part) for whole in weights.values() if (part := _parts(whole))]
        self._tensors = _plain(weights)
        self._marks = {name: _mark(tensor) for name, tensor in self._tensors.items()}

    def restore(self) -> None:
        """Back to the baseline. Raises what ``reload`` raises, where weights cannot be had again."""
        self._model.interleaver.cancel()
        self._model._remoteable_set_env({"attn_implementation": self._attention})
        for owner, attributes in [*self._modules, *self._settings]:
            _put_back(owner, attributes)
        for whole, parts in self._parts:
            for name, part in parts.items():
                if getattr(whole, name) is not part:
                    setattr(whole, name, part)
        for parameter in self._module.parameters():
            parameter.grad = None
            if parameter.requires_grad:
                parameter.requires_grad_(False)
            parameter._backward_hooks = None
            parameter._post_accumulate_grad_hooks = None
        self._restore_weights()

    def _restore_weights(self) -> None:
        changed = [name for name, tensor in self._tensors.items() if not _same(tensor, self._marks[name])]
        if not changed:
            return
        logger.warning("a traced block changed %d weights (%s ...); reloading them", len(changed), changed[0])
        if self._reload is None:
            raise RuntimeError(f"A traced block changed weights, {changed[0]} among them.")
        import torch

        originals = _plain(self._reload())
        with torch.no_grad():
            # a change by way of .data leaves no trace but in the values: all are put back
            for name, tensor in self._tensors.items():
                tensor.data = self._marks[name].storage
                tensor.copy_(originals[name])
        self._marks = {name: _mark(tensor) for name, tensor in self._tensors.items()}


def _parts(tensor: Any) -> Weights:
    """What a quantised tensor is made of, by name: its integers and their scale. Nothing for others."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    return {name: getattr(tensor, name) for name in flatten()[0]} if flatten else {}


def _plain(weights: Weights) -> Weights:
    """The same with the parts of quantised tensors in their place."""
    found: dict[str, Any] = {}
    for name, tensor in weights.items():
        parts = _parts(tensor)
        found |= {f"{name}.{part}": value for part, value in parts.items()} if parts else {name: tensor}
    return found


class _Mark:
    __slots__ = ("pointer", "sample", "storage", "version")

    def __init__(self, storage: Any, pointer: int, version: int, sample: Any) -> None:
        self.storage = storage
        self.pointer = pointer
        self.version = version
        self.sample = sample


def _sample(tensor: Any) -> Any:
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)]


def _mark(tensor: Any) -> _Mark:
    # tensor.data is another tensor on the same memory: it brings it back after an assignment to .data
    return _Mark(tensor.data, tensor.data_ptr(), tensor._version, _sample(tensor).clone())


def _same(tensor: Any, mark: _Mark) -> bool:
    import torch

    if tensor._version != mark.version or tensor.data_ptr() != mark.pointer:
        return False
    sample = _sample(tensor)
    return sample.shape == mark.sample.shape and bool(torch.equal(sample, mark.sample))


_Attributes = dict[str, tuple[Any, Any]]
"""Name to value, and to a copy of its content where the value is a container."""


def _attributes(owner: Any) -> _Attributes:
    return {
        name: (value, value.copy() if isinstance(value, dict | list | set) else None)
        for name, value in vars(owner).items()
    }


def _put_back(owner: Any, attributes: _Attributes) -> None:
    own = vars(owner)
    for name in [name for name in own if name not in attributes]:
        del own[name]
    for name, (value, content) in attributes.items():
        if own.get(name) is not value:
            own[name] = value
        if content is not None and not _same_content(value, content):
            value.clear()
            if isinstance(value, list):
                value.extend(content)
            else:
                value.update(content)


def _same_content(value: Any, content: Any) -> bool:
    if len(value) != len(content):
        return False
    if isinstance(value, dict):
        return all(value.get(key) is item for key, item in content.items()) and list(value) == list(content)
    if isinstance(value, list):
        return all(one is other for one, other in zip(value, content, strict=True))
    return bool(value == content)


def tidy_memory() -> None:
    """Lets go of what a block left in cycles. What was loaded before is not looked at again."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def freeze_memory() -> None:
    """Takes what is loaded now out of the collector's sight, which makes collecting quick."""
    gc.collect()
    gc.freeze()


@contextmanager
def clean_process() -> Iterator[None]:
    """Puts back what a block changes in this process: chance, sources, torch's modes, environment.

    Chance begins anew inside, so that one block says nothing about the next one's draws.
    """
    import numpy
    import torch
    from nnsight.tracing import globals as tracing

    stores: list[dict[Any, Any]] = [linecache.cache, tracing.SOURCES, tracing.BLOCKS]
    before = [dict(store) for store in stores]
    chance = random.getstate(), numpy.random.get_state()
    dtype, folder, variables, path = torch.get_default_dtype(), Path.cwd(), dict(os.environ), list(sys.path)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
            torch.seed()
            random.seed()
            numpy.random.seed()
            yield
    finally:
        random.setstate(chance[0])
        numpy.random.set_state(chance[1])
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.use_deterministic_algorithms(False)
        os.chdir(folder)
        _put_back_environment(variables)
        sys.path[:] = path
        for store, content in zip(stores, before, strict=True):
            store.clear()
            store.update(content)


def _put_back_environment(variables: dict[str, str]) -> None:
    for name in [name for name in os.environ if name not in variables]:
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
