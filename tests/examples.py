"""How many examples Hypothesis tries: few in the fast tests, which run all the time, or twenty times as many.

pytest -m "not ray" --hypothesis-profile=thorough -k fuzz
"""

from __future__ import annotations

from hypothesis import settings

THOROUGH = 2000
BY_DEFAULT = 100
"""Hypothesis' own number."""


def register() -> None:
    """Make ``--hypothesis-profile=thorough`` known; an example may take long, on a machine that is busy."""
    settings.register_profile("default", deadline=None)
    settings.register_profile("thorough", max_examples=THOROUGH, deadline=None)


def examples(fast: int) -> int:
    """So many, or as many more as the profile in use has than Hypothesis has by default."""
    return fast * settings.default.max_examples // BY_DEFAULT
