"""A gateway for other teams' tests: a real gRPC server with deterministic answers and no model.

    from conch.testing import FakeGateway

    def test_angry_mail_goes_to_a_person():
        with FakeGateway(labels=["calm", "angry"]) as gateway:
            gateway.answer("WHERE IS MY ORDER", {"angry": 0.9, "calm": 0.1})
            assert triage(Conch(gateway.address), "WHERE IS MY ORDER") == "person"

It refuses what the real gateway refuses. Knows the contract and `conch.errors`; needs the base install.
"""

import hashlib
import math
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from conch.errors import ConchError, FieldViolation, InvalidArgument, NotFound
from conch.v1 import inference_pb2, inference_pb2_grpc, job_pb2

__all__ = ["FakeGateway", "ReceivedCall", "deterministic_scores", "to_status"]

_MAX_TEXTS = 256
_Context = grpc.ServicerContext


@dataclass(frozen=True)
class ReceivedCall:
    """One call as it arrived; `time_remaining_seconds` is None where the caller set no deadline."""

    request: inference_pb2.ClassifyRequest
    time_remaining_seconds: float | None
    metadata: Mapping[str, str]


class FakeGateway:
    """Answers Classify at `address` on a free local port from construction to `close()`; thread-safe.

    The same text always gets the same labels and scores. `models` maps the models that exist to their newest
    version; by default every model exists and has version 1.
    """

    def __init__(
        self, *, labels: Sequence[str] = ("negative", "positive"), models: Mapping[str, int] | None = None
    ) -> None:
        self.calls: list[ReceivedCall] = []
        self._labels = tuple(labels)
        self._models = models
        self._answers: dict[str, dict[str, float]] = {}
        self._errors: deque[ConchError] = deque()
        self._delay_seconds = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(_Servicer(self), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def answer(self, text: str, scores: Mapping[str, float]) -> None:
        """Sets the labels and scores of one text from now on."""
        self._answers[text] = dict(scores)

    def fail(self, error: ConchError, *, times: int = 1) -> None:
        """Lets the next `times` calls end with `error`, as the real gateway would send it."""
        with self._lock:
            self._errors.extend([error] * times)

    def delay(self, seconds: float) -> None:
        """Lets every answer from now on take at least that long."""
        self._delay_seconds = seconds

    def close(self) -> None:
        """Stops answering; calls that wait for a delay end at once with UNAVAILABLE."""
        self._closing.set()
        self._server.stop(grace=0.5).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _respond(self, call: ReceivedCall) -> inference_pb2.ClassifyResponse:
        with self._lock:
            self.calls.append(call)
            error = self._errors.popleft() if self._errors else None
        if self._delay_seconds and self._closing.wait(self._delay_seconds):
            raise ConchError("the gateway is going", reason="CLOSING", code=grpc.StatusCode.UNAVAILABLE)
        if error:
            raise error
        _refuse_invalid(call.request)
        return self._response(call.request)

    def _response(self, request: inference_pb2.ClassifyRequest) -> inference_pb2.ClassifyResponse:
        version = self._version(request)
        pairs = request.text_pairs or [""] * len(request.texts)
        rows = [self._classification(t, p, request.top_k) for t, p in zip(request.texts, pairs, strict=True)]
        digest = hashlib.sha256(f"{request.model}@{version}".encode()).hexdigest()
        served_by = inference_pb2.ServedBy(
            model=request.model,
            version=version,
            artifact_digest=digest,
            precision=job_pb2.PRECISION_FP32,
            runtime=job_pb2.RUNTIME_ONNXRUNTIME,
        )
        return inference_pb2.ClassifyResponse(
            classifications=rows, served_by=served_by, timings=inference_pb2.Timings()
        )

    def _version(self, request: inference_pb2.ClassifyRequest) -> int:
        if self._models is None:
            return request.version or 1
        newest = self._models.get(request.model, 0)
        if not newest or request.version > newest:
            raise NotFound(f"no route leads to {request.model}", reason="MODEL_NOT_FOUND")
        return request.version or newest

    def _classification(self, text: str, pair: str, top_k: int) -> inference_pb2.Classification:
        scores = self._answers.get(text) or deterministic_scores(text + pair, self._labels)
        ranked = sorted(scores.items(), key=lambda item: -item[1])[: top_k or None]
        num_tokens = len(text.split()) + len(pair.split()) + 2
        return inference_pb2.Classification(
            labels=[inference_pb2.LabelScore(label=label, score=score) for label, score in ranked],
            tokens=inference_pb2.InputTokens(num_tokens=num_tokens),
        )


def deterministic_scores(text: str, labels: Sequence[str]) -> dict[str, float]:
    """Returns scores in [0, 1] that sum to 1 and depend on text and labels alone."""
    logits = [hashlib.sha256(f"{label}\0{text}".encode()).digest()[0] / 64 for label in labels]
    total = sum(math.exp(logit) for logit in logits)
    return {label: math.exp(logit) / total for label, logit in zip(labels, logits, strict=True)}


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


class _Servicer(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway

    def Classify(  # noqa: N802
        self, request: inference_pb2.ClassifyRequest, context: _Context
    ) -> inference_pb2.ClassifyResponse:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        call = ReceivedCall(request, context.time_remaining(), metadata)
        try:
            return self._gateway._respond(call)
        except ConchError as error:
            details = to_status(error).SerializeToString()
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(error.code, error.message)


def _refuse_invalid(request: inference_pb2.ClassifyRequest) -> None:
    problems = []
    if not request.model:
        problems.append(FieldViolation("model", "is required"))
    if not 1 <= len(request.texts) <= _MAX_TEXTS:
        problems.append(FieldViolation("texts", f"{len(request.texts)} texts, 1 to {_MAX_TEXTS} are allowed"))
    problems += [FieldViolation(f"texts[{i}]", "is empty") for i, t in enumerate(request.texts) if not t]
    if request.text_pairs and len(request.text_pairs) != len(request.texts):
        problems.append(
            FieldViolation("text_pairs", f"{len(request.text_pairs)} for {len(request.texts)} texts")
        )
    if problems:
        message = "; ".join(f"{p.field}: {p.description}" for p in problems)
        raise InvalidArgument(message, reason="INVALID_FIELD", field_violations=tuple(problems))


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
