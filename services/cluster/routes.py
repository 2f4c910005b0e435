"""The ConfigMap of the routes: followed by every gateway, written by SetRoute and by releases of the chart.

Knows the watch, the conflict and the mounted file; knows nothing about what routes do.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from conch.v1 import models_pb2
from services import routes as values
from services.cluster.client import Cluster
from services.cluster.objects import CONFIG_MAPS, Object
from services.cluster.refusals import CHANGED
from services.cluster.revisions import NOBODY, number_of, patch_of, revision_of, signed_of
from services.cluster.watching import Watched, stopped
from services.errors import BackendUnavailable, InvalidRequest, NotFound, NotReady
from services.routes import Revision

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.5
# The file may be a minute older than the ConfigMap that it is mounted from.
_FIRST_ANSWER_SECONDS = 2.0
_WATCH_SECONDS = 60
_TRIES = 20
_LONGEST_PAUSE_SECONDS = 0.2


class RoutesConfigMap:
    """A gateway.keeping.RoutesSource: what the API server says, and until it does the mounted file."""

    def __init__(self, cluster: Cluster, name: str, *, mounted: Path) -> None:
        self._cluster = cluster
        self._name = name
        self._mounted = mounted
        self._watched = Watched(
            cluster,
            CONFIG_MAPS,
            fields=f"metadata.name={name}",
            watch_seconds=_WATCH_SECONDS,
            on_change=lambda _, obj: self._see(obj),
        )
        self._newest: Object | None = None
        self._written = 0
        self._changed = asyncio.Event()

    @property
    def problem(self) -> str:
        """Why the routes may have changed without our knowing, as a sentence; empty while we follow them."""
        why = self._watched.problem
        return f"{why}; changes of ConfigMap {self._name} are not seen" if why else ""

    async def looks(self) -> AsyncIterator[bool]:
        """Yields soon, at every change, and every half second all the same; True = something changed."""
        watching = asyncio.create_task(self._watched.run())
        try:
            await _within(_FIRST_ANSWER_SECONDS, self._watched.synced)
            answered, mounted = self._watched.synced.is_set(), self._mounted_bytes()
            self._changed.clear()
            yield True
            while True:
                await _within(_LOOK_SECONDS, self._changed)
                before = answered, mounted
                answered = self._watched.synced.is_set()
                mounted = b"" if answered else self._mounted_bytes()
                changed = self._changed.is_set() or before != (answered, mounted)
                self._changed.clear()
                yield changed
        finally:
            await stopped(watching)

    def exists(self) -> bool:
        """Returns whether there is anything to read, or an answer that says why not."""
        return self._watched.synced.is_set() or self._mounted.is_file()

    def read(self) -> Revision:
        """Returns the newest routes. Raises InvalidRequest that says what is wrong with them."""
        if not self._watched.synced.is_set():
            return self._read_mounted()
        if self._newest is None:
            raise InvalidRequest.field(
                "routes",
                f"there is no ConfigMap {self._name} in namespace {self._cluster.namespace}",
                reason="INVALID_ROUTES",
            )
        return revision_of(self._newest)

    @asynccontextmanager
    async def writing(
        self, change: models_pb2.RouteChange, *, held: models_pb2.Routes
    ) -> AsyncIterator[Revision]:
        """Writes one model's route into the ConfigMap, for good: others may have taken it up the next moment.

        Raises NotReady if there is no such ConfigMap, BackendUnavailable if the API server does not answer
        or others write all the time.
        """
        yield await self._write(change, held)

    async def _write(self, change: models_pb2.RouteChange, held: models_pb2.Routes) -> Revision:
        for _ in range(_TRIES):
            present = await self._get()
            if any(signed.change == change for signed in signed_of(present)):
                # The answer to our patch was lost and asked for again.
                return self._wrote(present)
            try:
                return self._wrote(
                    await self._cluster.patch(CONFIG_MAPS, self._name, patch_of(present, change, held))
                )
            except NotReady as error:
                if error.reason != CHANGED:
                    raise
                log.info("routes.contended", name=self._name, model=change.after.model)
                await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE_SECONDS))
        raise BackendUnavailable(f"others change ConfigMap {self._name} all the time", reason="CONTENDED")

    async def _get(self) -> Object:
        try:
            return await self._cluster.get(CONFIG_MAPS, self._name)
        except NotFound as error:
            message = f"there is no ConfigMap {self._name}: the chart makes it"
            raise NotReady(message, reason="NO_ROUTES") from error

    def _wrote(self, obj: Object) -> Revision:
        self._written = number_of(obj)
        if self._newest is None or number_of(self._newest) < self._written:
            self._newest = obj
        return revision_of(obj)

    def _see(self, obj: Object | None) -> None:
        if obj is not None and number_of(obj) < self._written:
            return  # told before we wrote; what we wrote follows
        self._written = 0
        self._newest = obj
        self._changed.set()

    def _read_mounted(self) -> Revision:
        try:
            return Revision(values.parse(self._mounted.read_text(encoding="utf-8")), actor=NOBODY)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest.field(
                self._mounted.name, f"cannot be read: {error}", reason="INVALID_ROUTES"
            ) from error

    def _mounted_bytes(self) -> bytes:
        try:
            return self._mounted.read_bytes()
        except OSError:
            return b""


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
