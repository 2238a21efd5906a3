"""The JSON API, version 1. It only reads, but for the orders, which take the operator's key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AwareDatetime

from scheduler.store.orders import ON_MODELS, ON_NODES, OrderKind
from scheduler.web import commands
from scheduler.web.access import Bearer, Doorkeeper, Reader
from scheduler.web.desk import Desk
from scheduler.web.live import Pulse
from scheduler.web.models import (
    AnswerShown,
    BookingShown,
    BookingState,
    Done,
    HistoryShown,
    ModelOrder,
    ModelShown,
    NodeOrder,
    NodeShown,
    OrderGiven,
    PlanShown,
    Problem,
    PromisesShown,
    StateShown,
)
from scheduler.web.past import history_shown, promises_shown

MOST_HOURS = 24.0 * 90
MOST_LISTENERS = 64
RETRY_MILLISECONDS = 3_000

Hours = Annotated[float, Query(gt=0, le=MOST_HOURS, description="How many hours back", examples=[24])]
READS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "A key was given, and it is not the operator's"},
    421: {"model": Problem, "description": "The request names another host"},
    503: {"model": Problem, "description": "Nothing is known yet, or not now"},
}
ORDERS = READS | {
    403: {"model": Problem, "description": "No key was given, or the service has none"},
    404: {"model": Problem, "description": "There is no such model or node"},
    409: {"model": Problem, "description": "It could not be done"},
    413: {"model": Problem, "description": "More was sent than is read"},
}


def api(desk: Desk, doorkeeper: Doorkeeper, pulse: Pulse) -> APIRouter:
    """All routes below ``/api/v1``."""
    router = APIRouter(prefix="/api/v1")
    router.include_router(_reading(desk))
    router.include_router(_asking(desk, pulse))
    router.include_router(_ordering(desk, operator_only(doorkeeper)))
    return router


def operator_only(doorkeeper: Doorkeeper) -> Callable[..., None]:
    """Lets nobody pass but the operator. The key is a header, which no other page can have sent."""

    def operator(given: Bearer) -> None:
        if doorkeeper.key_fits(given.credentials if given else None):
            return
        remedy = "Send it as Authorization: Bearer KEY." if doorkeeper.has_key else "Set NDIF_WEB__KEY first."
        raise HTTPException(403, {"detail": "This takes the operator's key.", "remedy": remedy})

    return operator


def _reading(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["reading"], responses=READS)

    @router.get("/state", summary="Everything at a glance")
    def state(reader: Reader) -> StateShown:
        """How the daemon, the calendars and the gateway are, and how many there are of everything."""
        return desk.shown(reader).state()

    @router.get("/verdicts", summary="Every booking, and what becomes of it")
    def verdicts(
        reader: Reader,
        state: Annotated[list[BookingState] | None, Query(description="Only those in these states")] = None,
    ) -> tuple[BookingShown, ...]:
        """By start. What is private has no title, no model and no owner here, unless the key is given."""
        return tuple(one for one in desk.shown(reader).bookings() if not state or one.state in state)

    @router.get("/models", summary="What runs, and how far what is loading is")
    def models(reader: Reader) -> tuple[ModelShown, ...]:
        """One for each model and node."""
        return desk.shown(reader).models()

    @router.get("/nodes", summary="The nodes, and what is free on them")
    def nodes(reader: Reader) -> tuple[NodeShown, ...]:
        """A replica on whole GPUs counts with all of their memory."""
        return desk.shown(reader).nodes()

    @router.get("/plan", summary="What is done now and later")
    def plan(reader: Reader) -> PlanShown:
        """The last plan of the daemon."""
        return desk.shown(reader).plan_shown()

    @router.get("/promises", summary="Which bookings were met, and which were not")
    def promises(reader: Reader, hours: Hours = 24.0) -> PromisesShown:
        """Those whose booking ends within the hours, or later; the latest first."""
        past = desk.past(hours)
        return promises_shown(past, desk.shown(reader, past).veil, desk.clock())

    @router.get("/history", summary="What was done and said")
    def history(reader: Reader, hours: Hours = 24.0) -> HistoryShown:
        """Plans that changed something, what was said to bookings, orders, and how long loading takes."""
        past = desk.past(hours)
        return history_shown(past, desk.shown(reader, past).veil)

    return router


def _asking(desk: Desk, pulse: Pulse) -> APIRouter:
    router = APIRouter(tags=["asking"], responses=READS)

    @router.get(
        "/what-if",
        summary="Would this fit?",
        responses={
            409: {"model": Problem, "description": "It is not understood, or cannot be judged"},
            429: {"model": Problem, "description": "Too many ask at once"},
            504: {"model": Problem, "description": "The answer took too long"},
        },
    )
    def what_if(
        reader: Reader,
        what: Annotated[
            str,
            Query(
                min_length=1,
                max_length=300,
                description="A model, and what else an event would say, with commas between",
                examples=["Llama-70B 8xH100, replicas: 2"],
            ),
        ],
        start: Annotated[AwareDatetime, Query(examples=["2026-03-25T13:00:00Z"])],
        end: Annotated[AwareDatetime, Query(examples=["2026-03-25T17:00:00Z"])],
        by: Annotated[
            str | None,
            Query(
                max_length=200,
                pattern=r"^[^\s@]+@[^\s@]+$",
                description="Mail of who would book it, where rules ask for that",
                examples=["ada@example.org"],
            ),
        ] = None,
    ) -> AnswerShown:
        """Judges a booking that nobody has made beside those that were. Nothing is booked.

        By the planner alone: where bookings would have to be laid out anew to make room, ``ndif-ray
        plan --what-if`` and a real booking also ask the exact solver.
        """
        return desk.would_fit(what, _within_years(start), _within_years(end), reader, by)

    @router.get("/events", summary="Tells when there is something new", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[ServerSentEvent]:
        """Server-sent events called ``view``, each with the version of the state there is now."""
        if pulse.listeners >= MOST_LISTENERS:
            # not a refusal: the browser would ask again at once, and for ever
            yield ServerSentEvent(event="crowded", data={}, retry=60_000)
            return
        async for version in pulse.versions():
            yield ServerSentEvent(
                event="view", data={"version": version}, id=str(version), retry=RETRY_MILLISECONDS
            )

    return router


def _ordering(desk: Desk, operator: Callable[..., None]) -> APIRouter:
    router = APIRouter(tags=["orders"], responses=ORDERS, dependencies=[Depends(operator)])

    @router.post("/orders/pause", summary="Change nothing any more")
    def pause(order: OrderGiven) -> Done:
        """Whatever is booked, nothing is loaded or taken down until ``resume``. What serves keeps serving."""
        return commands.give(desk, OrderKind.PAUSE, order)

    @router.post("/orders/resume", summary="Take the pause back")
    def resume() -> Done:
        """The loop goes on at once."""
        return commands.take_back(desk, "", frozenset({OrderKind.PAUSE}))

    @router.post("/orders/pin", summary="Have a model serve as if it were booked")
    def pin(order: ModelOrder) -> Done:
        """A booking by hand; the plan shows what comes of it."""
        return commands.give(desk, OrderKind.PIN, order)

    @router.post("/orders/evict", summary="Take a model down though it is booked")
    def evict(order: ModelOrder) -> Done:
        """Its bookings are told."""
        return commands.give(desk, OrderKind.EVICT, order)

    @router.post("/orders/release", summary="Take a pin or an eviction back")
    def release(order: ModelOrder) -> Done:
        """Says what there was."""
        return commands.take_back(desk, order.model, ON_MODELS)

    @router.post("/orders/cordon", summary="Place nothing new on a node")
    def cordon(order: NodeOrder) -> Done:
        """What runs there stays until its bookings end."""
        return commands.give(desk, OrderKind.CORDON, order)

    @router.post("/orders/drain", summary="Empty a node")
    def drain(order: NodeOrder) -> Done:
        """It takes nothing new, and what is there is moved."""
        return commands.give(desk, OrderKind.DRAIN, order)

    @router.post("/orders/uncordon", summary="Let a node take models again")
    def uncordon(order: NodeOrder) -> Done:
        """Takes a cordon or a drain back."""
        return commands.take_back(desk, order.node, ON_NODES)

    return router


def _within_years(instant: datetime) -> datetime:
    """An instant that can be reckoned with.

    Raises:
        HTTPException: it is too far away.
    """
    if not 2000 <= instant.year <= 2200:
        raise HTTPException(
            409, {"detail": f"{instant.year} is too far away.", "remedy": "Choose this year."}
        )
    return instant
