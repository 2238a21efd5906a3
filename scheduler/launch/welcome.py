"""What a newcomer is told once the first model serves."""

from __future__ import annotations

from textwrap import indent

from calendars.called import command
from serve_apps.snippets import curl_snippet, nnsight_snippet


def welcome(url: str, model: str, calendar: str, hf_home: str, python: str, page: str | None = None) -> str:
    """The things that matter: ask it, look into it, see what is booked, book something else.

    Commands stand without indentation: parts of them are Python, and all are there to be copied.

    Args:
        url: where the gateway listens.
        calendar: the calendar's path or URL.
        hf_home: the Hugging Face home with the model, for clients without a network.
        python: a Python interpreter that has nnsight.
        page: where the page is, if there is one.
    """
    return "\n\n".join(
        [
            f"{model} is serving. Ask it:",
            curl_snippet(url, model),
            "Look into it with nnsight:",
            nnsight_snippet(url, model, hf_home, python),
            *([f"See what is booked, and what becomes of it: {page}"] if page else []),
            f"Book something else: edit {calendar}\n"
            + indent(f"{command('plan')}  tells what that will do; Ctrl-C here stops everything.", "  "),
        ]
    )
