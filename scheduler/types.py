"""The values that planning reads and makes; all frozen, all JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from pydantic import Field

from calendars.reservation import MAX_REPLICAS, MODEL_CLASS, Accelerator, Dtype, Frozen, UtcDatetime
from scheduler.cluster.node import Cluster, DeviceKind

DTYPE_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
DEFAULT_TASK = "text-generation"
MAX_PARAMETERS = 10**15
"""More than any model has; bounds what a stranger's checkpoint can claim."""
PLAN_VERSION = 2
"""Of a plan as JSON; docs/plan.schema.json describes it."""


# What can be booked


class CatalogEntry(Frozen):
    """One model as operators describe it; every field but ``repo_id`` is optional.

    ``parameters`` overrides the size read from the checkpoint. ``bookable_by`` lists mail addresses
    and mail domains; empty means everybody.
    """

    repo_id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    task: str | None = None
    dtype: Dtype | None = None
    gpus: int | None = Field(default=None, ge=1)
    accelerator: Accelerator | None = None
    replicas: int | None = Field(default=None, ge=1, le=MAX_REPLICAS)
    parameters: int | None = Field(default=None, ge=1, le=MAX_PARAMETERS)
    trust_remote_code: bool = False
    bookable_by: tuple[str, ...] = ()

    def may_book(self, owner: str | None) -> bool:
        """Whether a person with that mail address may book it."""
        return not self.bookable_by or any(person_matches(rule, owner) for rule in self.bookable_by)


def person_matches(rule: str, owner: str | None) -> bool:
    """Whether a mail address is the one, or in the domain, that a rule names; case does not matter."""
    mail, wanted = (owner or "").lower(), rule.lower()
    return "@" in mail and (mail == wanted or mail.rpartition("@")[2] == wanted.lstrip("@"))


class Catalog(Frozen):
    """Everything operators described. Repo ids that are not in it can be booked, too."""

    entries: tuple[CatalogEntry, ...] = ()

    def find(self, name: str) -> CatalogEntry | None:
        """The entry with that alias or repo id, upper and lower case alike."""
        return self.by_name.get(name.lower())

    @cached_property
    def by_name(self) -> Mapping[str, CatalogEntry]:
        """The entries by alias and repo id in lower case; where several have the same, the first."""
        found: dict[str, CatalogEntry] = {}
        for entry in self.entries:
            for name in (entry.repo_id, *entry.aliases):
                found.setdefault(name.lower(), entry)
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a person can write, aliases first."""
        return tuple(name for entry in self.entries for name in (*entry.aliases, entry.repo_id))


class Rules(Frozen):
    """What a booking must keep to. A person is a mail address; ``@domain`` or ``domain`` is everybody there.

    ``models_by_organiser`` limits those it names to the models (repo ids or aliases) listed for
    them; others are not limited. A week begins on Monday, 00:00 UTC, and a booking counts in each
    week with the part of it that lies there.
    """

    organisers: tuple[str, ...] = Field((), description="Who may book, mails or domains; empty: everybody")
    models_by_organiser: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Models a mail or domain is limited to"
    )
    longest_hours: float | None = Field(None, gt=0, description="Longest booking, in hours")
    gpu_hours_per_week: float | None = Field(
        None, gt=0, description="Most GPU-hours a person may book a week"
    )


class Checkpoint(Frozen):
    """What is known of a model's weights without loading them.

    ``parameters`` counts them; ``dtype`` is what they are stored in where we can serve that.
    ``source`` names the file or place that said so.
    """

    parameters: int = Field(ge=1, le=MAX_PARAMETERS)
    dtype: Dtype | None = None
    source: str


class UnknownSize(Frozen):
    """Why a model's size is not known, and what to do about it; ``pending``: it is being looked up."""

    reason: str
    remedy: str
    pending: bool = False


