"""The fake gateway's side of gRPC: one handler for all rpcs, errors as the real gateway sends them.

Knows calls and statuses; what is answered stands beside.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from conch.errors import ConchError
from conch.v1 import inference_pb2, inference_pb2_grpc

_Context = grpc.ServicerContext


@dataclass(frozen=True)
class ReceivedCall:
    """One call as it arrived.

    `rpc` is its name, such as "Classify"; `time_remaining_seconds` is None where the caller set no deadline;
    `cancelled` is set once the caller has left before the end.
    """

    request: Any  # the rpc's own message: a union would make every test narrow it first
    time_remaining_seconds: float | None
    metadata: Mapping[str, str]
    rpc: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False)


class Answers(Protocol):
    """Who knows the answers: FakeGateway."""

    def respond(self, call: ReceivedCall) -> Any:
        """Returns the response of a unary call. Raises ConchError."""

    def stream(self, call: ReceivedCall) -> Iterator[Any]:
        """Yields the responses of a stream. Raises ConchError."""

    def wake(self) -> None:
        """Says that a caller has left."""


class FakeServicer(inference_pb2_grpc.InferenceServiceServicer):
    """InferenceService, every rpc answered by the same `answers`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def Classify(self, request: inference_pb2.ClassifyRequest, context: _Context) -> Any:  # noqa: N802
        return self._respond("Classify", request, context)

    def ExtractEntities(  # noqa: N802
        self, request: inference_pb2.ExtractEntitiesRequest, context: _Context
    ) -> Any:
        return self._respond("ExtractEntities", request, context)

    def AnswerQuestion(  # noqa: N802
        self, request: inference_pb2.AnswerQuestionRequest, context: _Context
    ) -> Any:
        return self._respond("AnswerQuestion", request, context)

    def Embed(self, request: inference_pb2.EmbedRequest, context: _Context) -> Any:  # noqa: N802
        return self._respond("Embed", request, context)

    def Rank(self, request: inference_pb2.RankRequest, context: _Context) -> Any:  # noqa: N802
        return self._respond("Rank", request, context)

    def Translate(self, request: inference_pb2.TranslateRequest, context: _Context) -> Any:  # noqa: N802
        return self._respond("Translate", request, context)

    def Summarize(self, request: inference_pb2.SummarizeRequest, context: _Context) -> Any:  # noqa: N802
        return self._respond("Summarize", request, context)

    def Generate(  # noqa: N802
        self, request: inference_pb2.GenerateRequest, context: _Context
    ) -> Iterator[inference_pb2.GenerateResponse]:
        return self._stream("Generate", request, context)

    def Chat(  # noqa: N802
        self, request: inference_pb2.ChatRequest, context: _Context
    ) -> Iterator[inference_pb2.ChatResponse]:
        return self._stream("Chat", request, context)

    def _respond(self, rpc: str, request: Any, context: _Context) -> Any:
        call, ended = self._received(rpc, request, context)
        try:
            response = self._answers.respond(call)
        except ConchError as error:
            ended.set()
            _abort(context, error)
        ended.set()
        return response

    def _stream(self, rpc: str, request: Any, context: _Context) -> Iterator[Any]:
        call, ended = self._received(rpc, request, context)
        try:
            yield from self._answers.stream(call)
        except ConchError as error:
            ended.set()
            _abort(context, error)
        ended.set()

    def _received(self, rpc: str, request: Any, context: _Context) -> tuple[ReceivedCall, threading.Event]:
        """Returns the call, and what is to be set once it has its answer: ended before, it was cancelled."""
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        call = ReceivedCall(request, context.time_remaining(), metadata, rpc)
        ended = threading.Event()

        def leave() -> None:
            if not ended.is_set():
                call.cancelled.set()
                self._answers.wake()

        if not context.add_callback(leave):
            call.cancelled.set()
        return call, ended


def to_status(error: ConchError) -> status_pb2.Status:
    """Returns the google.rpc.Status that a Conch service sends for `error`."""
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=v.field, description=v.description, reason=error.reason
        )
        for v in error.field_violations
    ]
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain="conch")]
    if violations:
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code: Any = error.code.value
    return status_pb2.Status(code=code[0], message=error.message, details=[_packed(d) for d in details])


def _abort(context: _Context, error: ConchError) -> None:
    details = to_status(error).SerializeToString()
    context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(error.code, error.message)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
