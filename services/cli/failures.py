"""How a verb fails: one readable line on stderr and an exit code. Never a traceback.

    0    done                                4    its state forbids that, or the id is taken
    1    a job failed, a check failed        5    try again: not up, overloaded, too slow
    2    usage, or a field that is wrong     130  interrupted
    3    no such job, model or version       70   a bug of ours

Knows gRPC's statuses and our own errors; knows nothing about verbs.
"""

import re

import grpc

from conch.errors import ConchError, from_rpc_error
from services.errors import ServiceError

FAILED, USAGE, NOT_FOUND, FORBIDDEN, TRY_AGAIN, BUG, INTERRUPTED = 1, 2, 3, 4, 5, 70, 130

_EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: USAGE,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: FORBIDDEN,
    grpc.StatusCode.FAILED_PRECONDITION: FORBIDDEN,
    grpc.StatusCode.PERMISSION_DENIED: FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TRY_AGAIN,
    grpc.StatusCode.UNAVAILABLE: TRY_AGAIN,
    grpc.StatusCode.DEADLINE_EXCEEDED: TRY_AGAIN,
}
_REFUSED = re.compile(r"(?:ipv4|ipv6):(?:%5B)?([^ ]+?:\d+)")


class CliError(Exception):
    """A failure with a sentence for people and an exit code."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def of_rpc(error: grpc.RpcError) -> CliError:
    """Returns the failure behind a failed call."""
    return of_error(from_rpc_error(error))


def of_error(error: ConchError) -> CliError:
    """Returns the failure behind a typed error: message, reason and retry hint on one line."""
    exit_code = _EXIT_CODES.get(error.code, FAILED)
    if (
        isinstance(error.code, grpc.StatusCode)
        and error.code is grpc.StatusCode.UNAVAILABLE
        and not error.reason
    ):
        return CliError(_not_up(error.message), exit_code=exit_code)
    return CliError(describe(error), exit_code=exit_code)


def of_service(error: ServiceError) -> CliError:
    """Returns the failure behind an error that was raised in this very process."""
    codes = {code.value[0]: exit_code for code, exit_code in _EXIT_CODES.items()}
    return CliError(f"{error.message} ({error.reason})", exit_code=codes.get(error.code, FAILED))


def describe(error: ConchError) -> str:
    """Returns `field: what is wrong (REASON); try again in 2 s`, on one line."""
    unsaid = [v for v in error.field_violations if v.description not in error.message]
    parts = [error.message, *(f"{v.field}: {v.description}" for v in unsaid)]
    text = "; ".join(" ".join(part.split()) for part in parts if part) or error.code.name
    text += f" ({error.reason})" if error.reason else f" ({error.code.name})"
    if error.retry_after_seconds is not None:
        text += f"; try again in {error.retry_after_seconds:g} s"
    return text


def _not_up(details: str) -> str:
    found = _REFUSED.search(details)
    where = f" at {found.group(1)}" if found else ""
    return f"nothing answers{where}; start it with: conch up --detach  (what is wrong: conch doctor)"
