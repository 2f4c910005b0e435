"""WorkerService: takes what workers report, beside the service whose jobs they run."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

from conch.v1 import worker_pb2, worker_pb2_grpc
from services.jobs.changes import Changes
from services.jobs.credentials import Caller, bearer, check_runner
from services.jobs.jobs import Jobs

Context = grpc.aio.ServicerContext[worker_pb2.PushReportsRequest, worker_pb2.PushReportsResponse]


class WorkerServicer(worker_pb2_grpc.WorkerServiceServicer):
    """Acknowledges each report once it is on disk; every call proves itself by the order's token."""

    def __init__(self, jobs: Jobs, changes: Changes) -> None:
        self._jobs = jobs
        self._changes = changes

    async def BeginAttempt(
        self,
        request: worker_pb2.BeginAttemptRequest,
        context: grpc.aio.ServicerContext[worker_pb2.BeginAttemptRequest, worker_pb2.BeginAttemptResponse],
    ) -> worker_pb2.BeginAttemptResponse:
        caller = Caller(request.attempt, request.runner, bearer(context.invocation_metadata()))
        check_runner(request.runner)
        sequence = await self._jobs.begin_attempt(request.job_id, caller)
        return worker_pb2.BeginAttemptResponse(worker_sequence=sequence)

    async def PushReports(
        self, request_iterator: AsyncIterator[worker_pb2.PushReportsRequest], context: Context
    ) -> AsyncIterator[worker_pb2.PushReportsResponse]:
        token = bearer(context.invocation_metadata())
        async for request in _until(self._changes.closed, request_iterator):
            caller = Caller(request.attempt, request.runner, token)
            sequence = await self._jobs.take_report(request.job_id, caller, request.report)
            yield worker_pb2.PushReportsResponse(worker_sequence=sequence)


async def _until(
    closed: asyncio.Event, requests: AsyncIterator[worker_pb2.PushReportsRequest]
) -> AsyncIterator[worker_pb2.PushReportsRequest]:
    """Gives requests until the service stops: a worker's stream lasts as long as the worker otherwise."""
    stop = asyncio.ensure_future(closed.wait())
    try:
        while True:
            read = asyncio.ensure_future(anext(requests, None))
            await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done() or (request := read.result()) is None:
                read.cancel()
                return
            yield request
    finally:
        stop.cancel()
