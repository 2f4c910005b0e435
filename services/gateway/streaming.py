"""The one path of every streamed answer: check, pick, make a prompt, wait for a turn, and pass pieces on.

Knows what all stream rpcs have in common; what is particular to one is its `StreamRpc`. Nothing is read
ahead: the next piece is asked for once the caller's connection has taken the last one.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol, cast

from google.protobuf.message import Message

from conch.v1 import inference_pb2
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
from services.gateway.crew import NoServer
from services.gateway.limits import check_texts, check_total
from services.gateway.metrics import Metrics
from services.gateway.pool_metrics import PoolQueue
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings
from services.gateway.stream_metrics import StreamSeries
from services.tasks.rpcs import Piece, Prompt, StreamRpc


class Streaming:
    """Answers any StreamRpc through the versions that are served."""

    def __init__(self, serving: Picks, settings: GatewaySettings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics

    async def answer(self, name: str, request: AnyRequest, caller: Caller) -> AsyncGenerator[Any, None]:
        """Yields the responses of the rpc `name`; closing it ends the work on them.

        Raises one of services.errors as the contract of InferenceService says, also in the middle.
        """
        started = time.perf_counter()
        deadline = deadline_of(
            caller,
            default_seconds=self._settings.stream_deadline_seconds,
            reserve_seconds=self._settings.deadline_reserve_seconds,
        )
        had_seconds = deadline - asyncio.get_running_loop().time()
        try:
            served = pick(self._serving, request)
        except NoServer as lack:
            served = await pick_later(self._serving, request, lack, deadline)
        while True:
            queue = self._metrics.pools.queue(served.pool)
            progress = _Progress(started, served.served_by, self._series(name, served), queue, had_seconds)
            try:
                async with aclosing(self._stream(name, request, served, deadline, progress)) as responses:
                    async for response in responses:
                        yield response
                return
            except NoServer as lack:  # nobody began on it
                with self._metrics.failures(name, served.served_by):
                    served = await pick_later(self._serving, request, lack, deadline)
            except BaseException as error:
                self._metrics.version_failed(name, served.served_by, error)
                raise

    async def _stream(
        self, name: str, request: AnyRequest, served: ServedVersion, deadline: float, progress: "_Progress"
    ) -> AsyncGenerator[Any, None]:
        rpc: StreamRpc[Any, Any] = rpc_of(name, served)
        assert served.streams, "versions whose task has stream rpcs answer in streams"
        prompt = await self._prompt(rpc, request, served)
        async with served.streams.turn(deadline=deadline):
            progress.has_its_turn()
            async with aclosing(served.streams.write(prompt, deadline=deadline)) as pieces:
                async for piece in pieces:
                    yield progress.told(rpc.respond(piece), piece)

    def _series(self, name: str, served: ServedVersion) -> StreamSeries:
        return self._metrics.streams.of(name, served.served_by.model, served.served_by.version)

    async def _prompt(self, rpc: StreamRpc[Any, Any], request: Any, served: ServedVersion) -> Prompt:
        texts = rpc.texts(request)
        check_texts(texts, self._settings)
        check_total(texts[0], self._settings)
        if cast(Message, request).ByteSize() <= self._settings.thread_tokenize_characters:
            return rpc.prompt(request, served)
        return await asyncio.to_thread(rpc.prompt, request, served)


class StreamResponse(Protocol):
    """What every response of a stream has."""

    @property
    def served_by(self) -> inference_pb2.ServedBy:
        """Who answers."""

    @property
    def timings(self) -> inference_pb2.StreamTimings:
        """Where the time went."""


class _Progress:
    """One stream as far as it has come: what its responses say of it, and what is counted."""

    def __init__(
        self,
        started: float,
        served_by: inference_pb2.ServedBy,
        series: StreamSeries,
        queue: PoolQueue,
        had_seconds: float,
    ) -> None:
        self._started, self._served_by, self._series = started, served_by, series
        self._queue, self._had_seconds = queue, had_seconds
        self._first_piece_seconds = 0.0
        self._num_tokens = 0

    def has_its_turn(self) -> None:
        """Notes that the wait for a turn is over."""
        seconds = time.perf_counter() - self._started
        self._series.queued(seconds)
        self._queue.waited(seconds, had_seconds=self._had_seconds)

    def told(self, response: StreamResponse, piece: Piece) -> StreamResponse:
        """Returns `response` with who answers and where the time went, where that is to be said."""
        seconds = time.perf_counter() - self._started
        is_first = not self._first_piece_seconds
        if is_first:
            self._begin(piece, seconds)
        if is_first or piece.is_last:
            response.served_by.CopyFrom(self._served_by)
        if piece.is_last:
            set_seconds(response.timings.first_piece, self._first_piece_seconds)
            set_seconds(response.timings.total, seconds)
            self._series.ended(seconds)
        self._series.wrote(piece.num_generated_tokens - self._num_tokens)
        self._num_tokens = piece.num_generated_tokens
        return response

    def _begin(self, piece: Piece, seconds: float) -> None:
        self._first_piece_seconds = seconds
        self._series.begun(seconds)
        self._series.read(piece.num_prompt_tokens)
