"""The one path of every unary answer: check, pick, encode, batch, decode, and say who answered.

Knows what all tasks have in common; what is particular to one is its `UnaryRpc`. Knows of gRPC only the
caller's deadline.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

from google.protobuf.duration_pb2 import Duration

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, NotReady
from services.gateway.admission import too_late
from services.gateway.limits import check_texts, num_characters
from services.gateway.metrics import Metrics
from services.gateway.settings import GatewaySettings
from services.gateway.warming import ServedVersion
from services.interceptors import code_of
from services.tasks import Encoded, Example
from services.tasks.example import answers_of
from services.tasks.rpcs import UnaryRpc


class UnaryRequest(Protocol):
    """What every request for answers has."""

    model: str
    version: int


class UnaryResponse(Protocol):
    """What every answer has."""

    @property
    def served_by(self) -> inference_pb2.ServedBy:
        """Who answered."""

    @property
    def timings(self) -> inference_pb2.Timings:
        """Where the time went."""


class Caller(Protocol):
    """Who waits for the answer; grpc.aio's ServicerContext is one."""

    def time_remaining(self) -> float | None:
        """Returns the seconds until the caller's deadline, None if there is none."""


class Picks(Protocol):
    """Who knows the versions that are served; services.gateway.serving.Serving is one."""

    def pick(self, model: str, version: int) -> ServedVersion:
        """Returns the version that answers; `version` 0 leaves the choice to the route.

        Raises NotFound if it is not routed here, BackendUnavailable if it does not serve yet.
        """


class Answering:
    """Answers any UnaryRpc through the versions that are served."""

    def __init__(self, serving: Picks, settings: GatewaySettings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics

    async def answer(self, name: str, request: UnaryRequest, caller: Caller) -> Any:
        """Returns the response of the rpc `name`.

        Raises one of services.errors as the contract of InferenceService says.
        """
        started = time.perf_counter()
        deadline = self._deadline(caller)
        served = self._pick(request)
        try:
            return await self._answer(name, request, served, deadline, started)
        except BaseException as error:
            version = served.served_by
            self._metrics.version_failed(name, version.model, version.version, code_of(error))
            raise

    async def _answer(
        self, name: str, request: UnaryRequest, served: ServedVersion, deadline: float, started: float
    ) -> Any:
        rpc = unary_rpc(name, served)
        texts = rpc.texts(request)
        check_texts(texts, self._settings)
        examples = rpc.examples(request, served)
        encoding = time.perf_counter()
        encoded = await self._encode(served, examples, num_characters(texts))
        encoded_at = time.perf_counter()
        windows = [window for one in encoded for window in one.windows]
        batched = await served.batcher.submit(windows, deadline=deadline)
        decoding = time.perf_counter()
        response = rpc.respond(
            request, encoded, answers_of(encoded, batched.rows, served.task.outputs), served
        )
        response.served_by.CopyFrom(served.served_by)
        ended = time.perf_counter()
        self._say_times(
            name,
            response,
            encoded_at - encoding,
            batched.queue_seconds,
            batched.infer_seconds,
            ended - decoding,
            ended - started,
        )
        return response

    def _deadline(self, caller: Caller) -> float:
        """Returns when Triton's answer must be here, in the event loop's time."""
        remaining = caller.time_remaining()
        if remaining is None:
            remaining = self._settings.default_deadline_seconds
        left = remaining - self._settings.deadline_reserve_seconds
        if left <= 0:
            raise too_late(-left, f"{remaining:.3f} s were left when the request arrived")
        return asyncio.get_running_loop().time() + left

    def _pick(self, request: UnaryRequest) -> ServedVersion:
        if not request.model:
            raise InvalidRequest.field("model", "is required", reason="NO_MODEL")
        return self._serving.pick(request.model, request.version)

    async def _encode(
        self, served: ServedVersion, examples: Sequence[Example], characters: int
    ) -> list[Encoded]:
        task, encoder, facts = served.task, served.encoder, served.facts
        if characters <= self._settings.thread_tokenize_characters:
            return task.encode(encoder, examples, facts)
        return await asyncio.to_thread(task.encode, encoder, examples, facts)

    def _say_times(self, rpc_name: str, response: UnaryResponse, *seconds: float) -> None:
        tokenize, queue, infer, decode, total = seconds
        timings, served_by = response.timings, response.served_by
        _set(timings.tokenize, tokenize)
        _set(timings.queue, queue)
        _set(timings.infer, infer)
        _set(timings.decode, decode)
        _set(timings.total, total)
        self._metrics.stages(rpc_name, served_by.model, served_by.version).observe(*seconds)


def unary_rpc(name: str, served: ServedVersion) -> UnaryRpc[Any, Any]:
    """Returns what a version's task says of the rpc `name`. Raises NotReady if it does not answer that."""
    task = served.task
    if name not in task.rpcs:
        rpcs = ", ".join(task.rpcs)
        message = f"{served.served_by.model} answers {task.id} ({rpcs}), not {name}"
        raise NotReady(message, reason="OTHER_TASK")
    return cast(UnaryRpc[Any, Any], task.rpcs[name])


def _set(duration: Duration, seconds: float) -> None:
    whole = int(seconds)
    duration.seconds = whole
    duration.nanos = int((seconds - whole) * 1e9)
