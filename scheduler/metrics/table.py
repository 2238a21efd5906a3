"""Every metric of the daemon: its name, its labels, what it tells. The code below and the docs go by it."""

from __future__ import annotations

from serve_apps.telemetry.metric import Metric

SHORT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Buckets of what the loop does."""
LONG_SECONDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)
"""Buckets of loading, and of being late."""


PASSES = Metric(
    "ndif_daemon_passes_total",
    "counter",
    "Passes of the loop, by how they ended: done, waiting (another daemon leads), stale (planned again), "
    "problem (only a person can put it right), fault.",
    ("outcome",),
)
PASS_LAG = Metric(
    "ndif_daemon_pass_lag_seconds",
    "histogram",
    "How long after it was due a pass of the loop began.",
    (),
    SHORT_SECONDS,
)
STEP_SECONDS = Metric(
    "ndif_daemon_step_duration_seconds",
    "histogram",
    "How long a step of the loop took: read, observe, plan, apply, answer. A stuck one has not ended.",
    ("step", "outcome"),
    SHORT_SECONDS,
)
LAST_PASS = Metric(
    "ndif_daemon_last_pass_timestamp_seconds",
    "gauge",
    "When the loop last finished a pass, or the daemon started (Unix time).",
)
INTERVAL = Metric(
    "ndif_daemon_interval_seconds", "gauge", "Longest time between two passes that is meant (setting)."
)
LEADING = Metric(
    "ndif_daemon_leading", "gauge", "1 where this daemon works on the cluster, 0 where it waits."
)
HINDERED = Metric(
    "ndif_daemon_hindered",
    "gauge",
    "1 for what keeps the loop from its work: problem, held (waits for a second reading), paused, stuck.",
    ("by",),
)
LOST_RECORDS = Metric(
    "ndif_daemon_lost_records", "gauge", "Records that could not be written into the history since the start."
)
POLLS = Metric(
    "ndif_calendar_polls_total", "counter", "Readings of calendars: ok or failed.", ("calendar", "outcome")
)
CALENDAR_AGE = Metric(
    "ndif_calendar_reading_age_seconds",
    "gauge",
    "Age of a calendar's last good reading; +Inf where it was never read.",
    ("calendar",),
)
CALENDAR_LIMIT = Metric(
    "ndif_calendar_max_stale_seconds", "gauge", "Age from which a reading is not gone by any more (setting)."
)
RESERVATIONS = Metric(
    "ndif_reservations",
    "gauge",
    "Events read, by what became of them: placed, coming, refused, misunderstood.",
    ("state",),
)
RESERVATION_CHANGES = Metric(
    "ndif_reservation_changes_total",
    "counter",
    "What was newly said of events: scheduled, loading, serving, refused, ended.",
    ("state",),
)
PROMISES = Metric(
    "ndif_promises_total",
    "counter",
    "Promises by what came of them: kept (ready in time), late, broken, withdrawn (the event went).",
    ("outcome",),
)
PROMISE_LATE = Metric(
    "ndif_promise_late_seconds",
    "histogram",
    "How late models were that a booking waited for; 0 for a promise that was kept.",
    (),
    LONG_SECONDS,
)
PROMISES_BROKEN = Metric(
    "ndif_promises_broken_total", "counter", "Broken promises by reason, such as node lost.", ("reason",)
)
PROMISES_AT_RISK = Metric(
    "ndif_promises_at_risk",
    "gauge",
    "Admitted bookings that are in danger: late (expected to serve after their start) or overdue (begun, and "
    "not served yet).",
    ("danger",),
)
MODELS = Metric(
    "ndif_models",
    "gauge",
    "Models by tier and state: hot (serving, loading, failed, stopping), cold (on a node's disk), remote "
    "(booked, and on no disk yet).",
    ("tier", "state"),
)
REPLICAS = Metric(
    "ndif_model_replicas",
    "gauge",
    "Replicas of each deployed model on each node: wanted, and ready to answer.",
    ("model", "node", "state"),
)
PARKED = Metric("ndif_models_parked", "gauge", "Models left alone for a while because they kept failing.")
LOAD_SECONDS = Metric(
    "ndif_model_load_duration_seconds",
    "histogram",
    "How long models took from their deployment until they served, by the tier they came from.",
    ("tier",),
    LONG_SECONDS,
)
ACTIONS = Metric(
    "ndif_actions_total",
    "counter",
    "Actions of plans that were handed to Serve, by kind and by what came of the plan.",
    ("kind", "outcome"),
)
ACTIONS_PENDING = Metric(
    "ndif_actions_pending",
    "gauge",
    "Actions of the last plan, by kind: what was not as it should be.",
    ("kind",),
)
NODES = Metric(
    "ndif_nodes",
    "gauge",
    "Nodes by state: open, closed (cordoned or draining), without devices, away.",
    ("state",),
)
DEVICES = Metric("ndif_devices", "gauge", "Devices that models can be placed on.", ("node", "kind"))
DEVICE_CAPACITY = Metric(
    "ndif_device_capacity_bytes", "gauge", "Memory of a node's devices together.", ("node", "kind")
)
DEVICE_MEMORY = Metric(
    "ndif_device_memory_bytes",
    "gauge",
    "The same by who holds it in Ray's books: ours, others, free.",
    ("node", "kind", "holder"),
)
STATE_DISK_FREE = Metric(
    "ndif_disk_free_bytes", "gauge", "Room on the disks of the state directory and of the weights.", ("of",)
)
STATE_DISK_TOTAL = Metric("ndif_disk_capacity_bytes", "gauge", "Size of the same disks.", ("of",))
GATEWAY_UP = Metric("ndif_gateway_up", "gauge", "1 while Serve reports the gateway as running.")
DROPPED = Metric(
    "ndif_telemetry_dropped_total",
    "counter",
    "Points and log lines that were given up because their server was away, by where they should go.",
    ("sink",),
)
SENT = Metric("ndif_telemetry_sent_total", "counter", "Points and log lines that were taken.", ("sink",))

DAEMON: tuple[Metric, ...] = tuple(one for one in list(vars().values()) if isinstance(one, Metric))
"""All of them, in the order of this file."""
