"""The operator's rules about who may book what, for how long and how much; all off by default."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from calendars.reservation import Reservation
from scheduler.cluster.node import Cluster, DeviceKind
from scheduler.planning.footprint import gpus_needed
from scheduler.planning.targets import Booked, Refused
from scheduler.types import Reason, ReasonCode, ReasonKind, Rules, person_matches

WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)


def keep_to(
    rules: Rules,
    booked: Iterable[Booked | Refused],
    cluster: Cluster,
    begun: frozenset[str] = frozenset(),
) -> list[Booked | Refused]:
    """The same reservations in the same order, those that break a rule refused with its name.

    GPU-hours are used up in the order of booking; what is refused uses none. A model's GPUs are
    reckoned on the kind of node where it takes the fewest. The nodes there are change, so GPU-hours are
    no reason to take down what serves: reservations in ``begun`` use them, but are not refused for them.
    """
    judged = {id(one): one for one in booked}
    used: dict[tuple[str, datetime], float] = defaultdict(float)
    for key, one in sorted(judged.items(), key=lambda item: _booked_at(item[1])):
        if isinstance(one, Refused):
            continue
        problem = _person(rules, one) or _length(rules, one.reservation)
        if problem is None:
            problem = _share(rules, one, cluster, used, one.reservation.key in begun)
        if problem:
            judged[key] = Refused(one.reservation, problem)
    return list(judged.values())


def _booked_at(one: Booked | Refused) -> tuple[datetime, str]:
    return (one.reservation.booked_at, one.reservation.key)


def _person(rules: Rules, one: Booked) -> Reason | None:
    owner = one.reservation.owner
    who = owner or "somebody without a mail address"
    if rules.organisers and not any(person_matches(rule, owner) for rule in rules.organisers):
        return _broken(
            f"the rule booking.organisers does not let {who} book",
            "Ask the operator to add you, or somebody who may to book it for you.",
        )
    limits = [models for rule, models in rules.models_by_organiser.items() if person_matches(rule, owner)]
    allowed = {name.lower() for models in limits for name in models}
    if limits and not allowed & {name.lower() for name in one.names}:
        listed = ", ".join(sorted(allowed)) or "nothing"
        return _broken(
            f"the rule booking.models_by_organiser lets {who} book {listed} only",
            "Book one of these, or ask the operator.",
        )
    return None


def _length(rules: Rules, reservation: Reservation) -> Reason | None:
    hours = (reservation.end - reservation.start) / HOUR
    if rules.longest_hours is None or hours <= rules.longest_hours:
        return None
    return _broken(
        f"it is {hours:g} hours long, and the rule booking.longest_hours allows {rules.longest_hours:g}",
        "Shorten it, or book the rest later.",
    )


def _share(
    rules: Rules, one: Booked, cluster: Cluster, used: dict[tuple[str, datetime], float], begun: bool
) -> Reason | None:
    if rules.gpu_hours_per_week is None:
        return None
    gpus = _gpus(one, cluster)
    owner = (one.reservation.owner or "").lower()
    wanted = {(owner, monday): hours * gpus for monday, hours in _weeks(one.reservation)}
    for (_, monday), hours in wanted.items():
        left = rules.gpu_hours_per_week - used[owner, monday]
        if hours > left + 1e-9 and not begun:
            return _broken(
                f"it takes {hours:.1f} GPU-hours in the week of {monday:%d %b}, and of the "
                f"{rules.gpu_hours_per_week:g} that the rule booking.gpu_hours_per_week allows a person "
                f"{left:.1f} are left",
                "Shorten it, ask for fewer replicas, or book another week.",
            )
    for key, hours in wanted.items():
        used[key] += hours
    return None


def _gpus(one: Booked, cluster: Cluster) -> float:
    kinds = {
        node.devices[0].memory_bytes
        for node in cluster.nodes
        if node.devices and node.kind is DeviceKind.GPU and node.devices[0].memory_bytes > 0
    }
    each = min((gpus_needed(one.footprint_bytes, memory, one.gpus) for memory in kinds), default=0.0)
    return each * one.replicas


def _weeks(reservation: Reservation) -> Iterator[tuple[datetime, float]]:
    """The weeks a reservation touches, by their Monday, with the hours of it in each."""
    monday = week_of(reservation.start)
    while monday < reservation.end:
        part = min(reservation.end, monday + WEEK) - max(reservation.start, monday)
        yield monday, part / HOUR
        monday += WEEK


def week_of(instant: datetime) -> datetime:
    """Monday, 00:00 UTC, of an instant's week."""
    day = instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _broken(detail: str, remedy: str) -> Reason:
    return Reason(code=ReasonCode.NOT_ALLOWED, kind=ReasonKind.EDIT, detail=detail, remedy=remedy)
