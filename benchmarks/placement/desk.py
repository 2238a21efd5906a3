"""Bookings that come one after the other: each is answered at once, and what runs stays where it is."""

from __future__ import annotations

import heapq
from time import thread_time
from typing import Protocol

import numpy as np

from benchmarks.placement.instance import REFUSED, SLOT_SECONDS, Instance, Result, nothing_placed


class Desk(Protocol):
    """Whoever answers bookings."""

    def book(self, booking: int) -> bool:
        """The verdict on a booking, at the time it is booked; it has a seat from then on if it is True."""
        ...

    def seat(self, booking: int) -> tuple[int, int] | None:
        """Node and lane of a booking now; None where it has none."""
        ...


def promised(instance: Instance, desk: Desk) -> Result:
    """Bring every booking to a desk when it is booked, and look after those that were promised.

    A booking's node is written down when it starts; being elsewhere at the end counts as a move,
    having no seat then as a promise not kept.
    """
    result = nothing_placed(instance)
    order = np.argsort(instance.booked, kind="stable").tolist()
    seconds = np.zeros(len(order))
    waiting: list[tuple[int, int]] = []
    begun: dict[int, tuple[int, int] | None] = {}
    admitted: list[int] = []
    for nth, booking in enumerate(order):
        while waiting and waiting[0][0] * SLOT_SECONDS <= instance.booked[booking]:
            started = heapq.heappop(waiting)[1]
            begun[started] = desk.seat(started)
        began = thread_time()
        verdict = desk.book(booking)
        seconds[nth] = thread_time() - began
        if verdict:
            admitted.append(booking)
            heapq.heappush(waiting, (int(instance.start[booking]), booking))
    for booking in admitted:
        seat = desk.seat(booking)
        was = begun.get(booking, seat)
        result.withdrawn += seat is None or was is None
        result.moves += seat is not None and was is not None and seat[0] != was[0]
        if seat is not None:
            result.node[booking], result.lane[booking] = seat
    assert (result.node[np.setdiff1d(order, admitted)] == REFUSED).all()
    result.verdict_seconds = seconds
    return result
