"""Reservations in: reads calendars and understands what people wrote in them.

Imports nothing else of this project. Never decides what runs where, never looks a model up,
never asks what time it is: windows come in as parameters.
"""
