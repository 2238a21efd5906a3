"""Which applications answer to a name, and what to tell a client when none does. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from serve_apps.contract import Booking, GatewayConfig, Route
from serve_apps.gateway.keys import ANONYMOUS, Caller

LOADING_RETRY_SECONDS = 5


class AppState(StrEnum):
    """What Serve says of one application, as far as a client cares."""

    SERVING = "serving"
    LOADING = "loading"
    FAILED = "failed"


@dataclass(frozen=True)
class AppStatus:
    """``message`` is Serve's own, for an application that failed; ``replicas`` are those that serve."""

    state: AppState
    message: str = ""
    replicas: int = 1


Statuses = Mapping[str, AppStatus]


class ModelIdentity(NamedTuple):
    """What an nnsight model key says, in a form that can be compared: never compare keys as text."""

    wrapper: str
    repo_id: str
    revision: str
    task: str | None
    trust_remote_code: bool


KNOWN_IN_KEYS = frozenset({"repo_id", "revision", "task", "trust_remote_code"})
"""What a key's JSON may hold; the rest would become arguments of whatever loads the model."""


def parse_model_key(text: str) -> ModelIdentity | None:
    """The identity in ``import.path.Class:{json}``, or None if ``text`` is not a model key.

    No revision means ``main``, as in nnsight; the repo id is compared without case, as on the Hub.
    """
    wrapper, colon, rest = text.partition(":")
    if not colon or not rest.lstrip().startswith("{"):
        return None
    try:
        named = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    if not isinstance(named, dict) or named.keys() - KNOWN_IN_KEYS:
        return None
    repo_id = named.get("repo_id")
    revision, task = named.get("revision") or "main", named.get("task")
    if not isinstance(repo_id, str) or not isinstance(revision, str) or not isinstance(task, str | None):
        return None
    return ModelIdentity(
        wrapper, repo_id.casefold(), revision, task, named.get("trust_remote_code", False) is True
    )


@dataclass(frozen=True)
class Serving:
    """Applications that can be called now, for the route they belong to."""

    route: Route
    applications: tuple[str, ...]


@dataclass(frozen=True)
class Unavailable:
    """Nobody to call. ``status`` 403, 404 or 503; ``retry_after_seconds`` where waiting helps.

    ``job_status`` is nnsight's word for what a job waits for meanwhile, None if waiting is in vain.
    ``because`` says in words what it waits for.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None
    job_status: Literal["QUEUED", "PROVISIONING", "DEPLOYING"] | None = None
    because: str = ""


class Listed(NamedTuple):
    """One line of what there is: a route with its state, or a booking."""

    name: str
    state: str
    start: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    names: tuple[str, ...] = ()


class RoutingTable:
    """The scheduler's table as pushed by the last ``reconfigure``; never changed, only replaced."""

    def __init__(self, config: GatewayConfig | None = None) -> None:
        config = config or GatewayConfig()
        self.routes = config.routes
        self.bookings = config.bookings
        self._keys = tuple(parse_model_key(route.model_key) for route in config.routes)

    def resolve(
        self, name: str, statuses: Statuses, now: datetime, caller: Caller | None = ANONYMOUS
    ) -> Serving | Unavailable:
        """Whom to call for ``name``: a repo id, an alias or a model key, without regard to case.

        ``caller`` None is the gateway itself, which may use private bookings too.
        """
        routes = self._routes_for(name)
        if routes and not any(_may_use(route, caller) for route in routes):
            return _private(routes[0])
        routes = [route for route in routes if _may_use(route, caller)]
        loading: Route | None = None
        for route in routes:
            up = tuple(app for app in route.applications if state_of(app, statuses) is AppState.SERVING)
            if up:
                return Serving(route, up)
            loading = loading or route
        if loading is not None:
            return _not_up(loading, statuses)
        return self._booked(name, now, caller) or self._unknown(name, statuses, now, caller)

    def listing(self, statuses: Statuses, now: datetime, caller: Caller | None = ANONYMOUS) -> list[Listed]:
        """Everything a client may ask for: what serves, what loads, what is booked."""
        listed = [
            Listed(route.names[0], _route_state(route, statuses), None, route.until, None, route.names)
            for route in self.open_to(caller)
        ]
        for booking in self._coming(now, caller):
            state = "booked" if booking.refused is None else "refused"
            listed.append(
                Listed(booking.names[0], state, booking.start, booking.end, booking.refused, booking.names)
            )
        return listed

    def name_of(self, name: str) -> str | None:
        """The first name of what a client means, be it up or booked; None where there is nothing of it."""
        if routes := self._routes_for(name):
            return routes[0].names[0]
        key = parse_model_key(name)
        wanted = key.repo_id if key is not None else name
        return next((one.names[0] for one in self.bookings if _named(wanted, one.names)), None)

    def until(self, name: str) -> datetime | None:
        """When the last booking of a model that is up ends, None where that is not known."""
        ends = [route.until for route in self._routes_for(name)]
        return max((end for end in ends if end is not None), default=None)

    def _routes_for(self, name: str) -> list[Route]:
        key = parse_model_key(name)
        if key is not None:
            return [route for route, own in zip(self.routes, self._keys, strict=True) if own == key]
        return [route for route in self.routes if _named(name, route.names)]

    def open_to(self, caller: Caller | None) -> list[Route]:
        """The routes that this caller may use, and see."""
        return [route for route in self.routes if _may_use(route, caller)]

    def _coming(self, now: datetime, caller: Caller | None) -> list[Booking]:
        coming = (one for one in self.bookings if one.end > now and _may_use(one, caller))
        return sorted(coming, key=lambda booking: booking.start)

    def _booked(self, name: str, now: datetime, caller: Caller | None) -> Unavailable | None:
        key = parse_model_key(name)
        wanted = key.repo_id if key is not None else name
        mine = [booking for booking in self._coming(now, caller) if _named(wanted, booking.names)]
        coming = next((booking for booking in mine if booking.refused is None), None)
        if coming is not None:
            wait = max(1, math.ceil((coming.start - now).total_seconds()))
            if coming.start <= now:
                return _loading(
                    coming.names[0], f"its booking began at {_time(coming.start)}", "PROVISIONING"
                )
            text = f"{coming.names[0]} is booked from {_time(coming.start)} to {_time(coming.end)}"
            return Unavailable(503, "model_not_up_yet", f"{text}; it is not up yet.", wait, "QUEUED", text)
        if mine:
            refused = mine[0]
            return Unavailable(
                404,
                "booking_refused",
                f"The booking of {refused.names[0]} for {_time(refused.start)} was refused: "
                f"{refused.refused}",
            )
        return None

    def _unknown(self, name: str, statuses: Statuses, now: datetime, caller: Caller | None) -> Unavailable:
        key = parse_model_key(name)
        asked = key.repo_id if key is not None else name[:200]
        up = [
            item.name + (f" (until {_time(item.until)})" if item.until else "")
            for item in self.listing(statuses, now, caller)
            if item.state in (AppState.SERVING, AppState.LOADING)
        ]
        coming = [
            f"{booking.names[0]} from {_time(booking.start)} to {_time(booking.end)}"
            for booking in self._coming(now, caller)
            if booking.refused is None
        ]
        there = f"There is: {', '.join(up)}." if up else "Nothing is up."
        later = f"Booked next: {'; '.join(coming[:5])}." if coming else "Nothing else is booked."
        return Unavailable(
            404,
            "model_not_found",
            f"The model {asked!r} is neither up nor booked. {there} {later} "
            "To have it here, book it in the calendar.",
        )


