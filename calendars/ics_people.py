"""Whose a VEVENT is, and who is invited to it."""

from __future__ import annotations

import re
from typing import Any

import icalendar
from icalendar.prop import vBroken


def organiser(component: icalendar.Event) -> str | None:
    """The organizer's mail address."""
    return next((_mail(one) for one in _addresses(component, "ORGANIZER")[:1]), None)


def people(component: icalendar.Event) -> tuple[str, ...]:
    """The mail addresses of the organizer and of the attendees, but not those who declined, and rooms."""
    invited = {_mail(one) for one in _addresses(component, "ATTENDEE") if _is_invited(one)}
    return tuple(sorted({one for one in (*invited, organiser(component)) if one}))


def _addresses(component: icalendar.Event, name: str) -> list[Any]:
    """Every value of a property; one that cannot be read is nobody, since it does not decide the booking."""
    found = component.get(name, [])
    values = found if isinstance(found, list) else [found]
    return [one for one in values if not isinstance(one, vBroken)]


def _is_invited(address: Any) -> bool:
    says = _parameter(address, "PARTSTAT").upper() != "DECLINED"
    return says and _parameter(address, "CUTYPE").upper() not in ("RESOURCE", "ROOM")


def _mail(address: Any) -> str | None:
    """The value, else the EMAIL parameter (RFC 7986 section 6.2)."""
    written = str(address)
    if not written.lower().startswith("mailto:"):
        written = _parameter(address, "EMAIL")
    return re.sub(r"^mailto:", "", written, flags=re.IGNORECASE).split("?")[0].strip().lower() or None


def _parameter(address: Any, name: str) -> str:
    return str(getattr(address, "params", {}).get(name, ""))
