"""Runs attempts as Kubernetes Jobs, one each; see services.jobs.executor for what that promises.

Knows the API server and the operator's templates; knows nothing about queues or databases. An attempt has
one Job by a name that only it can have, so that whoever asks twice, after whatever fault, gets the same one.
Its order lies in a Secret that goes with the Job. Written in this order: Job, then what its pods wait for. A
Job without its Secret has not begun.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NoReturn

import structlog

from conch.v1 import job_pb2, worker_pb2
from services import storage
from services.cluster import names
from services.cluster.attempts import KubernetesAttempt
from services.cluster.client import Cluster, connect
from services.cluster.deaths import finished
from services.cluster.manifests import Filling
from services.cluster.objects import JOBS, Object
from services.cluster.obstacles import Obstacle, Obstacles
from services.cluster.place import Place
from services.cluster.refusals import unavailable
from services.cluster.templates import Templates
from services.cluster.watching import Watched, stopped
from services.cluster.writing import Writer
from services.errors import BackendUnavailable, Forbidden, NotFound, NotReady, ServiceError
from services.jobs.executor import Attempt
from services.jobs.kinds import Kind
from services.jobs.settings import JobSettings
from services.jobs.tables import Job

log = structlog.get_logger(__name__)

# What ended stays this long for people to look at, unless the template has another time to live.
_LEFT_SECONDS = 3600


def kubernetes_executor(settings: JobSettings, kind: Kind, report_to: str) -> "KubernetesExecutor":
    """Returns the executor of a kind in the cluster that the settings name; a MakeExecutor.

    Raises OSError with a sentence if there is no cluster or no template of the default profile.
    """
    assert settings.job_templates is not None, "the settings require it"
    templates = Templates(settings.job_templates, settings.default_profile)
    templates.check()
    place = Place(
        kind.worker_module,
        report_to,
        settings.resolved_artifacts_uri(),
        settings.cancel_grace_seconds,
        settings.flush_seconds,
    )
    try:
        cluster = connect(component=kind.name, namespace=settings.namespace)
    except NotReady as error:
        raise OSError(error.message) from error
    return KubernetesExecutor(cluster, templates, kind.name, place)


class KubernetesExecutor:
    """See services.jobs.executor."""

    def __init__(self, cluster: Cluster, templates: Templates, kind: str, place: Place) -> None:
        self._cluster = cluster
        self._place = place
        self._labels = {names.MANAGED_BY: names.OWNER, names.KIND: kind, **templates.instance()}
        self._writer = Writer(cluster, templates, self._labels)
        self._attempts: dict[str, KubernetesAttempt] = {}
        self._jobs = Watched(
            cluster,
            JOBS,
            labels=names.selector(self._labels),
            on_change=lambda name, _: self._wake(name),
            on_listed=self._wake_all,
        )
        self._obstacles = Obstacles(cluster, self._labels, self._hinder)
        self._starting: set[str] = set()
        """Jobs that may have been made for attempts that did not begin."""
        self._following: list[asyncio.Task[NoReturn]] = []

    async def start(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        filling = self._filling(job, order)
        self._starting.add(filling.name)
        try:
            made = await self._writer.job(filling)
            await self._writer.furnish(filling, made)
        except BackendUnavailable:
            raise
        except ServiceError as error:
            _raise_if_it_may_pass(error)
            raise OSError(error.message) from error
        return self._attend(filling.name, made["metadata"]["uid"])

    async def find(self, job: Job) -> Attempt | None:
        name = names.job_name(job)
        with unavailable():
            told = await self._writer.tell_address(name, self._place.report_to)
            if job.worker_mark:
                # It began. Whether its Job is there still, or another one of its name, the attempt finds out.
                return self._attend(name, job.worker_mark)
            try:
                found = await self._cluster.get(JOBS, name)
            except NotFound:
                return None
        begun = told and self._writer.is_ours(found, job)
        return self._attend(name, found["metadata"]["uid"]) if begun else None

    async def sweep(self, running: Sequence[Job]) -> None:
        current = {names.job_name(job) for job in running}
        with unavailable():
            jobs, _ = await self._cluster.list(JOBS, labels=names.selector(self._labels))
            for job in jobs:
                metadata = job["metadata"]
                if metadata["name"] not in current and (not finished(job) or _is_old(job)):
                    log.info("worker.swept", job=metadata["name"])
                    await self._writer.remove(metadata["name"], metadata["uid"])

    async def release(self, job: Job) -> None:
        """Ends what never began, and removes the kept work of a job that SUCCEEDED: that can be large."""
        if (name := names.job_name(job)) in self._starting:
            with unavailable(), suppress(NotFound):
                found = await self._cluster.get(JOBS, name)
                if self._writer.is_ours(found, job):
                    await self._writer.remove(name, found["metadata"]["uid"])
            self._starting.discard(name)
        if job.state == job_pb2.JobStatus.STATE_SUCCEEDED:
            await asyncio.to_thread(storage.remove, self._place.work_uri(job.id))

    async def forget(self, job: Job) -> None:
        wanted = {**self._labels, names.JOB: names.label_of(job.id)}
        with unavailable():
            jobs, _ = await self._cluster.list(JOBS, labels=names.selector(wanted))
            for found in jobs:
                await self._writer.remove(found["metadata"]["name"], found["metadata"]["uid"])
        await asyncio.to_thread(storage.remove, self._place.work_uri(job.id))

    async def close(self) -> None:
        for task in self._following:
            await stopped(task)
        await self._cluster.close()

    def _filling(self, job: Job, order: worker_pb2.WorkOrder) -> Filling:
        labels = {**names.labels(job), **self._labels}
        return Filling(job, self._place.filled(order), self._place.module, self._place.grace_seconds, labels)

    def _attend(self, name: str, uid: str) -> KubernetesAttempt:
        if not self._following:
            loops = (self._jobs.run(), self._obstacles.run())
            self._following = [asyncio.create_task(loop) for loop in loops]
        attempt = KubernetesAttempt(self._cluster, self._jobs, name, uid)
        self._attempts[name] = attempt
        self._starting.discard(name)
        attempt.on_ended = lambda: self._leave(attempt)
        return attempt

    def _leave(self, attempt: KubernetesAttempt) -> None:
        if self._attempts.get(attempt.name) is attempt:
            del self._attempts[attempt.name]

    def _hinder(self, obstacle: Obstacle) -> None:
        if (attempt := self._attempts.get(obstacle.job)) is not None:
            attempt.tell(obstacle.reason, obstacle.message)

    def _wake(self, name: str) -> None:
        if (attempt := self._attempts.get(name)) is not None:
            attempt.wake()

    def _wake_all(self) -> None:
        for attempt in self._attempts.values():
            attempt.wake()


def _raise_if_it_may_pass(error: ServiceError) -> None:
    # A namespace whose quota is used up has room again once something else ends.
    if isinstance(error, Forbidden) and "exceeded quota" in error.message:
        raise BackendUnavailable(error.message, reason="QUOTA_EXCEEDED") from error


def _is_old(obj: Object) -> bool:
    created = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - created).total_seconds() > _LEFT_SECONDS
