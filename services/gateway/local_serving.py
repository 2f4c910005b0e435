"""The life of versions that we bring to one Triton: staged, loaded, proven, answering, drained, unloaded.

Knows Triton and the staged repository; knows nothing about where routes come from. One lock serialises
everything that changes what Triton holds; `pick` never waits.
"""

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence

import structlog
from grpc_health.v1 import health

from conch.v1 import models_pb2
from services.errors import ServiceError
from services.gateway import dossier
from services.gateway.crew import NoServer
from services.gateway.liveness import CONFIRM_SECONDS, watch
from services.gateway.loading import Loader
from services.gateway.metrics import Metrics
from services.gateway.served import ServedVersion
from services.gateway.servers import Server
from services.gateway.settings import GatewaySettings
from services.gateway.table import FAILED, LOADING, SERVING, Entry, Key, Table, about, keys_of, named
from services.gateway.warming import Warming

log = structlog.get_logger(__name__)

_RETRY_FAILED_SECONDS = 60.0


class LocalServing:
    """A serving.Serving with one Triton, which shares a disk with us."""

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
        self._lock = asyncio.Lock()
        self._server = Server(settings.triton_address)
        self._triton, self._suspicion = self._server.triton, self._server.suspicion
        self._loader = Loader(settings, self._triton)
        self._warming = Warming(settings, metrics)
        self._tasks: set[asyncio.Task[None]] = set()
        metrics.pools.watch("", tokens=self._num_tokens, streams=self._num_streams)
        # Reads go straight to the table: every call picks.
        table = self._table
        self.pick, self.shadow, self.settled = table.pick, table.shadow, table.settled
        self.route, self.routes, self.state = table.route, table.routes, table.state

    async def start(self) -> None:
        """Watches Triton from now on: what it loses is brought back as long as it is routed."""
        self._spawn(watch(self._look, self._suspicion))

    async def close(self) -> None:
        """Stops watching and drains. Triton keeps what it holds."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(e.served.close() for e in self._table.entries.values() if e.served))
        await self._server.close()

    async def prepare(
        self, routes: Sequence[models_pb2.Route], *, wait: bool = True
    ) -> dict[str, ServiceError]:
        """Returns why which of `routes` did not come up; see serving.Serving. Always waits.

        What came up for a model that failed is taken down again.
        """
        wanted = [key for route in routes for key in keys_of(route)]
        async with self._lock:
            self._keep(wanted)
            keys = [key for key in wanted if self._table.state(key)[0] != SERVING]
            try:
                failures = await self._bring_up(keys)
            except BaseException:
                self._leave(wanted)
                raise
            self._leave([key for key in wanted if key[0] in {model for model, _ in failures}])
            await self._settle({model for model, _ in failures})
        return {model: error for (model, _), error in reversed(failures.items())}

    async def shift(self, routes: Iterable[models_pb2.Route], *, drop: Iterable[str] = ()) -> None:
        """Sends calls along `routes`; see serving.Serving."""
        for model in drop:
            self._table.drop(model)
        for route in routes:
            self._keep(keys_of(route))
            self._table.hold(route)
        self._leave(self._table.keys(LOADING, SERVING, FAILED, held=False))
        if self._table.keys(LOADING, held=True):
            self._suspicion.set()
        await self._table.publish()

    def has_moved(self) -> bool:
        return False  # a failure that may pass is tried again by and by

    async def moved(self) -> None:
        await asyncio.sleep(CONFIRM_SECONDS)

    async def pick_later(
        self, lack: NoServer, model: str, version: int, *, num_tokens: int, deadline: float
    ) -> ServedVersion:
        raise lack  # the one Triton that there is comes back with nothing loaded

    async def _look(self) -> bool:
        """Marks what Triton lost and brings it back; returns whether all that is routed was tried."""
        async with self._lock:
            lost = await self._lost()
            if lost:
                log.warning("triton.lost", versions=[named(key) for key in lost])
                for key in lost:
                    self._forget(key)
                await self._table.publish()
            # What failed may be cured: Triton came back empty, or a minute passed.
            retried = self._table.failed(older_than_seconds=0 if lost else _RETRY_FAILED_SECONDS)
            keys = self._table.keys(LOADING, held=True) + retried
            if not keys:
                return True
            if not await self._triton.ready():
                return False
            failures = await self._bring_up(keys)
            await self._settle({model for model, _ in failures})
        return not any(error.retryable for error in failures.values())

    async def _lost(self) -> list[Key]:
        """Returns the versions that Triton does not hold any more, asked twice: busy is not gone."""
        lost = self._table.served()
        for pause in (0.0, CONFIRM_SECONDS):
            if lost:
                await asyncio.sleep(pause)
                lost = [key for key in lost if not await self._triton.model_ready(*key)]
        return lost

    def _forget(self, key: Key) -> None:
        entry = self._table.entries.pop(key)
        if entry.retiring:
            entry.retiring.cancel()
        if entry.served:
            self._spawn(entry.served.close())
        if self._table.is_held(key):
            self._table.entries[key] = Entry()

    async def _bring_up(self, keys: Sequence[Key]) -> dict[Key, ServiceError]:
        """Stages, loads and proves `keys` beside what Triton holds; returns the failures."""
        if not keys:
            return {}
        for key in keys:
            self._table.entries[key] = Entry()
        await self._table.publish()
        versions, failures = await self._loader.load(keys, beside=self._table.served())
        for version in versions:
            key = (version.model, version.version)
            try:
                served = await self._prove(version)
            except ServiceError as error:
                failures[key] = error
            else:
                self._table.entries[key] = Entry(SERVING, served=served)
        failures = {key: about(key, error) for key, error in failures.items()}
        for key, failure in failures.items():
            self._fail(key, failure)
        await self._table.publish()
        return failures

    async def _prove(self, version: models_pb2.Version) -> ServedVersion:
        folder = self._settings.resolved_staged() / version.model / str(version.version)
        found = await asyncio.to_thread(
            dossier.read,
            version,
            folder,
            runtime=self._settings.runtime,
            allow_uncertified=self._settings.allow_uncertified,
        )
        served = self._warming.served(found)
        served.crew.join(await self._warming.prove(found, self._server, True))
        return served

    def _fail(self, key: Key, error: ServiceError) -> None:
        log.warning("version.failed", model=key[0], version=key[1], reason=error.reason, error=error.message)
        self._metrics.forget(*key)
        if not error.retryable:
            self._table.entries[key] = Entry(FAILED, error.message)

    def _keep(self, keys: Iterable[Key]) -> None:
        """Stops the end of versions that are wanted again, if it has not begun."""
        for key in keys:
            entry = self._table.entries.get(key)
            if entry and entry.retiring:
                entry.retiring.cancel()
                entry.retiring = None

    def _leave(self, keys: Iterable[Key]) -> None:
        """Begins the end of those of `keys` that no route names; what failed stays known as FAILED."""
        for key in keys:
            entry = self._table.entries.get(key)
            if entry is None or self._table.is_held(key) or entry.retiring:
                continue
            if entry.served:
                entry.retiring = self._spawn(self._retire(key, entry, entry.served))
            elif entry.state == LOADING:
                del self._table.entries[key]

    async def _retire(self, key: Key, entry: Entry, served: ServedVersion) -> None:
        await asyncio.sleep(self._grace_seconds)
        await served.settle(self._settings.stream_drain_seconds)
        async with self._lock:
            if self._table.entries.get(key) is not entry:
                return  # Triton lost it meanwhile
            # From here on there is no way back: whoever wants the version again brings it up anew.
            del self._table.entries[key]
            await served.close()
            self._metrics.forget(*key)
            await self._settle({key[0]})
            await self._table.publish()
        log.info("version.drained", model=key[0], version=key[1])

    async def _settle(self, models: set[str]) -> None:
        """Makes staged repository and Triton hold of `models` what serves and nothing else."""
        if not models:
            return
        try:
            await self._loader.settle(models, self._table.served())
        except ServiceError as error:
            # It serves all the same; the next change settles this, too.
            log.warning("triton.unsettled", models=sorted(models), error=error.message)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _num_tokens(self) -> int:
        served = [entry.served for entry in list(self._table.entries.values()) if entry.served]
        return sum(version.batcher.num_tokens for version in served if version.batcher)

    def _num_streams(self) -> int:
        served = [entry.served for entry in list(self._table.entries.values()) if entry.served]
        return sum(version.streams.num_streams for version in served if version.streams)
