"""What a model on a node is told as: an application to be, and for whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from calendars.reservation import Dtype
from scheduler.cluster.node import DeviceKind, Node
from scheduler.planning.admission import Admission
from scheduler.planning.footprint import gpus_needed
from scheduler.planning.holds import Hold
from scheduler.planning.targets import Booked, RunsAs, claim, merge
from scheduler.planning.upcoming import same
from scheduler.types import Deployment, Placement, Reason, ReasonCode, Target


@dataclass(frozen=True, slots=True)
class Placed:
    """A placement, and what it was made from; by itself it is another ``until`` then."""

    basis: tuple[object, ...]
    runs: Dtype | None
    until: float
    placement: Placement


def placed_on(
    admission: Admission,
    group: Sequence[Hold],
    booked: Mapping[str, Booked],
    runs: Deployment | None,
    known: Placed | None,
) -> Placed:
    """The placement of a model on a node; the ``known`` one if it is still that."""
    group = sorted(group, key=lambda hold: hold.rank)
    basis = (*group, *[booked[key] for hold in group for key in sorted(hold.keys)])
    dtype = runs.dtype if runs is not None else None
    if known and known.runs == dtype and admission.at < known.until and same(known.basis, basis):
        return known
    node = admission.book.nodes[group[0].seat.node]
    made = placement(_target(admission, group, booked, runs), node, len(group), runs is not None)
    return Placed(basis, dtype, _unchanged_until(admission, group), made)


def _unchanged_until(admission: Admission, group: Iterable[Hold]) -> float:
    """When the next of these bookings, or one of these stays, begins or ends."""
    instants = [instant for hold in group for instant in (hold.start, hold.end)]
    for key in {key for hold in group for key in hold.keys}:
        instants += (admission.asks[key].start, admission.asks[key].end)
    return min(instant for instant in instants if instant > admission.at)


def _target(
    admission: Admission, group: Iterable[Hold], booked: Mapping[str, Booked], runs: Deployment | None
) -> Target:
    now = admission.at
    group = list(group)
    begun = {key for hold in group for key in hold.keys if _lasts(admission, key)}
    keys = begun or {key for hold in group for key in hold.keys if admission.asks[key].start <= hold.start}
    until = max(hold.end for hold in group)
    at = datetime.fromtimestamp(now, UTC)
    served = [booked[key] for key in {key for hold in group for key in hold.keys}]
    runs_as = _runs_as(admission, group[0], booked, sorted(served, key=claim), runs)
    return merge([booked[key] for key in sorted(keys)], at, datetime.fromtimestamp(until, UTC), runs_as)


def _runs_as(
    admission: Admission,
    hold: Hold,
    booked: Mapping[str, Booked],
    served: Sequence[Booked],
    runs: Deployment | None,
) -> RunsAs:
    """How a model runs: as it is held, as one of those asks whom it serves, or one that has ended did, or one
    that has other replicas on the node.

    Args:
        served: the bookings that what is held is for, the strongest claim first.
    """
    need = hold.need
    dtypes = [one.dtype for one in served if one.footprint_bytes == need.footprint_bytes]
    if runs is not None and runs.footprint_bytes == need.footprint_bytes:
        dtypes.append(runs.dtype)
    if not dtypes:
        beside = [one for one in admission.of_model(hold.model) if one.seat.node == hold.seat.node]
        others = sorted((booked[key] for one in beside for key in one.keys), key=claim)
        dtypes += [one.dtype for one in others if one.footprint_bytes == need.footprint_bytes]
    dtypes += [one.dtype for one in served]
    return RunsAs(dtypes[0], need.footprint_bytes, need.gpus)


def _lasts(admission: Admission, key: str) -> bool:
    return admission.asks[key].start <= admission.at < admission.asks[key].end


def placement(target: Target, node: Node, replicas: int, runs: bool) -> Placement:
    """A target on a node."""
    on_cpu = node.kind is DeviceKind.CPU
    memory = node.devices[0].memory_bytes
    code = ReasonCode.STARTS_SOON if target.early else ReasonCode.BOOKED
    return Placement(
        target=target,
        node=node.name,
        replicas=replicas,
        num_gpus=0.0 if on_cpu else gpus_needed(target.footprint_bytes, memory, target.gpus),
        memory_bytes=target.footprint_bytes if on_cpu else 0,
        footprint_bytes=target.footprint_bytes,
        reason=Reason(code=ReasonCode.ALREADY_THERE if runs else code, node=node.name),
    )
