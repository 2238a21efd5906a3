"""The way to a Google calendar, looked over step by step: each step says what is wrong with it alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

from calendars.finding import Finding, failed, unknown
from calendars.google_client import GoogleClient, Listing, Manners
from calendars.google_failures import DISABLED_CODES, QUOTA_CODES, RATE_CODES, GoogleUnavailable
from calendars.write_back import Style

MOST_SECONDS_OFF = 60
"""Google refuses tokens from five minutes on; a minute is already nothing that NTP would leave."""

REQUESTS_PER_MINUTE = 600
"""Google's quota for the Calendar API per user and project."""

_MAY_WRITE = ("writer", "owner", "writerWithoutPrivateAccess")
_ABOUT_CALENDAR = ("sharing", "access role", "time zone", "answering", "quota")


@dataclass(frozen=True)
class Habits:
    """How the service will use the calendar: its style of answers, and how many readings a minute it makes
    of all Google calendars together."""

    style: Style
    readings_per_minute: float


class GoogleCheckup:
    """One calendar's way there, from the key file to the quota. Nothing is written."""

    def __init__(self, manners: Manners, habits: Habits, clock: Callable[[], datetime]) -> None:
        """``clock`` answers what this machine's clock reads, aware."""
        self._manners = manners
        self._habits = habits
        self._clock = clock
        self._client = GoogleClient(manners)
        self._signed_in = False

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def account(self) -> list[Finding]:
        """Credentials, network, clock and access token: what all calendars have in common."""
        key = self._key()
        reached = self._reach()
        if key.outcome == "problem":
            return [key, *reached, unknown("token", "the credentials")]
        return [key, *reached, self._token()]

    def calendar(self, start: datetime, end: datetime) -> list[Finding]:
        """What this calendar answers; to be asked after `account`."""
        if not self._signed_in:
            steps = ("API", *_ABOUT_CALENDAR)
            return [unknown(step, "the access token") for step in steps]
        try:
            listing = self._client.list_events(start, end)
        except GoogleUnavailable as error:
            return self._refused(error)
        title = f"“{listing.title}” is shared with {self._who}" if listing.title else "it is shared"
        count = len(listing.items)
        return [
            Finding(step="API", outcome="ok", found="the Google Calendar API is enabled"),
            Finding(step="sharing", outcome="ok", found=f"{title} and holds {count} events of this time"),
            self._role(listing),
            self._zone(listing),
            self._answering(listing),
            self._quota(),
        ]

    @property
    def _who(self) -> str:
        return self._client.account or "the account of the Application Default Credentials"

    # --- the account ---------------------------------------------------------------------------------

    def _key(self) -> Finding:
        key_file = self._manners.key_file
        step = "credentials" if key_file is None else "key file"
        try:
            self._client.converse(lambda conversation: conversation.sign_in(with_token=False))
        except GoogleUnavailable as error:
            return failed(step, error)
        if key_file is None:
            found = (
                f"Application Default Credentials of {self._client.account or 'an account without a name'}"
            )
            return Finding(step=step, outcome="ok", found=found)
        found = f"{key_file} is a key of {self._who}"
        if os.name == "posix" and key_file.stat().st_mode & 0o077:
            return Finding(
                step=step,
                outcome="note",
                found=f"{found}, but others on this machine can read it",
                remedy=f"chmod 600 {key_file}",
            )
        return Finding(step=step, outcome="ok", found=found)

    def _reach(self) -> list[Finding]:
        where = self._manners.endpoint or "www.googleapis.com"
        try:
            date = self._client.converse(lambda conversation: conversation.knock())
        except GoogleUnavailable as error:
            return [failed("network", error), unknown("clock", "the network")]
        return [
            Finding(step="network", outcome="ok", found=f"{where} answers"),
            clock_finding(date, self._clock()),
        ]

    def _token(self) -> Finding:
        try:
            self._client.converse(lambda conversation: conversation.sign_in(with_token=True))
        except GoogleUnavailable as error:
            return failed("token", error)
        self._signed_in = True
        return Finding(step="token", outcome="ok", found="Google gave an access token")

    # --- the calendar --------------------------------------------------------------------------------

    def _refused(self, error: GoogleUnavailable) -> list[Finding]:
        """The one step that failed, those before it, and those after."""
        codes = set(error.codes)
        ok = Finding(step="API", outcome="ok", found="the Google Calendar API is enabled")
        if codes & (RATE_CODES | QUOTA_CODES) or error.status == 429:
            rest = [unknown(step, "the quota") for step in _ABOUT_CALENDAR[:-1]]
            return [ok, *rest, failed("quota", error)]
        if error.status in (403, 404) and not codes & DISABLED_CODES:
            rest = [unknown(step, "sharing") for step in _ABOUT_CALENDAR[1:]]
            return [ok, failed("sharing", error), *rest]
        return [failed("API", error), *(unknown(step, "the API") for step in _ABOUT_CALENDAR)]

    def _role(self, listing: Listing) -> Finding:
        role = listing.access_role
        if role in ("none", "freeBusyReader"):
            return Finding(
                step="access role",
                outcome="problem",
                found=f"{role}: it shows when people are busy, but not with what",
                remedy=f"In the calendar's settings, let {self._who} “Make changes to events”.",
            )
        may = "it may be read and written" if role in _MAY_WRITE else "it may be read, not written"
        return Finding(step="access role", outcome="ok", found=f"{role or 'not told'}: {may}")

    def _zone(self, listing: Listing) -> Finding:
        try:
            there = self._clock().astimezone(ZoneInfo(listing.zone_name))
        except (KeyError, OSError, ValueError):
            return Finding(
                step="time zone",
                outcome="problem",
                found=f"the calendar's time zone “{listing.zone_name}” is not known here",
                remedy="Choose another in the calendar's settings, or update this machine's time zone data.",
            )
        return Finding(
            step="time zone", outcome="ok", found=f"{listing.zone_name}, where it is {there:%H:%M} now"
        )

    def _answering(self, listing: Listing) -> Finding:
        style = self._habits.style
        if style == "off":
            return Finding(step="answering", outcome="ok", found="off: events are not answered in")
        if listing.access_role not in _MAY_WRITE:
            return Finding(
                step="answering",
                outcome="problem",
                found=f"{style}, but the calendar may not be written; bookings work, and nobody is told",
                remedy=f"In the calendar's settings, let {self._who} “Make changes to events”, or set "
                "NDIF_CALENDAR__WRITE_BACK=off.",
            )
        return Finding(step="answering", outcome="ok", found=f"{style}: events are answered in")

    def _quota(self) -> Finding:
        rate = self._habits.readings_per_minute
        found = f"{rate:.0f} readings a minute; Google allows {REQUESTS_PER_MINUTE} requests by default"
        if rate > REQUESTS_PER_MINUTE / 2:
            return Finding(
                step="quota",
                outcome="problem",
                found=f"{found}, and answering needs some of them",
                remedy="Poll less often: set SCHEDULING_CHECK_INTERVAL_S to a larger number.",
            )
        return Finding(step="quota", outcome="ok", found=found)


def clock_finding(server_date: str, now: datetime) -> Finding:
    """How far this machine's clock is from a ``Date`` header."""
    try:
        off = now - parsedate_to_datetime(server_date)
    except (TypeError, ValueError):
        return Finding(step="clock", outcome="unknown", found="the answer did not say what time it is")
    seconds = round(abs(off) / timedelta(seconds=1))
    if seconds > MOST_SECONDS_OFF:
        return Finding(
            step="clock",
            outcome="problem",
            found=f"this machine's clock is {_length(seconds)} {'ahead' if off > timedelta() else 'behind'}",
            remedy="Set the clock, and keep it right with NTP (timedatectl set-ntp true).",
        )
    return Finding(step="clock", outcome="ok", found=f"this machine's clock is right to {max(seconds, 1)} s")


def _length(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min {seconds % 60} s"
