"""What a pass of the loop leaves in the history: what was said of each event, and what came of promises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from calendars.write_back import Report
from scheduler.metrics.meter import Meter, PromiseNews, Unmetered
from scheduler.orders import CALENDAR as PINS
from scheduler.store.history import Recorder
from scheduler.store.records import Change, PromiseRecord
from scheduler.types import Action, ActionKind, Plan, Step, Verdict, VerdictState

ON_TIME = timedelta(seconds=1)
"""A model that serves so soon after it was due was ready in time."""

LOADS = (ActionKind.DEPLOY, ActionKind.REBUILD)
NO_TIME = timedelta()

ADMITTED = ("scheduled", "loading", "serving")
Key = tuple[str, str]


class Chronicle:
    """Writes down what is new, and nothing twice, over a restart too."""

    def __init__(self, recorder: Recorder, now: datetime, meter: Meter | None = None) -> None:
        self._recorder = recorder
        self._meter = meter or Unmetered()
        self._said = {key: (one.state, one.text) for key, one in recorder.verdicts().items()}
        promises = recorder.promises(now - timedelta(days=1))
        self._promises: dict[Key, PromiseRecord] = {
            (one.calendar, one.event): one for one in promises if one.calendar != PINS
        }
        self._leads: dict[str, timedelta] = {}

    def note(
        self, plan: Plan, reports: Mapping[str, Iterable[Report]], calendars: Iterable[str], at: datetime
    ) -> None:
        """Write down what is said of each event now, and what came of what was promised.

        Args:
            calendars: those that could be read; what is missing from another one is not withdrawn.
        """
        verdicts = {(one.calendar, one.event): one for one in plan.verdicts}
        told = {(calendar, one.key): one for calendar, found in reports.items() for one in found}
        self._leads |= _leads(plan)
        self._note_changes(told, verdicts, at)
        # a pin is an order of the operator; nobody was promised anything
        asked = {key: report for key, report in told.items() if key[0] != PINS}
        self._note_promises(asked, verdicts, frozenset(calendars), at)

    def _note_changes(
        self, told: Mapping[Key, Report], verdicts: Mapping[Key, Verdict], at: datetime
    ) -> None:
        changes = []
        for key, report in told.items():
            text = " ".join(report.lines)
            if self._said.get(key) == (report.state, text) or (
                report.state == "ended" and key not in self._said
            ):
                continue
            self._said[key] = (report.state, text)
            verdict, known = verdicts.get(key), self._promises.get(key)
            changes.append(
                Change(
                    at=at,
                    calendar=key[0],
                    event=key[1],
                    title=verdict.title if verdict else known.title if known else "",
                    model=_model(verdict) if verdict else known.model if known else "",
                    state=report.state,
                    text=text,
                    private=verdict.private if verdict else bool(known and known.private),
                )
            )
        self._recorder.said(changes)
        self._meter.said(changes)

    def _note_promises(
        self,
        told: Mapping[Key, Report],
        verdicts: Mapping[Key, Verdict],
        calendars: frozenset[str],
        at: datetime,
    ) -> None:
        changed, news = [], []
        for key in {*self._promises, *told}:
            before, verdict = self._promises.get(key), verdicts.get(key)
            lead = self._leads.get(verdict.model.key, NO_TIME) if verdict and verdict.model else NO_TIME
            after = _after(before, told.get(key), verdict, key, at, lead)
            if after is None and before is not None and key[0] in calendars:
                after = _without_event(before, at)
            if after is not None and after != before:
                self._promises[key] = after
                changed.append(after)
                if before is None or after.state != before.state:
                    broken = after.state == "broken"
                    why = _broken_by(told.get(key), verdict) if broken else ""
                    news.append(PromiseNews(after, why))
        self._recorder.promised(changed)
        self._meter.promised(news)
        for key in [key for key, one in self._promises.items() if one.end < at - timedelta(days=1)]:
            del self._promises[key]
            self._said.pop(key, None)


def _leads(plan: Plan) -> dict[str, timedelta]:
    """By model key, how long the loading takes that this plan begins, or will begin next."""
    steps: list[tuple[Action | Step, datetime | None]]
    steps = [*((one, one.not_before) for one in plan.actions), *((one, one.at) for one in plan.upcoming)]
    found: dict[str, timedelta] = {}
    for one, begins in steps:
        if one.model is not None and one.kind in LOADS and begins and one.done_by:
            lead = one.done_by - begins + timedelta(seconds=one.late_seconds)
            found[one.model.key] = max(lead, found.get(one.model.key, NO_TIME))
    return found


def _model(verdict: Verdict) -> str:
    return verdict.model.name if verdict.model else ""


def _broken_by(report: Report | None, verdict: Verdict | None) -> str:
    """What broke a promise, in one of a few words."""
    if report is None or report.state == "ended":
        return "never served"
    if report.state != "refused":
        return "ceased to serve"
    refused = verdict is not None and verdict.state in (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD)
    return verdict.reason.code.value if verdict and refused else "load failed"


def _without_event(before: PromiseRecord, at: datetime) -> PromiseRecord:
    """What becomes of a promise whose event is in no reading any more."""
    if before.end > at:
        return before if before.state == "broken" else before.model_copy(update={"state": "withdrawn"})
    return _ended(before)


def _ended(before: PromiseRecord) -> PromiseRecord:
    if before.ready_at is None and before.state == "waiting":
        return before.model_copy(update={"state": "broken", "broken_why": "It never served."})
    return before


def _after(
    before: PromiseRecord | None,
    report: Report | None,
    verdict: Verdict | None,
    key: Key,
    at: datetime,
    lead: timedelta,
) -> PromiseRecord | None:
    """What is to be known of a promise now; None where nothing was ever promised, or nothing is said."""
    if report is None:
        return None
    if report.state == "ended":
        return _ended(before) if before else None
    if verdict is None or verdict.start is None or verdict.end is None:
        return before
    if report.state not in ADMITTED:
        if before is None or before.state == "withdrawn":
            return None if before is None else before
        return before.model_copy(update={"state": "broken", "broken_why": " ".join(report.lines)})
    base = before or PromiseRecord(
        calendar=key[0],
        event=key[1],
        title=verdict.title,
        model=_model(verdict),
        owner=verdict.owner,
        start=verdict.start,
        end=verdict.end,
    )
    told = base.model_copy(
        update={
            "title": verdict.title,
            "model": _model(verdict) or base.model,
            "start": verdict.start,
            "end": verdict.end,
            "private": verdict.private,
        }
    )
    return _on_its_way(_with_due(before, told, at, lead), report.state, at)


def _with_due(
    before: PromiseRecord | None, one: PromiseRecord, at: datetime, lead: timedelta
) -> PromiseRecord:
    """The promise with the instant from which it counts as late.

    Who books for now, or moves a booking there, cannot have it at once. Where the model's size is looked up
    first, its loading can only begin after that.
    """
    if before is not None and (before.start, before.model) == (one.start, one.model):
        return one
    looked_up = before is not None and before.start == one.start and not before.model
    promised_at = (before.promised_at if before and looked_up else None) or at
    due_at = one.start if promised_at + lead <= one.start else at + lead
    return one.model_copy(update={"promised_at": promised_at, "due_at": due_at})


def _on_its_way(one: PromiseRecord, state: str, at: datetime) -> PromiseRecord:
    if state == "serving":
        if one.ready_at is not None and one.state in ("kept", "late"):
            return one
        ready = one.ready_at or at
        late = max(NO_TIME, ready - (one.due_at or one.start))
        kept = late <= ON_TIME
        if one.state == "broken" and one.ready_at is not None:
            return one  # it serves again; that it did not in between stays true
        return one.model_copy(
            update={
                "state": "kept" if kept else "late",
                "ready_at": ready,
                "lateness_seconds": 0.0 if kept else late.total_seconds(),
                "broken_why": None,
            }
        )
    if one.ready_at is not None and at >= one.start and one.state in ("kept", "late"):
        why = f"It ceased to serve at {at:%Y-%m-%d %H:%M:%S} UTC."
        return one.model_copy(update={"state": "broken", "broken_why": why})
    if at < one.start and one.state != "waiting":
        return one.model_copy(
            update={"state": "waiting", "ready_at": None, "lateness_seconds": None, "broken_why": None}
        )
    return one
