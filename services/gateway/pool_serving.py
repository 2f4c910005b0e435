"""Serving over pools of servers that come and go, and that hold what their own pods staged.

Knows which member versions each pool has and when a new route may take hold; stages and loads nothing.
"""

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence

import structlog
from grpc_health.v1 import health

from conch.v1 import models_pb2
from services.errors import BackendUnavailable, NotReady, ServiceError
from services.gateway.bell import Bell
from services.gateway.crew import NoServer
from services.gateway.holding import Holding
from services.gateway.members import Member
from services.gateway.metrics import Metrics
from services.gateway.pool import Pool
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings, PoolSettings
from services.gateway.table import FAILED, Entry, Key, Table
from services.gateway.warming import Warming

log = structlog.get_logger(__name__)

_PROOF_SECONDS = 60.0
_STAGED_SECONDS = 3.0
_UNASKED_SECONDS = 30.0
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
        self._pools = {name: Pool(name, pool, on_change=self._changed) for name, pool in pools.items()}
        self._members: dict[tuple[str, Key], Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_moved = False
        self._seen: object = None
        self._fallbacks: set[tuple[str, str]] = set()
        self.pick = self._table.pick
        self.shadow = self._table.shadow
        self.route = self._table.route
        self.routes = self._table.routes
        self.state = self._table.state
        self.settled = self._table.settled
        for pool in self._pools.values():
            self._watch_numbers(pool)

    async def start(self) -> None:
        """Looks for servers from now on."""
        for pool in self._pools.values():
            pool.start()

    async def close(self) -> None:
        """Looks no more, and drains."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(member.close() for member in self._members.values()))
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    async def prepare(
        self, routes: Sequence[models_pb2.Route], *, wait: bool = True
    ) -> dict[str, ServiceError]:
        """Returns why which of `routes` may not hold yet; see serving.Serving."""
        for route in routes:
            for member in self._members_of(route):
                self._keep(member)
                member.start()
        if wait:
            await self._wait(routes)
        failures = {route.model: error for route in routes if (error := self._lack(route, final=wait))}
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
            for member in self._members_of(route):
                self._keep(member)
                member.start()
                self._table.entries[member.key], member.has_held = member.entry, True
            self._table.hold(route)
        for member in list(self._members.values()):
            if not self._is_held(member) and not member.entry.retiring:
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
        """Returns when all are up or some will not be: proofs may take their time, staging may not."""
        loop = asyncio.get_running_loop()
        end, staged = loop.time() + _PROOF_SECONDS, loop.time() + _STAGED_SECONDS
        while (now := loop.time()) < end:
            lacking = [route for route in routes if self._shortfalls(route)]
            if not lacking or any(m.failure for route in lacking for m in self._newcomers(route)):
                return
            coming = any(m.is_coming for route in lacking for m in self._newcomers(route))
            if now >= staged and not coming:
                return
            await self._bell.wait(0.2)

    def _lack(self, route: models_pb2.Route, *, final: bool) -> ServiceError | None:
        """Returns why a route may not take hold, None if it may. `final`: nobody will ask again."""
        shortfalls = self._shortfalls(route)
        if not shortfalls:
            return None
        newcomers = self._newcomers(route)
        if failure := next((member.failure for member in newcomers if member.failure), None):
            return failure
        unstaged = [m for m in newcomers if m.candidate and not m.candidate.standings and m.pool.num_ready]
        if final and unstaged:
            (model, number), where = unstaged[0].key, unstaged[0].where
            return NotReady(
                f"version {number} of {model} is not staged in {where}: add it to the release's values",
                reason="NOT_STAGED",
            )
        return BackendUnavailable("; ".join(shortfalls), reason="NOT_UP_YET", retry_seconds=1.0)

    def _shortfalls(self, route: models_pb2.Route) -> list[str]:
        held = self._table.route(route.model)
        answering = (
            any(
                member.candidate and member.candidate.answers
                for member in self._members_of(held, known_only=True)
            )
            if held
            else False
        )
        found = [member.shortfall(is_first=not answering) for member in self._newcomers(route)]
        return [shortfall for shortfall in found if shortfall]

    def _newcomers(self, route: models_pb2.Route) -> list[Member]:
        """Returns the versions of a route that do not hold yet in its pool."""
        return [member for member in self._members_of(route) if not self._is_held(member)]

    def _members_of(self, route: models_pb2.Route, *, known_only: bool = False) -> list[Member]:
        numbers = dict.fromkeys([*(v.version for v in route.versions), *filter(None, [route.shadow])])
        places = [(self._pool(route.pool).name, (route.model, number)) for number in numbers]
        if known_only:
            return [self._members[place] for place in places if place in self._members]
        return [self._member(*place) for place in places]

    def _member(self, pool: str, key: Key) -> Member:
        member = self._members.get((pool, key))
        if member is None:
            member = Member(key, self._pools[pool], self._settings, self._warming, self._changed)
            self._members[pool, key] = member
            self._table.entries.setdefault(key, member.entry)
            if not self._table.is_held(key):
                self._table.entries[key] = member.entry
        return member

    def _pool(self, name: str) -> Pool:
        if name in self._pools or len(self._pools) > 1:
            return self._pools[name]
        return next(iter(self._pools.values()))

    def _is_held(self, member: Member) -> bool:
        return self._table.is_held(member.key) and self._table.entries[member.key] is member.entry

    def _keep(self, member: Member) -> None:
        if member.entry.retiring:
            member.entry.retiring.cancel()
            member.entry.retiring = None

    def _abandon(self, route: models_pb2.Route) -> None:
        """Ends what a refused route wanted and nobody else does; what failed stays known as FAILED."""
        for member in self._newcomers(route):
            failure = member.failure
            self._dismiss(member)
            self._spawn(self._close(member))
            if failure and member.key not in self._table.entries:
                self._table.entries[member.key] = Entry(FAILED, failure.message)

    async def _retire(self, member: Member) -> None:
        # What never held may be asked for again at the next look at the routes.
        await asyncio.sleep(self._grace_seconds if member.has_held else _UNASKED_SECONDS)
        if member.candidate:
            await member.candidate.served.settle(self._settings.stream_drain_seconds)
        # From here on there is no way back: whoever wants the version again brings it up anew.
        self._dismiss(member)
        await self._close(member)
        log.info("version.drained", model=member.key[0], version=member.key[1], pool=member.pool.name)

    def _dismiss(self, member: Member) -> None:
        self._members.pop((member.pool.name, member.key), None)
        if self._table.entries.get(member.key) is member.entry:
            del self._table.entries[member.key]

    async def _close(self, member: Member) -> None:
        await member.close()
        if not any(key == member.key for _, key in self._members):
            self._metrics.forget(*member.key)
        await self._table.publish()

    def _changed(self) -> None:
        changed = [member.judge() for member in self._members.values()]
        seen = [member.seen for member in self._members.values()], [p.num_ready for p in self._pools.values()]
        if seen == self._seen and not any(changed):
            return
        self._seen, self._has_moved = seen, True
        self._show_servers()
        self._bell.ring()
        if any(changed):
            self._spawn(self._table.publish())

    def _show_servers(self) -> None:
        fallbacks: dict[tuple[str, str], bool] = {}
        for (pool, (model, version)), member in self._members.items():
            gauge = self._metrics.pools.kept_out.labels(pool, model, str(version))
            gauge.set(member.candidate.num_refused if member.candidate else 0)
            if member.pool.runtime == "tensorrt":
                fallbacks[pool, model] = fallbacks.get((pool, model), False) or member.falls_back
        for place in self._fallbacks - fallbacks.keys():
            self._metrics.pools.fallback.remove(*place)
        for place, falls_back in fallbacks.items():
            self._metrics.pools.fallback.labels(*place).set(falls_back)
        self._fallbacks = set(fallbacks)

    def _watch_numbers(self, pool: Pool) -> None:
        def tokens() -> int:
            held = self._holding.num_tokens[pool.name]
            return held + sum(m.num_tokens for m in list(self._members.values()) if m.pool is pool)

        def held_calls() -> int:
            return self._holding.num_calls[pool.name]

        self._metrics.pools.watch(pool.name, tokens=tokens, held_calls=held_calls, states=pool.states)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
