"""Trainer, converter and gateway that follow a script, as the generated servicers on a real socket."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import timestamp_pb2

from conch.errors import AlreadyExists, ConchError, NotFound
from conch.testing import FakeGateway, to_status
from conch.v1 import (
    conversion_pb2,
    conversion_pb2_grpc,
    job_pb2,
    models_pb2,
    models_pb2_grpc,
    training_pb2,
    training_pb2_grpc,
)

State = job_pb2.JobStatus.State
METRICS = {"accuracy": 0.87, "macro_f1": 0.86, "loss": 0.31}


def verdict(passed: bool = True) -> job_pb2.Verdict:
    figure = job_pb2.Figure(name="label_flip_rate", value=0.001 if passed else 0.4, limit=0.01, passed=passed)
    return job_pb2.Verdict(
        runtime=job_pb2.RUNTIME_ONNXRUNTIME,
        precision=job_pb2.PRECISION_FP32,
        files={"model.onnx": "ab" * 32},
        passed=passed,
        figures=[figure],
        num_examples=500,
    )


class FakeJobs:
    """Jobs of one kind: created jobs have their whole script behind them at once."""

    def __init__(self, job_type: Any) -> None:
        self.jobs: dict[str, Any] = {}
        self.events: list[job_pb2.JobEvent] = []
        self.error: ConchError | None = None
        self.result: Any = None
        self.break_after = 0
        self.watched_from: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self._type = job_type

    def create(self, request: Any) -> Any:
        known = self.jobs.get(request.id)
        if known and known.spec != request.spec:
            raise AlreadyExists(f"job {request.id} has another spec", reason="JOB_ID_TAKEN")
        if known is None:
            self.jobs[request.id] = self._made(request)
        return self.jobs[request.id]

    def find(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise NotFound(f"no job {job_id!r}", reason="JOB_NOT_FOUND")
        return self.jobs[job_id]

    def watch(self, job_id: str, from_sequence: int, context: grpc.ServicerContext) -> Iterator[Any]:
        self.find(job_id)
        self.watched_from.append(from_sequence)
        for event in self.script()[max(0, from_sequence - 1) :]:
            yield event
            if event.sequence == self.break_after:
                self.break_after = 0
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            self.hold.wait(10)

    def script(self) -> list[job_pb2.JobEvent]:
        last = State.STATE_FAILED if self.error else State.STATE_SUCCEEDED
        changed = job_pb2.StateChanged
        events = [
            job_pb2.JobEvent(state_changed=changed(state=State.STATE_RUNNING)),
            *self.events,
            job_pb2.JobEvent(state_changed=changed(state=last)),
        ]
        return [self._numbered(event, i) for i, event in enumerate(events, start=1)]

    def _made(self, request: Any) -> Any:
        number = len(self.jobs) + 1
        status = job_pb2.JobStatus(
            state=State.STATE_FAILED if self.error else State.STATE_SUCCEEDED,
            create_time=timestamp_pb2.Timestamp(seconds=1_700_000_000 + number),
            attempt=1,
            max_attempts=3,
            error=to_status(self.error) if self.error else None,
        )
        return self._type(
            id=request.id, spec=request.spec, status=status, result=None if self.error else self.result
        )

    @staticmethod
    def _numbered(event: job_pb2.JobEvent, sequence: int) -> job_pb2.JobEvent:
        copy = job_pb2.JobEvent()
        copy.CopyFrom(event)
        copy.sequence = sequence
        return copy


class FakeServices:
    """All services on one port; jobs, routes, ledger and `gateway` can be read and scripted."""

    def __init__(self) -> None:
        self.training = FakeJobs(training_pb2.TrainingJob)
        self.training.events = [_step(10), _step(20), _evaluation()]
        self.training.result = training_pb2.TrainingResult(
            checkpoint_uri="/artifacts/training/x", evaluation=_evaluation().evaluation
        )
        self.conversion = FakeJobs(conversion_pb2.ConversionJob)
        self.conversion.events = [job_pb2.JobEvent(verdict=verdict())]
        self.conversion.result = conversion_pb2.ConversionResult(
            model="sentiment",
            version=3,
            digest="ab" * 32,
            certificate=models_pb2.Certificate(verdicts=[verdict()]),
        )
        self.routes: dict[str, models_pb2.Route] = {}
        self.ledger: list[models_pb2.RouteChange] = []
        self.tasks = {"sentiment": "text-classification"}
        self.gateway = FakeGateway()
        self.error: ConchError | None = None
        self._server = grpc.server(ThreadPoolExecutor(16), interceptors=[_Errors()])
        training_pb2_grpc.add_TrainingServiceServicer_to_server(_Training(self.training), self._server)
        conversion_pb2_grpc.add_ConversionServiceServicer_to_server(
            _Conversion(self.conversion), self._server
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(_Models(self), self._server)
        self.gateway.add_to(self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self.training.hold.set()
        self.gateway.close()
        self._server.stop(grace=0)

    def set_route(self, request: models_pb2.SetRouteRequest) -> models_pb2.RouteChange:
        change = models_pb2.RouteChange(
            sequence=len(self.ledger) + 1,
            actor=request.actor,
            reason=request.reason,
            before=self.routes.get(request.route.model),
            after=request.route,
        )
        self.routes[request.route.model] = request.route
        self.ledger.insert(0, change)
        return change


class _Errors(grpc.ServerInterceptor):
    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        if handler is None or handler.response_streaming:
            return handler

        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return handler.unary_unary(request, context)
            except ConchError as error:
                data = to_status(error).SerializeToString()
                context.set_trailing_metadata((("grpc-status-details-bin", data),))
                context.abort(error.code, error.message)

        return grpc.unary_unary_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )


class _Training(training_pb2_grpc.TrainingServiceServicer):
    def __init__(self, fake: FakeJobs) -> None:
        self._fake = fake

    def CreateTrainingJob(self, request, context):
        return training_pb2.CreateTrainingJobResponse(job=self._fake.create(request))

    def GetTrainingJob(self, request, context):
        return training_pb2.GetTrainingJobResponse(job=self._fake.find(request.id))

    def ListTrainingJobs(self, request, context):
        return training_pb2.ListTrainingJobsResponse(jobs=_page(self._fake, request))

    def CancelTrainingJob(self, request, context):
        return training_pb2.CancelTrainingJobResponse(job=self._fake.find(request.id))

    def DeleteTrainingJob(self, request, context):
        del self._fake.jobs[self._fake.find(request.id).id]
        return training_pb2.DeleteTrainingJobResponse()

    def WatchTrainingJob(self, request, context):
        for event in self._fake.watch(request.id, request.from_sequence, context):
            yield training_pb2.WatchTrainingJobResponse(event=event)


class _Conversion(conversion_pb2_grpc.ConversionServiceServicer):
    def __init__(self, fake: FakeJobs) -> None:
        self._fake = fake

    def CreateConversionJob(self, request, context):
        return conversion_pb2.CreateConversionJobResponse(job=self._fake.create(request))

    def GetConversionJob(self, request, context):
        return conversion_pb2.GetConversionJobResponse(job=self._fake.find(request.id))

    def ListConversionJobs(self, request, context):
        return conversion_pb2.ListConversionJobsResponse(jobs=_page(self._fake, request))

    def CancelConversionJob(self, request, context):
        return conversion_pb2.CancelConversionJobResponse(job=self._fake.find(request.id))

    def DeleteConversionJob(self, request, context):
        del self._fake.jobs[self._fake.find(request.id).id]
        return conversion_pb2.DeleteConversionJobResponse()

    def WatchConversionJob(self, request, context):
        for event in self._fake.watch(request.id, request.from_sequence, context):
            yield conversion_pb2.WatchConversionJobResponse(event=event)


class _Models(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self._fake = fake

    def ListModels(self, request, context):
        models = [self._model(name, task) for name, task in self._fake.tasks.items()]
        return models_pb2.ListModelsResponse(models=models)

    def GetModel(self, request, context):
        return models_pb2.GetModelResponse(model=self.ListModels(request, context).models[0])

    def _model(self, name, task):
        model = models_pb2.Model(name=name, task=task, versions=[3, 2])
        if route := self._fake.routes.get(name):
            model.route.CopyFrom(route)
        return model

    def GetVersion(self, request, context):
        version = models_pb2.Version(
            model=request.model,
            version=request.version,
            state=models_pb2.Version.STATE_SERVING,
            certificate=models_pb2.Certificate(verdicts=[verdict()]),
        )
        return models_pb2.GetVersionResponse(version=version)

    def GetRoutes(self, request, context):
        routes = models_pb2.Routes(routes=self._fake.routes.values())
        return models_pb2.GetRoutesResponse(routes=routes)

    def SetRoute(self, request, context):
        if self._fake.error:
            raise self._fake.error
        return models_pb2.SetRouteResponse(change=self._fake.set_route(request))

    def ListRouteChanges(self, request, context):
        return models_pb2.ListRouteChangesResponse(changes=self._fake.ledger)


def _page(fake: FakeJobs, request: Any) -> Sequence[Any]:
    newest = list(reversed(fake.jobs.values()))[: request.page_size]
    return [job for job in newest if not request.states or job.status.state in request.states]


def _step(step: int) -> job_pb2.JobEvent:
    return job_pb2.JobEvent(training_step=job_pb2.TrainingStep(step=step, num_steps=20, loss=1 / step))


def _evaluation() -> job_pb2.JobEvent:
    evaluation = job_pb2.Evaluation(split="validation", step=20, num_examples=500, metrics=METRICS)
    return job_pb2.JobEvent(evaluation=evaluation)
