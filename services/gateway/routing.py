"""Which routes hold: what was written down, by a person, a release or SetRoute, once it has proven itself.

Knows the order of things: proven, written down, shifted, recorded. Knows nothing about Triton, nor where
routes and ledger are kept.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from conch.v1 import models_pb2
from services import routes as values
from services.errors import InvalidRequest, NotReady, ServiceError
from services.gateway.keeping import Ledger, RoutesSource
from services.gateway.serving import Serving
from services.routes import Revision

log = structlog.get_logger(__name__)

_MAX_BACKOFF_SECONDS = 15.0
_LEDGER_SECONDS = 5.0
Result = TypeVar("Result")


class Routing:
    """Follows the source of routes and changes it. Changes happen one after the other."""

    def __init__(
        self,
        serving: Serving,
        source: RoutesSource,
        ledger: Ledger,
        *,
        pools: Collection[str] = (),
        readonly: bool = False,
        resumes: bool = False,
    ) -> None:
        """`pools` are the names that a route may have; none = there is one pool, without a name.

        `resumes`: what the ledger says last held does so again, until what the routes say now has proven
        itself. A gateway that comes in the middle of a rollout waits for it as the others do.
        """
        self.serving = serving
        self.ledger = ledger
        self._source = source
        self._pools = frozenset(pools)
        self._readonly = readonly
        self._resumes = resumes
        self._problem = ""
        self.known = asyncio.Event()
        """Set once the source was looked at: what it says holds from then on, or comes up."""
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why what holds is not what the routes say, in sentences; empty if it is."""
        return "; ".join(filter(None, (self._source.problem, self._problem)))

    async def start(self) -> None:
        """Serves what the routes say from now on; returns before anything is loaded."""
        await self.serving.start()
        await self.ledger.start()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Follows the routes no more and drains what is served."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.ledger.close()
        await self.serving.close()

    async def set_route(self, route: models_pb2.Route, *, actor: str, reason: str) -> models_pb2.RouteChange:
        """Brings the route's versions up, shifts the model's calls to them, and returns the ledger's line.

        Until the shift, and if anything fails, the old route holds. Raises InvalidRequest, NotFound,
        NotReady with the version's fault, BackendUnavailable.
        """
        if self._readonly:
            raise NotReady("the routes belong to the cluster: change them there", reason="ROUTES_READONLY")
        values.check(route, field="route")
        async with self._lock:
            route = self._completed(values.in_order(route))
            values.check_pool(route, self._pools, field="route")
            failures = await self.serving.prepare([route])
            if failures:
                raise failures[route.model]
            change = models_pb2.RouteChange(actor=actor, reason=reason, after=route)
            change.time.GetCurrentTime()
            # Once it is being written, others may have seen it: no caller can take it back by leaving.
            await _unbroken(self._commit(change))
        change = await self.ledger.entry(change)
        log.info("route.shifted", model=route.model, actor=actor, sequence=change.sequence)
        return change

    async def _commit(self, change: models_pb2.RouteChange) -> None:
        try:
            async with self._source.writing(change, held=self.serving.routes()) as revision:
                await self.ledger.note(revision, [])
        except ServiceError:
            await self.serving.shift([])
            raise
        await self.serving.shift([change.after])

    def _completed(self, route: models_pb2.Route) -> models_pb2.Route:
        """Returns the route in the pool that holds, if it names none."""
        held = self.serving.route(route.model)
        if not route.pool and held:
            route.pool = held.pool
        return self._in_pool(route)

    def _in_pool(self, route: models_pb2.Route) -> models_pb2.Route:
        """Returns the route in the only pool there is, if it names none."""
        if not route.pool and len(self._pools) == 1:
            (route.pool,) = self._pools
        return route

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        backoff, due = 0.0, 0.0
        async for edited in self._source.looks():
            stirred = bool(self._problem) and self.serving.has_moved()
            if not edited and not stirred and (not backoff or loop.time() < due):
                continue
            retry = await self._take_safely()
            self.known.set()
            backoff = min(_MAX_BACKOFF_SECONDS, 2 * backoff or 1.0) if retry else 0.0
            due = loop.time() + backoff

    async def _take_safely(self) -> bool:
        try:
            return await self._take()
        except Exception:
            # A bug must not end the following: no later edit would ever be seen.
            log.exception("routes.crashed")
            return True

    async def _take(self) -> bool:
        """Makes what the routes say hold, model by model; returns whether to try again by and by."""
        async with self._lock:
            if not self._source.exists() and not self.serving.routes().routes:
                return False
            try:
                revision = self._source.read()
            except InvalidRequest as error:
                self._problem = f"{error.message}; the old routes hold"
                log.error("routes.refused", error=error.message)
                return False
            wanted = {r.model: self._in_pool(values.in_order(r)) for r in revision.routes.routes}
            if self._resumes:
                await self._resume(wanted)
            failures = await self._adopt(wanted, revision)
            self._tell(failures)
            noted = await self._note(
                revision, [r for r in self.serving.routes().routes if r in wanted.values()]
            )
        return not noted or any(error.retryable for error in failures.values())

    async def _resume(self, wanted: Mapping[str, models_pb2.Route]) -> None:
        """Lets hold, of the models that are wanted, what held before this gateway was there."""
        self._resumes = False
        try:
            async with asyncio.timeout(_LEDGER_SECONDS):
                newest = await self.ledger.newest()
        except (ServiceError, TimeoutError) as error:
            log.warning("ledger.unread", problem=str(error))
            return
        before = [route for model, route in newest.items() if model in wanted and route.versions]
        strange = self._without_pool(before)
        await self.serving.shift([route for route in before if route.model not in strange])

    async def _adopt(
        self, wanted: Mapping[str, models_pb2.Route], revision: Revision
    ) -> dict[str, ServiceError]:
        """Makes those routes hold that can; returns why each of the others does not."""
        failures = self._without_pool(wanted.values())
        held = {route.model: route for route in self.serving.routes().routes}
        await self._shift(
            [route for model, route in wanted.items() if model not in held.keys() | failures.keys()],
            revision,
            drop=held.keys() - wanted.keys(),
        )
        changed = [route for model, route in wanted.items() if model in held and held[model] != route]
        changed = [route for route in changed if route.model not in failures]
        if changed:
            failures |= await self.serving.prepare(changed, wait=False)
            await self._shift([route for route in changed if route.model not in failures], revision)
        return failures

    async def _shift(
        self, routes: Collection[models_pb2.Route], revision: Revision, *, drop: Collection[str] = ()
    ) -> None:
        await self.serving.shift(routes, drop=drop)
        for model in [*(route.model for route in routes), *sorted(drop)]:
            log.info("route.shifted", model=model, actor=revision.author_of(model), revision=revision.number)

    def _without_pool(self, routes: Iterable[models_pb2.Route]) -> dict[str, ServiceError]:
        failures: dict[str, ServiceError] = {}
        for route in routes:
            try:
                values.check_pool(route, self._pools, field=route.model)
            except InvalidRequest as error:
                failures[route.model] = error
        return failures

    async def _note(self, revision: Revision, held: Iterable[models_pb2.Route]) -> bool:
        """Takes into the ledger what of `revision` holds; returns whether that worked."""
        try:
            await self.ledger.note(revision, held)
        except ServiceError as error:
            log.error("ledger.unwritten", error=error.message)
            return False
        return True

    def _tell(self, failures: Mapping[str, ServiceError]) -> None:
        problem = "; ".join(f"{error.message}; the old route holds" for error in failures.values())
        if problem != self._problem:
            for model, error in failures.items():
                log.error("route.refused", model=model, reason=error.reason, error=error.message)
        self._problem = problem


async def _unbroken(work: Coroutine[Any, Any, Result]) -> Result:
    """Returns what `work` returns; whoever cancels the wait gets his way only when it is done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
