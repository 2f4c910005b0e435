"""A version that a pool is to serve, and how it stands with each of the pool's servers.

Knows proofs by their outcome; knows nothing about routes or how servers are found.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from services.errors import NotReady, ServiceError
from services.gateway.crew import Place
from services.gateway.dossier import Dossier
from services.gateway.served import ServedVersion
from services.gateway.servers import Server

log = structlog.get_logger(__name__)

Prove = Callable[[Dossier, Server, bool], Awaitable[Place]]
"""Proves a version at a server, warming it before if so told."""

_RETRY_REFUSED_SECONDS = 60.0


@dataclass(eq=False)
class Standing:
    """A version at one server: being proven while `task` runs, proven with a place, refused with an error."""

    task: asyncio.Task[None] | None = None
    place: Place | None = None
    refusal: NotReady | None = None
    since: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        """Whether it is to be proven again: a call failed since, or a minute passed since a refusal."""
        if self.task:
            return False
        if self.place:
            return self.place.is_doubted
        return time.monotonic() - self.since >= _RETRY_REFUSED_SECONDS


@dataclass(eq=False)
class Candidate:
    """One version in one pool. `on_change` hears of every place that comes or goes."""

    dossier: Dossier
    served: ServedVersion
    prove: Prove
    on_change: Callable[[], None]
    standings: dict[Server, Standing] = field(default_factory=dict)

    @property
    def num_proving(self) -> int:
        """Servers at which its first proof is under way."""
        return sum(s.task is not None and s.place is None for s in self.standings.values())

    @property
    def num_proven(self) -> int:
        """Ready servers that proved it."""
        return sum(s.place is not None and server.is_ready for server, s in self.standings.items())

    @property
    def refusal(self) -> NotReady | None:
        """Why a server is kept out, None if none is."""
        return next((s.refusal for s in self.standings.values() if s.refusal), None)

    @property
    def num_refused(self) -> int:
        """Servers that are kept out because they answer wrong."""
        return sum(s.refusal is not None for s in self.standings.values())

    @property
    def answers(self) -> bool:
        """Whether any server takes its calls."""
        return bool(self.served.crew.places)

    def meet(self, server: Server, turn: asyncio.Lock) -> None:
        """Begins or ends its standing with a server that was just asked; `turn`: one proof a time there."""
        standing = self.standings.get(server)
        if self.dossier.key not in server.holds:
            if standing:
                self.part(server)
        elif standing is None or standing.is_due:
            standing = self.standings.setdefault(server, Standing())
            work = self._prove(server, standing, turn)
            standing.task = asyncio.get_running_loop().create_task(work)
            self.on_change()

    def part(self, server: Server) -> None:
        """Ends its standing with a server that lost it, left, or died."""
        standing = self.standings.pop(server, None)
        if standing and standing.task:
            standing.task.cancel()
        self.served.crew.leave(server)
        self.on_change()

    def close(self) -> None:
        """Ends all proofs."""
        for server in list(self.standings):
            self.part(server)

    async def _prove(self, server: Server, standing: Standing, turn: asyncio.Lock) -> None:
        try:
            async with turn:
                place = await self.prove(self.dossier, server, standing.place is None)
        except NotReady as error:
            self._refuse(server, standing, error)
        except ServiceError as error:
            log.info(
                "version.unproven", version=self.dossier.name, server=server.address, error=error.message
            )
            if not standing.place:
                self.standings.pop(server, None)  # the next look begins anew
        except Exception:
            log.exception("proof.crashed", version=self.dossier.name, server=server.address)
            self._refuse(server, standing, NotReady("its proof crashed", reason="NOT_PROVEN"))
        else:
            standing.place, standing.refusal = place, None
            self.served.crew.join(place)
        finally:
            standing.task = None
        self.on_change()

    def _refuse(self, server: Server, standing: Standing, error: NotReady) -> None:
        log.warning(
            "version.kept_out",
            model=self.dossier.version.model,
            version=self.dossier.version.version,
            server=server.address,
            reason=error.reason,
            error=error.message,
        )
        standing.place, standing.since = None, time.monotonic()
        standing.refusal = NotReady(f"{error.message} (on {server.address})", reason=error.reason)
        self.served.crew.leave(server)
