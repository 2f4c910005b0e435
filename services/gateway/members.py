"""A version in a pool from the first word of it to its end: its files are fetched, then servers prove it.

Knows the repository and one pool; knows nothing about routes or shares.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from services.errors import ServiceError
from services.gateway import dossier
from services.gateway.candidates import Candidate
from services.gateway.pool import Pool
from services.gateway.settings import GatewaySettings
from services.gateway.table import FAILED, LOADING, SERVING, Entry, Key, State, about, named
from services.gateway.warming import Warming
from services.repository import versions
from services.repository.fetching import READ_BY_GATEWAYS, fetch
from services.targets import runtime_name

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 2.0
_RETRY_FAILED_SECONDS = 60.0


@dataclass(eq=False)
class Member:
    """One version in one pool; `entry` is what the table shows of it."""

    key: Key
    pool: Pool
    settings: GatewaySettings
    warming: Warming
    on_change: Callable[[], None]
    entry: Entry = field(default_factory=Entry)
    candidate: Candidate | None = None
    error: ServiceError | None = None
    """Why its files are not here, None while they are or may come."""
    has_held: bool = False
    """Whether a route that held ever named it."""
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to fetch its files; the pool's servers prove it as soon as they are here."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._come())

    async def close(self) -> None:
        """Takes no more calls; returns once those that were taken are answered."""
        if self._task:
            self._task.cancel()
        if self.candidate:
            # While its servers still answer: what was taken must go somewhere.
            await self.candidate.served.close()
            self.pool.give_up(self.candidate)

    def judge(self) -> bool:
        """Brings the entry up to what the pool's servers say; returns whether it changed."""
        entry = self.entry
        before = (entry.state, entry.reason, entry.awaited)
        entry.state, entry.reason, entry.awaited = self._verdict()
        entry.is_idle = self.candidate is not None and self.pool.is_known and not self.pool.servers
        return before != (entry.state, entry.reason, entry.awaited)

    def shortfall(self, *, is_first: bool) -> str:
        """Returns why it is not up yet, as in "sentiment@4: on 0 of 2 servers of pool cpu"; empty if it is.

        `is_first`: no version that answers now has a server left, so that one of its own is enough.
        """
        num_proven = self.candidate.num_proven if self.candidate else 0
        if num_proven >= (1 if is_first else self.pool.num_needed):
            return ""
        num_ready = self.pool.num_ready
        refused = self.candidate.num_refused if self.candidate else 0
        wrong = f", {refused} kept out" if refused else ""
        return f"{named(self.key)}: on {num_proven} of {num_ready} servers of {self.where}{wrong}"

    @property
    def seen(self) -> tuple[int, int, int] | None:
        """How many servers prove, proved and refused it; None before any could."""
        found = self.candidate
        return (found.num_proving, found.num_proven, found.num_refused) if found else None

    @property
    def num_tokens(self) -> int:
        """Padded tokens of its calls that wait or are on their way."""
        batcher = self.candidate.served.batcher if self.candidate else None
        return batcher.num_tokens if batcher else 0

    @property
    def num_streams(self) -> int:
        """Its streams that wait or are under way."""
        streams = self.candidate.served.streams if self.candidate else None
        return streams.num_streams if streams else 0

    @property
    def falls_back(self) -> bool:
        """Whether a server answers with another runtime than its pool is for."""
        places = self.candidate.served.crew.places if self.candidate else []
        return any(runtime_name(place.served_by.runtime) != self.pool.runtime for place in places)

    @property
    def where(self) -> str:
        """What its pool is called in sentences."""
        return f"pool {self.pool.name}" if self.pool.name else "Triton"

    @property
    def is_coming(self) -> bool:
        """Whether waiting a little may help: its files are on their way, or a server is proving it."""
        if self.candidate is None:
            return self.error is None
        return not self.pool.is_known or self.candidate.num_proving > 0

    @property
    def failure(self) -> ServiceError | None:
        """Why it will not come up as things are, None if it may."""
        error = self.error or (self.candidate.refusal if self.candidate and not self.is_coming else None)
        return about(self.key, error) if error else None

    def _verdict(self) -> tuple[State, str, str | None]:
        if self.candidate is None:
            failed = self.error is not None and not self.error.retryable
            return (FAILED, self.error.message, None) if failed and self.error else (LOADING, "", None)
        if self.candidate.answers:
            return SERVING, "", None
        if not self.is_coming and self.candidate.refusal:
            return FAILED, about(self.key, self.candidate.refusal).message, None
        waits = self.is_coming or not self.pool.num_ready or self.pool.is_settling
        return LOADING, "", self.pool.name if waits else None

    async def _come(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(self._read)
            except ServiceError as error:
                self.error = about(self.key, error)
                log.warning(
                    "version.unread", version=named(self.key), reason=error.reason, error=error.message
                )
                self.on_change()
                await asyncio.sleep(_RETRY_SECONDS if error.retryable else _RETRY_FAILED_SECONDS)
            else:
                break
        self.error = None
        served = self.warming.served(found, pool=self.pool.name)
        self.candidate = Candidate(found, served, self.warming.prove, self.on_change)
        self.entry.served = served
        self.pool.want(self.candidate)
        self.on_change()

    def _read(self) -> dossier.Dossier:
        version = versions.read_version(self.settings.resolved_repository_uri(), *self.key)
        folder = self.settings.resolved_home() / "versions" / version.digest
        fetch(version, folder, READ_BY_GATEWAYS)
        return dossier.read(
            version,
            folder,
            runtime=self.pool.runtime,
            allow_uncertified=self.settings.allow_uncertified,
        )
