"""A calendar and a cockpit without any network, for weeks that pass in seconds; both fail as they are told.

`FakeCalendar` obeys `calendars.source.CalendarSource` and `calendars.write_back.AnswersBack`, `FakeCockpit`
obeys `scheduler.controller.Cockpit`. What the cockpit answers is what `fake_ray` answers over HTTP, which is
held against Ray itself in ``test_fake_ray.py``; so is `DashboardAtHand`, the product's own client without
the HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from typing import Any, cast

import httpx

from calendars.reservation import ModelRequest, Reading, Reservation
from calendars.source import CalendarUnavailable
from calendars.write_back import Answer, Report
from scheduler.cluster.dashboard import ClusterUnavailable, Dashboard, Rejected
from scheduler.settings import Settings
from scheduler.steps import Result, Steps
from tests.simulation.fake_ray import APPLICATIONS, FakeRay

Json = dict[str, Any]


class Killed(BaseException):
    """The daemon's process is gone at this very instruction."""


class StepsInPlace(Steps):
    """Takes each step in the thread of the loop: by a clock moved by hand nothing gets stuck.

    A third of a simulated pass would else be the making of threads.
    """

    def take(self, name: str, do: Callable[[], Result], deadline_seconds: float) -> Result:
        self._before(name)
        began = time.monotonic()
        try:
            result = do()
        except BaseException:
            self._after(name, "failed", time.monotonic() - began)
            raise
        self._after(name, "done", time.monotonic() - began)
        return result


class DashboardAtHand(Dashboard):
    """The product's client on a `FakeRay`, without a wire: HTTP would take most of a simulated pass."""

    def __init__(self, ray: FakeRay, settings: Settings) -> None:
        self.url = ray.url
        self._token_path = settings.token_file
        self._client = cast("httpx.Client", _AtHand(ray))


class _AtHand:
    """Stands for an `httpx.Client`: asks a `FakeRay` in this process."""

    def __init__(self, ray: FakeRay) -> None:
        self._ray = ray
        self._request = cache(lambda method, path: httpx.Request(method, ray.url + path))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        status, content = self._ray.answer(method, path, json.dumps(options.get("json")).encode())
        text = content if isinstance(content, str) else json.dumps(content)
        return httpx.Response(status, content=text.encode(), request=self._request(method, path))

    def close(self) -> None:
        """Nothing is open."""


class FakeCalendar:
    """Bookings by key. ``down`` cannot be read; ``empty`` answers as if there were nothing."""

    name = "weeks"

    def __init__(self) -> None:
        self.events: dict[str, Reservation] = {}
        self.told: dict[str, Report] = {}
        self.down = False
        self.empty = False

    def book(self, key: str, model: str, start: datetime, end: datetime, at: datetime, **more: Any) -> None:
        """Somebody books a model, or books it otherwise."""
        before = self.events.get(key)
        self.events[key] = Reservation(
            key=key,
            calendar=self.name,
            title=model,
            start=start,
            end=end,
            booked_at=before.booked_at if before else at,
            owner="ada@example.org",
            request=ModelRequest.model_validate({"model": model, **more}),
        )

    def read(self, start: datetime, end: datetime) -> Reading:
        if self.down:
            raise CalendarUnavailable("The calendar weeks is away.", "It comes back.")
        found = () if self.empty else self.events.values()
        return Reading(
            calendar=self.name,
            reservations=tuple(one for one in found if one.start < end and one.end > start),
        )

    def report(self, reports: Iterable[Report]) -> Answer:
        told = {one.key: one for one in reports}
        new = tuple(key for key, one in told.items() if self.told.get(key) != one)
        self.told |= told
        return Answer(written=new)


class FakeCockpit:
    """What the dashboard would answer, and what it would not.

    ``faults`` are taken one after the other, each by one request: ``lost`` (the request never arrives),
    ``unanswered`` (it arrives, its answer does not), ``half`` (of a configuration the second half of what is
    new is not taken up, and there is no answer), ``rejected``, ``killed before`` and ``killed after`` (the
    daemon dies). Until ``blank_until`` Serve answers as if it ran nothing.
    """

    def __init__(
        self, ray: FakeRay, clock: Callable[[], datetime], on_put: Callable[[Json], None] = lambda _: None
    ) -> None:
        self.ray = ray
        self._clock = clock
        self.blank_until: datetime | None = None
        self.faults: list[str] = []
        self.down = False
        self.taken: list[str] = []
        self._on_put = on_put

    def nodes(self) -> list[Json]:
        return self._rows("/api/v0/nodes")

    def actors(self) -> list[Json]:
        return self._rows("/api/v0/actors")

    def gpu_memory(self) -> list[Json]:
        found = self._ask("GET", "/nodes")
        assert isinstance(found, dict)
        rows: list[Json] = found["data"]["summary"]
        return rows

    def serve_details(self) -> Json:
        if self.blank_until is not None and self._clock() < self.blank_until:
            return {"applications": {}}
        found = self._ask("GET", APPLICATIONS)
        assert isinstance(found, dict)
        return found

    def put_serve_config(self, config: Json) -> None:
        kind = self._fault(("unanswered", "half", "rejected", "killed before", "killed after"))
        if kind == "rejected":
            raise Rejected("Ray Serve rejected the configuration: it is in a bad mood.", "Try again.")
        if kind == "killed before":
            raise Killed
        self._on_put(config)
        self._ask("PUT", APPLICATIONS, self._half(config) if kind == "half" else config)
        if kind == "killed after":
            raise Killed
        if kind is not None:
            raise ClusterUnavailable("Ray's dashboard did not answer PUT in time.", "It is looked at again.")

    def close(self) -> None:
        """Nothing is open."""

    def _half(self, config: Json) -> Json:
        there = {name for name, app in self.ray.serve.apps.items() if app.gone_at is None}
        new = [one for one in config["applications"] if one["name"] not in there]
        dropped = [one["name"] for one in new[len(new) // 2 :]]
        kept = [one for one in config["applications"] if one["name"] not in dropped]
        return config | {"applications": kept}

    def _rows(self, path: str) -> list[Json]:
        found = self._ask("GET", path)
        assert isinstance(found, dict)
        rows: list[Json] = found["data"]["result"]["result"]
        return rows

    def _ask(self, method: str, path: str, body: object = None) -> object:
        if self.down or self._fault(("lost",)):
            raise ClusterUnavailable(f"Ray's dashboard did not answer {method} {path}.", "It is asked again.")
        status, content = self.ray.answer(method, path, json.dumps(body).encode())
        if status == 400:
            raise Rejected(f"Ray Serve rejected the configuration: {content}.", "This is a fault.")
        if status != 200:
            raise ClusterUnavailable(
                f"Ray's dashboard answered HTTP {status}: {content}", "It is asked again."
            )
        return json.loads(json.dumps(content))

    def _fault(self, kinds: tuple[str, ...]) -> str | None:
        if self.faults and self.faults[0] in kinds:
            self.taken.append(self.faults.pop(0))
            return self.taken[-1]
        return None
