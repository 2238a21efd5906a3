"""Writes dashboards/*.json. A test holds those to it, and every query to the metrics there are.

python compose/dev/grafana/make_dashboards.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import VariableRefresh, VariableSort

sys.path.insert(0, str(Path(__file__).resolve().parent))

from panels import PROMETHEUS, bars, board, lines, log, number, points, row

FOLDER = Path(__file__).resolve().parent / "dashboards"
RATE = "[$__rate_interval]"
DECISIONS = '{service="ndif-ray", component="daemon"} | json | event != "" or events != ""'


def promises() -> Any:
    """What was promised, what came of it, and whether the calendars can be read."""
    settled = 'sum(increase(ndif_promises_total{outcome=~"kept|late|broken"}[7d]))'
    made = board("ndif-promises", "Promises and calendar", "What people booked, and what came of it.", 24)
    return filled(
        made,
        number(
            "Kept in 7 days",
            f'sum(increase(ndif_promises_total{{outcome="kept"}}[7d])) / {settled}',
            "percentunit",
        ),
        number("Bookings that serve or come", 'sum(ndif_reservations{state=~"placed|coming"})'),
        number("Refused or not understood", 'sum(ndif_reservations{state=~"refused|misunderstood"})'),
        number("Begun and not served yet", 'ndif_promises_at_risk{danger="overdue"}', bad_above=1),
        number("Expected too late", 'ndif_promises_at_risk{danger="late"}', bad_above=1),
        number("Oldest reading", "max(ndif_calendar_reading_age_seconds)", "s", bad_above=600),
        row("Promises"),
        lines(
            "What came of promises",
            {"{{outcome}}": "sum by (outcome) (increase(ndif_promises_total[1h]))"},
            about="In the hour before each moment.",
        ),
        lines(
            "Broken, by reason",
            {"{{reason}}": "sum by (reason) (increase(ndif_promises_broken_total[1h])) > 0"},
        ),
        lines(
            "How late models are",
            {
                "half of them": quantile(0.5, "ndif_promise_late_seconds", "1h"),
                "95 of 100": quantile(0.95, "ndif_promise_late_seconds", "1h"),
            },
            "s",
            about="Of those that came within the hour before; a promise that was kept is not late.",
        ),
        lines("In danger", {"{{danger}}": "ndif_promises_at_risk"}),
        row("Bookings and calendars"),
        lines("Events read, by what became of them", {"{{state}}": "ndif_reservations"}, stacked=True),
        lines(
            "What events were newly told",
            {"{{state}}": "sum by (state) (increase(ndif_reservation_changes_total[10m]))"},
        ),
        lines("Age of the last good reading", {"{{calendar}}": "ndif_calendar_reading_age_seconds"}, "s"),
        lines(
            "Readings",
            {
                "{{calendar}}: {{outcome}}": "sum by (calendar, outcome) "
                f"(rate(ndif_calendar_polls_total{RATE}))"
            },
            "reqps",
        ),
        log("Decisions", DECISIONS),
    )


def cluster() -> Any:
    """Nodes, devices, models on them, and the loop that brings them there."""
    made = board("ndif-cluster", "Cluster and models", "What there is, who holds it, what is done to it.", 6)
    return filled(
        made,
        number("Models that serve", 'ndif_models{tier="hot", state="serving"}'),
        number("Loading", 'ndif_models{tier="hot", state="loading"}'),
        number(
            "Failed or left alone",
            'ndif_models{tier="hot", state="failed"} + ndif_models_parked',
            bad_above=1,
        ),
        number("Nodes that take models", 'ndif_nodes{state="open"}'),
        number("Nodes that are gone", 'ndif_nodes{state="away"}', bad_above=1),
        number("Since the last pass", "time() - ndif_daemon_last_pass_timestamp_seconds", "s", bad_above=120),
        row("Devices and models"),
        lines(
            "Memory of all devices, by holder",
            {"{{holder}}": "sum by (holder) (ndif_device_memory_bytes)"},
            "bytes",
            stacked=True,
            about="In Ray's books: what is reserved, not what is touched.",
        ),
        bars(
            "Taken of each node",
            'sum by (node) (ndif_device_memory_bytes{holder!="free"}) '
            "/ sum by (node) (ndif_device_capacity_bytes)",
            "{{node}}",
            "percentunit",
        ),
        lines("Models by tier", {"{{tier}}: {{state}}": "sum by (tier, state) (ndif_models)"}, stacked=True),
        lines(
            "Replicas that are missing",
            {
                "{{model}} on {{node}}": 'ndif_model_replicas{state="wanted"} - ignoring (state) '
                'ndif_model_replicas{state="ready"} > 0'
            },
        ),
        row("Loading"),
        lines(
            "How long loading takes",
            {
                "{{tier}}: half of them": quantile(0.5, "ndif_model_load_duration_seconds", "6h", "tier"),
                "{{tier}}: 95 of 100": quantile(0.95, "ndif_model_load_duration_seconds", "6h", "tier"),
            },
            "s",
        ),
        points("Each load", flux("model_load", "seconds", "model"), "s"),
        row("The daemon"),
        lines(
            "Actions, by what came of them",
            {"{{kind}}: {{outcome}}": "sum by (kind, outcome) (increase(ndif_actions_total[10m])) > 0"},
        ),
        lines("What is not as it should be", {"{{kind}}": "ndif_actions_pending > 0"}, stacked=True),
        lines(
            "Steps of the loop: 95 of 100 take less",
            {"{{step}}": quantile(0.95, "ndif_daemon_step_duration_seconds", "10m", "step")},
            "s",
        ),
        lines(
            "Passes begin so much too late: 95 of 100 less",
            {"lag": quantile(0.95, "ndif_daemon_pass_lag_seconds", "10m")},
            "s",
        ),
        lines("Passes", {"{{outcome}}": f"sum by (outcome) (rate(ndif_daemon_passes_total{RATE}))"}, "reqps"),
        lines("What hinders the loop", {"{{by}}": "ndif_daemon_hindered > 0"}),
        row("Machines"),
        lines("Processors", {"{{ip}}": "avg by (ip) (ray_node_cpu_utilization)"}, "percent"),
        lines(
            "Memory",
            {"{{ip}}": "max by (ip) (ray_node_mem_used / ray_node_mem_total)"},
            "percentunit",
        ),
        lines(
            "Disks in use",
            {"{{ip}}": "max by (ip) (ray_node_disk_utilization_percentage)"},
            "percent",
        ),
        lines("Room on the head", {"{{of}}": "ndif_disk_free_bytes"}, "bytes"),
        log("Warnings and errors", '{service="ndif-ray", level=~"warning|error|critical"} | json'),
    )


def requests() -> Any:
    """Who asks for what, how long it takes, what fails."""
    made = board("ndif-requests", "Requests and users", "What clients ask of the gateway.", 6)
    total = "ray_ndif_gateway_requests_total"
    took = "ray_ndif_gateway_request_duration_seconds"
    return filled(
        made,
        number("Requests per second", f"sum(rate({total}[5m]))", "reqps"),
        number(
            "Of which fail here",
            f'sum(rate({total}{{code=~"500|502|504"}}[5m])) / sum(rate({total}[5m]))',
            "percentunit",
            bad_above=0.05,
        ),
        number("Keys in the last hour", "sum(ray_ndif_gateway_users)"),
        number("Tokens per second", "sum(rate(ray_ndif_gateway_tokens_total[5m]))"),
        number("Waiting", "sum(ray_ndif_gateway_waiting)"),
        number("Open sessions", "sum(ray_ndif_gateway_sessions)"),
        row("Requests"),
        lines("By model", {"{{model}}": f"sum by (model) (rate({total}{RATE}))"}, "reqps", stacked=True),
        lines("By status code", {"{{code}}": f"sum by (code) (rate({total}{RATE}))"}, "reqps", stacked=True),
        lines(
            "How long they take: half of them",
            {"{{route}}": quantile(0.5, took, "5m", "route")},
            "s",
        ),
        lines(
            "How long they take: 95 of 100 take less",
            {"{{route}}": quantile(0.95, took, "5m", "route")},
            "s",
        ),
        lines(
            "Until the first piece of a stream: 95 of 100",
            {"{{model}}": quantile(0.95, "ray_ndif_gateway_first_piece_seconds", "5m", "model")},
            "s",
        ),
        lines(
            "Waiting for a turn: 95 of 100",
            {"{{model}}": quantile(0.95, "ray_ndif_gateway_turn_wait_seconds", "5m", "model")},
            "s",
        ),
        lines(
            "Tokens",
            {"{{model}}: {{kind}}": f"sum by (model, kind) (rate(ray_ndif_gateway_tokens_total{RATE}))"},
            "short",
        ),
        lines(
            "Bytes of answers",
            {"{{model}}": f"sum by (model) (rate(ray_ndif_gateway_response_bytes_total{RATE}))"},
            "Bps",
        ),
        row("Queues and traced blocks"),
        lines(
            "Waiting",
            {"{{model}}: {{kind}}": "sum by (model, kind) (ray_ndif_gateway_waiting)"},
            stacked=True,
        ),
        lines(
            "At a model",
            {"{{model}}: {{kind}}": "sum by (model, kind) (ray_ndif_gateway_running)"},
            stacked=True,
        ),
        lines(
            "Jobs, by their end", {"{{end}}": "sum by (end) (increase(ray_ndif_gateway_jobs_total[10m])) > 0"}
        ),
        lines(
            "Phases of jobs: 95 of 100 take less",
            {"{{phase}}": quantile(0.95, "ray_ndif_gateway_job_phase_seconds", "10m", "phase")},
            "s",
        ),
        points("Sizes of answers to jobs", flux("job", "response_bytes", "model"), "bytes"),
        lines(
            "Lost on the way to other servers",
            {
                "daemon, {{sink}}": "sum by (sink) (increase(ndif_telemetry_dropped_total[10m]))",
                "gateways, {{sink}}": "sum by (sink) "
                "(increase(ray_ndif_gateway_telemetry_dropped_total[10m]))",
            },
        ),
        log("The gateways' log", '{service="ndif-ray", component="gateway"} | json'),
    )


def one_model() -> Any:
    """Everything about one model."""
    made = board("ndif-model", "One model", "Everything about the model chosen above.", 6)
    made.with_variable(
        dashboard.QueryVariable("model")
        .label("Model")
        .datasource(PROMETHEUS)
        .query("label_values(ndif_model_replicas, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    mine = '{model="$model"}'
    return filled(
        made,
        number("Ready replicas", 'sum(ndif_model_replicas{model="$model", state="ready"})'),
        number("Wanted", 'sum(ndif_model_replicas{model="$model", state="wanted"})'),
        number("Requests per second", f"sum(rate(ray_ndif_gateway_requests_total{mine}[5m]))", "reqps"),
        number(
            "Tokens written per second",
            'sum(rate(ray_ndif_gateway_tokens_total{model="$model", kind="completion"}[5m]))',
        ),
        number("Waiting", f"sum(ray_ndif_gateway_waiting{mine})"),
        number("Texts that grow", 'sum(ray_ndif_model_texts{model="$model", state="growing"})'),
        lines(
            "Requests",
            {"{{code}}": f"sum by (code) (rate(ray_ndif_gateway_requests_total{mine}{RATE}))"},
            "reqps",
        ),
        lines(
            "How long requests take",
            {
                "half of them": quantile(0.5, "ray_ndif_gateway_request_duration_seconds", "5m", only=mine),
                "95 of 100": quantile(0.95, "ray_ndif_gateway_request_duration_seconds", "5m", only=mine),
            },
            "s",
        ),
        lines("Tokens", {"{{kind}}": f"sum by (kind) (rate(ray_ndif_gateway_tokens_total{mine}{RATE}))"}),
        lines(
            "At the replicas",
            {
                "texts {{state}}": f"sum by (state) (ray_ndif_model_texts{mine})",
                "waiting to have it alone": f"sum(ray_ndif_model_alone{mine})",
            },
        ),
        lines("Memory of replicas", {"{{of}}": f"sum by (of) (ray_ndif_model_memory_bytes{mine})"}, "bytes"),
        lines("Replicas", {"{{node}}: {{state}}": f"ndif_model_replicas{mine}"}),
        lines(
            "Jobs, by their end",
            {"{{end}}": f"sum by (end) (increase(ray_ndif_gateway_jobs_total{mine}[10m]))"},
        ),
        points("Memory each job held", flux("job", "memory_bytes", "model", "$model"), "bytes"),
        points("How long each load took", flux("model_load", "seconds", "model", "$model"), "s"),
        points("How long jobs ran", flux("job", "running_seconds", "model", "$model"), "s"),
        log(
            "What was decided about it", '{service="ndif-ray", component="daemon"} | json | model = "$model"'
        ),
        log("What is said of it", '{service="ndif-ray"} |= "$model" | json'),
    )


def flux(measurement: str, field: str, by: str, only: str = "") -> str:
    """A field of all points of a kind, in the time that is shown."""
    chosen = f' and r.{by} == "{only}"' if only else ""
    return (
        "from(bucket: v.defaultBucket)\n"
        "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
        f'  |> filter(fn: (r) => r._measurement == "{measurement}" and r._field == "{field}"{chosen})\n'
        f'  |> group(columns: ["{by}"])\n'
        '  |> keep(columns: ["_time", "_value", "{by}"])'.replace("{by}", by)
    )


def quantile(share: float, histogram: str, window: str, by: str = "", only: str = "") -> str:
    """What so much of a histogram lies below, within a window of time."""
    kept = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({kept}) (rate({histogram}_bucket{only}[{window}])))"


def filled(made: Any, *panels: Any) -> Any:
    """The dashboard with its panels and rows, each with a number of its own."""
    for number_of, panel in enumerate(panels, 1):
        panel.id(number_of)
        if isinstance(panel, dashboard.Row):
            made.with_row(panel)
        else:
            made.with_panel(panel)
    return made


MAKERS = {"promises": promises, "cluster": cluster, "requests": requests, "model": one_model}


def made() -> dict[str, str]:
    """Each dashboard as it should stand in its file."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{name}.json": encoder.encode(make().build()) + "\n" for name, make in MAKERS.items()}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in made().items():
        json.loads(text)
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
