"""Something shown again and again in place, until somebody has seen enough."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from scheduler.errors import OperatorError

EVERY_SECONDS = 1.0


def keep_showing(
    console: Console,
    show: Callable[[Console], None],
    *,
    times: int | None = None,
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """Call ``show`` every second and put what it prints where the last was; Ctrl-C ends it.

    What cannot be seen for a moment is said, and looked for again. ``times``: so often, for ever if None.
    """
    seen = 0
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while times is None or seen < times:
            # a console of its own: what is printed on that of the live view would be put above it
            paper = Console(width=console.width, force_terminal=console.is_terminal, highlight=False)
            with paper.capture() as shown:
                try:
                    show(paper)
                except OperatorError as problem:
                    paper.print(f"[red]{escape(problem.reason)}[/]\n{escape(problem.remedy)}")
            live.update(Text.from_ansi(shown.get()), refresh=True)
            seen += 1
            if times is None or seen < times:
                time.sleep(every_seconds)
