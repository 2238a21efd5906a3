"""The detached actor ``Controller`` (namespace ``NDIF``): how other services reach the daemon through Ray.

``desk`` is what it knows and answers, without Ray. ``process`` is the small child process of the daemon
that holds the Ray driver: a driver ends its whole process when its cluster's head is lost, and must
not take the daemon with it.
"""
