"""Cuts an iCalendar text into its VEVENT blocks before any of them is parsed.

So a block that cannot be understood hides no other. The text as a whole is refused only where its
frame is broken, because a half-written file says nothing about what is booked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo

from calendars.ics_times import Zones


class NotACalendar(Exception):
    """The text is no complete iCalendar stream. ``str()`` completes the sentence "The calendar …"."""


@dataclass(frozen=True)
class Block:
    """The unfolded lines of one VEVENT.

    ``number`` counts the events of the stream from 1; ``closed`` says whether there was an END:VEVENT.
    """

    number: int
    lines: tuple[str, ...]
    closed: bool


def _lines(content: bytes) -> list[str]:
    """Unfolded content lines. Unfolded as bytes: a fold may split a character (RFC 5545 section 3.1)."""
    content = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        text = content.replace(b"\n ", b"").replace(b"\n\t", b"").decode("utf-8")
    except UnicodeDecodeError:
        raise NotACalendar("is not UTF-8 text") from None
    return text.split("\n")


def calendars_in(content: bytes, default_zone: tzinfo) -> Iterator[tuple[list[Block], Zones]]:
    """The VEVENT blocks and the time zones of each VCALENDAR in the stream (RFC 5545 section 3.4).

    Raises:
        NotACalendar: the stream is not UTF-8, not iCalendar, or not complete.
    """
    lines = [line for line in _lines(content) if line.strip()]
    if not lines:
        raise NotACalendar("is empty")
    if lines[0].lstrip().startswith("<"):
        raise NotACalendar("is a web page, not an iCalendar text; perhaps a page to log in")
    starts = [number for number, line in enumerate(lines) if _is(line, "BEGIN:VCALENDAR")]
    if not starts or starts[0] != 0:
        raise NotACalendar("does not begin with BEGIN:VCALENDAR")
    number = 0
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        ends = [at for at in range(start, stop) if _is(lines[at], "END:VCALENDAR")]
        if not ends:
            raise NotACalendar("breaks off: there is no END:VCALENDAR")
        if ends != [stop - 1]:
            raise NotACalendar("goes on after END:VCALENDAR, as if it had been written over")
        blocks, zones = _cut(lines[start + 1 : stop - 1], number, default_zone)
        number += len(blocks)
        yield blocks, zones


def _cut(lines: list[str], number: int, default_zone: tzinfo) -> tuple[list[Block], Zones]:
    zones = Zones(default_zone)
    blocks: list[Block] = []
    zone_name: str | None = None
    current: list[str] = []
    inside = ""

    def close(*, closed: bool) -> None:
        nonlocal current, inside
        if inside == "VEVENT":
            blocks.append(Block(number + len(blocks) + 1, tuple(current), closed))
        elif inside == "VTIMEZONE" and closed:
            zones.add(current)
        current, inside = [], ""

    for line in lines:
        begins = next((kind for kind in ("VEVENT", "VTIMEZONE") if _is(line, f"BEGIN:{kind}")), None)
        if begins is not None:
            close(closed=False)
            inside = begins
        if inside:
            current.append(line)
            if _is(line, f"END:{inside}"):
                close(closed=True)
        elif match := re.match(r"X-WR-TIMEZONE[^:]*:(.+)", line, re.IGNORECASE):
            zone_name = match[1].strip()
    close(closed=False)
    # Last, because the name may be that of a VTIMEZONE further down.
    if zone_name is not None:
        zones.set_calendar_zone(zone_name)
    return blocks, zones


def _is(line: str, what: str) -> bool:
    return line.strip().upper() == what
