"""Serves the page in threads of its own; whatever happens to it, the daemon's loop goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from loguru import logger

from scheduler.board import Board
from scheduler.settings import Settings
from scheduler.supposing import Supposer
from scheduler.web.app import Exposition, make_app
from scheduler.web.desk import Desk

MOST_CONNECTIONS = 256
BACKLOG = 64
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
END_SECONDS = 5.0


@contextmanager
def page_served(
    settings: Settings, board: Board, exposition: Exposition | None = None
) -> Iterator[PageServer | None]:
    """The page is there inside, if the settings want one."""
    if not settings.web.enabled:
        yield None
        return
    judges = Supposer(settings, settings.web.what_if_seconds)
    server = PageServer(Desk(settings, board, judges), exposition)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        judges.close()


class PageServer:
    """Listens where the settings say, and again after whatever went wrong."""

    def __init__(self, desk: Desk, exposition: Exposition | None = None) -> None:
        self._desk = desk
        self._exposition = exposition
        self._ending = threading.Event()
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._live, name="page", daemon=True)
        self._said = ""
        self.listening = threading.Event()
        """Set while it can be reached."""

    def start(self) -> None:
        """Begin; waits for nothing and raises nothing."""
        self._thread.start()

    def stop(self) -> None:
        """End, within a few seconds."""
        self._ending.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(END_SECONDS)

    def _live(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            try:
                self._serve()
                pause = FIRST_PAUSE_SECONDS
            except OSError as error:
                web = self._desk.settings.web
                self._say(f"The page cannot listen on {web.host}:{web.port} ({error.strerror or error}).")
            # uvicorn ends its process with SystemExit; here that would end a thread in silence
            except (Exception, SystemExit) as error:  # noqa: BLE001  the page must not hurt the daemon
                logger.opt(exception=error).error("The page has failed; it is started again.")
            finally:
                self.listening.clear()
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _serve(self) -> None:
        web = self._desk.settings.web
        family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.bind((web.host, web.port))
            line.listen(BACKLOG)
            self._server = uvicorn.Server(
                uvicorn.Config(
                    make_app(self._desk, self._exposition),
                    access_log=False,
                    log_config=None,
                    log_level="warning",
                    proxy_headers=False,
                    server_header=False,
                    limit_concurrency=MOST_CONNECTIONS,
                    timeout_graceful_shutdown=1,
                    ws="none",
                )
            )
            if self._ending.is_set():
                return
            self._say(f"The page is at {web.url}.", level="INFO")
            self.listening.set()
            self._server.run(sockets=[line])

    def _say(self, words: str, level: str = "ERROR") -> None:
        if self._said != words:
            self._said = words
            logger.log(level, "{}", words)
