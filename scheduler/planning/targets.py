"""From reservations to the models that must serve at a time."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from calendars.reservation import Dtype, Reservation
from scheduler.planning.footprint import Sizing
from scheduler.types import (
    DEFAULT_TASK,
    Catalog,
    CatalogEntry,
    Checkpoint,
    Deployment,
    Model,
    Reason,
    ReasonCode,
    ReasonKind,
    Target,
    UnknownSize,
)

FALLBACK_DTYPE: Dtype = "bfloat16"
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Booked:
    """A reservation whose model is known, with everything a placement needs."""

    reservation: Reservation
    model: Model
    names: tuple[str, ...]
    dtype: Dtype
    gpus: int | None
    replicas: int
    footprint_bytes: int
    lead: timedelta


@dataclass(frozen=True)
class Refused:
    """A reservation that no cluster could serve as it is written."""

    reservation: Reservation
    reason: Reason


def identify(reservation: Reservation, catalog: Catalog) -> Model | Refused:
    """Look up which model a reservation means, and whether its owner may book it."""
    request = reservation.request
    entry = catalog.find(request.model)
    if entry is None and not REPO_ID.fullmatch(request.model):
        return _refuse(
            reservation,
            ReasonCode.UNKNOWN_MODEL,
            f"“{request.model}” is neither an alias in the catalog nor a repo id",
            _suggestion(request.model, catalog),
        )
    if entry is not None and not entry.may_book(reservation.owner):
        return _refuse(
            reservation,
            ReasonCode.NOT_ALLOWED,
            f"{entry.repo_id} can be booked by {', '.join(entry.bookable_by)} only, "
            f"not by {reservation.owner or 'an unnamed organiser'}",
            "Ask the operator to add you to bookable_by of this model in the catalog.",
        )
    if request.trust_remote_code and not (entry and entry.trust_remote_code):
        return _refuse(
            reservation,
            ReasonCode.NOT_ALLOWED,
            f"{request.model} was booked with trust_remote_code, which runs code from its repository",
            "Leave trust_remote_code out, or ask the operator to allow it in the catalog.",
        )
    return Model(
        repo_id=entry.repo_id if entry else request.model,
        revision=_branch(request.revision or (entry.revision if entry else None)),
        task=request.task or (entry.task if entry else None) or DEFAULT_TASK,
        trust_remote_code=request.trust_remote_code,
    )


def resolve(
    reservation: Reservation,
    catalog: Catalog,
    checkpoints: Mapping[str, Checkpoint | UnknownSize],
    sizing: Sizing,
    running: Mapping[str, Deployment] | None = None,
) -> Booked | Refused:
    """Find out all a placement needs to know of a reservation.

    Args:
        checkpoints: by model key; a model that is missing counts as one of unknown size.
        running: by model key, what serves already. Where the size is not known (any more), it is
            what it was reckoned to be then: a Hub that is away must not take a model down.
    """
    model = identify(reservation, catalog)
    if isinstance(model, Refused):
        return model
    request = reservation.request
    entry = catalog.find(request.model) or CatalogEntry(repo_id=model.repo_id)
    checkpoint = checkpoints.get(model.key)
    if entry.parameters is not None:
        stored = checkpoint.dtype if isinstance(checkpoint, Checkpoint) else None
        checkpoint = Checkpoint(parameters=entry.parameters, dtype=stored, source="catalog")
    served = (running or {}).get(model.key)
    if isinstance(checkpoint, Checkpoint):
        dtype = request.dtype or entry.dtype or checkpoint.dtype or FALLBACK_DTYPE
        footprint = sizing.footprint_bytes(checkpoint, dtype)
    elif served is not None:
        dtype, footprint = served.dtype, served.footprint_bytes
    else:
        return _of_unknown_size(reservation, model, checkpoint)
    return Booked(
        reservation=reservation,
        model=model,
        names=tuple(dict.fromkeys((model.repo_id, *entry.aliases))),
        dtype=dtype,
        gpus=request.gpus or entry.gpus,
        replicas=request.replicas if request.replicas > 1 else entry.replicas or 1,
        footprint_bytes=footprint,
        lead=timedelta(seconds=sizing.lead_seconds(footprint)),
    )


def _of_unknown_size(reservation: Reservation, model: Model, why: Checkpoint | UnknownSize | None) -> Refused:
    if not isinstance(why, UnknownSize):
        why = UnknownSize(reason="it was not looked up", remedy="Wait a moment.", pending=True)
    if why.pending:
        return Refused(reservation, Reason(code=ReasonCode.LOOKING_UP, kind=ReasonKind.LATER))
    detail = f"the size of {model.name} is not known: {why.reason}"
    return _refuse(reservation, ReasonCode.SIZE_UNKNOWN, detail, why.remedy)


def targets_at(booked: Iterable[Booked], at: datetime) -> tuple[Target, ...]:
    """The models that must serve, or be on their way, at an instant; in the order of their claims.

    A booking counts during ``[start - lead, end)``: the end is exact and not included. Bookings of
    one model are one target: its replicas are the most any of them asks for (they share), and it is
    early only while none of them has begun. Where they ask for different precision or GPUs, the
    one with the stronger claim (priority, then booked first) decides.
    """
    by_model: dict[str, list[Booked]] = {}
    for one in booked:
        if one.reservation.start - one.lead <= at < one.reservation.end:
            by_model.setdefault(one.model.key, []).append(one)
    return tuple(sorted((_merge(group, at) for group in by_model.values()), key=lambda target: target.order))


def _merge(group: list[Booked], at: datetime) -> Target:
    begun = [one for one in group if one.reservation.start <= at]
    active = sorted(begun or group, key=_claim)
    first = active[0]
    return Target(
        model=first.model,
        names=first.names,
        dtype=first.dtype,
        gpus=first.gpus,
        footprint_bytes=first.footprint_bytes,
        replicas=max(one.replicas for one in active),
        firm_replicas=first.replicas,
        reservations=tuple(sorted(one.reservation.key for one in active)),
        titles=tuple(dict.fromkeys(one.reservation.title for one in active)),
        start=min(one.reservation.start for one in active),
        until=max(one.reservation.end for one in active),
        priority=first.reservation.request.priority,
        booked_at=first.reservation.booked_at,
        early=not begun,
    )


def _branch(revision: str | None) -> str | None:
    """No revision means ``main``, so that saying it makes no other model."""
    return None if revision == "main" else revision


def _claim(one: Booked) -> tuple[int, datetime, str]:
    reservation = one.reservation
    return (-reservation.request.priority, reservation.booked_at, reservation.key)


def _refuse(reservation: Reservation, code: ReasonCode, detail: str, remedy: str) -> Refused:
    return Refused(reservation, Reason(code=code, kind=ReasonKind.EDIT, detail=detail, remedy=remedy))


def _suggestion(written: str, catalog: Catalog) -> str:
    names = {name.lower(): name for name in catalog.names}
    close = difflib.get_close_matches(written.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {names[close[0]]}?"
    example = catalog.names[0] if catalog.names else "HuggingFaceTB/SmolLM2-135M-Instruct"
    return f"Write an alias such as {example}, or a repo id such as organisation/model."
