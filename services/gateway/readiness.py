"""When a gateway as a whole is ready: once every routed version had its chance to prove itself.

Knows the health service's empty name; knows nothing about how versions come up.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from grpc_health.v1 import health, health_pb2

log = structlog.get_logger(__name__)

_LATE_SECONDS = 60.0


class Settles(Protocol):
    """Who knows the routed versions; services.gateway.serving.Serving is one."""

    def settled(self) -> bool:
        """Returns whether every version with a share had its chance."""

    async def moved(self) -> None:
        """Returns when that may have changed, after some time at the latest."""


class Readiness:
    """Turns the gateway's health to SERVING once, and leaves it there."""

    def __init__(self, serving: Settles, checks: health.aio.HealthServicer) -> None:
        self._serving, self._checks = serving, checks
        self._task: asyncio.Task[None] | None = None

    def start(self, routes_known: Callable[[], Awaitable[object]]) -> None:
        """Begins to look, once `routes_known()` returns; without routes it is ready then."""
        self._task = asyncio.get_running_loop().create_task(self._run(routes_known))

    def close(self) -> None:
        """Looks no more."""
        if self._task:
            self._task.cancel()

    async def _run(self, routes_known: Callable[[], Awaitable[object]]) -> None:
        await routes_known()
        try:
            async with asyncio.timeout(_LATE_SECONDS):
                while not self._serving.settled():
                    await self._serving.moved()
        except TimeoutError:
            # One version that does not come must not keep a gateway out for ever.
            log.warning("gateway.late", seconds=_LATE_SECONDS)
        await self._checks.set("", health_pb2.HealthCheckResponse.SERVING)
        log.info("gateway.ready")
