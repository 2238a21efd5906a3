"""Answering in a Google Calendar: which events are written to, and what of them is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from calendars.google_client import Conversation, GoogleClient
from calendars.google_events import DIGEST_PROPERTY, EVENT_PROPERTY, STATE_PROPERTY, Target, target
from calendars.google_failures import DISABLED_CODES, QUOTA_CODES, RATE_CODES, GoogleUnavailable
from calendars.status_block import strip_block
from calendars.write_back import COLOURS, URGENCY, Answer, Notice, Report, Style, digest, with_report

MAX_DESCRIPTION_CHARACTERS = 8_192
"""The longest description Google's editor takes; one that would pass it gets the colour only."""

_PASSING = RATE_CODES | QUOTA_CODES | DISABLED_CODES
"""Refusals that say nothing about the calendar's rights, and pass."""

_MAY_WRITE = ("writer", "owner", "writerWithoutPrivateAccess")


@dataclass(frozen=True)
class _Due:
    report: Report
    target: Target
    etag: str


@dataclass
class _Progress:
    """What has been done so far; filled by the operation's thread, and read when that is over or given up."""

    written: dict[str, Target] = field(default_factory=dict)
    """By key."""
    begun: list[_Due] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    """Event ids of which it is known what came of them."""
    gone: set[str] = field(default_factory=set)
    refused: dict[str, GoogleUnavailable] = field(default_factory=dict)
    denied: GoogleUnavailable | None = None


