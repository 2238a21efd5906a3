"""From reservations to the models that must serve at a time."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from calendars.reservation import Dtype, Reservation
from scheduler.planning.footprint import Sizing
from scheduler.planning.running import Running
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
SAME_NEED = 0.05
"""A need that is reckoned anew and differs by no more than this share rebuilds nothing that serves."""
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Booked:
    """A reservation whose model is known, with everything a placement needs."""

    reservation: Reservation
    model: Model
    names: tuple[str, ...]
    dtype: Dtype
    gpus: int | None
    accelerator: str | None
    replicas: int
    footprint_bytes: int
    parameters: int | None


@dataclass(frozen=True, slots=True)
class RunsAs:
    """How a replica runs: its precision, what it needs, and the whole GPUs that somebody insisted on."""

    dtype: Dtype
    footprint_bytes: int
    gpus: int | None


@dataclass(frozen=True)
class Refused:
    """A reservation that no cluster could serve as it is written; ``model_key`` where its size is lacking."""

    reservation: Reservation
    reason: Reason
    model_key: str | None = None


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
    return _model(
        entry.repo_id if entry else request.model,
        _branch(request.revision or (entry.revision if entry else None)),
        request.task or (entry.task if entry else None) or DEFAULT_TASK,
        request.trust_remote_code,
    )


@lru_cache(maxsize=100_000)
def _model(repo_id: str, revision: str | None, task: str, trust_remote_code: bool) -> Model:
    """The same object for the same model, as it keeps its key."""
    return Model(repo_id=repo_id, revision=revision, task=task, trust_remote_code=trust_remote_code)


def resolve(
    reservation: Reservation,
    catalog: Catalog,
    checkpoints: Mapping[str, Checkpoint | UnknownSize],
    sizing: Sizing,
    running: Running | None = None,
) -> Booked | Refused:
    """Find out all a placement needs to know of a reservation.

    Args:
        checkpoints: by model key; a model that is missing counts as one of unknown size.
        running: what serves already. Where the size is not known (any more), it is
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
    served = running.of_model(model.key) if running else None
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
        accelerator=request.accelerator or entry.accelerator,
        replicas=request.replicas if request.replicas > 1 else entry.replicas or 1,
        footprint_bytes=_as_it_runs(served, dtype, footprint),
        parameters=checkpoint.parameters if isinstance(checkpoint, Checkpoint) else None,
    )


def _as_it_runs(served: Deployment | None, dtype: Dtype, footprint: int) -> int:
    """What it was reckoned to need when it was deployed, if that is about the same: rebuilds nothing."""
    if served is None or served.dtype != dtype or not served.footprint_bytes:
        return footprint
    near = abs(footprint - served.footprint_bytes) <= SAME_NEED * served.footprint_bytes
    return served.footprint_bytes if near else footprint


def _of_unknown_size(reservation: Reservation, model: Model, why: Checkpoint | UnknownSize | None) -> Refused:
    if not isinstance(why, UnknownSize):
        why = UnknownSize(reason="it was not looked up", remedy="Wait a moment.", pending=True)
    if why.pending:
        return Refused(reservation, Reason(code=ReasonCode.LOOKING_UP, kind=ReasonKind.LATER), model.key)
    detail = f"the size of {model.name} is not known: {why.reason}"
    return replace(_refuse(reservation, ReasonCode.SIZE_UNKNOWN, detail, why.remedy), model_key=model.key)


def merge(group: Iterable[Booked], at: datetime, until: datetime, runs_as: RunsAs | None = None) -> Target:
    """One target of several bookings of a model that share it.

    Its replicas are the most any of them asks for, and it is early only while none of them has begun.

    Args:
        runs_as: its precision, footprint and GPUs. Without, the one with the stronger claim (priority, then
            booked first) decides.
    """
    group = list(group)
    begun = [one for one in group if one.reservation.start <= at]
    active = sorted(begun or group, key=claim)
    first = active[0]
    runs_as = runs_as or RunsAs(first.dtype, first.footprint_bytes, first.gpus)
    return Target(
        model=first.model,
        names=first.names,
        dtype=runs_as.dtype,
        gpus=runs_as.gpus,
        footprint_bytes=runs_as.footprint_bytes,
        replicas=max(one.replicas for one in active),
        reservations=tuple(sorted(one.reservation.key for one in active)),
        titles=tuple(dict.fromkeys(one.reservation.title for one in active)),
        start=min(one.reservation.start for one in active),
        until=until,
        priority=first.reservation.request.priority,
        booked_at=first.reservation.booked_at,
        early=not begun,
    )


def claim(one: Booked) -> tuple[int, datetime, str]:
    """Who comes first: priority, then who booked first, then the key."""
    reservation = one.reservation
    return (-reservation.request.priority, reservation.booked_at, reservation.key)


def _branch(revision: str | None) -> str | None:
    """No revision means ``main``, so that saying it makes no other model."""
    return None if revision == "main" else revision


def _refuse(reservation: Reservation, code: ReasonCode, detail: str, remedy: str) -> Refused:
    return Refused(reservation, Reason(code=code, kind=ReasonKind.EDIT, detail=detail, remedy=remedy))


def _suggestion(written: str, catalog: Catalog) -> str:
    names = {name.lower(): name for name in catalog.names}
    close = difflib.get_close_matches(written.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {names[close[0]]}?"
    example = catalog.names[0] if catalog.names else "HuggingFaceTB/SmolLM2-135M-Instruct"
    return f"Write an alias such as {example}, or a repo id such as organisation/model."
