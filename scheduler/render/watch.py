"""Something shown again and again in place, until somebody has seen enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from scheduler.errors import OperatorError
from scheduler.render.plain import escape_lines

EVERY_SECONDS = 1.0


def keep_showing(
    console: Console,
    show: Callable[[Console], None],
    *,
    times: int | None = None,
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """Call ``show`` every second and put what it prints where the last was; Ctrl-C ends it.

    On a terminal it has the screen to itself, as far as that reaches, and what was seen last stays behind.
    What cannot be seen for a moment is said, and looked for again. ``times``: so often, for ever if None.
    """
    seen, last = 0, Text()
    try:
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while times is None or seen < times:
                last = _looked(console, show)
                live.update(_fitting(last, console) if console.is_terminal else last, refresh=True)
                seen += 1
                if times is None or seen < times:
                    time.sleep(every_seconds)
    finally:
        if console.is_terminal:
            console.print(last)


def _looked(console: Console, show: Callable[[Console], None]) -> Text:
    # a console of its own: what is printed on that of the live view would be put above it
    paper = Console(width=console.width, force_terminal=console.is_terminal, highlight=False)
    with paper.capture() as shown:
        try:
            show(paper)
        except OperatorError as problem:
            paper.print(f"[red]{escape_lines(problem.reason)}[/]\n{escape_lines(problem.remedy)}")
    return Text.from_ansi(shown.get().rstrip("\n"))


def _fitting(text: Text, console: Console) -> Text:
    """As many lines as the screen has, the last of them telling how many more there are."""
    lines = text.wrap(console, console.width)
    if len(lines) <= console.height:
        return text
    kept = lines[: console.height - 1]
    more = Text(f"{len(lines) - len(kept)} more lines; make the window taller", style="reverse")
    return Text("\n").join([*kept, more])
