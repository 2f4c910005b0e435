"""Faults of an API server: rules that say which requests fail, and how."""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

How = Literal["refuse", "after", "cut", "gone", "drop"]


@dataclass
class Fault:
    """Fails the next `times` requests that match.

    `refuse` answers `code` in place of doing anything; `after` does what was asked and then answers `code`;
    `drop` does what was asked and closes the connection without an answer; `cut` closes a watch after its
    first event; `gone` ends a watch by an ERROR event 410.
    """

    verb: str = "*"
    """get, list, watch, create, update, patch, delete; * = any."""
    resource: str = "*"
    """"pods", "batch/jobs", "pods/log"; * = any."""
    how: How = "refuse"
    code: int = 500
    reason: str = "InternalError"
    retry_after_seconds: int | None = None
    times: int = 1
    message: str = "injected"
    name: str = ""
    """Of the object; empty = any."""

    def matches(self, verb: str, resource: str, name: str) -> bool:
        """Says whether a request is one of those that fail."""
        return (
            self.times > 0
            and self.verb in ("*", verb)
            and self.resource in ("*", resource)
            and self.name in ("", name)
        )


@dataclass
class Faults:
    """The rules that hold, first one first."""

    rules: deque[Fault] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """Adds rules."""
        with self.lock:
            self.rules.extend(faults)

    def clear(self) -> None:
        """Ends all rules."""
        with self.lock:
            self.rules.clear()

    def take(self, verb: str, resource: str, name: str) -> Fault | None:
        """Returns the rule that this request falls under, counted down, or None."""
        with self.lock:
            for fault in self.rules:
                if fault.matches(verb, resource, name):
                    fault.times -= 1
                    return fault
        return None


def conflict(**fields: object) -> Fault:
    """Returns a fault that answers 409 Conflict."""
    return Fault(**{"code": 409, "reason": "Conflict", **fields})  # type: ignore[arg-type]


def throttled(seconds: int = 0, **fields: object) -> Fault:
    """Returns a fault that answers 429 with Retry-After."""
    return Fault(
        **{"code": 429, "reason": "TooManyRequests", "retry_after_seconds": seconds, **fields}  # type: ignore[arg-type]
    )
