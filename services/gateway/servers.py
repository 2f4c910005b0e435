"""One Triton server of a pool: whether it answers, what it holds ready, how many calls it has of ours.

Knows one address; knows nothing about proofs, routes or which other servers there are.
"""

import asyncio
from contextlib import suppress

from services.errors import ServiceError
from services.gateway.triton import Triton

Key = tuple[str, int]

_CONFIRM_SECONDS = 0.2
_LEAST_PAUSE_SECONDS = 0.05


class Server:
    """A server and what it said when it was last asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.triton = Triton(address)
        self.num_inflight = 0
        """Calls of ours that it works on."""
        self.holds: frozenset[Key] = frozenset()
        """Versions that it has ready; none while it does not answer."""
        self.is_reachable = False
        self.was_asked = False
        self.is_leaving = False
        """Whether discovery names it no more: used only where nobody else can be."""
        self.suspicion = asyncio.Event()
        """Set by calls that failed here: ask at once."""

    @property
    def is_ready(self) -> bool:
        """Whether it answers, holds versions and is here to stay."""
        return self.is_reachable and bool(self.holds) and not self.is_leaving

    async def look(self) -> None:
        """Asks what it holds, twice before it counts as gone: busy is not gone."""
        self.suspicion.clear()
        for pause in (0.0, _CONFIRM_SECONDS):
            await asyncio.sleep(pause)
            try:
                self.holds = await self.triton.holdings()
            except ServiceError:
                continue
            self.is_reachable = self.was_asked = True
            return
        if self.is_reachable:
            # Of a node that vanished nobody says that it did; its calls would wait for their deadlines.
            self.triton.give_up()
        self.holds, self.is_reachable, self.was_asked = frozenset(), False, True

    async def until_due(self, seconds: float) -> None:
        """Returns when it should be asked again: after `seconds`, or soon after a call failed."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.suspicion.wait(), seconds)
            await asyncio.sleep(_LEAST_PAUSE_SECONDS)

    async def close(self, limit_seconds: float = 0.0) -> None:
        """Closes the connection once no call of ours is under way, after `limit_seconds` at the latest."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_seconds
        while self.num_inflight and loop.time() < end:  # noqa: ASYNC110  # a rare wait, not worth an event
            await asyncio.sleep(0.1)
        await self.triton.close()
