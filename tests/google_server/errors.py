"""Every error the server answers, with the JSON Google sends.

Sources: Google's guide "Handle API errors" (shapes, reasons, domains); the OAuth guide "Using OAuth 2.0 for
server to server applications" (``invalid_grant`` and its kin); texts quoted in public issue trackers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

API_NAME = "calendar-json.googleapis.com"


@dataclass
class ApiError(Exception):
    """An error of the Calendar API: ``{"error": {"code", "message", "errors": [...]}}``."""

    code: int
    reason: str
    message: str
    domain: str = "global"
    location: str | None = None
    location_type: str = "parameter"
    status: str | None = None
    details: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    first_message: str | None = None

    def body(self) -> bytes:
        first = {
            "domain": self.domain,
            "reason": self.reason,
            "message": self.first_message or self.message,
        }
        if self.location:
            first |= {"locationType": self.location_type, "location": self.location}
        error: dict[str, Any] = {"code": self.code, "message": self.message, "errors": [first]}
        if self.status:
            error["status"] = self.status
        if self.details:
            error["details"] = self.details
        return json.dumps({"error": error}, indent=1).encode()


@dataclass
class TokenError(Exception):
    """An error of the token endpoint: ``{"error", "error_description"}`` with status 400 or 401."""

    error: str
    description: str
    code: int = 400

    def body(self) -> bytes:
        return json.dumps({"error": self.error, "error_description": self.description}).encode()


def bad_request(message: str, location: str | None = None, reason: str = "invalid") -> ApiError:
    return ApiError(400, reason, message, location=location)


def time_range_empty(location: str | None = "timeMax") -> ApiError:
    return ApiError(400, "timeRangeEmpty", "The specified time range is empty.", "calendar", location)


def login_required() -> ApiError:
    return ApiError(
        401,
        "required",
        "Login Required.",
        location="Authorization",
        location_type="header",
        headers={"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'},
    )


def invalid_credentials() -> ApiError:
    return ApiError(
        401,
        "authError",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
        "other valid authentication credential. "
        "See https://developers.google.com/identity/sign-in/web/devconsole-project.",
        location="Authorization",
        location_type="header",
        status="UNAUTHENTICATED",
        first_message="Invalid Credentials",
        headers={
            "WWW-Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"',
        },
    )


def insufficient_scope() -> ApiError:
    return ApiError(
        403,
        "insufficientPermissions",
        "Request had insufficient authentication scopes.",
        status="PERMISSION_DENIED",
        first_message="Insufficient Permission",
        details=[_error_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", {"service": API_NAME})],
    )


def access_not_configured(project: str = "123456789012") -> ApiError:
    url = f"https://console.developers.google.com/apis/api/{API_NAME}/overview?project={project}"
    return ApiError(
        403,
        "accessNotConfigured",
        f"Google Calendar API has not been used in project {project} before or it is disabled. Enable it by "
        f"visiting {url} then retry. If you enabled this API recently, wait a few minutes for the action to "
        "propagate to our systems and retry.",
        "usageLimits",
        status="PERMISSION_DENIED",
        details=[
            {
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [{"description": "Google developers console API activation", "url": url}],
            },
            _error_info("SERVICE_DISABLED", {"service": API_NAME, "consumer": f"projects/{project}"}),
        ],
    )


def writer_required() -> ApiError:
    return ApiError(
        403, "requiredAccessLevel", "You need to have writer access to this calendar.", "calendar"
    )


def forbidden() -> ApiError:
    return ApiError(403, "forbidden", "Forbidden")


def attendees_need_delegation() -> ApiError:
    return ApiError(
        403,
        "forbiddenForServiceAccounts",
        "Service accounts cannot invite attendees without Domain-Wide Delegation of Authority.",
        "calendar",
    )


def not_found() -> ApiError:
    return ApiError(404, "notFound", "Not Found")


def duplicate() -> ApiError:
    return ApiError(409, "duplicate", "The requested identifier already exists.")


def deleted() -> ApiError:
    return ApiError(410, "deleted", "Resource has been deleted")


def full_sync_required() -> ApiError:
    return ApiError(
        410,
        "fullSyncRequired",
        "Sync token is no longer valid, a full sync is required.",
        "calendar",
        "syncToken",
    )


def updated_min_too_long_ago() -> ApiError:
    return ApiError(
        410,
        "updatedMinTooLongAgo",
        "The requested minimum modification time lies too far in the past.",
        "calendar",
        "updatedMin",
    )


def precondition_failed() -> ApiError:
    return ApiError(
        412, "conditionNotMet", "Precondition Failed", location="If-Match", location_type="header"
    )


def rate_limit(code: int = 403) -> ApiError:
    return ApiError(code, "rateLimitExceeded", "Rate Limit Exceeded", "usageLimits")


def user_rate_limit() -> ApiError:
    return ApiError(403, "userRateLimitExceeded", "User Rate Limit Exceeded", "usageLimits")


def quota_exceeded() -> ApiError:
    return ApiError(403, "quotaExceeded", "Calendar usage limits exceeded.", "usageLimits")


def backend_error(code: int = 500) -> ApiError:
    return ApiError(code, "backendError", "Backend Error")


def request_timeout() -> ApiError:
    return ApiError(408, "requestTimeout", "Request Timeout")


def _error_info(reason: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": metadata,
    }


NAMED: dict[str, Callable[[], ApiError | TokenError]] = {
    "badRequest": lambda: bad_request("Bad Request", reason="badRequest"),
    "authError": invalid_credentials,
    "insufficientPermissions": insufficient_scope,
    "accessNotConfigured": access_not_configured,
    "requiredAccessLevel": writer_required,
    "forbidden": forbidden,
    "notFound": not_found,
    "requestTimeout": request_timeout,
    "duplicate": duplicate,
    "deleted": deleted,
    "fullSyncRequired": full_sync_required,
    "updatedMinTooLongAgo": updated_min_too_long_ago,
    "conditionNotMet": precondition_failed,
    "rateLimitExceeded": rate_limit,
    "rateLimitExceeded429": lambda: rate_limit(429),
    "userRateLimitExceeded": user_rate_limit,
    "quotaExceeded": quota_exceeded,
    "backendError": backend_error,
    "badGateway": lambda: backend_error(502),
    "serviceUnavailable": lambda: backend_error(503),
    "gatewayTimeout": lambda: backend_error(504),
    "invalid_grant": lambda: TokenError("invalid_grant", "Invalid JWT Signature."),
    "internal_failure": lambda: TokenError("internal_failure", "Backend Error", 500),
}
"""What a fault of kind ``error`` may name."""
