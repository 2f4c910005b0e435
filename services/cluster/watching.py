"""The objects of one kind as the API server last told: listed once, then watched for ever.

Knows resourceVersions, bookmarks, 410 Gone and broken connections; knows nothing about what the objects mean.

    jobs = Watched(cluster, JOBS, labels="conch/kind=training", on_change=changed)
    task = asyncio.create_task(jobs.run())
    await jobs.synced.wait()
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from services.cluster.client import Cluster
from services.cluster.objects import Object, Resource
from services.cluster.refusals import EXPIRED
from services.errors import NotReady, ServiceError

log = structlog.get_logger(__name__)

_FIRST_BACKOFF_SECONDS = 0.05
_LONGEST_BACKOFF_SECONDS = 5.0

OnChange = Callable[[str, Object | None], None]


class Watched:
    """`objects` by name. `on_change(name, object)` is called at every change, with None once one is gone.

    It sees each object's newest state, not each state: what happened while the connection was broken comes as
    one change. `on_listed()` is called whenever `objects` was listed anew: what came and went in between told
    nobody. Neither may raise or block.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        *,
        labels: str = "",
        fields: str = "",
        watch_seconds: int = 300,
        on_change: OnChange = lambda name, obj: None,
        on_listed: Callable[[], None] = lambda: None,
    ) -> None:
        """A server that is gone without a word is noticed `watch_seconds` and some later at most."""
        self._cluster = cluster
        self._resource = resource
        self._labels = labels
        self._fields = fields
        self._on_change = on_change
        self._on_listed = on_listed
        self._watch_seconds = watch_seconds
        self._version = ""
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self.objects: dict[str, Object] = {}
        self.synced = asyncio.Event()
        """Set once `objects` was complete for the first time."""
        self.problem = ""
        """Why `objects` may be out of date, as a sentence; empty while the server answers."""

    async def run(self) -> NoReturn:
        """Follows the cluster until cancelled, whatever fails."""
        while True:
            began = asyncio.get_running_loop().time()
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                self.problem = ""
            except ServiceError as error:
                self._note(error)
            if asyncio.get_running_loop().time() - began < _LONGEST_BACKOFF_SECONDS:
                await self._pause()
            else:
                self._backoff_seconds = _FIRST_BACKOFF_SECONDS

    async def _list(self) -> None:
        items, version = await self._cluster.list(self._resource, labels=self._labels, fields=self._fields)
        present = {item["metadata"]["name"]: item for item in items}
        for name in self.objects.keys() - present.keys():
            self._take(name, None)
        for name, obj in present.items():
            if _version(obj) != _version(self.objects.get(name)):
                self._take(name, obj)
        self._version = version
        self.synced.set()
        self._on_listed()

    async def _watch(self) -> None:
        watch = self._cluster.watch(
            self._resource,
            version=self._version,
            labels=self._labels,
            fields=self._fields,
            seconds=self._watch_seconds,
        )
        async with watch as events:
            self.problem = ""
            async for event in events:
                self._backoff_seconds = _FIRST_BACKOFF_SECONDS
                obj = event["object"]
                self._version = obj["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(obj["metadata"]["name"], None if event["type"] == "DELETED" else obj)

    def _take(self, name: str, obj: Object | None) -> None:
        if obj is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = obj
        self._on_change(name, obj)

    def _note(self, error: ServiceError) -> None:
        self.problem = error.message
        log.info("watch.broken", resource=str(self._resource), problem=error.message)
        if isinstance(error, NotReady) and error.reason == EXPIRED:
            self._version = ""

    async def _pause(self) -> None:
        # Whatever ends a watch at once, over and over, must not become a flood of requests.
        await asyncio.sleep(self._backoff_seconds * random.uniform(0.5, 1.0))
        self._backoff_seconds = min(2 * self._backoff_seconds, _LONGEST_BACKOFF_SECONDS)


async def stopped(task: "asyncio.Task[NoReturn]") -> None:
    """Cancels a task and returns once it is over."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _version(obj: Object | None) -> str:
    return obj["metadata"]["resourceVersion"] if obj is not None else ""
