"""``python -m tests.google_server``: the stand-in for Google Calendar by hand, to drive the daemon from."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.google_server.server import ROBOT, GoogleServer

DESCRIPTION = """\
A Google Calendar of one's own on the loopback interface: token endpoint, Calendar v3 and, for faults and for
what people do in the web page, a control endpoint without a password. Only this machine can reach it.
"""
EXAMPLES = """\
example:
  python -m tests.google_server --port 8970 --write-key /tmp/key.json --state /tmp/google.json

then, in another terminal, the lines it prints for the daemon, and:

  # book a model (times are in the calendar's zone unless they have an offset)
  curl -s http://127.0.0.1:8970/control/calendars/lab/events -d '{"summary": "SmolLM2-135M-Instruct",
    "start": "2026-11-22T09:00", "end": "2026-11-22T10:00", "description": "replicas: 1"}'
  # see what the scheduler wrote into it
  curl -s http://127.0.0.1:8970/control/calendars/lab/events
  # the next three requests fail; everything else there is to command
  curl -s http://127.0.0.1:8970/control/faults -d '{"fault": "error:backendError", "times": 3}'
  curl -s http://127.0.0.1:8970/control
"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.google_server",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=8970, help="port, 0 for a free one (%(default)s)")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="keep calendars and accounts in this JSON file"
    )
    parser.add_argument(
        "--write-key", type=Path, metavar="FILE", help="write a service account's key file there"
    )
    parser.add_argument("--account", default=ROBOT, help="the service account (%(default)s)")
    parser.add_argument("--calendar", default="lab", help="id of the calendar to begin with (%(default)s)")
    parser.add_argument("--time-zone", default="UTC", help="its time zone (%(default)s)")
    parser.add_argument("--role", default="writer", help="what the account may do with it (%(default)s)")
    parser.add_argument("--quota", type=int, default=600, help="requests a minute and account (%(default)s)")
    return parser.parse_args(argv)


def introduction(google: GoogleServer, calendar_id: str, key: Path | None) -> str:
    """What the operator reads: the environment of a daemon driven from here, and how to book."""
    lines = [f"# Google Calendar's stand-in listens on {google.url}; Ctrl-C ends it"]
    if key is None:
        lines.append("# no key file: --write-key FILE makes one")
    else:
        lines.append(f"export SCHEDULING_GOOGLE_CREDS_PATH={key.resolve()}")
    lines += [
        f"export SCHEDULING_GOOGLE_CALENDAR_ID={calendar_id}",
        f"export NDIF_CALENDAR__GOOGLE_ENDPOINT={google.api_endpoint}",
        f"# book: curl -s {google.url}/control/calendars/{calendar_id}/events -d "
        """'{"summary": "SmolLM2-135M-Instruct", "start": "2026-11-22T09:00", "end": "2026-11-22T10:00"}'""",
        f"# look: curl -s {google.url}/control/calendars/{calendar_id}/events",
        f"# more: curl -s {google.url}/control",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGINT or SIGTERM."""
    options = arguments(argv)
    google = GoogleServer(options.port, state=options.state)
    google.knobs.quota_per_minute = options.quota
    calendar = google.calendar(
        options.calendar, options.time_zone, share_with=options.account, role=options.role
    )
    if options.write_key is not None:
        google.write_key(options.write_key, options.account)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    google.start()
    sys.stdout.write(introduction(google, calendar.id, options.write_key))
    sys.stdout.flush()
    ended.wait()
    google.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
