"""Looks twice before much is taken down at once: bookings may vanish by mistake, models do not. Pure.

A calendar that shrank is believed at its second reading. Until then the bookings that vanished count as
they did; everything else of the new reading is taken up at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from calendars.reservation import Frozen, Reading, Reservation
from scheduler.types import ActionKind, Observed, Plan


class GuardRule(Frozen):
    """When bookings that vanished are looked for twice.

    ``max_share`` of what serves may go at once, and ``min_models`` in any case; more than that waits for
    a reading made at least ``second_reading_seconds`` after the first.
    """

    max_share: float
    min_models: int
    second_reading_seconds: float


@dataclass(frozen=True)
class Hold:
    """A plan that would take down ``models``, so many of ``serving``, waits for a second reading."""

    models: tuple[str, ...]
    serving: int
    vanished: tuple[str, ...]
    since: datetime

    @property
    def words(self) -> str:
        """What is the matter, in a sentence."""
        return (
            f"{len(self.vanished)} bookings vanished at once, which would take down {len(self.models)} of "
            f"the {self.serving} models that serve; this waits for a second reading."
        )


class MassChangeGuard:
    """Remembers what the calendars said, and since when which bookings are missing."""

    def __init__(self, rule: GuardRule, before: Iterable[Reading] = ()) -> None:
        self._rule = rule
        self._trusted = _by_key(before)
        self._missing: dict[str, datetime] = {}

    def believable(
        self, readings: Sequence[Reading], read_at: Mapping[str, datetime], at: datetime
    ) -> tuple[Reading, ...] | None:
        """The readings with the bookings that vanished a moment ago; None where none did.

        Args:
            read_at: when each calendar was last read, by its name.
        """
        now = _by_key(readings)
        gone = [
            one
            for key, one in self._trusted.items()
            if at < one.end and not (key in now and (at < one.start or _covers(now[key], at)))
        ]
        self._missing = {one.key: min(at, self._missing.get(one.key, at)) for one in gone}
        doubted = [one for one in gone if not self._confirmed(one, read_at)]
        return tuple(_with(reading, doubted) for reading in readings) if doubted else None

    def judge(self, plan: Plan, observed: Observed, at: datetime) -> Hold | None:
        """Whether a plan made from the readings as they are must wait. A plan that need not is believed."""
        serving = [one for one in observed.deployments if one.ready_replicas]
        going = {(a.model.key, a.node) for a in plan.actions if a.kind is ActionKind.UNDEPLOY and a.model}
        lost = [
            one for one in serving if one.identity in going and set(one.reservations) & set(self._missing)
        ]
        many = len(lost) > self._rule.min_models and len(lost) > self._rule.max_share * len(serving)
        if not many:
            return None
        return Hold(
            models=tuple(sorted({one.model.name for one in lost})),
            serving=len(serving),
            vanished=tuple(sorted(self._missing)),
            since=min(self._missing.values()),
        )

    def trust(self, readings: Iterable[Reading]) -> None:
        """These are what the calendars say: nothing of it waits."""
        self._trusted = _by_key(readings)
        self._missing = {}

    def _confirmed(self, one: Reservation, read_at: Mapping[str, datetime]) -> bool:
        read = read_at.get(one.calendar)
        wait = timedelta(seconds=self._rule.second_reading_seconds)
        return read is not None and read - self._missing[one.key] >= wait


def _by_key(readings: Iterable[Reading]) -> dict[str, Reservation]:
    return {one.key: one for reading in readings for one in reading.reservations}


def _covers(one: Reservation, at: datetime) -> bool:
    return one.start <= at < one.end


def _with(reading: Reading, doubted: Iterable[Reservation]) -> Reading:
    back = {one.key: one for one in doubted if one.calendar == reading.calendar}
    kept = (one for one in reading.reservations if one.key not in back)
    return reading.model_copy(update={"reservations": (*kept, *back.values())})
