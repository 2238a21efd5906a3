"""Where the bars of the timeline stand: in percent of its width, and in lanes of a node."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

from scheduler.types import ActionKind, Plan, Stay, Verdict
from scheduler.web.models import BookingShown, BookingState, NodeShown, Zoom
from scheduler.web.past import Past, promise_id
from scheduler.web.shown import Shown, booking_id
from scheduler.web.veil import PRIVATE_BOOKING

SPANS: dict[Zoom, tuple[timedelta, timedelta]] = {
    "day": (timedelta(hours=3), timedelta(hours=21)),
    "3days": (timedelta(hours=12), timedelta(hours=60)),
    "week": (timedelta(days=1), timedelta(days=7)),
}
"""How far back and ahead is shown."""

LANE_PIXELS = 22
LABEL_PIXELS = 38
MOST_LANES = 64
OPEN_NODES = 8
"""Where there are more nodes, each is folded up."""
LEAST_PERCENT = 0.4
NARROW_PERCENT = 3.0
"""No text is put into bars narrower than this."""
TICKS = (1, 3, 6, 12, 24)
MOST_TICKS = 13
CANNOT_BE_MET = "Cannot be met"


@dataclass(frozen=True)
class Bar:
    """One stay of one model on one node. Percentages are of the timeline's width.

    ``target`` is the element that tells more; ``lane`` and ``lanes`` are where it stands in its row.
    """

    label: str
    state: str
    start: datetime
    end: datetime
    target: str = ""
    says: str = ""
    devices: float = 0.0
    loads_from: datetime | None = None
    left: float = 0.0
    width: float = 0.0
    loads_left: float = 0.0
    loads_width: float = 0.0
    lane: int = 0
    lanes: int = 1

    @property
    def y(self) -> int:
        """Its upper edge, in pixels."""
        return self.lane * LANE_PIXELS + 1

    @property
    def height(self) -> int:
        """In pixels."""
        return self.lanes * LANE_PIXELS - 2

    @property
    def narrow(self) -> bool:
        """Whether it is too narrow for any text."""
        return self.width < NARROW_PERCENT


@dataclass(frozen=True)
class Row:
    """One node, or what cannot be met; ``node`` is None for the latter."""

    name: str
    node: NodeShown | None
    bars: tuple[Bar, ...]
    lanes: int
    open: bool

    @property
    def height(self) -> int:
        """In pixels."""
        least = LANE_PIXELS if self.node is None else LABEL_PIXELS + (LANE_PIXELS if self.node.note else 0)
        return max(self.lanes * LANE_PIXELS, least)


@dataclass(frozen=True)
class Tick:
    """A line of the grid, and what stands above it."""

    left: float
    label: str
    major: bool


@dataclass(frozen=True)
class Timeline:
    """Everything that is drawn."""

    zoom: Zoom
    start: datetime
    end: datetime
    now: float
    ticks: tuple[Tick, ...]
    rows: tuple[Row, ...]

    @property
    def bars(self) -> int:
        """How many bars there are."""
        return sum(len(row.bars) for row in self.rows)


def timeline(
    shown: Shown, bookings: Iterable[BookingShown], nodes: Iterable[NodeShown], past: Past, zoom: Zoom
) -> Timeline:
    """What is drawn of a view."""
    at, (back, ahead) = shown.view.at, SPANS[zoom]
    start, end = at - back, at + ahead
    by_id = {one.id: one for one in bookings}
    drawn: dict[str, list[Bar]] = defaultdict(list)
    if shown.plan is not None:
        for node, bar in _stays(shown, shown.plan, by_id):
            drawn[node].append(bar)
    for node, bar in _gone(shown, past, start):
        drawn[node].append(bar)
    known = tuple(nodes)
    folded = len(known) > OPEN_NODES
    rows = [_row(one.name, one, drawn.pop(one.name, []), start, end, folded) for one in known]
    rows += [_row(name, None, bars, start, end, folded) for name, bars in sorted(drawn.items())]
    refused = [_refused(one) for one in by_id.values() if one.state in ("refused", "misunderstood")]
    if row := _row(CANNOT_BE_MET, None, [one for one in refused if one], start, end, False):
        rows.append(row)
    return Timeline(
        zoom=zoom,
        start=start,
        end=end,
        now=_percent(at, start, end),
        ticks=tuple(_ticks(start, end, shown.veil.sight.zone)),
        rows=tuple(row for row in rows if row.bars or row.node),
    )


def _stays(shown: Shown, plan: Plan, by_id: Mapping[str, BookingShown]) -> Iterator[tuple[str, Bar]]:
    """What is promised, and what runs without a promise."""
    by_event: dict[str, list[Verdict]] = defaultdict(list)
    for one in plan.verdicts:
        by_event[one.event].append(one)
    coming = {
        (one.model.key, one.node) for one in plan.actions if one.kind is ActionKind.DEPLOY and one.model
    }
    loading = _loading(plan)
    for stay, replicas in _together(plan.promises.stays):
        verdicts = [one for event in stay.events for one in by_event[event]]
        found = [by_id[booking_id(one)] for one in verdicts if booking_id(one) in by_id]
        loads_from, late_seconds = loading.get((stay.model, stay.node, stay.start), (None, 0.0))
        begins = min(stay.end, stay.start + timedelta(seconds=late_seconds))
        if stay.start <= plan.at and (stay.model, stay.node) not in coming:
            begins = min([stay.start, *(one.start for one in verdicts if one.start)])
        yield stay.node, _of_stay(stay, replicas, begins, loads_from, found)
    promised = {(stay.model, stay.node) for stay in plan.promises.stays}
    for placement in plan.placements:
        if placement.identity not in promised:
            name = shown.veil.words(placement.target.model.name)
            yield (
                placement.node,
                Bar(
                    label=short(name) + (f" x{placement.replicas}" if placement.replicas > 1 else ""),
                    state="lingers",
                    start=min(placement.target.start, plan.at),
                    end=max(placement.target.until, plan.at),
                    says=f"{name} is still there, though no booking asks for it",
                    devices=placement.num_gpus * placement.replicas,
                ),
            )


def _loading(plan: Plan) -> Mapping[tuple[str, str, datetime], tuple[datetime, float]]:
    """When the loading for a stay begins and how late it will be done, by model, node and start."""
    found = {
        (one.model.key, one.node, one.done_by): (one.at, one.late_seconds)
        for one in plan.upcoming
        if one.kind is not ActionKind.UNDEPLOY
    }
    for action in plan.actions:
        if action.kind is ActionKind.DEPLOY and action.model and action.node and action.done_by:
            begins = max(plan.at, action.not_before or plan.at)
            found[action.model.key, action.node, action.done_by] = (begins, action.late_seconds)
    return found


def _together(stays: Iterable[Stay]) -> Iterator[tuple[Stay, int]]:
    """Replicas that are on one node at the same time, for the same bookings, as one; and how many."""
    devices: dict[Stay, list[float]] = defaultdict(list)
    for one in stays:
        devices[replace(one, devices=0.0, lane=None)].append(one.devices)
    for stay, each in devices.items():
        yield replace(stay, devices=sum(each)), len(each)


def _of_stay(
    stay: Stay, replicas: int, begins: datetime, loads_from: datetime | None, found: list[BookingShown]
) -> Bar:
    first = found[0] if found else None
    title = first.title if first else "Booked"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    model = f": {first.model}" if first and first.model and first.model != first.title else ""
    return Bar(
        label=f"{title}{more}" + (f" x{replicas}" if replicas > 1 else ""),
        state=_colour(first),
        start=begins,
        end=stay.end,
        target=first.id if first else "",
        says=f"{title}{more}{model}, {first.state.value if first else 'booked'} on {stay.node}"
        + (f", {replicas} replicas" if replicas > 1 else ""),
        devices=stay.devices,
        loads_from=loads_from if loads_from and loads_from < begins else None,
    )


def _colour(booking: BookingShown | None) -> str:
    if booking is None:
        return BookingState.BOOKED
    return "private" if booking.title == PRIVATE_BOOKING else booking.state


def _gone(shown: Shown, past: Past, start: datetime) -> Iterator[tuple[str, Bar]]:
    """What was on the nodes and is not any more, as far as the plans that were carried out tell."""
    there: dict[tuple[str, str], datetime] = {}
    for plan in past.plans:
        if plan.outcome != "applied":
            continue
        for action in plan.actions:
            kind, _, rest = action.partition(" ")
            model, _, node = rest.rpartition(" ")
            if kind == ActionKind.DEPLOY:
                there.setdefault((model, node), plan.at)
            elif kind == ActionKind.UNDEPLOY:
                began = there.pop((model, node), start)
                yield node, _past_bar(shown, past, model, node, began, plan.at)


def _past_bar(shown: Shown, past: Past, model: str, node: str, start: datetime, end: datetime) -> Bar:
    name = shown.veil.words(model)
    meant = [
        one
        for one in past.promises
        if one.model == model and one.start < end and one.end > start and one.state != "withdrawn"
    ]
    states = {one.state for one in meant}
    state = next((one for one in ("broken", "late", "kept") if one in states), "over")
    return Bar(
        label=short(name),
        state=f"was-{state}",
        start=start,
        end=end,
        target=promise_id(meant[0]) if meant else "",
        says=f"{name} was on {node}" + (f", its booking was {state}" if meant else ""),
    )


def _refused(one: BookingShown) -> Bar | None:
    if one.start is None or one.end is None:
        return None
    return Bar(
        label=one.title,
        state=one.state.value,
        start=one.start,
        end=one.end,
        target=one.id,
        says=f"{one.title} cannot be met: {one.why.words}",
    )


def _row(
    name: str, node: NodeShown | None, bars: list[Bar], start: datetime, end: datetime, folded: bool
) -> Row:
    visible = [
        _placed(bar, start, end) for bar in bars if bar.end > start and (bar.loads_from or bar.start) < end
    ]
    laid, lanes = _lanes(visible)
    least = min(max(node.devices, 1), MOST_LANES) if node and node.is_gpu else 1
    return Row(name=name, node=node, bars=laid, lanes=max(lanes, least), open=not folded)


def _placed(bar: Bar, start: datetime, end: datetime) -> Bar:
    left, right = _percent(bar.start, start, end), _percent(bar.end, start, end)
    width = max(right - left, LEAST_PERCENT)
    left = min(left, 100 - width)
    loads = _percent(bar.loads_from, start, end) if bar.loads_from else left
    return replace(
        bar,
        left=round(left, 3),
        width=round(width, 3),
        loads_left=round(loads, 3),
        loads_width=round(max(0.0, left - loads), 3),
    )


def _lanes(bars: list[Bar]) -> tuple[tuple[Bar, ...], int]:
    """Each bar in the first lanes that are free for as long as it lasts; one for each whole GPU."""
    ends: list[float] = []
    laid = []
    for bar in sorted(bars, key=lambda one: (one.loads_left, -one.devices, one.label)):
        wanted = min(MOST_LANES, max(1, math.ceil(bar.devices)))
        first = next(
            (
                number
                for number in range(len(ends) + 1)
                if all(end <= bar.loads_left + 1e-9 for end in ends[number : number + wanted])
            ),
        )
        ends += [0.0] * (first + wanted - len(ends))
        ends[first : first + wanted] = [bar.left + bar.width] * wanted
        laid.append(replace(bar, lane=first, lanes=wanted))
    return tuple(laid), len(ends)


def _ticks(start: datetime, end: datetime, zone: tzinfo) -> Iterator[Tick]:
    """Full hours by the reader's clock; midnights are told by their day."""
    hours = (end - start) / timedelta(hours=1)
    step = next((one for one in TICKS if hours / one <= MOST_TICKS), TICKS[-1])
    instant = start.replace(minute=0, second=0, microsecond=0)
    while instant < end:
        local = instant.astimezone(zone)
        if instant > start and local.minute == 0 and local.hour % step == 0:
            midnight = local.hour == 0
            yield Tick(
                left=round(_percent(instant, start, end), 3),
                label=f"{local:%a} {local.day} {local:%b}" if midnight else f"{local:%H:%M}",
                major=midnight,
            )
        # full hours by clocks that are a quarter or half an hour off, too
        instant += timedelta(minutes=15 if (local.utcoffset() or timedelta()).seconds % 3600 else 60)


def _percent(instant: datetime, start: datetime, end: datetime) -> float:
    return 100 * max(0.0, min(1.0, (instant - start) / (end - start)))


def short(name: str) -> str:
    """A model's name without its organisation."""
    return name.rpartition("/")[2]
