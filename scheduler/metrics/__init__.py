"""Metrics: what the daemon counts, times and has on its board, for Prometheus and InfluxDB.

Reads what the loop tells it and never decides; nothing waits for it. ``telemetry`` puts it together,
``table`` names every metric, docs/metrics.md is made from it.
"""
