"""A pool: servers that come and go, and the versions that each of them is to prove before it gets calls.

Knows servers and candidates; knows nothing about routes, shares or what is published.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine

import structlog

from services.gateway.candidates import Candidate
from services.gateway.discovery import resolve
from services.gateway.servers import Server
from services.gateway.settings import PoolSettings

log = structlog.get_logger(__name__)

_RESOLVE_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_LAST_CALLS_SECONDS = 300.0
_SETTLING_SECONDS = 5.0


class Pool:
    """The servers of one pool; belongs to one event loop. `on_change` hears of whatever changed."""

    def __init__(self, name: str, settings: PoolSettings, *, on_change: Callable[[], None]) -> None:
        self.name = name
        self.runtime = settings.runtime
        self.servers: dict[str, Server] = {}
        self.is_known = False
        """Whether its address was resolved, and every server of then asked, once."""
        self._address = settings.address
        self._on_change = on_change
        self._candidates: list[Candidate] = []
        self._turns: dict[Server, asyncio.Lock] = {}
        self._was_empty = False
        self._began = -math.inf
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Looks for servers and asks them from now on."""
        self._spawn(self._discover())

    async def close(self) -> None:
        """Asks no more and closes all connections."""
        for candidate in list(self._candidates):
            self.give_up(candidate)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(server.close() for server in self.servers.values()))

    def want(self, candidate: Candidate) -> None:
        """Has every server that holds a version prove it, from now on."""
        if candidate not in self._candidates:
            self._candidates.append(candidate)
            for server in self.servers.values():
                candidate.meet(server, self._turns[server])

    def give_up(self, candidate: Candidate) -> None:
        """Sends a version no more calls and proves it no more."""
        if candidate in self._candidates:
            self._candidates.remove(candidate)
            candidate.close()

    @property
    def num_ready(self) -> int:
        """Servers that answer, hold versions and are here to stay."""
        return sum(server.is_ready for server in self.servers.values())

    @property
    def num_needed(self) -> int:
        """On how many servers a new version must be proven: half of those that are ready, at least 1."""
        return max(1, math.ceil(self.num_ready / 2))

    @property
    def is_settling(self) -> bool:
        """Whether it came from zero just now, so that routes to what its servers hold may still follow."""
        now = time.monotonic()
        if now - self._began >= _SETTLING_SECONDS:
            return False
        if any(candidate.num_proving for candidate in self._candidates):
            self._began = now
        return True

    def states(self) -> dict[str, int]:
        """Returns how many servers are "ready", "proving" something for the first time, "unreachable"."""
        proving = {
            server
            for candidate in self._candidates
            for server, standing in candidate.standings.items()
            if standing.task and not standing.place
        }
        counts = {"ready": 0, "proving": 0, "unreachable": 0}
        for server in list(self.servers.values()):
            state = "proving" if server in proving else "ready" if server.is_reachable else "unreachable"
            counts[state] += 1
        return counts

    async def _discover(self) -> None:
        failing = False
        while True:
            try:
                self._take(await resolve(self._address))
            except (OSError, ValueError) as error:
                # Not knowing is no reason to leave those that answer.
                if not failing:
                    log.warning("pool.unresolved", pool=self.name, address=self._address, error=str(error))
                failing = True
            else:
                failing = False
            await asyncio.sleep(_RESOLVE_SECONDS)

    def _take(self, addresses: frozenset[str]) -> None:
        for address in sorted(addresses - self.servers.keys()):
            server = self.servers[address] = Server(address)
            self._turns[server] = asyncio.Lock()
            log.info("server.found", pool=self.name, server=address)
            self._spawn(self._watch(server))
        changed = False
        for address, server in self.servers.items():
            changed |= server.is_leaving != (address not in addresses)
            server.is_leaving = address not in addresses
        if changed:
            for candidate in self._candidates:
                candidate.served.crew.recount()
        if changed or not addresses:
            self._told()

    async def _watch(self, server: Server) -> None:
        while True:
            was_ready = server.is_ready
            await server.look()
            for candidate in list(self._candidates):
                candidate.meet(server, self._turns[server])
            if server.is_ready != was_ready:
                log.info(
                    "server.ready" if server.is_ready else "server.lost",
                    pool=self.name,
                    server=server.address,
                )
            if server.is_leaving and not server.holds:
                break
            self._told()
            await server.until_due(_LOOK_SECONDS)
        self._drop(server)

    def _drop(self, server: Server) -> None:
        log.info("server.gone", pool=self.name, server=server.address)
        del self.servers[server.address], self._turns[server]
        for candidate in self._candidates:
            candidate.part(server)
        self._spawn(server.close(_LAST_CALLS_SECONDS))
        self._told()

    def _told(self) -> None:
        self.is_known = self.is_known or all(server.was_asked for server in self.servers.values())
        if self._was_empty and self.num_ready:
            self._began = time.monotonic()
        self._was_empty = self.is_known and not self.num_ready
        self._on_change()

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
