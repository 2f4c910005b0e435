"""Brings jobs to an executor: oldest first, so many at once, woken by events alone.

Knows terms, and what an executor promises; knows nothing about processes, clusters, gRPC, training or
conversion. The service may be killed between any two lines: what it finds at its next start decides what
goes on.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass

import structlog

from conch.v1 import job_pb2, worker_pb2
from services.errors import BackendUnavailable, NotFound, NotReady
from services.jobs import credentials
from services.jobs.changes import Changes
from services.jobs.executor import Attempt, Ending, Executor
from services.jobs.kinds import Kind
from services.jobs.outcomes import Death
from services.jobs.patience import RETRY_SECONDS, persistently, stored
from services.jobs.settings import JobSettings
from services.jobs.tables import Job
from services.jobs.term import Term, TermOver

log = structlog.get_logger(__name__)

# Timers may fire a little early by the wall clock that the database is asked by.
_CLOCK_SLACK_SECONDS = 0.01


@dataclass
class _Running:
    attempt: Attempt | None = None
    """None until it is started."""
    stopping: bool = False


class Scheduler:
    """The attempts of one kind of job, for one term of leadership."""

    def __init__(
        self, kind: Kind, term: Term, changes: Changes, executor: Executor, settings: JobSettings
    ) -> None:
        self._kind = kind
        self._term = term
        self._changes = changes
        self._executor = executor
        self._settings = settings
        self._running: dict[str, _Running] = {}
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: TermOver | None = None

    async def run(self) -> None:
        """Takes on the attempts that outlived an earlier leader, then runs those that wait; until cancelled.

        Lets go of everything at its end; workers run on. Raises TermOver once another replica leads.
        """
        try:
            with self._changes.heeded(self._heed):
                await self._take_over()
                await self._run_loops()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_loops(self) -> None:
        # Neither is worth anything without the other: if one breaks both begin anew.
        loops = [asyncio.create_task(loop) for loop in (self._run_queue(), self._run_cancels())]
        self._tasks.update(loops)
        await asyncio.gather(*loops)

    async def _take_over(self) -> None:
        running = await stored(self._term.running)
        for job in running:
            try:
                await self._recover(job)
            except TermOver:
                raise
            except Exception:
                # One that cannot be adopted must not keep all others from being.
                log.exception("attempt.crashed", job=job.id)
        await persistently(self._executor.sweep, running)
        self._heed()

    def _heed(self) -> None:
        """Says that a job may be waiting, or one that runs is to be cancelled."""
        self._wanted.set()
        self._unwanted.set()

    async def _run_cancels(self) -> None:
        while True:
            await self._unwanted.wait()
            self._unwanted.clear()
            for job_id in await stored(self._term.unwanted):
                self._cancel(job_id)

    def _cancel(self, job_id: str) -> None:
        """Asks the job's worker, if it has one, to wind down; it is ended after the grace."""
        running = self._running.get(job_id)
        if running is None or running.attempt is None or running.stopping:
            return
        running.stopping = True
        log.info("worker.stopped", job=job_id, grace_seconds=self._settings.cancel_grace_seconds)
        running.attempt.stop(self._settings.cancel_grace_seconds)

    async def _run_queue(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._over is not None:
                raise self._over
            while len(self._running) < self._settings.max_concurrent_jobs:
                job = await stored(self._term.claim_next)
                if job is None:
                    await self._wake_when_due()
                    break
                self._changes.ring(job.id)
                self._begin(job)

    async def _wake_when_due(self) -> None:
        seconds = await stored(self._term.seconds_until_due)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds + _CLOCK_SLACK_SECONDS, self._wanted.set)

    def _begin(self, job: Job) -> None:
        # Apart from the queue: one that cannot be started for now holds up nobody else.
        self._running[job.id] = _Running()
        self._spawn(self._launch(job))

    async def _launch(self, job: Job) -> None:
        order = self._kind.order(job)
        order.job_id, order.attempt, order.token = job.id, job.attempt, credentials.new_token()
        await stored(self._term.renew_token, job.id, attempt=job.attempt, token=order.token)
        try:
            attempt = await self._started(job, order)
        except OSError as error:
            log.error("worker.refused", job=job.id, problem=str(error))
            await self._leave(job, Ending(Death(f"the worker could not be started: {error}")))
            return
        log.info("job.started", job=job.id, attempt=job.attempt, worker=attempt.name)
        await self._attend(job, attempt)

    async def _started(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        """Returns the attempt, once whatever was unavailable is back. Raises OSError if it cannot be."""
        while True:
            try:
                return await self._executor.start(job, order)
            except BackendUnavailable as error:
                log.warning("worker.delayed", job=job.id, problem=error.message)
                if job.id not in await stored(self._term.unwanted):
                    await asyncio.sleep(RETRY_SECONDS)
                elif (attempt := await persistently(self._executor.find, job)) is not None:
                    return attempt
                else:
                    raise OSError(error.message) from error

    async def _recover(self, job: Job) -> None:
        """Goes on with a job that a service which is no more left RUNNING."""
        attempt = await persistently(self._executor.find, job)
        if attempt is None:
            # Claimed, but the service was killed before a worker began: the attempt is not used up.
            self._begin(job)
        else:
            log.info("worker.adopted", job=job.id, attempt=job.attempt, worker=attempt.name)
            await self._attend(job, attempt)

    async def _attend(self, job: Job, attempt: Attempt) -> None:
        self._running[job.id] = _Running(attempt)
        attempt.heed(lambda reason, message: self._spawn(self._warn(job, reason, message)))
        self._spawn(self._see_out(job, attempt))
        # A worker may be gone, and its attempt over, before its name was noted.
        with suppress(NotFound, NotReady):
            job = await stored(
                self._term.record_worker,
                job.id,
                attempt=job.attempt,
                name=attempt.name,
                mark=attempt.mark,
            )
            if job.cancel_requested:
                self._cancel(job.id)

    async def _warn(self, job: Job, reason: str, message: str) -> None:
        warning = job_pb2.Warning(reason=reason, message=message)
        with suppress(NotFound, NotReady):  # over meanwhile
            await stored(self._term.warn, job.id, attempt=job.attempt, warning=warning)
            self._changes.ring(job.id)

    async def _see_out(self, job: Job, attempt: Attempt) -> None:
        await self._leave(job, await attempt.ended())

    async def _leave(self, job: Job, ending: Ending) -> None:
        await self._conclude(job, ending)
        del self._running[job.id]
        self._wanted.set()

    async def _conclude(self, job: Job, ending: Ending) -> None:
        try:
            job = await stored(
                self._term.conclude,
                job.id,
                attempt=job.attempt,
                reports=ending.reports,
                death=ending.death,
                retry_delay_seconds=self._settings.retry_delay_seconds,
            )
        except (NotFound, NotReady) as error:
            log.warning("job.superseded", job=job.id, attempt=job.attempt, problem=error.message)
            return
        state = job_pb2.JobStatus.State.Name(job_pb2.JobStatus.State.ValueType(job.state))
        log.info("job.concluded", job=job.id, attempt=job.attempt, state=state)
        await self._release(job)
        self._changes.ring(job.id)

    async def _release(self, job: Job) -> None:
        try:
            await self._executor.release(job)
        except BackendUnavailable as error:
            log.warning("worker.unreleased", job=job.id, attempt=job.attempt, problem=error.message)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = task.exception() if not task.cancelled() else None
        if isinstance(error, TermOver):
            self._over = error
            self._wanted.set()
        elif error is not None:
            log.error("attempt.crashed", exc_info=error)
