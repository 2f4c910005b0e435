"""ConversionService over gRPC: convert, call the jobs, convert. Knows nothing about conversion itself."""

import asyncio
import re
from collections.abc import AsyncIterator

import grpc.aio

from conch.v1 import conversion_pb2 as pb
from conch.v1 import conversion_pb2_grpc
from services import storage
from services.converter import validation
from services.jobs import messages
from services.jobs.jobs import Jobs
from services.jobs.placement import Placement
from services.jobs.store import NewJob
from services.jobs.tables import Job

KIND = "conversion"
# Triton's versions are 64 bits wide; a longer name is no version of anyone's.
_NUMBER = re.compile(r"[0-9]{1,18}")


class ConversionServicer(conversion_pb2_grpc.ConversionServiceServicer):
    """See conversion.proto."""

    def __init__(self, jobs: Jobs, placement: Placement, *, repository_uri: str) -> None:
        self._jobs = jobs
        self._placement = placement
        self._repository_uri = repository_uri

    async def CreateConversionJob(
        self,
        request: pb.CreateConversionJobRequest,
        context: grpc.aio.ServicerContext[pb.CreateConversionJobRequest, pb.CreateConversionJobResponse],
    ) -> pb.CreateConversionJobResponse:
        job_id = self._jobs.choose_id(request.id)
        spec = await asyncio.to_thread(validation.complete, request.spec)
        stored = spec.SerializeToString(deterministic=True)

        def prepare() -> NewJob:
            validation.check(spec, self._placement)
            floor = _highest_number(self._repository_uri, spec.model)
            return NewJob(job_id, KIND, stored, spec.max_attempts, model=spec.model, version_floor=floor)

        return pb.CreateConversionJobResponse(job=_message(await self._jobs.create(job_id, stored, prepare)))

    async def GetConversionJob(
        self,
        request: pb.GetConversionJobRequest,
        context: grpc.aio.ServicerContext[pb.GetConversionJobRequest, pb.GetConversionJobResponse],
    ) -> pb.GetConversionJobResponse:
        return pb.GetConversionJobResponse(job=_message(await self._jobs.get(request.id)))

    async def ListConversionJobs(
        self,
        request: pb.ListConversionJobsRequest,
        context: grpc.aio.ServicerContext[pb.ListConversionJobsRequest, pb.ListConversionJobsResponse],
    ) -> pb.ListConversionJobsResponse:
        page, token = await self._jobs.page(
            size=request.page_size, token=request.page_token, states=request.states
        )
        return pb.ListConversionJobsResponse(jobs=[_message(job) for job in page], next_page_token=token)

    async def CancelConversionJob(
        self,
        request: pb.CancelConversionJobRequest,
        context: grpc.aio.ServicerContext[pb.CancelConversionJobRequest, pb.CancelConversionJobResponse],
    ) -> pb.CancelConversionJobResponse:
        return pb.CancelConversionJobResponse(job=_message(await self._jobs.cancel(request.id)))

    async def DeleteConversionJob(
        self,
        request: pb.DeleteConversionJobRequest,
        context: grpc.aio.ServicerContext[pb.DeleteConversionJobRequest, pb.DeleteConversionJobResponse],
    ) -> pb.DeleteConversionJobResponse:
        await self._jobs.delete(request.id)
        return pb.DeleteConversionJobResponse()

    async def WatchConversionJob(
        self,
        request: pb.WatchConversionJobRequest,
        context: grpc.aio.ServicerContext[pb.WatchConversionJobRequest, pb.WatchConversionJobResponse],
    ) -> AsyncIterator[pb.WatchConversionJobResponse]:
        async for event in self._jobs.watch(request.id, request.from_sequence):
            yield pb.WatchConversionJobResponse(event=event)


def _highest_number(repository_uri: str, model: str) -> int:
    """Returns the highest version number in the repository, 0 if none; half-written leftovers count too."""
    names = storage.list_folders(storage.join(repository_uri, model))
    return max((int(name) for name in names if _NUMBER.fullmatch(name)), default=0)


def _message(job: Job) -> pb.ConversionJob:
    return pb.ConversionJob(
        id=job.id,
        spec=pb.ConversionSpec.FromString(job.spec),
        status=messages.status(job),
        result=pb.ConversionResult.FromString(job.result) if job.result is not None else None,
    )
