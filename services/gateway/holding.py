"""Calls that wait for a pool without a server, within their deadlines and as many as a queue may hold.

Knows who waits and for how long; knows nothing about what makes servers come.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.errors import BackendUnavailable, Overloaded
from services.gateway.admission import too_late
from services.gateway.bell import Bell
from services.gateway.crew import NoServer
from services.gateway.served import ServedVersion

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 1.0


class Holding:
    """Holds calls by pool, each for `hold_seconds` at the longest, `queue_tokens` of them in one pool."""

    def __init__(self, bell: Bell, *, hold_seconds: float, queue_tokens: int) -> None:
        self.num_calls: Counter[str] = Counter()
        self.num_tokens: Counter[str] = Counter()
        self._bell, self._hold_seconds, self._queue_tokens = bell, hold_seconds, queue_tokens

    async def hold(
        self, lack: NoServer, pick: Callable[[], ServedVersion], *, num_tokens: int, deadline: float
    ) -> ServedVersion:
        """Returns what `pick` returns as soon as it does not lack a server any more.

        Raises Overloaded, DeadlineExceeded, BackendUnavailable if the wait was too long, or what else
        `pick` raises.
        """
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        end = min(deadline, arrived + self._hold_seconds)
        with self._counted(lack.pool, num_tokens):
            while (left := end - loop.time()) > 0:
                await self._bell.wait(min(left, _LOOK_SECONDS))
                try:
                    return pick()
                except NoServer as still:
                    lack = still
        waited = loop.time() - arrived
        if loop.time() >= deadline:
            raise too_late(0.0, f"{lack.message} after {waited:.3f} s")
        raise BackendUnavailable(
            f"{lack.message}, and calls wait for it no longer than {self._hold_seconds:g} s",
            reason="NO_SERVER",
            retry_seconds=_RETRY_SECONDS,
        )

    @contextmanager
    def _counted(self, pool: str, num_tokens: int) -> Iterator[None]:
        if self.num_tokens[pool] + num_tokens > self._queue_tokens:
            raise Overloaded(
                f"{self.num_tokens[pool]} tokens wait for a server of pool {pool}, {self._queue_tokens} may",
                reason="QUEUE_FULL",
                subject=f"pool {pool}",
                retry_seconds=_RETRY_SECONDS,
            )
        self.num_calls[pool] += 1
        self.num_tokens[pool] += num_tokens
        try:
            yield
        finally:
            self.num_calls[pool] -= 1
            self.num_tokens[pool] -= num_tokens