class Model(Frozen):
    """Which weights, and how they are run: what a model key says."""

    repo_id: str
    revision: str | None = None
    task: str = DEFAULT_TASK
    trust_remote_code: bool = False

    @cached_property
    def key(self) -> str:
        """nnsight's model key, as its client writes it."""
        data: dict[str, object] = {"repo_id": self.repo_id, "revision": self.revision, "task": self.task}
        if self.trust_remote_code:
            data["trust_remote_code"] = True
        return f"{MODEL_CLASS}:{json.dumps(data)}"

    @property
    def name(self) -> str:
        """What people call it: repo id, with the revision if one is asked for."""
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


class Tier(StrEnum):
    """Where a model's weights are, from the nearest to its device to the farthest."""

    HOT = "hot"  # on its device, behind Serve
    WARM = "warm"  # in a node's memory
    COLD = "cold"  # on a node's disk
    REMOTE = "remote"  # not here yet


# Reasons


class ReasonKind(StrEnum):
    """What can change the answer."""

    OK = "ok"
    EDIT = "edit"  # only an edit of the booking or of the catalog helps
    NEVER = "never"  # no node of this cluster, even empty, is large enough
    LATER = "later"  # it fits once something ends or is taken away


class ReasonCode(StrEnum):
    """Why. The numbers stand beside it in the ``Reason``."""

    BOOKED = "booked"
    STARTS_SOON = "starts soon"
    STARTS_LATER = "starts later"
    ALREADY_THERE = "already there"
    MISUNDERSTOOD = "misunderstood"
    UNKNOWN_MODEL = "unknown model"
    NOT_ALLOWED = "not allowed"
    SIZE_UNKNOWN = "size unknown"
    LOOKING_UP = "looking up"
    TOO_LARGE = "too large"
    NO_ROOM = "no room"
    NO_NODES = "no nodes"
    SOME_REPLICAS = "some replicas"
    NO_BOOKING = "no booking"
    DISPLACED = "displaced"
    NODE_LOST = "node lost"
    MOVED = "moved"
    REPLICAS_CHANGED = "replicas changed"
    NEEDS_CHANGED = "needs changed"
    CONTRACT_CHANGED = "contract changed"
    BOOKING_CHANGED = "booking changed"
    ROUTES_CHANGED = "routes changed"
    GATEWAY_MISSING = "gateway missing"
    BEYOND_HORIZON = "beyond horizon"
    LINGERS = "lingers"
    NODE_DRAINED = "node drained"
    PROMISE_BROKEN = "promise broken"
    LOAD_FAILED = "load failed"
    EVICTED = "evicted"


class Reason(Frozen):
    """A decision's reason as data; ``render`` makes sentences of it."""

    code: ReasonCode
    kind: ReasonKind = ReasonKind.OK
    needed_bytes: int | None = None
    free_bytes: int | None = None
    needed_gpus: float | None = None
    free_gpus: float | None = None
    node: str | None = None
    by: tuple[str, ...] = ()
    detail: str | None = None
    remedy: str | None = None


class Candidacy(StrEnum):
    """What a node is to a replica that was placed: why it is there, or is not."""

    CHOSEN = "chosen"
    HAS_ONE = "has another replica"
    AS_GOOD = "as good"  # another came first: by its name, by what was promised, or by where the weights are
    EMPTIER = "emptier"  # kept so for what needs many GPUs at once
    TAKES_MORE = "takes more"  # more GPUs, or larger ones
    ONLY_CPU = "only a CPU"
    FULL = "full"
    NEVER = "never"  # too small, or not of the kind asked for
    CLOSED = "closed"  # the operator lets nothing new onto it


class NodeCount(Frozen):
    """How many nodes are in the same case; together these are all the nodes there are."""

    candidacy: Candidacy
    nodes: int


