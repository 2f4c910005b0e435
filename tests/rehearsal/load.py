"""Steady callers: what each call came to, and which version answered it.

Calls are made by bare stubs that never retry: what a client library would hide counts here.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc.aio

from conch.v1 import inference_pb2, inference_pb2_grpc
from services.targets import runtime_name

_NO_RETRIES = (("grpc.enable_retries", 0),)
_SECONDS_BETWEEN = 0.02


@dataclass
class Tally:
    """What callers saw."""

    versions: Counter[str] = field(default_factory=Counter)
    runtimes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def num_answers(self, model: str) -> int:
        """Answers of one model."""
        return sum(count for key, count in self.versions.items() if key.startswith(f"{model}@"))

    @property
    def num_calls(self) -> int:
        """All calls that ended."""
        return self.versions.total() + len(self.failures)


class Load:
    """One caller a gateway and model, each with a call at a time, until `stop`."""

    def __init__(self, gateways: Sequence[str], models: Sequence[str]) -> None:
        self.tally = Tally()
        self._stopping = asyncio.Event()
        self._answered = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._call(gateway, model)) for gateway in gateways for model in models
        ]

    async def until(self, seen: Callable[[Tally], bool]) -> None:
        """Returns once `seen` is true of the tally."""
        while not seen(self.tally):
            self._answered.clear()
            await self._answered.wait()

    async def stop(self) -> Tally:
        """Lets the calls under way end and returns what all came to."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        return self.tally

    async def _call(self, gateway: str, model: str) -> None:
        async with grpc.aio.insecure_channel(gateway, options=_NO_RETRIES) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            while not self._stopping.is_set():
                await self._count(stub, gateway, model)
                await asyncio.sleep(_SECONDS_BETWEEN)

    async def _count(self, stub: inference_pb2_grpc.InferenceServiceStub, gateway: str, model: str) -> None:
        started = time.monotonic()
        request = inference_pb2.ClassifyRequest(model=model, texts=["a film that I will not forget"])
        try:
            answer = await stub.Classify(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            self.tally.failures.append(f"{gateway}: {error.code().name}: {error.details()}")
        else:
            self.tally.versions[f"{model}@{answer.served_by.version}"] += 1
            self.tally.runtimes[f"{model} {runtime_name(answer.served_by.runtime)}"] += 1
        self.tally.slowest_seconds = max(self.tally.slowest_seconds, time.monotonic() - started)
        self._answered.set()
