"""Short ways to say what stands on a dashboard; ``make_dashboards.py`` says it."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    logs,
    loki,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
LOKI = DataSourceRef(type_val="loki", uid="loki")
INFLUX = DataSourceRef(type_val="influxdb", uid="influxdb")
HEIGHT = 8
LETTERS = "ABCDEFGH"


class FluxQuery(variants.Dataquery):
    """A query of InfluxDB, which the library has no builder for."""

    def __init__(self, query: str, letter: str) -> None:
        self.query, self.letter = query, letter

    def to_json(self) -> dict[str, object]:
        return {"refId": self.letter, "query": self.query, "datasource": INFLUX}


class Flux:
    """Builds a ``FluxQuery``."""

    def __init__(self, query: str, letter: str) -> None:
        self._query = FluxQuery(query, letter)

    def build(self) -> FluxQuery:
        return self._query


def number(
    title: str, expr: str, unit: str = "short", *, span: int = 4, bad_above: float | None = None
) -> Any:
    """One figure; red from ``bad_above`` on."""
    panel = stat.Panel().title(title).unit(unit).span(span).height(4).datasource(PROMETHEUS)
    steps = [Threshold(value=None, color="green")]
    if bad_above is not None:
        steps.append(Threshold(value=bad_above, color="red"))
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel.with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A").datasource(PROMETHEUS))


def lines(
    title: str,
    queries: dict[str, str],
    unit: str = "short",
    *,
    span: int = 12,
    stacked: bool = False,
    about: str = "",
) -> Any:
    """Curves over time, by the legends of their queries."""
    panel = _curves(title, unit, span, stacked, about).datasource(PROMETHEUS)
    for letter, (legend, expr) in zip(LETTERS, queries.items(), strict=False):
        target = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter).datasource(PROMETHEUS)
        panel = panel.with_target(target)
    return panel


def points(title: str, query: str, unit: str = "short", *, span: int = 12, about: str = "") -> Any:
    """Single points out of InfluxDB."""
    panel = _curves(title, unit, span, False, about).datasource(INFLUX).draw_style(GraphDrawStyle.POINTS)
    return panel.point_size(6).with_target(Flux(query, "A"))


def bars(title: str, expr: str, legend: str, unit: str = "short", *, span: int = 12, about: str = "") -> Any:
    """Figures side by side, as of now."""
    panel = bargauge.Panel().title(title).unit(unit).span(span).height(HEIGHT).description(about)
    query = prometheus.Dataquery().expr(expr).legend_format(legend).instant().ref_id("A")
    return panel.datasource(PROMETHEUS).with_target(query.datasource(PROMETHEUS))


def log(title: str, expr: str, *, span: int = 24) -> Any:
    """Lines of the log, the newest first."""
    panel = logs.Panel().title(title).span(span).height(10).datasource(LOKI).show_time(True)
    panel = panel.enable_log_details(True).wrap_log_message(True)
    return panel.with_target(loki.Dataquery().expr(expr).ref_id("A").datasource(LOKI))


def board(uid: str, title: str, about: str, hours: int) -> dashboard.Dashboard:
    """An empty dashboard."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["ndif-ray"])
        .refresh("30s")
        .time(f"now-{hours}h", "now")
        .timezone("browser")
        .readonly()
        .tooltip(dashboard_crosshair())
        .link(
            dashboard.DashboardLink("The others")
            .type(_link_type())
            .tags(["ndif-ray"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )


def dashboard_crosshair() -> Any:
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    return DashboardCursorSync.CROSSHAIR


def _link_type() -> Any:
    from grafana_foundation_sdk.models.dashboard import DashboardLinkType

    return DashboardLinkType.DASHBOARDS


def row(title: str) -> Any:
    return dashboard.Row(title)


def _curves(title: str, unit: str, span: int, stacked: bool, about: str) -> Any:
    panel = timeseries.Panel().title(title).unit(unit).span(span).height(HEIGHT).description(about).min(0)
    panel = panel.fill_opacity(40 if stacked else 8).line_width(1).span_nulls(False)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = panel.legend(legend.show_legend(True))
    return panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
