"""What each event is told, from what was promised and what was not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from calendars.reservation import Misunderstood, Reservation
from scheduler.planning import explain
from scheduler.planning.admission import Admission
from scheduler.planning.candidates import Candidates
from scheduler.planning.exact import Opinion, OpinionState
from scheduler.planning.footprint import SHARE_STEPS, Sizing
from scheduler.planning.holds import Ask, alike
from scheduler.planning.needs import Need, units_on
from scheduler.planning.openings import FOREVER
from scheduler.planning.refusals import Refusals
from scheduler.planning.schedule import Schedule
from scheduler.planning.targets import Booked, Refused
from scheduler.planning.upcoming import Loading, same
from scheduler.planning.wishes import Wishes, ask_of, need_of
from scheduler.types import (
    Broken,
    NodeAnswer,
    NodeCount,
    Placement,
    Proof,
    Reason,
    ReasonCode,
    ReasonKind,
    Refusal,
    Verdict,
    VerdictState,
)

CELLS = 20_000_000
"""Work that may go into explaining refusals: nodes times instants, for all of them together."""
BEGUN, SOON, LATER = ("begun",), ("soon",), ("later",)
STARTS_LATER = Reason(code=ReasonCode.STARTS_LATER)
MAX_EXPLAINED = 50
"""So many refusals are explained whole: the one that was booked last, and the nearest."""
MAX_FIGURES = 50
"""Of so many more is told which node comes nearest."""

_Named = Iterable[tuple[str, Booked | Refused]]
"""Reservations, each after the name that it is known by."""


class Depth(IntEnum):
    """How much is told of a refusal: that no node has room, which comes nearest, or everything."""

    BARE = 0
    FIGURES = 1
    WHOLE = 2


class Sayings:
    """What was said the last time, by event, each with all that it depends on."""

    def __init__(self) -> None:
        self.refusals = Refusals()
        self.verdicts: dict[str, Verdict] = {}
        self.at = FOREVER
        self.unmet: frozenset[str] = frozenset()
        self.beyond: frozenset[str] = frozenset()
        self.bare: set[str] = set()
        """Those who have nothing, and of whom no more is told than that there is no room."""
        self._told: dict[str, tuple[tuple[object, ...], tuple[object, ...], Verdict]] = {}

    def recall(self, key: str, objects: tuple[object, ...], facts: tuple[object, ...]) -> Verdict | None:
        """What was said of an event if these very objects and facts were what it depended on."""
        known = self._told.get(key)
        if known is not None and known[1] == facts and same(known[0], objects):
            return known[2]
        return None

    def later(self, key: str, one: Booked | Refused) -> Verdict:
        """The verdict on a booking of which nothing can be said but that it will be met, or never can."""
        known = self._told.get(key)
        if known is not None and known[1] is LATER and known[0][0] is one:
            return known[2]
        if isinstance(one, Refused):
            verdict = _refused(one)
        else:
            verdict = say(one.reservation, VerdictState.COMING, STARTS_LATER, one)
        return self.note(key, (one,), LATER, verdict)

    def note(
        self, key: str, objects: tuple[object, ...], facts: tuple[object, ...], verdict: Verdict
    ) -> Verdict:
        """Remember what is said; returns it."""
        self._told[key] = (objects, facts, verdict)
        return verdict

    def forget(self, keys: Collection[str]) -> None:
        """Forget what was said of others, when that is much."""
        if len(self.verdicts) > 2 * len(keys) + MAX_EXPLAINED:
            there = set(keys)
            self.verdicts = {key: one for key, one in self.verdicts.items() if key in there}
            self._told = {key: one for key, one in self._told.items() if key in there}


@dataclass(frozen=True)
class Judge:
    """Says what becomes of each booking.

    ``asks`` and ``booked`` are by key; ``beyond`` are the keys of those that start beyond the horizon,
    ``unmet`` of those that did not get all they asked for; ``broken`` are the promises that are not kept,
    ``proofs`` what the exact solver said, by event.
    """

    admission: Admission
    schedule: Schedule
    booked: Mapping[str, Booked]
    beyond: frozenset[str]
    unmet: frozenset[str]
    broken: Mapping[str, Broken]
    proofs: Mapping[str, Opinion]
    sizing: Sizing
    sayings: Sayings

    def all(self, wishes: Wishes, altered: Collection[str] | None, at: datetime) -> tuple[Verdict, ...]:
        """A verdict on each booking, in the order of their starts.

        Args:
            altered: the bookings that are others than the last time, in any way; None where that is unknown.
        """
        sayings, now = self.sayings, self.admission.at
        if altered is None or now < sayings.at:
            concerned: _Named = zip(wishes.names, wishes.resolved, strict=True)
            sayings.bare.clear()
        else:
            names = {*altered, *self.schedule.changed, *sayings.beyond, *self.beyond}
            names |= sayings.unmet - self.unmet | wishes.begun_since(sayings.at)
            sayings.bare &= self.unmet - names - self.broken.keys()
            concerned = [(name, one) for name in names if (one := wishes.one(name)) is not None]
        loadings: dict[str, list[Loading]] = {}
        for loading in self.schedule.loadings.values():
            for key in loading.hold.keys:
                loadings.setdefault(key, []).append(loading)
        self._explain(wishes)
        for name, one in concerned:
            if name in self.unmet:
                continue
            key = one.reservation.key
            if key in self.unmet and isinstance(one, Booked):
                sayings.verdicts[name] = self._unmet(one, Depth.BARE)
            else:
                sayings.verdicts[name] = self._met(one, loadings.get(key, []), at)
        sayings.at, sayings.unmet, sayings.beyond = now, self.unmet, self.beyond
        return tuple(map(sayings.verdicts.__getitem__, wishes.names))

    def _explain(self, wishes: Wishes) -> None:
        """The verdicts on those who did not get all they asked for."""
        nodes, edges = max(len(self.admission.book.nodes), 1), max(len(wishes.edges), 1)
        explained = max(5, min(MAX_EXPLAINED, CELLS // (nodes * edges)))
        self.sayings.forget(wishes.names)
        self.sayings.refusals.begin(self.admission, wishes.altered)
        asks = sorted((self.admission.asks[key] for key in self.unmet), key=_start)
        # so somebody who has just booked, or asks what if, hears all
        for ask in sorted(asks, key=_is_not(max(asks, key=_booked, default=None))):
            if explained <= -MAX_FIGURES:
                self._tell_barely(ask)
                continue
            depth = Depth.WHOLE if explained > 0 else Depth.FIGURES
            verdict = self.sayings.verdicts[ask.key] = self._unmet(self.booked[ask.key], depth)
            self.sayings.bare.discard(ask.key)
            explained -= depth is not Depth.WHOLE or verdict.refusal is not None

    def _tell_barely(self, ask: Ask) -> None:
        """That there is no room; where it has nothing, that is the same until something of it is another."""
        key, admission, bare = ask.key, self.admission, self.sayings.bare
        if key in bare:
            return
        self.sayings.verdicts[key] = self._unmet(self.booked[key], Depth.BARE)
        has_any = key in self.broken or admission.of_booking(key)
        if not has_any and admission.book.possible(ask.need):
            bare.add(key)

    def _met(self, one: Booked | Refused, loadings: list[Loading], at: datetime) -> Verdict:
        key = one.reservation.key
        placements = self.schedule.placements_of(key)
        if isinstance(one, Booked) and key in self.beyond:
            return self._far(one)
        if isinstance(one, Booked) and one.reservation.start <= at:
            return self._begun(one, placements)
        if isinstance(one, Booked) and (placements or loadings):
            return self._coming(one, placements, loadings)
        return self.sayings.later(key, one)

    def _far(self, one: Booked) -> Verdict:
        if self.admission.book.possible(need_of(one)):
            reason = Reason(code=ReasonCode.BEYOND_HORIZON)
            return say(one.reservation, VerdictState.COMING, reason, one)
        return self._not_met(ask_of(one), one, 0, (), Depth.BARE)

    def _unmet(self, one: Booked, depth: Depth) -> Verdict:
        key, admission = one.reservation.key, self.admission
        placements = self.schedule.placements_of(key)
        ask, opinion, broken = admission.asks[key], self.proofs.get(key), self.broken.get(key)
        got, nodes = admission.covered(ask), tuple(dict.fromkeys(one.node for one in placements))
        objects: tuple[object, ...] = (one, ask, opinion)
        why = broken and (broken.reason.code, broken.reason.detail)
        facts: tuple[object, ...] = (got, nodes, why, depth)
        if depth is not Depth.BARE or not admission.book.possible(ask.need):
            facts = (*facts, self.sayings.refusals.edition(admission, ask), self.sizing)
        verdict = self.sayings.recall(key, objects, facts)
        if verdict is not None:
            return verdict
        return self.sayings.note(key, objects, facts, self._not_met(ask, one, got, nodes, depth))

    def _begun(self, one: Booked, placements: list[Placement]) -> Verdict:
        key, objects = one.reservation.key, (one, *placements)
        if (verdict := self.sayings.recall(key, objects, BEGUN)) is not None:
            return verdict
        nodes = tuple(dict.fromkeys(placement.node for placement in placements))
        reason = Reason(code=ReasonCode.BOOKED)
        if placements:
            reason = self._as_it_is(one, placements[0])
        verdict = say(one.reservation, VerdictState.PLACED, reason, one, nodes)
        return self.sayings.note(key, objects, BEGUN, verdict)

    def _coming(self, one: Booked, placements: list[Placement], loadings: list[Loading]) -> Verdict:
        key, reservation = one.reservation.key, one.reservation
        holds = self.admission.of_booking(key) if placements else []
        behind = [self.booked[other] for loading in loadings for other in loading.behind]
        objects = (one, *placements, *loadings, *holds, *behind)
        if (verdict := self.sayings.recall(key, objects, SOON)) is not None:
            return verdict
        verdict = say(reservation, VerdictState.COMING, self._as_held(one, loadings), one)
        if placements:
            # Where all its replicas will be, though some may be loaded later than others.
            start = self.admission.asks[key].start
            first = (hold for hold in holds if hold.start <= start < hold.end)
            names = {self.admission.book.nodes[hold.seat.node].name for hold in first}
            nodes = tuple(sorted({*names, *(placement.node for placement in placements)}))
            verdict = say(reservation, VerdictState.COMING, self._as_it_is(one, placements[0]), one, nodes)
        return self.sayings.note(key, objects, SOON, self._with_loading(verdict, one, loadings))

    def _as_it_is(self, one: Booked, placement: Placement) -> Reason:
        """Why it is placed, and how, where that is as another booking of its model asks."""
        target, number = placement.target, self.admission.book.index.get(placement.node)
        if number is None:
            return placement.reason
        node, need = self.admission.book.nodes[number], Need(target.footprint_bytes, target.gpus)
        if target.dtype == one.dtype and alike(node, need, Need(one.footprint_bytes, one.gpus)):
            return placement.reason
        return placement.reason.model_copy(update={"detail": _shared(units_on(node, need), target.dtype)})

    def _as_held(self, one: Booked, loadings: list[Loading]) -> Reason:
        """The same of what comes later."""
        for hold in (loading.hold for loading in loadings):
            node, need = self.admission.book.nodes[hold.seat.node], need_of(one)
            if not alike(node, hold.need, need):
                return STARTS_LATER.model_copy(update={"detail": _shared(units_on(node, hold.need))})
        return STARTS_LATER

    def _with_loading(self, verdict: Verdict, one: Booked, loadings: list[Loading]) -> Verdict:
        if not loadings:
            return verdict
        # The stay may begin for another booking of the model, long before this one.
        start = one.reservation.start.timestamp()
        begins = max(start, min(loading.hold.start for loading in loadings))
        first = [loading for loading in loadings if loading.hold.start <= begins]
        last = max(first, key=lambda loading: (loading.ready, loading.hold.rank))
        late = last.late_after(start)
        behind = last.behind if late else ()
        because = tuple(dict.fromkeys(self.booked[key].reservation.title for key in behind))
        return verdict.model_copy(
            update={
                "ready_by": datetime.fromtimestamp(last.ready, UTC),
                "late_seconds": late,
                "late_because": because,
            }
        )

    def _not_met(self, ask: Ask, one: Booked, got: int, nodes: tuple[str, ...], depth: Depth) -> Verdict:
        admission, refusals, booked = self.admission, self.sayings.refusals, self.booked
        considered: tuple[NodeAnswer, ...] = ()
        counts: tuple[NodeCount, ...] = ()
        refusal: Refusal | None = None
        possible = admission.book.possible(ask.need)
        if depth is Depth.WHOLE or not possible:
            considered = refusals.answers(admission, ask, booked)
            window = max(ask.start, admission.at), ask.end
            counts = Candidates(admission).refusing(ask.model, ask.need, *window)
        if depth is Depth.WHOLE:
            refusal = refusals.refusal(admission, ask, one, booked, self.sizing)
        if refusal and possible:
            refusal = refusal.model_copy(update=_proof(self.proofs.get(ask.key)))
        most_free = None if depth is Depth.BARE or not possible else refusals.most_free(admission, ask)
        reason = explain.reason(admission, ask, got, booked, considered, most_free)
        broken = self.broken.get(ask.key)
        if broken is not None:
            update = {"code": broken.reason.code, "detail": broken.reason.detail}
            reason = reason.model_copy(update=update)
        verdict = say(one.reservation, VerdictState.REFUSED, reason, one, nodes, considered)
        earliest = refusal.earliest if refusal else None
        return verdict.model_copy(update={"refusal": refusal, "earliest": earliest, "candidates": counts})


def _shared(units: tuple[int, int], dtype: str | None = None) -> str:
    """How a model runs that is shared with a booking that asks otherwise."""
    whole, share = units
    takes = f"{share / SHARE_STEPS:.0%} of a device" if share else f"{whole} GPU" + "s" * (whole != 1)
    precision = f"{dtype} on " if dtype else ""
    return f"shared with another booking of the model, as that one asks: {precision}{takes}"


def _proof(opinion: Opinion | None) -> dict[str, object]:
    """What a second opinion adds to what is known of a refusal."""
    if opinion is None or opinion.state is OpinionState.FOUND:
        return {}
    if opinion.state is OpinionState.NOT_FOUND:
        return {"proof": Proof.NOT_FOUND, "solver_seconds": opinion.seconds}
    full_at = None if opinion.full_at is None else datetime.fromtimestamp(opinion.full_at, UTC)
    return {"proof": Proof.PROVEN, "full_at": full_at}


def _start(ask: Ask) -> tuple[float, str]:
    return (ask.start, ask.key)


def _booked(ask: Ask) -> tuple[float, str]:
    return (ask.booked_at, ask.key)


def _is_not(one: Ask | None) -> Callable[[Ask], bool]:
    return lambda other: other is not one


def _refused(one: Refused) -> Verdict:
    pending = one.reason.code is ReasonCode.LOOKING_UP
    return say(one.reservation, VerdictState.COMING if pending else VerdictState.REFUSED, one.reason)


def say(
    reservation: Reservation,
    state: VerdictState,
    reason: Reason,
    booked: Booked | None = None,
    nodes: tuple[str, ...] = (),
    considered: tuple[NodeAnswer, ...] = (),
) -> Verdict:
    """A verdict on a reservation."""
    return Verdict(
        event=reservation.key,
        calendar=reservation.calendar,
        title=reservation.title,
        start=reservation.start,
        end=reservation.end,
        owner=reservation.owner,
        state=state,
        model=booked.model if booked else None,
        nodes=nodes,
        reason=reason,
        considered=considered,
        private=reservation.request.private,
    )


def misunderstood(one: Misunderstood) -> Verdict:
    """The verdict on an event that is no reservation."""
    reason = Reason(
        code=ReasonCode.MISUNDERSTOOD, kind=ReasonKind.EDIT, detail=one.reason, remedy=one.example
    )
    return Verdict(
        event=one.key,
        calendar=one.calendar,
        title=one.title,
        start=one.start,
        end=one.end,
        owner=one.owner,
        state=VerdictState.MISUNDERSTOOD,
        reason=reason,
    )
