"""Asks again what did not answer, for as long as it takes.

Knows BackendUnavailable; knows nothing about who raises it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import structlog

from services.errors import BackendUnavailable

log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 1.0


async def persistently(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what `call` returns; what is unavailable is asked again."""
    while True:
        try:
            return await call(*args, **kwargs)
        except BackendUnavailable as error:
            log.warning("executor.missed", problem=error.message, retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)


async def stored(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what the store's `call` returns, in a thread; a database that is away is asked again."""
    while True:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except BackendUnavailable as error:
            log.warning("database.missed", problem=error.message, retry_seconds=RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)
