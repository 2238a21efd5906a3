"""The one kind of error an operator is meant to read."""

from __future__ import annotations


class OperatorError(Exception):
    """Something only a person can put right: shown as one paragraph, without a traceback.

    ``reason`` is a sentence naming what is wrong and with which value; ``remedy`` what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy
