"""One version's streams: so many under way at once, so many waiting for their turn, first come, first served.

Knows deadlines and ends; knows nothing about gRPC, Triton or what is streamed: a stream is written by a
`Writer`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from services.errors import BackendUnavailable, Overloaded
from services.gateway.admission import too_late
from services.gateway.settings import GatewaySettings
from services.tasks.rpcs import Piece, Prompt

_MEMORY = 0.9
_LEAST_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Streams under way at once at each server, and streams that may wait."""

    max_streams: int = 32
    queue_streams: int = 128

    @classmethod
    def of(cls, settings: GatewaySettings) -> "StreamLimits":
        """Returns the limits that the settings ask for."""
        return cls(settings.max_streams, settings.queue_streams)


class Writer(Protocol):
    """Who writes texts for a version; services.gateway.triton_streams.TritonWriter is one."""

    def write(self, prompt: Prompt, *, deadline: float | None) -> AsyncGenerator[Piece, None]:
        """Yields the pieces of one text, `is_last` in the last. Closing it ends the work on it.

        `deadline` is in the event loop's time. Raises one of services.errors.
        """

    def end(self) -> None:
        """Ends all texts under way: they raise BackendUnavailable."""


class StreamObserver(Protocol):
    """Where the numbers of streams can be read."""

    def watch(self, *, inflight: Callable[[], int], waiting: Callable[[], int]) -> None:
        """`inflight()` returns the streams under way now, `waiting()` those that wait."""


class Streams:
    """The streams of one model version; belongs to one event loop."""

    def __init__(
        self, writer: Writer, *, limits: StreamLimits, subject: str, observe: StreamObserver | None = None
    ) -> None:
        self.write = writer.write
        self._writer = writer
        self._limits = limits
        self._max_streams = limits.max_streams
        self._subject = subject
        self._loop = asyncio.get_running_loop()
        self._num_inflight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._mean_seconds = 0.0
        if observe:
            observe.watch(inflight=lambda: self._num_inflight, waiting=lambda: len(self._waiting))

    @asynccontextmanager
    async def turn(self, *, deadline: float | None = None) -> AsyncIterator[None]:
        """Waits for a turn and holds it; `deadline` is in the event loop's time.

        Raises Overloaded if too many wait, DeadlineExceeded if it passes before the turn comes,
        BackendUnavailable if the version is being unloaded.
        """
        await self._enter(deadline)
        began = self._loop.time()
        try:
            yield
        finally:
            seconds = self._loop.time() - began
            self._mean_seconds = _MEMORY * self._mean_seconds + (1 - _MEMORY) * seconds
            self._leave()

    @property
    def num_streams(self) -> int:
        """Streams under way, and those that wait for their turn."""
        return self._num_inflight + len(self._waiting)

    def spread(self, num_servers: int) -> None:
        """Lets as many streams be under way from now on as `num_servers` may write."""
        self._max_streams = num_servers * self._limits.max_streams
        self._fill()

    async def until_idle(self) -> None:
        """Returns once no stream is under way."""
        await self._idle.wait()

    def close(self) -> None:
        """Takes nothing more, and ends what is under way and what waits with BackendUnavailable."""
        self._closing = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(self._unloading())
        self._writer.end()

    async def _enter(self, deadline: float | None) -> None:
        if self._closing:
            raise self._unloading()
        if self._num_inflight < self._max_streams:
            self._begin()
            return
        if len(self._waiting) >= self._limits.queue_streams:
            raise self._overloaded()
        await self._wait(deadline)

    async def _wait(self, deadline: float | None) -> None:
        arrived = self._loop.time()
        future = self._loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except BaseException as error:
            self._give_up(future)
            if isinstance(error, TimeoutError):
                waited = self._loop.time() - arrived
                raise too_late(0.0, f"the request waited {waited:.3f} s for its turn") from error
            raise

    def _give_up(self, future: asyncio.Future[None]) -> None:
        """Takes one that waits no more out of the queue, or hands its turn on if that had just come."""
        if future in self._waiting:
            self._waiting.remove(future)
        elif not future.cancelled() and future.exception() is None:
            self._leave()

    def _begin(self) -> None:
        self._num_inflight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._num_inflight -= 1
        self._fill()
        if not self._num_inflight:
            self._idle.set()

    def _fill(self) -> None:
        while self._waiting and not self._closing and self._num_inflight < self._max_streams:
            future = self._waiting.popleft()
            if not future.done():  # done: given up just now, by one who has not run since
                self._begin()
                future.set_result(None)

    def _unloading(self) -> BackendUnavailable:
        return BackendUnavailable(f"{self._subject} is being unloaded", reason="VERSION_UNLOADING")

    def _overloaded(self) -> Overloaded:
        seconds = self._mean_seconds / self._max_streams
        return Overloaded(
            f"{len(self._waiting)} streams wait for {self._subject}, {self._limits.queue_streams} may",
            reason="QUEUE_FULL",
            subject=self._subject,
            retry_seconds=max(_LEAST_RETRY_SECONDS, seconds),
        )
