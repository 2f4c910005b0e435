"""Where routes come from: the routes file, edited by a person or by SetRoute, and the ledger of changes.

Knows the order of things: proven, written down, shifted, recorded. Knows nothing about Triton.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import structlog

from conch.v1 import models_pb2
from services.errors import InvalidRequest, NotReady, ServiceError
from services.gateway import routes as routes_module
from services.gateway.ledger import Ledger
from services.gateway.routes import RoutesFile
from services.gateway.serving import Serving

log = structlog.get_logger(__name__)

_MAX_BACKOFF_SECONDS = 15.0


class Routing:
    """Follows the routes file and changes it. Changes happen one after the other."""

    def __init__(self, serving: Serving, file: RoutesFile, ledger: Ledger, *, readonly: bool = False) -> None:
        self.serving = serving
        self.ledger = ledger
        self.problem = ""
        """Why what holds is not what the routes file says, in sentences; empty if it is."""
        self._file = file
        self._readonly = readonly
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves what the file says from now on; returns before anything is loaded."""
        await self.serving.start()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def close(self) -> None:
        """Follows the file no more and drains what is served."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.serving.close()

    async def set_route(self, route: models_pb2.Route, *, actor: str, reason: str) -> models_pb2.RouteChange:
        """Brings the route's versions up, shifts the model's calls to them, and returns the ledger's line.

        Until the shift, and if anything fails, the old route holds. Raises InvalidRequest, NotFound,
        NotReady with the version's fault, BackendUnavailable.
        """
        if self._readonly:
            raise NotReady("the routes belong to the cluster: change them there", reason="ROUTES_READONLY")
        routes_module.check(route, field="route")
        route = routes_module.sort(models_pb2.Routes(routes=[route])).routes[0]
        async with self._lock:
            failures = await self.serving.prepare([route])
            if failures:
                raise failures[route.model]
            before = self.serving.route(route.model)
            change = models_pb2.RouteChange(actor=actor, reason=reason, before=before, after=route)
            try:
                # Not in a thread: between the writing and the shift no cancellation can come.
                self._write_down(change)
            except ServiceError:
                await self.serving.shift([])
                raise
            await self.serving.shift([route])
        log.info("route.shifted", model=route.model, actor=actor, sequence=change.sequence)
        return change

    def _write_down(self, change: models_pb2.RouteChange) -> None:
        """Writes file and ledger, both or neither."""
        before = self._routes_in_file()
        self._file.write(routes_module.replace(before, change.after))
        try:
            self.ledger.append(change)
        except ServiceError:
            self._file.write(before)
            raise

    def _routes_in_file(self) -> models_pb2.Routes:
        try:
            return self._file.read()
        except InvalidRequest:
            return self.serving.routes()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        backoff, due = 0.0, 0.0
        async for edited in self._file.looks():
            if not edited and (not backoff or loop.time() < due):
                continue
            retry = await self._take_safely()
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
        """Makes what the file says hold, model by model; returns whether to try again by and by."""
        async with self._lock:
            if not self._file.exists() and not self.serving.routes().routes:
                return False
            try:
                wanted = {route.model: route for route in self._file.read().routes}
            except InvalidRequest as error:
                self.problem = f"{error.message}; the old routes hold"
                log.error("routes.refused", error=error.message)
                return False
            held = {route.model: route for route in self.serving.routes().routes}
            dropped = (held.keys() | self.ledger.models()) - wanted.keys()
            await self._adopt([r for m, r in wanted.items() if m not in held], drop=dropped)
            changed = [route for model, route in wanted.items() if held.get(model) not in (None, route)]
            failures = await self.serving.prepare(changed) if changed else {}
            await self._adopt([route for route in changed if route.model not in failures])
            self._tell(failures)
        return any(error.retryable for error in failures.values())

    async def _adopt(self, routes: Sequence[models_pb2.Route], *, drop: Collection[str] = ()) -> None:
        await self.serving.shift(routes, drop=drop)
        for route in [*routes, *(models_pb2.Route(model=model) for model in sorted(drop))]:
            self._record(route)

    def _record(self, route: models_pb2.Route) -> None:
        before = self.ledger.last(route.model)
        if before == route:
            return
        change = models_pb2.RouteChange(actor="file", before=before, after=route)
        try:
            self.ledger.append(change)
        except ServiceError as error:
            log.error("ledger.unwritten", model=route.model, error=error.message)
        log.info("route.shifted", model=route.model, actor="file", sequence=change.sequence)

    def _tell(self, failures: Mapping[str, ServiceError]) -> None:
        for model, error in failures.items():
            log.error("route.refused", model=model, reason=error.reason, error=error.message)
        self.problem = "; ".join(f"{error.message}; the old route holds" for error in failures.values())
