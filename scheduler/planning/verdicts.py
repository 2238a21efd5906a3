"""What each event is told, from what was promised and what was not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from calendars.reservation import Misunderstood, Reservation
from scheduler.planning import explain
from scheduler.planning.admission import Admission
from scheduler.planning.book import Need
from scheduler.planning.exact import Opinion, OpinionState
from scheduler.planning.footprint import Sizing
from scheduler.planning.holds import Ask
from scheduler.planning.schedule import Schedule
from scheduler.planning.targets import Booked, Refused
from scheduler.planning.upcoming import Loading
from scheduler.types import (
    Broken,
    NodeAnswer,
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
STARTS_LATER = Reason(code=ReasonCode.STARTS_LATER)
MAX_EXPLAINED = 50
"""So many refusals are explained whole, the nearest first."""


@dataclass(frozen=True)
class Judge:
    """Says what becomes of each booking.

    ``asks`` and ``booked`` are by key; ``beyond`` are the keys of those that start beyond the horizon;
    ``broken`` are the promises that are not kept, ``proofs`` what the exact solver said, by event;
    ``edges`` the instants at which bookings start or end.
    """

    admission: Admission
    schedule: Schedule
    booked: Mapping[str, Booked]
    beyond: frozenset[str]
    broken: Mapping[str, Broken]
    proofs: Mapping[str, Opinion]
    sizing: Sizing
    edges: Collection[float] = ()

    def all(self, resolved: Iterable[Booked | Refused]) -> tuple[Verdict, ...]:
        """A verdict on each, in their order."""
        placements: dict[str, list[Placement]] = {}
        for placement in self.schedule.placements:
            for key in placement.target.reservations:
                placements.setdefault(key, []).append(placement)
        loadings: dict[str, list[Loading]] = {}
        for loading in self.schedule.loadings.values():
            for key in loading.hold.keys:
                loadings.setdefault(key, []).append(loading)
        book = self.admission.book
        explained = max(5, min(MAX_EXPLAINED, CELLS // (max(len(book.nodes), 1) * max(len(self.edges), 1))))
        verdicts = []
        for one in resolved:
            if isinstance(one, Refused):
                verdicts.append(_refused(one))
                continue
            key = one.reservation.key
            verdict = self._one(one, placements.get(key, []), loadings.get(key, []), explained > 0)
            explained -= verdict.refusal is not None
            verdicts.append(verdict)
        return tuple(verdicts)

    def _one(
        self, one: Booked, placements: list[Placement], loadings: list[Loading], explained: bool
    ) -> Verdict:
        key = one.reservation.key
        nodes = tuple(dict.fromkeys(placement.node for placement in placements))
        if key in self.beyond:
            code = ReasonCode.BEYOND_HORIZON
            if self.admission.book.possible(need_of(one)):
                return say(one.reservation, VerdictState.COMING, Reason(code=code), one)
            return self._not_met(ask_of(one), one, 0, nodes, False)
        ask = self.admission.asks[key]
        got = self.admission.covered(ask)
        if got < ask.replicas:
            return self._not_met(ask, one, got, nodes, explained)
        if ask.start <= self.admission.at:
            reason = placements[0].reason if placements else Reason(code=ReasonCode.BOOKED)
            return say(one.reservation, VerdictState.PLACED, reason, one, nodes)
        if placements:
            # Where all its replicas will be, though some may be loaded later than others.
            first = (hold for hold in self.admission.of_booking(key) if hold.start <= ask.start < hold.end)
            names = (self.admission.book.nodes[hold.seat.node].name for hold in first)
            nodes = tuple(sorted({*nodes, *names}))
            return self._with_loading(
                say(one.reservation, VerdictState.COMING, placements[0].reason, one, nodes), loadings
            )
        return self._with_loading(say(one.reservation, VerdictState.COMING, STARTS_LATER, one), loadings)

    def _with_loading(self, verdict: Verdict, loadings: list[Loading]) -> Verdict:
        first = [one for one in loadings if one.hold.start == min(other.hold.start for other in loadings)]
        if not first:
            return verdict
        last = max(first, key=lambda one: (one.ready, one.hold.rank))
        behind = last.behind if last.late_seconds else ()
        because = tuple(dict.fromkeys(self.booked[key].reservation.title for key in behind))
        return verdict.model_copy(
            update={
                "ready_by": datetime.fromtimestamp(last.ready, UTC),
                "late_seconds": last.late_seconds,
                "late_because": because,
            }
        )

    def _not_met(self, ask: Ask, one: Booked, got: int, nodes: tuple[str, ...], explained: bool) -> Verdict:
        start = max(ask.start, self.admission.at)
        considered: tuple[NodeAnswer, ...] = ()
        refusal: Refusal | None = None
        possible = self.admission.book.possible(ask.need)
        if explained or not possible:
            considered = explain.answers(self.admission, ask.need, start, ask.end, self.booked)
        if explained:
            refusal = explain.refusal(self.admission, ask, one, self.booked, self.sizing)
        if refusal and possible:
            refusal = refusal.model_copy(update=_proof(self.proofs.get(ask.key)))
        reason = explain.reason(self.admission, ask, got, considered)
        broken = self.broken.get(ask.key)
        if broken is not None:
            update = {"code": broken.reason.code, "detail": broken.reason.detail}
            reason = reason.model_copy(update=update)
        verdict = say(one.reservation, VerdictState.REFUSED, reason, one, nodes, considered)
        earliest = refusal.earliest if refusal else None
        return verdict.model_copy(update={"refusal": refusal, "earliest": earliest})


def _proof(opinion: Opinion | None) -> dict[str, object]:
    """What a second opinion adds to what is known of a refusal."""
    if opinion is None or opinion.state is OpinionState.FOUND:
        return {}
    if opinion.state is OpinionState.NOT_FOUND:
        return {"proof": Proof.NOT_FOUND, "solver_seconds": opinion.seconds}
    full_at = None if opinion.full_at is None else datetime.fromtimestamp(opinion.full_at, UTC)
    return {"proof": Proof.PROVEN, "full_at": full_at}


def need_of(one: Booked) -> Need:
    """What a replica of a booking takes."""
    return Need(one.footprint_bytes, one.gpus, one.accelerator)


def ask_of(one: Booked, lead_seconds: float = 0.0) -> Ask:
    """A booking as the book sees it."""
    reservation = one.reservation
    return Ask(
        key=reservation.key,
        model=one.model.key,
        need=need_of(one),
        replicas=one.replicas,
        start=reservation.start.timestamp(),
        end=reservation.end.timestamp(),
        lead=lead_seconds,
        priority=reservation.request.priority,
        booked_at=reservation.booked_at.timestamp(),
    )


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
