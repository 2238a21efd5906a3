"""A booking that nobody has made yet: read from one line, and judged beside those that were."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from calendars.called import command
from calendars.event_text import Problem, is_free_text, parse_event
from calendars.reservation import ModelRequest, Reading, Reservation
from scheduler.errors import OperatorError
from scheduler.moments import WINDOW_EXAMPLES, ends_like_a_time, is_after, parse_window, split_window
from scheduler.types import Plan, ReasonCode, Verdict, VerdictState

CALENDAR = "what-if"
KEY = "what-if"
NOT_KNOWN_YET = (ReasonCode.LOOKING_UP, ReasonCode.BEYOND_HORIZON)
EXAMPLE = "Llama-70B 8xH100 tomorrow 14:00-18:00"
PIECES = re.compile(r"[,;\n]")
BY = re.compile(r"\sby\s+([^\s@,;]+@[^\s@,;]+)(?=[\s,;]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What would become of a booking, and of the others because of it.

    ``fits`` is None while that cannot be known. ``nodes`` is where it would be. ``affected`` are the
    verdicts on others that would change, as they would be.
    """

    booking: Reservation
    fits: bool | None
    verdict: Verdict
    nodes: tuple[str, ...]
    affected: tuple[Verdict, ...]

    @property
    def command(self) -> str | None:
        """What books it; where it does not fit, what books it at the first time it does, if there is one."""
        start, end = self.booking.start, self.booking.end
        if self.fits is False:
            earliest = (self.verdict.refusal and self.verdict.refusal.earliest) or self.verdict.earliest
            if earliest is None:
                return None
            start, end = earliest, earliest + (end - start)
        request, defaults = self.booking.request, ModelRequest(model=self.booking.request.model)
        words = ["calendar", "book", request.model, "--from", _local(start), "--to", _local(end)]
        for name in ("replicas", "dtype", "gpus", "accelerator", "priority", "revision", "task"):
            value = getattr(request, name)
            if value != getattr(defaults, name):
                words += [f"--{name}", str(value)]
        for flag in ("trust_remote_code", "private"):
            words += [f"--{flag.replace('_', '-')}"] if getattr(request, flag) else []
        return command(shlex.join(words))


def booking_from(text: str, now: datetime) -> Reservation:
    """Read ``MODEL [8xH100] [, key: value]… WINDOW [by MAIL]`` as somebody would who books it now.

    Rules about organisers go by the mail address; without one they take it for nobody's they know.

    Raises:
        OperatorError: the window, or what stands before it, is not understood.
    """
    if not text.strip():
        raise OperatorError("No booking is written there.", f"Write one such as “{EXAMPLE}”.")
    owners = BY.findall(text)
    if len(owners) > 1:
        raise OperatorError(f"“{text}” is by {len(owners)} people.", "Name one: a booking has one organiser.")
    what, window = split_window(BY.sub("", text), now)
    _refuse_half_a_time(what, window)
    return booking_of(what.rstrip(",; "), *parse_window(window, now), now, owners[0] if owners else None)


def booking_of(
    what: str, start: datetime, end: datetime, now: datetime, owner: str | None = None
) -> Reservation:
    """A booking of ``MODEL [8xH100] [, key: value]…`` in a window.

    Raises:
        OperatorError: what is booked is not understood, or the window lasts no time or is over.
    """
    if not (is_after(end, start) and is_after(end, now)):
        raise OperatorError("The booking ends before it begins, or is over.", "Choose a later end.")
    title, *lines = (piece.strip() for piece in PIECES.split(what))
    request = parse_event(title, "\n".join(lines))
    if isinstance(request, Problem):
        raise OperatorError(f"“{what}” is not understood: {request.reason}", f"Write it such as “{EXAMPLE}”.")
    return Reservation(
        key=KEY,
        calendar=CALENDAR,
        title=what,
        start=start,
        end=end,
        booked_at=now,
        owner=owner,
        request=request,
    )


def _refuse_half_a_time(what: str, window: str) -> None:
    """Refuse where what stands before a window may be a part of the time that is not understood.

    Free text ends in a comma before the window, and not in a word like “friday”.
    """
    *before, last = PIECES.split(what.rstrip(",; "))
    if before and is_free_text(last):
        doubtful = what == what.rstrip(",; ") or ends_like_a_time(last)
    else:
        # A model, or the first word of a setting, may be called anything.
        value = re.split(r"[:=]\s", last)[-1].split()
        doubtful = ends_like_a_time(" ".join(value[1:]))
    if doubtful:
        raise OperatorError(
            f"Of “{last.strip()} {window}” only “{window}” is understood as a time.",
            f"Write {WINDOW_EXAMPLES} at the end, and a comma before it after free text.",
        )


def reading_of(booking: Reservation) -> Reading:
    """A calendar with nothing in it but this booking."""
    return Reading(calendar=booking.calendar, reservations=(booking,))


def answer(booking: Reservation, without: Plan, with_it: Plan) -> Answer:
    """Compare the plan without the booking with the one that has it."""
    verdict = next(one for one in with_it.verdicts if (one.calendar, one.event) == (CALENDAR, KEY))
    fits: bool | None = verdict.state in (VerdictState.PLACED, VerdictState.COMING)
    if verdict.reason.code in NOT_KNOWN_YET:
        fits = None
    promised = {stay.node for stay in with_it.promises.stays if KEY in stay.events}
    nodes = tuple(sorted(promised | set(verdict.nodes))) if fits else ()
    return Answer(booking, fits, verdict, nodes, tuple(_affected(without.verdicts, with_it.verdicts)))


def _affected(before: Iterable[Verdict], after: Iterable[Verdict]) -> Iterator[Verdict]:
    """The bookings that would be refused, met after all, moved or made later."""
    known = {(one.calendar, one.event): one for one in before}
    for one in after:
        other = known.get((one.calendar, one.event))
        if other is not None and _outcome(one) != _outcome(other):
            yield one


def _outcome(one: Verdict) -> tuple[object, ...]:
    met = one.state in (VerdictState.PLACED, VerdictState.COMING)
    return (met, one.nodes if met else (), round(one.late_seconds / 60))


def _local(instant: datetime) -> str:
    """By this machine's clock, with the offset where the clock shows that time twice."""
    local = instant.astimezone()
    first = local.replace(tzinfo=None, fold=0)
    is_twice = first.astimezone().utcoffset() != first.replace(fold=1).astimezone().utcoffset()
    return (local if is_twice else first).isoformat(timespec="seconds" if local.second else "minutes")
