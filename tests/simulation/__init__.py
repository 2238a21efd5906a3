"""Simulated operation: the real daemon against stand-ins for Google and Ray, on a clock moved by hand.

What lives here: ``fake_ray`` (Ray's dashboard as far as the product uses it; its Serve is ``fake_serve``),
``harness`` (a world made of a clock, a calendar server, a cluster and a daemon), the scripted week, and the
storms (``python -m tests.simulation.storm`` runs more of them). Both stand-ins are reached over HTTP on
loopback, by the product's own clients. Nothing here is imported by the product.
"""
