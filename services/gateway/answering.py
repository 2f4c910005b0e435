"""The one path of every unary answer: check, pick, encode, batch, decode, and say who answered.

Knows what all tasks have in common; what is particular to one is its `UnaryRpc`. Knows of gRPC only the
caller's deadline.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from conch.v1 import inference_pb2
from services.errors import InvalidRequest, NotReady
from services.gateway.admission import too_late
from services.gateway.batching import Row
from services.gateway.limits import check_texts, num_characters
from services.gateway.metrics import Metrics
from services.gateway.settings import GatewaySettings
from services.gateway.warming import ServedVersion
from services.interceptors import code_of
from services.tasks.encoding import Encoder, Tokens


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


class Texts(NamedTuple):
    """The texts of a request, and the second texts of pairs if it has them."""

    texts: Sequence[str]
    pairs: Sequence[str] = ()


Request = TypeVar("Request", bound=UnaryRequest, contravariant=True)
Response = TypeVar("Response", bound=UnaryResponse, covariant=True)


class UnaryRpc(Protocol, Generic[Request, Response]):
    """What is particular to one task's rpc."""

    name: str
    """Name of the rpc, for metrics."""
    task: str
    """Hugging Face id of the task that its models must have."""

    def texts(self, request: Request) -> Texts:
        """Returns what is to be encoded."""

    def respond(
        self, request: Request, served: ServedVersion, tokens: Sequence[Tokens], rows: Sequence[Row]
    ) -> Response:
        """Returns the answer to the outputs `rows`, one for each text; who answered is added later."""


class Answering:
    """Answers any UnaryRpc through the versions that are served."""

    def __init__(self, serving: Picks, settings: GatewaySettings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics

    async def answer(self, rpc: UnaryRpc[Request, Response], request: Request, caller: Caller) -> Response:
        """Returns the answer; raises one of services.errors as the contract of InferenceService says."""
        started = time.perf_counter()
        deadline = self._deadline(caller)
        texts = rpc.texts(request)
        check_texts(texts.texts, texts.pairs, self._settings)
        served = self._pick(rpc, request)
        try:
            return await self._answer(rpc, request, served, texts, deadline, started)
        except BaseException as error:
            version = served.served_by
            self._metrics.version_failed(rpc.name, version.model, version.version, code_of(error))
            raise

    async def _answer(
        self,
        rpc: UnaryRpc[Request, Response],
        request: Request,
        served: ServedVersion,
        texts: Texts,
        deadline: float,
        started: float,
    ) -> Response:
        encoding = time.perf_counter()
        tokens = await self._encode(served.encoder, texts)
        encoded = time.perf_counter()
        batched = await served.batcher.submit(tokens, deadline=deadline)
        decoding = time.perf_counter()
        response = rpc.respond(request, served, tokens, batched.rows)
        response.served_by.CopyFrom(served.served_by)
        ended = time.perf_counter()
        self._say_times(
            rpc.name,
            response,
            encoded - encoding,
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

    def _pick(self, rpc: UnaryRpc[Request, Response], request: Request) -> ServedVersion:
        if not request.model:
            raise InvalidRequest.field("model", "is required", reason="NO_MODEL")
        served = self._serving.pick(request.model, request.version)
        if served.task.id != rpc.task:
            raise NotReady(
                f"{request.model} answers {served.task.id}; {rpc.name} is for {rpc.task}", reason="OTHER_TASK"
            )
        return served

    async def _encode(self, encoder: Encoder, texts: Texts) -> list[Tokens]:
        if num_characters(*texts) <= self._settings.thread_tokenize_characters:
            return encoder.encode(texts.texts, texts.pairs)
        return await asyncio.to_thread(encoder.encode, texts.texts, texts.pairs)

    def _say_times(self, rpc_name: str, response: UnaryResponse, *seconds: float) -> None:
        tokenize, queue, infer, decode, total = seconds
        timings, served_by = response.timings, response.served_by
        _set(timings.tokenize, tokenize)
        _set(timings.queue, queue)
        _set(timings.infer, infer)
        _set(timings.decode, decode)
        _set(timings.total, total)
        self._metrics.stages(rpc_name, served_by.model, served_by.version).observe(*seconds)


def _set(duration: Duration, seconds: float) -> None:
    whole = int(seconds)
    duration.seconds = whole
    duration.nanos = int((seconds - whole) * 1e9)
