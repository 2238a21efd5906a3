"""What must hold in a simulated week; see ``weeks``."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scheduler.types import ActionKind, DeploymentStatus, ReasonCode, VerdictState

if TYPE_CHECKING:
    from tests.simulation.weeks import Week

MOST_DEPLOYS = 20
KNOWN_AFTER = timedelta(minutes=35)
"""A booking that says so for so long is known to the daemon; no outage of the calendar is longer."""
ADMITTED = (VerdictState.PLACED, VerdictState.COMING)
STATED = {
    ReasonCode.DISPLACED,
    ReasonCode.NODE_LOST,
    ReasonCode.NODE_DRAINED,
    ReasonCode.MOVED,
    ReasonCode.LOAD_FAILED,
    ReasonCode.PROMISE_BROKEN,
}


class Broken(BaseException):
    """A rule was broken; no ``except Exception`` of the daemon hides it."""


class Rules:
    """Looks at every configuration before it is taken, and at the world after every pass."""

    def __init__(self, week: Week) -> None:
        self._week = week
        self._deploys: dict[str, deque[datetime]] = defaultdict(deque)
        self.edited: dict[str, datetime] = {}
        self.others_changed_at: datetime | None = None
        self.calendar_lied_at: datetime | None = None
        self._checked: set[str] = set()
        self._late: set[str] = set()
        """Events that were told beforehand that they would be late."""

    # --- every configuration --------------------------------------------------------------------------

    def on_put(self, config: dict[str, Any]) -> None:
        """Before Serve takes a configuration.

        Raises:
            Broken: it must not be.
        """
        listed = {one["name"]: one for one in config["applications"]}
        self._others(listed)
        self._room(config["applications"])
        self._held(listed)
        self._causes(listed)
        self._again_and_again(listed)
        self._replicas(config["applications"])

    def _others(self, listed: dict[str, Any]) -> None:
        for name, app in self._week.ray.serve.apps.items():
            theirs = not name.startswith("ndif-") and app.declarative and app.gone_at is None
            # what others changed in this very moment may be overtaken: Serve has no ETag
            if theirs and self.others_changed_at != self._week.clock():
                self._require(listed.get(name) == app.config, f"{name} of others is {listed.get(name)}")
        self._require("theirs" not in listed, "an application made in code is declared")

    def _room(self, applications: list[dict[str, Any]]) -> None:
        wanted: dict[str, float] = defaultdict(float)
        for one in applications:
            args = one.get("args") or {}
            if args.get("kind") == "model":
                wanted[args["node"]] += args["num_gpus"] * one["deployments"][0]["num_replicas"]
        for node, gpus in wanted.items():
            there = self._week.ray.rooms[node].gpus
            self._require(gpus <= there + 1e-6, f"{node} is given {gpus:g} GPUs and has {there:g}")

    def _held(self, listed: dict[str, Any]) -> None:
        """What is new is not given a GPU whose memory is still in use."""
        week, needed, new = self._week, defaultdict[str, float](float), set[str]()
        for name, one in listed.items():
            args = one.get("args") or {}
            if args.get("kind") == "model":
                needed[args["node"]] += args["num_gpus"] * one["deployments"][0]["num_replicas"]
                new |= {args["node"]} if name not in week.running() else set()
        for node in new & set(week.ray.left_over):
            room = week.ray.rooms[node].gpus - week.ray.left_over[node]
            self._require(needed[node] <= room, f"{node} is given {needed[node]:g} GPUs, {room:g} are free")

    def _causes(self, listed: dict[str, Any]) -> None:
        week, at = self._week, self._week.clock()
        controller = week.daemon._controller if week.daemon else None
        plan = controller.handed_over if controller else None
        going = [
            name
            for name, status in week.running().items()
            if name not in listed and status is DeploymentStatus.SERVING
        ]
        if week.calendar.empty and len(going) <= week.settings.guard.min_models:
            return  # so few may always go, also by the word of a calendar that lies
        for name in going:
            args = week.ray.serve.apps[name].config["args"]
            alias = args["repo_id"].removeprefix("lab/")
            if not self._booked(alias, at) or week.evicted_until.get(alias, at) > at:
                continue
            reasons = [
                action.reason.code
                for action in (plan.actions if plan else ())
                if action.kind is ActionKind.UNDEPLOY
                and action.model
                and action.model.repo_id == args["repo_id"]
                and action.node == args["node"]
            ]
            stated = bool(reasons) and reasons[0] in STATED
            self._require(stated, f"{name} goes though it is booked: {reasons or 'no reason'}")

    def _booked(self, alias: str, at: datetime) -> bool:
        """Whether the calendar has said for long enough that a model must serve now."""
        if at - self.edited.get(alias, at - timedelta(days=9)) < KNOWN_AFTER:
            return False
        return any(
            one.request.model == alias and one.start <= at < one.end and at - one.booked_at > KNOWN_AFTER
            for one in self._week.calendar.events.values()
        )

    def _again_and_again(self, listed: dict[str, Any]) -> None:
        at = self._week.clock()
        there = self._week.running()
        for name in listed:
            if name.startswith("ndif-model") and name not in there:
                times = self._deploys[name]
                times.append(at)
                while times and at - times[0] > timedelta(hours=1):
                    times.popleft()
                self._require(
                    len(times) <= MOST_DEPLOYS, f"{name} was deployed {len(times)} times in an hour"
                )

    def _replicas(self, applications: list[dict[str, Any]]) -> None:
        week, at = self._week, self._week.clock()
        given: dict[str, int] = defaultdict(int)
        for one in applications:
            args = one.get("args") or {}
            if args.get("kind") == "model":
                given[args["repo_id"].removeprefix("lab/")] += one["deployments"][0]["num_replicas"]
        for alias, count in given.items():
            near = [
                one.request.replicas
                for one in week.calendar.events.values()
                if one.request.model == alias and one.start - timedelta(hours=2) <= at < one.end + KNOWN_AFTER
            ]
            recently_edited = at - self.edited.get(alias, at - timedelta(days=9)) < KNOWN_AFTER
            pinned = week.pinned_until.get(alias, at) > at
            most = sum(near) + pinned
            self._require(
                recently_edited or count <= most, f"{alias} is given {count} replicas, {most} are booked"
            )

    # --- after every pass -----------------------------------------------------------------------------

    def after_pass(self) -> None:
        """No pass ends in something nobody thought of; in calm, every booking serves at its start.

        Raises:
            Broken: one did, or does not.
        """
        week = self._week
        faults = [line for line in week.said if "A pass of the loop failed" in line]
        self._require(not faults, "a pass failed:\n" + "".join(faults[:1]))
        if len(week.said) > 400:
            del week.said[:200]
        from tests.simulation.weeks import CALM_BEFORE

        at = week.clock()
        self._late |= {key for key, one in week.verdicts().items() if one.late_seconds >= 1}
        if at - week.last_fault < CALM_BEFORE:
            return
        serving = self._serving()
        verdicts = week.verdicts()
        for key, one in week.calendar.events.items():
            due = one.start <= at < one.end and at - one.start < timedelta(minutes=1)
            long_known = at - one.booked_at > KNOWN_AFTER
            if due and key not in self._checked and long_known:
                self._checked.add(key)
                verdict = verdicts.get(key)
                admitted = verdict is not None and verdict.state in ADMITTED and key not in self._late
                self._require(
                    not admitted or one.request.model in serving,
                    f"{key} of {one.request.model} does not serve at its start; there are {week.running()}",
                )
                week.figures.on_time += admitted

    def settled(self) -> bool:
        """Whether everything that is admitted serves, and nothing else runs."""
        week, at = self._week, self._week.clock()
        plan = week.daemon.last_plan if week.daemon else None
        if plan is None or plan.actions:
            return False
        running = week.running()
        if set(running.values()) - {DeploymentStatus.SERVING}:
            return False
        placed = {(one.target.model.repo_id, one.node) for one in plan.placements}
        args = [week.ray.serve.apps[name].config["args"] for name in running]
        if {(one["repo_id"], one["node"]) for one in args} != placed:
            return False
        serving, verdicts = self._serving(), week.verdicts()
        return all(
            one.request.model in serving
            for key, one in week.calendar.events.items()
            if one.start <= at < one.end and key in verdicts and verdicts[key].state is VerdictState.PLACED
        )

    def _serving(self) -> set[str]:
        apps = self._week.ray.serve.apps
        return {
            apps[name].config["args"]["repo_id"].removeprefix("lab/")
            for name, status in self._week.running().items()
            if status is DeploymentStatus.SERVING
        }

    def words(self, what: str) -> str:
        """What does not hold, and how to see it again."""
        week = self._week
        said = "".join(week.said[-12:])
        return f"seed {week.figures.seed}, {week.clock():%a %H:%M:%S}: {what}\nThe daemon said:\n{said}"

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(self.words(what))
