"""Builds the Serve application of one model: ``import_path`` is ``serve_apps.model.app:build``."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from serve_apps.contract import MODEL_DEPLOYMENT, NODE_LABEL, ModelArgs
from serve_apps.model.metrics import tell_metrics
from serve_apps.model.replica import ModelReplica
from serve_apps.telemetry.logs import ship_logs

MAX_ONGOING_REQUESTS = 64
"""Requests a replica takes in: as many texts as grow side by side, and others whose turn comes between."""
MAX_QUEUED_REQUESTS = 64
"""Requests one caller may have waiting beyond that; then ``BackPressureError``."""


class MeasuredReplica(ModelReplica):
    """A replica on Ray, where somebody reads its log and its metrics."""

    def __init__(self, args: dict[str, Any]) -> None:
        ship_logs("model")
        super().__init__(args)
        tell_metrics(self._args.repo_id, self._engine)


def build(args: dict[str, Any]) -> Application:
    """The application for ``ModelArgs``.

    Resources and node are set here and not in Serve's config: a label selector written there pins
    the build task too, and hides its messages (ray#65180, ray#65166).

    Raises pydantic's ``ValidationError``, which Serve reports as DEPLOY_FAILED with this text.
    """
    checked = ModelArgs.model_validate(args)
    resources: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": checked.num_gpus,
        "label_selector": {NODE_LABEL: checked.node},
    }
    if checked.memory_bytes:
        resources["memory"] = checked.memory_bytes
    deployment = serve.deployment(MeasuredReplica).options(
        name=MODEL_DEPLOYMENT,
        ray_actor_options=resources,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        max_queued_requests=MAX_QUEUED_REQUESTS,
        health_check_period_s=10,
        # a long pass holds the interpreter; a replica is not ill because it computes
        health_check_timeout_s=120,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=20,
    )
    return deployment.bind(checked.model_dump(mode="json"))
