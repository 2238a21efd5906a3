"""Jobs of nnsight's clients: taken in by any replica of the gateway, run by any, told where they wait.

What is known of jobs is in the database and their payloads and results on disk, so that they survive
this process. Payloads and results pass through as bytes: nothing here opens them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from serve_apps.contract import GatewayArgs
from serve_apps.gateway import jobs_table, replicas_table
from serve_apps.gateway.backend import Backend, BackendError, GoneError
from serve_apps.gateway.database import Database
from serve_apps.gateway.doorbell import Doorbell
from serve_apps.gateway.jobs_table import Job, Limits
from serve_apps.gateway.metrics import JobEnd, JobNews, JobPhases, Unmetered
from serve_apps.gateway.sessions import Session
from serve_apps.messages import BlockRequest, Frame, FrameKind
from serve_apps.providers.object_store import DiskStore, ObjectStore, S3Store, StoreError, write_whole
from serve_apps.telemetry.labels import UNKNOWN

logger = logging.getLogger("ray.serve")

JOBS_FILE = "jobs.sqlite3"
TICK_SECONDS = 1.0
"""How often a replica looks by itself: for models that came up, jobs that waited too long, lost replicas."""
CLEAN_SECONDS = 60.0
GRACE_SECONDS = 10.0
"""The model itself ends a job in time, and tells it better; one that does not is left after this."""
SHUN_SECONDS = 2.0
"""How long an application that was gone is left alone: twice the age Serve's statuses may have."""
NOT_BEGUN = ("too_many_requests",)
"""Codes of answers after which a job may simply try again, besides that its application was gone."""


def open_store(args: GatewayArgs, folder: Path) -> ObjectStore:
    """Where large results go. Raises ``ValueError`` for an address that is none."""
    if args.object_store_url is not None:
        return S3Store(args.object_store_url, args.object_store_public_url)
    return DiskStore(folder)


