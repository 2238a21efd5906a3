"""Keys and values of several rows in one block of memory that grows by doubling."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

FIRST_ROWS = 1
FIRST_WIDTH = 128


class SlotCache(Cache):  # type: ignore[misc]
    """transformers' ``Cache`` over slots; whoever runs a pass says beforehand where it writes."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._rows = FIRST_ROWS
        self._width = FIRST_WIDTH
        self._block: tuple[int, int, int, int] | None = None
        self._positions: Any = None
        self._seen = 0

    def room(self, rows: int, width: int) -> None:
        """Makes room for ``rows`` slots of ``width`` tokens."""
        wanted = self._rows, self._width
        self._rows, self._width = _doubled(self._rows, rows), _doubled(self._width, width)
        if (self._rows, self._width) == wanted:
            return
        for blocks in (self._keys, self._values):
            for number, block in enumerate(blocks):
                blocks[number] = self._grown(block)

    def _grown(self, block: Any) -> Any:
        grown = block.new_zeros(self._rows, block.shape[1], self._width, block.shape[3])
        grown[: block.shape[0], :, : block.shape[2]] = block
        return grown

    def write_run(self, slot: int, start: int, count: int) -> None:
        """The next pass reads ``count`` tokens of one slot, from ``start`` on."""
        self._block, self._seen = (slot, 1, start, count), start + count

    def write_block(self, slot: int, rows: int, width: int) -> None:
        """The next pass reads ``width`` tokens from the start of each of ``rows`` slots."""
        self._block, self._seen = (slot, rows, 0, width), width

    def write_each(self, positions: Any, width: int) -> None:
        """The next pass reads one token of each of the first slots, at ``positions``."""
        self._block, self._positions, self._seen = None, positions, width

    def update(self, keys: Any, values: Any, layer_idx: int, *args: Any, **others: Any) -> Any:
        while len(self._keys) <= layer_idx:
            # zeros: what lies behind a row's end is masked, and nothing times NaN is still NaN
            self._keys.append(keys.new_zeros(self._rows, keys.shape[1], self._width, keys.shape[3]))
            self._values.append(values.new_zeros(self._rows, values.shape[1], self._width, values.shape[3]))
        return self._write(self._keys[layer_idx], keys), self._write(self._values[layer_idx], values)

    def _write(self, block: Any, new: Any) -> Any:
        if self._block is not None:
            slot, rows, start, count = self._block
            block[slot : slot + rows, :, start : start + count] = new
            return block[slot : slot + rows, :, : self._seen]
        slots = torch.arange(new.shape[0], device=new.device)
        block[slots, :, self._positions.to(new.device)] = new[:, :, 0]
        return block[: new.shape[0], :, : self._seen]

    def swap(self, one: int, other: int, width: int) -> None:
        for block in (*self._keys, *self._values):
            kept = block[one, :, :width].clone()
            block[one, :, :width] = block[other, :, :width]
            block[other, :, :width] = kept

    def bytes_with(self, rows: int, width: int) -> int:
        """What all would take with room for so much; 0 before the first pass."""
        blocks = (*self._keys, *self._values)
        per_token: int = sum(block.shape[1] * block.shape[3] * block.element_size() for block in blocks)
        return per_token * _doubled(self._rows, rows) * _doubled(self._width, width)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._seen, 0


def _doubled(size: int, wanted: int) -> int:
    while size < wanted:
        size *= 2
    return size
