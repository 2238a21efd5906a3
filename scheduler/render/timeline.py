"""The next hours as text: a row for each node, a bar for each booking, a line for the present.

Everything is told by characters, so that it reads the same without colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from textwrap import wrap

from rich.console import Console
from rich.text import Text

from scheduler.cluster.node import DeviceKind, Node
from scheduler.render.bars import NO_NODE_YET, NO_ROOM, Bar, BarKind, bars
from scheduler.render.text import summary
from scheduler.types import Plan

NARROWEST = 32
EMPTY_ROWS_SHOWN = 12
ROWS_SHOWN = 60
LABEL_COLUMNS = 22
LEAST_LABEL_COLUMNS = 10
STEPS_HOURS = (1, 2, 3, 4, 6, 12, 24, 48, 96, 168, 336, 672)
NOW = "│"
GAP = "   "
STYLES = {BarKind.BOOKED: "green", BarKind.REFUSED: "yellow", BarKind.LOADING: "cyan"}
FILL = {BarKind.BOOKED: "=", BarKind.REFUSED: "x"}


class Axis:
    """Maps instants to columns. Starts at the last full hour before ``at``."""

    def __init__(self, at: datetime, hours: float, columns: int, zone: tzinfo | None) -> None:
        local = at.astimezone(zone)
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        self.start = at.astimezone(UTC) - past
        self.end = at.astimezone(UTC) + timedelta(hours=hours)
        self.columns = columns
        self.zone = zone

    def column(self, instant: datetime) -> int:
        """The column whose left edge is nearest, held between 0 and the number of columns."""
        share = (instant - self.start) / (self.end - self.start)
        return round(max(0.0, min(1.0, share)) * self.columns)

    def ticks(self) -> Iterator[tuple[int, str]]:
        """Columns and labels: full hours by the clock of the zone, the day where it is midnight."""
        hours = (self.end - self.start) / timedelta(hours=1)
        step = next((one for one in STEPS_HOURS if one * self.columns / hours >= 8), STEPS_HOURS[-1])
        instant, since = self.start, None
        while instant < self.end:
            local = instant.astimezone(self.zone)
            due = local.hour % step == 0 if step <= 24 else local.hour == 0
            if due and (step <= 24 or since is None or instant - since > timedelta(hours=step - 2)):
                since = instant
                yield self.column(instant), f"{local:%a %d}" if local.hour == 0 else f"{local:%H:%M}"
            instant += timedelta(hours=1)


def show_timeline(
    console: Console, plan: Plan, hours: float, zone: tzinfo | None = None, supposing: Sequence[str] = ()
) -> None:
    """Print the summary of a plan and its next hours, as wide as the console."""
    if supposing:
        console.print(Text(f"Supposing that {' and '.join(supposing)}:"))
    console.print(Text(summary(plan), style="yellow" if plan.refused else "bold"))
    for line in timeline(plan, hours, max(NARROWEST, console.width), zone):
        console.print(line)


def timeline(plan: Plan, hours: float, width: int, zone: tzinfo | None = None) -> list[Text]:
    """The lines of a timeline, none wider than ``width`` (at least `NARROWEST`)."""
    drawn = bars(plan, plan.at + timedelta(hours=hours))
    rows = _rows(plan, drawn)
    widest = min(LABEL_COLUMNS, max(LEAST_LABEL_COLUMNS, width // 3))
    label_columns = min(widest, max([LEAST_LABEL_COLUMNS, *(len(label) for _, label in rows)]))
    axis = Axis(plan.at, hours, width - label_columns - 1, zone)
    lines = [_head(axis, plan.at, label_columns)]
    for name, label in rows[:ROWS_SHOWN]:
        lanes = _lanes([bar for bar in drawn if bar.row == name], axis)
        for number, lane in enumerate(lanes or [[]]):
            lines.append(
                _line(_cut(label, label_columns) if number == 0 else "", label_columns, lane, axis, plan.at)
            )
    lines += [Text(line, style="dim") for line in _notes(plan, drawn, rows, width)]
    return lines


def _rows(plan: Plan, drawn: Iterable[Bar]) -> list[tuple[str, str]]:
    """Names and labels of the rows: nodes (without the idle ones where they are many), what has no room."""
    used = {bar.row for bar in drawn}
    nodes = [
        node
        for node in plan.cluster.nodes
        if node.name in used or len(plan.cluster.nodes) <= EMPTY_ROWS_SHOWN
    ]
    known = {node.name for node in nodes}
    last = [name for name in (NO_NODE_YET, NO_ROOM) if name in used]
    gone = sorted(used - known - set(last))
    rows = [(node.name, _node_label(node)) for node in nodes] + [(name, f"{name} (gone)") for name in gone]
    return rows + [(name, name) for name in last]


def _node_label(node: Node) -> str:
    if not node.devices or node.kind is DeviceKind.CPU:
        return f"{node.name} {'CPU' if node.devices else '-'}"
    return f"{node.name} {len(node.devices)}x{node.accelerator or 'GPU'}"


def _head(axis: Axis, at: datetime, label_columns: int) -> Text:
    cells = [" "] * axis.columns
    for column, label in axis.ticks():
        if column + len(label) <= axis.columns and not any(
            cell != " " for cell in cells[column : column + len(label)]
        ):
            cells[column : column + len(label)] = label
    return Text(
        f"{at.astimezone(axis.zone):%a %d %b}".ljust(label_columns + 1) + "".join(cells).rstrip(),
        style="bold",
    )


def _lanes(drawn: Iterable[Bar], axis: Axis) -> list[list[Bar]]:
    """Bars that do not touch share a lane; each goes to the first lane that has room for it and its label."""
    lanes: list[list[Bar]] = []
    ends: list[int] = []
    for bar in drawn:
        first = axis.column(bar.loads_from or bar.start)
        last = _extent(bar, axis)
        free = next((number for number, end in enumerate(ends) if end <= first), None)
        if free is None:
            lanes.append([bar])
            ends.append(last)
        else:
            lanes[free].append(bar)
            ends[free] = last
    return lanes


def _span(bar: Bar, axis: Axis) -> tuple[int, int]:
    first = min(axis.column(bar.start), axis.columns - 1)
    return first, max(first + 1, axis.column(bar.end))


def _beside(bar: Bar, axis: Axis) -> bool:
    """Whether the label is too long for its bar and there is room for it on the right."""
    first, last = _span(bar, axis)
    return last - first < len(bar.label) + 2 and last + 2 + len(bar.label) <= axis.columns


def _extent(bar: Bar, axis: Axis) -> int:
    last = _span(bar, axis)[1]
    return last + 2 + len(bar.label) if _beside(bar, axis) else last


def _line(label: str, label_columns: int, lane: Iterable[Bar], axis: Axis, at: datetime) -> Text:
    cells = [" "] * axis.columns
    now = min(axis.column(at), axis.columns - 1)
    cells[now] = NOW
    spans = []
    for bar in lane:
        first, last = _span(bar, axis)
        if bar.loads_from:
            begins = min(axis.column(bar.loads_from), max(first - 1, 0))
            cells[begins:first] = "." * (first - begins)
            spans.append((begins, first, STYLES[BarKind.LOADING]))
        cells[first:last] = _drawn(bar, axis, last - first)
        spans.append((first, last, STYLES[bar.kind]))
        if _beside(bar, axis):
            cells[last + 1 : last + 1 + len(bar.label)] = bar.label
    line = Text(f"{label:{label_columns}} {''.join(cells)}".rstrip())
    for first, last, style in spans:
        line.stylize(style, label_columns + 1 + first, label_columns + 1 + last)
    return line


def _drawn(bar: Bar, axis: Axis, width: int) -> str:
    """A bar of so many characters: its ends, its label where there is room, and what fills the rest."""
    if width == 1:
        return "#" if bar.kind is BarKind.BOOKED else "x"
    left = "<" if bar.start < axis.start else "["
    right = ">" if bar.end > axis.end else ")"
    inner = width - 2
    label = "" if _beside(bar, axis) else _fit(bar.label, inner)
    return left + label.ljust(inner, FILL[bar.kind]) + right


def _fit(label: str, width: int) -> str:
    """A label of a bar, cut within its name: the number of replicas at its end stays."""
    name, times, count = label.rpartition(" x")
    end = f"{times}{count}" if name and count.isdigit() else ""
    if not end or len(label) <= width or width < len(end) + 3:
        return _cut(label, width)
    return _cut(name, width - len(end)) + end


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…" if width > 2 else ""


def _notes(plan: Plan, drawn: Iterable[Bar], rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """What the characters mean, of those in use, and how many nodes are not shown."""
    empty = len(plan.cluster.nodes) - len([name for name, _ in rows if plan.cluster.named(name)])
    if empty:
        yield from wrap(f"{empty} more node{'s have' if empty > 1 else ' has'} nothing booked.", width)
    if len(rows) > ROWS_SHOWN:
        yield from wrap(f"{len(rows) - ROWS_SHOWN} more rows are not shown; --json has everything.", width)
    drawn = tuple(drawn)
    parts = [f"{NOW} now"]
    if any(bar.kind is BarKind.BOOKED for bar in drawn):
        parts.append("[==) booked")
    if any(bar.loads_from for bar in drawn):
        parts.append("... loading")
    if any(bar.kind is BarKind.REFUSED for bar in drawn):
        parts.append("[xx) cannot be met")
    parts.append("< and > go on beyond" if drawn else "nothing is booked")
    yield from _joined(parts, width)


def _joined(parts: Iterable[str], width: int) -> list[str]:
    """Parts beside each other, on as few lines as they need."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(GAP) + len(part) <= width:
            lines[-1] += GAP + part
        else:
            lines.append(part)
    return lines