class Desk:
    """This replica's share of all jobs: its websockets, what it runs, and how it hears of the rest."""

    def __init__(
        self,
        args: GatewayArgs,
        backend: Backend,
        meter: Unmetered | None = None,
        label: Callable[[str], str] = lambda _: UNKNOWN,
        ending: Callable[[str], str] = lambda _: "",
    ) -> None:
        """``label`` says what ``meter`` is to call a model, by its key; ``ending`` tells of its end."""
        self.args = args
        self.backend = backend
        self.label = label
        self._ending = ending
        self._meter = meter or Unmetered()
        self._phases: dict[str, JobPhases] = {}
        self.replica = secrets.token_hex(8)
        self.sessions: dict[str, Session] = {}
        self.woken = asyncio.Event()
        self.running: dict[str, asyncio.Task[None]] = {}
        self.models_running: dict[str, str] = {}
        self._stopping: set[str] = set()
        self._ringing: set[asyncio.Task[None]] = set()
        self._shunned: dict[str, float] = {}
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        if args.state_dir is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="ndif-gateway-")
        self.folder = Path(args.state_dir or self._own_folder.name)  # type: ignore[union-attr]
        self.store = open_store(args, self.folder)
        for name in ("payloads", "frames"):
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)
        self.database = Database(self.folder / JOBS_FILE, jobs_table.MIGRATIONS)
        self.bell = Doorbell(self.wake)

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        """Gives the files back; a folder of this process's own goes."""
        self.database.close()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    async def enter(self) -> None:
        """Comes into the books of the replicas."""
        replica = replicas_table.Replica.here(self.replica, await self.bell.open())
        await self.database.run(replicas_table.enter, replica)

    async def leave(self) -> None:
        """Goes: what was running here waits for another replica, or for the next start."""
        tasks = list(self.running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for session in self.sessions.values():
            session.send(json.dumps(status_body("", "ERROR", replicas_table.RESTARTED)))
        self.bell.close()
        await self.database.run(replicas_table.bury, self.replica, time.time())

    # Taking in and telling

    async def submit(self, job: Job, payload: BinaryIO) -> None:
        """Takes a job in, payload first. Raises ``jobs_table.QueueFull`` or ``OSError``."""
        path = self.payload(job.id)
        await asyncio.to_thread(write_whole, path, payload)
        args = self.args
        limits = Limits(args.queued_per_key, args.queued_per_model, args.results_bytes)
        try:
            await self.database.run(jobs_table.submit, job, limits)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.wake()

    def payload(self, job_id: str) -> Path:
        return self.folder / "payloads" / job_id

    async def tell(self, session_id: str | None, item: str | bytes) -> None:
        """Sends something to a client's websocket, on whichever replica it is; None has none."""
        if session_id is None:
            return
        session = self.sessions.get(session_id)
        if session is not None:
            session.send(item)
            return
        text, file = (item, None) if isinstance(item, str) else (None, uuid.uuid4().hex)
        if isinstance(item, bytes) and file is not None:
            await asyncio.to_thread(write_whole, self.folder / "frames" / file, item)
        port = await self.database.run(replicas_table.post, session_id, text, file)
        if port is not None:
            self.bell.ring(port)
        elif file is not None:
            (self.folder / "frames" / file).unlink(missing_ok=True)

    async def deliver(self, events: Iterable[tuple[str, str | None, str | None]]) -> None:
        """Sends on what other replicas left for the websockets here: session, text or a file's name."""
        for session_id, text, file in events:
            item: str | bytes = text or ""
            if file is not None:
                path = self.folder / "frames" / file
                item = await asyncio.to_thread(path.read_bytes)
                path.unlink(missing_ok=True)
            session = self.sessions.get(session_id)
            if session is not None:
                session.send(item)

    async def say(self, job: Job, status: str, description: str) -> None:
        """Tells how an unfinished job is, if that is news."""
        if (job.status, job.description) == (status, description):
            return
        if await self.database.run(jobs_table.say, job.id, status, description):
            await self.tell(job.session, json.dumps(status_body(job.id, status, description)))

    async def end(self, job: Job, status: str, description: str, how: JobEnd, **known: Any) -> bool:
        """Notes a job's end, unless it has ended already or is another replica's by now.

        ``known`` are ``meta``, ``result_bytes``, ``sent_bytes`` of a result that is not kept, and
        ``replica`` (this one; None for a job that waits).
        """
        sent_bytes = known.pop("sent_bytes", 0)
        replica = known.pop("replica", self.replica)
        ended = await self.database.run(
            jobs_table.end, job.id, replica, status, description, time.time(), **known
        )
        self.payload(job.id).unlink(missing_ok=True)
        if ended:
            self.count(job, how, known.get("result_bytes") or sent_bytes, known.get("meta"))
        return ended

    def count(self, job: Job, how: JobEnd, result_bytes: int = 0, meta: dict[str, Any] | None = None) -> None:
        """Tells the meter of a job's end."""
        phases = self._phases.get(job.id, JobPhases(created=job.created))
        phases.ended = time.time()
        memory_bytes = int((meta or {}).get("max_memory_usage") or 0)
        news = JobNews(self.label(job.model_key), how, phases, job.payload_bytes, result_bytes, memory_bytes)
        self._meter.job(news)

    def count_lost(self) -> None:
        """Tells the meter that a job ended with the gateway that ran it."""
        self._meter.job(JobNews(UNKNOWN, "lost", JobPhases()))

    async def fail(self, job: Job, why: str, how: JobEnd = "failed", **known: Any) -> None:
        if await self.end(job, "ERROR", why, how, **known):
            body = status_body(job.id, "ERROR", why, meta=known.get("meta"))
            await self.tell(job.session, json.dumps(body))

    async def tell_error(self, job_id: str, session: str | None, why: str) -> None:
        await self.tell(session, json.dumps(status_body(job_id, "ERROR", why)))

    # Websockets

    @asynccontextmanager
    async def session(self, owner: str) -> AsyncIterator[Session]:
        """A client's websocket while it is open; what it waits for is cancelled when it goes."""
        session = Session(owner)
        self.sessions[session.id] = session
        try:
            await self.database.run(replicas_table.open_session, session.id, self.replica, owner)
            yield session
        finally:
            del self.sessions[session.id]
            await asyncio.shield(self._close_session(session.id))

    async def _close_session(self, session_id: str) -> None:
        for job in await self.database.run(jobs_table.waiting_of, session_id):
            self.count(job, "cancelled")
        self.ring_all(await self.database.run(replicas_table.close_session, session_id, time.time()))

    async def cancel(self, job: Job) -> None:
        """Ends a job that waits; one that runs is told to end where it runs."""
        running = await self.database.run(jobs_table.cancel, [job.id], time.time())
        if not running:
            self.count(job, "cancelled")
            self.payload(job.id).unlink(missing_ok=True)
            await self.tell_error(job.id, job.session, jobs_table.CANCELLED)
        self.ring_all(running)

    def ring_all(self, replicas: Iterable[str]) -> None:
        self.wake()
        others = set(replicas) - {self.replica}
        if others:
            task = asyncio.create_task(self._ring(others))
            self._ringing.add(task)
            task.add_done_callback(self._ringing.discard)

    async def _ring(self, others: set[str]) -> None:
        for replica in others:
            port = await self.database.run(replicas_table.port_of, replica)
            if port is not None:
                self.bell.ring(port)

    # Running

    def begin(self, job: Job) -> None:
        """Runs a job that was claimed for this replica."""
        self._phases[job.id] = JobPhases(created=job.created, claimed=time.time())
        task = asyncio.create_task(self._run(job))
        self.running[job.id] = task
        self.models_running[job.id] = job.model_key
        task.add_done_callback(lambda _: self._over(job.id))

    def shuns(self, application: str) -> bool:
        """Whether an application was gone a moment ago, whatever Serve's statuses say."""
        return time.monotonic() < self._shunned.get(application, 0.0)

    def stop(self, job_id: str) -> None:
        """Ends a job that runs here; once, since its task says goodbye after that."""
        task = self.running.get(job_id)
        if task is not None and job_id not in self._stopping:
            self._stopping.add(job_id)
            task.cancel()

    def _over(self, job_id: str) -> None:
        self.running.pop(job_id, None)
        self.models_running.pop(job_id, None)
        self._phases.pop(job_id, None)
        self._stopping.discard(job_id)
        self.wake()

    async def _run(self, job: Job) -> None:
        """Runs to the last frame; whatever goes wrong is told as ERROR."""
        body = status_body(job.id, job.status, job.description)
        try:
            await self.tell(job.session, json.dumps(body))
            await self._run_frames(job)
        except GoneError:
            self._shunned[job.application or ""] = time.monotonic() + SHUN_SECONDS
            await self._release(job)
        except BackendError as error:
            if error.code in NOT_BEGUN:
                await self._release(job)
            else:
                await self.fail(job, error.message, "too long" if error.status == 504 else "lost")
        except TimeoutError:
            text = f"Your job ran longer than {self.args.job_seconds:g} s and was ended."
            await self.fail(job, text, "too long")
        except asyncio.CancelledError:
            cancelled = job.id in await self.database.run(jobs_table.cancelled_here, self.replica)
            if cancelled:
                await self.fail(job, jobs_table.CANCELLED, "cancelled")
            else:
                await self._release(job)
                raise
        except Exception:
            logger.exception("job %s failed in the gateway", job.id)
            await self.fail(job, "The gateway failed to run your job; its log says why.", "lost")

    async def _release(self, job: Job) -> None:
        if not await self.database.run(jobs_table.release, job.id, self.replica, time.time()):
            self.payload(job.id).unlink(missing_ok=True)
            await self.tell_error(job.id, job.session, jobs_table.CANCELLED)

    async def _run_frames(self, job: Job) -> None:
        try:
            payload = await asyncio.to_thread(self.payload(job.id).read_bytes)
        except FileNotFoundError as error:
            raise BackendError(500, "payload_lost", "Your job's payload is lost; send it again.") from error
        assert job.application is not None, "a claimed job has an application"
        request = BlockRequest(
            job_id=job.id,
            payload=payload,
            compress=job.compress,
            env=job.env,
            inline_limit=self.args.inline_bytes if job.session is not None else 0,
            limit_seconds=self.args.job_seconds,
        )
        meta: dict[str, Any] | None = None
        phases = self._phases.setdefault(job.id, JobPhases(created=job.created))
        async with asyncio.timeout(None) as limit:
            async with aclosing(self.backend.run_block(job.application, request)) as frames:
                async for frame in frames:
                    match frame.kind:
                        case FrameKind.RUNNING:
                            phases.running = time.time()
                            seconds = self.args.job_seconds + GRACE_SECONDS
                            limit.reschedule(asyncio.get_running_loop().time() + seconds)
                            await self.say(
                                job, "RUNNING", f"Your job is running.{self._ending(job.model_key)}"
                            )
                        case FrameKind.LOG:
                            text = frame.data.decode(errors="replace")
                            await self.tell(job.session, json.dumps(status_body(job.id, "LOG", text)))
                        case FrameKind.META:
                            meta = json.loads(frame.data)
                            phases.computed = time.time()
                        case _:
                            await self._finish(job, frame, meta)
                            return
        await self.fail(job, "The model ended your job without a result.", "lost", meta=meta)

    async def _finish(self, job: Job, frame: Frame, meta: dict[str, Any] | None) -> None:
        if frame.kind is FrameKind.ERROR:
            await self.fail(job, frame.data.decode(errors="replace"), meta=meta)
        elif frame.kind is FrameKind.COMPLETED:
            if await self.end(job, "COMPLETED", "", "completed", meta=meta, sent_bytes=len(frame.data)):
                await self.tell(job.session, frame.data)
        else:
            await self._keep_result(job, frame.data, meta)

    async def _keep_result(self, job: Job, data: bytes, meta: dict[str, Any] | None) -> None:
        room = self.args.results_bytes
        gone = await self.database.run(jobs_table.make_room, len(data), room)
        if gone is None:
            text = f"The result has {len(data)} bytes; at most {room} can be kept. Save less."
            await self.fail(job, text, "refused", meta=meta)
            return
        try:
            await self.store.remove(gone)
            await self.store.put(job.id, data)
        except StoreError:
            logger.exception("the result of job %s is lost", job.id)
            await self.fail(job, "The result could not be stored; send the job again.", "lost", meta=meta)
            return
        text = "Your job has been completed."
        if await self.end(job, "COMPLETED", text, "completed", meta=meta, result_bytes=len(data)):
            link = self.store.link(job.id, job.base_url, time.time(), self.args.result_seconds)
            await self.tell(job.session, json.dumps(status_body(job.id, "COMPLETED", text, link, meta)))

    async def answer(self, job: Job, base_url: str, place: int | None = None) -> dict[str, Any]:
        """A job's status as its client reads it; ``place`` counts the jobs before it."""
        link = None
        if job.result_bytes is not None and job.ended is not None:
            left = job.ended + self.args.result_seconds - time.time()
            link = self.store.link(job.id, base_url, time.time(), max(1, left))
        description = job.description if place is None else in_line(place)
        return status_body(job.id, job.status, description, link, job.meta)


def status_body(
    job_id: str, status: str, description: str, data: str | None = None, meta: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A status in the shape nnsight's client reads."""
    return {"id": job_id, "status": status, "description": description, "data": data, "meta": meta}


def in_line(place: int) -> str:
    """What a job that waits for its turn is told."""
    return "Your job is next." if place == 0 else f"Jobs before yours: {place}."


def clock(seconds: float) -> str:
    """A moment in words, to the minute, later rather than sooner."""
    moment = datetime.fromtimestamp(math.ceil(seconds / 60) * 60, UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")
