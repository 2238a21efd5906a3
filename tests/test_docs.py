"""What the documentation shows is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scheduler.__main__ import app
from scheduler.settings import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN_VERBS = {"test", "help"}


def commands(text: str) -> set[tuple[str, str]]:
    """The commands and subcommands shown after ``./start.sh`` or ``ndif-ray``."""
    found = re.findall(r"(?:\./start\.sh|ndif-ray) +([a-z][a-z-]*)(?: +([a-z][a-z-]*))?", text)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists(page: Path) -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL))
    for command, sub in commands(code):
        known = app.commands.get(command)
        assert known is not None or command in OWN_VERBS, f"{page.name} shows {command}"
        if sub and hasattr(known, "commands"):
            assert sub in known.commands, f"{page.name} shows {command} {sub}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_one_screen_of_value() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 80