class Answering:
    """Tells a calendar what became of its bookings, in at most one write per change of state.

    What is written
        The event's colour; its id, the state and a digest in ``extendedProperties.private``; and with the
        style ``colour+text`` a fenced block at the end of the description. Title and the person's own words
        stay as they are.
        A locked event, or one whose description would become too long, gets colour and state only.
        With the style ``colour``, a block from before is taken out when the event is next written to.
        With the style ``off`` nothing is written or noticed.

    When
        An event is written to when its state or digest differ from what it says already; what it says is
        read from the event, so a restart writes nothing twice. What a copy brought along from its original
        was not said to it.
        An instance of a series is written to only when it is refused, or when it carries an answer already:
        writing makes it an exception, and a series of them is clutter.
        A write is conditional on the etag of the last reading; an event that has changed since is left alone
        until the next.
        After a write whose answer was lost, too, the event is left alone until it has been read again.
        Nobody is sent a mail.

    What cannot be written
        A calendar that may only be read is said once, until it may be written and then again not.
        An event that may not be changed is said once, and tried again only after somebody has changed it.
        Whatever else goes wrong ends this report; what is left waits for the next.
    """

    def __init__(self, client: GoogleClient, calendar_id: str, style: Style, writes_per_report: int) -> None:
        self._client = client
        self._calendar_id = calendar_id
        self._style = style
        self._writes_per_report = writes_per_report
        self._targets: dict[str, Target] = {}
        self._role = ""
        self._denied: GoogleUnavailable | None = None
        self._said_read_only = False
        self._unwritable: dict[str, str | None] = {}
        """Event id to the etag with which writing to it was refused."""

    @property
    def wanted(self) -> bool:
        """Whether anything is ever to be written."""
        return self._style != "off"

    def after_reading(self, targets: Mapping[str, Target], access_role: str) -> None:
        """Take in what was just read: where to answer, by key, and whether that is allowed."""
        if access_role != self._role:
            self._denied = None
            self._said_read_only = self._said_read_only and access_role not in _MAY_WRITE
        self._role = access_role
        self._targets = dict(targets)
        etags = {one.event_id: one.etag for one in targets.values()}
        self._unwritable = {
            event_id: etag for event_id, etag in self._unwritable.items() if etags.get(event_id) == etag
        }

    def report(self, reports: Iterable[Report]) -> tuple[Answer, dict[str, Target]]:
        """What came of it, and each event written to as it is now, by event id."""
        due, waiting = self._due({report.key: report for report in reports})
        if not due and not waiting:
            return Answer(), {}
        if self._role not in _MAY_WRITE or self._denied is not None:
            return Answer(notices=self._read_only()), {}
        later = [one.report.key for one in due[self._writes_per_report :]]
        due = due[: self._writes_per_report]
        progress, problem = _Progress(), None
        try:
            if due:
                self._client.converse(lambda conversation: self._write(conversation, due, progress))
        except GoogleUnavailable as error:
            problem = Notice(reason=error.reason, remedy=error.remedy)
        written = dict(progress.written)
        self._take_in(due, progress, written)
        notices = self._notices(progress)
        if progress.denied is None:
            waiting += [
                one.report.key
                for one in due
                if one.report.key not in written
                and one.target.event_id not in progress.gone
                and one.target.event_id not in progress.refused
            ] + later
        answer = Answer(
            written=tuple(written), waiting=tuple(sorted(waiting)), notices=notices, problem=problem
        )
        return answer, {now.event_id: now for now in written.values()}

    # --- what is to be written ---------------------------------------------------------------------------

    def _due(self, reports: Mapping[str, Report]) -> tuple[list[_Due], list[str]]:
        """What to write, urgent first, and the keys that must wait for the next reading."""
        due: list[_Due] = []
        waiting: list[str] = []
        if not self.wanted:
            return due, waiting
        for key, report in reports.items():
            found = self._targets.get(key)
            if found is None or not self._needs(report, found):
                continue
            if found.etag is None:
                waiting.append(key)
            else:
                due.append(_Due(report, found, found.etag))
        return sorted(due, key=lambda one: (URGENCY[one.report.state], one.report.key)), waiting

    def _needs(self, report: Report, found: Target) -> bool:
        if found.event_id in self._unwritable:
            return False
        if found.instance and report.state != "refused" and not found.state:
            return False
        return (found.state, found.digest) != (report.state, digest(report, self._style))

    def _body(self, report: Report, found: Target) -> dict[str, object]:
        said = {
            EVENT_PROPERTY: found.event_id,
            STATE_PROPERTY: report.state,
            DIGEST_PROPERTY: digest(report, self._style),
        }
        body: dict[str, object] = {
            "colorId": COLOURS[report.state],
            "extendedProperties": {"private": said},
        }
        if self._style == "colour+text":
            description = with_report(found.description, report)
        else:
            description = strip_block(found.description)
        fits = len(description) <= MAX_DESCRIPTION_CHARACTERS
        if description != found.description and fits and not found.locked:
            body["description"] = description
        return body

    # --- writing, in the operation's thread ------------------------------------------------------------

    def _write(self, conversation: Conversation, due: list[_Due], progress: _Progress) -> None:
        for one in due:
            event_id = one.target.event_id
            progress.begun.append(one)
            try:
                answer = conversation.patch(event_id, one.etag, self._body(one.report, one.target))
            except GoogleUnavailable as error:
                if error.status == 412:
                    continue
                if error.status in (404, 410):
                    progress.gone.add(event_id)
                elif error.status == 403 and not set(error.codes) & _PASSING:
                    if one.target.locked or "forbiddenForNonOrganizer" in error.codes:
                        progress.refused[event_id] = error
                    else:
                        progress.denied = error
                        progress.settled.add(event_id)
                        return
                elif error.status == 400:
                    progress.refused[event_id] = error
                else:
                    raise
                progress.settled.add(event_id)
            else:
                progress.written[one.report.key] = target(answer)
                progress.settled.add(event_id)

    # --- what came of it -----------------------------------------------------------------------------------

    def _take_in(self, due: list[_Due], progress: _Progress, written: Mapping[str, Target]) -> None:
        for key, now in written.items():
            self._targets[key] = now
        for one in list(progress.begun):
            event_id = one.target.event_id
            if event_id in progress.gone:
                self._targets.pop(one.report.key, None)
            elif event_id in progress.refused:
                self._unwritable[event_id] = one.etag
            elif event_id not in progress.settled:
                # Changed by somebody, or perhaps by a write of ours whose answer was lost.
                self._targets[one.report.key] = replace(one.target, etag=None)
        self._denied = progress.denied or self._denied

    def _notices(self, progress: _Progress) -> tuple[Notice, ...]:
        found = [
            Notice(
                reason=f"The event {event_id} in {self._calendar_id} cannot be answered in: {error.reason}",
                remedy="Nothing has to be done: its booking is read and kept like any other.",
            )
            for event_id, error in progress.refused.items()
        ]
        return (*found, *(self._read_only() if progress.denied is not None else ()))

    def _read_only(self) -> tuple[Notice, ...]:
        if self._said_read_only:
            return ()
        self._said_read_only = True
        who = self._client.account or "the service's account"
        return (
            Notice(
                reason=f"The Google calendar {self._calendar_id} may only be read by {who} "
                f"(its role is {self._role or 'not told'}), so bookings are not answered there.",
                remedy=f"In the calendar's settings, let {who} “Make changes to events”, or set the style of "
                "answers to off.",
            ),
        )
