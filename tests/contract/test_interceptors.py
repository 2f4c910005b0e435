"""What surrounds every rpc, over real sockets with a servicer that does as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog
from google.rpc import code_pb2, error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from conch.v1 import inference_pb2, inference_pb2_grpc, job_pb2, training_pb2, training_pb2_grpc
from services import server
from services.errors import BackendUnavailable, Cancelled, InvalidRequest, NotFound, Overloaded, ServiceError

CLASSIFY = "/conch.v1.InferenceService/Classify"
Behavior = Callable[[Any, Any], Awaitable[Any]]


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self) -> None:
        self.behavior: Behavior = _answer

    async def Classify(self, request: Any, context: Any) -> Any:
        return await self.behavior(request, context)


class Training(training_pb2_grpc.TrainingServiceServicer):
    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.num_sent = 0

    async def WatchTrainingJob(self, request: Any, context: Any) -> Any:
        yield training_pb2.WatchTrainingJobResponse()
        if request.id == "flood":
            try:
                while True:
                    self.num_sent += 1
                    event = job_pb2.JobEvent(warning=job_pb2.Warning(message="x" * 1000))
                    yield training_pb2.WatchTrainingJobResponse(event=event)
            finally:
                self.closed.set()
        if request.id == "crash":
            raise ValueError("secret")
        raise NotFound("it was deleted", reason="JOB_NOT_FOUND")


async def _answer(request: Any, context: Any) -> Any:
    return inference_pb2.ClassifyResponse()


def raising(error: Exception) -> Behavior:
    async def behavior(request: Any, context: Any) -> Any:
        raise error

    return behavior


@dataclass
class Setup:
    servicer: Inference
    training: Training
    channel: grpc.aio.Channel
    ended: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    def observe(self, method: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        assert method == CLASSIFY or "Watch" in method
        self.ended.put_nowait(code)

    async def codes(self, count: int) -> list[int]:
        """Returns the codes of the next ended rpcs; an answer may be here before its end is told."""
        async with asyncio.timeout(5):
            return [await self.ended.get() for _ in range(count)]

    def classify(self, **more: Any) -> Any:
        stub = inference_pb2_grpc.InferenceServiceStub(self.channel)
        return stub.Classify(inference_pb2.ClassifyRequest(), timeout=10, **more)

    def watch(self, job: str) -> Any:
        stub = training_pb2_grpc.TrainingServiceStub(self.channel)
        return stub.WatchTrainingJob(training_pb2.WatchTrainingJobRequest(id=job), timeout=10)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    servicer, training = Inference(), Training()
    setup = Setup(servicer, training, grpc.aio.insecure_channel("localhost:1"))
    ours = server.build(["conch.v1.InferenceService"], observe=setup.observe)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, ours.grpc)
    training_pb2_grpc.add_TrainingServiceServicer_to_server(training, ours.grpc)
    port = await ours.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as setup.channel:
        yield setup
    await ours.drain(0)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Returns the ErrorInfo's reason: it is the first of the details."""
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(error).details[0].Unpack(info)
    assert info.domain == "conch"
    return info.reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest.field("texts", "is empty"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("no", reason="INVALID_FIELD"), grpc.StatusCode.NOT_FOUND),
        (BackendUnavailable("no", reason="INVALID_FIELD"), grpc.StatusCode.UNAVAILABLE),
        (Overloaded("no", reason="INVALID_FIELD", subject="q"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Cancelled("no", reason="INVALID_FIELD"), grpc.StatusCode.CANCELLED),
    ],
)
async def test_a_service_error_is_answered_with_its_status_and_reason(
    setup: Setup, error: ServiceError, code: grpc.StatusCode
) -> None:
    setup.servicer.behavior = raising(error)
    caught = await error_of(setup.classify())
    assert (caught.code(), caught.details()) == (code, error.message)
    assert reason_of(caught) == "INVALID_FIELD"


async def test_an_error_may_carry_any_text(setup: Setup) -> None:
    setup.servicer.behavior = raising(NotFound("no “модель”\nhere", reason="MODEL_NOT_FOUND"))
    assert (await error_of(setup.classify())).details() == "no “модель”\nhere"


