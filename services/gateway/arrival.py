"""What every rpc does first: how long there is, who answers, and whether that is a question for him.

Knows requests in what they have in common; knows nothing about how answers are made. Of gRPC only the
caller's deadline.
"""

import asyncio
from typing import Any, Protocol, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from services.errors import InvalidRequest, NotReady
from services.gateway.admission import too_late
from services.gateway.crew import NoServer
from services.gateway.served import ServedVersion


class AnyRequest(Protocol):
    """What every request for answers has."""

    model: str
    version: int


class Caller(Protocol):
    """Who waits for the answer; grpc.aio's ServicerContext is one."""

    def time_remaining(self) -> float | None:
        """Returns the seconds until the caller's deadline, None if there is none."""


class Picks(Protocol):
    """Who knows the versions that are served; services.gateway.serving.Serving is one."""

    def pick(self, model: str, version: int) -> ServedVersion:
        """Returns the version that answers; `version` 0 leaves the choice to the route.

        Raises NotFound if it is not routed here, BackendUnavailable if it does not serve yet, NoServer if
        it soon may.
        """

    async def pick_later(
        self, lack: NoServer, model: str, version: int, *, num_tokens: int, deadline: float
    ) -> ServedVersion:
        """Returns who answers a call that nobody could take, as soon as there is somebody.

        Raises `lack` if that is not worth waiting for, DeadlineExceeded, Overloaded, and what `pick` raises.
        """

    def shadow(self, model: str, answered: int) -> ServedVersion | None:
        """Returns who gets a copy of a call that version `answered` has a share of, None if nobody."""


def deadline_of(caller: Caller, *, default_seconds: float, reserve_seconds: float) -> float:
    """Returns when Triton must have answered, in the event loop's time. Raises DeadlineExceeded."""
    remaining = caller.time_remaining()
    if remaining is None:
        remaining = default_seconds
    left = remaining - reserve_seconds
    if left <= 0:
        raise too_late(-left, f"{remaining:.3f} s were left when the request arrived")
    return asyncio.get_running_loop().time() + left


def pick(serving: Picks, request: AnyRequest) -> ServedVersion:
    """Returns who answers a request. Raises InvalidRequest, NotFound, BackendUnavailable."""
    if not request.model:
        raise InvalidRequest.field("model", "is required", reason="NO_MODEL")
    return serving.pick(request.model, request.version)


async def pick_later(serving: Picks, request: AnyRequest, lack: NoServer, deadline: float) -> ServedVersion:
    """Returns who answers a request that nobody could take, as soon as there is somebody.

    Raises `lack` if that is not worth waiting for, DeadlineExceeded, Overloaded, and what `pick` raises.
    """
    # Nobody has encoded it yet: four bytes a token is near enough for a bound.
    num_tokens = cast(Message, request).ByteSize() // 4 + 1
    return await serving.pick_later(
        lack, request.model, request.version, num_tokens=num_tokens, deadline=deadline
    )


def rpc_of(name: str, served: ServedVersion) -> Any:
    """Returns what a version's task says of the rpc `name`. Raises NotReady if it does not answer that."""
    task = served.task
    if name not in task.rpcs:
        rpcs = ", ".join(task.rpcs)
        message = f"{served.served_by.model} answers {task.id} ({rpcs}), not {name}"
        raise NotReady(message, reason="OTHER_TASK")
    return task.rpcs[name]


def set_seconds(duration: Duration, seconds: float) -> None:
    """Writes a time of 0 or more into a message."""
    whole = int(seconds)
    duration.seconds = whole
    duration.nanos = int((seconds - whole) * 1e9)
