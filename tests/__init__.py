"""Tests: one folder per package. ``tests.ray_cluster`` and ``tests.tiny_model`` are shared."""
