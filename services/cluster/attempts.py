"""One attempt in a cluster: followed to its end, stopped, its last words read.

Knows its Job and the pods of that Job; knows nothing about queues, templates or orders.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from services.cluster.client import Cluster
from services.cluster.deaths import completed, describe, finished, runs, telling
from services.cluster.objects import JOBS, PODS, Object
from services.cluster.templates import CONTAINER
from services.cluster.watching import Watched
from services.errors import BackendUnavailable, NotFound, NotReady, ServiceError
from services.jobs.executor import Ending, Tell
from services.jobs.outcomes import Death

log = structlog.get_logger(__name__)

_CONTROLLER = "batch.kubernetes.io/controller-uid"
_TAIL_LINES = 20
_RETRY_SECONDS = 1.0


class KubernetesAttempt:
    """The Kubernetes Job of this name and uid, be it there or gone."""

    def __init__(self, cluster: Cluster, jobs: Watched, name: str, uid: str) -> None:
        self._cluster = cluster
        self._jobs = jobs
        self._name = name
        self._uid = uid
        self._stopping: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.tell: Tell = lambda reason, message: None
        """Set by `heed`."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called once nothing of it runs any more, or nobody waits for that."""

    @property
    def name(self) -> str:
        """The Job's name."""
        return self._name

    @property
    def mark(self) -> str:
        """The Job's uid."""
        return self._uid

    def wake(self) -> None:
        """Says that its Job may have changed."""
        self._changed.set()

    def heed(self, tell: Tell) -> None:
        """Has it told why its pods do not start, if they do not for long."""
        self.tell = tell

    async def ended(self) -> Ending:
        """Returns once its Job is finished or gone and none of its pods runs."""
        try:
            job = await self._finished()
            pods = await self._quiet()
            sentence = describe(job, pods, stopped=self._stopping is not None, name=self._name)
            return Ending(Death(sentence, "" if completed(job) else await self._tail(pods)))
        finally:
            self.on_ended()
            if self._stopping is not None:
                self._stopping.cancel()

    def stop(self, grace_seconds: float) -> None:
        """Deletes its Job: SIGTERM now, SIGKILL after the grace that its pods were made with."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._delete())

    async def _finished(self) -> Object | None:
        """Returns its Job once that is finished, None once it is gone."""
        while True:
            self._changed.clear()
            job = self._jobs.objects.get(self._name)
            if job is None or job["metadata"]["uid"] != self._uid:
                # The watch may not have come to it yet: only the server knows.
                job = await self._read()
            if job is None or (finished(job) and not job["metadata"].get("deletionTimestamp")):
                return job
            await self._changed.wait()

    async def _read(self) -> Object | None:
        while True:
            try:
                job = await self._cluster.get(JOBS, self._name)
                return job if job["metadata"]["uid"] == self._uid else None
            except NotFound:
                return None
            except ServiceError as error:
                await self._miss(error)

    async def _quiet(self) -> list[Object]:
        """Returns its pods once none of them runs: they may outlive a Job that is gone for their grace."""
        while True:
            try:
                pods, _ = await self._cluster.list(PODS, labels=f"{_CONTROLLER}={self._uid}")
                if not any(runs(pod) for pod in pods):
                    return pods
                await asyncio.sleep(_RETRY_SECONDS)
            except ServiceError as error:
                await self._miss(error)

    async def _tail(self, pods: list[Object]) -> str:
        pod = telling(pods)
        if pod is None:
            return ""
        try:
            name = pod["metadata"]["name"]
            text = await self._cluster.log(name, container=CONTAINER, lines=_TAIL_LINES)
            return text.replace("\x00", "").rstrip("\n")
        except ServiceError as error:
            log.info("log.unread", job=self._name, problem=error.message)
            return ""

    async def _delete(self) -> None:
        while True:
            with suppress(NotFound, NotReady):  # gone, or another one of its name
                try:
                    await self._cluster.delete(JOBS, self._name, uid=self._uid, propagation="Foreground")
                except BackendUnavailable as error:
                    await self._miss(error)
                    continue
                except ServiceError as error:
                    log.error("worker.unstoppable", job=self._name, problem=error.message)
            return

    async def _miss(self, error: ServiceError) -> None:
        log.warning("cluster.missed", job=self._name, problem=error.message, retry_seconds=_RETRY_SECONDS)
        await asyncio.sleep(_RETRY_SECONDS)
