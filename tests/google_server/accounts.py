"""Service accounts, their key files, and the token endpoint.

Source: Google's guide "Using OAuth 2.0 for server to server applications" (JWT claims, grant type, errors).
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from tests.google_server.clock import Clock
from tests.google_server.errors import TokenError, invalid_credentials
from tests.google_server.times import Json

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"
"""What google-auth signs as the audience, whatever ``token_uri`` the key file names."""

SCOPE_PREFIX = "https://www.googleapis.com/auth/"
PROJECT = "calendar-stand-in"
CLOCK_SKEW = timedelta(minutes=5)
"""How far in the future a JWT may have been issued; its end must not have passed at all."""


@dataclass(frozen=True)
class Actor:
    """Whoever makes a request. Service accounts cannot invite attendees; people can."""

    email: str
    service_account: bool = False
    scopes: frozenset[str] = frozenset()


@dataclass
class _Token:
    actor: Actor
    expires: datetime


class Accounts:
    """Issues keys and access tokens. ``accounts`` is the part of the state that outlives the process."""

    def __init__(self, accounts: dict[str, Json], now: Clock) -> None:
        self.accounts = accounts
        self.now = now
        self.lifetime = timedelta(hours=1)
        self._tokens: dict[str, _Token] = {}

    def new_key(self, email: str) -> Json:
        """Makes an RSA key for an account (it is created if need be) and answers the key file's content.

        ``token_uri`` is left to whoever writes the file. Older keys of the account stay valid.
        """
        number = len(self.accounts.get(email, {"keys": {}})["keys"])
        key = _rsa_key(email, number)
        key_id = secrets.token_hex(20)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        account = self.accounts.setdefault(email, {"client_id": str(secrets.randbelow(10**21)), "keys": {}})
        account["keys"][key_id] = public
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": key_id,
            "private_key": private,
            "client_email": email,
            "client_id": account["client_id"],
            "universe_domain": "googleapis.com",
        }

    def revoke_keys(self, email: str) -> None:
        """As if the keys had been deleted in the console: the next grant fails with ``invalid_grant``."""
        self.accounts[email]["keys"] = {}

    def expire_tokens(self) -> None:
        """Every access token issued so far is answered with 401 from now on."""
        self._tokens.clear()

    def actor(self, token: str) -> Actor:
        """Whose access token that is; 401 when it is unknown or has expired."""
        held = self._tokens.get(token)
        if held is None or self.now() >= held.expires:
            raise invalid_credentials()
        return held.actor

    def grant(self, body: bytes, token_uri: str) -> Json:
        """Answers ``POST /token``: an access token for a signed JWT."""
        form = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        if form.get("grant_type") != GRANT:
            raise TokenError("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        claims = self._claims(form.get("assertion", ""))
        self._check_times(claims)
        if claims.get("aud") not in (token_uri, GOOGLE_TOKEN_URI):
            raise TokenError("invalid_grant", "Invalid JWT: Failed audience check.")
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes or not all(scope.startswith(SCOPE_PREFIX) for scope in scopes):
            raise TokenError("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        token = f"ya29.c.{secrets.token_urlsafe(48)}"
        self._tokens[token] = _Token(Actor(claims["iss"], True, scopes), self.now() + self.lifetime)
        seconds = int(self.lifetime.total_seconds())
        return {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}

    def _claims(self, assertion: str) -> Json:
        """The claims of a JWT whose signature is that of one of the issuer's keys."""
        try:
            head, payload, signature = assertion.split(".")
            header, claims = json.loads(_decode(head)), json.loads(_decode(payload))
            issuer, algorithm, key_id = claims["iss"], header["alg"], header.get("kid")
            signed = _decode(signature)
        except (ValueError, KeyError, TypeError):
            raise TokenError("invalid_grant", "Invalid JWT: malformed assertion.") from None
        account = self.accounts.get(issuer)
        if account is None:
            raise TokenError("invalid_grant", "Invalid grant: account not found")
        public = load_pem_public_key(account["keys"][key_id].encode()) if key_id in account["keys"] else None
        if algorithm != "RS256" or not isinstance(public, RSAPublicKey):
            raise TokenError("invalid_grant", "Invalid JWT Signature.")
        try:
            public.verify(signed, f"{head}.{payload}".encode(), PKCS1v15(), SHA256())
        except InvalidSignature:
            raise TokenError("invalid_grant", "Invalid JWT Signature.") from None
        return dict(claims)

    def _check_times(self, claims: Json) -> None:
        now = self.now().timestamp()
        issued, expires = claims.get("iat"), claims.get("exp")
        if (
            not isinstance(issued, int | float)
            or not isinstance(expires, int | float)
            or issued > now + CLOCK_SKEW.total_seconds()
            or expires <= now
            or expires - issued > 3600
        ):
            raise TokenError(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim.",
            )


@cache
def _rsa_key(email: str, number: int) -> RSAPrivateKey:
    """An account's n-th key, made once in a process.

    Half as long as Google's: of one of theirs the client spends 40 ms each time to see that it is a good one.
    """
    return generate_private_key(public_exponent=65537, key_size=1024)


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
