"""The commands ``ndif-ray keys``: who may use the gateway."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from calendars.called import command
from scheduler.errors import OperatorError
from scheduler.keys import opened
from scheduler.render.plain import escape
from scheduler.settings import load_settings
from serve_apps.gateway.keys import Key

out = Console(highlight=False, soft_wrap=True)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, not text.")


@click.group()
def keys() -> None:
    """Give keys to the people who use the gateway, and take them back.

    They are kept, hashed, in the gateway's folder on the head: run these commands there. What they
    change holds at once; nothing is restarted.
    """


@keys.command()
@click.option("--mail", required=True, metavar="ADDRESS", help="Whose key it is; private bookings go by it.")
@click.option("--tag", "tags", multiple=True, help="A word to sort people by; may be given several times.")
@click.option(
    "--trusted", is_flag=True, help="May run traced blocks, which is running any code on the nodes."
)
@as_json_option
def add(mail: str, tags: tuple[str, ...], trusted: bool, as_json: bool) -> None:
    """Make a key. It is shown now and never again."""
    local, at, domain = mail.strip().partition("@")
    if not (local and at and domain) or any(letter.isspace() for letter in mail.strip()):
        raise OperatorError(f"{mail!r} is not a mail address.", "Give one such as ada@example.org.")
    with opened(load_settings()) as store:
        key, text = store.add(mail.strip(), tags, trusted, datetime.now(UTC))
    if as_json:
        out.out(json.dumps(_as_json(key) | {"key": text}))
        return
    out.print(f"Key {key.id} for {escape(key.mail)}{', trusted with code' if trusted else ''}:")
    out.out(text)
    out.print("It cannot be shown again. Clients set it as NDIF_API_KEY, or as OpenAI's api_key.")


@keys.command("list")
@as_json_option
def list_keys(as_json: bool) -> None:
    """Show all keys; never their secrets."""
    with opened(load_settings()) as store:
        found = store.all()
    if as_json:
        out.out(json.dumps([_as_json(key) for key in found]))
        return
    if not found:
        out.print("There are no keys yet.")
        return
    table = Table("id", "mail", "tags", "trusted", "made", "revoked", box=None)
    for key in found:
        trusted, revoked = "yes" if key.trusted else "", _day(key.revoked)
        table.add_row(
            key.id, escape(key.mail), escape(" ".join(key.tags)), trusted, _day(key.created), revoked
        )
    out.print(table)


@keys.command()
@click.argument("key_id", metavar="ID")
@as_json_option
def revoke(key_id: str, as_json: bool) -> None:
    """End a key by its id. Jobs that were sent with it go on."""
    with opened(load_settings()) as store:
        key = store.revoke(key_id, datetime.now(UTC))
    if key is None:
        raise OperatorError(f"There is no key {key_id!r}.", f"See {command('keys list')} for their ids.")
    if as_json:
        out.out(json.dumps(_as_json(key)))
    else:
        out.print(f"Key {key.id} of {escape(key.mail)} is revoked since {_day(key.revoked)}.")


def _as_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "mail": key.mail,
        "tags": list(key.tags),
        "trusted": key.trusted,
        "created": key.created.isoformat(),
        "revoked": key.revoked and key.revoked.isoformat(),
    }


def _day(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M")
