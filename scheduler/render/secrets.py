"""Nothing that opens a door is printed: tokens in error messages, passwords in addresses."""

from __future__ import annotations

import re

from scheduler.types import Plan

HIDDEN = "***"

_KNOWN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{16}"
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]{8,}"
    r"|private-[0-9a-f]{16,})"
)
"""Tokens that are known by how they begin, of the Hub, of code forges, clouds and Google."""
_IN_ADDRESS = re.compile(r"(://)[^/\s:@\"\\]{0,200}:[^/\s@\"\\]{1,200}(?=@)")
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_NAMED = re.compile(
    r"((?:token|secret|password|passwd|api[_-]?key|credential)(?:[_-][\w-]{0,30}|s)?(?:\\?[\"'])?"
    r"\s?[=:]\s?(?:\\?[\"'])?)(?!\d+\b)[^\s\"'\\,;&)}\]]{4,}",
    re.IGNORECASE,
)
"""A value behind a name that says it is secret; plain numbers count tokens and are left."""
_PEM = re.compile(r"(-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----)[^\"]*?(?=-----END|\"|\Z)")


_RULES = (
    (
        _KNOWN,
        HIDDEN,
        ("hf_", *(f"gh{kind}_" for kind in "pousr"), "sk-", "akia", "aiza", "ya29.", "eyj", "private-"),
    ),
    (_IN_ADDRESS, rf"\1{HIDDEN}", ("://",)),
    (_BEARER, rf"\1{HIDDEN}", ("bearer", "basic")),
    (_NAMED, rf"\1{HIDDEN}", ("token", "secret", "passw", "api_key", "api-key", "apikey", "credential")),
    (_PEM, rf"\1{HIDDEN}", ("private key",)),
)
"""Patterns, what stands in place of what they find, and what a text without any of cannot match."""


def without_secrets(text: str) -> str:
    """The same text with whatever looks like a secret hidden; JSON stays JSON."""
    lower = text.lower()
    for pattern, instead, hints in _RULES:
        if any(hint in lower for hint in hints):
            text = pattern.sub(instead, text)
    return text


def plan_without_secrets(plan: Plan) -> Plan:
    """The same plan, fit to be printed or kept in a file."""
    written = plan.model_dump_json()
    clean = without_secrets(written)
    return plan if clean == written else Plan.model_validate_json(clean)
