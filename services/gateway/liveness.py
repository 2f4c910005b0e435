"""Looks at Triton again and again: every second, at once when a call failed, more and more seldom in vain.

Knows when to look; what a look is, and what it brings back, is its owner's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)

CONFIRM_SECONDS = 0.2
"""Until a Triton that did not answer is asked once more: busy is not gone."""

_LIVENESS_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 2.0


async def watch(look: Callable[[], Awaitable[bool]], suspicion: asyncio.Event) -> None:
    """Looks for ever; `look` returns whether all was found well or at least tried."""
    backoff = 0.0
    while True:
        suspicion.clear()
        backoff = 0.0 if await _safely(look) else min(_MAX_BACKOFF_SECONDS, 2 * backoff or 0.1)
        if backoff:
            log.info("triton.awaited", retry_seconds=backoff)
            await asyncio.sleep(backoff)
            continue
        with suppress(TimeoutError):
            await asyncio.wait_for(suspicion.wait(), _LIVENESS_SECONDS)


async def _safely(look: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await look()
    except Exception:
        # A bug must not end the watch: nothing would ever be brought back.
        log.exception("serving.crashed")
        return False