async def test_a_bug_becomes_internal_and_leaks_nothing(setup: Setup) -> None:
    setup.servicer.behavior = raising(ValueError("secret"))
    with structlog.testing.capture_logs() as logged:
        caught = await error_of(setup.classify())
    assert (caught.code(), caught.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert reason_of(caught) == "INTERNAL"
    assert "secret" not in str(caught.trailing_metadata())
    crashed = next(line for line in logged if line["event"] == "rpc.crashed")
    assert repr(crashed["exc_info"]) == "ValueError('secret')"


async def test_a_stream_that_breaks_keeps_what_was_sent_and_ends_with_the_status(setup: Setup) -> None:
    stream = setup.watch("gone")
    assert await stream.read() == training_pb2.WatchTrainingJobResponse()
    caught = await error_of(stream.read())
    assert (caught.code(), reason_of(caught)) == (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")


async def test_a_bug_in_a_stream_leaks_nothing_either(setup: Setup) -> None:
    stream = setup.watch("crash")
    await stream.read()
    caught = await error_of(stream.read())
    assert (caught.code(), caught.details()) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_a_bug_in_a_stream_leaves_its_traceback_in_the_log(setup: Setup) -> None:
    with structlog.testing.capture_logs() as logged:
        stream = setup.watch("crash")
        await stream.read()
        await error_of(stream.read())
    crashed = next(line for line in logged if line["event"] == "rpc.crashed")
    assert repr(crashed["exc_info"]) == "ValueError('secret')"
    assert await setup.codes(1) == [code_pb2.INTERNAL]


async def test_a_caller_who_leaves_a_stream_closes_its_handler_though_that_waits_to_send(
    setup: Setup,
) -> None:
    stream = setup.watch("flood")
    await stream.read()
    sent = -1
    while sent != setup.training.num_sent:  # until the transport takes no more
        sent = setup.training.num_sent
        await asyncio.sleep(0.05)
    assert not setup.training.closed.is_set()
    with structlog.testing.capture_logs() as logged:
        stream.cancel()
        async with asyncio.timeout(5):
            await setup.training.closed.wait()
        assert await setup.codes(1) == [code_pb2.CANCELLED]
    assert not logged


async def test_bytes_that_are_no_message_are_the_callers_fault(setup: Setup) -> None:
    for method in ("InferenceService/Classify",):
        call = setup.channel.unary_unary(f"/conch.v1.{method}")
        caught = await error_of(call(b"\x0a\x02\xff\xfe", timeout=10))
        assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(caught) == "UNDECODABLE_REQUEST"


async def test_an_unknown_method_is_unimplemented(setup: Setup) -> None:
    call = setup.channel.unary_unary("/conch.v1.InferenceService/Guess")
    assert (await error_of(call(b"", timeout=10))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handlers_own_abort_passes_through(setup: Setup) -> None:
    async def behavior(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, "as it said")

    setup.servicer.behavior = behavior
    caught = await error_of(setup.classify())
    assert (caught.code(), caught.details()) == (grpc.StatusCode.DATA_LOSS, "as it said")
    assert await setup.codes(1) == [code_pb2.DATA_LOSS]


async def test_every_ended_rpc_is_told_with_its_code(setup: Setup) -> None:
    await setup.classify()
    setup.servicer.behavior = raising(NotFound("no", reason="NO"))
    await error_of(setup.classify())
    setup.servicer.behavior = raising(ValueError())
    await error_of(setup.classify())
    assert await setup.codes(3) == [code_pb2.OK, code_pb2.NOT_FOUND, code_pb2.INTERNAL]


async def test_a_caller_who_leaves_cancels_the_handler_and_counts_as_cancelled(setup: Setup) -> None:
    entered = asyncio.Event()

    async def behavior(request: Any, context: Any) -> Any:
        entered.set()
        await asyncio.Event().wait()

    setup.servicer.behavior = behavior
    call = setup.classify()
    waiting = asyncio.ensure_future(call.code())
    await entered.wait()
    call.cancel()
    assert await setup.codes(1) == [code_pb2.CANCELLED]
    assert await waiting is grpc.StatusCode.CANCELLED


async def test_reflection_lists_the_services(setup: Setup) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(setup.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    stream = stub.ServerReflectionInfo(iter([asked]))
    answer = await stream.read()
    names = {service.name for service in answer.list_services_response.service}
    assert {"conch.v1.InferenceService", "grpc.health.v1.Health"} <= names
