"""Wakes all who wait for a change, whoever they are and however many. Knows nothing about what changed."""

import asyncio
from contextlib import suppress


class Bell:
    """Rings for everybody who waits at that moment. Look first, then wait: a ring is not kept."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wakes all who wait."""
        rung, self._event = self._event, asyncio.Event()
        rung.set()

    async def wait(self, limit_seconds: float | None = None) -> None:
        """Returns at the next ring, or after `limit_seconds`."""
        event = self._event
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_seconds):
                await event.wait()
