"""Serving over pools of servers that come and go, and that hold what their own pods staged.

Knows which member versions each pool has and when a new route may take hold; stages and loads nothing.
"""

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence

import structlog
from grpc_health.v1 import health

from conch.v1 import models_pb2
from services.errors import ServiceError
from services.gateway import takeover
from services.gateway.bell import Bell
from services.gateway.crew import NoServer
from services.gateway.holding import Holding
from services.gateway.members import Member
from services.gateway.metrics import Metrics
from services.gateway.pool import Pool
from services.gateway.pool_gauges import PoolGauges
from services.gateway.roster import Roster
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings, PoolSettings
from services.gateway.table import FAILED, Entry, Table
from services.gateway.warming import Warming

log = structlog.get_logger(__name__)

# Longer than a refused version waits for its next proof.
_UNASKED_SECONDS = 120.0
_MOVED_SECONDS = 1.0


class PoolServing:
    """A serving.Serving whose Tritons belong to others."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        health: health.aio.HealthServicer,
        metrics: Metrics,
        chance: random.Random | None = None,
        grace_seconds: float = 2.0,
    ) -> None:
        self._settings, self._metrics, self._grace_seconds = settings, metrics, grace_seconds
        self._table = Table(
            health, chance or random.Random(), metrics.route_fell_back, metrics.version_states
        )
        self._bell = Bell()
        self._holding = Holding(
            self._bell, hold_seconds=settings.pool_hold_seconds, queue_tokens=settings.queue_tokens
        )
        self._warming = Warming(settings, metrics)
        pools = settings.pools or {
            "": PoolSettings(address=settings.triton_address, runtime=settings.runtime)
        }
        self._roster = Roster(
            self._table,
            {name: Pool(name, pool, on_change=self._changed) for name, pool in pools.items()},
            lambda key, pool: Member(key, pool, settings, self._warming, self._changed),
        )
        self._gauges = PoolGauges(metrics.pools, self._roster, self._holding)
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_moved = False
        self._seen: object = None
        table = self._table
        self.pick, self.shadow, self.settled = table.pick, table.shadow, table.settled
        self.route, self.routes, self.state = table.route, table.routes, table.state

    async def start(self) -> None:
        """Looks for servers from now on."""
        for pool in self._roster.pools.values():
            pool.start()

    async def close(self) -> None:
        """Looks no more, and drains."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.close() for member in self._roster.members.values()))
        await asyncio.gather(*(pool.close() for pool in self._roster.pools.values()))

    async def prepare(
        self, routes: Sequence[models_pb2.Route], *, wait: bool = True
    ) -> dict[str, ServiceError]:
        """Returns why which of `routes` may not hold yet; see serving.Serving."""
        for route in routes:
            for member in self._roster.members_of(route):
                self._keep(member)
                member.start()
        if wait:
            await self._wait(routes)
        lacks = ((route.model, takeover.lack(self._roster, route, is_final=wait)) for route in routes)
        failures = {model: error for model, error in lacks if error}
        for route in routes if wait else ():
            if route.model in failures:
                self._abandon(route)
        await self._table.publish()
        return failures

    async def shift(self, routes: Iterable[models_pb2.Route], *, drop: Iterable[str] = ()) -> None:
        """Sends calls along `routes`; see serving.Serving."""
        for model in drop:
            self._table.drop(model)
        for route in routes:
            for member in self._roster.members_of(route):
                self._keep(member)
                member.start()
                self._table.entries[member.key], member.has_held = member.entry, True
            self._table.hold(route)
        for member in list(self._roster.members.values()):
            if not self._roster.is_held(member) and not member.entry.retiring:
                member.entry.retiring = self._spawn(self._retire(member))
        self._changed()
        await self._table.publish()

    def has_moved(self) -> bool:
        """Returns whether anything changed at the pools since this was last asked."""
        moved, self._has_moved = self._has_moved, False
        return moved

    async def moved(self) -> None:
        """Returns when something changed at the pools, after a second at the latest."""
        await self._bell.wait(_MOVED_SECONDS)

    async def pick_later(
        self, lack: NoServer, model: str, version: int, *, num_tokens: int, deadline: float
    ) -> ServedVersion:
        """Returns who answers as soon as there is somebody; see serving.Serving."""
        return await self._holding.hold(
            lack, lambda: self.pick(model, version), num_tokens=num_tokens, deadline=deadline
        )

    async def _wait(self, routes: Sequence[models_pb2.Route]) -> None:
        try:
            await takeover.until_decided(self._roster, routes, self._bell)
        except BaseException:
            for route in routes:
                self._abandon(route)
            raise

    def _keep(self, member: Member) -> None:
        if member.entry.retiring:
            member.entry.retiring.cancel()
            member.entry.retiring = None

    def _abandon(self, route: models_pb2.Route) -> None:
        """Ends what a refused route wanted and nobody else does; what failed stays known as FAILED."""
        for member in self._roster.newcomers(route):
            failure = member.failure
            self._roster.dismiss(member)
            self._spawn(self._close(member))
            if failure and member.key not in self._table.entries:
                self._table.entries[member.key] = Entry(FAILED, failure.message)

    async def _retire(self, member: Member) -> None:
        # What never held may be asked for again at the next look at the routes.
        await asyncio.sleep(self._grace_seconds if member.has_held else _UNASKED_SECONDS)
        if member.candidate:
            await member.candidate.served.settle(self._settings.stream_drain_seconds)
        # From here on there is no way back: whoever wants the version again brings it up anew.
        self._roster.dismiss(member)
        await self._close(member)
        log.info("version.drained", model=member.key[0], version=member.key[1], pool=member.pool.name)

    async def _close(self, member: Member) -> None:
        await member.close()
        if not any(key == member.key for _, key in self._roster.members):
            self._metrics.forget(*member.key)
        await self._table.publish()

    def _changed(self) -> None:
        members, pools = self._roster.members.values(), self._roster.pools.values()
        changed = [member.judge() for member in members]
        seen = [member.seen for member in members], [pool.num_ready for pool in pools]
        if seen == self._seen and not any(changed):
            return
        self._seen, self._has_moved = seen, True
        self._gauges.show()
        self._bell.ring()
        if any(changed):
            self._spawn(self._table.publish())

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
