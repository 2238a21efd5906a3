"""What a traced block took, measured around it: what runs inside could say anything."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger("ray.serve")


class Cost:
    """Begins with its making; ``meta`` tells what it has come to."""

    def __init__(self) -> None:
        import torch

        self._started = time.monotonic()
        self._devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
        if not self._devices:
            _forget_peak()

    def meta(self) -> dict[str, Any]:
        """nnsight's keys: ``runtime`` in seconds, memory in bytes, shares of a device in percent.

        Without a GPU the memory is the most this process held of the machine's RAM, weights included.
        """
        import torch

        peaks = {device: torch.cuda.max_memory_allocated(device) for device in self._devices}
        totals = {d: torch.cuda.get_device_properties(d).total_memory for d in self._devices}
        return {
            "runtime": time.monotonic() - self._started,
            "max_memory_usage": sum(peaks.values()) if self._devices else _peak_bytes(),
            "max_mem_by_gpu": {str(d): peak for d, peak in peaks.items()},
            "max_mem_pct_by_gpu": {str(d): 100 * peak / totals[d] for d, peak in peaks.items()},
        }


def _forget_peak() -> None:
    try:
        # proc(5): 5 sets the peak resident size to the present one
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        # then the peak is that of the process's whole life
        logger.debug("the peak of memory cannot be reset: %s", error)


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
