"""Closed-loop callers against a gateway: each sends its next text once the last one is answered.

Runs in a process of its own. Requests are serialized beforehand and answers stay bytes, so that the
callers cost as little as grpc.aio can.
"""

import asyncio
import multiprocessing as mp
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import grpc
import grpc.aio
import uvloop

from conch.v1 import inference_pb2

CLASSIFY = "/conch.v1.InferenceService/Classify"


@dataclass(frozen=True)
class Load:
    """One run: wall seconds and the latency of each call, in seconds."""

    seconds: float
    latencies: list[float]

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Returns a latency quantile in seconds."""
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Callers:
    """A child process that makes calls; kept between runs so that its start costs nothing."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"))

    def run(self, target: str, texts: Sequence[str], *, model: str, version: int, callers: int) -> Load:
        """Sends each text once, `callers` at a time. Raises grpc.RpcError if any call fails."""
        bodies = [
            inference_pb2.ClassifyRequest(model=model, version=version, texts=[text]).SerializeToString()
            for text in texts
        ]
        return self._pool.submit(_run, target, bodies, callers).result()

    def stop(self) -> None:
        """Ends the child."""
        self._pool.shutdown()


def _run(target: str, bodies: Sequence[bytes], callers: int) -> Load:
    return uvloop.run(_call_all(target, bodies, callers))


async def _call_all(target: str, bodies: Sequence[bytes], callers: int) -> Load:
    latencies: list[float] = []
    waiting = iter(bodies)
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.channel_ready()
        classify = channel.unary_unary(CLASSIFY, request_serializer=None, response_deserializer=None)

        async def caller() -> None:
            for body in waiting:
                started = time.perf_counter()
                await classify(body, timeout=120)
                latencies.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return Load(time.perf_counter() - started, latencies)
