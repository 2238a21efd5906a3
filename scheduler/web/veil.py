"""What a reader may not see, taken out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, tzinfo

from scheduler.board import View
from scheduler.store.records import Change, PromiseRecord
from scheduler.types import Deployment, Reason, ReasonCode, Refusal, Verdict, VerdictState

PRIVATE_BOOKING = "Private booking"
PRIVATE_MODEL = "a private model"
ANOTHER = "another booking"
NOT_UNDERSTOOD = "A booking that was not understood"
MAIL = re.compile(r"[^\s<>(),;:“”\"']+@[^\s<>(),;:“”\"']+")


@dataclass(frozen=True)
class Sight:
    """What a reader may see. ``everything`` is for the operator; ``people``: who booked, and their words.

    Times are told in ``zone``.
    """

    everything: bool = False
    people: bool = False
    zone: tzinfo = UTC


class Veil:
    """Made for one reader and one view.

    A name that stands for a private booking only is replaced wherever it turns up; one that stands for
    others as well gives nothing away.

    Args:
        records: what the history knows of bookings that are over; their models may still linger.
    """

    def __init__(
        self, view: View | None, sight: Sight, records: Iterable[PromiseRecord | Change] = ()
    ) -> None:
        verdicts = view.plan.verdicts if view and view.plan else ()
        records = tuple(records)
        self.sight = sight
        self._private = {one.event for one in (*verdicts, *records) if one.private}
        named = {one.title: _model_name(one) for one in verdicts}
        titles = {one.title for one in (*verdicts, *records) if one.private}
        titles -= {one.title for one in verdicts if not one.private}
        models = {_model_name(one) for one in verdicts if one.private}
        models |= {one.model for one in records if one.private}
        models -= {_model_name(one) for one in verdicts if not one.private}
        replaced: dict[str, str] = {}
        if not sight.people:
            replaced |= {title: model or ANOTHER for title, model in named.items()}
            replaced |= {one.title: one.model or ANOTHER for one in records}
        if not sight.everything:
            replaced |= {title: PRIVATE_BOOKING.lower() for title in titles}
            replaced |= dict.fromkeys(models, PRIVATE_MODEL)
        self._replaced = {name: words for name, words in replaced.items() if name and name != words}
        self._pattern = _any_of(self._replaced)

    def hides(self, event: str, private: bool = False) -> bool:
        """Whether an event is none of the reader's business."""
        return not self.sight.everything and (private or event in self._private)

    def words(self, text: str) -> str:
        """Free text, without the names that are hidden."""
        if self._pattern is not None:
            text = self._pattern.sub(lambda found: self._replaced[found[0]], text)
        return text if self.sight.people else MAIL.sub("somebody", text)

    def names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Titles or models, each of them said once."""
        return tuple(dict.fromkeys(self.words(one) for one in names))

    def person(self, mail: str | None) -> str | None:
        """Who booked, for those who may know."""
        return mail if self.sight.people else None

    def title(self, event: str, title: str, model: str, private: bool = False) -> str:
        """What a booking is called."""
        if self.hides(event, private):
            return PRIVATE_BOOKING
        if self.sight.people:
            return title or model
        return model or NOT_UNDERSTOOD

    def model(self, event: str, model: str, private: bool = False) -> str:
        """What a booking's model is called, empty where that is not known."""
        return PRIVATE_MODEL if self.hides(event, private) else model

    def deployment(self, one: Deployment) -> str:
        """What runs, by name; for a private booking alone it has none."""
        if not self.sight.everything and one.reservations and self._private.issuperset(one.reservations):
            return PRIVATE_MODEL
        return self.words(one.model.name)

    def verdict(self, one: Verdict) -> Verdict:
        """What is said to a booking, as the reader may hear it."""
        hidden = self.hides(one.event, one.private)
        model = _model_name(one)
        refusal = one.refusal and one.refusal.model_copy(
            update={"in_the_way": self.names(one.refusal.in_the_way)}
        )
        considered = tuple(
            each.model_copy(update={"held_by": self.names(each.held_by)}) for each in one.considered
        )
        update: dict[str, object] = {
            "title": self.title(one.event, one.title, model, one.private),
            "owner": None if hidden else self.person(one.owner),
            "reason": self._reason(one, hidden),
            "refusal": Refusal(earliest=refusal.earliest) if hidden and refusal else refusal,
            "considered": () if hidden else considered,
            "late_because": self.names(one.late_because),
        }
        return one.model_copy(update=update | ({"model": None} if hidden else {}))

    def _reason(self, one: Verdict, hidden: bool) -> Reason:
        reason = one.reason
        unsaid = one.state is VerdictState.MISUNDERSTOOD and not self.sight.people
        if hidden or unsaid:
            detail = "what it says is not understood" if reason.code is ReasonCode.MISUNDERSTOOD else None
            quoting = reason.code in QUOTING
            return reason.model_copy(
                update={
                    "detail": "the reason is told to who booked it" if quoting and not unsaid else detail,
                    "remedy": None,
                    "by": self.names(reason.by),
                }
            )
        return reason.model_copy(
            update={
                "detail": reason.detail and self.words(reason.detail),
                "remedy": reason.remedy and self.words(reason.remedy),
                "by": self.names(reason.by),
            }
        )


QUOTING = frozenset(
    {
        ReasonCode.UNKNOWN_MODEL,
        ReasonCode.NOT_ALLOWED,
        ReasonCode.SIZE_UNKNOWN,
        ReasonCode.LOAD_FAILED,
        ReasonCode.PROMISE_BROKEN,
    }
)
"""Reasons whose details name the model, or whoever booked it."""


def _model_name(one: Verdict) -> str:
    return one.model.name if one.model else ""


def _any_of(names: Iterable[str]) -> re.Pattern[str] | None:
    """Any of these, as whole words, the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    if not ordered:
        return None
    return re.compile(rf"(?<![\w/@.-])(?:{'|'.join(map(re.escape, ordered))})(?![\w/@-])")
