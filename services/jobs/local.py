"""Runs attempts as processes of this machine, each in a folder that outlives it.

Knows folders, orders, spools and processes; knows nothing about queues or databases.
`home`/jobs/<job>/attempt-<n> holds the order, the spool and the log of an attempt,
`home`/jobs/<job>/work what one attempt leaves to the next.
"""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from google.protobuf import json_format

from conch.v1 import job_pb2, worker_pb2
from services.jobs import processes
from services.jobs.executor import Attempt, Ending, Tell
from services.jobs.kinds import Kind
from services.jobs.orders import read_order
from services.jobs.outcomes import Death
from services.jobs.settings import JobSettings
from services.jobs.spool import SPOOL, read_spool
from services.jobs.tables import Job

log = structlog.get_logger(__name__)

_ORDER = "order.json"
_WORK = "work"


class LocalAttempt:
    """A worker process, and the folder that it leaves behind; without a process it is over."""

    def __init__(self, process: processes.Process | None, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._killing: asyncio.TimerHandle | None = None
        self._over = process is None

    @property
    def name(self) -> str:
        """Its pid; empty if nobody knows it any more."""
        return str(self._process.pid) if self._process is not None else ""

    @property
    def mark(self) -> str:
        """When the process began."""
        return self._process.mark if self._process is not None else ""

    def heed(self, tell: Tell) -> None:
        """Does nothing: a process starts, or is refused, at once."""

    async def ended(self) -> Ending:
        """Returns once the process is gone, with all that is in its spool."""
        code = await self._exit_code()
        return await asyncio.to_thread(self._ending, code)

    def stop(self, grace_seconds: float) -> None:
        """Sends SIGTERM, and SIGKILL after the grace."""
        if self._process is None or self._over or self._killing is not None:
            return
        processes.stop(self._process)
        loop = asyncio.get_running_loop()
        self._killing = loop.call_later(grace_seconds, processes.kill, self._process)

    async def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        try:
            return await processes.wait(self._process)
        finally:
            # Its pid, and its group's, may be another's from now on.
            self._over = True
            if self._killing is not None:
                self._killing.cancel()

    def _ending(self, code: int | None) -> Ending:
        death = Death(processes.describe_exit(code), processes.log_tail(self._folder))
        return Ending(death, read_spool(self._folder / SPOOL))


class LocalExecutor:
    """See services.jobs.executor."""

    def __init__(self, settings: JobSettings, kind: Kind, report_to: str) -> None:
        self._module = kind.worker_module
        self._report_to = report_to
        self._jobs = settings.resolved_home() / "jobs"

    async def start(self, job: Job, order: worker_pb2.WorkOrder) -> Attempt:
        return await asyncio.to_thread(self._start, job, order)

    async def find(self, job: Job) -> Attempt | None:
        return await asyncio.to_thread(self._find, job)

    async def sweep(self, running: Sequence[Job]) -> None:
        """Does nothing: a worker that nobody wants any more is told so as soon as it reports."""

    async def release(self, job: Job) -> None:
        """Removes the work of a job that SUCCEEDED: it can be many times as large as its artifact."""
        if job.state == job_pb2.JobStatus.STATE_SUCCEEDED:
            await asyncio.to_thread(shutil.rmtree, self._folder(job) / _WORK, ignore_errors=True)

    async def forget(self, job: Job) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder(job), ignore_errors=True)

    async def close(self) -> None:
        """Does nothing: processes are held by nobody."""

    def _start(self, job: Job, order: worker_pb2.WorkOrder) -> LocalAttempt:
        folder = self._attempt_folder(job)
        if job.attempt == 1 and processes.find_in(folder) is None:
            # Left by a job of this id that a person removed from the database by hand.
            shutil.rmtree(self._folder(job), ignore_errors=True)
        self._write(order, job)
        command = [sys.executable, "-m", self._module, str(folder / _ORDER)]
        try:
            return LocalAttempt(processes.start(command, folder), folder)
        except BlockingIOError:
            # Another service over the same database was faster.
            if (process := processes.find_in(folder)) is None:
                raise
            return LocalAttempt(process, folder)

    def _find(self, job: Job) -> LocalAttempt | None:
        folder = self._attempt_folder(job)
        process = _find_process(job, folder)
        if process is not None:
            self._readdress(job)
        elif job.worker_name is None and not (folder / SPOOL).exists():
            return None
        return LocalAttempt(process, folder)

    def _readdress(self, job: Job) -> None:
        try:
            self._write(read_order(self._attempt_folder(job) / _ORDER), job)
        except (OSError, json_format.ParseError) as error:
            # Somebody meddled with it: the worker's spool tells everything in the end.
            log.warning("worker.unreachable", job=job.id, problem=str(error))

    def _write(self, order: worker_pb2.WorkOrder, job: Job) -> None:
        """Tells the worker where its service and its folder are."""
        folder, work = self._attempt_folder(job), self._folder(job) / _WORK
        order.report_to, order.work_dir = self._report_to, str(work)
        for path in (folder, work):
            path.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{_ORDER}.partial"
        # Its token is a secret.
        partial.touch(0o600)
        partial.write_text(json_format.MessageToJson(order))
        partial.replace(folder / _ORDER)

    def _folder(self, job: Job) -> Path:
        return self._jobs / job.id

    def _attempt_folder(self, job: Job) -> Path:
        return self._folder(job) / f"attempt-{job.attempt}"


def _find_process(job: Job, folder: Path) -> processes.Process | None:
    if job.worker_name is None:
        return processes.find_in(folder)
    # Another executor's names are no pids.
    return processes.find(int(job.worker_name), job.worker_mark or "") if job.worker_name.isdigit() else None
