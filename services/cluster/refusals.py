"""What an API server's refusals mean: the ServiceError that each is, and whether asking again may help."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from services.errors import (
    AlreadyExists,
    BackendUnavailable,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReady,
    ServiceError,
    Unauthenticated,
)

CHANGED = "OBJECT_CHANGED"
"""Reason of the NotReady that a write from an old resourceVersion is."""
EXPIRED = "VERSION_EXPIRED"
"""Reason of the NotReady that a watch from a forgotten resourceVersion is: list anew."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class Refusal(Exception):  # noqa: N818  # an answer, which becomes an error or another try
    """A request that was not answered as wished."""

    def __init__(
        self, error: ServiceError, *, may_pass: bool = False, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.may_pass = may_pass
        self.retry_after_seconds = retry_after_seconds


def refused(data: bytes, status: int, headers: Mapping[str, str]) -> Refusal:
    """Returns the refusal that an answer of this HTTP status is."""
    reason, message = _told(data)
    retry_after = _seconds(headers.get("Retry-After", ""))
    if status in _PASSING:
        error = BackendUnavailable(
            f"the Kubernetes API server answered {status}: {message}",
            reason="CLUSTER_UNAVAILABLE",
            retry_seconds=retry_after or 1.0,
        )
        return Refusal(error, may_pass=True, retry_after_seconds=retry_after)
    return Refusal(_error(status, reason, message))


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the connection fails by into BackendUnavailable."""
    import aiohttp

    try:
        yield
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        message = f"the Kubernetes API server does not answer: {error or type(error).__name__}"
        raise BackendUnavailable(message, reason="CLUSTER_UNAVAILABLE") from error


@contextmanager
def unavailable() -> Iterator[None]:
    """Turns whatever a cluster refuses into BackendUnavailable: for those who can but ask again."""
    try:
        yield
    except BackendUnavailable:
        raise
    except ServiceError as error:
        raise BackendUnavailable(error.message, reason=error.reason) from error


def _error(status: int, reason: str, message: str) -> ServiceError:
    if status == 404:
        return NotFound(message, reason="NOT_IN_CLUSTER")
    if status == 409:
        return (
            AlreadyExists(message, reason="IN_CLUSTER_ALREADY")
            if reason == "AlreadyExists"
            else NotReady(message, reason=CHANGED)
        )
    if status == 410:
        return NotReady(message, reason=EXPIRED)
    if status == 401:
        return Unauthenticated(f"the Kubernetes API server: {message}", reason="CLUSTER_UNAUTHENTICATED")
    if status == 403:
        return Forbidden(f"the Kubernetes API server: {message}", reason="CLUSTER_FORBIDDEN")
    return InvalidRequest.field("object", f"the Kubernetes API server: {message}", reason="CLUSTER_REFUSED")


def _told(data: bytes) -> tuple[str, str]:
    try:
        status = json.loads(data)
        return status.get("reason") or "", status.get("message") or "no message"
    except (ValueError, AttributeError):
        # A proxy on the way answers in words of its own.
        return "", data.decode(errors="replace")[:200].strip() or "no message"


def _seconds(header: str) -> float:
    return float(header) if header.isdigit() else 0.0
