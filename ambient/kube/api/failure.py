"""What a Kubernetes API server answered instead of what was asked for, as errors of ours that carry its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ambient.errors import InvalidInput, MeshError, Refused, Unavailable


class ApiRefused(Refused):
    """The server understood and will not do it. `status` is the HTTP status, `reason` Kubernetes' word for it."""

    status = 0
    reason = ""


class NotThere(ApiRefused):
    """404: no such object, or no such kind."""


class Conflict(ApiRefused):
    """409: it exists already, or has changed since it was read."""


class Expired(ApiRefused):
    """410: the server does not remember this resourceVersion or continue token any more."""


class Forbidden(ApiRefused):
    """401 or 403: our credentials are not accepted, or may not do this."""


class ApiInvalid(InvalidInput):
    """400, 415 or 422: the server finds what we sent wrong."""

    status = 0
    reason = ""


class ApiUnavailable(Unavailable):
    """The server cannot be reached or cannot answer now. `status` 0: it was not reached.

    `retry_after_s`: how long it asks us to stay away (0 = it did not say). `uncertain`: the request may have been
    carried out all the same.
    """

    status = 0
    reason = ""
    retry_after_s = 0.0
    uncertain = False


_REFUSALS: Mapping[int, type[ApiRefused]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotThere,
    409: Conflict,
    410: Expired,
}


def failure(status: int, request: str, body: bytes, *, retry_after: str = "") -> MeshError:
    """The error for an answer of this status to `request` ("GET /api/v1/pods"); `body` may be anything."""
    message, reason, seconds = _status(body)
    error: ApiRefused | ApiInvalid | ApiUnavailable
    why = message or f"HTTP {status}"
    if status in (400, 415, 422):
        error = ApiInvalid("the Kubernetes API does not accept", request, why)
    elif status == 429 or status >= 500:
        error = ApiUnavailable("the Kubernetes API cannot answer", request, why)
        error.retry_after_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else seconds
        error.uncertain = status != 429
    else:
        error = _REFUSALS.get(status, ApiRefused)("the Kubernetes API refuses", request, why)
    error.status = status
    error.reason = reason
    return error


def unreachable(request: str, why: str, *, uncertain: bool = True) -> ApiUnavailable:
    """The error for a request that got no answer."""
    error = ApiUnavailable("the Kubernetes API cannot be reached", request, why)
    error.uncertain = uncertain
    return error


def _status(body: bytes) -> tuple[str, str, float]:
    """Message, reason and retryAfterSeconds of a Status object; of anything else its beginning as the message."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
    if not isinstance(value, dict) or value.get("kind") != "Status":
        return " ".join(body[:200].decode("utf-8", "replace").split()), "", 0.0
    details = value.get("details")
    seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return str(value.get("message", ""))[:2000], str(value.get("reason", "")), float(seconds or 0)
