"""The one path of every unary answer: check, pick, encode, batch, decode, and say who answered.

Knows what all tasks have in common; what is particular to one is its `UnaryRpc`.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from conch.v1 import inference_pb2
from services.errors import DeadlineExceeded
from services.gateway.arrival import (
    AnyRequest,
    Caller,
    Picks,
    deadline_of,
    pick,
    pick_later,
    rpc_of,
    set_seconds,
)
from services.gateway.calls import Batched
from services.gateway.crew import NoServer
from services.gateway.limits import check_texts, check_windows, num_characters
from services.gateway.metrics import Metrics
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings
from services.gateway.shadowing import Shadowing
from services.tasks import Encoded, Example
from services.tasks.example import answers_of
from services.tasks.rpcs import UnaryRpc
from services.tasks.tensors import Answer


class UnaryResponse(Protocol):
    """What every answer has."""

    @property
    def served_by(self) -> inference_pb2.ServedBy:
        """Who answered."""

    @property
    def timings(self) -> inference_pb2.Timings:
        """Where the time went."""


class Answering:
    """Answers any UnaryRpc through the versions that are served."""

    def __init__(self, serving: Picks, settings: GatewaySettings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics
        self._shadowing = Shadowing(metrics.pools.shadows)

    async def answer(self, name: str, request: AnyRequest, caller: Caller) -> Any:
        """Returns the response of the rpc `name`.

        Raises one of services.errors as the contract of InferenceService says.
        """
        started = time.perf_counter()
        deadline = deadline_of(
            caller,
            default_seconds=self._settings.default_deadline_seconds,
            reserve_seconds=self._settings.deadline_reserve_seconds,
        )
        try:
            served = pick(self._serving, request)
        except NoServer as lack:
            served = await self._later(request, lack, deadline)
        while True:
            try:
                response = await self._answer(name, request, served, deadline, started)
                break
            except NoServer as lack:
                with self._metrics.failures(name, served.served_by):  # only if nobody else comes
                    served = await self._later(request, lack, deadline)
            except BaseException as error:
                self._metrics.version_failed(name, served.served_by, error)
                self._count_lateness(served.pool, error, deadline)
                raise
        self._shadow(name, request, served)
        return response

    async def _later(self, request: AnyRequest, lack: NoServer, deadline: float) -> ServedVersion:
        try:
            return await pick_later(self._serving, request, lack, deadline)
        except BaseException as error:
            self._count_lateness(lack.pool, error, deadline)
            raise

    def _count_lateness(self, pool: str, error: BaseException, deadline: float) -> None:
        # A caller whose deadline passes while he waits is gone before he can be refused.
        is_gone = isinstance(error, asyncio.CancelledError)
        is_late = is_gone and asyncio.get_running_loop().time() >= deadline
        if is_late or (isinstance(error, DeadlineExceeded) and error.reason == "DEADLINE_TOO_NEAR"):
            self._metrics.pools.queue(pool).refused()

    def _shadow(self, name: str, request: AnyRequest, served: ServedVersion) -> None:
        shadow = self._serving.shadow(request.model, served.version.version)
        if shadow is None or name not in shadow.task.rpcs:
            return
        deadline = asyncio.get_running_loop().time() + self._settings.default_deadline_seconds
        self._shadowing.send(shadow, served, lambda: self._batched(name, request, shadow, deadline))

    async def _batched(
        self, name: str, request: AnyRequest, served: ServedVersion, deadline: float
    ) -> Batched:
        """Returns what a version's model says to a request that was found good before."""
        rpc = cast(UnaryRpc[Any, Any], rpc_of(name, served))
        assert served.batcher, "versions whose task has unary rpcs answer in batches"
        examples = rpc.examples(request, served)
        encoded = await self._encode(served, examples, num_characters(rpc.texts(request)))
        windows = [window for one in encoded for window in one.windows]
        return await served.batcher.submit(windows, deadline=deadline)

    async def _answer(
        self, name: str, request: AnyRequest, served: ServedVersion, deadline: float, started: float
    ) -> Any:
        rpc = cast(UnaryRpc[Any, Any], rpc_of(name, served))
        assert served.batcher, "versions whose task has unary rpcs answer in batches"
        texts = rpc.texts(request)
        check_texts(texts, self._settings)
        examples = rpc.examples(request, served)
        encoding = time.perf_counter()
        encoded = await self._encode(served, examples, num_characters(texts))
        encoded_at = time.perf_counter()
        windows = [window for one in encoded for window in one.windows]
        check_windows(len(windows), texts[0].name, self._settings)
        had_seconds = deadline - asyncio.get_running_loop().time() + encoded_at - started
        batched = await served.batcher.submit(windows, deadline=deadline)
        decoding = time.perf_counter()
        held_seconds = encoding - started
        self._metrics.pools.queue(served.pool).waited(
            batched.queue_seconds + held_seconds, had_seconds=had_seconds
        )
        answers = answers_of(encoded, batched.rows, served.task.outputs)
        _require_numbers(answers)
        response = rpc.respond(request, encoded, answers, served)
        response.served_by.CopyFrom(batched.served_by or served.served_by)
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
        set_seconds(timings.tokenize, tokenize)
        set_seconds(timings.queue, queue)
        set_seconds(timings.infer, infer)
        set_seconds(timings.decode, decode)
        set_seconds(timings.total, total)
        self._metrics.stages(rpc_name, served_by.model, served_by.version).observe(*seconds)


def _require_numbers(answers: Sequence[Answer]) -> None:
    """Raises ArithmeticError, a fault of ours, if a model answered NaN or infinity: nobody may act on it."""
    for answer in answers:
        for row in answer:
            for name, values in row.items():
                if not np.isfinite(values).all():
                    raise ArithmeticError(f"output {name} holds what is no number")
