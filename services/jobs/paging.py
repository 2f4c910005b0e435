"""Page tokens of job lists: opaque to callers, checked when they come back.

A token holds the question it belongs to and the number of the last job sent, so pages neither
repeat nor miss a job while others are created.
"""

import base64
import binascii
from collections.abc import Collection

from conch.v1 import job_pb2
from services.errors import InvalidRequest

DEFAULT_PAGE_SIZE = 50
LARGEST_PAGE_SIZE = 1000


def page_size(asked: int) -> int:
    """Returns the page size to use, the default for 0. Raises InvalidRequest beyond the largest."""
    if asked > LARGEST_PAGE_SIZE:
        raise InvalidRequest.field("page_size", f"must be 1 to {LARGEST_PAGE_SIZE}, is {asked}")
    return asked or DEFAULT_PAGE_SIZE


def state_filter(states: Collection[int]) -> list[int]:
    """Returns the states asked for, sorted; none means all. Raises InvalidRequest for an unknown one."""
    unknown = sorted(set(states) - set(job_pb2.JobStatus.State.values()))
    if unknown:
        raise InvalidRequest.field("states", f"there is no state {unknown[0]}")
    if job_pb2.JobStatus.STATE_UNSPECIFIED in states:
        return []
    return sorted(set(states))


def encode(kind: str, states: Collection[int], number: int) -> str:
    """Returns the token of the page after the job with this number."""
    return base64.urlsafe_b64encode(f"{_question(kind, states)}:{number}".encode()).decode()


def decode(token: str, kind: str, states: Collection[int]) -> int | None:
    """Returns the number of the last job sent, None for an empty token.

    Raises InvalidRequest if the token is none of ours, or belongs to another question.
    """
    if not token:
        return None
    question, _, number = _plain(token).rpartition(":")
    if question != _question(kind, states) or not (number.isascii() and number.isdigit()) or len(number) > 18:
        raise InvalidRequest.field("page_token", "is not the next_page_token of this list")
    return int(number)


def _question(kind: str, states: Collection[int]) -> str:
    return f"{kind}:{','.join(str(state) for state in states)}"


def _plain(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
