"""Deployment events for another service: posted when there is time, never waited for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any

import httpx
from loguru import logger

MOST_WAITING = 1000
POST_SECONDS = 5.0


class Events:
    """Posts events to a URL as JSON, one after the other, each once; what cannot be posted is dropped.

    Args:
        url: where to; without one nothing is posted.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._failing = False
        self.dropped = 0
        """How many were not posted."""
        self._thread = threading.Thread(target=self._post_all, name="events", daemon=True)
        if url:
            self._thread.start()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Have an event posted soon."""
        if self._url is None:
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Post nothing more."""
        if self._url is not None:
            try:
                self._waiting.put_nowait(None)
            except queue.Full:
                return  # it is a thread that ends with its process
            self._thread.join(POST_SECONDS)

    def _post_all(self) -> None:
        with httpx.Client(timeout=POST_SECONDS) as client:
            while (event := self._waiting.get()) is not None:
                self._post(client, event)

    def _post(self, client: httpx.Client, event: Mapping[str, Any]) -> None:
        try:
            client.post(str(self._url), json=dict(event)).raise_for_status()
            self._failing = False
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.dropped += 1
            if not self._failing:
                logger.warning("Events cannot be posted to {} ({}); nothing waits for it.", self._url, error)
            self._failing = True
