"""The page as HTML: whole at first, and its live part alone when there is something new."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jinja2
from fastapi import APIRouter, Cookie, Query
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.moments import SystemZone
from scheduler.render.sentences import duration, moment, size, stopped
from scheduler.web.access import Reader
from scheduler.web.desk import Desk
from scheduler.web.models import AnswerShown, BookingState, Zoom
from scheduler.web.past import plans_shown, promises_shown
from scheduler.web.shown import wanted
from scheduler.web.timeline import LANE_PIXELS, timeline
from scheduler.web.veil import Sight

TEMPLATES = Path(__file__).parent / "templates"
PLANS_LISTED = 12
PROMISES_LISTED = 40
MOVES_SECONDS = 5.0
"""So old what was rendered may become."""
SILENT_SECONDS, SILENT_PASSES = 120.0, 6
"""A daemon that has shown nothing for so long is told of."""
DEAR_SECONDS = 0.3
SHARE = 20.0
"""Rendering takes no more than one second in so many, for each kind of reader."""
MOST_BOOKINGS = 400
"""More than so many are listed by the API only."""
Zone = Annotated[str | None, Cookie(max_length=64)]
ENDED = (BookingState.REFUSED, BookingState.MISUNDERSTOOD)


@dataclass(frozen=True)
class Question:
    """What was written into the form."""

    what: str = ""
    start: str = ""
    end: str = ""
    by: str = ""

    @property
    def asked(self) -> bool:
        """Whether anything was."""
        return bool(self.what)


def page(desk: Desk, has_key: bool, openapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """The routes that answer in HTML."""
    router = APIRouter(include_in_schema=False)
    environment = _environment()

    @router.get("/")
    def whole(
        reader: Reader,
        zone: Zone = None,
        zoom: str = "week",
        what: Annotated[str, Query(max_length=1000)] = "",
        start: Annotated[str, Query(max_length=64)] = "",
        end: Annotated[str, Query(max_length=64)] = "",
        by: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        reader = replace(reader, zone=_zone(zone))
        question = Question(what, start, end, by.strip())
        answer, problem = _asked(desk, question, reader) if question.asked else (None, None)
        top, rest = _live(desk, environment, reader, _zoom(zoom))
        return HTMLResponse(
            environment.get_template("page.html").render(
                _frame(desk, reader, _zoom(zoom)),
                top=top,
                rest=rest,
                question=question if question.asked else _suggested(desk, reader),
                answer=answer,
                problem=problem,
                names=desk.models(),
                has_key=has_key,
                asks_who=desk.asks_who,
            )
        )

    @router.get("/live")
    def live(reader: Reader, zone: Zone = None, zoom: str = "week") -> Response:
        reader = replace(reader, zone=_zone(zone))
        return HTMLResponse("".join(_live(desk, environment, reader, _zoom(zoom))))

    @router.get("/what-if")
    def what_if(
        reader: Reader,
        zone: Zone = None,
        what: Annotated[str, Query(max_length=1000)] = "",
        start: Annotated[str, Query(max_length=64)] = "",
        end: Annotated[str, Query(max_length=64)] = "",
        by: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        reader = replace(reader, zone=_zone(zone))
        answer, problem = _asked(desk, Question(what, start, end, by.strip()), reader)
        frame = _frame(desk, reader, "week")
        return HTMLResponse(
            environment.get_template("answer.html").render(frame, answer=answer, problem=problem)
        )

    @router.get("/api")
    def documented(reader: Reader) -> Response:
        frame = _frame(desk, reader, "week")
        return HTMLResponse(environment.get_template("api.html").render(frame, api=openapi()))

    return router


def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["size"] = size
    found.filters["duration"] = duration
    found.filters["stopped"] = stopped
    found.filters["iso"] = lambda instant: instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


def _frame(desk: Desk, reader: Sight, zoom: Zoom) -> dict[str, Any]:
    """What every template is given."""
    now = desk.clock()
    return {
        "now": now,
        "command": command,
        "zone": _zone_name(reader.zone, now),
        "zoom": zoom,
        "zooms": {"day": "Day", "3days": "3 days", "week": "Week"},
        "operator": reader.everything,
        "people": reader.people,
        "moment": partial(_told, now=now, zone=reader.zone),
        "gateway": desk.settings.serve.url_for_clients,
        "google": desk.google_calendar is not None,
    }


def _live(desk: Desk, environment: jinja2.Environment, reader: Sight, zoom: Zoom) -> tuple[Markup, Markup]:
    """What changes by itself, above the form and below it; made once for all who see the same."""
    # what takes long to render is rendered less often, whatever happens meanwhile
    cost = desk.costs.get(zoom, 0.0)
    version = desk.board.version if cost < DEAR_SECONDS else None
    # ages and the line of the present move on, too
    moves = int(desk.clock().timestamp() / max(MOVES_SECONDS, SHARE * cost))
    who = (reader.everything, reader.people, str(reader.zone))
    return desk.kept.get(
        ("live", version, who, zoom, moves), partial(_made_live, desk, environment, reader, zoom)
    )


def _made_live(
    desk: Desk, environment: jinja2.Environment, reader: Sight, zoom: Zoom
) -> tuple[Markup, Markup]:
    began = time.monotonic()
    try:
        found = _seen(desk, reader, zoom)
    except OperatorError as problem:
        found = {"state": None, "waiting": f"{problem.reason} {problem.remedy}"}
    frame = _frame(desk, reader, zoom)
    top, rest = (environment.get_template(name).render(frame, **found) for name in ("top.html", "rest.html"))
    desk.costs[zoom] = time.monotonic() - began
    return Markup(top), Markup(rest)


def _seen(desk: Desk, reader: Sight, zoom: Zoom) -> dict[str, Any]:
    """What the templates of the live part are given.

    Raises:
        OperatorError: there is nothing to be shown yet, or it is not known what is private.
    """
    past = desk.past()
    shown = desk.shown(reader, past)
    bookings, nodes, models = shown.bookings(), shown.nodes(), shown.models()
    promises = promises_shown(past, shown.veil, desk.clock())
    drawn = timeline(shown, bookings, nodes, past, zoom)
    linked = {bar.target for row in drawn.rows for bar in row.bars}
    met = [one for one in bookings if one.state not in ENDED]
    age = (desk.clock() - shown.view.at).total_seconds()
    usual = SILENT_PASSES * desk.settings.calendar.check_interval_seconds
    return {
        "state": shown.state(),
        "silent": age if age > max(SILENT_SECONDS, usual) else 0,
        "timeline": drawn,
        "lane": LANE_PIXELS,
        "loading": [one for one in models if one.status == "loading"],
        "failed": [one for one in models if one.status == "failed"],
        "nodes": nodes,
        "refused": wanted(bookings, *ENDED),
        "bookings": met[:MOST_BOOKINGS],
        "more": max(0, len(met) - MOST_BOOKINGS),
        "promises": promises,
        "listed": [
            one
            for number, one in enumerate(promises.promises)
            if number < PROMISES_LISTED or one.id in linked
        ],
        "plans": plans_shown(past, shown.veil)[:PLANS_LISTED],
        "upcoming": shown.plan_shown().upcoming[:PLANS_LISTED],
    }


def _asked(desk: Desk, question: Question, reader: Sight) -> tuple[AnswerShown | None, OperatorError | None]:
    try:
        start = _local(question.start, "The start", reader.zone)
        end = _local(question.end, "The end", reader.zone)
        return desk.would_fit(question.what, start, end, reader, question.by), None
    except OperatorError as problem:
        return None, problem


def _local(written: str, name: str, zone: tzinfo) -> datetime:
    """A time as browsers write it: without a zone it is by the reader's clock.

    Raises:
        OperatorError: it is no time.
    """
    try:
        found = datetime.fromisoformat(written.strip())
        found = found if found.tzinfo else found.replace(tzinfo=zone)
        if not 2000 <= found.year <= 2200:
            raise ValueError("too far away")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise OperatorError(f"{name} is “{written}”, which is no time.", "Write 2026-03-25 14:00.") from error


def _suggested(desk: Desk, reader: Sight) -> Question:
    """The next full hour, for two hours."""
    local = desk.clock().astimezone(reader.zone).replace(minute=0, second=0, microsecond=0, tzinfo=None)
    first = local + timedelta(hours=1)
    return Question("", f"{first:%Y-%m-%dT%H:%M}", f"{first + timedelta(hours=2):%Y-%m-%dT%H:%M}")


def _zoom(written: str) -> Zoom:
    return written if written in get_args(Zoom) else "week"  # type: ignore[return-value]


def _zone(written: str | None) -> tzinfo:
    """The zone the reader's browser named; this machine's where it named none that is known."""
    if written:
        try:
            return ZoneInfo(written)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            pass
    return SystemZone()


def _zone_name(zone: tzinfo, now: datetime) -> str:
    return zone.key if isinstance(zone, ZoneInfo) else now.astimezone(zone).tzname() or "local time"


def _told(instant: datetime | None, *, now: datetime, zone: tzinfo) -> str:
    return moment(instant, now, zone) if instant else ""
