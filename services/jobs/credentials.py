"""Proves that who reports on an attempt is its worker: a fresh secret an attempt, kept as its digest alone.

Knows tokens; knows nothing about where they travel or lie.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.errors import InvalidRequest, Unauthenticated

HEADER = "authorization"
_SCHEME = "Bearer "
_LONGEST_RUNNER = 128


@dataclass(frozen=True)
class Caller:
    """Who says to be a worker: of which attempt, by which name, and by what proof."""

    attempt: int
    runner: str
    token: str = field(repr=False)


def new_token() -> str:
    """Returns a fresh secret."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Returns what may be kept of a token: its sha256."""
    return hashlib.sha256(token.encode()).hexdigest()


def check(token: str, kept: str | None) -> None:
    """Raises Unauthenticated unless `kept` is the token's digest, in a time that tells nothing."""
    if kept is None or not hmac.compare_digest(digest(token), kept):
        raise Unauthenticated("the token is not that of the attempt's order", reason="WRONG_TOKEN")


def check_runner(runner: str) -> None:
    """Raises InvalidRequest unless it may name a runner."""
    if not 1 <= len(runner) <= _LONGEST_RUNNER:
        raise InvalidRequest.field("runner", f"must be 1 to {_LONGEST_RUNNER} characters")


def bearer(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Returns the token that came along with a call. Raises Unauthenticated if none did."""
    for key, value in metadata or ():
        if key == HEADER and isinstance(value, str) and value.startswith(_SCHEME):
            return value.removeprefix(_SCHEME)
    raise Unauthenticated(f"`{HEADER}: {_SCHEME}TOKEN` is missing", reason="TOKEN_MISSING")


def header(token: str) -> tuple[tuple[str, str], ...]:
    """Returns the metadata by which a worker shows its token."""
    return ((HEADER, f"{_SCHEME}{token}"),)
