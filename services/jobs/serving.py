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
from services.jobs.executor import MakeExecutor
from services.jobs.jobs import Jobs
from services.jobs.kinds import Kind
from services.jobs.leading import Leading
from services.jobs.scheduler import Scheduler
from services.jobs.settings import JobSettings
from services.jobs.store import Store
from services.jobs.worker_servicer import WorkerServicer

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
    except ServiceError as error:
        return _refuse(error.message)
    except OSError as error:
        return _refuse(f"cannot use the home folder {settings.home}: {error.strerror or error}")
    serving = server.build([service_name, _WORKER_SERVICE])
    try:
        report_to = settings.report_to or _reachable(address, serving.bind(address))
        executor = make_executor(settings, kind, report_to)
    except OSError as error:
        return _refuse(error.strerror or str(error))
    changes = Changes()
    jobs = Jobs(kind.name, Store(database), executor, changes)
    register(jobs, serving.grpc)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(jobs, changes), serving.grpc)
    # Before anyone can see us serve: a signal from then on drains.
    stop = asyncio.ensure_future(server.stop_signal())
    await asyncio.sleep(0)
    await serving.start(address)
    leading = Leading(
        database, kind.name, lambda term: Scheduler(kind, term, changes, executor, settings).run()
    )
    await _until(stop, replicas.join(database, kind.name, changes, leading).run())
    changes.close()
    await serving.drain(settings.drain_seconds)
    await executor.close()
    database.close()
    return 0


def _open_database(settings: JobSettings) -> Database:
    database = Database(settings.resolved_database_url())
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
