"""How well bookings are placed, against what could be placed at best: `python -m benchmarks.placement`.

Instances (synthetic weeks, real traces) go through policies (ours, three baselines); every result is replayed
by a checker that knows no policy, and its weight is told as a share of an upper bound. A policy is a function
``(Instance, Setting) -> Result``; `ours.py` is the only module that knows the planner.
"""
