"""A second opinion on a refusal: is there really no layout of what has not started that makes room?

``question`` writes down what is to be packed where, ``solve`` finds a packing or proves that there is
none (in a process of its own: see ``scheduler.second_opinion``), ``follow`` carries a packing out.
Questions and opinions speak of stable names, so that they outlive the admission they were made from.
"""

from scheduler.planning.exact.asking import question
from scheduler.planning.exact.following import follow
from scheduler.planning.exact.solving import obvious, solve
from scheduler.planning.exact.words import (
    LaneName,
    Limits,
    Move,
    Opinion,
    OpinionState,
    Option,
    Piece,
    Question,
    Room,
    Row,
    StayName,
)

__all__ = [
    "LaneName",
    "Limits",
    "Move",
    "Opinion",
    "OpinionState",
    "Option",
    "Piece",
    "Question",
    "Room",
    "Row",
    "StayName",
    "follow",
    "obvious",
    "question",
    "solve",
]
