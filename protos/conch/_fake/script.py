"""What a fake gateway does with a call: records it, waits, fails as it was told, refuses, or answers.

Knows calls and what a test has asked for; knows nothing about sockets.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from conch._fake.answers import FakeAnswers
from conch._fake.checks import refuse_invalid
from conch._fake.servicer import ReceivedCall
from conch.errors import ConchError, FailedPrecondition, NotFound, Unavailable
from conch.v1 import inference_pb2, job_pb2

_TASKS = {
    "Classify": ("text-classification", "feature-extraction"),
    "ExtractEntities": ("token-classification",),
    "AnswerQuestion": ("question-answering",),
    "Embed": ("feature-extraction",),
    "Rank": ("feature-extraction", "text-classification"),
    "Translate": ("text2text-generation",),
    "Summarize": ("text2text-generation",),
    "Generate": ("text-generation",),
    "Chat": ("text-generation",),
}


@dataclass
class _Failure:
    """How calls to come end: with `error`, streams after `pieces` of them."""

    error: ConchError
    pieces: int = 0
    only_streams: bool = False


class Script:
    """What happens to calls, in the words of FakeGateway."""

    def __init__(
        self, answers: FakeAnswers, models: Mapping[str, int] | None, tasks: Mapping[str, str]
    ) -> None:
        self.calls: list[ReceivedCall] = []
        self.delay_seconds = 0.0
        self._answers = answers
        self._models = models
        self._tasks = tasks
        self._failures: deque[_Failure] = deque()
        self._changed = threading.Condition()
        self._closing = False

    def fail(self, error: ConchError, times: int) -> None:
        """See FakeGateway.fail."""
        with self._changed:
            self._failures.extend([_Failure(error)] * times)

    def fail_after(self, pieces: int, error: ConchError) -> None:
        """See FakeGateway.fail_after."""
        with self._changed:
            self._failures.append(_Failure(error, pieces, only_streams=True))

    def close(self) -> None:
        """Ends every wait, now and from now on."""
        self._closing = True
        self.wake()

    def respond(self, call: ReceivedCall) -> Any:
        """Answers a unary call. Raises ConchError."""
        failure = self._begin(call, is_stream=False)
        self._pause(call)
        if failure:
            raise failure.error
        served_by = self._admit(call)
        response = self._answers.respond(call.rpc, call.request)
        response.served_by.CopyFrom(served_by)
        response.timings.SetInParent()
        return response

    def stream(self, call: ReceivedCall) -> Iterator[Any]:
        """Answers a streaming call, piece by piece. Raises ConchError."""
        failure = self._begin(call, is_stream=True)
        most = failure.pieces if failure else None
        for number, response in enumerate(self._responses(call, failure)):
            self._pause(call)
            if number == most:
                break
            yield response
        if failure:
            raise failure.error

    def wake(self) -> None:
        """Lets calls that wait look again whether they should."""
        with self._changed:
            self._changed.notify_all()

    def _begin(self, call: ReceivedCall, *, is_stream: bool) -> _Failure | None:
        """Records the call and returns how it is to fail, None if it is to be answered."""
        with self._changed:
            self.calls.append(call)
            for failure in self._failures:
                if is_stream or not failure.only_streams:
                    self._failures.remove(failure)
                    return failure
        return None

    def _pause(self, call: ReceivedCall) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or call.cancelled.is_set(), self.delay_seconds)
        if self._closing:
            raise Unavailable("the gateway is going", reason="CLOSING")

    def _responses(self, call: ReceivedCall, failure: _Failure | None) -> Iterator[Any]:
        """Yields the stream's responses: who answers in the first and the last, timings in the last."""
        if failure and not failure.pieces:
            yield None  # fails before it is looked at, as unary calls do
        served_by = self._admit(call)
        response_type: Any = getattr(inference_pb2, f"{call.rpc}Response")
        for number, piece in enumerate(self._answers.pieces(call.request)):
            is_last = bool(piece.finish_reason)
            yield response_type(
                piece=piece,
                served_by=served_by if is_last or not number else None,
                timings=inference_pb2.StreamTimings() if is_last else None,
            )

    def _admit(self, call: ReceivedCall) -> inference_pb2.ServedBy:
        """Returns who answers. Raises what the real gateway would."""
        refuse_invalid(call.rpc, call.request)
        model, version = call.request.model, self._version(call.request)
        task = self._tasks.get(model)
        if task and task not in _TASKS[call.rpc]:
            message = f"{model} answers {task}; {call.rpc} is for {' and '.join(_TASKS[call.rpc])}"
            raise FailedPrecondition(message, reason="OTHER_TASK")
        return inference_pb2.ServedBy(
            model=model,
            version=version,
            artifact_digest=hashlib.sha256(f"{model}@{version}".encode()).hexdigest(),
            precision=job_pb2.PRECISION_FP32,
            runtime=job_pb2.RUNTIME_ONNXRUNTIME,
        )

    def _version(self, request: Any) -> int:
        if self._models is None:
            return int(request.version or 1)
        newest = self._models.get(request.model, 0)
        if not newest:
            raise NotFound(f"no model {request.model!r} is routed here", reason="MODEL_NOT_FOUND")
        if request.version > newest:
            message = f"version {request.version} is not part of the route of {request.model}"
            raise NotFound(message, reason="VERSION_NOT_FOUND")
        return int(request.version or newest)
