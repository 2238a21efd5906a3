"""A stand-in for Google Calendar: the real wire protocol, for the real client libraries.

What lives here: the token endpoint (JWT bearer grant), Calendar v3 under ``/calendar/v3/``, faults on
command, a request log, a Python API for tests and a control endpoint for other processes. It imports nothing
of the product, and the product never imports it. Its answers follow the discovery document that
google-api-python-client ships.

    with google_server() as google:
        key = google.key_file(tmp_path)                       # a service account's key, usable by google-auth
        lab = google.calendar("lab", time_zone="Europe/Berlin")  # shared with that account as writer
        event = lab.add("SmolLM2-135M-Instruct", "2026-11-22T09:00", "2026-11-22T10:00")
        google.faults.add("error:backendError", times=2, path="/events")
        ...                                                   # a client on google.api_endpoint
        lab.event(event["id"])["colorId"]

Weaker than Google, or guessed: push channels, batches, ``acl``, ``freebusy``, ``events.move`` and
``quickAdd`` are not there. A sync token does not tell of instances that vanish because their series' rule was
shortened. A page token is answered anew instead of from a snapshot. Domain sharing, groups and attendees' own
copies of an event do not exist. A JWT up to an hour old is accepted, as its ``exp`` says; requests refused
for quota do not count towards it; what a patch of a deleted event or of a locked event's text answers is a
guess; a series without ``timeMax`` ends after two years. The lists of short answers in Google's guides give
the messages; where they give none, the words are ours and only ``reason`` and status can be relied on.
"""

from tests.google_server.clock import Clock, FakeClock, system_clock
from tests.google_server.faults import Fault
from tests.google_server.people import CalendarHandle
from tests.google_server.server import ROBOT, GoogleServer, google_server

__all__ = [
    "ROBOT",
    "CalendarHandle",
    "Clock",
    "FakeClock",
    "Fault",
    "GoogleServer",
    "google_server",
    "system_clock",
]
