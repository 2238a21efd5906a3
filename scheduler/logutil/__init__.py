"""Logging: loguru everywhere, set up in one place."""
