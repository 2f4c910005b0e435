"""Runs jobs as processes of this machine: oldest first, so many at once, woken by events alone.

Knows the store and processes; knows nothing about gRPC, training or conversion. The service may be
killed between any two lines: what it finds at its next start decides what goes on.
"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog
from google.protobuf import json_format

from conch.v1 import job_pb2, worker_pb2
from services.errors import BackendUnavailable, NotFound, NotReady
from services.jobs import credentials, processes
from services.jobs.changes import Changes
from services.jobs.outcomes import Death
from services.jobs.settings import JobSettings
from services.jobs.spool import SPOOL, read_spool
from services.jobs.store import Store
from services.jobs.tables import Job

log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_ORDER = "order.json"
_WORK = "work"
_DATABASE_RETRY_SECONDS = 1.0
# Timers may fire a little early by the wall clock that the database is asked by.
_CLOCK_SLACK_SECONDS = 0.01


@dataclass(frozen=True)
class Kind:
    """One kind of job: its name in the store, the module that works on it and what that is told."""

    name: str
    worker_module: str
    order: Callable[[Job], worker_pb2.WorkOrder]
    """Returns an order with spec, output_uri and version set; the rest is filled in here."""


@dataclass
class _Worker:
    process: processes.Process
    folder: Path
    attempt: int
    stopping: asyncio.TimerHandle | None = None
    gone: bool = False


class Scheduler:
    """The workers of one kind of job. `start`, then `wake` whenever a job was created."""

    def __init__(self, kind: Kind, store: Store, changes: Changes, settings: JobSettings) -> None:
        self._kind = kind
        self._store = store
        self._changes = changes
        self._settings = settings
        self._jobs_folder = str(settings.resolved_home() / "jobs")
        self._report_to = ""
        self._workers: dict[str, _Worker] = {}
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, report_to: str) -> None:
        """Takes on the workers that outlived an earlier service, then starts those that wait.

        `report_to` is the host:port where workers reach WorkerService.
        """
        self._report_to = report_to
        for job in await _persistently(self._store.running, self._kind.name):
            await self._recover(job)
        self._wanted.set()
        self._spawn(self._run_queue())

    def wake(self) -> None:
        """Says that a job may be waiting."""
        self._wanted.set()

    def cancel(self, job_id: str) -> None:
        """Asks the job's worker, if it has one, to wind down; kills it after the grace."""
        worker = self._workers.get(job_id)
        if worker is None or worker.gone or worker.stopping is not None:
            return
        log.info("worker.stopped", job=job_id, grace_seconds=self._settings.cancel_grace_seconds)
        processes.stop(worker.process)
        loop = asyncio.get_running_loop()
        grace = self._settings.cancel_grace_seconds
        worker.stopping = loop.call_later(grace, processes.kill, worker.process)

    async def close(self) -> None:
        """Lets go of everything; workers run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run_queue(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while len(self._workers) < self._settings.max_concurrent_jobs:
                job = await _persistently(
                    self._store.claim_next, self._kind.name, jobs_folder=self._jobs_folder
                )
                if job is None:
                    await self._wake_when_due()
                    break
                self._changes.ring(job.id)
                await self._launch(job)

    async def _wake_when_due(self) -> None:
        seconds = await _persistently(self._store.seconds_until_due, self._kind.name)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds + _CLOCK_SLACK_SECONDS, self._wanted.set)

    async def _launch(self, job: Job) -> None:
        token = credentials.new_token()
        await _persistently(self._store.renew_token, job.id, attempt=job.attempt, token=token)
        try:
            process = await asyncio.to_thread(self._start_process, job, token)
        except OSError as error:
            log.error("worker.refused", job=job.id, problem=str(error))
            return await self._conclude(job, Death(f"the worker could not be started: {error}"))
        log.info("job.started", job=job.id, attempt=job.attempt, pid=process.pid)
        await self._attend(job, process)
        return None

    def _start_process(self, job: Job, token: str) -> processes.Process:
        folder = _attempt_folder(job)
        if job.attempt == 1:
            # Left by a job of this id that a person removed from the database by hand.
            shutil.rmtree(job.folder, ignore_errors=True)
        self._write_order(job, token)
        command = [sys.executable, "-m", self._kind.worker_module, str(folder / _ORDER)]
        try:
            return processes.start(command, folder)
        except BlockingIOError:
            # Another service over the same database was faster.
            if (process := processes.find_in(folder)) is None:
                raise
            return process

    def _readdress(self, job: Job) -> None:
        """Tells a worker where its service is now."""
        old = json_format.Parse((_attempt_folder(job) / _ORDER).read_bytes(), worker_pb2.WorkOrder())
        self._write_order(job, old.token)

    def _write_order(self, job: Job, token: str) -> None:
        order = self._kind.order(job)
        order.token = token
        order.job_id, order.attempt, order.report_to = job.id, job.attempt, self._report_to
        order.work_dir = str(Path(job.folder) / _WORK)
        folder = _attempt_folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        Path(order.work_dir).mkdir(exist_ok=True)
        partial = folder / f"{_ORDER}.partial"
        # Its token is a secret.
        partial.touch(0o600)
        partial.write_text(json_format.MessageToJson(order))
        partial.replace(folder / _ORDER)

    async def _recover(self, job: Job) -> None:
        """Goes on with a job that a service which is no more left RUNNING."""
        folder = _attempt_folder(job)
        process = await asyncio.to_thread(_find_worker, job, folder)
        if process is not None:
            log.info("worker.adopted", job=job.id, attempt=job.attempt, pid=process.pid)
            await asyncio.to_thread(self._readdress, job)
            await self._attend(job, process)
        elif job.worker_pid is None and not (folder / SPOOL).exists():
            # Claimed, but the service was killed before a worker began: the attempt is not used up.
            await self._launch(job)
        else:
            await self._conclude(job, _death(folder, None))

    async def _attend(self, job: Job, process: processes.Process) -> None:
        self._workers[job.id] = _Worker(process, _attempt_folder(job), job.attempt)
        self._spawn(self._see_out(job, process))
        # A worker may be gone, and its attempt over, before its pid was noted.
        with suppress(NotFound, NotReady):
            job = await _persistently(
                self._store.record_worker, job.id, attempt=job.attempt, pid=process.pid, mark=process.mark
            )
            if job.cancel_requested:
                self.cancel(job.id)

    async def _see_out(self, job: Job, process: processes.Process) -> None:
        code = await processes.wait(process)
        worker = self._workers[job.id]
        worker.gone = True
        if worker.stopping is not None:
            worker.stopping.cancel()
        await self._conclude(job, await asyncio.to_thread(_death, worker.folder, code))
        del self._workers[job.id]
        self._wanted.set()

    async def _conclude(self, job: Job, death: Death) -> None:
        reports = await asyncio.to_thread(read_spool, _attempt_folder(job) / SPOOL)
        try:
            job = await _persistently(
                self._store.conclude,
                job.id,
                attempt=job.attempt,
                reports=reports,
                death=death,
                retry_delay_seconds=self._settings.retry_delay_seconds,
            )
        except (NotFound, NotReady) as error:
            log.warning("job.superseded", job=job.id, attempt=job.attempt, problem=error.message)
            return
        state = job_pb2.JobStatus.State.Name(job_pb2.JobStatus.State.ValueType(job.state))
        log.info("job.concluded", job=job.id, attempt=job.attempt, state=state)
        if job.state == job_pb2.JobStatus.STATE_SUCCEEDED:
            # Its artifact lies elsewhere; what was kept for another attempt can be many times as large.
            await asyncio.to_thread(shutil.rmtree, Path(job.folder) / _WORK, ignore_errors=True)
        self._changes.ring(job.id)
        self._wanted.set()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("scheduler.crashed", exc_info=error)


def _attempt_folder(job: Job) -> Path:
    return Path(job.folder) / f"attempt-{job.attempt}"


def _find_worker(job: Job, folder: Path) -> processes.Process | None:
    if job.worker_pid is not None:
        return processes.find(job.worker_pid, job.worker_mark or "")
    return processes.find_in(folder)


def _death(folder: Path, code: int | None) -> Death:
    return Death(processes.describe_exit(code), processes.log_tail(folder))


async def _persistently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what `call` returns, in a thread; a database that does not answer is asked again."""
    while True:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except BackendUnavailable as error:
            log.warning("database.missed", problem=error.message, retry_seconds=_DATABASE_RETRY_SECONDS)
            await asyncio.sleep(_DATABASE_RETRY_SECONDS)
