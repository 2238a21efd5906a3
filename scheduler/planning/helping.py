"""What would make a refused booking fit: another time, another length, or less of something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from calendars.reservation import Dtype
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask, Hold
from scheduler.planning.needs import Need
from scheduler.planning.openings import FOREVER
from scheduler.planning.targets import Booked
from scheduler.types import Checkpoint, Help, HelpCode

SMALLER: dict[Dtype, tuple[Dtype, ...]] = {
    "float32": ("bfloat16", "int8"),
    "bfloat16": ("int8",),
    "float16": ("int8",),
    "int8": (),
}
"""What weights may be kept in instead, the least change first."""
SLOTS_TRIED = 8
"""So many later starts are tried."""
JOINS_TRIED = 12
"""So many are tried at which a booking could share a stay of its model."""
STAYS_JOINED = 4
"""Stays of its model that it is tried with, the nearest first."""


def is_alone(admission: Admission, ask: Ask, start: float) -> bool:
    """Whether a booking is of one replica that has nothing, and of a model without a stay it could share."""
    return ask.replicas == 1 and not admission.of_booking(ask.key) and not stays_after(admission, ask, start)


def helps(
    admission: Admission, ask: Ask, one: Booked, sizing: Sizing, tried: dict[Need, int | None] | None
) -> Iterator[Help]:
    """What to write instead into a booking; each was tried, and fits at nobody's loss.

    Args:
        tried: told of one that is alone: it is filled with what was tried, each with the node that has room.
    """
    got = admission.would(ask) if ask.replicas > 1 else 0
    if 0 < got < ask.replicas:
        yield Help(code=HelpCode.FEWER_REPLICAS, value=str(got))
    with _given_back(admission, ask):
        yield from _with_other_needs(admission, ask, one, sizing, tried)


def _with_other_needs(
    admission: Admission, ask: Ask, one: Booked, sizing: Sizing, tried: dict[Need, int | None] | None
) -> list[Help]:
    need, found = ask.need, list[Help]()

    def fits(other: Need) -> bool:
        if tried is None:
            return admission.book.possible(other) and _fits(admission, replace(ask, need=other))
        seat = admission.book.find(other, ask.start, ask.end)
        tried[other] = None if seat is None else seat.node
        return seat is not None

    for dtype in SMALLER[one.dtype] if one.parameters else ():
        less = sizing.footprint_bytes(Checkpoint(parameters=one.parameters, source="booking"), dtype)
        if fits(replace(need, footprint_bytes=less)):
            found.append(Help(code=HelpCode.SMALLER_DTYPE, value=dtype))
            break
    if need.accelerator and fits(replace(need, accelerator=None)):
        found.append(Help(code=HelpCode.ANY_ACCELERATOR, value="any"))
    if fewer := _most(1, (need.gpus or 1) - 1, lambda gpus: fits(replace(need, gpus=gpus))):
        found.append(Help(code=HelpCode.FEWER_GPUS, value=str(fewer)))
    return found


def earliest(admission: Admission, ask: Ask, start: float) -> float | None:
    """The first start, after ``start``, from which all replicas of a booking fit for as long as it lasts.

    Where its model has stays it could share, some instants are tried at which it could.
    """
    with _given_back(admission, ask):
        return _earliest(admission, ask, start)


def _earliest(admission: Admission, ask: Ask, start: float) -> float | None:
    seconds, book = ask.end - ask.start, admission.book
    found = book.openings(ask.need, start).first(seconds)
    for instant in _joins(admission, ask, start, found[0] if found else FOREVER)[:JOINS_TRIED]:
        if _fits(admission, replace(ask, start=instant, end=instant + seconds)):
            return instant
    for _ in range(SLOTS_TRIED):
        if found is None:
            return None
        first = found[0]
        if _fits(admission, replace(ask, start=first, end=first + seconds)):
            return first
        after = min((hold.end for hold in admission.holds.values() if hold.end > first), default=FOREVER)
        if after == FOREVER:
            return None
        found = book.openings(ask.need, after).first(seconds)
    return None


def stays_after(admission: Admission, ask: Ask, start: float) -> list[Hold]:
    """What a booking's model has from a time on that is not for it alone, in order."""
    return [hold for hold in admission.of_model(ask.model) if hold.end >= start and hold.keys != {ask.key}]


def _joins(admission: Admission, ask: Ask, start: float, before: float) -> list[float]:
    """Starts at which a booking touches a stay of its model, or something beside that stay ends."""
    seconds, found = ask.end - ask.start, set[float]()
    for hold in stays_after(admission, ask, start)[:STAYS_JOINED]:
        earliest, latest = hold.start - seconds, hold.end
        found.update((earliest, hold.start, latest))
        beside = (other.end for other in admission.there(hold.seat.node))
        found.update(end for end in beside if earliest <= end <= latest)
    return sorted(instant for instant in found if start < instant < before)


def longest(admission: Admission, ask: Ask) -> float | None:
    """Until when all replicas of a booking would fit from its start on, if that is before its end."""
    starts = (hold.start for hold in admission.holds.values())
    ends = sorted({instant for instant in starts if ask.start < instant < ask.end})
    number = _most(1, len(ends), lambda n: _fits(admission, replace(ask, end=ends[n - 1])))
    return ends[number - 1] if number else None


def _fits(admission: Admission, ask: Ask) -> bool:
    return admission.would(ask) == ask.replicas


def _most(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number that fits, where each smaller one does; or None."""
    if low > high or not fits(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


@contextmanager
def _given_back(admission: Admission, ask: Ask) -> Iterator[None]:
    """As if nothing were held for a booking alone."""
    begun = admission.mark()
    for hold in admission.of_booking(ask.key):
        if hold.keys == {ask.key}:
            admission.drop(hold)
    try:
        yield
    finally:
        admission.undo(begun)
