"""Ray's dashboard over HTTP: the one way this service talks to Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from calendars.called import command
from scheduler.errors import OperatorError

MAX_ENTRIES = 10_000
"""The most rows Ray's state API hands out; more nodes or actors than that are an error here."""


PUT_SECONDS = 60.0
"""Deadline of a PUT: the first one starts Serve, which takes 6 to 10 s."""


class ClusterUnavailable(OperatorError):
    """Ray could not be asked, so nothing is known about the cluster, and nothing is done to it."""


class Rejected(OperatorError):
    """Serve did not take a configuration; nothing of it was applied."""


class Dashboard:
    """Reads nodes and actors, reads and writes Serve's configuration.

    Args:
        url: base URL of the dashboard, without a trailing slash.
        token_path: file with the cluster's token; no token is sent if it does not exist. Read at
            every call, so that a new token is taken up.
        timeout_seconds: deadline of one call.
    """

    def __init__(self, url: str, token_path: Path, timeout_seconds: float) -> None:
        self.url = url
        self._token_path = token_path
        self._client = httpx.Client(base_url=url, timeout=timeout_seconds, trust_env=False)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def nodes(self) -> list[dict[str, Any]]:
        """Every node Ray remembers, dead ones too, as the state API describes them."""
        return self._state("nodes")

    def actors(self) -> list[dict[str, Any]]:
        """Every actor that is alive, with the resources it holds."""
        return self._state("actors", filter_keys="state", filter_predicates="=", filter_values="ALIVE")

    def metrics_targets(self) -> list[dict[str, Any]]:
        """Where each node exports its metrics, in the form of Prometheus' service discovery."""
        response = self._ask("GET", "/api/prometheus/sd")
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise self._strange(response)
        return found

    def gpu_memory(self) -> list[dict[str, Any]]:
        """What each node's agent sees of its machine, GPUs and their memory among it; seconds old.

        The state API has none of that; this is what Ray's own dashboard shows.
        """
        response = self._ask("GET", "/nodes", accept=(200, 404, 500), params={"view": "summary"})
        if response.status_code != 200:
            return []  # then nothing is known of it, as where no agent runs
        summary = self._object(response).get("data", {}).get("summary")
        return summary if isinstance(summary, list) else []

    def serve_details(self) -> dict[str, Any]:
        """What Serve runs; without ``applications`` where Serve has not been started."""
        return self._object(self._ask("GET", "/api/serve/applications/"))

    def put_serve_config(self, config: dict[str, Any]) -> None:
        """Hand Serve the complete list of declarative applications.

        Raises:
            Rejected: Serve found the configuration invalid.
        """
        response = self._ask(
            "PUT", "/api/serve/applications/", json=config, accept=(200, 400), timeout=PUT_SECONDS
        )
        if response.status_code == 400:
            lines = response.text.strip().splitlines() or ["it gave no reason"]
            raise Rejected(
                f"Ray Serve rejected the configuration: {lines[-1][:500]}.",
                "Nothing was changed. This is a fault of this service or of an application beside it.",
            )

    def _state(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        response = self._ask(
            "GET", f"/api/v0/{what}", params={"limit": str(MAX_ENTRIES), "detail": "true", **parameters}
        )
        result = self._object(response).get("data", {}).get("result", {})
        if not isinstance(result.get("result"), list):
            raise self._strange(response)
        if result.get("num_after_truncation", 0) < result.get("num_filtered", 0):
            raise ClusterUnavailable(
                f"Ray lists more than {MAX_ENTRIES} {what}; what is beyond cannot be seen.",
                "This cluster is larger than the service supports.",
            )
        rows: list[dict[str, Any]] = result["result"]
        return rows

    def _object(self, response: httpx.Response) -> dict[str, Any]:
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._strange(response)
        return content

    def _strange(self, response: httpx.Response) -> ClusterUnavailable:
        return ClusterUnavailable(
            f"What answers at {self.url} is not Ray's dashboard: {response.request.url.path} gave "
            f"{response.text[:80]!r}.",
            "Correct NDIF_RAY__DASHBOARD_URL, or what stands between here and there.",
        )

    def _ask(
        self, method: str, path: str, accept: tuple[int, ...] = (200,), **arguments: Any
    ) -> httpx.Response:
        try:
            headers = {}
            if self._token_path.is_file():
                headers["Authorization"] = f"Bearer {self._token_path.read_text().strip()}"
            response = self._client.request(method, path, headers=headers, **arguments)
        except httpx.ReadTimeout as error:
            raise ClusterUnavailable(
                f"Ray's dashboard at {self.url} did not answer {method} {path} in time.",
                "Whether it did what it was asked is not known; it is looked at again.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ClusterUnavailable(
                f"Ray's dashboard at {self.url} does not answer ({type(error).__name__}: {error}).",
                f"Start the cluster with {command('local')}, or say where it is: NDIF_RAY__DASHBOARD_URL.",
            ) from error
        if response.status_code in (401, 403):
            raise ClusterUnavailable(
                f"Ray's dashboard at {self.url} refuses this service (HTTP {response.status_code}).",
                f"Its access token must be in {self._token_path} (NDIF_RAY__TOKEN_PATH).",
            )
        if response.status_code not in accept:
            raise ClusterUnavailable(
                f"Ray's dashboard at {self.url} answered {method} {path} with HTTP "
                f"{response.status_code}: {response.text[:300].strip()}",
                "If this stays, look at the dashboard's log in Ray's session folder.",
            )
        return response
