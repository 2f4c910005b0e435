"""A gateway whose queue is known: one slow server, callers who never pause, and calls for a pool at zero.

Knows how long everything takes; knows nothing about Prometheus.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from conch.v1 import inference_pb2_grpc
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import request
from tests.contract.gateway.test_main import event, start, until_serving
from tests.contract.versions import publish

SERVICE_SECONDS = 0.1
NUM_CALLERS = 6
DEADLINE_SECONDS = 1.8
TOKENS_OF_A_TEXT = 8
NUM_HELD = 3
EXPECTED_SHARE = (NUM_CALLERS - 1) * SERVICE_SECONDS / DEADLINE_SECONDS


class SlowTriton(FakeTriton):
    """Takes as long for every call."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(SERVICE_SECONDS)
        return await super().ModelInfer(request, context)


class Load:
    """Callers who each ask again as soon as they were answered, so that the queue is as long all the time."""

    def __init__(self, address: str) -> None:
        self.shares: list[float] = []
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Returns once the queue is as long as it will be, with calls held for the pool without servers."""
        await until_serving(self._channel)
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(NUM_CALLERS)]
        held = [self._stub.Classify(request("dull", model="sleeper"), timeout=60) for _ in range(NUM_HELD)]
        self._tasks += [asyncio.ensure_future(call) for call in held]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    async def _ask(self) -> None:
        while True:
            answer = await self._stub.Classify(request("a fine film"), timeout=DEADLINE_SECONDS)
            self.shares.append(answer.timings.queue.ToTimedelta().total_seconds() / DEADLINE_SECONDS)


@asynccontextmanager
async def gateway(home: Path, triton: FakeTriton) -> AsyncIterator[tuple[str, str]]:
    """Yields the addresses of calls and of metrics of a gateway over one slow server and a pool at zero."""
    pools = {"cpu": {"address": triton.address}, "gpu": {"address": "127.0.0.1:1"}}
    routes = [
        {"model": model, "versions": [{"version": "1", "weight": 1}], "pool": pool}
        for model, pool in (("sentiment", "cpu"), ("sleeper", "gpu"))
    ]
    (home / "routes.json").write_text(json.dumps({"routes": routes}))
    for model in ("sentiment", "sleeper"):
        publish(home / "repository", 1, model=model)
    process = await start(
        home,
        CONCH_POOLS=json.dumps(pools),
        CONCH_STAGED_BY="pool",
        CONCH_MAX_ROWS="1",
        CONCH_MAX_INFLIGHT="1",
    )
    try:
        port = (await event(process, "server.started"))["port"]
        metrics_port = (await event(process, "metrics.exposed"))["port"]
        yield f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def slow_triton() -> AsyncIterator[SlowTriton]:
    """Yields a slow server that holds the version that is asked."""
    slow = SlowTriton()
    await slow.start()
    slow.loaded = {"sentiment": {1}}
    try:
        yield slow
    finally:
        await slow.die()


@asynccontextmanager
async def under_load(address: str) -> AsyncIterator[Load]:
    """Yields the load of a gateway."""
    load = Load(address)
    try:
        await load.begin()
        yield load
    finally:
        await load.end()
