"""What the page and the API are made from: the board, the history, the orders; for one reader at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from scheduler.board import Board, View
from scheduler.catalog import load_catalog
from scheduler.errors import OperatorError
from scheduler.render.sentences import listed, sentence, stopped
from scheduler.settings import Settings
from scheduler.store.history import FILE
from scheduler.store.orders import OrderBook
from scheduler.supposing import Judges, Supposed
from scheduler.types import Verdict, VerdictState
from scheduler.web.google_link import new_event
from scheduler.web.models import Affected, AnswerShown
from scheduler.web.past import Past, read_past
from scheduler.web.shown import Shown
from scheduler.web.veil import Sight, Veil
from scheduler.what_if import booking_of

PAST_HOURS = 24.0
"""How far back the page looks."""
KEPT_SECONDS = 2.0
"""How long what was read from the history is good for."""
MOST_KEPT = 32
MOST_WHAT_CHARACTERS = 300
Made = TypeVar("Made")


class NothingYet(OperatorError):
    """The daemon has shown nothing so far."""

    def __init__(self) -> None:
        super().__init__("The daemon has not looked yet.", "Ask again in a moment.")


class Kept:
    """The last few things that were made, each of them made once however many ask for it."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[Hashable, object] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made under a key; made now if that is not kept."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]  # type: ignore[return-value]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._found:
                    return self._found[key]  # type: ignore[return-value]
            try:
                made = make()
                with self._lock:
                    self._found[key] = made
                    while len(self._found) > self._most:
                        self._found.popitem(last=False)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return made


@dataclass(frozen=True)
class Desk:
    """Everything an answer needs.

    Args:
        clock: tells the present instant.
        judges: answers “would this fit?”.
    """

    settings: Settings
    board: Board
    judges: Judges
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    kept: Kept = field(default_factory=Kept)
    costs: dict[str, float] = field(default_factory=dict)
    """How long rendering the page took last, by zoom, in seconds."""

    @property
    def orders(self) -> OrderBook:
        """What the operator ordered."""
        return OrderBook(self.settings.path(self.settings.state_dir))

    @property
    def google_calendar(self) -> str | None:
        """The calendar that links book in; None where no Google calendar is read."""
        return next(iter(self.settings.google_calendar_ids), None)

    def view(self) -> tuple[View, int]:
        """The last view, and its version.

        Raises:
            NothingYet: there is none.
        """
        version, view = self.board.version, self.board.current
        if view is None:
            raise NothingYet
        return view, version

    def past(self, hours: float = PAST_HOURS) -> Past:
        """What the history knows of the last hours.

        Raises:
            OperatorError: it cannot be read.
        """
        now = self.clock()
        path = self.settings.in_state_dir(FILE)
        key = ("past", hours, self.board.version, int(time.monotonic() / KEPT_SECONDS))
        return self.kept.get(key, partial(read_past, path, now - timedelta(hours=hours)))

    def shown(self, sight: Sight, past: Past | None = None) -> Shown:
        """The last view, for a reader.

        Raises:
            NothingYet: there is none.
            OperatorError: the history cannot be read, so it is not known what is private.
        """
        view, version = self.view()
        past = past or self.past()
        url = self.settings.serve.url_for_clients
        return Shown(view, Veil(view, sight, past.private), version, url, self.google_calendar)

    def models(self) -> tuple[str, ...]:
        """What can be booked by name; empty where the catalog cannot be read."""
        try:
            path = self.settings.path(self.settings.models.catalog)
            return load_catalog(path).names
        except OperatorError:
            return ()

    @property
    def asks_who(self) -> bool:
        """Whether it matters who books."""
        rules = self.settings.booking
        if rules.organisers or rules.models_by_organiser or rules.gpu_hours_per_week:
            return True
        try:
            catalog = load_catalog(self.settings.path(self.settings.models.catalog))
        except OperatorError:
            return False
        return any(one.bookable_by for one in catalog.entries)

    def would_fit(
        self, what: str, start: datetime, end: datetime, sight: Sight, by: str | None = None
    ) -> AnswerShown:
        """What would become of a booking ``by`` somebody; nothing is booked.

        Raises:
            OperatorError: it is not understood, or cannot be judged now.
        """
        what = " ".join(what.split())
        if not what or len(what) > MOST_WHAT_CHARACTERS:
            raise OperatorError(
                f"What would be booked takes 1 to {MOST_WHAT_CHARACTERS} characters.",
                "Write it such as “Llama-70B 8xH100”.",
            )
        view, _ = self.view()
        booking = booking_of(what, start, end, self.clock(), by or None)
        supposed = self.judges.ask(booking, view)
        return self._told(supposed, view, sight)

    def _told(self, supposed: Supposed, view: View, sight: Sight) -> AnswerShown:
        found = supposed.answer
        judged = View(view.beat, supposed.plan, view.observed, readings=view.readings)
        # what the reader wrote is known to the reader; the others' names are not
        shown = Shown(judged, Veil(view, sight, self.past().private), 0, "")
        asked = found.verdict.model_copy(update={"private": False})
        booking = shown.booking(asked, found.booking.request).model_copy(
            update={"title": found.booking.title, "calendar": "", "nodes": found.nodes, "book": None}
        )
        book, earliest = None, booking.earliest
        if found.fits is not False:
            earliest = found.booking.start
        if self.google_calendar and earliest:
            length = found.booking.end - found.booking.start
            book = new_event(found.booking.request, earliest, earliest + length, self.google_calendar)
        return AnswerShown(
            fits=found.fits,
            words=_headline(found.fits, found.nodes, booking.why.words),
            booking=booking,
            affected=tuple(_affected(shown.veil.verdict(one)) for one in found.affected),
            book=book,
            command=found.command,
        )


def _headline(fits: bool | None, nodes: tuple[str, ...], why: str) -> str:
    if fits is None:
        return f"Not known yet: {stopped(why)}"
    if fits:
        return f"It fits{f' on {listed(nodes)}' if nodes else ''}."
    return f"It does not fit: {stopped(why)}"


def _affected(told: Verdict) -> Affected:
    if told.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD):
        words = f"could be met no longer: {sentence(told.reason)}"
    else:
        where = f"would be on {', '.join(told.nodes)}" if told.nodes else "would be met"
        late = f", {told.late_seconds / 60:.0f} min late" if told.late_seconds >= 60 else ""
        words = where + late
    return Affected(title=told.title, start=told.start, end=told.end, words=words)