def state_of(application: str, statuses: Statuses) -> AppState:
    """An application that Serve does not list yet is about to be deployed."""
    status = statuses.get(application)
    return AppState.LOADING if status is None else status.state


def _route_state(route: Route, statuses: Statuses) -> AppState:
    states = {state_of(application, statuses) for application in route.applications}
    if AppState.SERVING in states:
        return AppState.SERVING
    return AppState.FAILED if states == {AppState.FAILED} else AppState.LOADING


def _not_up(route: Route, statuses: Statuses) -> Unavailable:
    if _route_state(route, statuses) is not AppState.FAILED:
        known = any(application in statuses for application in route.applications)
        return _loading(route.names[0], "its replica is starting", "DEPLOYING" if known else "PROVISIONING")
    messages = [statuses[application].message for application in route.applications]
    said = next((message for message in messages if message), "no message")
    # the last line of a traceback is the one that says what happened
    last = said.strip().splitlines()[-1][:300] if said.strip() else said
    return Unavailable(503, "model_failed", f"{route.names[0]} could not be loaded: {last}")


def _loading(name: str, why: str, job_status: Literal["PROVISIONING", "DEPLOYING"]) -> Unavailable:
    return Unavailable(
        503,
        "model_loading",
        f"{name} is loading: {why}. Try again in a few seconds.",
        LOADING_RETRY_SECONDS,
        job_status,
        f"{name} is loading: {why}",
    )


def _may_use(what: Route | Booking, caller: Caller | None) -> bool:
    if what.private_to is None or caller is None:
        return True
    mail = (caller.mail or "").casefold()
    return bool(mail) and mail in {one.casefold() for one in what.private_to}


def _private(route: Route) -> Unavailable:
    until = f" until {_time(route.until)}" if route.until else ""
    return Unavailable(
        403,
        "private_booking",
        f"{route.names[0]} is booked privately{until}: only the event's organiser and attendees may use it, "
        "with a key of theirs. Ask to be invited, or book it yourself.",
    )


def _named(name: str, names: tuple[str, ...]) -> bool:
    return name.casefold() in {own.casefold() for own in names}


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M %Z")
