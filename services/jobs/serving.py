"""Starts, runs and stops a job service: database, server, workers. Shared by trainer and converter.

Knows nothing about what the jobs are. Workers outlive the service.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress

import grpc.aio
import structlog

from conch.v1 import worker_pb2, worker_pb2_grpc
from services import server
from services.errors import ServiceError
from services.jobs import replicas
from services.jobs.changes import Changes
from services.jobs.database import Database
from services.jobs.executor import Executor, MakeExecutor
from services.jobs.jobs import Jobs
from services.jobs.kinds import Kind
from services.jobs.leading import Leading
from services.jobs.metrics import JobSeries
from services.jobs.scheduler import Scheduler
from services.jobs.settings import JobSettings
from services.jobs.store import Store
from services.jobs.term import Term
from services.jobs.worker_servicer import WorkerServicer
from services.telemetry import Exposition

log = structlog.get_logger(__name__)

EXIT_UNUSABLE = 2
"""Exit code where the service cannot start as it is set up; one line on stderr says why."""
_WORKER_SERVICE = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
Register = Callable[[Jobs, grpc.aio.Server], None]


async def serve(
    kind: Kind,
    *,
    service_name: str,
    address: str,
    settings: JobSettings,
    make_executor: MakeExecutor,
    register: Register,
) -> int:
    """Serves jobs of one kind at `address` until SIGTERM or SIGINT; returns the process's exit code.

    `register` adds the servicer of `service_name` to the server.
    """
    try:
        database = _open_database(settings)
        serving = server.build([service_name, _WORKER_SERVICE])
        listening = _reachable(address, serving.bind(address))
        executor = make_executor(settings, kind, settings.report_to or listening)
        service = _Service(settings, kind, database, serving, executor)
        register(service.jobs, serving.grpc)
        exposition = service.expose()
    except ServiceError as error:
        return _refuse(error.message)
    except OSError as error:
        return _refuse(error.strerror or str(error))
    await service.run(address)
    if exposition is not None:
        exposition.close()
    database.close()
    return 0


class _Service:
    """The parts of a job service, wired."""

    def __init__(
        self,
        settings: JobSettings,
        kind: Kind,
        database: Database,
        serving: server.Server,
        executor: Executor,
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._database = database
        self._server = serving
        self._executor = executor
        self._changes = Changes()
        self._store = Store(database)
        self._leading = Leading(database, kind.name, self._schedule)
        self.jobs = Jobs(kind.name, self._store, executor, self._changes)
        workers = WorkerServicer(self.jobs, self._changes)
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(workers, serving.grpc)

    def expose(self) -> Exposition | None:
        """Starts what Prometheus reads, if anybody wants to. Raises OSError if the port is taken."""
        if not self._settings.metrics_address:
            return None
        series = JobSeries(self._kind.name, self._store, lambda: self._leading.leads)
        exposition = Exposition(series.registry(), self._settings.metrics_address)
        log.info("metrics.exposed", port=exposition.port)
        return exposition

    async def run(self, address: str) -> None:
        """Serves until a signal, then lets calls under way end; workers run on."""
        # Before anyone can see us serve: a signal from then on drains.
        stop = asyncio.ensure_future(server.stop_signal())
        await asyncio.sleep(0)
        await self._server.start(address)
        together = replicas.join(self._database, self._kind.name, self._changes, self._leading)
        await _until(stop, together.run())
        self._changes.close()
        await self._server.drain(self._settings.drain_seconds)
        await self._executor.close()

    async def _schedule(self, term: Term) -> None:
        await Scheduler(self._kind, term, self._changes, self._executor, self._settings).run()


def _open_database(settings: JobSettings) -> Database:
    try:
        database = Database(settings.resolved_database_url())
    except OSError as error:
        problem = f"cannot use the home folder {settings.home}: {error.strerror or error}"
        raise OSError(error.errno, problem) from error
    database.migrate()
    return database


async def _until(stop: "asyncio.Future[None]", running: Coroutine[None, None, None]) -> None:
    """Runs what would run for ever until `stop`; raises what it raises."""
    task = asyncio.ensure_future(running)
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _reachable(address: str, port: int) -> str:
    """Returns where workers on this machine reach a server that listens at `address`."""
    host = address.rpartition(":")[0]
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}
    return f"{local.get(host, host)}:{port}"


def _refuse(problem: str) -> int:
    print(problem, file=sys.stderr)
    return EXIT_UNUSABLE
