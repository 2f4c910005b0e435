"""TrainingService over gRPC: convert, call the jobs, convert. Knows nothing about training itself."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

from conch.v1 import training_pb2 as pb
from conch.v1 import training_pb2_grpc
from services.jobs import messages
from services.jobs.jobs import Jobs
from services.jobs.placement import Placement
from services.jobs.store import NewJob
from services.jobs.tables import Job
from services.trainer import validation

KIND = "training"


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """See training.proto."""

    def __init__(self, jobs: Jobs, placement: Placement) -> None:
        self._jobs = jobs
        self._placement = placement

    async def CreateTrainingJob(
        self,
        request: pb.CreateTrainingJobRequest,
        context: grpc.aio.ServicerContext[pb.CreateTrainingJobRequest, pb.CreateTrainingJobResponse],
    ) -> pb.CreateTrainingJobResponse:
        job_id = self._jobs.choose_id(request.id)
        spec = await asyncio.to_thread(validation.complete, request.spec)
        stored = spec.SerializeToString(deterministic=True)

        def prepare() -> NewJob:
            validation.check(spec, self._placement)
            return NewJob(job_id, KIND, stored, spec.max_attempts)

        return pb.CreateTrainingJobResponse(job=_message(await self._jobs.create(job_id, stored, prepare)))

    async def GetTrainingJob(
        self,
        request: pb.GetTrainingJobRequest,
        context: grpc.aio.ServicerContext[pb.GetTrainingJobRequest, pb.GetTrainingJobResponse],
    ) -> pb.GetTrainingJobResponse:
        return pb.GetTrainingJobResponse(job=_message(await self._jobs.get(request.id)))

    async def ListTrainingJobs(
        self,
        request: pb.ListTrainingJobsRequest,
        context: grpc.aio.ServicerContext[pb.ListTrainingJobsRequest, pb.ListTrainingJobsResponse],
    ) -> pb.ListTrainingJobsResponse:
        page, token = await self._jobs.page(
            size=request.page_size, token=request.page_token, states=request.states
        )
        return pb.ListTrainingJobsResponse(jobs=[_message(job) for job in page], next_page_token=token)

    async def CancelTrainingJob(
        self,
        request: pb.CancelTrainingJobRequest,
        context: grpc.aio.ServicerContext[pb.CancelTrainingJobRequest, pb.CancelTrainingJobResponse],
    ) -> pb.CancelTrainingJobResponse:
        return pb.CancelTrainingJobResponse(job=_message(await self._jobs.cancel(request.id)))

    async def DeleteTrainingJob(
        self,
        request: pb.DeleteTrainingJobRequest,
        context: grpc.aio.ServicerContext[pb.DeleteTrainingJobRequest, pb.DeleteTrainingJobResponse],
    ) -> pb.DeleteTrainingJobResponse:
        await self._jobs.delete(request.id)
        return pb.DeleteTrainingJobResponse()

    async def WatchTrainingJob(
        self,
        request: pb.WatchTrainingJobRequest,
        context: grpc.aio.ServicerContext[pb.WatchTrainingJobRequest, pb.WatchTrainingJobResponse],
    ) -> AsyncIterator[pb.WatchTrainingJobResponse]:
        async for event in self._jobs.watch(request.id, request.from_sequence):
            yield pb.WatchTrainingJobResponse(event=event)


def _message(job: Job) -> pb.TrainingJob:
    return pb.TrainingJob(
        id=job.id,
        spec=pb.TrainingSpec.FromString(job.spec),
        status=messages.status(job),
        result=pb.TrainingResult.FromString(job.result) if job.result is not None else None,
    )
