"""Gives jobs to models: one round looks at everything that waits, on each replica of the gateway alike.

A round begins when something happened (a job came or ended, another replica rang) and once a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path

from serve_apps.gateway import jobs_table, replicas_table
from serve_apps.gateway.jobs import CLEAN_SECONDS, TICK_SECONDS, Desk, clock, in_line
from serve_apps.gateway.routing import RoutingTable, Serving, Unavailable
from serve_apps.providers.object_store import StoreError

logger = logging.getLogger("ray.serve")

JOBS_PER_REPLICA = 2
"""A model runs one job at a time; the next waits beside it, so that no time is lost between them."""
ORPHAN_SECONDS = 3600.0
"""Age after which a file that no job knows is what a killed process left."""


class Dispatcher:
    """The rounds of one replica. ``table`` gives the routing table, None before there is one."""

    def __init__(
        self, desk: Desk, table: Callable[[], RoutingTable | None], now: Callable[[], datetime]
    ) -> None:
        self._desk = desk
        self._table = table
        self._now = now
        self._looked_at = self._cleaned_at = -float("inf")

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Runs rounds until the block is left."""
        await self._desk.enter()
        rounds = asyncio.create_task(self._rounds())
        try:
            yield
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
            await self._desk.leave()

    async def _rounds(self) -> None:
        woken = self._desk.woken
        while True:
            try:
                await self.round()
            except Exception:
                logger.exception("a round of the jobs failed; the next follows")
                await asyncio.sleep(TICK_SECONDS)
            if time.monotonic() - self._looked_at >= TICK_SECONDS:
                self._looked_at = time.monotonic()
                await self._look_around()
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await woken.wait()
            woken.clear()

    async def round(self) -> None:
        """Passes on what others left, stops what is cancelled, begins what can begin, tells the rest."""
        desk = self._desk
        news = await desk.database.run(replicas_table.look, desk.replica)
        await desk.deliver(news.events)
        for job_id in news.cancelled:
            desk.stop(job_id)
        table = self._table()
        if table is None or not news.waiting:
            return
        statuses = await desk.backend.statuses()
        for model, model_key in news.waiting:
            # who may use it was asked when the job came
            found = table.resolve(model_key, statuses, self._now(), None)
            if isinstance(found, Serving):
                there = [name for name in found.applications if not desk.shuns(name)]
                await self._begin(model, {name: JOBS_PER_REPLICA * statuses[name].replicas for name in there})
            else:
                await self._hold(model, found)

    async def _begin(self, model: str, room: dict[str, int]) -> None:
        desk = self._desk
        claimed, line = await desk.database.run(jobs_table.claim_all, model, desk.replica, room)
        for job in claimed:
            desk.begin(job)
        for place, job in enumerate(line):
            await desk.say(job, "QUEUED", in_line(place))

    async def _hold(self, model: str, why: Unavailable) -> None:
        for job in await self._desk.database.run(jobs_table.in_turn, model):
            if why.job_status is None:
                await self._desk.fail(job, why.message, "refused", replica=None)
            else:
                text = f"{why.because}. Your job waits for it until {clock(job.wait_until)}."
                await self._desk.say(job, why.job_status, text)

    async def _look_around(self) -> None:
        """What time brings: jobs that waited too long, replicas that died, results that are old."""
        desk = self._desk
        try:
            for job in await desk.database.run(jobs_table.overdue, time.time()):
                text = f"Your job waited until {clock(job.wait_until)}, as long as it may; it was ended."
                await desk.fail(job, text, "waited too long", replica=None)
            await self._bury_the_dead()
            if time.monotonic() - self._cleaned_at >= CLEAN_SECONDS:
                self._cleaned_at = time.monotonic()
                await self._clean()
        except (OSError, StoreError):
            logger.exception("old jobs could not be tidied away; tried again later")

    async def _bury_the_dead(self) -> None:
        desk = self._desk
        for replica in await desk.database.run(replicas_table.replicas):
            if replica.alive:
                continue
            logger.warning("the gateway's process %s is gone; its jobs are taken over", replica.pid)
            for job_id, session in await desk.database.run(replicas_table.bury, replica.id, time.time()):
                desk.payload(job_id).unlink(missing_ok=True)
                desk.count_lost()
                await desk.tell_error(job_id, session, replicas_table.RESTARTED)
            desk.wake()

    async def _clean(self) -> None:
        desk = self._desk
        old = await desk.database.run(jobs_table.forget, time.time() - desk.args.result_seconds)
        await desk.store.remove(old)
        needed = await desk.database.run(jobs_table.unfinished)
        orphaned = time.time() - ORPHAN_SECONDS
        for name, before in (
            ("payloads", orphaned),
            ("frames", orphaned),
            ("results", orphaned - desk.args.result_seconds),
        ):
            await asyncio.to_thread(_remove_orphans, desk.folder / name, needed, before)


def _remove_orphans(folder: Path, needed: set[str], before: float) -> None:
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        # Another gateway may be tidying, too.
        with suppress(FileNotFoundError):
            if path.name not in needed and path.stat().st_mtime < before:
                path.unlink()
