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