class NodeAnswer(Frozen):
    """What one node could offer to one replica of a model; losers are kept, too.

    ``free_bytes`` is the room on its best device (the best devices together, where several GPUs are
    needed) throughout the window; ``held_by`` are the models and strangers that hold the rest. ``free_until``
    is told where a replica would have room at the beginning of the window, but not to its end; ``free_from``
    is the first instant from which on more is free than that, to the end of the window if it begins before.
    ``candidacy`` is told where a replica is placed, beside the node that was chosen.
    """

    node: str
    fits: bool
    kind: DeviceKind
    needed_bytes: int
    free_bytes: int
    needed_gpus: float = 0
    free_gpus: float = 0
    largest_bytes: int = 0
    total_gpus: int = 0
    held_by: tuple[str, ...] = ()
    why_not: str | None = None
    free_until: UtcDatetime | None = None
    free_from: UtcDatetime | None = None
    candidacy: Candidacy | None = None


class Proof(StrEnum):
    """How sure a refusal is."""

    UNPROVEN = "unproven"  # as the bookings are laid out; nobody looked for another way yet
    PROVEN = "proven"  # no layout of what has not started makes room
    NOT_FOUND = "not found"  # the exact solver found no layout in its time, nor that there is none


class HelpCode(StrEnum):
    """What would make a refused booking fit."""

    FEWER_REPLICAS = "fewer replicas"
    SMALLER_DTYPE = "smaller dtype"
    FEWER_GPUS = "fewer gpus"
    ANY_ACCELERATOR = "any accelerator"
    SHORTER = "shorter"
    LATER = "later"


class Help(Frozen):
    """One change to a booking that would make it fit; ``value`` is what to write instead."""

    code: HelpCode
    value: str


class Refusal(Frozen):
    """All that is known of why a booking gets no room, and what would change that.

    ``proof`` tells how sure it is; ``solver_seconds`` is how long the exact solver may look.
    ``in_the_way`` are the titles of the fewest bookings found whose going would make room for one more
    replica, of the ``short_replicas`` that are short.
    ``earliest`` is the first start from which it would fit for as long as it lasts, ``longest_until``
    how long it would fit from its start on. ``full_at`` is an instant at which more is promised and
    asked for than there is.
    """

    proof: Proof = Proof.UNPROVEN
    solver_seconds: float | None = None
    in_the_way: tuple[str, ...] = ()
    short_replicas: int = 1
    earliest: UtcDatetime | None = None
    longest_until: UtcDatetime | None = None
    full_at: UtcDatetime | None = None
    helps: tuple[Help, ...] = ()


# What is wanted


class Target(Frozen):
    """A model that must serve at a time, with the reservations behind it.

    ``footprint_bytes`` is what one replica needs, padding included. The claim is that of the booking
    with the strongest one. ``early`` tells that its first booking has not begun.
    """

    model: Model
    names: tuple[str, ...]
    dtype: Dtype
    gpus: int | None
    replicas: int
    footprint_bytes: int
    reservations: tuple[str, ...]
    titles: tuple[str, ...]
    start: UtcDatetime
    until: UtcDatetime
    priority: int
    booked_at: UtcDatetime
    early: bool = False

    @property
    def order(self) -> tuple[bool, int, datetime, str]:
        """Who comes first: running windows, then priority, then who booked first, then the key."""
        return (self.early, -self.priority, self.booked_at, self.model.key)


class Placement(Frozen):
    """A model on a node: one Serve application. Numbers are per replica.

    ``num_gpus`` is 0 on the CPU device, below 1 for a share of one GPU, else whole. ``memory_bytes``
    is the RAM to reserve, 0 on GPUs. ``footprint_bytes`` is what it was placed for.
    """

    target: Target
    node: str
    replicas: int
    num_gpus: float
    memory_bytes: int
    footprint_bytes: int
    reason: Reason

    @cached_property
    def identity(self) -> tuple[str, str]:
        """Model key and node; at most one application has it."""
        return (self.target.model.key, self.node)


# What is there


class DeploymentStatus(StrEnum):
    """How an application is doing, in our words."""

    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"
    STOPPING = "stopping"


