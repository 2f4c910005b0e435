"""What tests of pools share: pods that come with their versions and go, and a gateway over them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from conch.v1 import models_pb2
from services.gateway.routes import RoutesFile
from tests.contract.fake_triton import FakeTriton, running
from tests.contract.gateway.stack import Stack, gateway

Load = tuple[int, list[grpc.aio.AioRpcError]]


class Pool:
    """The pods of one pool, and the file that names them in place of DNS."""

    def __init__(self, home: Path, name: str = "cpu") -> None:
        self.name = name
        self.file = home / f"{name}.servers"
        self.pods: list[FakeTriton] = []
        self._exits = AsyncExitStack()
        self._named: list[FakeTriton] = []
        self._write()

    @property
    def address(self) -> str:
        return f"file://{self.file}"

    async def add(self, *versions: int, model: str = "sentiment", **knobs: Any) -> FakeTriton:
        """Starts a pod that staged these versions; it never gets others."""
        pod = await self._exits.enter_async_context(running(**knobs))
        pod.loaded = {model: set(versions)}
        self.pods.append(pod)
        self.name_only(*self._named, pod)
        return pod

    def name_only(self, *pods: FakeTriton) -> None:
        """Makes discovery name these pods and no others."""
        self._named = list(pods)
        self._write()

    async def terminate(self, pod: FakeTriton) -> None:
        """Ends a pod as Kubernetes does: out of DNS and SIGTERM at once, gone a little later."""
        self.name_only(*(p for p in self._named if p is not pod))
        pod.loaded.clear()  # from SIGTERM on, Triton answers NOT_FOUND
        await asyncio.sleep(0.2)
        await pod.die()

    async def close(self) -> None:
        await self._exits.aclose()

    def _write(self) -> None:
        text = "".join(f"{pod.address}\n" for pod in self._named)
        partial = self.file.with_suffix(".new")
        partial.write_text(text)
        partial.rename(self.file)


@asynccontextmanager
async def pool(home: Path, name: str = "cpu") -> AsyncIterator[Pool]:
    """Yields a pool without pods."""
    made = Pool(home, name)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def over(
    home: Path,
    *pools: Pool,
    runtime: str = "onnxruntime",
    routes: tuple[models_pb2.Route, ...] = (),
    **more: Any,
) -> AsyncIterator[Stack]:
    """Yields a gateway over `pools`, which begins with `routes`."""
    if routes:
        write(home, *routes)
    settings = {p.name: {"address": p.address, "runtime": runtime} for p in pools}
    async with gateway(home, "127.0.0.1:1", staged_by="pool", pools=settings, **more) as stack:
        yield stack


def write(home: Path, *routes: models_pb2.Route) -> None:
    """Writes the routes file."""
    RoutesFile(home / "routes.json").write(models_pb2.Routes(routes=routes))


async def problem(stack: Stack) -> str:
    """Returns why the routes do not hold, empty if they do."""
    return str((await stack.models.GetRoutes(models_pb2.GetRoutesRequest())).problem)


def sample(stack: Stack, name: str, **labels: str) -> float | None:
    """Returns what Prometheus would read."""
    return stack.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def steady_calls(stack: Stack, *, callers: int = 4) -> AsyncIterator["Calls"]:
    """Yields what callers, who call one after the other all the time, have seen so far."""
    calls = Calls()
    tasks = [asyncio.create_task(calls.run(stack)) for _ in range(callers)]
    try:
        yield calls
    finally:
        calls.over.set()
        await asyncio.gather(*tasks)


class Calls:
    """Versions that answered, and errors."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.versions: list[int] = []
        self.errors: list[grpc.aio.AioRpcError] = []

    async def run(self, stack: Stack) -> None:
        while not self.over.is_set():
            try:
                self.versions.append((await stack.classify()).version)
            except grpc.aio.AioRpcError as error:
                self.errors.append(error)
            await asyncio.sleep(0.002)
