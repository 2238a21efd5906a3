"""What runs on after its bookings have ended, until somebody needs its room."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from calendars.reservation import Reservation
from scheduler.planning.admission import Admission
from scheduler.planning.book import Seat
from scheduler.planning.holds import Hold, alike, runs_with
from scheduler.planning.running import Identity
from scheduler.planning.upcoming import Loading
from scheduler.types import Deployment, Placement, Reason, ReasonCode, Target

LOWEST_PRIORITY = -1_000_000
_Taken = list[tuple[Seat, float, float]]


@dataclass(frozen=True, slots=True)
class Lingering:
    """What lingers, and when room of it is needed.

    ``kept_for`` are the numbers of the holds that it will serve, so that nothing is loaded for them.
    """

    placements: tuple[Placement, ...] = ()
    instants: frozenset[float] = frozenset()
    kept_for: frozenset[int] = frozenset()


def may_linger(
    deployments: Iterable[Deployment], given: Mapping[str, Reservation], now: float, seconds: float
) -> dict[Identity, float]:
    """Until when what runs may stay though its bookings have ended.

    Args:
        given: all reservations there are, with what has ended, by key.
        seconds: how long what runs may stay after its booking.
    """
    if not seconds:
        return {}
    found = {}
    for one in deployments:
        ends = (given[key].end.timestamp() for key in one.reservations if key in given)
        ended = [end for end in ends if end <= now]
        if ended and max(ended) + seconds > now:
            found[one.identity] = max(ended) + seconds
    return found


def linger(
    admission: Admission,
    running: Mapping[Identity, Deployment],
    until: Mapping[Identity, float],
    placed: Collection[str],
    loadings: Iterable[Loading],
) -> Lingering:
    """Keep what may linger, each replica of it for as long as nobody needs its room.

    Args:
        until: what may linger, and until when at most.
        placed: keys of the models that are placed for bookings; of these nothing lingers.
        loadings: what will be loaded later, which needs its room from then on.
    """
    book, now = admission.book, admission.at
    later: defaultdict[int, list[Loading]] = defaultdict(list)
    for loading in loadings if until else ():
        if now < loading.not_before < loading.hold.start:
            later[loading.hold.seat.node].append(loading)
    placements, instants, kept_for, taken = [], set[float](), set[int](), _Taken()
    for identity, last in sorted(until.items()):
        number = book.index.get(identity[1])
        if number is None or book.nodes[number].draining or identity[0] in placed or last <= now:
            continue
        one = running[identity]
        needed = _take_needed(admission, later[number], one, last)
        replicas = _seated(admission, one, last, [begin for _, begin, _ in needed], taken)
        _give_back(admission, needed)
        if replicas:
            ends = [hold.end if hold else end for end, hold in replicas]
            placements.append(_placement(one, len(replicas), now, max(ends)))
            instants.update(end for end, _ in replicas)
            kept_for.update(hold.number for _, hold in replicas if hold)
    _give_back(admission, taken)
    return Lingering(tuple(placements), frozenset(instants), frozenset(kept_for))


def _take_needed(admission: Admission, later: Iterable[Loading], one: Deployment, until: float) -> _Taken:
    """Take the room in which others will be loaded before an instant."""
    taken = _Taken()
    for loading in later:
        hold, begin = loading.hold, loading.not_before
        if begin >= until or _goes_on(admission, one, hold):
            continue
        if admission.book.fits(hold.seat, begin, hold.start):
            taken.append((admission.book.take(hold.seat, begin, hold.start), begin, hold.start))
    return taken


def _give_back(admission: Admission, taken: _Taken) -> None:
    for seat, start, end in reversed(taken):
        admission.book.give(seat, start, end)


def _goes_on(admission: Admission, one: Deployment, hold: Hold) -> bool:
    """Whether what runs can serve what is held later as it is."""
    node = admission.book.nodes[hold.seat.node]
    return hold.model == one.model.key and alike(node, hold.need, runs_with(one))


def _seated(
    admission: Admission, one: Deployment, until: float, needed: Iterable[float], taken: _Taken
) -> list[tuple[float, Hold | None]]:
    """Take room for its replicas: until when each has it, and what is held for it from then on, if anything.

    Args:
        needed: when room of its node is needed to load others.
    """
    book, now = admission.book, admission.at
    number, need = book.index[one.node], runs_with(one)
    coming = [hold for hold in admission.on_node(number) if now < hold.start < until]
    ends = sorted({until, *needed, *(hold.start for hold in coming)})
    theirs = [hold for hold in coming if _goes_on(admission, one, hold)]
    found: list[tuple[float, Hold | None]] = []
    for _ in range(one.replicas):
        goes_on = next((hold for hold in theirs if book.fits(hold.seat, now, hold.start)), None)
        if goes_on is not None:
            theirs.remove(goes_on)
            end, seat = goes_on.start, goes_on.seat
        else:
            # What has room for long has room for a shorter time.
            longest = bisect_left(ends, True, key=lambda end: book.room_on(number, need, now, end) is None)
            if not longest:
                break
            end = ends[longest - 1]
            there = book.room_on(number, need, now, end)
            assert there is not None
            seat = there
        taken.append((book.take(seat, now, end), now, end))
        found.append((end, goes_on))
    return found


def _placement(one: Deployment, replicas: int, now: float, until: float) -> Placement:
    at, need = datetime.fromtimestamp(now, UTC), runs_with(one)
    target = Target(
        model=one.model,
        names=(one.model.repo_id,),
        dtype=one.dtype,
        gpus=need.gpus,
        replicas=replicas,
        footprint_bytes=one.footprint_bytes,
        reservations=one.reservations,
        titles=(),
        start=at,
        until=datetime.fromtimestamp(until, UTC),
        priority=LOWEST_PRIORITY,
        booked_at=at,
    )
    return Placement(
        target=target,
        node=one.node,
        replicas=replicas,
        num_gpus=one.num_gpus,
        memory_bytes=one.memory_bytes,
        footprint_bytes=one.footprint_bytes,
        reason=Reason(code=ReasonCode.LINGERS, node=one.node),
    )