class Deployment(Frozen):
    """An application of ours as Serve reports it, deployed ``since`` then."""

    application: str
    model: Model
    node: str
    replicas: int
    num_gpus: float
    memory_bytes: int
    footprint_bytes: int
    dtype: Dtype
    reservations: tuple[str, ...] = ()
    contract_current: bool = True
    status: DeploymentStatus
    message: str = ""
    ready_replicas: int = 0
    gave_up: bool = False
    """Serve has stopped trying; only another configuration makes it try again."""
    since: UtcDatetime | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Model key and node."""
        return (self.model.key, self.node)


class Route(Frozen):
    """A model the gateway can reach, by the names clients use, on these nodes.

    ``private_to`` are the mail addresses of those who may use it; None is everybody, empty nobody.
    """

    model: Model
    names: tuple[str, ...]
    nodes: tuple[str, ...]
    until: UtcDatetime
    private_to: tuple[str, ...] | None = None


class Announcement(Frozen):
    """A booking the gateway tells clients about: coming, or refused for a reason.

    ``earliest`` is when a refused one would fit, ``private_to`` are those it is told to, as of a route.
    """

    names: tuple[str, ...]
    start: UtcDatetime
    end: UtcDatetime
    refused: Reason | None = None
    earliest: UtcDatetime | None = None
    private_to: tuple[str, ...] | None = None


class Directory(Frozen):
    """All the gateway knows."""

    routes: tuple[Route, ...] = ()
    announcements: tuple[Announcement, ...] = ()

    @cached_property
    def version(self) -> str:
        """A short digest of the content, but for the figures in refusals, which change by themselves."""
        announced = [
            one.model_copy(
                update={"refused": one.refused and Reason(code=one.refused.code), "earliest": None}
            )
            for one in self.announcements
        ]
        content = self.model_copy(update={"announcements": tuple(announced)})
        return hashlib.sha256(content.model_dump_json().encode()).hexdigest()[:16]


class Observed(Frozen):
    """What was seen at one moment. ``fingerprint`` changes whenever what is deployed does.

    ``others`` names the applications that are not ours. ``directory_version`` is that of the
    directory the gateway knows, None where there is no gateway (or one of another contract).
    """

    cluster: Cluster
    deployments: tuple[Deployment, ...] = ()
    others: tuple[str, ...] = ()
    directory_version: str | None = None
    fingerprint: str = ""


# The plan


class ActionKind(StrEnum):
    """What is done, in the order in which it is shown: removals first."""

    UNDEPLOY = "undeploy"
    REBUILD = "rebuild"
    SCALE = "scale"
    DEPLOY = "deploy"
    UPDATE = "update"
    ROUTE = "route"


class Action(Frozen):
    """One change to what Serve runs. ``model`` is None for the gateway.

    ``replicas_before`` is 0 for what is new, ``replicas`` 0 for what goes. ``considered`` are the nodes
    that came nearest, ``candidates`` counts all there are.
    """

    kind: ActionKind
    model: Model | None = None
    node: str | None = None
    replicas_before: int = 0
    replicas: int = 0
    footprint_bytes: int = 0
    num_gpus: float = 0
    until: UtcDatetime | None = None
    titles: tuple[str, ...] = ()
    reason: Reason
    considered: tuple[NodeAnswer, ...] = ()
    candidates: tuple[NodeCount, ...] = ()
    not_before: UtcDatetime | None = None
    done_by: UtcDatetime | None = None
    late_seconds: float = 0


@dataclass(frozen=True, slots=True)
class Stay:
    """One replica of a model on one node during ``[start, end)``, promised to the bookings in ``events``.

    ``model`` is its key. ``devices`` is how much it takes: a number of GPUs, or the part of one device,
    whose number among those of the node that are shared is ``lane``. ``asked_bytes`` is what the booking with
    the strongest claim asks for, where it is served by a replica of another need; 0 elsewhere.
    ``priority`` is the highest of these bookings.
    """

    model: str
    node: str
    start: UtcDatetime
    end: UtcDatetime
    events: tuple[str, ...]
    devices: float = 0.0
    lane: int | None = None
    asked_bytes: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Turned:
    """A booking that was refused, and digests of what it asked for, without and with what its model had then.

    It is not tried again as long as both are the same and nothing is given back.
    """

    event: str
    asked: str
    booking: str = ""


class Broken(Frozen):
    """A promise that could not be kept, since when, and why."""

    event: str
    since: UtcDatetime
    reason: Reason


class Promises(Frozen):
    """What a plan promised. Given to the next plan, it is kept, and kept where it was.

    ``refused`` are those who were turned away though they could be served, by a cluster of that
    ``capacity``, a digest.
    """

    stays: tuple[Stay, ...] = ()
    broken: tuple[Broken, ...] = ()
    refused: tuple[Turned, ...] = ()
    capacity: str = ""


class Step(Frozen):
    """Something the plan will do later: a model that comes to a node, or goes.

    ``at`` is when it begins (loading, or taking down), ``done_by`` when it must be done.
    ``late_seconds`` is how much too late it will be, as the room is ``held_by`` others until ``at``.
    """

    kind: ActionKind
    model: Model
    node: str
    replicas: int
    at: UtcDatetime
    done_by: UtcDatetime
    until: UtcDatetime | None = None
    titles: tuple[str, ...] = ()
    late_seconds: float = 0
    held_by: tuple[str, ...] = ()


class VerdictState(StrEnum):
    """What becomes of an event."""

    PLACED = "placed"
    COMING = "coming"
    REFUSED = "refused"
    MISUNDERSTOOD = "misunderstood"


class Verdict(Frozen):
    """What planning says to one event, and why; the calendar shows it to who booked.

    ``earliest`` is when a refused booking would fit for as long as it lasts, where that was found;
    ``refusal`` says more. ``ready_by`` is when an admitted one is expected to serve, ``late_seconds``
    after its start if that cannot be helped, because of what ``late_because`` names. ``considered`` are the
    nodes that come nearest to a refused one, ``candidates`` counts all there are. A ``private`` one is the
    business of the people of its event only.
    """

    event: str
    calendar: str
    title: str
    start: UtcDatetime | None
    end: UtcDatetime | None
    owner: str | None = None
    state: VerdictState
    model: Model | None = None
    nodes: tuple[str, ...] = ()
    reason: Reason
    considered: tuple[NodeAnswer, ...] = ()
    candidates: tuple[NodeCount, ...] = ()
    earliest: UtcDatetime | None = None
    refusal: Refusal | None = None
    ready_by: UtcDatetime | None = None
    late_seconds: float = 0
    late_because: tuple[str, ...] = ()
    private: bool = False


class Drift(Frozen):
    """An application of ours that is not as it was asked for, whatever the calendar says."""

    application: str
    model: Model
    node: str
    status: DeploymentStatus
    message: str


class Plan(Frozen):
    """What to do at one instant, and why; and what each event is told.

    ``placements`` is everything that shall run afterwards, ``actions`` the difference to what was
    observed. ``next_boundary`` is the next instant after ``at`` at which the answer may change by
    itself. ``fingerprint`` is that of the observation the plan was made from. ``promises`` is what the
    next plan must be given to keep them; ``upcoming`` is what will be done later, in the order of time.
    """

    version: int = PLAN_VERSION
    at: UtcDatetime
    actions: tuple[Action, ...] = ()
    placements: tuple[Placement, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    drift: tuple[Drift, ...] = ()
    others: tuple[str, ...] = ()
    cluster: Cluster
    directory: Directory
    next_boundary: UtcDatetime | None = None
    fingerprint: str = ""
    promises: Promises = Promises()
    upcoming: tuple[Step, ...] = ()

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """The events that get nothing, or not all they asked for."""
        states = (VerdictState.REFUSED, VerdictState.MISUNDERSTOOD)
        return tuple(verdict for verdict in self.verdicts if verdict.state in states)
